"""
Embeddings of digits, ranked without labels
===========================================

Which of several embeddings of the same rows separates the classes best, if nobody has labelled them?
:class:`~sklowrank.topology.PersistenceSeparability` looks at the lengths of the minimum spanning tree of the rows: with
well separated groups a few are long and all others short. The labels of the digits are used here for one thing only, to
check the ranking.
"""

# %%
# Nine versions of 1,000 handwritten digits: pixels, pixels with noise, random projections, principal components, and
# discriminants that were fitted to the labels of the first half.

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import spearmanr
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import silhouette_score
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.random_projection import GaussianRandomProjection

from sklowrank.topology import PersistenceSeparability

X, y = load_digits(return_X_y=True)
X, y, rng = X[:1000], y[:1000], np.random.RandomState(0)
versions = {"pixels": X}
for noise in (3, 8, 16):
    versions[f"noise {noise}"] = X + noise * rng.randn(*X.shape)
for k in (2, 5, 20):
    versions[f"projection {k}"] = GaussianRandomProjection(k, random_state=0).fit_transform(X)
versions["PCA 10"] = PCA(10, random_state=0).fit_transform(X)
versions["LDA"] = LinearDiscriminantAnalysis().fit(X[:500], y[:500]).transform(X)

# %%
# Two scores without labels, and the accuracy by which to judge them. k-means gets the right number of groups, ten.

fits = {name: PersistenceSeparability(random_state=0).fit(E) for name, E in versions.items()}
scores = [fit.score_ for fit in fits.values()]
labels = {name: KMeans(10, n_init=2, random_state=0).fit_predict(E) for name, E in versions.items()}
silhouettes = [silhouette_score(E, labels[name]) for name, E in versions.items()]
accuracy = [cross_val_score(KNeighborsClassifier(5), E, y, cv=3).mean() for E in versions.values()]
for row in zip(versions, scores, silhouettes, accuracy):
    print("{:14} score {:.2f}, silhouette {:.2f}, accuracy {:.2f}".format(*row))

# %%
# Where the score comes from: the bars of the pixels and of the discriminants, and of tables with the same columns, each
# in an order of its own, that have no groups.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
for ax, name in zip(axes, ("noise 16", "LDA")):
    E = versions[name]
    permuted = np.column_stack([rng.permutation(column) for column in E.T])
    for rows, colour, label in ((E, "#0f766e", "rows"), (permuted, "#c08a3e", "columns permuted")):
        bars = PersistenceSeparability(calibrate=False).fit(rows).persistence_
        ax.plot(np.arange(1, 1000), bars / bars[0], color=colour, label=label)
    ax.set(title=f"{name}: score {fits[name].score_:.2f}", xlabel="bar", xscale="log")
axes[0].set(ylabel="length over the longest", ylim=(0, 1.05))
axes[0].legend(frameon=False)
plt.show()

# %%

figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained", sharey=True)
kinds = {"PersistenceSeparability": scores, "silhouette of KMeans(10)": silhouettes}
for ax, (name, values) in zip(axes, kinds.items()):
    ax.plot(values, accuracy, "o", color="#0f766e")
    for version, value, right in zip(versions, values, accuracy):
        ax.annotate(version, (value, right), (4, 3), textcoords="offset points", fontsize=8)
    ax.set(xlabel=name, title=f"Spearman {spearmanr(values, accuracy)[0]:.2f}", xmargin=0.2)
axes[0].set(ylabel="accuracy of 5 neighbours")
plt.show()

# %%
# What to see: on the left the discriminants come first, and pixels, principal components and the projection to 20
# dimensions, which nearest neighbours all classify well, come before the rest. On the right the projection to two
# dimensions, in which k-means finds compact groups that are no digits, has the second largest silhouette. The score
# ranks versions of the same rows; it is no measure of the accuracy: pixels with noise 3 score no better than that
# projection, though their accuracy is three times as high.
