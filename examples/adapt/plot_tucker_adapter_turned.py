"""
A network of convolutions adapted to images of another kind
===========================================================

A network for handwritten digits is given images that are turned and inverted. :class:`~sklowrank.adapt.TuckerAdapter`
trains small updates of its kernels on a few of them, and leaves the network as it is.
"""

# %%
# A small network of convolutions, trained with skorch on 40 % of the digits.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from skorch import NeuralNetClassifier
from torch import nn

from sklowrank.adapt import TuckerAdapter


def images():
    """Return the network: rows of 64 pixels in, ten logits out."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 12, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(12, 24, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(24, 24, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(96, 10),
    )


X, y = load_digits(return_X_y=True)
X, X_other, y, y_other = train_test_split(
    (X / 16).astype(np.float32), y, test_size=0.6, stratify=y, random_state=0
)  # fmt: skip
torch.manual_seed(0)
network = NeuralNetClassifier(
    images, criterion=nn.CrossEntropyLoss, optimizer=torch.optim.AdamW, lr=2e-3, max_epochs=25, batch_size=64,
    train_split=None, verbose=0,
).fit(X, y)  # fmt: skip

# %%
# The other images: turned by 90 degrees, dark and bright exchanged. The network does not know them.

turned = (1 - np.rot90(X_other.reshape(-1, 8, 8), axes=(1, 2))).reshape(-1, 64).copy()
X_pool, X_test, y_pool, y_test = train_test_split(turned, y_other, train_size=300, stratify=y_other, random_state=0)
print(
    f"accuracy on digits as they are {network.score(X_other, y_other):.3f}, turned {network.score(X_test, y_test):.3f}"
)

# %%
# Adapters for growing numbers of rows: of Tucker rank 8 with the full kernels, and of rank 2 with 2 x 2 kernels. The
# last layer is trained, too. The first convolution has a single input channel and is left alone.

sizes = [30, 75, 150, 300]
ways = {"rank 8": {"rank": 8}, "rank 2, kernels 2 x 2": {"rank": 2, "kernel_rank": 2}}
found = {}
for name, params in ways.items():
    found[name] = []
    for n_rows in sizes:
        adapter = TuckerAdapter(FrozenEstimator(network), layers=("conv2d",), exclude="1", random_state=0, **params)
        adapter.fit(X_pool[:n_rows], y_pool[:n_rows])
        found[name].append(adapter.score(X_test, y_test))
    print(
        f"{name}: {adapter.n_adapter_parameters_} numbers and the head, " + ", ".join(f"{a:.3f}" for a in found[name])
    )

# %%
# The last layer alone, by torch, for comparison.

found["last layer alone"] = []
for n_rows in sizes:
    module = FrozenEstimator(network).estimator.module_
    head = nn.Linear(96, 10)
    head.load_state_dict(module[-1].state_dict())
    with torch.no_grad():
        rows, test = (module[:-1](torch.from_numpy(part)) for part in (X_pool[:n_rows], X_test))
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2, weight_decay=0)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(rows), torch.from_numpy(y_pool[:n_rows])).backward()
        optimizer.step()
    found["last layer alone"].append(float(np.mean(head(test).argmax(1).numpy() == y_test)))

# %%
# Accuracy against the number of rows, and what of the kernels has moved: the norm of the update for each pair of
# channels of the last convolution.

change = (adapter.network()[6].weight - network.module_[6].weight).detach().flatten(2).norm(dim=2)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), width_ratios=[1.6, 1], layout="constrained")
for name, accuracies in found.items():
    left.plot(sizes, accuracies, marker="o", label=name)
left.axhline(network.score(X_test, y_test), color="0.6", linestyle=":", label="not adapted")
left.set(xlabel="rows to adapt to", ylabel="accuracy on turned digits", ylim=(0, 1))
left.legend(loc="lower right", fontsize="small")
image = right.imshow(change, cmap="Greys")
right.set(xlabel="input channel", ylabel="output channel", title="size of an update of rank 2")
figure.colorbar(image, ax=right, shrink=0.8)
plt.show()

# %%
# What to see: the last layer alone cannot read images of another kind from features made for the first. Updates of the
# kernels can, with a fraction of the numbers of the network, and the more so the more rows there are. Rows and columns
# of the update on the right are alike: that is its low rank.
