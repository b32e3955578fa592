"""
Intrinsic dimension of digits with shuffled labels
==================================================

How many numbers does a network need for a problem? :class:`~sklowrank.inspection.IntrinsicDimension` trains it in
random subspaces of its weights and searches the smallest dimension that reaches a share of the accuracy of ordinary
training. Here the rows stay the same, and more and more of the labels are shuffled: there is less to generalise from,
and more to memorise.
"""

# %%
# 200 handwritten digits. Shuffled labels cannot be predicted, so the score is the accuracy on the rows that are fitted:
# ``cv`` says which rows are fitted and which are scored.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from sklowrank.inspection import IntrinsicDimension
from sklowrank.neural import NetworkClassifier

X, y = load_digits(return_X_y=True)
X, y = (X[:200] / 16 - 0.3).astype(np.float32), y[:200]
every_row = [(np.arange(200), np.arange(200))]

# %%
# A network with 2,410 weights, and one search for each share of shuffled labels. Only subspaces of the dimensions of a
# list are tried, with one seed, to be quick.

network = NetworkClassifier((32,), standardize=False, learning_rate=0.05, batch_size=200, max_iter=150, tol=0)
dimensions = [10, 20, 40, 80, 160, 320, 640]
rng = np.random.default_rng(0)
order, searches = rng.permutation(200), {}
for share in (0.0, 0.5, 1.0):
    labels = y.copy()
    shuffled = order[: int(share * 200)]
    labels[shuffled] = rng.permutation(labels[shuffled])
    search = IntrinsicDimension(network, search=dimensions, n_seeds=1, cv=every_row, refit=False, random_state=0)
    searches[share] = search.fit(X, labels)
    print(f"{share:.0%} shuffled: {search.baseline_score_:.3f} with all weights, {search.intrinsic_dim_} dimensions")

# %%

figure, axes = plt.subplots(figsize=(7, 3.8), layout="constrained")
for share, colour in zip(searches, ("#0f766e", "#c08a3e", "#9f1239")):
    search = searches[share]
    axes.semilogx(
        search.curve_["d"], search.curve_["mean"], "o-", color=colour, label=f"{share:.0%} of labels shuffled"
    )
    axes.axvline(search.intrinsic_dim_, color=colour, linestyle=":")
axes.axhline(searches[0.0].target_, color="grey", linewidth=1)
label = "nine tenths of the accuracy with all weights"
axes.annotate(label, (10, searches[0.0].target_), (0, 5), textcoords="offset points")
axes.set(xlabel="dimension of the subspace", ylabel="accuracy on fitted rows", ylim=(0, 1.05))
axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 0.84))
plt.show()

# %%
# What to see: with the true labels 80 numbers reach nine tenths of the accuracy that 2,410 weights reach on the fitted
# rows. With half of the labels shuffled it takes 320, and with all of them 640, more than three for each row: the
# network then has to memorise the rows one by one. The curves also show what a single number hides: with few dimensions
# shuffled labels are hardly learnt at all.
