"""Networks as estimators, and rules that train them with few parameters or in flat minima."""

from ._grassmann_classifier import GrassmannClassifier
from ._network_classifier import NetworkClassifier
from ._network_regressor import NetworkRegressor
from ._ordered_rank import OrderedRank
from ._perturbed_latent_density import PerturbedLatentDensity
from ._random_subspace import RandomSubspace
from ._sharpness_aware import SharpnessAware
from ._sparse_spectral_training import SparseSpectralTraining
from ._trained_rank_pruning import TrainedRankPruning

__all__ = [
    "GrassmannClassifier",
    "NetworkClassifier",
    "NetworkRegressor",
    "OrderedRank",
    "PerturbedLatentDensity",
    "RandomSubspace",
    "SharpnessAware",
    "SparseSpectralTraining",
    "TrainedRankPruning",
]
