"""
Layers of low rank: fitted to weights, or to outputs
====================================================

A layer of low rank has a fraction of the parameters. The nearest one to the weight is its truncated singular value
decomposition. :class:`~sklowrank.compress.LowRankCompressor` takes the one whose outputs are nearest, on some rows
without labels, and chooses a rank for each layer.
"""

# %%
# A network for handwritten digits, trained once. It is frozen: nothing below trains it further.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split

from sklowrank.compress import LowRankCompressor
from sklowrank.neural import NetworkClassifier

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, test_size=0.4, stratify=y, random_state=0)

network = NetworkClassifier((256, 256, 256), max_iter=20, tol=0, standardize=False, random_state=0)
frozen = FrozenEstimator(network.fit(X_train, y_train))
print(f"{network.n_parameters_} parameters, accuracy {network.score(X_test, y_test):.3f}")

# %%
# Three methods have one rank in all hidden layers. The fourth way has a budget of parameters, and chooses the ranks.
# All of them look at 300 rows.

ranks = [4, 6, 8, 12, 16, 24]
methods = {"weight SVD": "weight_svd", "input whitened": "input_whitened", "output PCA": "output_pca"}
dense = LowRankCompressor(frozen, rank=1.0).fit(X_train[:300]).predict_raw(X_test)


def figures(model):
    """Size, relative error of the outputs and accuracy on new digits."""
    error = np.square(model.predict_raw(X_test) - dense).sum() / np.square(dense - dense.mean(0)).sum()
    return model.compression_, error, model.score(X_test, y_test)


curves = {}
for name, method in methods.items():
    models = [LowRankCompressor(frozen, rank=rank, method=method, exclude="6").fit(X_train[:300]) for rank in ranks]
    curves[name] = np.array([figures(model) for model in models]).T
budgets = curves["output PCA"][0]
models = [LowRankCompressor(frozen, compression=share).fit(X_train[:300]) for share in budgets]
curves["output PCA, ranks by budget"] = np.array([figures(model) for model in models]).T
for name, (share, error, accuracy) in curves.items():
    print(f"{name}, {share[1]:.1%} of the parameters: error {error[1]:.3f}, accuracy {accuracy[1]:.3f}")

# %%
# The ranks that a budget has led to, and the errors and accuracies by size.

print(models[1].layer_report_.to_frame()[["name", "shape", "rank", "n_parameters", "explained"]])

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
for name, (share, error, accuracy) in curves.items():
    left.loglog(100 * share, error, marker="o", label=name)
    right.semilogx(100 * share, accuracy, marker="o", label=name)
right.axhline(network.score(X_test, y_test), color="0.6", linestyle=":", label="not compressed")
left.set(ylabel="relative error of the outputs")
right.set(ylabel="accuracy on new digits")
for axes in (left, right):
    axes.set(xlabel="parameters (%)", xticks=[5, 10, 20], xticklabels=["5", "10", "20"])
    axes.minorticks_off()
right.legend(fontsize="small")
plt.show()

# %%
# What to see: at equal size the layers that are fitted to outputs have a fraction of the error of those that are
# nearest to the weights. Below a tenth of the parameters that decides on the accuracy. Ranks that are chosen by a
# budget have the smallest errors, and none is looked for by hand.
