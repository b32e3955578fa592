"""Scikit-learn estimators for data with low-rank and low-dimensional structure."""

import importlib

__version__ = "0.1.0"

_SUBPACKAGES = (
    "cluster",
    "datasets",
    "decomposition",
    "dimension_reduction",
    "distributed",
    "impute",
    "inspection",
    "metrics",
    "mixture",
    "privacy",
    "recommend",
)

__all__ = [*_SUBPACKAGES, "__version__"]


def __getattr__(name):
    """Import a sub-package when it is first asked for: torch and scikit-learn load with it, not with this line."""
    if name in _SUBPACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
