"""
Affinity and spectrum of thresholded subspace clustering: digits
================================================================

The result of a graph-based clustering is as good as its affinity matrix. Two displays show whether rows have enough
neighbours, without classes: the affinity in the order of clusters, and the lowest eigenvalues of the graph's Laplacian.
"""

# %%
# Four kinds of handwritten digits, as pixels. Each image is connected to those at the smallest angles: five by default
# for this number of images.

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits

from sklowrank.cluster import ThresholdedSubspaceClustering
from sklowrank.inspection import AffinityDisplay, SpectrumDisplay
from sklowrank.metrics import clustering_accuracy

X, y = load_digits(n_class=4, return_X_y=True)
few = ThresholdedSubspaceClustering(4, n_neighbors=5, random_state=0).fit(X)
more = ThresholdedSubspaceClustering(4, n_neighbors=12, random_state=0).fit(X)

# %%
# Accuracy with respect to the classes, which neither fit has seen.

for name, model in {"5 neighbours": few, "12 neighbours": more}.items():
    print(f"{name}: accuracy {clustering_accuracy(y, model.labels_):.3f} on {len(X)} images")

# %%
# Above, the affinity of rows in the order of clusters; below, the lowest eigenvalues.

figure, panels = plt.subplots(2, 2, figsize=(9, 7.6), layout="constrained", height_ratios=[1.5, 1])
for column, (name, model) in zip(panels.T, {"5 neighbours": few, "12 neighbours": more}.items()):
    AffinityDisplay.from_estimator(model, ax=column[0])
    column[0].set_title(name)
    SpectrumDisplay.from_estimator(model, n_values=10, ax=column[1])
    column[1].set(ylim=(0, 0.16), title="")
plt.show()

# %%
# What to see: with five neighbours one cluster is twice as large as the others, one is tiny, and the first three
# eigenvalues are 0: the graph is disconnected. With twelve neighbours there are four blocks of one size, and only the
# first eigenvalue is 0. The largest gap, the dashed line, is a rough guide: it follows six eigenvalues, for four
# classes.
