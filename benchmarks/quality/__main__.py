"""Command line: ``python -m benchmarks.quality [PART ...]`` measures and writes doc/quality.md."""

import argparse
import os

os.environ.update({"SCIPY_ARRAY_API": "1", "OMP_NUM_THREADS": "1"})  # before scipy and torch are imported

import re
import sys
from collections import Counter
from datetime import date

from benchmarks.harness import REPORTS, _machine, _version
from benchmarks.quality import hostile, measures
from benchmarks.quality.tables import tables_for
from tests.common import public_estimators

PAGE = REPORTS.parent / "quality.md"
PACKAGES = ("sklowrank", "numpy", "scipy", "scikit-learn", "torch")


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"measure these alone, of {', '.join(PARTS)}")
    chosen = parser.parse_args().parts or list(PARTS)
    if set(chosen) - set(PARTS):
        parser.error(f"choose from {', '.join(PARTS)}")
    estimators = public_estimators()
    sections, bad = stored_sections(), 0
    for name, (heading, measure) in PARTS.items():
        if name in chosen:
            print(f"{name} ...", flush=True)
            lines, wrong = measure(estimators)
            head = [
                f"## {heading}",
                "",
                f"Measured on {date.today().isoformat()} by `python -m benchmarks.quality {name}`.",
            ]
            sections[heading] = "\n".join([*head, "", *lines]).strip()
            bad += wrong
    head = [
        "# Quality report",
        "",
        f"Every number on this page was measured by `make report`: "
        f"{', '.join(f'{k}: {v}' for k, v in _machine(1, 'cpu').items())}; "
        f"{', '.join(f'{p} {_version(p)}' for p in PACKAGES)}. Estimators have the parameters of the common "
        "tests: defaults, or smaller settings such as a narrow hidden layer and few iterations.",
    ]
    kept = [sections[heading] for heading, _ in PARTS.values() if heading in sections]
    PAGE.write_text("\n\n".join(["\n".join(head), *kept]) + "\n")
    print(f"wrote {PAGE.relative_to(measures.ROOT)}; {bad} places fall short")
    return int(bad > 0)


def stored_sections():
    """Return the sections of the page as it is, by heading."""
    text = PAGE.read_text() if PAGE.exists() else ""
    parts = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    return {part.splitlines()[0]: f"## {part.strip()}" for part in parts}


def table(columns, rows):
    yield "| " + " | ".join(columns) + " |"
    yield "|" + " --- |" * len(columns)
    for row in rows:
        yield "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |"


def checks(estimators):
    rows, reasons, failed = [], Counter(), 0
    for estimator in estimators:
        passed, names, why = measures.checks(estimator)
        rows.append((type(estimator).__name__, passed, len(names), sum(why.values())))
        reasons += why
        failed += len(names)
    text = ["`check_estimator` with `SCIPY_ARRAY_API=1`, none expected to fail.", ""]
    text += [*table(("estimator", "passed", "failed", "skipped"), rows), "", "Skipped, by reason:", ""]
    text += [f"- {count} times: {reason}" for reason, count in reasons.most_common()]
    return [*text, ""], failed


def attacks(estimators):
    rows, notes, total = [], [], Counter()
    for estimator in estimators:
        counts = Counter()
        for name in hostile.ATTACKS:
            verdict, said = hostile.judge(estimator, name)
            counts[verdict] += 1
            if verdict in (hostile.UNNAMED, hostile.SILENT):
                notes.append(f"- {type(estimator).__name__}, {name}: {verdict}. {said}")
        total += counts
        rows.append((type(estimator).__name__, *(counts[v] for v in VERDICTS)))
    n = sum(total.values())
    rows.append(("share of all", *(f"{100 * total[v] / n:.1f} %" for v in VERDICTS)))
    text = [
        f"{len(hostile.ATTACKS)} inputs for each estimator. An answer is right where its oracle says so: the answer to "
        "the harmless input where only the form differs, the law of scale, equal answers to equal rows, finite numbers "
        "and possible labels where more cannot be said. An error is right where it names the cause.",
        "",
        *table(("estimator", *VERDICTS), rows),
        "",
        *(notes or ["No answer was silent and wrong, and no error hid its cause."]),
        "",
        "The inputs: " + "; ".join(hostile.ATTACKS) + ".",
        "",
    ]
    return text, total[hostile.UNNAMED] + total[hostile.SILENT]


VERDICTS = (hostile.RIGHT, hostile.NAMED, hostile.UNNAMED, hostile.SILENT)


def deviations(estimators):
    rows, wrong = [], 0
    for estimator in estimators:
        name, table_ = next(tables_for(estimator))
        found = measures.deviations(estimator, table_)
        bounds = measures.bounds(estimator)
        wrong += sum(not found[key] <= bound for key, bound in bounds.items())
        said = {key: f"{value:.1e}" for key, value in found.items()}
        said |= {key: f"**{said[key]}**" for key, bound in bounds.items() if not found[key] <= bound}
        rows.append((type(estimator).__name__, *(said[key] for key in measures.COMPARED)))
    columns = dict(measures.COMPARED)
    for key, bound in measures.BOUNDS.items():
        columns[key] += f" (bound {bound:g}, networks {measures.NETWORKS[key]:g})"
    text = [
        f"Largest relative difference of an answer on the first {measures.ROWS} rows of a real table ({name}, columns "
        "as under Precision); of labels, the share of rows with another one; what exceeds a bound is bold. A fit to "
        "rows in another order has no bound: random starts, batches and landmarks are drawn by the number of a row, so "
        "it is a fit with another seed. It is zero or rounding where nothing is drawn, and shows elsewhere how much an "
        "answer depends on the seed.",
        "",
    ]
    return [*text, *table(("estimator", *columns.values()), rows), ""], wrong


def precision(estimators):
    found = [(e, {name: measures.precision(e, data) for name, data in tables_for(e)}) for e in estimators]
    names = list(dict.fromkeys(name for _, row in found for name in row))
    wrong = sum(not measures.is_precise(*pair) for e, row in found for pair in row.values())
    rows = [(type(e).__name__, *(_said(row.get(name)) for name in names)) for e, row in found]
    text = [
        "A fit in float32 against a fit in float64 of the same numbers, on real tables: the largest difference of an "
        "answer, in standard deviations of its column over the rows, and behind a slash the share of rows with another "
        f"label or class. Bounds: {measures.PRECISION:g} and {measures.PRECISION_OF_LABELS:g}; what exceeds one is "
        "bold. A difference of 1 is another answer; one of 0.001 is far below the error of any of these models. "
        "Networks are trained in float32, whatever the data are. "
        "Columns are standardised, except for the imputer, which scales them itself and from which 30 % of the cells "
        "are hidden; the regressor of pairs gets the cells that are left.",
        "",
    ]
    if not os.environ.get("SKLOWRANK_DATA"):
        text += ["Faces and ratings were not measured: `SKLOWRANK_DATA` names no folder.", ""]
    return [*text, *table(("estimator", *names), rows), ""], wrong


def _said(pair):
    if pair is None:
        return ""
    said = f"{pair[0]:.1e} / {pair[1]:.3f}"
    return said if measures.is_precise(*pair) else f"**{said}**"


def sizes(estimators):
    rows, wrong = [], 0
    for estimator in estimators:
        size, types = measures.stored(estimator)
        wrong += not all(name.startswith("sklowrank.") for name in types or [])
        said = "none: it holds a torch module, and is pickled" if types is None else ", ".join(f"`{t}`" for t in types)
        rows.append((type(estimator).__name__, f"{size:.0f}", said))
    text = ["Fitted to 60 rows of 5 columns; networks and graphs are the larger ones.", ""]
    return [*text, *table(("estimator", "pickle, KB", "types that skops has to trust"), rows), ""], wrong


def package(estimators):
    branches, lines, summary = measures.coverage()
    rows = [
        ("`import sklowrank`", f"{1000 * measures.seconds_of_import('sklowrank'):.1f} ms"),
        ("`import sklowrank.cluster`, torch and scikit-learn included",
         f"{measures.seconds_of_import('sklowrank.cluster'):.2f} s"),
        ("`import torch, sklearn.cluster` alone", f"{measures.seconds_of_import('torch, sklearn.cluster'):.2f} s"),
        ("wheel", f"{measures.wheel_size():.0f} KB"),
        ("branches of `sklowrank/` that the fast tests reach", f"{100 * branches:.1f} %, need 95 %"),
        ("lines", f"{100 * lines:.1f} %"),
        ("fast tests", f"{summary}"),
    ]  # fmt: skip
    return table(("what", "measured"), rows), int(branches < 0.95)


def benchmarks(estimators):
    """What the stored benchmark reports say of themselves."""
    rows = []
    for path in sorted(REPORTS.glob("*.md")):
        text = path.read_text()
        title = re.search(r"^# (.+)$", text, re.MULTILINE)[1]
        summary, day = re.search(r"\*\*(.+?)\.\*\*", text), re.search(r"Measured on ([\d-]+)", text)
        if summary and day:  # a page that a run writes
            rows.append((title, summary[1], day[1], f"`python -m benchmarks {path.stem}`"))
    text = ["Claims of the benchmarks; {doc}`measure` has their tables.", ""]
    return [*text, *table(("comparison", "claims", "measured on", "printed by"), rows), ""], 0


PARTS = {  # by name: a heading, and what measures; it returns lines and the number of places that fall short
    "checks": ("scikit-learn's checks", checks),
    "attacks": ("Hostile inputs", attacks),
    "precision": ("Precision", precision),
    "deviations": ("Deviations", deviations),
    "sizes": ("Stored models", sizes),
    "package": ("The package", package),
    "benchmarks": ("Quality and speed against peers", benchmarks),
}


if __name__ == "__main__":
    sys.exit(main())
