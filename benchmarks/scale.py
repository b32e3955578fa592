"""How far each estimator goes: time and memory from 1,000 to 1,000,000 rows, files of 4 GB, clusters, GPUs.

Tables are files of float32 that are opened as memmaps: 50 columns, four subspaces of dimension 3, noise. Estimators
have their defaults but for what is named. Each size is fitted as long as a fit is expected to end within ten minutes.
Memory, the column «peak», is the anonymous memory of the process, libraries included (about 250 MB): what is mapped of
the file is not counted. Slopes are those of the logarithms over the last tenfold of rows: 1 is linear, 2 quadratic, 0
flat. The number of iterations depends on the data, so what is claimed is the time of one.
"""

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

TITLE = "Scale: rows, memory, clusters, GPUs"
SIZES = (1_000, 10_000, 100_000, 1_000_000)
LIMIT = 600.0  # seconds that a fit may be expected to take
COLUMNS = 50
BEFORE = "44669e1"  # the revision before tables were read in blocks
SEED = {"random_state": 0}


def estimators():
    """Return by name the estimator, what it is fitted to, and whether its cost is said to be linear in rows."""
    from sklowrank import cluster, decomposition, dimension_reduction, impute, mixture, privacy, recommend

    graph = {"n_clusters": 4, **SEED}
    settings = {"bounds": (-30, 30), **SEED}
    return {
        "KSubspaces": (cluster.KSubspaces(4, n_dims=3, **SEED), "X", True),
        "LowRankGaussianMixture": (mixture.LowRankGaussianMixture(4, n_dims=3, **SEED), "X", True),
        "PrivateKernelDensity": (privacy.PrivateKernelDensity(bandwidth=10.0, **settings), "X", True),
        "PrivateDistanceSum": (privacy.PrivateDistanceSum(**settings), "X", True),
        "PrivateSimilarityClassifier": (privacy.PrivateSimilarityClassifier(**settings), "classes", True),
        "LinearFrechetSDR, fccov": (dimension_reduction.LinearFrechetSDR(2, method="fccov"), "numbers", True),
        "SupervisedDictionaryLearning": (decomposition.SupervisedDictionaryLearning(3, **SEED), "classes", True),
        "SupervisedDictionaryRegressor": (decomposition.SupervisedDictionaryRegressor(3, **SEED), "numbers", True),
        "MatrixCompletionImputer": (impute.MatrixCompletionImputer(4, **SEED), "holes", True),
        "MatrixFactorizationRegressor": (recommend.MatrixFactorizationRegressor(4, **SEED), "pairs", True),
        "FrechetSDR": (dimension_reduction.FrechetSDR(2, **SEED), "numbers", True),
        "KernelFrechetSDR": (dimension_reduction.KernelFrechetSDR(2, **SEED), "numbers", True),
        "LinearFrechetSDR, wire": (dimension_reduction.LinearFrechetSDR(2, method="wire"), "numbers", False),
        "ManifoldLinearizingClustering": (cluster.ManifoldLinearizingClustering(4, **SEED), "X", False),
        "ThresholdedSubspaceClustering": (cluster.ThresholdedSubspaceClustering(**graph), "X", False),
        "SparseSubspaceClusteringOMP": (cluster.SparseSubspaceClusteringOMP(**graph), "X", False),
        "ElasticNetSubspaceClustering": (cluster.ElasticNetSubspaceClustering(**graph), "X", False),
        "SparseSubspaceClustering": (cluster.SparseSubspaceClustering(**graph), "X", False),
        "LeastSquaresSubspaceClustering": (cluster.LeastSquaresSubspaceClustering(**graph), "X", False),
        "LowRankRepresentationClustering": (cluster.LowRankRepresentationClustering(**graph), "X", False),
    }


STREAMED = (
    "KSubspaces",
    "LowRankGaussianMixture",
    "PrivateKernelDensity",
    "PrivateDistanceSum",
    "PrivateSimilarityClassifier",
    "LinearFrechetSDR, fccov",
    "SupervisedDictionaryLearning",
    "SupervisedDictionaryRegressor",
)


TRAINED = ("FrechetSDR", "KernelFrechetSDR")
CURVES = ("Rows", "Networks and kernels", "Pairs")  # cases


# Data: a file for each size, made when it is first asked for


def folder():
    """Where files lie: a folder of this user's temporary ones."""
    place = Path(tempfile.gettempdir()) / f"sklowrank-scale-{os.getuid()}"
    place.mkdir(exist_ok=True)
    return place


def file_of(n, columns=COLUMNS):
    """Return the path of a table of n rows; its labels lie beside it."""
    path = folder() / f"{n}x{columns}.npy"
    if not path.exists():
        write(path, n, columns)
    return path


def write(path, n, columns):
    rng, half = np.random.default_rng(0), path.with_suffix(".part")
    bases = np.stack([np.linalg.qr(rng.normal(size=(columns, 3)))[0].T for _ in range(4)]).astype(np.float32)
    centres = 2 * rng.normal(size=(4, columns)).astype(np.float32)
    X = np.lib.format.open_memmap(half, mode="w+", dtype=np.float32, shape=(n, columns))
    labels = rng.integers(0, 4, n).astype(np.int8)
    for start in range(0, n, 50_000):
        k = labels[start : start + 50_000]
        Z = 3 * rng.standard_normal((len(k), 1, 3), dtype=np.float32)
        noise = 0.3 * rng.standard_normal((len(k), columns), dtype=np.float32)
        X[start : start + 50_000] = (Z @ bases[k])[:, 0] + centres[k] + noise
    X.flush()
    np.save(path.with_suffix(".labels.npy"), labels)
    half.rename(path)


def data_of(kind, n, columns=COLUMNS):
    """Return X and y of n rows: a memmap, unless the kind has to be made of it."""
    path = file_of(n, columns)
    X, labels = np.load(path, mmap_mode="r"), np.load(path.with_suffix(".labels.npy"))
    if kind == "classes":
        return X, labels
    if kind == "numbers":
        return X, np.asarray(X[:, 0] + 0.5 * X[:, 1] ** 2, dtype=np.float64)
    if kind == "holes":
        X = np.array(X)
        X[np.random.default_rng(1).random(X.shape) < 0.2] = np.nan
        return X, None
    if kind == "pairs":  # as many values as rows, of a matrix with a tenth of the rows
        rng = np.random.default_rng(2)
        pairs = np.column_stack([rng.integers(0, max(1, n // 10), n), rng.integers(0, COLUMNS, n)])
        return pairs, X[pairs[:, 0], pairs[:, 1]].astype(np.float64)
    return X, None


# Measured functions: each runs in a fresh process


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


def agreement(name, n=20_000):
    """How far blocks of 997 rows and seven partitions are from the answer of rows that lie in memory."""
    import dask.array as da
    from sklearn.base import clone

    from sklowrank import distributed
    from sklowrank._core import rows

    model, kind, _ = estimators()[name]
    if "xi" in model.get_params():  # dictionaries, whose objective is compared: both have to have arrived
        model.set_params(tol=1e-12)
    path = data_of(kind, n)
    X, y = (part if part is None or part.dtype.kind in "iu" else np.array(part, dtype=np.float64) for part in path)
    serial = fit(clone(model), X, y)
    whole = rows.rows_per_block
    rows.rows_per_block = lambda batch_size, n_rows, size: min(n_rows, 997)
    read = clone(model) if kind in ("holes", "pairs") else fit(clone(model), ReadOnly(X), y)
    rows.rows_per_block = whole
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
        a, b = (np.concatenate([np.ravel(v) for v in x]) if isinstance(x, list) else np.asarray(x) for x in (a, b))
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
from benchmarks.scale import data_of, estimators
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


# Cases


def slope(points, place):
    """Slope of logarithms over the last two of some (n, values, ...); NaN where there is one."""
    if len(points) < 2:
        return float("nan")
    low, high = points[-2], points[-1]
    return float(np.log(high[place] / low[place]) / np.log(high[0] / low[0]))


def sums(bench):
    """Rows: time and memory of one fit, where the cost is said to be linear"""
    curves(bench, [name for name, (_, _, linear) in estimators().items() if linear and name not in TRAINED])


def trained(bench):
    """Networks and kernels: time and memory of one fit, where the cost is said to be linear, too"""
    curves(bench, TRAINED)


def compared(bench):
    """Pairs: time and memory of one fit, where rows are compared with one another"""
    curves(bench, [name for name, (_, _, linear) in estimators().items() if not linear])


def curves(bench, names):
    device = os.environ["SKLOWRANK_BENCH_DEVICE"]
    for name in names:
        points = []
        for n in SIZES:
            if points and points[-1][1] * 10 ** max(1.0, slope(points, 1) if points[1:] else 1.0) > LIMIT:
                break
            file_of(n)
            found = bench.measure(f"{name}, {n:,} rows", curve, name, n, device)
            points.append((n, found.seconds, found.peak, found.seconds / found.n_iter))
        to = f"to {points[-1][0]:,} rows"
        if estimators()[name][2]:
            bench.claim(f"{name}: slope of the time of an iteration {to}", slope(points, 3), at_most=1.1)
        if name in STREAMED:
            bench.claim(f"{name}: slope of memory {to}", slope(points, 2), at_most=0.2)
        bench.note(f"{name}, slopes {to}", f"time {slope(points, 1):.2f}, memory {slope(points, 2):.2f}")


def answers(bench):
    """Answers: the largest relative difference from rows in memory, of partitions and of blocks"""
    file_of(20_000)
    for name in (*STREAMED, "MatrixCompletionImputer", "MatrixFactorizationRegressor"):
        found = bench.measure(f"{name}, partitions", agreement, name, package="dask")
        bench.claim(f"{name}: partitions", found.error, at_most=1e-8)
        if name in STREAMED:
            bench.claim(f"{name}: blocks", found.blocks, at_most=1e-8)


def large_file(bench):
    """A file of 4 GB: 10,000,000 rows of 100 columns, in MB of anonymous memory"""
    file_of(10_000_000, 100)
    for name in STREAMED:
        found = bench.measure(name, curve, name, 10_000_000, "cpu", 100)
        bench.claim(f"{name}: memory", found.peak, at_most=1500)
    os.remove(file_of(10_000_000, 100))


def killed_worker(bench):
    """A killed worker: one of two processes dies in the middle of a fit"""
    file_of(20_000)
    for name in ("LowRankGaussianMixture", "SupervisedDictionaryLearning", "MatrixCompletionImputer"):
        found = bench.measure(name, killed, name, package="dask")
        bench.claim(f"{name}: difference from the fit of one process", found.error, at_most=1e-8)


def small_data(bench):
    """Small data: fits of 1,000 rows before and after tables were read in blocks"""
    here = Path(__file__).parent.parent
    file_of(1000)
    with tempfile.TemporaryDirectory() as place:
        archive = subprocess.run(["git", "-C", str(here), "archive", BEFORE], capture_output=True, check=False)
        if archive.returncode:
            bench.skip("it needs the history of the repository")
            return
        subprocess.run(["tar", "-x", "-C", place], input=archive.stdout, check=True)
        for name in estimators():
            found = bench.measure(name, small, name, place, str(here))
            bench.claim(f"{name}: time", found.seconds, found.before, at_most=1.05)


def gpu(bench):
    """CPU and GPU: seconds of one fit on both, and from how many rows the GPU pays"""
    if os.environ["SKLOWRANK_BENCH_DEVICE"] != "cuda":
        bench.skip("it compares with a GPU: python -m benchmarks scale --device cuda")
        return
    for name in estimators():
        pays = float("nan")
        for n in SIZES:
            file_of(n)
            times = [bench.measure(f"{name}, {n:,} rows, {d}", curve, name, n, d).seconds for d in ("cpu", "cuda")]
            if np.isnan(pays) and times[1] < times[0]:
                pays = n
            if not times[0] * 10 < LIMIT:
                break
        bench.note(name, f"the GPU is faster from {pays:,.0f} rows" if pays == pays else "the GPU was not faster")


CASES = (sums, trained, compared, answers, large_file, killed_worker, small_data, gpu)


def draw(stored, path):
    """Draw the curves of stored results, where matplotlib is installed."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        return
    figure, panels = plt.subplots(1, 2, figsize=(11, 5.5), sharex=True, layout="constrained")
    found = {}
    for row in stored["figures"]:
        name, comma, rows = row["method"].rpartition(", ")
        if row["case"] in CURVES and comma and rows.endswith(" rows") and row.get("seconds"):
            n = int(rows.removesuffix(" rows").replace(",", ""))
            found.setdefault(name, []).append((n, row["seconds"], row["peak"]))
    colours = plt.get_cmap("tab20")
    for k, (name, points) in enumerate(found.items()):
        n, seconds, memory = zip(*points)
        style = {"marker": "o" if name in STREAMED else ".", "color": colours(k % 20), "lw": 1.2, "label": name}
        panels[0].loglog(n, seconds, **style)
        panels[1].loglog(n, memory, **style)
    for panel, title in zip(panels, ("seconds of a fit, one thread", "anonymous memory, MB")):
        panel.set(title=title, xlabel="rows")
        panel.grid(alpha=0.3)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7, frameon=False
    )
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
