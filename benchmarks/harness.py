"""Measure in fresh processes, compare with what is claimed, print tables, write JSON and Markdown."""

import json
import math
import multiprocessing
import os
import platform
import resource
import sys
import time
import traceback
import warnings
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from importlib import metadata
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results"
REPORTS = Path(__file__).parent.parent / "doc" / "benchmarks"
CLAIMS = ("case", "what", "ours", "baseline", "ratio", "need", "holds")
FIGURES = ("case", "method", "error", "seconds", "peak", "remark")  # peak memory in megabytes
RATIO = "A ratio with ≤ is ours over the baseline, one with ≥ the baseline over ours: so many times faster."
PACKAGES = ("sklowrank", "numpy", "scipy", "scikit-learn", "torch")


class Measured(dict):
    """What one measured process returned; a figure it does not have reads as NaN."""

    def __getattr__(self, name):
        return self.get(name, math.nan)


class Bench:
    """Collects the figures and the claims of one comparison."""

    def __init__(self, device):
        self.device, self.case, self.cases = device, "", {}
        self.figures, self.claims, self.errors, self.packages = [], [], [], set(PACKAGES)

    def measure(self, method, function, *args, package=None):
        """Call ``function(*args)``, which returns a dict of figures, in a fresh process and record its peak memory."""
        row = {"case": self.case, "method": method}
        result = Measured()
        if package and _version(package) == "not installed":
            row["remark"] = f"missing: {package} is not installed"
        else:
            self.packages.update({package} - {None})
            try:
                context = multiprocessing.get_context("spawn")
                with ProcessPoolExecutor(1, mp_context=context) as pool:
                    result = Measured(pool.submit(_measured, function, args).result())
                row.update({key: value for key, value in result.items() if key in FIGURES})
            except Exception as error:  # one broken case must not hide the others
                row["remark"] = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:120]}"
                self.errors.append(f"{row['case']}, {method}")
        self.figures.append(row)
        print("  " + ", ".join(f"{k} {_text(v)}" for k, v in row.items() if k != "case"), flush=True)
        return result

    def claim(self, what, ours, baseline=None, *, at_most=None, at_least=None):
        """Compare a figure with its need.

        With a baseline, ``at_most`` bounds ours / baseline (an error), and ``at_least`` bounds baseline / ours (times
        faster).
        """
        ratio = None
        if baseline is not None:
            ratio = ours / baseline if at_most is not None else baseline / ours
        figure = ours if ratio is None else ratio
        holds = (at_most is None or figure <= at_most) and (at_least is None or figure >= at_least)
        bounds = [f"≥ {at_least:g}" if at_least is not None else "", f"≤ {at_most:g}" if at_most is not None else ""]
        verdict = "not run" if math.isnan(figure) else "yes" if holds else "NO"
        row = (self.case, what, ours, baseline, ratio, " and ".join(filter(None, bounds)), verdict)
        self.claims.append(dict(zip(CLAIMS, row, strict=True)))
        print(f"  -> {what}: {_text(figure)}, need {row[5]}: {verdict}", flush=True)

    def note(self, what, remark):
        """Add a line to the figures of which nothing is claimed."""
        self.figures.append({"case": self.case, "method": what, "remark": remark})
        print(f"  {what}: {remark}", flush=True)

    def skip(self, reason):
        """Name a case that cannot run here."""
        self.figures.append({"case": self.case, "method": "all", "remark": f"not run: {reason}"})
        self.claims.append({"case": self.case, "what": "the whole case", "holds": "not run"})
        print(f"  not run: {reason}", flush=True)


def clock(call, budget=10.0, repeats=5):
    """Return the result and the best of up to five times, as many as fit into ten seconds; ours and peers alike."""
    times = []
    while not times or (len(times) < repeats and sum(times) + min(times) < budget):
        start = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - start)
    return result, min(times)


def quietly(function, *args):
    """Call with a set number of iterations, or on data that scikit-learn warns about: that is the point, not news."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args)


def rms(residual):
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(residual))))


def accuracy(y, labels):
    """Share of rows in the best matching of clusters to classes."""
    from sklowrank.metrics import clustering_accuracy

    return clustering_accuracy(y, labels)


def by_seed(make, X, y, seeds):
    """Accuracies and seconds of a clusterer with several seeds, and the first of them, fitted."""
    right, times, first = [], [], None
    for seed in range(seeds):
        method = make()
        method.set_params(**{name: seed for name in method.get_params() if name.endswith("random_state")})
        start = time.perf_counter()
        labels = quietly(method.fit_predict, X)
        times.append(time.perf_counter() - start)
        right.append(accuracy(y, labels))
        first = method if first is None else first
    return right, times, first


def over_seeds(right):
    """What the accuracies of several seeds were, in words."""
    return f"accuracy {min(right):.3f} to {max(right):.3f} over {len(right)} seeds" if len(right) > 1 else "one seed"


class Steps:
    """A callback of scikit-learn that notes when each step of a fit ended."""

    def __init__(self):
        self.times = []

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        if context.parent is not None:
            self.times.append(time.perf_counter())


def seconds_of_steps(model, *data):
    """Seconds of each step of a fit but the first."""
    steps = Steps()
    quietly(model.set_callbacks(steps).fit, *data)
    return np.diff(steps.times)


def peak():
    """Memory of this process in MB at its highest, what lies in shared files included."""
    kilobyte = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte / 1e6


def run(name, suite, threads, device, only=None):
    """Run the cases of one comparison, print its tables and store its results."""
    os.environ["SKLOWRANK_BENCH_DEVICE"] = device
    bench = Bench(device)
    for case in suite.CASES:
        bench.case, about = name_and_about(case)
        if only and only.lower() not in bench.case.lower():
            continue
        bench.cases[bench.case] = about
        print(f"\n{bench.case}: {about}", flush=True)
        try:
            case(bench)
        except Exception as error:  # one broken case must not hide the others
            traceback.print_exc()
            bench.errors.append(f"{bench.case}: {type(error).__name__}")
        if not only:
            _store(name, _results(suite, bench, threads))  # so that hours are not lost with the last case
    print(f"\n{_plain(FIGURES, bench.figures)}\n\n{_plain(CLAIMS, bench.claims)}\n\n{RATIO}\n{_summary(bench.claims)}")
    if hasattr(suite, "summary"):
        print("", *suite.summary(_results(suite, bench, threads)), sep="\n")
    for error in bench.errors:
        print(f"failed: {error}")
    merged = _merged(RESULTS / f"{name}.json", _results(suite, bench, threads)) if only else None
    if merged is not None:
        _store(name, merged)
    return bench


def name_and_about(case):
    """Return the name of a case and what it is about: what is before and behind the first colon of its docstring."""
    name, _, about = " ".join(case.__doc__.split()).partition(": ")
    return name, about.rstrip(".")


def _results(suite, bench, threads):
    return {
        "title": suite.TITLE,
        "intro": suite.__doc__.strip(),
        "summary": _summary(bench.claims),
        "date": date.today().isoformat(),
        "machine": _machine(threads, bench.device),
        "versions": {p: _version(p) for p in sorted(bench.packages)},
        "cases": bench.cases,
        "claims": bench.claims,
        "figures": bench.figures,
        "errors": bench.errors,
    }


def _store(name, results):
    RESULTS.mkdir(exist_ok=True)
    finite = json.loads(json.dumps(results), parse_constant=lambda _: None)
    (RESULTS / f"{name}.json").write_text(json.dumps(finite, indent=1, ensure_ascii=False) + "\n")


def render(name, draw=None, summary=None):
    """Write the Markdown report of one comparison from its stored results, and what `draw` makes of them beside it.

    What `summary` makes of them are lines before the claims.
    """
    path = RESULTS / f"{name}.json"
    if not path.exists():
        print(f"{name}: no stored results, run `python -m benchmarks {name}` first")
        return
    stored = json.loads(path.read_text())
    machine = ", ".join(f"{key}: {value}" for key, value in stored["machine"].items())
    versions = ", ".join(f"{package} {version}" for package, version in stored["versions"].items())
    lines = [
        f"# {stored['title']}",
        "",
        stored["intro"],
        "",
        f"Measured on {stored['date']} by `python -m benchmarks {name}`. {machine[0].upper()}{machine[1:]}. "
        f"Versions: {versions}.",
        "",
        f"**{stored['summary']}.**",
        "",
        *(summary(stored) if summary else ()),
        "## What is claimed",
        "",
        RATIO,
        "",
        *_markdown(CLAIMS, stored["claims"]),
        "",
        "## All figures",
        "",
        "Seconds are the best of up to five runs; peak is the memory of the process in MB, libraries included.",
        "",
    ]
    for case, about in stored["cases"].items():
        rows = [row for row in stored["figures"] if row["case"] == case]
        lines += [f"### {case}", "", f"{about[0].upper()}{about[1:]}.", "", *_markdown(FIGURES[1:], rows), ""]
    REPORTS.mkdir(parents=True, exist_ok=True)
    (REPORTS / f"{name}.md").write_text("\n".join(lines))
    if draw is not None:
        draw(stored, REPORTS / f"{name}.svg")
    print(f"wrote {(REPORTS / f'{name}.md').relative_to(REPORTS.parent.parent)}")


def _merged(path, new):
    """Return the stored results with some cases replaced; None where there are none, or of another machine."""
    stored = json.loads(path.read_text()) if path.exists() else {}
    if stored.get("machine") != new["machine"]:
        return None
    merged = {**new, "cases": {**stored["cases"], **new["cases"]}}
    for kind in ("claims", "figures"):
        rows = [row for row in stored[kind] if row["case"] not in new["cases"]] + new[kind]
        merged[kind] = sorted(rows, key=lambda row: list(merged["cases"]).index(row["case"]))
    merged["versions"] = {**stored["versions"], **new["versions"]}
    kept = [error for error in stored["errors"] if not error.startswith(tuple(new["cases"]))]
    return {**merged, "errors": kept + new["errors"], "summary": _summary(merged["claims"])}


def _summary(claims):
    held = [row["holds"] for row in claims]
    return f"{held.count('yes')} of {len(held)} hold, {held.count('NO')} fall short, {held.count('not run')} not run"


def _measured(function, args):
    """Run in the fresh process."""
    result = {key: getattr(value, "item", lambda v=value: v)() for key, value in function(*args).items()}
    result.setdefault("peak", peak())
    return result


def _version(package):
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _machine(threads, device):
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next((line.split(":")[1].strip() for line in info.open() if line.startswith("model name")), cpu)
    machine = {"processor": cpu, "cores": os.cpu_count(), "threads": threads, "device": device}
    machine["Python"] = platform.python_version()
    forced = [name for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE") if name in os.environ]
    if forced:
        machine["slowed down by"] = ", ".join(forced)
    return machine


def _text(value):
    if value is None or value == "":
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def _plain(columns, rows):
    cells = [columns, *([_text(row.get(c)) for c in columns] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)


def _markdown(columns, rows):
    yield "| " + " | ".join(columns) + " |"
    yield "|" + " --- |" * len(columns)
    for row in rows:
        yield "| " + " | ".join(_text(row.get(c)).replace("|", "\\|") for c in columns) + " |"
