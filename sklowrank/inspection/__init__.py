"""Plots of fitted estimators, which need Matplotlib (the extra ``plot``), and diagnostics of networks."""

from ._affinity_display import AffinityDisplay
from ._attention_report import attention_report
from ._completion_display import CompletionDisplay
from ._dictionary_display import DictionaryDisplay
from ._embedding_display import EmbeddingDisplay
from ._intrinsic_dimension import IntrinsicDimension
from ._learning_regime import LearningRegime
from ._persistence_surface_display import PersistenceSurfaceDisplay
from ._privacy_utility_display import PrivacyUtilityDisplay
from ._spectrum_display import SpectrumDisplay
from ._transport_plan_display import TransportPlanDisplay

__all__ = [
    "AffinityDisplay",
    "CompletionDisplay",
    "DictionaryDisplay",
    "EmbeddingDisplay",
    "IntrinsicDimension",
    "LearningRegime",
    "PersistenceSurfaceDisplay",
    "PrivacyUtilityDisplay",
    "SpectrumDisplay",
    "TransportPlanDisplay",
    "attention_report",
]
