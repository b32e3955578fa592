"""Every method once: ours, the best plain baseline of scikit-learn, and the best peer, on one data set, in one run.

The data are those of a method's main claim, real where it is for real data, and the baseline is the strongest one that
its page names: another data set can have another outcome. A Gaussian mixture, for example, is the better density of
breast cancer than LowRankGaussianMixture (1.33 against 1.94 nats a row), and five nearest rows clean digits better
than LatentQuantizationFilter. A peer is another package, or where none exists a reference in numpy or torch. A lower
error is better; it is the mean over one to five seeds, of the method or of its data. Ours runs with its defaults, or
with the settings that its page names for such data. The full comparisons, with more data and more baselines, are on
the other pages.
"""

import importlib

from benchmarks.scoreboard import entries

TITLE = "Scoreboard"
FAMILIES = (
    "tables",
    "clusters",
    "reductions",
    "shapes",
    "networks",
    "inspection",
    "compression",
    "adaptation",
    "deep",
)
summary = entries.table


def __getattr__(name):
    """Entries and cases, when they are asked for: a measured process needs those of one family alone."""
    if name == "ENTRIES":
        modules = [importlib.import_module(f"{__name__}.{family}") for family in FAMILIES]
        return [(module.__name__, entry) for module in modules for entry in module.ENTRIES]
    if name == "CASES":
        return [entries.case_of(*pair) for pair in __getattr__("ENTRIES")]
    raise AttributeError(f"module {__name__} has no attribute {name}")
