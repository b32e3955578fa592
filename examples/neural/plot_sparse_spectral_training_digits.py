"""
Full-rank training with few numbers at a time: sparse spectral training on digits
=================================================================================

:class:`~sklowrank.neural.SparseSpectralTraining` trains all singular values of a weight, and a few pairs of singular
vectors at a time. The optimizer holds moments of these alone, and the weights still change in all directions.
"""

# %%
# A network with two hidden layers of 128. The rule holds the first two weights as singular value decompositions, and
# trains 8 of their pairs for 25 steps, then others. Without one, all weights are trained.

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from sklowrank.neural import NetworkClassifier, SparseSpectralTraining

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16 - 0.3, y, test_size=0.3, stratify=y, random_state=0)
torch.manual_seed(0)
start = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))


def fitted(rule, epochs):
    return NetworkClassifier(
        module=start, training=rule, max_iter=epochs, tol=0, standardize=False, random_state=0
    ).fit(X_train, y_train)


rule = SparseSpectralTraining(rank=8, iteration_length=25)
trained = {epochs: fitted(rule, epochs) for epochs in (1, 4, 20)}
plain = fitted(None, 20)

# %%
# What the optimizer holds for the two weights, and accuracy on rows that were not trained on.

n_weights = 64 * 128 + 128 * 128
accuracies = {}
for rank in (1, 2, 4, 8, 16):
    model = trained[20] if rank == 8 else fitted(SparseSpectralTraining(rank=rank, iteration_length=25), 20)
    accuracies[model.training_["n_trainable"]] = model.score(X_test, y_test)
    print(f"rank {rank:2}: {model.training_['n_trainable']:6,} numbers, {model.score(X_test, y_test):.3f}")
print(f"plain  : {n_weights:6,} numbers, {plain.score(X_test, y_test):.3f}")

# %%
# The singular values of the change of the second weight say how many directions it has.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for epochs, model in [*trained.items(), ("20, plain", plain)]:
    change = model.network()[2].weight.detach() - start[2].weight.detach()
    style = "k--" if model is plain else "-"
    left.semilogy(range(1, 129), torch.linalg.svdvals(change).clamp(min=1e-5), style, label=f"epochs: {epochs}")
left.axvline(8, color="grey", lw=0.8)
left.annotate("8 pairs", (9, 2e-5), color="grey")
left.set(xlabel="direction", ylabel="singular value of the change", title="Change of the second weight")
left.legend()
right.semilogx(list(accuracies), list(accuracies.values()), "o-", label="sparse spectral")
right.plot(n_weights, plain.score(X_test, y_test), "k*", ms=10, label="plain")
right.set(xlabel="weights trained at a time", ylabel="accuracy", title="New digits, 20 epochs")
right.legend()
plt.show()

# %%
# What to see: since all singular values are trained, the change has all directions from the first epoch on, and those
# beyond the 8 that are trained at a time grow as others are drawn. An adapter of rank 8 would end at the grey line.
# With more pairs at a time accuracy comes near that of plain training, which stays ahead where its moments fit into
# memory.
