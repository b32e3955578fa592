"""Plots of fitted estimators; the classes need Matplotlib, which the extra ``plot`` installs."""

from ._affinity_display import AffinityDisplay
from ._completion_display import CompletionDisplay
from ._dictionary_display import DictionaryDisplay
from ._privacy_utility_display import PrivacyUtilityDisplay
from ._spectrum_display import SpectrumDisplay

__all__ = ["AffinityDisplay", "CompletionDisplay", "DictionaryDisplay", "PrivacyUtilityDisplay", "SpectrumDisplay"]
