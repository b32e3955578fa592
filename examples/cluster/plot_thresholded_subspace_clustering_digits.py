"""
Look at the affinity before you trust the clusters
==================================================

A self-expressive clustering is as good as its affinity matrix. Two pictures tell: rows in the order of their clusters,
and the lowest eigenvalues of the graph. Here they say that rows have too few neighbours, without knowing the classes.
"""

# %%
# Four kinds of handwritten digits, as pixels. Each image is tied to those at the smallest angles: by default to five of
# them, for so many images.

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits

from sklowrank.cluster import ThresholdedSubspaceClustering
from sklowrank.inspection import AffinityDisplay, SpectrumDisplay
from sklowrank.metrics import clustering_accuracy

X, y = load_digits(n_class=4, return_X_y=True)
few = ThresholdedSubspaceClustering(4, n_neighbors=5, random_state=0).fit(X)
more = ThresholdedSubspaceClustering(4, n_neighbors=12, random_state=0).fit(X)

# %%
# The classes, which neither fit has seen, say that twelve are better. The pictures say so without them.

for name, model in {"5 neighbours": few, "12 neighbours": more}.items():
    print(f"{name}: {100 * clustering_accuracy(y, model.labels_):.1f} % of {len(X)} images are with their kind")

# %%
# Above, the affinity of rows in the order of their clusters; below, the lowest eigenvalues of the graph's Laplacian.

figure, panels = plt.subplots(2, 2, figsize=(9, 7.6), layout="constrained", height_ratios=[1.5, 1])
for column, (name, model) in zip(panels.T, {"5 neighbours": few, "12 neighbours": more}.items()):
    AffinityDisplay.from_estimator(model, ax=column[0])
    column[0].set_title(name)
    SpectrumDisplay.from_estimator(model, n_values=10, ax=column[1])
    column[1].set(ylim=(0, 0.16), title="")
plt.show()

# %%
# What to see: on the left one cluster is twice as large as the others and another is a scrap, and the first three
# eigenvalues are 0: the graph has fallen into pieces that no cut can see beyond. On the right, with twelve neighbours,
# there are four blocks of one size, and only the first eigenvalue is 0. The largest gap, the dashed line, is to be read
# with care: it follows six eigenvalues, for four kinds.
