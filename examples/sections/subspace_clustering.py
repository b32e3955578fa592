"""Clusters that are flat pieces: digits, and a union of subspaces, with scikit-learn's clusterers beside ours."""

import time

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


def methods(n_clusters, n_dims):
    """What is compared, on rows of unit norm; the mixture after a projection also on the rows as they are."""
    projected = make_pipeline(PCA(20, random_state=0), GaussianMixture(n_clusters, n_init=3, random_state=0))
    compared = {
        "KMeans": KMeans(n_clusters, n_init=10, random_state=0),
        "SpectralClustering": SpectralClustering(
            n_clusters, affinity="nearest_neighbors", n_neighbors=10, random_state=0
        ),
        "GaussianMixture, PCA(20)": projected,
        NAMES[0]: LowRankGaussianMixture(n_clusters, n_dims=n_dims, random_state=0),
        NAMES[1]: KSubspaces(n_clusters, n_dims=n_dims, affine=False, random_state=0),
        NAMES[2]: ThresholdedSubspaceClustering(n_clusters, n_neighbors=5, random_state=0),
    }
    unit = {name: make_pipeline(Normalizer(), method) for name, method in compared.items()}
    return {"GaussianMixture, PCA(20), raw": clone(projected), **unit}


def subspace_clustering():
    """Digits and a union of subspaces, clustered without a look at the classes."""
    section = Section("Clusters that are flat pieces", TEXT, NAMES, NOTE, None, "accuracy")
    digits, classes = load_digits(return_X_y=True)
    rows, pieces, _ = make_union_of_subspaces(400, 24, n_dims=4, n_clusters=5, noise=0.1, random_state=0)
    for data, X, y, n_dims in (("digits, no classes", digits, classes, 9), ("subspaces (generated)", rows, pieces, 4)):
        print(f"{data}: {X.shape[0]} rows, {X.shape[1]} columns, {len(np.unique(y))} clusters", flush=True)
        for name, model in methods(len(np.unique(y)), n_dims).items():
            start = time.perf_counter()
            right = clustering_accuracy(y, model.fit_predict(X))
            section.rows.append(Row(data, name, None, right, time.perf_counter() - start))
            if name == NAMES[0] and X is digits:
                mixture = model[-1]
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
        "in which its digits vary (slant, width, the length of a stroke). Red is more ink, blue is less."
    )
    return Picture("directions", "What each cluster is, and how it varies", caption, figure)


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
    axes.set(xlabel="dimension of the pieces (n_dims)", ylabel="log density of held-out rows")
    caption = (
        f"Being a density, the mixture can be tuned without classes: GridSearchCV with its own score picks dimension "
        f"{DIMS[best]} for the generated pieces; they were made with 4."
    )
    return Picture("dimensions", "The dimension, by cross-validation", caption, figure)


NOTE = (
    "Accuracy: the share of rows that the best matching of clusters to classes gets right. Raw: rows "
    "as they are; all others see rows of unit norm. Seconds: one fit."
)
TEXT = """<p>Images of one digit, or of one object under changing light, do not form a round blob: they vary along a few
directions, each digit along its own. All methods are told the number of clusters and never see the classes. The second
data set is generated: five subspaces of dimension 4 in 24 columns, with noise. LowRankGaussianMixture and KSubspaces
are told the dimension (9 for the digits); by default they find one. On the raw digits a GaussianMixture after PCA
depends on its seed: it gets from 0.77 to 0.93 of them right, and the one in the table is a good one.</p>
<pre>model = make_pipeline(Normalizer(), LowRankGaussianMixture(10, n_dims=9))
labels = model.fit_predict(X)</pre>"""
