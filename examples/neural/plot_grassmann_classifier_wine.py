"""
Classes of directions, and a constant coordinate
================================================

:class:`~sklowrank.neural.GrassmannClassifier` sees the direction of a row, and not on which side of the origin it is: a
row and its negative have the same scores. That is right for images and spectra, and wrong for standardised tables.
There a constant coordinate is appended, by default where a table has negative entries.
"""

# %%
# Three cultivars of wine by two principal components of their standardised measurements.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklowrank.neural import GrassmannClassifier

X, y = load_wine(return_X_y=True)
X = StandardScaler().fit_transform(PCA(2).fit_transform(StandardScaler().fit_transform(X)))

# %%
# Subspaces of one dimension with the constant coordinate and without it, and the regions of their classes.

grid = np.stack(np.meshgrid(np.linspace(-2.5, 2.5, 200), np.linspace(-2.5, 2.5, 200)), axis=-1)
fig, axes = plt.subplots(1, 2, figsize=(9, 4.2), sharey=True)
for ax, add_bias in zip(axes, (False, True)):
    model = GrassmannClassifier(1, add_bias=add_bias, random_state=0).fit(X, y)
    regions = model.predict(grid.reshape(-1, 2)).reshape(200, 200)
    ax.contourf(
        grid[..., 0], grid[..., 1], regions, levels=[-0.5, 0.5, 1.5, 2.5], colors=["C0", "C1", "C2"], alpha=0.25
    )
    for c in range(3):
        ax.scatter(*X[y == c].T, s=12, color=f"C{c}")
    name = "with" if add_bias else "without"
    ax.set(title=f"{name} the constant: {model.score(X, y):.2f}", xlabel="component 1", aspect="equal")
axes[0].set_ylabel("component 2")
plt.tight_layout()
plt.show()

# %%
# All 13 measurements, on rows held out: five splits of subspaces of one dimension and of logistic regression.

X, y = load_wine(return_X_y=True)
models = {
    "without the constant": GrassmannClassifier(1, add_bias=False, random_state=0),
    "with the constant": GrassmannClassifier(1, random_state=0),
    "logistic regression": LogisticRegression(),
}
scores: dict[str, list[float]] = {name: [] for name in models}
for seed in range(5):
    A, B, a, b = train_test_split(X, y, test_size=0.4, stratify=y, random_state=seed)
    for name, model in models.items():
        scores[name].append(make_pipeline(StandardScaler(), model).fit(A, a).score(B, b))

fig, ax = plt.subplots(figsize=(6, 2.6))
for row, (name, values) in enumerate(scores.items()):
    ax.plot(values, [row] * 5, "o", alpha=0.6, color=f"C{row}")
    ax.plot(np.mean(values), row, "|", ms=25, mew=2, color=f"C{row}")
ax.set(yticks=range(3), yticklabels=list(scores), ylim=(-0.6, 2.6), xlabel="accuracy", title="13 measurements")
plt.tight_layout()
plt.show()

# %%
# What to see: without the constant the region of each class is a double cone about the origin, which two opposite
# classes have to share. With it the boundaries leave the origin, and subspaces of one dimension are as accurate as
# logistic regression: on such a table they have no advantage over it.
