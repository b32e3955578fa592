"""
A taxonomy with unseen leaves
=============================

A taxonomy has 32 leaves, and training rows are there for six of them. For a row of another leaf a classifier can only
name one of the six. :class:`~sklowrank.multiclass.LokiClassifier` takes the tree as well: it predicts the node between
the leaves that are probable, and which leaf should be labelled next.
"""

# %%
# Synthetic rows: the mean of each node is that of its parent plus a random step, smaller on each level, so that near
# leaves have similar rows.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression

from sklowrank.multiclass import LokiClassifier

rng = np.random.default_rng(3)
edges = [((child - 1) // 2, child) for child in range(1, 63)]
means = np.zeros((63, 16))
for parent, child in edges:
    means[child] = means[parent] + rng.normal(size=16) * 0.8 ** np.floor(np.log2(child + 1))
leaves = np.arange(31, 63)
y = np.repeat(leaves, 60)
X = means[y] + 0.5 * rng.normal(size=(len(y), 16))
test = rng.random(len(y)) < 0.3
seen = np.sort(rng.choice(leaves, 6, replace=False))


def fitted(labels):
    """Fit to the training rows of some leaves."""
    rows = np.isin(y, labels) & ~test
    return LokiClassifier(LogisticRegression(max_iter=1000), metric="tree", label_tree=edges).fit(X[rows], y[rows])


model = fitted(seen)
print(
    f"{len(model.observed_classes_)} labels with rows, {len(model.locus())} can be predicted, of {len(model.classes_)}"
)

# %%
# Squared distances in the tree. A temperature near 0 gives the most probable label all of the probability, hence
# arg-max.

for name, temperature in (("arg-max", 0.01), ("LOKI", 1.0)):
    error = model.set_params(temperature=temperature).score_distance(X[test], y[test])
    print(f"{name}: squared distance {error:.1f}")

# %%
# Leaves that are labelled next: those that are farthest from what can be predicted already, against leaves in random
# order.

picks = model.next_class(10, candidates=leaves)
orders = [picks] + [rng.permutation(np.setdiff1d(leaves, seen))[:10] for _ in range(5)]
errors = []
for order in orders:
    models = [fitted(np.append(seen, order[:n])) for n in range(0, 11, 2)]
    errors.append([after.score_distance(X[test], y[test]) for after in models])

# %%
# The tree, with the predictions for the rows of unseen leaves.

depth = np.floor(np.log2(np.arange(63) + 1)).astype(int)
angle = 2 * np.pi * (np.arange(63) + 1 - 2.0**depth + 0.5) / 2.0**depth
place = depth[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
new = X[test & ~np.isin(y, seen)]

figure, axes = plt.subplots(1, 3, figsize=(12, 4.2), layout="constrained")
for axis, name, found in zip(axes, ("arg-max", "LOKI"), (model.estimator_.predict(new), model.predict(new))):
    for edge in edges:
        axis.plot(*place[list(edge)].T, color="0.8", linewidth=1, zorder=0)
    axis.scatter(*place.T, s=2000 * np.bincount(found, minlength=63) / len(found), alpha=0.7)
    axis.plot(*place[seen].T, "k^", markersize=6, label="leaves with training rows")
    axis.set(title=f"{name}, rows of unseen leaves", aspect="equal")
    axis.axis("off")
axes[0].legend(loc="lower left", fontsize="small", bbox_to_anchor=(0, -0.12))
counts = len(seen) + np.arange(0, 11, 2)
axes[2].plot(counts, errors[0], marker="o", label="next_class")
axes[2].plot(counts, np.mean(errors[1:], axis=0), marker="o", linestyle="--", label="random, mean of five")
axes[2].set(xlabel="leaves with training rows", ylabel="squared distance on new rows", ylim=(0, None))
axes[2].legend()
plt.show()

# %%
# What to see: arg-max sends every row of an unseen leaf to one of the six seen ones, often far away. LOKI predicts
# inner nodes on the paths between these, at a smaller squared distance. The leaves that
# :meth:`~sklowrank.multiclass.LokiClassifier.next_class` picks bring the error down faster than random ones.
