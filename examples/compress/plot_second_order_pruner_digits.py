"""
Pruning a network of digits, by magnitude and by curvature
==========================================================

Most weights of a trained network can be removed. The smallest ones are the usual choice.
:class:`~sklowrank.compress.SecondOrderPruner` asks by how much the loss grows where a weight goes and all others
follow, and lets them follow.
"""

# %%
# A network for handwritten digits, trained once. It is frozen: nothing below trains it further.

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split

from sklowrank.compress import SecondOrderPruner
from sklowrank.neural import NetworkClassifier

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, test_size=0.3, stratify=y, random_state=0)

network = NetworkClassifier((64, 64), max_iter=30, tol=0, standardize=False, learning_rate=2e-3, random_state=0)
network.fit(X_train, y_train)
print(f"{network.n_parameters_} parameters, accuracy {network.score(X_test, y_test):.3f}")

# %%
# It is pruned to several sparsities in three ways: by magnitude; by curvature that is computed once; and by curvature
# that is computed anew in each of eight steps.

ways = {
    "magnitude": {"criterion": "magnitude"},
    "curvature, one step": {"n_recompute": 1},
    "curvature, eight steps": {"n_recompute": 8},
}
sparsities = [0.5, 0.7, 0.8, 0.85, 0.9, 0.95]
accuracies = {}
for name, params in ways.items():
    accuracies[name] = []
    for sparsity in sparsities:
        pruner = SecondOrderPruner(FrozenEstimator(network), sparsity=sparsity, n_grads=256, random_state=0, **params)
        accuracies[name].append(pruner.fit(X_train, y_train).score(X_test, y_test))
    print(f"{name}: " + ", ".join(f"{value:.3f}" for value in accuracies[name]))

# %%
# The last pruner as a torch module, and which weights of the first layer it has kept: of each pixel, how many of its 64
# weights.

print(pruner.network())
kept = pruner.masks_["0.weight"].sum(0).reshape(8, 8)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), width_ratios=[1.6, 1], layout="constrained")
for name, values in accuracies.items():
    left.plot(sparsities, values, marker="o", label=name)
left.axhline(network.score(X_test, y_test), color="0.6", linestyle=":", label="not pruned")
left.set(xlabel="share of the weights that are removed", ylabel="accuracy on new digits", ylim=(0, 1))
left.legend(loc="lower left", fontsize="small")
image = right.imshow(kept, cmap="Greys")
right.set(xticks=[], yticks=[], title=f"weights kept per pixel at {sparsities[-1]:.0%}")
figure.colorbar(image, ax=right, shrink=0.8)
plt.show()

# %%
# What to see: without further training the network keeps its accuracy at sparsities at which the removal of the
# smallest weights loses it, and more so where the curvature is computed anew on the way. Weights of pixels at the
# border, which are almost always empty, go first.
