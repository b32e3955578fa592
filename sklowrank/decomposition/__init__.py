"""Dictionaries that rebuild the features and, beside that, say what the target wants to know."""

from ._supervised_dictionary_learning import SupervisedDictionaryLearning
from ._supervised_dictionary_regressor import SupervisedDictionaryRegressor

__all__ = ["SupervisedDictionaryLearning", "SupervisedDictionaryRegressor"]
