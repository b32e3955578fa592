"""Seconds of fits with two states of the package, in turns: ``python -m benchmarks.quality.turns REVISION``."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
MOST = 1.05  # times the seconds of the state before
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "SCIPY_ARRAY_API": "1"}

# What a process of either state runs: it may use nothing but the public estimators and their defaults.
WORK = """
import importlib, json, sys, time, warnings
import numpy as np
import torch
warnings.simplefilter("ignore")
torch.set_num_threads(1)
package, name, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
Estimator = getattr(importlib.import_module(f"sklowrank.{package}"), name)
rng = np.random.default_rng(0)
labels = rng.integers(4, size=n)
X = np.einsum("nr,nrd->nd", rng.normal(size=(n, 3)), rng.normal(size=(4, 3, 20))[labels])
X += 0.1 * rng.normal(size=X.shape)
y = None
if name in ("MatrixCompletionImputer",):
    X[rng.random(X.shape) < 0.2] = np.nan
elif name in ("SupervisedDictionaryLearning", "PrivateSimilarityClassifier"):
    y = labels % 2
elif package == "recommend":
    X, y = np.c_[rng.integers(n // 10, size=(n, 1)), rng.integers(20, size=(n, 1))], rng.normal(size=n)
elif package == "dimension_reduction" or name == "SupervisedDictionaryRegressor":
    y = X[:, 0] ** 2 + X[:, 1]
params = Estimator().get_params()
settings = {"random_state": 0} if "random_state" in params else {}
if "bounds" in params:
    settings["bounds"] = (-9.0, 9.0)
method = next((m for m in ("transform", "predict", "score_samples") if hasattr(Estimator, m)), None)
seconds = []
for _ in range(2):  # the first one imports and warms up
    start = time.process_time()
    model = Estimator(**settings).fit(X, y)
    getattr(model, method)(X)
    seconds.append(time.process_time() - start)
print(json.dumps(min(seconds)))
"""


def names():
    """Return (package, class name) of each public estimator."""
    sys.path.insert(0, str(ROOT))
    from tests.common import public_estimators

    found = [type(e) for e in public_estimators()]
    return [(cls.__module__.split(".")[1], cls.__name__) for cls in found]


def seconds(tree, package, name, n_rows):
    """Return the processor seconds of a fit and an answer in a process of its own."""
    environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(tree)}
    command = [sys.executable, "-c", WORK, package, name, str(n_rows)]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    """Print a line per estimator: seconds before, now, and their ratio; the least of all turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("revision", help="the state to compare with")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--only", nargs="*", default=(), metavar="ESTIMATOR")
    chosen = parser.parse_args()
    slower = []
    with tempfile.TemporaryDirectory() as before:
        archive = subprocess.run(["git", "-C", str(ROOT), "archive", chosen.revision], capture_output=True, check=True)
        subprocess.run(["tar", "-x", "-C", before], input=archive.stdout, check=True)
        for package, name in names():
            if not chosen.only or name in chosen.only:
                times = [
                    [seconds(tree, package, name, chosen.rows) for tree in (before, ROOT)] for _ in range(chosen.turns)
                ]
                old, new = (min(column) for column in zip(*times))
                slower += [name] * (new > MOST * old)
                print(f"{name}: {old:.3f} s before, {new:.3f} s now, ratio {new / old:.2f}", flush=True)
    print(f"slower by more than 5 %: {', '.join(slower) or 'none'}")


if __name__ == "__main__":
    main()
