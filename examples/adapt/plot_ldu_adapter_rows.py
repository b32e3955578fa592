"""
How few rows are enough: diagonals, updates of low rank and all weights
=======================================================================

The instruments behind a table are recalibrated: each column has another scale. A network that was trained before is
adapted with few rows, by :class:`~sklowrank.adapt.LDUAdapter`, by :class:`~sklowrank.adapt.TuckerAdapter`, and by
training on of all its weights.
"""

# %%
# Cells of tumours in 30 columns. The network is trained on 250 rows; the others come from the recalibrated instruments.

import copy

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from sklowrank.adapt import LDUAdapter, TuckerAdapter
from sklowrank.neural import NetworkClassifier

X, y = load_breast_cancer(return_X_y=True)
X, X_other, y, y_other = train_test_split(X, y, train_size=250, stratify=y, random_state=0)
scaler = StandardScaler().fit(X)
params = {"max_iter": 40, "tol": 0, "standardize": False, "random_state": 0}
network = NetworkClassifier((32, 32), **params).fit(scaler.transform(X), y)

rng = np.random.default_rng(0)
drifted = scaler.transform(X_other) * rng.uniform(-0.3, 1.7, 30) + 0.3 * rng.normal(size=30)
as_before, now = network.score(scaler.transform(X_other), y_other), network.score(drifted, y_other)
print(f"accuracy without the drift {as_before:.3f}, with it {now:.3f}")

# %%
# Four draws of each number of rows.

sizes, draws = [8, 16, 32, 64], 4


def all_weights(S, s):
    """Train a copy of the network on."""
    return copy.deepcopy(network).set_params(warm_start=True, max_iter=60, learning_rate=2e-3).fit(S, s)


ways = {
    "LDUAdapter, biases": lambda S, s: LDUAdapter(frozen, head="keep", bias=True, random_state=0).fit(S, s),
    "TuckerAdapter": lambda S, s: TuckerAdapter(frozen, rank=4, random_state=0).fit(S, s),
    "all weights": all_weights,
    "a new network": lambda S, s: NetworkClassifier((32, 32), **params).fit(S, s),
}
frozen, found = FrozenEstimator(network), {name: [] for name in ways}
for n_rows in sizes:
    for name, fit in ways.items():
        right = []
        for draw in range(draws):
            S, T, s, t = train_test_split(drifted, y_other, train_size=n_rows, stratify=y_other, random_state=draw)
            right.append(fit(S, s).score(T, t))
        found[name].append(np.mean(right))
    print(n_rows, {name: round(float(values[-1]), 3) for name, values in found.items()})

# %%
figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
for name, accuracies in found.items():
    axis.plot(sizes, accuracies, marker="o", label=name)
axis.axhline(network.score(drifted, y_other), color="0.6", linestyle=":", label="not adapted")
axis.set(xlabel="rows to adapt to", ylabel="accuracy", xscale="log")
axis.set_xticks(sizes, [str(n) for n in sizes])
axis.legend(loc="lower right", fontsize="small")
plt.show()

# %%
# What to see: with up to 32 rows the diagonals and biases, some hundred numbers, are level with all weights, and above
# updates of low rank and a network that is trained anew. With more rows all weights are better. The drift has cost
# the network little, so there is little to be gained.
