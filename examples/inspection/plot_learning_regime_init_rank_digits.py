"""
Rich or lazy: what the rank of the start does, on digits
========================================================

A network that starts with weights of low rank has to learn features; one that starts with weights of full rank can do
with the features that it has. :class:`~sklowrank.inspection.LearningRegime` fits a network and measures which of both
happened.
"""

# %%
# Handwritten digits, and a network with two hidden layers. ``init_rank`` sets the rank of the weight between them at
# the start; its Frobenius norm stays the same, since a larger norm alone makes a network lazier.

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklowrank.inspection import LearningRegime
from sklowrank.neural import NetworkClassifier

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
sgd = {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9}


def network(rank, **params):
    """Return a network that starts with a weight of some rank."""
    settings = {"net_params": sgd, "learning_rate": 0.01, "max_iter": 16, "tol": 0, "random_state": 0, **params}
    return NetworkClassifier((200, 200), init_rank=rank, **settings)


ranks = [1, 5, 20, 200]
regimes = [LearningRegime(network(rank), probe_size=100, layers=["2"], random_state=0) for rank in ranks]
fits = [regime.fit(X_train, y_train) for regime in regimes]

# %%
# Alignments of kernels at the start and at the end are 1 where training has changed nothing of them. To the right those
# of the representation in the course of training, for two of the networks.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
axes[0].semilogx(ranks, [fit.kernel_alignment_ for fit in fits], "o-", color="#0f766e", label="tangent kernel")
features = [fit.representation_alignment_["2"] for fit in fits]
axes[0].semilogx(ranks, features, "s-", color="#c08a3e", label="representation")
accuracy = [fit.score(X_test, y_test) for fit in fits]
axes[0].semilogx(ranks, accuracy, ":", color="#64748b", label="accuracy on new rows")
axes[0].set(xlabel="rank of the start", ylabel="alignment of start and end", ylim=(0, 1.05))
axes[0].legend(frameon=False, loc="lower right")
for fit, rank, colour in ((fits[0], 1, "#b91c1c"), (fits[-1], 200, "#1d4ed8")):
    history = fit.history_
    axes[1].semilogx(
        history["train_loss"], history["representation_alignment"], "o-", color=colour, label=f"rank {rank}"
    )
axes[1].set(xlabel="training loss, epochs 1, 2, 4, 8, 16", ylabel="alignment of representations", ylim=(0, 1.05))
axes[1].invert_xaxis()
axes[1].legend(frameon=False, loc="lower left")
plt.show()

# %%
# The representation itself: cosines of rows behind the middle layer, ordered by class. A network that is not trained
# shows the start.

order = y_train[:200].argsort(kind="stable")
figure, axes = plt.subplots(2, 2, figsize=(6, 6), layout="constrained")
for row, fit, rank in zip(axes, (fits[0], fits[-1]), (1, 200)):
    start = network(rank, learning_rate=0.0, max_iter=1).fit(X_train, y_train)
    for ax, model, name in zip(row, (start, fit.estimator_), ("start", "end")):
        rows = torch.as_tensor((X_train[:200][order] - model.mean_) / model.scale_, dtype=torch.float32)
        with torch.no_grad():
            H = torch.nn.functional.normalize(model.network()[:4](rows))
        ax.imshow(H @ H.T, vmin=0, vmax=1)
        ax.set(title=f"rank {rank}, {name}", xticks=[], yticks=[])
plt.show()

# %%
# What to see: at rank 1 all rows point into nearly the same direction at the start, so that features have to be learnt;
# the kernel of the representation at the end has little to do with the one at the start: the rich regime. At full rank
# the classes are there already, faintly, and training sharpens them: the lazy regime. The networks are compared at
# about the same training loss. On new rows the lazy one is slightly better: the regime says what a network has learnt,
# not how well it predicts.
