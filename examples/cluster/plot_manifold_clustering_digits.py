"""
Nonlinear clusters of digits: features of a manifold clustering
===============================================================

Images of one digit lie near a curved surface in the space of pixels, and the surfaces of different digits are close to
each other. :class:`~sklowrank.cluster.ManifoldLinearizingClustering` learns, without classes, features in which each
cluster lies near a subspace of its own, orthogonal to the others.
"""

# %%
# All digits bundled with scikit-learn. Classes are used for the accuracy alone.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from sklowrank.cluster import ManifoldLinearizingClustering
from sklowrank.metrics import clustering_accuracy, rate_reduction

X, y = load_digits(return_X_y=True)
model = ManifoldLinearizingClustering(10, random_state=0).fit(X)
plain = KMeans(10, n_init=10, random_state=0).fit(X)
print(f"k-means on pixels         {clustering_accuracy(y, plain.labels_):.3f}")
print(f"manifold linearizing      {clustering_accuracy(y, model.labels_):.3f}")

# %%
# New rows are predicted, and the number of clusters is estimated; the estimate is a rough guide.

print(model.predict(X[:8]), model.labels_[:8])
print("number of clusters:", model.estimate_n_clusters(X))

# %%
# Cosines between rows, sorted by cluster: of centred pixels, and of features. The objective of the network, the rate
# reduction, is also a metric of features and labels.

before = X - X.mean(axis=0)
before /= np.linalg.norm(before, axis=1, keepdims=True)
after = model.transform(X)
order = np.argsort(model.labels_, kind="stable")

print(f"rate reduction of these clusters        {rate_reduction(after, model.labels_):.2f} nats a row")
print(f"rate reduction of the k-means clusters  {rate_reduction(after, plain.labels_):.2f}")

figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained", width_ratios=[1, 1, 1.25])
for axis, rows, title in zip(axes, (before, after), ("pixels", "features")):
    axis.imshow(np.abs(rows[order] @ rows[order].T), cmap="Greys", vmin=0, vmax=1)
    axis.set(title=f"|cosines| of {title}", xticks=[], yticks=[])
R, R_c = model.coding_rates_.T
axes[2].plot(R, color="#0f766e", label="R: all rows")
axes[2].plot(R_c, color="#c08a3e", label="$R_c$: given the membership")
axes[2].fill_between(np.arange(len(R)), R_c, R, color="#0f766e", alpha=0.08)
axes[2].set(
    title="coding rates of the batches", xlabel="steps of the second stage", ylabel="nats a row", ylim=(0, None)
)
axes[2].legend(frameon=False, loc="center right")
plt.show()

# %%
# What to see: pixels of different clusters are similar, their features are nearly orthogonal. In the second stage the
# coding rate of all rows stays, and the rate given the membership falls: the gap between both is the objective.
