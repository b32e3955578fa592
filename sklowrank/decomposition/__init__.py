"""Components that serve a purpose: to predict a target, or to keep what a fitted predictor uses."""

from ._matryoshka_projection import MatryoshkaProjection
from ._supervised_dictionary_learning import SupervisedDictionaryLearning
from ._supervised_dictionary_regressor import SupervisedDictionaryRegressor

__all__ = ["MatryoshkaProjection", "SupervisedDictionaryLearning", "SupervisedDictionaryRegressor"]
