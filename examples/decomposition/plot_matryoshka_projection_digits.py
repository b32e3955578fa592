"""
Prefixes of a projection: what a network needs of its rows
==========================================================

A network is fitted, and its rows are to be stored in fewer numbers. Principal components keep the variance of the rows,
whatever the network does with it. :class:`~sklowrank.decomposition.MatryoshkaProjection` keeps the network's answers,
in each prefix of the numbers.
"""

# %%
# Digits under a strong nuisance: twelve directions of noise are added to each image, as changing light would be. The
# network is fitted to such rows, so that its answers depend little on the noise.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.cross_decomposition import PLSRegression
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split

from sklowrank.decomposition import MatryoshkaProjection
from sklowrank.neural import NetworkClassifier

X, y = load_digits(return_X_y=True)
rng = np.random.default_rng(0)
tables = {
    "digits": X / 16,
    "digits with a nuisance": X / 16 + 0.3 * rng.normal(size=(len(X), 12)) @ rng.normal(size=(12, 64)),
}
widths = [2, 4, 6, 8, 12, 16, 24, 32, 64]

# %%
# One fit of each method. A row is stored as its first few coordinates, and rebuilt before the network sees it.


def curve(network, components, mean, X_test, y_test):
    """Accuracy of the network on rows that are rebuilt from a prefix."""
    found = []
    for width in widths:
        Q = np.linalg.qr(components[:width].T)[0]
        found.append(network.score((X_test - mean) @ Q @ Q.T + mean, y_test))
    return found


curves = {}
for name, rows in tables.items():
    X_train, X_test, y_train, y_test = train_test_split(rows, y, test_size=0.4, stratify=y, random_state=0)
    params = {"max_iter": 25, "tol": 0, "standardize": False, "learning_rate": 2e-3, "weight_decay": 0.01}
    network = NetworkClassifier((128, 128), random_state=0, **params).fit(X_train, y_train)
    pca = PCA().fit(X_train)
    pls = PLSRegression(32).fit(X_train, np.eye(10)[y_train])
    pls_components = np.vstack([pls.x_rotations_.T, np.eye(64)])  # any others behind them
    nested = MatryoshkaProjection(estimator=FrozenEstimator(network), max_iter=300, random_state=0).fit(X_train)
    curves[name] = {
        "PCA": curve(network, pca.components_, pca.mean_, X_test, y_test),
        "PLSRegression": curve(network, pls_components, pca.mean_, X_test, y_test),
        "MatryoshkaProjection": curve(network, nested.components_, nested.mean_, X_test, y_test),
    }
    print(name, {method: round(accuracies[1], 3) for method, accuracies in curves[name].items()})

figure, panels = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained", sharey=True)
for axes, (name, methods) in zip(panels, curves.items()):
    for method, accuracies in methods.items():
        axes.semilogx(widths, accuracies, marker="o", label=method)
    axes.set(title=name, xlabel="stored numbers per row", xticks=[2, 4, 8, 16, 32, 64])
    axes.set_xticklabels(["2", "4", "8", "16", "32", "64"])
    axes.minorticks_off()
panels[0].set_ylabel("accuracy of the network")
panels[0].legend()
plt.show()

# %%
# What to see: on the left, four numbers of 64 give the network most of its accuracy, where principal components give it
# two thirds. On the right the first twelve principal components are the nuisance, and the network guesses; the
# nested projection leaves it out. All widths come from one fit.
