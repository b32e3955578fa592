"""Adapters: fitted networks and few rows of another kind, `TuckerAdapter` and `LDUAdapter`.

Networks are trained on 40 % of scikit-learn's digits divided by 16; adapters on a few of the others that have been
changed, and measured on the rest of them. Figures are means over seeds 0 to 2, seconds those of the processor for one
fit. Baselines train by AdamW with the same rows, epochs and batches. No parameter was tuned on the rows that measure
it; where a baseline has two rates, the better one by these rows is what ours is compared with.
"""

from benchmarks.adaptation import ldu, tucker

TITLE = "Adapters of fitted networks"
CASES = [*tucker.CASES, *ldu.CASES]
