"""What an entry of the scoreboard is, how its contenders are measured, and the one table that they make."""

import time
from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

import numpy as np

from benchmarks.data import missing
from benchmarks.harness import quietly

ROLES = ("ours", "plain", "peer")
TOLERANCE = 0.02  # errors within a fiftieth of one another count as equal, and those within the noise over the seeds
FASTER = 1.25  # and so do seconds within a quarter
COLUMNS = ("method", "data", "error", "ours", "plain baseline", "peer", "seconds of the three", "outcome", "speed")


class Contender(NamedTuple):
    """A method by name, what makes it from a seed, and the package that it needs."""

    name: str
    make: Callable
    package: str | None = None


class Entry(NamedTuple):
    """One method: `protocol(make, seed)` fits what `make(seed)` gives, and returns its error and its seconds."""

    method: str  # the public name; a pair is separated by a comma
    data: str
    measure: str
    protocol: Callable
    ours: Contender
    plain: Contender
    peer: Contender | None = None
    seeds: int = 2
    needs: tuple = ()  # folders of data that are not bundled


class Clock:
    """Adds up processor seconds of what runs inside."""

    seconds = 0.0

    def __enter__(self):
        self.start = time.process_time()
        return self

    def __exit__(self, *error):
        self.seconds += time.process_time() - self.start


def contend(family, method, role):
    """Measure one contender, in the fresh process: the mean error over seeds, and the least seconds.

    A single seed is run again where it takes little: what a first call imports and plans is not in the seconds.
    """
    entry = next(entry for entry in import_module(family).ENTRIES if entry.method == method)
    make = getattr(entry, role).make
    found = [quietly(entry.protocol, make, seed) for seed in range(entry.seeds)]
    errors = [float(error) for error, _ in found]
    if entry.seeds == 1 and found[0][1] < 5:
        found.append(quietly(entry.protocol, make, 0))
    spread = f"{min(errors):.4g} to {max(errors):.4g} over {len(errors)} seeds" if len(set(errors)) > 1 else ""
    seconds = min(seconds for _, seconds in found)
    figures = {"error": float(np.mean(errors)), "errors": errors, "seconds": seconds, "remark": spread}
    return {**figures, "peak": None}  # memory is compared on the pages of the methods


def case_of(family, entry):
    """The case of an entry: its contenders, and the claim that ours is no worse than the plain baseline."""

    def case(bench):
        if entry.needs and (why := missing(*entry.needs)):
            return bench.skip(why)
        found = {}
        for role in ROLES:
            contender = getattr(entry, role)
            if contender is None:
                continue
            label = f"{role}: {contender.name}"
            found[role] = bench.measure(label, contend, family, entry.method, role, package=contender.package)
            about = {"role": role, "name": contender.name, "data": entry.data, "measure": entry.measure}
            bench.figures[-1] |= about | {"errors": found[role].get("errors", [])}
        bench.claim(f"error against {entry.plain.name}", found["ours"].error, found["plain"].error, at_most=1)

    case.__doc__ = f"{entry.method}: {entry.data}; {entry.measure}"
    return case


# The table


def against(ours, other):
    """Whether a row is "better", "equal" or "worse" than another one, or None where one of both was not measured."""
    mine, theirs = ours.get("error"), other.get("error")
    if mine is None or theirs is None or np.isnan([mine, theirs]).any():
        return None
    gaps = np.subtract(ours["errors"], other["errors"])
    noise = 2 * gaps.std(ddof=1) / np.sqrt(len(gaps)) if len(gaps) > 1 else 0.0
    if abs(mine - theirs) <= max(TOLERANCE * min(mine, theirs), noise):
        return "equal"
    return "better" if mine < theirs else "worse"


def outcome(plain, peer, names):
    """The outcome in words, of two answers of `against`."""
    if plain is None:
        return "not run"
    if plain == peer:
        return {"better": "better than both", "equal": "as good", "worse": "**worse than both**"}[plain]
    words = {"better": "better than {}", "equal": "as good as {}", "worse": "**worse than {}**", None: ""}
    parts = (words[found].format(name) for found, name in zip((plain, peer), names, strict=True))
    return ", ".join(part for part in parts if part)


def rows_of(figures):
    """The figures of each case by role, cases in order."""
    found = {}
    for row in figures:
        if "role" in row:
            found.setdefault(row["case"], {})[row["role"]] = row
    return found


def number(value):
    return "–" if value is None else f"{value:.3g}"


def speed(ours, plain):
    """How many times faster ours is than the plain baseline."""
    if not ours or plain is None:
        return None
    return plain / ours


def line(case, rows):
    """One line of the table, and what is counted: against the plain baseline and the peer, and the speeds."""
    ours, plain, peer = (rows.get(role, {}) for role in ROLES)
    error, seconds = ours.get("error"), [row.get("seconds") for row in (ours, plain, peer)]
    found = against(ours, plain), against(ours, peer)
    ratios = [speed(seconds[0], other) for other in seconds[1:]]

    def named(row):
        return f"{row['name']} {number(row['error'])}" if "error" in row else row.get("remark", "no peer")

    words = [f"{ratio:.2g}" for ratio in ratios if ratio is not None]
    cells = [f"`{name}`" for name in case.split(", ")]
    cells = [", ".join(cells), ours.get("data", ""), ours.get("measure", ""), number(error), named(plain), named(peer)]
    cells.append(" / ".join(number(value) for value in seconds))
    cells += [outcome(*found, [row.get("name", "") for row in (plain, peer)]), " / ".join(words)]
    return cells, found, ratios


def table(stored):
    """Lines of Markdown before the claims of the report: one row for each method, and the counts."""
    lines = [line(case, rows) for case, rows in rows_of(stored["figures"]).items()]
    yield "## One table"
    yield ""
    yield (
        f"«As good» are errors within {TOLERANCE:.0%} of one another, or within twice the standard error of their"
        " difference over the seeds. Seconds are those of the processor for a fit and its prediction. Speed is theirs"
        f" over ours, plain baseline / peer: above 1 ours is faster; what is within a factor {FASTER} is not counted."
    )
    yield ""
    yield "| " + " | ".join(COLUMNS) + " |"
    yield "|" + " --- |" * len(COLUMNS)
    for cells, _, _ in lines:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""
    for i, name in enumerate(("best plain baseline", "best peer")):
        found = [answers[i] for _, answers, _ in lines]
        ratios = [ratios[i] for _, _, ratios in lines if ratios[i] is not None]
        fast, slow = sum(r > FASTER for r in ratios), sum(r < 1 / FASTER for r in ratios)
        yield (
            f"**Of {sum(answer is not None for answer in found)} methods against the {name}: {found.count('better')}"
            f" better, {found.count('equal')} as good, {found.count('worse')} worse; {fast} faster, {slow} slower.**"
        )
        yield ""
