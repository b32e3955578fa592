"""What is measured, each in a process of its own: seconds and memory of fits, and how far answers are apart."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np

from benchmarks.harness import clock
from benchmarks.scale.data import COLUMNS, data_of
from benchmarks.scale.estimators import estimators
from benchmarks.scale.newcomers import given, newcomers


def anonymous():
    """Memory of this process that no file stands for, in MB; NaN where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    return next(int(line.split()[1]) for line in status.open() if line.startswith("RssAnon")) / 1024


class Watch:
    """Keeps the largest anonymous memory while it is on."""

    def __enter__(self):
        self.peak, self.on = anonymous(), True
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def _run(self):
        while self.on:
            self.peak = max(self.peak, anonymous())
            time.sleep(0.01)

    def __exit__(self, *error):
        self.on = False
        self.thread.join()


def fit(model, X, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fits that are cut short, and of seeds that weaken a guarantee
        return model.fit(X) if y is None else model.fit(X, y)


def curve(name, n, device="cpu", columns=COLUMNS):
    """One fit of n rows."""
    model, kind, _ = estimators()[name]
    model.set_params(device=device)
    X, y = data_of(kind, n, columns)
    fit(model, X[:300], None if y is None else y[:300])  # what libraries load and allocate once
    with Watch() as watch:
        _, seconds = clock(lambda: fit(model, X, y))
    n_iter = getattr(model, "n_iter_", 1)
    return {"seconds": seconds, "peak": watch.peak, "n_iter": n_iter, "remark": f"{n_iter} iterations" * (n_iter > 1)}


def newcomer(name, n, device="cpu"):
    """One fit of n rows."""
    entry = newcomers()[name]
    data, model = given(entry.kind, n), computing_on(device, entry.make())
    few = {argument: rows[:300] for argument, rows in data.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fits that are cut short
        model.fit(**few)  # what libraries load and allocate once
        with Watch() as watch:
            _, seconds = clock(lambda: model.fit(**data), budget=2.0)
    n_iter = max(1, getattr(model, "n_iter_", 1))
    return {"seconds": seconds, "peak": watch.peak, "n_iter": n_iter, "remark": entry.said}


def computing_on(device, model):
    """Return a model, or what it wraps, that computes on a device."""
    names = ("device", "transport__device", "representation__device")
    name = next((name for name in names if name in model.get_params()), None)
    return model if name is None else model.set_params(**{name: device})


def agreement(name, n=20_000):
    """How far blocks of 997 rows and seven partitions are from the answer of rows that lie in memory."""
    import dask.array as da
    from sklearn.base import clone

    from sklowrank import distributed
    from sklowrank._core import rows
    from sklowrank._nets import passes

    if name in newcomers():
        model, kind = newcomers()[name].make(), newcomers()[name].kind
    else:
        model, kind, _ = estimators()[name]
    if "xi" in model.get_params():  # dictionaries, whose objective is compared: both have to have arrived
        model.set_params(tol=1e-12)
    path = data_of(kind, n)
    X, y = (part if part is None or part.dtype.kind in "iu" else np.array(part, dtype=np.float64) for part in path)
    serial = fit(clone(model), X, y)
    whole = rows.rows_per_block
    rows.rows_per_block = passes.rows_per_block = lambda batch_size, n_rows, size: min(n_rows, 997)
    read = clone(model) if kind in ("holes", "pairs") else fit(clone(model), ReadOnly(X), y)
    rows.rows_per_block = passes.rows_per_block = whole
    chunks = (n // 7, X.shape[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        there = distributed.fit(clone(model), da.from_array(X, chunks=chunks), y)
    blocks = difference(serial, read) if kind not in ("holes", "pairs") else float("nan")
    return {"error": difference(serial, there), "blocks": blocks}


class ReadOnly:
    """An array that is known by its slices."""

    def __init__(self, X):
        self.X, self.shape, self.dtype = X, X.shape, X.dtype

    def __getitem__(self, at):
        return self.X[at]


def difference(one, other):
    """Largest relative difference of fitted attributes; of what has no unique optimum, that of the objectives."""
    if hasattr(one, "reconstruction_error_"):
        names = ("loss_curve_",)  # of which the last is the objective reached
    else:
        names = [n for n in vars(one) if n.endswith("_") and not n.startswith("_") and n != "loss_curve_"]
    worst = 0.0
    for name in names:
        a, b = (getattr(model, name) for model in (one, other))
        if isinstance(a, dict):
            a, b = ([values[key] for key in a] for values in (a, b))
        a, b = (
            np.concatenate([np.ravel(v) for v in x]) if isinstance(x, list) and x else np.asarray(x) for x in (a, b)
        )
        if a.dtype.kind not in "fiu":
            continue
        if name == "loss_curve_":
            a, b = a[-1:], b[-1:]
        size = np.abs(np.nan_to_num(a, posinf=0, neginf=0)).max(initial=0) or 1.0
        gaps = np.abs(np.nan_to_num(a - b, nan=0.0))
        worst = max(worst, float(gaps.max(initial=0)) / size)
    return worst


def killed(name, n=20_000):
    """A fit on two processes, one of which is killed after the first step."""
    import dask.array as da
    from dask.distributed import Client, LocalCluster
    from sklearn.base import clone

    from sklowrank import distributed

    model, kind, _ = estimators()[name]
    X, y = data_of(kind, n)
    X = np.array(X, dtype=np.float64)
    serial = fit(clone(model), X, y)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        killer = Killer(next(iter(client.run(os.getpid).values())))
        there = distributed.fit(clone(model).set_callbacks(killer), da.from_array(X, chunks=(n // 7, COLUMNS)), y)
    return {
        "error": difference(serial, there),
        "seconds": float("nan"),
        "remark": f"killed at step 1 of {there.n_iter_}",
    }


class Killer:
    """A callback that kills a process after the first step."""

    def __init__(self, pid):
        self.pid, self.steps = pid, 0

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        self.steps += 1
        if self.steps == 1:
            os.kill(self.pid, signal.SIGKILL)


# Small data, before and after


SMALL = """
import sys, time, warnings
sys.path.insert(0, sys.argv[1])
import sklowrank
assert sklowrank.__file__.startswith(sys.argv[1])
sys.path[0] = sys.argv[2]
warnings.simplefilter("ignore")
from benchmarks.scale.data import data_of
from benchmarks.scale.estimators import estimators
model, kind, _ = estimators()[sys.argv[3]]
X, y = data_of(kind, 1000)
X = X.copy()
times = []
begin = time.perf_counter()
while len(times) < 3 or (time.perf_counter() - begin < 4 and len(times) < 200):
    start = time.perf_counter()
    model.fit(X) if y is None else model.fit(X, y)
    times.append(time.perf_counter() - start)
print(min(times[1:]))
"""


def small(name, before, here, rounds=3, most=9):
    """Best times of fits of 1,000 rows by both revisions in turns; more of these where they differ by more than 3 %."""
    best = {}
    for turn in range(most):
        if turn >= rounds and best["after"] <= 1.03 * best["before"]:
            break
        for which, root in (("before", before), ("after", here)):
            command = [sys.executable, "-c", SMALL, root, here, name]
            out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tempfile.gettempdir()).stdout
            best[which] = min(best.get(which, float("inf")), float(out))
    return {"seconds": best["after"], "before": best["before"], "remark": f"{best['before']:.4g} s before"}
