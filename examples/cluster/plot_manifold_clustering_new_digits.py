"""
Kinds that nobody has named, found again in new images
======================================================

:class:`~sklowrank.cluster.ManifoldLinearizingClustering` learns features and clusters together, without labels. Being a
network it has an answer for rows that it has not seen.
"""

# %%
# Half of the handwritten digits are for learning, the others are new.

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
# How many of the new images are with others of their kind.

labels = model.predict(new)
print(f"k-means              {100 * clustering_accuracy(kinds, plain.predict(new)):.1f} %")
print(f"manifold linearizing {100 * clustering_accuracy(kinds, labels):.1f} %")

# %%
# A line for each cluster: the mean of the new images in it, then those of which the network is surest.

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
# What to see: nearly each line holds one kind of digit, however it is written, and nobody has told the network what a
# digit is.
