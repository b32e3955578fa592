"""
One network at two sites: adapters that are exchanged and merged
================================================================

Two sites measure the same things with instruments of their own. One network serves both, with an adapter of some
hundred numbers for each: :class:`~sklowrank.adapt.LDUAdapter`.
"""

# %%
# A network for the digits, trained once. Site A has another gain at each pixel, and the images of site B lie one pixel
# to the right. Each has 100 labelled images.

import io

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split

from sklowrank.adapt import LDUAdapter
from sklowrank.neural import NetworkClassifier

X, y = load_digits(return_X_y=True)
X, X_other, y, y_other = train_test_split(X / 16, y, test_size=0.6, stratify=y, random_state=0)
network = NetworkClassifier((128, 128), max_iter=30, tol=0, standardize=False, learning_rate=2e-3, random_state=0)
network.fit(X, y)

moved = {
    "A": X_other * np.random.default_rng(0).uniform(0.1, 1.9, 64),
    "B": np.roll(X_other.reshape(-1, 8, 8), 1, axis=2).reshape(-1, 64),
}
sites = {
    name: train_test_split(rows, y_other, train_size=100, stratify=y_other, random_state=0)
    for name, rows in moved.items()
}

# %%
# An adapter for each site, stored in a file: here in memory.

files = {}
for name, (S, _, s, _) in sites.items():
    adapter = LDUAdapter(FrozenEstimator(network), head="keep", random_state=0).fit(S, s)
    files[name] = io.BytesIO()
    np.savez(files[name], **adapter.get_adapter())
size = sum(value.nbytes for value in adapter.get_adapter().values())
print(f"{adapter.n_trainable_parameters_} numbers, {size} bytes for each site; the network has {network.n_parameters_}")

# %%
# One estimator that takes the adapter of whichever site it has to serve. Switched off it is the network.

accuracy = {}
for site, (_, T, _, t) in sites.items():
    with adapter.disable():
        accuracy[site] = {"none": adapter.score(T, t)}
    for stored in sites:
        files[stored].seek(0)
        adapter.set_adapter(dict(np.load(files[stored])))
        accuracy[site][stored] = adapter.score(T, t)
    print(f"site {site}: " + ", ".join(f"adapter {name} {value:.3f}" for name, value in accuracy[site].items()))

# %%
# Merged, it is a network like the first one, for a machine that serves site B alone.

merged = adapter.merge()
print(f"{type(merged).__name__}, accuracy at site B {merged.score(sites['B'][1], sites['B'][3]):.3f}")

figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
for i, name in enumerate(["none", *sites]):
    values = [accuracy[site][name] for site in sites]
    bars = axis.bar(np.arange(2) + 0.27 * (i - 1), values, width=0.25, label=f"adapter: {name}")
    axis.bar_label(bars, fmt="%.2f", fontsize="small")
axis.set_xticks(range(2), ["site A: other gains", "site B: one pixel to the right"])
axis.set(ylabel="accuracy", ylim=(0, 1.1))
axis.legend(loc="lower right", fontsize="small")
plt.show()

# %%
# What to see: each site is served best by its own adapter, and badly by that of the other one. Gains are small changes
# that a diagonal can follow; of the shift it makes up for most, not for all.
