"""Clusters: subspaces, curved surfaces, mixtures."""

from sklearn.cluster import KMeans

from benchmarks import manifold_linearizing_clustering
from benchmarks.harness import accuracy
from benchmarks.peers import clusterer
from benchmarks.scoreboard import codes
from benchmarks.scoreboard.entries import Clock, Contender, Entry
from benchmarks.subspace_clustering import load

FACES = "yaleb 10-19"
PEOPLE = "faces of ten people under changing light, 32 x 32 pixels (yaleb 10-19)"
MISSED = "1 - accuracy of the best matching"
NEAR = "SpectralClustering, 5 neighbours"


# Protocols


def clustered(data, load=load):
    """A protocol: labels of a data set."""

    def protocol(make, seed):
        X, y = load(data)
        model = make(seed)
        with Clock() as clock:
            labels = model.fit_predict(X)
        return 1 - accuracy(y, labels), clock.seconds

    return protocol


# Contenders


def ours(kind, package="cluster", n_clusters=10, **settings):
    def make(seed):
        from importlib import import_module

        return getattr(import_module(f"sklowrank.{package}"), kind)(n_clusters, random_state=seed, **settings)

    return make


def plain(name, n_clusters=10):
    def make(seed):
        return clusterer(name, n_clusters, 20).set_params(random_state=seed)

    return make


def coded(codes_of):
    """A reference; the codes of matching pursuit are taken as they are, as in their source."""
    return lambda seed: codes.Coded(codes_of, 10, seed, scaled=codes_of is not codes.matching_pursuit)


class EmbeddedMeans:
    """K-means in ten components of UMAP."""

    def __init__(self, n_clusters, seed):
        self.n_clusters, self.seed = n_clusters, seed

    def fit_predict(self, X):
        from umap import UMAP

        Z = UMAP(n_components=10, min_dist=0.0, random_state=self.seed, n_jobs=1).fit_transform(X)
        return KMeans(self.n_clusters, n_init=10, random_state=self.seed).fit_predict(Z)


def self_expressive(kind, reference, codes_of, seeds=2):
    return Entry(
        kind,
        PEOPLE,
        MISSED,
        clustered(FACES),
        Contender("default", ours(kind)),
        Contender(NEAR, plain(NEAR)),
        Contender(reference, coded(codes_of)),
        seeds,
        ("yaleb32",),
    )


ENTRIES = [
    self_expressive("SparseSubspaceClusteringOMP", "matching pursuits in numpy", codes.matching_pursuit),
    self_expressive("ElasticNetSubspaceClustering", "loop over ElasticNet", codes.elastic_net, 1),
    self_expressive("SparseSubspaceClustering", "loop over lasso", codes.lasso, 1),
    self_expressive("LeastSquaresSubspaceClustering", "ridge regression in numpy", codes.least_squares),
    self_expressive("LowRankRepresentationClustering", "closed form in numpy", codes.low_rank),
    self_expressive("ThresholdedSubspaceClustering", "thresholding in numpy", codes.thresholded),
    Entry(
        "KSubspaces",
        PEOPLE,
        MISSED,
        clustered(FACES),
        Contender("n_dims=9, not affine", ours("KSubspaces", n_dims=9, affine=False)),
        Contender(NEAR, plain(NEAR)),
        Contender("random starts in numpy", lambda seed: codes.Subspaces(10, 9, seed)),
        1,
        ("yaleb32",),
    ),
    Entry(
        "ManifoldLinearizingClustering",
        "20 objects turning before a camera, 32 x 32 pixels (coil20)",
        MISSED,
        clustered("coil20", manifold_linearizing_clustering.load),
        Contender("default", ours("ManifoldLinearizingClustering", n_clusters=20)),
        Contender(NEAR, plain(NEAR, 20)),
        Contender("UMAP and k-means", lambda seed: EmbeddedMeans(20, seed), "umap-learn"),
        2,
        ("coil20",),
    ),
    Entry(
        "LowRankGaussianMixture",
        PEOPLE,
        MISSED,
        clustered(FACES),
        Contender("default", ours("LowRankGaussianMixture", "mixture")),
        Contender(NEAR, plain(NEAR)),
        Contender("mixture of principal components in numpy", lambda seed: codes.PrincipalMixture(10, 9, seed)),
        1,
        ("yaleb32",),
    ),
]
