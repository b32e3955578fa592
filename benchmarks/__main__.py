"""Command line: ``python -m benchmarks [NAME ...] [--threads N] [--device cpu|cuda] [--list] [--render]``."""

import argparse
import importlib
import os
import pkgutil
import sys

import benchmarks

SHARED = {"__main__", "data", "harness", "peers", "quality"}
NAMES = sorted({m.name for m in pkgutil.iter_modules(benchmarks.__path__)} - SHARED)
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"comparisons to run: {', '.join(NAMES)}; default all")
    parser.add_argument("--threads", type=int, default=1, help="threads of each method and peer (default 1)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where our methods compute")
    parser.add_argument(
        "--case", help="run only the cases whose name contains this, and replace their rows in stored results"
    )
    parser.add_argument("--list", action="store_true", help="only print the cases of the comparisons")
    parser.add_argument("--render", action="store_true", help="only write the reports again from the stored results")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(NAMES))
    if unknown:
        parser.error(f"unknown comparison {', '.join(unknown)}; choose from {', '.join(NAMES)}")

    # Before numpy or torch is imported; every measured process inherits them.
    os.environ.update(dict.fromkeys(THREADS, str(options.threads)))
    from benchmarks import harness

    failed = False
    for name in options.names or NAMES:
        suite = importlib.import_module(f"benchmarks.{name}")
        if options.list:
            cases = [harness.name_and_about(case) for case in suite.CASES]
            print(f"{name}: {suite.TITLE}", *(f"  {case}: {about}" for case, about in cases), sep="\n")
            continue
        if not options.render:
            bench = harness.run(name, suite, options.threads, options.device, options.case)
            failed = failed or bool(bench.errors)
        harness.render(name, *(getattr(suite, part, None) for part in ("draw", "summary")))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
