"""Scikit-learn estimators for data with low-rank and low-dimensional structure, computed with PyTorch.

Sub-packages; each is imported when it is first used:

adapt                fitted networks adapted to new rows by few numbers
cluster              subspace clustering and manifold clustering
compress             fitted networks made smaller
datasets             generators of data with known low-rank structure
decomposition        supervised dictionary learning: components that reconstruct X and predict y
dimension_reduction  sufficient dimension reduction for numbers, classes and random objects
distributed          fits on Dask collections
impute               missing values in tables, with standard errors
inspection           plots of fitted estimators
manifold             embeddings that keep geodesic distances, vector fields and alignment of point clouds
metric_learning      representations in which embeddings of several encoders can be compared
metrics              clustering accuracy, subspace errors, coding rates, distance correlation
mixture              mixtures of low-rank Gaussians: density, outlier detection, denoising
multiclass           classifiers that use distances between labels: ordinal grades, trees, embeddings
neural               networks and rules that train them with few parameters or in flat minima
optim                optimizers for torch with second-order information
privacy              density estimation, distances and classification under differential privacy
recommend            values of (row, column) pairs: ratings, recommendations
tensor               regression on coordinates by tensors of smooth functions
topology             persistent homology: separability of unlabelled rows, features of shapes and series
transport            entropic optimal transport between tables, domain adaptation
"""

import importlib

__version__ = "0.1.0"

_SUBPACKAGES = (
    "adapt",
    "cluster",
    "compress",
    "datasets",
    "decomposition",
    "dimension_reduction",
    "distributed",
    "impute",
    "inspection",
    "manifold",
    "metric_learning",
    "metrics",
    "mixture",
    "multiclass",
    "neural",
    "optim",
    "privacy",
    "recommend",
    "tensor",
    "topology",
    "transport",
)

__all__ = [*_SUBPACKAGES, "__version__"]


def __getattr__(name):
    """Import a sub-package when it is first asked for: torch and scikit-learn load with it, not with this line."""
    if name in _SUBPACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
