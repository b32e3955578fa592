"""Use an installed sklowrank, in isolation (``python -I``) and outside of the repository: one fit per sub-package."""

import importlib
import sys
from importlib import metadata, resources
from pathlib import Path

import numpy as np

import sklowrank

home = Path(sklowrank.__file__).resolve()
assert Path(sys.prefix).resolve() in home.parents, f"{home} is not the installed library"
assert metadata.version("sklowrank") == sklowrank.__version__
assert resources.files("sklowrank").joinpath("py.typed").is_file(), "py.typed is missing"

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 2)) @ rng.normal(size=(2, 5)) + 0.1 * rng.normal(size=(60, 5))
y = X[:, 0] + X[:, 1] ** 2
gaps = np.where(rng.random(X.shape) < 0.2, np.nan, X)
pairs = np.column_stack(divmod(rng.permutation(100)[:60], 10))


def call(package, name, *args, **params):
    """Return the result of a public name of a sub-package."""
    return getattr(importlib.import_module(f"sklowrank.{package}"), name)(*args, **params)


def on_partitions():
    """Fit a Dask array, where Dask is installed."""
    import dask.array as da

    return call("distributed", "fit", call("cluster", "KSubspaces", 2), da.from_array(X, chunks=(20, 5)))


def display():
    """Draw a fitted model, where Matplotlib is installed."""
    import matplotlib

    matplotlib.use("agg")
    model = call("cluster", "ThresholdedSubspaceClustering", 2).fit(X)
    return sklowrank.inspection.AffinityDisplay.from_estimator(model)


def pruned():
    """Give a network layers of low rank, and set half of the weights of another one to zero."""
    network = call("neural", "NetworkClassifier", (8, 8), max_iter=2, tol=0)
    call("compress", "FeatureMimickingCompressor", network, linear_rank=2).fit(X, y > 0).predict(X)
    call("compress", "LowRankCompensator", network, rank=2).fit(X, y > 0).predict(X)
    call("compress", "LowRankCompressor", network, rank=2).fit(X, y > 0).predict(X)
    return call("compress", "SecondOrderPruner", network, sparsity=0.5, n_grads=20).fit(X, y > 0).predict(X)


def adapted():
    """Adapt a network to other rows."""
    network = call("neural", "NetworkClassifier", (4,), max_iter=2, tol=0)
    return call("adapt", "TuckerAdapter", network, rank=2, max_iter=2).fit(X, y > 0).predict(X)


def decomposed():
    """Learn a dictionary, and rotate features for a predictor."""
    call("decomposition", "MatryoshkaProjection", 2, max_iter=3).fit(X, y).transform(X)
    return call("decomposition", "SupervisedDictionaryLearning", 2).fit(X, y > 0).predict(X)


def trained():
    """Train a network with a rule, and a filter."""
    call("neural", "LatentQuantizationFilter", 2, max_iter=2).fit(X).transform(X)
    rule = call("neural", "OrderedRank")
    return (
        call("neural", "NetworkRegressor", (4, 4), training=rule, max_iter=2, tol=0).fit(X, y).resized(0.9).predict(X)
    )


FITS = {
    "adapt": adapted,
    "cluster": lambda: call("cluster", "KSubspaces", 2).fit(X).predict(X),
    "compress": pruned,
    "datasets": lambda: call("datasets", "make_union_of_subspaces", 20, 6, 2, 2),
    "decomposition": decomposed,
    "dimension_reduction": lambda: call("dimension_reduction", "LinearFrechetSDR", 1).fit(X, y).transform(X),
    "distributed": on_partitions,
    "impute": lambda: call("impute", "MatrixCompletionImputer", 2).fit_transform(gaps),
    "inspection": display,
    "manifold": lambda: call("manifold", "HeatGeodesicEmbedding", 2).fit_transform(X),
    "metric_learning": lambda: call("metric_learning", "RelativeRepresentation", 5).fit_transform(X),
    "metrics": lambda: call("metrics", "clustering_accuracy", [0, 0, 1], [1, 1, 0]),
    "mixture": lambda: call("mixture", "LowRankGaussianMixture", 2, n_dims=2).fit(X).score_samples(X),
    "multiclass": lambda: call("multiclass", "LokiClassifier").fit(X, y > 0).predict(X),
    "neural": trained,
    "optim": lambda: call("optim", "InverseFisher", X, damp=1e-2).mul(X[0]),
    "privacy": lambda: call("privacy", "PrivateKernelDensity", bounds=(-9, 9)).fit(X).score_samples(X),
    "recommend": lambda: call("recommend", "MatrixFactorizationRegressor", 2).fit(pairs, y).predict(pairs),
    "tensor": lambda: call("tensor", "FunctionalTuckerRegressor", 1).fit(X[:, :2], y).predict(X[:, :2]),
    "topology": lambda: call("topology", "persistence_separability_score", X),
    "transport": lambda: call("transport", "SinkhornTransport").fit(X, X_target=X + 1).transform(X),
}

assert set(sklowrank.__all__) - {"__version__"} <= set(FITS), "a sub-package has no line in this file"
for package, fit in FITS.items():
    try:
        fit()
        print(f"  {package}: works")
    except ImportError as missing:
        if missing.name is None or missing.name.partition(".")[0] not in ("dask", "matplotlib"):
            raise
        print(f"  {package}: not tried, {missing.name} is not installed")
