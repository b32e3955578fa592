"""Checks, deviations, sizes and times of every estimator, each as it is measured."""

import json
import os
import pickle
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import skops.io
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

from sklowrank._core import blocks
from sklowrank.metrics import clustering_accuracy
from tests.common import answers, fit, new_data, parts_of, seeded, small_data
from tests.estimators import spec_of

ROOT = Path(__file__).parent.parent.parent
# In standard deviations of a column of answers, and as shares of rows with another label or class
PRECISION, PRECISION_OF_LABELS = 1e-3, 0.01
COMPARED = {  # what `deviations` measures, by key: a heading
    "threads": "eight threads for one",
    "blocks": "blocks of 4 KB for 32 MB",
    "order asked": "rows asked about in another order",
    "order fitted": "fit to rows in another order",
}
ROWS = 200  # of the table on which `deviations` are measured
BOUNDS = {"threads": 1e-6, "blocks": 1e-6, "order asked": 1e-6}  # relative, of what floats differ at most
NETWORKS = {"threads": 1e-3, "blocks": 1e-3, "order asked": 1e-5}  # trained in float32, for hundreds of steps


def checks(estimator):
    """Return the numbers of scikit-learn's checks that passed, failed and were skipped, and why."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(estimator, on_fail=None, on_skip=None)
    counts = Counter(result["status"] for result in results)
    reasons = Counter(str(r["exception"]).split(",")[0] for r in results if r["status"] == "skipped")
    failed = [r["check_name"] for r in results if r["status"] not in ("passed", "skipped")]
    return counts["passed"], failed, reasons


def quietly(estimator, X, y, order=None):
    """Return the answers of a fit to the rows of X, or, of methods, to those rows in another order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, new = fit(clone(estimator), X, y), new_data(estimator, X)
        if order is None:
            return answers(model, new)
        return {name: answer for name, answer in answers(model, new[order]).items() if name != "labels_"}


def precision(estimator, table):
    """Return how far the answers of a fit in float32 are from those of a fit in float64, for the same numbers.

    Of floats the largest difference, in standard deviations of their column over the rows; of labels and classes the
    share of rows that are parted otherwise. What is constant is compared with its size.
    """
    X, y = (part if part is None or part.dtype.kind != "f" else part.astype(np.float32) for part in table[:2])
    exact = [part if part is None or part.dtype.kind != "f" else part.astype(np.float64) for part in (X, y)]
    model = seeded(estimator, **table.params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        double, single = (answers(fit(seeded(model), *data), data[0]) for data in (exact, (X, y)))
    floats, labels = 0.0, 0.0
    for name in double:
        a, b = np.atleast_1d(double[name]), np.atleast_1d(single[name])
        if a.dtype.kind == "f":
            spread = a.std(0)
            spread = np.where(spread > 1e-12 * np.abs(a).max(), spread, np.abs(a).max() or 1.0)
            floats = np.maximum(floats, (np.abs(a - b) / spread).max())  # which keeps NaN, where max() drops it
        elif name == "labels_" or hasattr(model, "n_clusters"):
            labels = max(labels, 1 - clustering_accuracy(a, b))
        else:
            labels = max(labels, float(np.mean(a != b)))
    return float(floats), labels


def deviation(one, other):
    """Largest relative difference of answers that are floats; labels differ by the share that is parted otherwise."""
    worst = 0.0
    for name, b in other.items():
        a = one[name]
        if a.dtype.kind == "f":
            worst = np.maximum(worst, np.abs(a.astype(float) - b).max() / max(np.abs(a).max(), 1e-300))
        elif a.dtype.kind in "iu" and name in ("labels_", "predict"):
            worst = np.maximum(worst, 1 - clustering_accuracy(a, b))
    return float(worst)


def bounds(estimator):
    """Return how far answers may move."""
    return NETWORKS if spec_of(estimator).network else BOUNDS


def is_precise(floats, labels):
    """Return whether what :func:`precision` found is within its bounds."""
    return floats <= PRECISION and labels <= PRECISION_OF_LABELS


def deviations(estimator, table):
    """Return how far answers move with eight threads, blocks of a few rows, and rows in another order."""
    X, y, params = table.X[:ROWS], table.y if table.y is None else table.y[:ROWS], table.params
    model = seeded(estimator, **params)
    whole, found = quietly(model, X, y), {}
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(8)
        found["threads"] = deviation(whole, quietly(model, X, y))
    finally:
        torch.set_num_threads(threads)
    size = blocks._AUTO_BYTES
    try:
        blocks._AUTO_BYTES = 4096
        found["blocks"] = deviation(whole, quietly(model, X, y))
    finally:
        blocks._AUTO_BYTES = size
    order = np.random.default_rng(0).permutation(len(X))
    found["order asked"] = deviation(in_order(whole, order), quietly(model, X, y, order))
    found["order fitted"] = deviation(in_order(whole, order), quietly(model, X[order], y if y is None else y[order]))
    return found


def in_order(found, order):
    """Return the answers to rows in another order, from those to the rows as they are; a single number stays."""
    return {name: answer[order] if answer.shape[:1] == order.shape else answer for name, answer in found.items()}


def stored(estimator):
    """Return the size of a pickle of the fitted estimator, in KB, and the types that skops has to trust.

    None for the types of what holds a torch module, which skops cannot store.
    """
    X, y = small_data(estimator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = fit(seeded(estimator), X, y)
    size = len(pickle.dumps(model)) / 1024
    if any(isinstance(part, torch.nn.Module) for part in parts_of(vars(model))):
        return size, None
    return size, skops.io.get_untrusted_types(data=skops.io.dumps(model))


def seconds_of_import(module):
    """Return the best of five times of an import in a new process."""
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    return min(float(_output(sys.executable, "-c", code)) for _ in range(5))


def wheel_size():
    """Return the size of the wheel in KB."""
    with tempfile.TemporaryDirectory() as folder:
        _output(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, str(ROOT))
        return next(Path(folder).glob("*.whl")).stat().st_size / 1024


def coverage():
    """Run the fast tests; return the shares of branches and lines of the package that they reach, and their summary."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "SCIPY_ARRAY_API": "1", "OMP_NUM_THREADS": "1", "COVERAGE_FILE": f"{folder}/data"}
        command = [sys.executable, "-m", "pytest", "-q", "-n", "auto", "--dist", "worksteal", "--doctest-modules"]
        command += [
            *("-m", "not slow"),
            "--cov=sklowrank",
            "--cov-branch",
            f"--cov-report=json:{folder}/coverage.json",
            "tests",
            "sklowrank",
        ]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stdout[-2000:])
        totals = json.loads(Path(folder, "coverage.json").read_text())["totals"]
    branches = totals["covered_branches"] / totals["num_branches"]
    lines = totals["covered_lines"] / totals["num_statements"]
    return branches, lines, done.stdout.strip().splitlines()[-1].strip("= ")


def _output(*command):
    return subprocess.run(command, cwd=tempfile.gettempdir(), capture_output=True, text=True, check=True).stdout
