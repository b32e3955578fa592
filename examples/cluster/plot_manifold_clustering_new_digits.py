"""
Cluster labels of new digits: manifold clustering and k-means
=============================================================

:class:`~sklowrank.cluster.ManifoldLinearizingClustering` learns features and clusters together, without labels, and
predicts the clusters of rows that were not fitted.
"""

# %%
# Half of the handwritten digits are fitted, the other half is new.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklowrank.cluster import ManifoldLinearizingClustering
from sklowrank.metrics import clustering_accuracy

X, y = load_digits(return_X_y=True)
known, new, _, kinds = train_test_split(X, y, test_size=0.5, random_state=0)
model = ManifoldLinearizingClustering(10, random_state=0).fit(known)
plain = KMeans(10, n_init=10, random_state=0).fit(known)

# %%
# Accuracy on the new images.

labels = model.predict(new)
print(f"k-means              {clustering_accuracy(kinds, plain.predict(new)):.3f}")
print(f"manifold linearizing {clustering_accuracy(kinds, labels):.3f}")

# %%
# One line per cluster: the mean of its new images, then those with the highest probability.

sure = model.predict_proba(new).max(axis=1)
figure, panels = plt.subplots(10, 9, figsize=(6, 6.8), layout="constrained")
for k, line in enumerate(panels):
    mine = np.flatnonzero(labels == k)
    best = mine[np.argsort(-sure[mine], kind="stable")][:8]
    for panel in line:
        panel.axis("off")
    for panel, image in zip(line, [new[mine].mean(axis=0) if len(mine) else np.zeros(64), *new[best]]):
        panel.imshow(image.reshape(8, 8), cmap="Greys", vmin=0, vmax=16)
plt.show()

# %%
# What to see: nearly each cluster holds one kind of digit, in different handwritings. Accuracy depends on the seed:
# see the method's page.
