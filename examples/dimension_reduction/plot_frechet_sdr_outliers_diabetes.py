"""
Responses with outliers: robustness of Fréchet dimension reduction
==================================================================

Some responses are wrong by a misplaced decimal point. Methods that use their values follow the outliers;
:class:`~sklowrank.dimension_reduction.FrechetSDR` and :class:`~sklowrank.dimension_reduction.LinearFrechetSDR` with
``method="fccov"`` use the order of distances alone.
"""

# %%
# Diabetes: ten columns of 442 patients, and the progression of the disease after a year. A share of the training
# responses is multiplied by 100. The score is Spearman's correlation of the first feature with the true responses of
# held-out patients.

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import spearmanr
from sklearn.cross_decomposition import PLSRegression
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import scale

from sklowrank.dimension_reduction import FrechetSDR, LinearFrechetSDR

X, y = load_diabetes(return_X_y=True)
X = scale(X)
methods = {
    "PLSRegression": lambda: PLSRegression(1),
    "LinearFrechetSDR, wire": lambda: LinearFrechetSDR(1),
    "LinearFrechetSDR, fccov": lambda: LinearFrechetSDR(1, method="fccov"),
    "FrechetSDR": lambda: FrechetSDR(1, n_estimators=3, random_state=0),
}
shares = [0, 0.02, 0.05, 0.1]
found = {name: np.zeros((3, len(shares))) for name in methods}
for split in range(3):
    X_fit, X_new, y_fit, y_new = train_test_split(X, y, test_size=0.4, random_state=split)
    draws = np.random.default_rng(split).random(len(y_fit))
    for j, wrong in enumerate(shares):
        y_wrong = np.where(draws < wrong, 100 * y_fit, y_fit)
        for name, make in methods.items():
            feature = make().fit(X_fit, y_wrong).transform(X_new)[:, 0]
            found[name][split, j] = abs(spearmanr(feature, y_new).statistic)
for name, values in found.items():
    print(f"{name:24}", values.mean(0).round(2))

# %%
# Means over three splits.

figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
for (name, values), colour in zip(found.items(), ["#9aa5b1", "#c08a3e", "#7c6fb0", "#0f766e"]):
    axis.plot(100 * np.array(shares), values.mean(0), marker="o", label=name, color=colour)
axis.set(xlabel="per cent of responses multiplied by 100", ylabel="rank correlation with the truth", ylim=(0, None))
axis.legend(frameon=False)
plt.show()

# %%
# What to see: with clean responses all four methods are nearly equal, because the relation is nearly linear: use the
# simplest. Outliers, even two per cent, mislead the methods that use values; those that use the order of distances
# hardly change.
