"""What every section of the demo shares: its parts, the printed table, the colours and the page."""

import base64
import html
import io
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

OURS, MUTED, INK = "#0f766e", ["#9aa5b1", "#c08a3e", "#7c6fb0", "#b8bfc8"], "#1f2933"
COLUMNS = ("data", "method", "error", "score", "seconds")
NOTE = (
    "Error: on hidden cells, each column in units of its standard deviation (lower is better). "
    "Score: cross-validated accuracy, or R² for diabetes (higher is better). Seconds: the whole search."
)

plt.rcParams.update(
    {"figure.dpi": 130, "font.size": 9.5, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
)
plt.rcParams.update(dict.fromkeys(["axes.labelcolor", "text.color", "xtick.color", "ytick.color"], INK))


@dataclass
class Row:
    """One line of the table; ``error`` is None where nothing was filled."""

    data: str
    method: str
    error: float | None
    score: float
    seconds: float | None

    def cells(self):
        """The line as text."""
        error = "–" if self.error is None else f"{self.error:.3f}"
        seconds = "–" if self.seconds is None else f"{self.seconds:.1f}"
        return [self.data, self.method, error, f"{self.score:.3f}", seconds]


@dataclass
class Picture:
    """A figure, the name of its file, and a sentence on what to see."""

    name: str
    title: str
    caption: str
    figure: Figure


@dataclass
class Section:
    """One part of the demo."""

    title: str
    text: str
    ours: str | tuple[str, ...]  # our method, or several of them
    note: str = NOTE  # what the columns mean
    rows: list[Row] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)

    def is_ours(self, row):
        """Whether a line is one of ours."""
        return row.method in ((self.ours,) if isinstance(self.ours, str) else self.ours)

    def best(self, data, column):
        """The best value of a column, as printed, among the methods tried on the same data."""
        values = [getattr(row, column) for row in self.rows if row.data == data and row.seconds is not None]
        values = [round(value, 3) for value in values if value is not None]
        return max(values) if column == "score" else min(values)

    def verdicts(self):
        """One sentence per data set and method of ours: how it stands, wins and losses alike."""
        for data in dict.fromkeys(row.data for row in self.rows):
            rows = [row for row in self.rows if row.data == data and row.seconds is not None]
            for ours in filter(self.is_ours, rows):
                yield f"{data}: {_verdict(ours, rows)}."


def _verdict(ours, rows):
    lower = [r for r in rows if r.error is not None and round(r.error, 3) < round(ours.error, 3)]
    higher = [r for r in rows if round(r.score, 3) > round(ours.score, 3)]
    better = [f"error: {r.method} ({r.error:.3f} against {ours.error:.3f})" for r in lower]
    better += [f"score: {r.method} ({r.score:.3f} against {ours.score:.3f})" for r in higher]
    if better:
        return f"better than {ours.method} in {', in '.join(better)}"
    return f"no method has {'' if ours.error is None else 'a lower error or '}a higher score than {ours.method}"


def print_table(sections):
    """Print the rows of all sections as one table, and where our method stands."""
    cells = [list(COLUMNS)] + [row.cells() for section in sections for row in section.rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]
    print()
    for number, line in enumerate(cells):
        if number and line[0] != cells[number - 1][0]:
            print("-" * (sum(widths) + 2 * len(widths) - 2))
        left = [cell.ljust(width) for cell, width in zip(line[:2], widths[:2])]
        right = [cell.rjust(width) for cell, width in zip(line[2:], widths[2:])]
        print("  ".join(left + right))
    print()
    for note in dict.fromkeys(section.note for section in sections):
        print(note)
    print()
    for section in sections:
        for verdict in section.verdicts():
            print(verdict)


def write_page(sections, folder):
    """Save the pictures, and one page that holds everything, into a folder; return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    body = [_section(section, folder) for section in sections]
    page = folder / "index.html"
    template = Template((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
    page.write_text(template.substitute(body="\n".join(body)), encoding="utf-8")
    return page


def _section(section, folder):
    parts = [f"<section><h2>{html.escape(section.title)}</h2>", section.text]
    parts.append("<table><thead><tr>" + "".join(f"<th>{name}</th>" for name in COLUMNS) + "</tr></thead><tbody>")
    for before, row in zip([None, *section.rows], section.rows):
        kind = ("new " if before and before.data != row.data else "") + ("ours" if section.is_ours(row) else "")
        cells = [f"<td>{html.escape(cell)}</td>" for cell in row.cells()]
        for place, column in ((2, "error"), (3, "score")):
            value = getattr(row, column)
            if row.seconds is not None and value is not None and round(value, 3) == section.best(row.data, column):
                cells[place] = cells[place].replace("<td>", '<td class="best">')
        if before and before.data == row.data:
            cells[0] = "<td></td>"
        parts.append(f'<tr class="{kind}">{"".join(cells)}</tr>')
    parts.append(f'</tbody></table><p class="note">{section.note}</p><ul>')
    parts += [f"<li>{html.escape(verdict)}</li>" for verdict in section.verdicts()]
    parts.append("</ul>")
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
