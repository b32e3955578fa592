"""Pictures of what a fit found; the classes need Matplotlib, which the extra ``plot`` installs."""

from ._dictionary_display import DictionaryDisplay

__all__ = ["DictionaryDisplay"]
