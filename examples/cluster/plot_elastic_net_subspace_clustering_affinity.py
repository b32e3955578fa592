"""
Codes, affinity matrix and spectrum of elastic net subspace clustering
======================================================================

Self-expressive clusterers write each row as a combination of a few others, make a graph of the coefficients, and
cluster its spectrum. All three stages are stored, and show whether the number of clusters is right.
"""

# %%
# Four subspaces of dimension 3 in 20 columns, with noise.

import matplotlib.pyplot as plt
import numpy as np
from scipy.sparse.csgraph import laplacian
from sklearn.decomposition import PCA

from sklowrank.cluster import ElasticNetSubspaceClustering
from sklowrank.datasets import make_union_of_subspaces
from sklowrank.metrics import clustering_accuracy, subspace_preserving_error

X, y, bases = make_union_of_subspaces(240, 20, n_dims=3, n_clusters=4, noise=0.05, random_state=1)
model = ElasticNetSubspaceClustering(4, random_state=0).fit(X)

# %%
# Accuracy, and the share of the codes' weight on rows of other subspaces.

print(f"accuracy {clustering_accuracy(y, model.labels_):.3f}")
print(f"weight on rows of other subspaces {subspace_preserving_error(model.representation_, y):.3f}")

# %%
# The lowest eigenvalues of the normalised Laplacian: one per cluster is small, and a gap follows.

eigenvalues = np.linalg.eigvalsh(laplacian(model.affinity_matrix_, normed=True).toarray())[:10]
order = np.argsort(model.labels_, kind="stable")
graph = model.affinity_matrix_[order][:, order].toarray()

# %%

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
colours = np.array(["#0f766e", "#c08a3e", "#7c6fb0", "#9aa5b1"])
flat = PCA(2).fit_transform(X)
left.scatter(*flat.T, s=12, c=colours[model.labels_])
left.set(title="clusters, on two principal components", xticks=[], yticks=[])
middle.imshow(graph > np.quantile(graph[graph > 0], 0.2), cmap="Greys", interpolation="nearest")
middle.set(title="affinity_matrix_, rows by cluster", xticks=[], yticks=[])
right.bar(range(1, 11), eigenvalues, color=np.where(np.arange(10) < 4, "#0f766e", "0.75"))
right.set(title="spectrum of the graph", xlabel="smallest eigenvalues of the Laplacian", xticks=range(1, 11))
plt.show()

# %%
# What to see: clusters overlap in the plane of the two leading principal components, where no method for round
# clusters could separate them. The affinity has four blocks, and the spectrum a gap after the fourth eigenvalue.
