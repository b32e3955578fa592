"""
Adapters of two tasks on one network in two bits
================================================

A network in two bits is shipped once. What it answers worst differs between those who use it: each gets an adapter of
some kilobytes, fitted by :class:`~sklowrank.compress.LowRankCompensator` to unlabelled rows of their own, which makes
up for the errors of rounding there.
"""

# %%
# A network for handwritten digits. One user reads the digits 0 to 4, another one 5 to 9.

import tempfile
from pathlib import Path

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

# %%
# The rounded weights do not depend on rows, so that adapters of both users fit to one compressed network. They are
# written to files without the weights, and loaded into a network that has others.

options = {"bits": 2, "rank": 4, "n_calibration": None}
low, high = y_train < 5, y_train >= 5
folder = Path(tempfile.mkdtemp())
for name, rows in {"0 to 4": X_train[low], "5 to 9": X_train[high], "all digits": X_train}.items():
    LowRankCompensator(FrozenEstimator(network), **options).fit(rows).save_adapters(folder / f"{name}.npz")

shipped = LowRankCompensator(FrozenEstimator(network), **options).fit(X_train[:50])
sizes = {file.stem: file.stat().st_size for file in sorted(folder.glob("*.npz"))}
print(f"network {shipped.nbytes_before_ / 1000:.0f} kB, in two bits with an adapter {shipped.nbytes_ / 1000:.0f} kB")
print(f"files of adapters: {', '.join(f'{name} {size / 1000:.0f} kB' for name, size in sizes.items())}")

# %%
# The error is the change of the outputs on test rows, relative to their variance among these rows.

with torch.inference_mode():
    truth = network.network()(torch.from_numpy(X_test).float()).numpy()


def errors(model):
    """Relative errors on test rows of each digit."""
    change = np.square(model.predict_raw(X_test) - truth).sum(1)
    spread = np.square(truth - truth.mean(0)).sum(1)
    return np.array([change[y_test == digit].sum() / spread[y_test == digit].sum() for digit in range(10)])


found = {"no adapter": errors(LowRankCompensator(FrozenEstimator(network), bits=2, rank=0, correct_bias=False).fit(X))}
for name in sizes:
    found[f"adapter of {name}"] = errors(shipped.load_adapters(folder / f"{name}.npz"))
for name, values in found.items():
    print(f"{name}: digits 0 to 4 {values[:5].mean():.3f}, 5 to 9 {values[5:].mean():.3f}")

figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
for i, (name, values) in enumerate(found.items()):
    axis.bar(np.arange(10) + 0.2 * (i - 1.5), values, 0.2, label=name, color=["0.7", "C0", "C1", "C2"][i])
axis.set(xlabel="digit", ylabel="relative error of the outputs", yscale="log", xticks=range(10))
axis.legend(fontsize="small", ncols=2)
plt.show()

# %%
# What to see: on its own digits an adapter leaves a tenth of the error of the rounded network, and less than the other
# adapter does, but for the 9. One adapter of the same rank for all digits is as good on the digits 0 to 4, and worse on
# most of the others: it has more to make up for.
