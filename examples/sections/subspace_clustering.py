"""Subspace clusters: digits, and a union of subspaces, by clusterers of sklowrank and scikit-learn."""

import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

from sklowrank.cluster import KSubspaces, ThresholdedSubspaceClustering
from sklowrank.datasets import make_union_of_subspaces
from sklowrank.metrics import clustering_accuracy
from sklowrank.mixture import LowRankGaussianMixture

from .report import INK, MUTED, OURS, Picture, Row, Section

NAMES = ("LowRankGaussianMixture", "KSubspaces", "ThresholdedSubspaceClustering")
DIMS = range(1, 8)
SEEDS = range(3)


def methods(n_clusters, n_dims, seed):
    """scikit-learn's clusterers with their best known settings, and ours; GaussianMixture also on raw rows."""
    projected = make_pipeline(PCA(20, random_state=seed), GaussianMixture(n_clusters, n_init=3, random_state=seed))
    compared = {
        "KMeans": KMeans(n_clusters, n_init=10, random_state=seed),
        "SpectralClustering": SpectralClustering(
            n_clusters, affinity="nearest_neighbors", n_neighbors=5, random_state=seed
        ),
        "GaussianMixture, PCA(20)": projected,
        NAMES[0]: LowRankGaussianMixture(n_clusters, n_dims=n_dims, random_state=seed),
        NAMES[1]: KSubspaces(n_clusters, n_dims=n_dims, affine=False, random_state=seed),
        NAMES[2]: ThresholdedSubspaceClustering(n_clusters, n_neighbors=5, random_state=seed),
    }
    unit = {name: make_pipeline(Normalizer(), method) for name, method in compared.items()}
    return {"GaussianMixture, PCA(20), raw": clone(projected), **unit}


def subspace_clustering():
    """Subspace clustering: digits and a union of subspaces, without classes."""
    section = Section("Subspace clusters", TEXT, NAMES, NOTE, None, "accuracy")
    digits, classes = load_digits(return_X_y=True)
    rows, pieces, _ = make_union_of_subspaces(400, 24, n_dims=4, n_clusters=5, noise=0.1, random_state=0)
    for data, X, y, n_dims in (("digits, no classes", digits, classes, 9), ("subspaces (generated)", rows, pieces, 4)):
        print(f"{data}: {X.shape[0]} rows, {X.shape[1]} columns, {len(np.unique(y))} clusters", flush=True)
        for name in methods(len(np.unique(y)), n_dims, 0):
            scores, seconds = [], []
            for seed in SEEDS:
                model = methods(len(np.unique(y)), n_dims, seed)[name]
                start = time.perf_counter()
                with warnings.catch_warnings():  # the graph of SpectralClustering's best setting is not connected
                    warnings.filterwarnings("ignore", "Graph is not fully connected", UserWarning)
                    scores.append(clustering_accuracy(y, model.fit_predict(X)))
                seconds.append(time.perf_counter() - start)
                if name == NAMES[0] and X is digits and seed == 0:
                    mixture = model[-1]
            ends = min(scores), max(scores)
            section.rows.append(Row(data, name, None, float(np.median(scores)), min(seconds), score_range=ends))
    section.pictures = [picture_directions(mixture), picture_dimensions(rows)]
    return section


def picture_directions(mixture):
    figure, axes = plt.subplots(5, 10, figsize=(9.5, 4.9), layout="constrained")
    for column, (mean, U) in enumerate(zip(mixture.means_, mixture.bases_)):
        for line, image in zip(axes[:, column], [mean, *U.T[:4]]):
            bound = np.abs(image).max()
            line.imshow(image.reshape(8, 8), cmap="RdBu_r", vmin=-bound, vmax=bound)
            line.set(xticks=[], yticks=[])
            line.spines[:].set_visible(False)
    for line, label in zip(axes[:, 0], ("mean", *(f"direction {i}" for i in range(1, 5)))):
        line.set_ylabel(label, rotation=0, ha="right", va="center", color=INK)
    caption = (
        "A column per cluster that LowRankGaussianMixture found: its mean, and the first four of the nine directions "
        "in which its digits vary (slant, width, length of a stroke). Red is positive, blue is negative."
    )
    return Picture("directions", "Means and directions of the clusters", caption, figure)


def picture_dimensions(rows):
    """The dimension, chosen by cross-validated log density, which needs no classes."""
    search = GridSearchCV(
        make_pipeline(Normalizer(), LowRankGaussianMixture(5, random_state=0)),
        {"lowrankgaussianmixture__n_dims": list(DIMS)},
        cv=3,
    ).fit(rows)
    score = search.cv_results_["mean_test_score"]
    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    best = int(score.argmax())
    axes.plot(DIMS, score, "o-", color=MUTED[0], ms=5)
    axes.plot(DIMS[best], score[best], "o", color=OURS, ms=10)
    axes.set(xlabel="dimension of the subspaces (n_dims)", ylabel="log density of held-out rows")
    caption = (
        f"The mixture is a density and can be tuned without classes: GridSearchCV with its score selects dimension "
        f"{DIMS[best]} for the generated subspaces, whose dimension is 4."
    )
    return Picture("dimensions", "The dimension, by cross-validation", caption, figure)


NOTE = (
    "Accuracy under the best matching of clusters to classes: median and range over three seeds. Raw: rows as they "
    "are; all others have rows of unit norm. Seconds: one fit."
)
TEXT = """<p>Images of one digit, or of one object under changing light, vary along a few directions:
they form subspace clusters. All methods are given the number of clusters, and none the classes. The second data set is
generated: five subspaces of dimension 4 in 24 columns, with noise. LowRankGaussianMixture and KSubspaces are given
the dimension (9 for the digits); by default they estimate one.</p>
<pre>model = make_pipeline(Normalizer(), LowRankGaussianMixture(10, n_dims=9))
labels = model.fit_predict(X)</pre>"""
