"""
A network of digits in two bits, and paths that restore its accuracy
====================================================================

Rounding the weights of a network to a few bits makes it small and costs accuracy.
:class:`~sklowrank.compress.LowRankCompensator` adds a path of low rank beside each rounded weight. The path that is
best for the outputs of a layer, on some unlabelled rows, has a closed form; the one that is best for the weight is the
truncated SVD of what rounding has cut off.
"""

# %%
# A network for handwritten digits, trained once. It is frozen: nothing below trains it further.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split

from sklowrank.compress import LowRankCompensator
from sklowrank.neural import NetworkClassifier

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, test_size=0.4, stratify=y, random_state=0)

network = NetworkClassifier((256, 256, 256), max_iter=20, tol=0, standardize=False, random_state=0)
network.fit(X_train, y_train)
with torch.inference_mode():
    truth = network.network()(torch.from_numpy(X_test).float()).numpy()
print(f"{4 * network.n_parameters_ / 1000:.0f} kB, accuracy {network.score(X_test, y_test):.3f}")

# %%
# All layers but the last one are rounded to two bits: each weight becomes one of three values. The error is the change
# of the network's outputs on test rows, relative to their variance. With rank 0 there is no path.


def compensated(**params):
    """Fit to 256 training rows; return the accuracy, the error and the bytes as a share of those before."""
    model = LowRankCompensator(FrozenEstimator(network), random_state=0, **params).fit(X_train)
    change = model.predict_raw(X_test) - truth
    error = np.square(change).sum() / np.square(truth - truth.mean(0)).sum()
    return model.score(X_test, y_test), error, model.compression_


ranks = [0, 1, 2, 4, 8, 16, 32]
ways = {
    "SVD of the weight, biases as they are": {"method": "svd", "correct_bias": False},
    "SVD of the weight": {"method": "svd"},
    "eigenspace": {},
}
figures = {name: np.array([compensated(bits=2, rank=r, **params) for r in ranks]) for name, params in ways.items()}
for name, found in figures.items():
    print(f"{name}: error at rank 8 {found[4, 1]:.4f}, accuracy {found[4, 0]:.3f}")

# %%
# What a path costs in bytes, against more bits without one; biases are corrected in both. Paths can be stored in eight
# bits, too.

bits = [2, 3, 4, 5]
rounded = np.array([compensated(bits=b, rank=0) for b in bits])
coded = np.array([compensated(bits=2, rank=r, adapter_bits=8) for r in ranks[1:]])

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for name, found in figures.items():
    left.plot(range(len(ranks)), found[:, 1], marker="o", label=name)
left.set_xticks(range(len(ranks)), ranks)
left.set(xlabel="rank of the paths", ylabel="relative error of the outputs", yscale="log", title="two bits")
left.legend(fontsize="small")
right.plot(100 * rounded[:, 2], rounded[:, 1], marker="s", color="0.4", label="2 to 5 bits, no path")
right.plot(100 * coded[:, 2], coded[:, 1], marker="o", color="C2", label="2 bits, paths in 8 bits, rank 1 to 32")
right.set(xlabel="bytes, % of the network in single precision", ylabel="relative error of the outputs", yscale="log")
right.legend(fontsize="small")
plt.show()

# %%
# What to see: from rank 2 on the path that is fitted to outputs leaves less error than the SVD of the weight, at rank
# 32 a tenth of it. At rank 1 it does not help: each path is best for its own layer, not for the network. Much of what
# the SVD leaves is a mean, which the bias takes. On the right, what it costs: paths of rank 4 and 8 lie between two and
# three bits and on their line, and beyond them more bits are the better use of bytes in layers as narrow as these. A
# path's share of the bytes falls with the width; and where the format is given, a path is what is left to add.
