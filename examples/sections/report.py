"""What every section of the demo shares: its parts, the printed table, the colours and the page."""

import base64
import html
import io
import textwrap
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from string import Template

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

OURS, MUTED, INK = "#0f766e", ["#9aa5b1", "#c08a3e", "#7c6fb0", "#b8bfc8"], "#1f2933"
NOTE = (
    "Error: root mean squared error on hidden cells, in standard deviations of a column. Score: cross-validated "
    "accuracy, R² for diabetes, with the range over the folds. Seconds: the whole search."
)

plt.rcParams.update(
    {"figure.dpi": 130, "font.size": 9.5, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
)
plt.rcParams.update(dict.fromkeys(["axes.labelcolor", "text.color", "xtick.color", "ytick.color"], INK))


@dataclass
class Row:
    """One line of the table; what was not measured is None. Lines without seconds are for comparison only."""

    data: str
    method: str
    error: float | None
    score: float
    seconds: float | None
    error_range: tuple[float, float] | None = None  # lowest and highest over seeds or folds
    score_range: tuple[float, float] | None = None

    def text(self, measure):
        """A measure as printed, with its range."""
        value, ends = getattr(self, measure), getattr(self, f"{measure}_range")
        if value is None:
            return "–"
        return f"{value:.3f}" if ends is None else f"{value:.3f} ({ends[0]:.3f}–{ends[1]:.3f})"

    def seconds_text(self):
        """Seconds as printed."""
        return "–" if self.seconds is None else "< 0.1" if self.seconds < 0.05 else f"{self.seconds:.1f}"


@dataclass
class Picture:
    """A figure, the name of its file, and a sentence on what to see."""

    name: str
    title: str
    caption: str
    figure: Figure


@dataclass
class Section:
    """One part of the demo: a table of what was tried on which data, and pictures."""

    title: str
    text: str
    ours: tuple[str, ...]  # the methods of this package
    note: str = NOTE  # what the columns mean
    error: str | None = "error"  # heading of the errors, of which the lowest is best; None where there are none
    score: str = "score"  # heading of the scores, of which the highest is best
    rows: list[Row] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)

    def columns(self):
        """The headings of the table."""
        return ["data", "method", *self.measures().values(), "seconds"]

    def measures(self):
        """The headings of what is compared, by attribute of a row."""
        return {name: heading for name in ("error", "score") if (heading := getattr(self, name))}

    def cells(self, row):
        """One line of the table as text."""
        return [row.data, row.method, *(row.text(name) for name in self.measures()), row.seconds_text()]

    def verdicts(self):
        """The best of ours and the best of the others, for each data set and measure."""
        for data in dict.fromkeys(row.data for row in self.rows):
            tried = [row for row in self.rows if row.data == data and row.seconds is not None]
            for name, heading in self.measures().items():
                sign = -1 if name == "error" else 1
                rows = [row for row in tried if getattr(row, name) is not None]
                if not rows:
                    continue
                best, best_of_others = (
                    max(
                        (row for row in rows if (row.method in self.ours) is ours),
                        key=lambda row: sign * getattr(row, name),
                    )
                    for ours in (True, False)
                )
                yield Verdict(data, name, heading, sign, best, best_of_others)


@dataclass
class Verdict:
    """The best of ours beside the best of the others."""

    data: str
    measure: str  # "error" or "score"
    heading: str
    sign: int  # 1 where more is better, -1 where less is
    ours: Row
    others: Row

    def value(self, row):
        """The measure of a row, as printed."""
        return round(getattr(row, self.measure), 3)

    def ends(self, row):
        """The range of a row, as printed; without one, its value twice."""
        ends = getattr(row, f"{self.measure}_range") or (getattr(row, self.measure),) * 2
        return round(ends[0], 3), round(ends[1], 3)

    def is_level(self):
        """Whether the ranges of both sides overlap: another seed or fold may reverse the order."""
        (low, high), (other_low, other_high) = self.ends(self.ours), self.ends(self.others)
        return low <= other_high and other_low <= high

    def best(self):
        """The better row, or both where they are level."""
        if self.is_level():
            return [self.ours, self.others]
        return [self.ours if self.sign * (self.value(self.ours) - self.value(self.others)) > 0 else self.others]

    def __str__(self):
        rows = sorted((self.ours, self.others), key=lambda row: -self.sign * self.value(row))
        first, second = (f"{row.method} {self.value(row):.3f}" for row in rows)
        return f"{self.data}, {self.heading}: {first} {'level with' if self.is_level() else 'ahead of'} {second}"


def print_section(section):
    """Print the table of a section, its own methods marked, and where they stand."""
    lines = [["", *section.columns()]]
    lines += [["*" if row.method in section.ours else "", *section.cells(row)] for row in section.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for before, line in reversed(list(pairwise(lines))):
        if line[1] == before[1]:
            line[1] = ""  # said once
    print(f"\n{section.title} (* marks sklowrank)\n")
    for number, line in enumerate(lines):
        if number and line[1]:
            print("  " + "-" * (sum(widths) + 2 * len(widths) - 3))
        left = [cell.ljust(width) for cell, width in zip(line[1:3], widths[1:3])]
        right = [cell.rjust(width) for cell, width in zip(line[3:], widths[3:])]
        print(f"{line[0]:1} " + "  ".join(left + right))
    print()
    print(textwrap.fill(section.note, 100, initial_indent="  ", subsequent_indent="  "))
    print()
    for verdict in section.verdicts():
        print(f"  {verdict}")
    print(flush=True)


def write_page(sections, folder):
    """Save the pictures, and one page that holds everything, into a folder; return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    body = [_glance(sections), *(_section(number, section, folder) for number, section in enumerate(sections))]
    page = folder / "index.html"
    template = Template((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
    page.write_text(template.substitute(body="\n".join(body)), encoding="utf-8")
    return page


GLANCE = """<section class="glance"><h2>At a glance</h2>
<p>The best of sklowrank and the best of scikit-learn for each measure (↑ more is better, ↓ less is), with seconds. The
better one is in bold; both are where their ranges over seeds or folds overlap, so that another seed may reverse the
order. Sections say what is measured.</p>"""


def _glance(sections):
    """The best of ours beside the best of the others, for all that was compared."""
    parts = [GLANCE, "<table><thead><tr><th>data</th><th>measure</th><th>sklowrank</th><th></th><th>seconds</th>"]
    parts.append("<th>scikit-learn</th><th></th><th>seconds</th></tr></thead><tbody>")
    for number, section in enumerate(sections):
        title = f'<a href="#s{number}">{html.escape(section.title)}</a>'
        parts.append(f'<tr class="new"><td colspan="8">{title}</td></tr>')
        before = None
        for verdict in section.verdicts():
            arrow = "↑" if verdict.sign > 0 else "↓"
            cells = ["" if verdict.data == before else verdict.data, f"{verdict.heading} {arrow}"]
            parts.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells))
            for row in (verdict.ours, verdict.others):
                best = ' class="best"' if row in verdict.best() else ""
                parts.append(f"<td{best}>{html.escape(row.method)}</td><td{best}>{verdict.value(row):.3f}</td>")
                parts.append(f"<td>{html.escape(row.seconds_text())}</td>")
            parts.append("</tr>")
            before = verdict.data
    return "".join([*parts, "</tbody></table></section>"])


def _section(number, section, folder):
    parts = [f'<section id="s{number}"><h2>{html.escape(section.title)}</h2>', section.text]
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in section.columns())
    parts.append(f"<table><thead><tr>{heads}</tr></thead><tbody>")
    best = {(v.data, v.heading, row.method) for v in section.verdicts() for row in v.best()}
    for before, row in zip([None, *section.rows], section.rows):
        kind = ("new " if before and before.data != row.data else "") + ("ours" if row.method in section.ours else "")
        cells = [f"<td>{html.escape(text)}</td>" for text in section.cells(row)]
        for place, heading in enumerate(section.measures().values(), 2):
            if (row.data, heading, row.method) in best:
                cells[place] = cells[place].replace("<td>", '<td class="best">')
        if before and before.data == row.data:
            cells[0] = "<td></td>"
        parts.append(f'<tr class="{kind}">{"".join(cells)}</tr>')
    parts.append(f'</tbody></table><p class="note">{section.note}</p>')
    parts += [_picture(picture, folder) for picture in section.pictures]
    return "\n".join([*parts, "</section>"])


def _picture(picture, folder):
    buffer = io.BytesIO()
    picture.figure.savefig(buffer, format="png", bbox_inches="tight", facecolor="white")
    plt.close(picture.figure)
    (folder / f"{picture.name}.png").write_bytes(buffer.getvalue())
    data = base64.b64encode(buffer.getvalue()).decode()
    title, caption = html.escape(picture.title), html.escape(picture.caption)
    image = f'<img alt="{title}" src="data:image/png;base64,{data}">'
    return f"<figure><h3>{title}</h3>{image}<figcaption>{caption}</figcaption></figure>"
