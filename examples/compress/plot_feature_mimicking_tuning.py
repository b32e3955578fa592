"""
What tuning gains after a compression
=====================================

Below some rank a network loses accuracy, however its layers are compressed.
:class:`~sklowrank.compress.FeatureMimickingCompressor` trains the small network for some epochs: to the labels, to the
outputs of the large one, or to both. Between the layers of a pair it can put an activation.
"""

# %%
# A network for handwritten digits, trained once and frozen. A narrow network is trained from scratch for comparison.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split

from sklowrank.compress import FeatureMimickingCompressor
from sklowrank.neural import NetworkClassifier

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, test_size=0.4, stratify=y, random_state=0)

settings = {"tol": 0, "standardize": False, "random_state": 0}
network = NetworkClassifier((256, 256, 256), max_iter=20, **settings).fit(X_train, y_train)
frozen = FrozenEstimator(network)
print(f"{network.n_parameters_} parameters, accuracy {network.score(X_test, y_test):.3f}")

# %%
# Layers at several ranks: without training, and after ten epochs.

ranks = [2, 3, 4, 6, 8]
ways = {
    "one shot": {"max_iter": 0},
    "ten epochs": {"max_iter": 10},
    "ten epochs, ReLU within": {"max_iter": 10, "inner_activation": "relu"},
}
how = {"first_layer": True, "batch_size": 64, "random_state": 0}
accuracies, shares = {}, []
for name, params in ways.items():
    models = [FeatureMimickingCompressor(frozen, linear_rank=r, **params, **how).fit(X_train, y_train) for r in ranks]
    accuracies[name] = [model.score(X_test, y_test) for model in models]
    print(f"{name}: " + ", ".join(f"{value:.3f}" for value in accuracies[name]))
    shares = shares or [model.compression_ for model in models]


def narrow(share):
    """Train a network of as many parameters from scratch, for as many epochs in all."""
    sizes = {w: 64 * w + 2 * w * w + 10 * w + 3 * w + 10 for w in range(1, 257)}
    width = min(sizes, key=lambda w: abs(sizes[w] - share * sizes[256]))
    return NetworkClassifier((width,) * 3, max_iter=30, **settings).fit(X_train, y_train)


accuracies["narrow, from scratch"] = [narrow(share).score(X_test, y_test) for share in shares]

# %%
# At rank 3 the loss on rows that are held out, by what the network is trained to. The weights with the lowest loss are
# kept, and those before the training are among them.

curves = {}
for weight in (0.0, 0.5, 1.0):
    model = FeatureMimickingCompressor(frozen, linear_rank=3, max_iter=10, distillation=weight, **how)
    model.fit(X_train, y_train)
    curves[weight] = model.loss_curve_
    print(f"distillation={weight}: accuracy {model.score(X_test, y_test):.3f}")

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
for name, values in accuracies.items():
    left.semilogx(100 * np.array(shares), values, marker="o", label=name)
left.axhline(network.score(X_test, y_test), color="0.6", linestyle=":", label="not compressed")
left.set(xlabel="parameters (%)", ylabel="accuracy on new digits", xticks=[4, 6, 8], xticklabels=["4", "6", "8"])
left.minorticks_off()
left.legend(fontsize="small")
for weight, losses in curves.items():
    right.semilogy(np.arange(1, len(losses) + 1), losses, label=f"distillation={weight:g}")
right.set(xlabel="epoch", ylabel="loss on rows held out, rank 3")
right.legend(fontsize="small")
plt.show()

# %%
# What to see: ten epochs gain most where one shot loses most, at the lowest ranks; at rank 8, with a tenth of the
# parameters, the small network is as accurate as the large one. A network that is narrow from the start is better below
# that: where it can be trained for as long, and the size is that small, nothing is gained by a compression. An
# activation between the layers adds nothing here.
