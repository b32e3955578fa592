"""Every method once: ours, the best plain baseline of scikit-learn, and the best peer, on one data set, in one run.

The data are those of a method's main claim, real where it is for real data; the baseline is the strongest one that its
page names. A peer is another package, or where none exists a reference in numpy or torch. A lower error is
better; it is the mean over one to five seeds, of the method or of its data. Ours runs with its defaults, or with the
settings that its page names for such data. No parameter of ours was tuned on the rows that measure it; of several plain
baselines the best one by these rows is what ours is compared with. The full comparisons, with more data and more
baselines, are on the other pages.
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
