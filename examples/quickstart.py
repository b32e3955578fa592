"""What ``make demo`` runs: estimators of sklowrank and scikit-learn on real data, with tables, figures and a page.

``python examples/quickstart.py`` writes PNG pictures and ``index.html``, which holds everything in one file, into
``demo``; ``--out`` names another folder. Each method of the suite has a section in ``examples/sections``.
"""

import argparse
import os
import time
from pathlib import Path

# Before numpy and torch are imported: on tables this small, threads wait for one another longer than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import matplotlib

matplotlib.use("agg")  # pictures go to files, so no window is needed

from sections import SECTIONS
from sections.report import print_section, write_page


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for the pictures and the page")
    folder = parser.parse_args().out
    start = time.perf_counter()
    print(f"{len(SECTIONS)} comparisons with scikit-learn on one core; all of them take two to three minutes.\n")
    sections = []
    for number, run in enumerate(SECTIONS, 1):
        print(f"[{number} of {len(SECTIONS)}] {run.__doc__}", flush=True)
        sections.append(run())
        print_section(sections[-1])
    page = write_page(sections, folder)
    print(f"{time.perf_counter() - start:.0f} seconds. The same with pictures, in one file: {page}")
    print("Which estimator for your own data: doc/choose.md.")


if __name__ == "__main__":
    main()
