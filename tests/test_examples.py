"""What every example of the gallery owes its reader, and what the demo says of its tables."""

import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*/plot_*.py")), ids=lambda path: path.stem)
def test_ends_with_picture_and_what_to_see(path):
    *cells, last = path.read_text().split("\n# %%\n")
    assert "plt.show()" in cells[-1]
    assert last.startswith("# What to see: ")
    assert all(line.startswith("#") for line in last.splitlines())


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*/GALLERY_HEADER.rst")), ids=lambda path: path.parent.name)
def test_a_section_says_which_question_it_answers(path):
    title, line, _, question, package = path.read_text().splitlines()
    assert set(line) == {"-"}  # a section of the gallery, not a title beside it
    assert len(line) == len(title)
    assert question.endswith("?")
    assert package == f"Examples of :mod:`sklowrank.{path.parent.name}`."


@pytest.fixture
def report(monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(EXAMPLES)
    with matplotlib.rc_context():  # the demo has its own style
        from sections import report

        yield report
    for name in [name for name in sys.modules if name.split(".")[0] == "sections"]:
        del sys.modules[name]


def test_verdicts_name_the_better_side(report, capsys, tmp_path):
    rows = [
        report.Row("wine", "Mine", 0.30, 0.9, 1.0),
        report.Row("wine", "Mine, tuned", 0.25, 0.8, 0.01),
        report.Row("wine", "Theirs", 0.20, 0.7, 1.0),
        report.Row("wine", "(nothing hidden)", 0.0, 1.0, None),  # for comparison only
        report.Row("iris", "Mine", None, 0.5, 1.0),
        report.Row("iris", "Theirs", None, 0.50004, 1.0),
    ]
    section = report.Section("Title", "<p>Text</p>", ("Mine", "Mine, tuned"), "Note", rows=rows)
    assert [str(verdict) for verdict in section.verdicts()] == [
        "wine, error: Theirs 0.200 ahead of Mine, tuned 0.250",
        "wine, score: Mine 0.900 ahead of Theirs 0.700",
        "iris, score: Mine 0.500 level with Theirs 0.500",
    ]
    report.print_section(section)
    printed = capsys.readouterr().out
    assert printed.count("wine  ") == 1
    assert "* wine" in printed
    assert "< 0.1" in printed
    page = report.write_page([section], tmp_path).read_text()
    assert '<td class="best">0.200</td>' in page
    assert '<td class="best">0.250</td>' not in page
    assert page.count('<td class="best">0.500</td>') == 4  # both, at a glance and in the table


def test_methods_are_level_where_their_ranges_overlap(report, tmp_path):
    rows = [
        report.Row("wine", "Mine", None, 0.9, 2.0, score_range=(0.8, 0.95)),
        report.Row("wine", "Theirs", None, 0.85, 1.0, score_range=(0.84, 0.86)),
        report.Row("iris", "Mine", None, 0.9, 2.0, score_range=(0.88, 0.95)),
        report.Row("iris", "Theirs", None, 0.85, 1.0, score_range=(0.84, 0.86)),
    ]
    section = report.Section("Title", "<p>Text</p>", ("Mine",), "Note", None, rows=rows)
    assert [str(verdict) for verdict in section.verdicts()] == [
        "wine, score: Mine 0.900 level with Theirs 0.850",
        "iris, score: Mine 0.900 ahead of Theirs 0.850",
    ]
    assert section.cells(rows[0]) == ["wine", "Mine", "0.900 (0.800–0.950)", "2.0"]
    page = report.write_page([section], tmp_path).read_text()
    assert '<td class="best">0.850</td><td>1.0</td>' in page  # at a glance: seconds beside what is level
    assert page.count('class="best">Theirs') == 1
