"""
Heat geodesic embedding of handwritten digits, and errors of its distances
==========================================================================

In two dimensions the distances of high-dimensional rows have errors. A display colours each row by how far its
distances in the plot are from those that the embedding was fitted to: where errors are large, the plot is wrong.
"""

# %%
# Images of handwritten digits, 64 pixels each, embedded by shortest paths and by heat.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.manifold import Isomap
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from sklowrank.inspection import EmbeddingDisplay
from sklowrank.manifold import HeatGeodesicEmbedding

X, y = load_digits(return_X_y=True)
X, y = X[:900], y[:900]
isomap = Isomap(n_neighbors=10).fit(X)
heat = HeatGeodesicEmbedding(random_state=0).fit(X)

# %%
# Accuracy of five nearest neighbours in the plane; no embedding was fitted to the labels.

for name, E in {"PCA": PCA(2).fit_transform(X), "Isomap": isomap.embedding_, "heat": heat.embedding_}.items():
    right = cross_val_score(KNeighborsClassifier(5), E, y, cv=5).mean()
    print(f"{name}: accuracy {right:.3f}")

# %%
# Above, digits by colour; below, errors of distances, on one scale for both.

figure, panels = plt.subplots(2, 2, figsize=(9, 8), layout="constrained")
for column, (name, model) in zip(panels.T, {"Isomap": isomap, "heat geodesic embedding": heat}.items()):
    column[0].scatter(*model.embedding_.T, c=y, s=8, cmap="tab10")
    for digit in range(10):
        x_digit, y_digit = np.median(model.embedding_[y == digit], axis=0)
        column[0].text(x_digit, y_digit, str(digit), weight="bold", ha="center", va="center")
    column[0].set(title=name, xticks=[], yticks=[])
    EmbeddingDisplay.from_estimator(model, ax=column[1])
    column[1].collections[0].set_clim(0, 0.6)
plt.show()

# %%
# What to see: Isomap has its largest errors in the middle, where 1, 2, 5 and 8 overlap: shortest paths lead through a
# few images that are near to many others. In the heat embedding these digits are apart, and errors are about 0.2
# everywhere: groups are right, distances between them are approximate. Both colour scales are the same.
