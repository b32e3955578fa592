"""
Inside a self-expressive clustering: codes, graph, spectrum
===========================================================

The self-expressive clusterers write each row as a combination of a few others, make a graph of the coefficients, and
read clusters off its spectrum. All three stages are kept after the fit, and show whether the number of clusters is
right.
"""

# %%
# Four planes of dimension 3 in 20 columns, with some noise.

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
# All rows are placed well, and almost all of the codes' weight lies on rows of the same plane.

print(f"accuracy {clustering_accuracy(y, model.labels_):.3f}")
print(f"weight on rows of other planes {subspace_preserving_error(model.representation_, y):.3f}")

# %%
# The smallest eigenvalues of the normalised Laplacian: as many are small as there are clusters, then comes a
# gap.

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
# What to see: in the plane of the two leading principal components the clusters lie on top of one another, and no
# method that looks for blobs could part them. The graph has four blocks, and its spectrum a gap after the fourth
# eigenvalue.
