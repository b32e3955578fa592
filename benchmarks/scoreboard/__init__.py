"""Every method once: ours, the best plain baseline of scikit-learn, and the best peer, on one data set, in one run.

The data are those of a method's main claim, real where it is for real data; the baseline is the strongest one that its
page names. A peer is another package, or where none exists a reference in numpy or torch. The error is lower where it
is better; it is the mean over two seeds, where a method or its data have any. Ours runs with its defaults, or with the
settings that its page names for such data. No parameter was tuned on the rows that measure it, except where a baseline
has a choice of several: it is then given its best one. The full comparisons, with more data and more baselines, are on
the other pages.
"""

import importlib
import pkgutil

from benchmarks.scoreboard import entries
from benchmarks.scoreboard.entries import case_of

TITLE = "Scoreboard"
REFERENCES = {"codes", "entries", "references", "references_torch"}
FAMILIES = sorted({module.name for module in pkgutil.iter_modules(__path__)} - REFERENCES)
ENTRIES = [
    (module, entry)
    for module in (f"{__name__}.{family}" for family in FAMILIES)
    for entry in importlib.import_module(module).ENTRIES
]
CASES = [case_of(module, entry) for module, entry in ENTRIES]
summary = entries.table
