"""
Privacy against accuracy: digits from a single release
======================================================

:class:`~sklowrank.privacy.PrivateSimilarityClassifier` labels a row by its mean similarity to the private rows of each
class, from one noisy sketch per class. How much accuracy privacy costs depends on the budget and on the number of rows;
pure differential privacy, with ``delta=0``, costs more.
"""

# %%
# The digits that come with scikit-learn, pixels divided by 16, which is public. Each point is the mean of three fits.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

from sklowrank.privacy import PrivacyAccountant, PrivateSimilarityClassifier

X, y = load_digits(return_X_y=True)
X, X_new, y, y_new = train_test_split(X / 16, y, test_size=0.3, random_state=0, stratify=y)
budgets = np.array([0.1, 0.3, 1.0, 3.0, 10.0])
methods = {
    "Gaussian similarity, delta = 1e-6": {"bandwidth": 1.2},
    "linear similarity, delta = 1e-6": {"similarity": "linear"},
    "linear similarity, delta = 0": {"similarity": "linear", "delta": 0.0},
    "Gaussian similarity, delta = 0": {"bandwidth": 1.2, "delta": 0.0},
}
accuracy, purse = {}, PrivacyAccountant(delta=1e-3)  # no limit of epsilon: these rows are public
for name, params in methods.items():
    params |= {"bounds": (0, 1), "classes": range(10), "accountant": purse}
    models = [PrivateSimilarityClassifier(epsilon=epsilon, **params) for epsilon in budgets]
    accuracy[name] = np.mean([[model.fit(X, y).score(X_new, y_new) for model in models] for _ in range(3)], axis=0)
    print(f"{name:35}", accuracy[name].round(2))
neighbours = KNeighborsClassifier().fit(X, y).score(X_new, y_new)
print(f"{'five neighbours, no privacy':35} {neighbours:.2f}")
print(f"to private rows, {len(purse.history)} fits would have cost epsilon = {purse.total()[0]:.0f}")

# %%
# Accuracy on rows that were not fitted.

figure, axis = plt.subplots(figsize=(7, 4.2), layout="constrained")
for (name, values), colour in zip(accuracy.items(), ["#0f766e", "#7c6fb0", "#c08a3e", "#9aa5b1"]):
    axis.semilogx(budgets, values, marker="o", label=name, color=colour)
axis.axhline(neighbours, color="#1f2933", linestyle=":", label="five neighbours, no privacy")
axis.axhline(0.1, color="#9aa5b1", linestyle=":", linewidth=1)
axis.set(xlabel="epsilon", ylabel="accuracy", ylim=(0, 1))
axis.legend(frameon=False, fontsize=8)
plt.show()

# %%
# What to see: with 1,257 rows a budget of one costs some fifteen points, of three some five, and 0.1 leaves little.
# Under pure differential privacy means of rows are better than kernels, whose many frequencies each cost noise. Each
# class has the whole budget, because a row is in one class only.
