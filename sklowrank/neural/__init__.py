"""Networks as estimators, rules that train them with few parameters or in flat minima, and a filter of rows."""

from ._grassmann_classifier import GrassmannClassifier
from ._latent_quantization_filter import LatentQuantizationFilter
from ._latent_spectral import LatentSpectralRegressor
from ._lie_group_conv_classifier import LieGroupConvClassifier
from ._linear_attention import linear_attention
from ._morphable_mlp_classifier import MorphableMLPClassifier
from ._morphable_mlp_regressor import MorphableMLPRegressor
from ._network_classifier import NetworkClassifier
from ._network_regressor import NetworkRegressor
from ._ordered_rank import OrderedRank
from ._perturbed_latent_density import PerturbedLatentDensity
from ._polynomial_attention import PolynomialAttentionClassifier, PolynomialAttentionRegressor
from ._random_subspace import RandomSubspace
from ._sharpness_aware import SharpnessAware
from ._sparse_spectral_training import SparseSpectralTraining
from ._trained_rank_pruning import TrainedRankPruning

__all__ = [
    "GrassmannClassifier",
    "LatentQuantizationFilter",
    "LatentSpectralRegressor",
    "LieGroupConvClassifier",
    "MorphableMLPClassifier",
    "MorphableMLPRegressor",
    "NetworkClassifier",
    "NetworkRegressor",
    "OrderedRank",
    "PerturbedLatentDensity",
    "PolynomialAttentionClassifier",
    "PolynomialAttentionRegressor",
    "RandomSubspace",
    "SharpnessAware",
    "SparseSpectralTraining",
    "TrainedRankPruning",
    "linear_attention",
]
