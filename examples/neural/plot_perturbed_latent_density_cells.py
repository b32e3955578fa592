"""
Outlier scores of a nearly flat table
=====================================

Cells of breast tissue have a radius, a perimeter and an area, each as a mean and for the largest cells. The six columns
nearly determine one another, and rows that break their relations are to be found by low log densities. This is a table
*not* to use :class:`~sklowrank.neural.PerturbedLatentDensity` for: its rows lie near a set that is thin but nearly
flat, and a mixture of Gaussians finds many more of the spoilt rows.
"""

# %%
# Half of the rows to fit. Of the other half a copy is spoilt: one of the six values of each row is exchanged for that
# ten ranks higher in its column, so that no value is strange by itself.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import IsolationForest
from sklearn.metrics import RocCurveDisplay
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neighbors import KernelDensity
from sklearn.preprocessing import StandardScaler

from sklowrank.neural import PerturbedLatentDensity

table = load_breast_cancer()
columns = ["mean radius", "mean perimeter", "mean area", "worst radius", "worst perimeter", "worst area"]
X = table.data[:, [list(table.feature_names).index(name) for name in columns]]
A, B = train_test_split(X, test_size=0.5, random_state=0)
scaler = StandardScaler().fit(A)
A, B = scaler.transform(A), scaler.transform(B)

rng = np.random.default_rng(0)
spoilt = B.copy()
for i, j in enumerate(rng.integers(6, size=len(B))):
    ranked = np.sort(B[:, j])
    spoilt[i, j] = ranked[min(np.searchsorted(ranked, B[i, j]) + 10, len(B) - 1)]

# %%
# Log densities of four methods. Kernel width and number of Gaussians are found by cross-validation and by BIC; the
# perturbation is a twentieth of a standard deviation.

by_bic = [GaussianMixture(k, random_state=0).fit(A) for k in (1, 2, 3, 5, 8)]
models = {
    "PerturbedLatentDensity": PerturbedLatentDensity(
        3, 0.05, n_importance=5, max_iter=600, n_eval_samples=200, random_state=0
    ).fit(A),
    "mixture of Gaussians": min(by_bic, key=lambda model: model.bic(A)),
    "kernel density": GridSearchCV(KernelDensity(), {"bandwidth": np.geomspace(0.02, 1, 10)}).fit(A).best_estimator_,
    "isolation forest": IsolationForest(random_state=0).fit(A),
}
rows, is_spoilt = np.r_[B, spoilt], np.repeat([0, 1], len(B))
scores = {name: -model.score_samples(rows) for name, model in models.items()}

fig, axes = plt.subplots(1, 2, figsize=(9.5, 4))
axes[0].scatter(*B[:, [0, 2]].T, s=5, color="C7", label="rows")
axes[0].scatter(*spoilt[:, [0, 2]].T, s=5, color="C3", alpha=0.6, label="spoilt rows")
axes[0].set(xlabel="mean radius", ylabel="mean area", title="two of the six columns")
axes[0].legend()
for name, score in scores.items():
    RocCurveDisplay.from_predictions(is_spoilt, score, name=name, ax=axes[1])
axes[1].set(title="spoilt rows by their scores", xlabel="false alarms", ylabel="found")
plt.tight_layout()
plt.show()

# %%
# What to see: no value of a spoilt row is strange, and an isolation forest and a kernel density hardly tell them apart.
# The latent density is little better, because most of the exchanged values are off by less than its perturbation. The
# mixture finds most of them: the columns are nearly linear in one another, and its Gaussians become as thin as the rows
# are. The latent density has its use where the set is curved in two directions: on a surface in ten dimensions its
# likelihood is above those of mixtures and kernel densities, as its page of the documentation shows.
