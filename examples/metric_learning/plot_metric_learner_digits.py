"""
Handwritten digits: a learned metric, seen and unseen classes
=============================================================

:class:`~sklowrank.metric_learning.DynamicSubspaceMetricLearner` is fitted to half the rows of digits. The other half is
clustered and searched in the embedding; then the same is tried for digits of which it has seen no row.
"""

# %%
# Halves of the data by class, and the same with classes held out: the digits 0 to 4 to train on, 5 to 9 to judge.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import normalized_mutual_info_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NeighborhoodComponentsAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler, normalize

from sklowrank.metric_learning import DynamicSubspaceMetricLearner

X, y = load_digits(return_X_y=True)
splits = {
    "classes of the training rows": train_test_split(X, y, test_size=0.5, stratify=y, random_state=0),
    "other classes": (X[y < 5], X[y >= 5], y[y < 5], y[y >= 5]),
}
methods = {
    "pixels": FunctionTransformer(),
    "LDA": LinearDiscriminantAnalysis(),
    "NCA": NeighborhoodComponentsAnalysis(16, max_iter=30, random_state=0),
    "learned": DynamicSubspaceMetricLearner(max_learners=1, max_iter=30, random_state=0),
}


def judged(Z, y):
    """NMI of k-means with the classes, and the share of rows whose nearest other row is of their class."""
    Z = normalize(Z)
    S = Z @ Z.T
    np.fill_diagonal(S, -2)
    clusters = KMeans(len(np.unique(y)), n_init=4, random_state=0).fit_predict(Z)
    return normalized_mutual_info_score(y, clusters), np.mean(y[S.argmax(1)] == y)


# %%
# Each method is fitted to the training rows alone.

embedded, scores = {}, {}
for split, (A, B, a, b) in splits.items():
    for name, method in methods.items():
        embedded[split, name] = make_pipeline(StandardScaler(), method).fit(A, a).transform(B)
        scores[split, name] = judged(embedded[split, name], b)

# %%

figure, axes = plt.subplots(1, 4, figsize=(13, 3.4), layout="constrained")
first, _ = splits
labels = splits[first][3]
for axis, name in zip(axes, ("pixels", "learned")):
    plane = PCA(2, random_state=0).fit_transform(normalize(embedded[first, name]))
    axis.scatter(*plane.T, c=labels, cmap="tab10", s=6)
    axis.set(title=f"{name}, test rows", xticks=[], yticks=[])
for axis, split in zip(axes[2:], splits):
    for place, (label, color) in enumerate((("NMI of k-means", "#0f766e"), ("Recall@1", "#c08a3e"))):
        heights = [scores[split, name][place] for name in methods]
        axis.bar(np.arange(4) + 0.4 * place, heights, 0.4, label=label, color=color)
    axis.set(title=split, ylim=(0, 1.25), xticks=np.arange(4) + 0.2, xticklabels=methods)
axes[2].legend(fontsize=8, loc="upper left", ncols=2)
plt.show()

# %%
# What to see: digits of the test half form compact groups in the learned embedding, and k-means finds them. For the
# neighbour alone the gain is small, since pixels are good already. For digits that were not trained on, all three
# metrics are worse than the pixels, LDA and the network by far: what distinguishes other classes is not kept.
