"""Entropic optimal transport between tables, and domain adaptation by it."""

from ._ot_adaptation import OTAdaptationClassifier, OTAdaptationRegressor
from ._sinkhorn_newton import SinkhornResult, sinkhorn_newton
from ._sinkhorn_transport import SinkhornTransport

__all__ = [
    "OTAdaptationClassifier",
    "OTAdaptationRegressor",
    "SinkhornResult",
    "SinkhornTransport",
    "sinkhorn_newton",
]
