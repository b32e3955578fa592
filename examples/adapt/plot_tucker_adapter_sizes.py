"""
How large an adapter has to be
==============================

A network serves several sites whose data differ from those of its training. An adapter for each of them can be anything
from some hundred numbers to a copy of all weights. What is gained by more numbers?
"""

# %%
# A network for the digits, and three sites whose images lie one pixel to the right, to the left, and further up. Each
# has 100 labelled images.

import copy

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split

from sklowrank.adapt import LDUAdapter, TuckerAdapter
from sklowrank.neural import NetworkClassifier

X, y = load_digits(return_X_y=True)
X, X_other, y, y_other = train_test_split(X / 16, y, test_size=0.6, stratify=y, random_state=0)
params = {"max_iter": 30, "tol": 0, "standardize": False, "learning_rate": 2e-3, "random_state": 0}
network = NetworkClassifier((128, 128), **params).fit(X, y)

sites = []
for step, axis in ((1, 2), (-1, 2), (-1, 1)):
    moved = np.roll(X_other.reshape(-1, 8, 8), step, axis=axis).reshape(-1, 64)
    sites.append(train_test_split(moved, y_other, train_size=100, stratify=y_other, random_state=0))
before = np.mean([network.score(T, t) for _, T, _, t in sites])
print(f"accuracy before {network.score(X_other, y_other):.3f}, at the sites {before:.3f}")

# %%
# Diagonals, updates of growing rank, each without and with the last layer, and all weights.

frozen = FrozenEstimator(network)
families = {
    "LDUAdapter": [LDUAdapter(frozen, head=head, random_state=0) for head in ("keep", "train")],
    "TuckerAdapter, head kept": [TuckerAdapter(frozen, rank=r, head="keep", random_state=0) for r in (1, 2, 4, 8)],
    "TuckerAdapter": [TuckerAdapter(frozen, rank=r, random_state=0) for r in (1, 4, 16)],
}
curves = {}
for name, adapters in families.items():
    curves[name] = []
    for adapter in adapters:
        score = np.mean([adapter.fit(S, s).score(T, t) for S, T, s, t in sites])
        size = sum(value.nbytes for value in adapter.get_adapter().values())
        curves[name].append((size, score))
        print(f"{name}: {size:>6} bytes, accuracy {score:.3f}")

warm = copy.deepcopy(network).set_params(warm_start=True, max_iter=60)
score = np.mean([copy.deepcopy(warm).fit(S, s).score(T, t) for S, T, s, t in sites])
curves["all weights"] = [(4 * network.n_parameters_, score)]
print(f"all weights: {4 * network.n_parameters_} bytes, accuracy {score:.3f}")

# %%
figure, axis = plt.subplots(figsize=(6.4, 4), layout="constrained")
for name, points in curves.items():
    axis.plot(*zip(*points), marker="o", label=name)
axis.axhline(before, color="0.6", linestyle=":", label="not adapted")
axis.set(xlabel="bytes for each site", ylabel="mean accuracy at the sites", xscale="log")
axis.legend(loc="center right", fontsize="small")
plt.show()

# %%
# What to see: the diagonals of 820 bytes are above an update of rank 1 with three times as many, and ten kilobytes are
# enough for most of what can be gained. All weights stay the best by a hundredth, at three to ten times the size.
