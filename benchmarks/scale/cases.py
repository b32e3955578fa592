"""The cases: curves, answers of blocks and partitions, a file of 4 GB, a killed worker, small data, GPUs."""

import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.scale.data import file_of
from benchmarks.scale.estimators import STREAMED, TRAINED, estimators
from benchmarks.scale.measured import agreement, curve, killed, newcomer, small
from benchmarks.scale.newcomers import FAMILIES, newcomers
from benchmarks.scale.newcomers import STREAMED as STREAMED_NEWCOMERS

SIZES = (1_000, 10_000, 100_000, 1_000_000)
FINE_SIZES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)  # where the time grows faster
LIMIT = 600.0  # seconds that a fit may be expected to take
NEWCOMERS_LIMIT = 60.0
BEFORE = "44669e1"  # the revision before tables were read in blocks


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
    for name in names:
        points = walked(bench, name, curve, LIMIT)
        to = f"to {points[-1][0]:,} rows"
        if estimators()[name][2]:
            bench.claim(f"{name}: slope of the time of an iteration {to}", slope(points, 3), at_most=1.1)
        if name in STREAMED:
            bench.claim(f"{name}: slope of memory {to}", slope(points, 2), at_most=0.2)
        bench.note(f"{name}, slopes {to}", f"time {slope(points, 1):.2f}, memory {slope(points, 2):.2f}")


def walked(bench, name, measure, limit, grows=1.0):
    """Measure one size after the other as long as a fit is expected to end within the limit of seconds."""
    device, points = os.environ["SKLOWRANK_BENCH_DEVICE"], []
    for n in SIZES if grows == 1 else FINE_SIZES:
        power = max(grows, slope(points, 1)) if points[1:] else grows
        if points and points[-1][1] * (n / points[-1][0]) ** power > limit:
            break
        file_of(n)
        found = bench.measure(f"{name}, {n:,} rows", measure, name, n, device)
        points.append((n, found.seconds, found.peak, found.seconds / found.n_iter))
    return points


def answers(bench):
    """Answers: the largest relative difference from rows in memory, of partitions and of blocks"""
    file_of(20_000)
    for name in (*STREAMED, "MatrixCompletionImputer", "MatrixFactorizationRegressor"):
        found = bench.measure(f"{name}, partitions", agreement, name, package="dask")
        bench.claim(f"{name}: partitions", found.error, at_most=1e-8)
        if name in STREAMED:
            bench.claim(f"{name}: blocks", found.blocks, at_most=1e-8)
    for name in STREAMED_NEWCOMERS:  # networks compute in float32
        found = bench.measure(f"{name}, partitions", agreement, name, package="dask")
        for what, error in (("partitions", found.error), ("blocks", found.blocks)):
            bench.claim(f"{name}: {what}", error, at_most=1e-5 if "Compress" in name or "Compens" in name else 1e-8)


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
    here = Path(__file__).parents[2]
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


def newcomers_of(family):
    """Return the case of one family."""

    def case(bench):
        for name, entry in newcomers().items():
            if entry.family != family:
                continue
            points = walked(bench, name, newcomer, NEWCOMERS_LIMIT, entry.grows)
            to = f"to {points[-1][0]:,} rows"
            if entry.linear:
                bench.claim(f"{name}: slope of the time {to}", slope(points, 1), at_most=1.1)
            if name in STREAMED_NEWCOMERS:
                bench.claim(f"{name}: slope of memory {to}", slope(points, 2), at_most=0.2)
            bench.note(f"{name}, slopes {to}", f"time {slope(points, 1):.2f}, memory {slope(points, 2):.2f}")

    case.__doc__ = f"Newcomers, {family}: time and memory of one fit, as long as it is expected to end in a minute"
    return case


CASES = (
    sums,
    trained,
    compared,
    *map(newcomers_of, FAMILIES),
    answers,
    large_file,
    killed_worker,
    small_data,
    gpu,
)
