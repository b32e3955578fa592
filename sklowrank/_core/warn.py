"""Warnings that point to the user's own line, however deep in the library they arise."""

import sys
import warnings

_PASSED_BY = ("sklowrank", "sklearn", "joblib", "skorch", "torch")  # packages whose lines are not the user's


def warn(message: str, category: type[Warning]) -> None:
    """Warn about the line of the user that led here, also where a pipeline or a search lies between."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _PASSED_BY:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
