"""Networks as estimators, and rules that train them with few parameters or in flat minima."""

from ._grassmann_classifier import GrassmannClassifier
from ._lie_group_conv_classifier import LieGroupConvClassifier
from ._linear_attention import linear_attention
from ._network_classifier import NetworkClassifier
from ._network_regressor import NetworkRegressor
from ._ordered_rank import OrderedRank
from ._polynomial_attention import PolynomialAttentionClassifier, PolynomialAttentionRegressor
from ._random_subspace import RandomSubspace
from ._sharpness_aware import SharpnessAware
from ._sparse_spectral_training import SparseSpectralTraining
from ._trained_rank_pruning import TrainedRankPruning

__all__ = [
    "GrassmannClassifier",
    "LieGroupConvClassifier",
    "NetworkClassifier",
    "NetworkRegressor",
    "OrderedRank",
    "PolynomialAttentionClassifier",
    "PolynomialAttentionRegressor",
    "RandomSubspace",
    "SharpnessAware",
    "SparseSpectralTraining",
    "TrainedRankPruning",
    "linear_attention",
]
