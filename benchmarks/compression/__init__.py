"""Compression of fitted networks: `LowRankCompressor` and what else is made of a network without training it anew.

A module of this package has the cases of one method. Digits are divided by 16 and split 60/40 by class; no parameter
was tuned on the rows that measure it.
"""

import importlib
import pkgutil

TITLE = "Compression of networks"
CASES = [
    case
    for module in sorted(part.name for part in pkgutil.iter_modules(__path__))
    for case in importlib.import_module(f"{__name__}.{module}").CASES
]
