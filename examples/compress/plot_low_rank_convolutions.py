"""
A convolutional network, compressed to a tolerance
==================================================

Convolutions are products of patches with a matrix, and outputs at all positions lie close to a subspace.
:class:`~sklowrank.compress.LowRankCompressor` finds the smallest network whose score drops by no more than what is
allowed.
"""

# %%
# Three convolutions and a linear layer for digits, trained by skorch.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from skorch import NeuralNetClassifier
from torch import nn

from sklowrank.compress import LowRankCompressor

X, y = load_digits(return_X_y=True)
images = (X / 16).astype(np.float32).reshape(-1, 1, 8, 8)
X_train, X_test, y_train, y_test = train_test_split(images, y, test_size=0.4, stratify=y, random_state=0)

torch.manual_seed(0)
layers = {
    "conv1": nn.Conv2d(1, 32, 3, padding=1),
    "relu1": nn.ReLU(),
    "conv2": nn.Conv2d(32, 64, 3, padding=1),
    "relu2": nn.ReLU(),
    "pool": nn.MaxPool2d(2),
    "conv3": nn.Conv2d(64, 64, 3, padding=1),
    "relu3": nn.ReLU(),
    "flat": nn.Flatten(),
    "output": nn.Linear(1024, 10),
}
module = nn.Sequential()
for name, layer in layers.items():
    module.add_module(name, layer)
net = NeuralNetClassifier(
    module,
    criterion=nn.CrossEntropyLoss,
    optimizer=torch.optim.Adam,
    lr=2e-3,
    max_epochs=6,
    batch_size=64,
    train_split=None,
    verbose=0,
)
net.fit(X_train, y_train)
print(f"accuracy {net.score(X_test, y_test):.3f}")

# %%
# For a list of allowed losses the smallest network is searched. The score is that of half of the training rows.

rows, labels = X_train[:500], y_train[:500]
tolerances = [0.0, 0.005, 0.01, 0.02, 0.05]
models = [LowRankCompressor(FrozenEstimator(net), tolerance=t).fit(rows, labels) for t in tolerances]
for tolerance, model in zip(tolerances, models):
    print(f"tolerance {tolerance}: {model.compression_:.1%}, accuracy {model.score(X_test, y_test):.3f}")

# %%
# A compressed network is plain torch. It is a skorch net too, and may be trained on.

model = models[2]
print(model.network())
print(model.layer_report_.to_frame()[["name", "rank", "n_parameters_before", "n_parameters"]])
tuned = model.estimator_.set_params(max_epochs=2).partial_fit(X_train, y_train)
print(f"accuracy {model.score(X_test, y_test):.3f}, after two more epochs {tuned.score(X_test, y_test):.3f}")

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
share = [100 * model.compression_ for model in models]
left.plot(share, [model.score(X_test, y_test) for model in models], marker="o")
left.axhline(net.score(X_test, y_test), color="0.6", linestyle=":", label="not compressed")
left.plot(100 * model.compression_, tuned.score(X_test, y_test), "*", markersize=12, label="two more epochs")
left.set(xlabel="parameters (%)", ylabel="accuracy on new digits")
left.legend(fontsize="small")
report = model.layer_report_.to_frame()
places = np.arange(len(report))
right.bar(places - 0.2, report["n_parameters_before"], 0.4, label="before")
right.bar(places + 0.2, report["n_parameters"], 0.4, label=f"tolerance {tolerances[2]}")
right.set(xticks=places, xticklabels=report["name"], ylabel="parameters", yscale="log")
right.legend(fontsize="small")
plt.show()

# %%
# What to see: a tolerance of a hundredth removes more than half of the parameters, and new digits lose about as much
# accuracy as was allowed. A layer that would not become smaller stays as it is. Two more epochs of training recover
# what the compression has lost.
