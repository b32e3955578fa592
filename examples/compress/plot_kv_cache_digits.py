"""
A cache of attention: which numbers of keys and values are needed
=================================================================

Attention stores keys and values of each token that it has read. :class:`~sklowrank.compress.KVCacheCompressor` stores
fewer numbers, chosen by what scores and outputs need, and gives each head as many as it uses.
"""

# %%
# A transformer with two blocks reads digits row by row: eight tokens of eight pixels.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from torch import nn

from sklowrank.compress import KVCacheCompressor
from sklowrank.neural import NetworkClassifier


class Reader(nn.Module):
    """Tokens are the rows of an image."""

    def __init__(self, width=48, heads=4):
        super().__init__()
        self.read, self.place = nn.Linear(8, width), nn.Parameter(torch.randn(8, width) / 4)
        block = {"dim_feedforward": 96, "dropout": 0.0, "batch_first": True}
        self.blocks = nn.ModuleList([nn.TransformerEncoderLayer(width, heads, **block) for _ in range(2)])
        self.output = nn.Linear(width, 10)

    def forward(self, x):
        x = self.read(x.unflatten(1, (8, 8))) + self.place
        for block in self.blocks:
            x = block(x)
        return self.output(x.mean(1))


X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, test_size=0.4, stratify=y, random_state=0)
params = {"max_iter": 12, "tol": 0, "learning_rate": 3e-3, "batch_size": 64, "standardize": False, "random_state": 0}
frozen = FrozenEstimator(NetworkClassifier(module=Reader, **params).fit(X_train, y_train))
print(f"accuracy {frozen.score(X_test, y_test):.3f}")

# %%
# The errors of the outputs on new digits, by the share of the numbers that is stored.

dense = KVCacheCompressor(frozen, n_components=1.0).fit(X_train).predict_raw(X_test)
ways = {
    "principal components, as many in each head": {"init": "pca", "group_ranks": "uniform"},
    "scores and outputs, as many in each head": {"group_ranks": "uniform"},
    "scores and outputs, ranks of each head": {},
}
shares = [1 / 12, 1 / 6, 1 / 4, 1 / 3, 1 / 2]
errors = {}
for name, how in ways.items():
    models = [KVCacheCompressor(frozen, n_components=share, **how).fit(X_train) for share in shares]
    changes = [np.square(model.predict_raw(X_test) - dense).sum() for model in models]
    errors[name] = np.array(changes) / np.square(dense - dense.mean(0)).sum()
quarter = KVCacheCompressor(frozen, n_components=0.25).fit(X_train)
print(quarter.layer_report_.to_frame().to_string(index=False))
print(f"accuracy with a quarter of the numbers {quarter.score(X_test, y_test):.3f}")

# %%
# Errors, and the ranks at a quarter of the numbers.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
for name, found in errors.items():
    left.loglog(100 * np.array(shares), found, marker="o", label=name)
left.set(xlabel="stored numbers (%)", ylabel="relative error of the outputs", xticks=[10, 20, 50])
left.set_xticklabels(["10", "20", "50"])
left.minorticks_off()
left.legend(fontsize="small")
table = np.array([row["key_ranks"] + row["value_ranks"] for row in quarter.layer_report_])
image = right.imshow(table, cmap="viridis", vmin=0)
right.set(xticks=range(8), yticks=range(2), yticklabels=["block 1", "block 2"])
right.set_xticklabels([f"{kind} {head}" for kind in ("keys", "values") for head in range(1, 5)], rotation=60)
for (i, j), rank in np.ndenumerate(table):
    right.text(j, i, rank, ha="center", va="center", color="white" if rank < table.max() / 2 else "black")
right.set_title("ranks, of 12, at a quarter")
plt.show()

# %%
# What to see: at equal size, keys and values that are fitted to scores and outputs have a smaller error than their
# principal components, and most of the gain comes from ranks that differ: keys need one or two numbers per head here,
# values four or five.
