"""Supervised dictionary learning: components that reconstruct the features and predict the target."""

from ._supervised_dictionary_learning import SupervisedDictionaryLearning
from ._supervised_dictionary_regressor import SupervisedDictionaryRegressor

__all__ = ["SupervisedDictionaryLearning", "SupervisedDictionaryRegressor"]
