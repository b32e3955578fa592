"""How far each estimator goes: time and memory from 1,000 to 1,000,000 rows, files of 4 GB, clusters, GPUs.

Tables are files of float32 that are opened as memmaps: 50 columns, four subspaces of dimension 3, noise. Estimators
have their defaults but for what is named. Each size is fitted as long as a fit is expected to end within ten minutes,
those of the cases «Newcomers» within a minute; networks in these have two hidden layers of 128 and few epochs. Memory,
the column «peak», is the anonymous memory of the process, libraries included (about 250 MB): what is mapped of the file
is not counted. Slopes are those of the logarithms over the last tenfold of rows: 1 is linear, 2 quadratic, 0 flat. The
number of iterations depends on the data, so what is claimed is the time of one, for newcomers with a set number.
"""

from benchmarks.scale.cases import CASES
from benchmarks.scale.drawing import draw
from benchmarks.scale.measured import Killer

__all__ = ["CASES", "TITLE", "Killer", "draw"]
TITLE = "Scale: rows, memory, clusters, GPUs"
