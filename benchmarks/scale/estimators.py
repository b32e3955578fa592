"""The estimators whose curves are measured since the first methods: with their defaults but for what is named."""

SEED = {"random_state": 0}


STREAMED = (
    "KSubspaces",
    "LowRankGaussianMixture",
    "PrivateKernelDensity",
    "PrivateDistanceSum",
    "PrivateSimilarityClassifier",
    "LinearFrechetSDR, fccov",
    "SupervisedDictionaryLearning",
    "SupervisedDictionaryRegressor",
)
TRAINED = ("FrechetSDR", "KernelFrechetSDR")


def estimators():
    """Return by name the estimator, what it is fitted to, and whether its cost is said to be linear in rows."""
    from sklowrank import cluster, decomposition, dimension_reduction, impute, mixture, privacy, recommend

    graph = {"n_clusters": 4, **SEED}
    settings = {"bounds": (-30, 30), **SEED}
    return {
        "KSubspaces": (cluster.KSubspaces(4, n_dims=3, **SEED), "X", True),
        "LowRankGaussianMixture": (mixture.LowRankGaussianMixture(4, n_dims=3, **SEED), "X", True),
        "PrivateKernelDensity": (privacy.PrivateKernelDensity(bandwidth=10.0, **settings), "X", True),
        "PrivateDistanceSum": (privacy.PrivateDistanceSum(**settings), "X", True),
        "PrivateSimilarityClassifier": (privacy.PrivateSimilarityClassifier(**settings), "classes", True),
        "LinearFrechetSDR, fccov": (dimension_reduction.LinearFrechetSDR(2, method="fccov"), "numbers", True),
        "SupervisedDictionaryLearning": (decomposition.SupervisedDictionaryLearning(3, **SEED), "classes", True),
        "SupervisedDictionaryRegressor": (decomposition.SupervisedDictionaryRegressor(3, **SEED), "numbers", True),
        "MatrixCompletionImputer": (impute.MatrixCompletionImputer(4, **SEED), "holes", True),
        "MatrixFactorizationRegressor": (recommend.MatrixFactorizationRegressor(4, **SEED), "pairs", True),
        "FrechetSDR": (dimension_reduction.FrechetSDR(2, **SEED), "numbers", True),
        "KernelFrechetSDR": (dimension_reduction.KernelFrechetSDR(2, **SEED), "numbers", True),
        "LinearFrechetSDR, wire": (dimension_reduction.LinearFrechetSDR(2, method="wire"), "numbers", False),
        "ManifoldLinearizingClustering": (cluster.ManifoldLinearizingClustering(4, **SEED), "X", False),
        "ThresholdedSubspaceClustering": (cluster.ThresholdedSubspaceClustering(**graph), "X", False),
        "SparseSubspaceClusteringOMP": (cluster.SparseSubspaceClusteringOMP(**graph), "X", False),
        "ElasticNetSubspaceClustering": (cluster.ElasticNetSubspaceClustering(**graph), "X", False),
        "SparseSubspaceClustering": (cluster.SparseSubspaceClustering(**graph), "X", False),
        "LeastSquaresSubspaceClustering": (cluster.LeastSquaresSubspaceClustering(**graph), "X", False),
        "LowRankRepresentationClustering": (cluster.LowRankRepresentationClustering(**graph), "X", False),
    }
