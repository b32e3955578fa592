"""The figures of curves, and the table of all estimators that doc/scale.md shows, from stored results."""

import numpy as np

from benchmarks.scale.estimators import STREAMED, estimators
from benchmarks.scale.newcomers import FAMILIES, newcomers
from benchmarks.scale.newcomers import STREAMED as STREAMED_NEWCOMERS

CURVES = ("Rows", "Networks and kernels", "Pairs")  # cases
MINUTE = 60.0
NAMES = "| estimator | rows in a minute | memory, at rows | slope of time | files in blocks | `partial_fit` | Dask |"
OF_ALL_ROWS = ("LinearFrechetSDR, wire", "MatryoshkaProjection, of classes")  # others of their kind run on Dask


def draw(stored, path):
    """Draw the curves of stored results, where matplotlib is installed, and write the table of all estimators."""
    path.with_name("scale_rows.txt").write_text("\n".join(table(stored)) + "\n")
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        return
    figure, panels = plt.subplots(1, 2, figsize=(11, 5.5), sharex=True, layout="constrained")
    for k, (name, points) in enumerate(points_of(stored, CURVES).items()):
        n, seconds, memory = zip(*points)
        style = styled(plt, k, name)
        panels[0].loglog(n, seconds, **style)
        panels[1].loglog(n, memory, **style)
    titled(panels, ("seconds of a fit, one thread", "anonymous memory, MB"))
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7, frameon=False
    )
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    draw_newcomers(plt, stored, path.with_name("scale_newcomers.svg"))


def draw_newcomers(plt, stored, path):
    """Draw the seconds of each family in a panel of its own."""
    figure, panels = plt.subplots(2, -(-len(FAMILIES) // 2), figsize=(11, 8), sharex=True, sharey=True)
    for family, panel in zip(FAMILIES, panels.flat):
        for k, (name, points) in enumerate(points_of(stored, (f"Newcomers, {family}",)).items()):
            n, seconds, _ = zip(*points)
            panel.loglog(n, seconds, **styled(plt, k, name))
        if panel.lines:
            panel.legend(fontsize=6, frameon=False)
    for panel in panels.flat[len(FAMILIES) :]:
        panel.set_axis_off()
    titled(panels.flat, [f"{family}: seconds" for family in FAMILIES])
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def styled(plt, k, name):
    """Return how the k-th curve is drawn."""
    marker = "o" if name in (*STREAMED, *STREAMED_NEWCOMERS) else "."
    return {"marker": marker, "color": plt.get_cmap("tab20")(k % 20), "lw": 1.2, "label": name}


def titled(panels, titles):
    """Give panels their titles."""
    for panel, title in zip(panels, titles):
        panel.set(title=title, xlabel="rows")
        panel.grid(alpha=0.3)


def points_of(stored, cases):
    """Return rows, seconds and memory of each fit that was measured in some cases, by names."""
    found = {}
    for row in stored["figures"]:
        name, comma, rows = row["method"].rpartition(", ")
        if row["case"] in cases and comma and rows.endswith(" rows") and row.get("seconds"):
            n = int(rows.removesuffix(" rows").replace(",", ""))
            found.setdefault(name, []).append((n, row["seconds"], row["peak"]))
    return found


# The table


def table(stored):
    """Return the table of all estimators, as lines of Markdown."""
    cases = (*CURVES, *(f"Newcomers, {family}" for family in FAMILIES))
    said = {name: entry.said for name, entry in newcomers().items()}
    lines = [NAMES, "| --- " * (NAMES.count("|") - 1) + "|"]
    for name, points in sorted(points_of(stored, cases).items(), key=lambda item: item[0].lower()):
        if name in said or name in estimators():
            lines.append(line_of(name, points, said.get(name, "")))
    return lines


def line_of(name, points, said):
    """Return one estimator's line."""
    from sklowrank._core.tags import partitions_of_tags

    cls, _, setting = name.partition(", ")
    setting = ", ".join(filter(None, (setting, said)))
    within = [point for point in points if point[1] <= MINUTE] or points[:1]
    memory = f"{within[-1][2] / 1000:.1f} GB, {rounded(within[-1][0])}"
    blocks = "yes" if name in (*STREAMED, *STREAMED_NEWCOMERS) else ""
    power = f"{slope_of(points):.1f}" if points[1:] else ""
    model = estimators()[name][0] if name in estimators() else newcomers()[name].make()
    batches = "yes" if hasattr(model, "partial_fit") else ""
    partitions = "yes" if partitions_of_tags(model) and name not in OF_ALL_ROWS else ""
    named = f"`{cls}`" + f", {setting}" * bool(setting)
    return "| " + " | ".join((named, minute_of(points), memory, power, blocks, batches, partitions)) + " |"


def slope_of(points):
    """Return the power of the rows with which the time grew in the last tenfold, at least 0."""
    (low, before, _), (high, after, _) = points[-2:]
    return max(0.0, float(np.log(after / before) / np.log(high / low)))


def minute_of(points):
    """Return how many rows are fitted in a minute: measured, or a step further by the last slope."""
    n, seconds, _ = points[-1]
    if n == 1_000_000 and seconds <= MINUTE:
        return f"above 10⁶: {seconds:.2g} s"
    power = max(1.0, slope_of(points)) if points[1:] else 1.0
    return rounded(n * (MINUTE / seconds) ** (1 / power))


def rounded(n):
    """Return a number of rows with one digit."""
    power = int(np.floor(np.log10(n)))
    digit = round(n / 10**power)
    digit, power = (1, power + 1) if digit == 10 else (digit, power)
    return f"{digit} · " * (digit > 1) + "10" + "⁰¹²³⁴⁵⁶⁷⁸⁹"[power]
