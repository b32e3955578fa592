"""The harness says what it measured: which way a ratio goes, what is missing, what failed; the scoreboard is whole."""

import importlib
import json
from pathlib import Path

import pytest

from benchmarks import harness, scoreboard
from benchmarks.__main__ import NAMES
from benchmarks.scale import drawing, estimators, newcomers
from benchmarks.scoreboard import entries
from tests import test_memory
from tests.common import public_estimators

METHODS = [name for _, entry in scoreboard.ENTRIES for name in entry.method.split(", ")]


def figures(seconds):
    """A measured function."""
    return {"error": 0.5, "seconds": seconds}


def broken():
    """A measured function that fails."""
    raise ValueError("no such table")


@pytest.fixture
def bench(capsys):
    bench = harness.Bench("cpu")
    bench.case = "a case"
    return bench


def test_every_comparison_is_found():
    """Each has a page of its method, but for tables that outgrow a machine, the scoreboard, and groups of methods."""
    pages = {path.stem for path in (Path(__file__).parent.parent / "doc" / "methods").glob("*.md")} - {"index"}
    of_networks = {"network_training", "network_inspection", "second_order"}
    of_compression = {"atomic_feature_mimicking", "eora", "lord", "matryoshka_projection"}
    of_adaptation = {"flora", "loldu"}
    in_groups = of_networks | of_compression | of_adaptation
    assert in_groups < pages
    assert set(NAMES) == (pages - in_groups) | {"networks", "compression", "adaptation", "scale", "scoreboard"}


def classes_of(names):
    return {name.partition(",")[0] for name in names}


def test_every_estimator_has_a_curve_of_its_scale():
    """Or a reason in UNMEASURED; and none of them is named in both."""
    measured = classes_of(estimators.estimators()) | classes_of(newcomers.newcomers())
    public = {type(estimator).__name__ for estimator in public_estimators()}
    assert measured | set(newcomers.UNMEASURED) == public
    assert not measured & set(newcomers.UNMEASURED)
    assert {entry.family for entry in newcomers.newcomers().values()} == set(newcomers.FAMILIES)


def test_the_scale_page_says_which_files_are_read_in_blocks():
    """Those of which the tests of files say so."""
    read = {type(estimator).__name__ for estimator in test_memory.MEASURED + test_memory.OF_TOKENS}
    assert classes_of((*estimators.STREAMED, *newcomers.STREAMED)) == read


def test_the_table_of_scale_has_every_curve():
    rows = [(1000, 0.5, 300.0), (10_000, 5.0, 400.0), (100_000, 50.0, 900.0), (1_000_000, 500.0, 9000.0)]
    figures = [
        {"case": "Rows", "method": f"{name}, {n:,} rows", "seconds": seconds, "peak": peak}
        for name, several in (("KSubspaces", rows), ("NetworkClassifier, OrderedRank", rows[:1]))
        for n, seconds, peak in several
    ]
    table = drawing.table({"figures": figures})
    assert table[2] == "| `KSubspaces` | 10⁵ | 0.9 GB, 10⁵ | 1.0 | yes | yes | yes |"
    assert table[3] == "| `NetworkClassifier`, OrderedRank, 3 epochs | 10⁵ | 0.3 GB, 10³ |  |  | yes |  |"
    assert drawing.minute_of([(100_000, 1.0, 1.0), (1_000_000, 8.0, 1.0)]) == "above 10⁶: 8 s"
    assert drawing.minute_of([(1000, 1.0, 1.0), (10_000, 100.0, 1.0)]) == "8 · 10³"


@pytest.mark.parametrize(
    ("ours", "baseline", "bounds", "ratio", "holds"),
    [
        (0.4, 0.5, {"at_most": 0.97}, 0.8, "yes"),  # an error: ours over theirs
        (0.5, 0.5, {"at_most": 0.97}, 1.0, "NO"),
        (1.0, 20.0, {"at_least": 20}, 20.0, "yes"),  # a time: theirs over ours
        (1.0, 19.0, {"at_least": 20}, 19.0, "NO"),
        (0.9, None, {"at_least": 0.85, "at_most": 0.95}, None, "yes"),
        (float("nan"), 1.0, {"at_most": 1.0}, None, "not run"),
    ],
)
def test_claims(bench, ours, baseline, bounds, ratio, holds):
    bench.claim("what", ours, baseline, **bounds)
    claim = bench.claims[0]
    assert claim["holds"] == holds
    if ratio is not None:
        assert claim["ratio"] == pytest.approx(ratio)


def test_measured_in_a_process_of_its_own(bench):
    result = bench.measure("ours", figures, 2.0)
    assert (result.error, result.seconds) == (0.5, 2.0)
    assert result.peak > 10
    assert bench.figures[0]["method"] == "ours"


def test_missing_peers_and_failures_are_named(bench):
    bench.measure("peer", figures, 1.0, package="a-package-that-nobody-has")
    bench.measure("ours", broken)
    assert "missing: a-package-that-nobody-has" in bench.figures[0]["remark"]
    assert "ValueError: no such table" in bench.figures[1]["remark"]
    assert bench.errors == ["a case, ours"]


def test_report_holds_every_figure(tmp_path, monkeypatch, capsys):
    class Suite:
        """Two methods."""

        TITLE = "A comparison"

    def case(bench):
        """Speed: who is faster"""
        ours = bench.measure("ours", figures, 1.0)
        bench.claim("seconds", ours.seconds, 3.0, at_least=2)

    Suite.CASES = (case,)
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(harness, "REPORTS", tmp_path / "doc" / "reports")
    harness.run("suite", Suite, threads=1, device="cpu")
    harness.render("suite")
    stored = json.loads((tmp_path / "results" / "suite.json").read_text())
    report = (tmp_path / "doc" / "reports" / "suite.md").read_text()
    assert stored["summary"] == "1 of 1 hold, 0 fall short, 0 not run"
    assert "| Speed | seconds | 1 | 3 | 3 | ≥ 2 | yes |" in report
    assert "sklowrank" in stored["versions"]


def test_a_case_that_is_run_again_replaces_its_rows_and_no_others(tmp_path, monkeypatch, capsys):
    class Suite:
        """Two methods."""

        TITLE = "A comparison"

    seconds = {"Speed": 1.0, "Size": 2.0}

    def speed(bench):
        """Speed: who is faster"""
        bench.claim("seconds", bench.measure("ours", figures, seconds["Speed"]).seconds, at_most=1.5)

    def size(bench):
        """Size: who is larger"""
        bench.claim("seconds", bench.measure("ours", figures, seconds["Size"]).seconds, at_most=1.5)

    Suite.CASES = (speed, size)
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    harness.run("suite", Suite, threads=1, device="cpu", only="speed")
    assert not (tmp_path / "suite.json").exists()  # a part is no comparison
    harness.run("suite", Suite, threads=1, device="cpu")
    seconds.update(Speed=3.0, Size=0.5)
    harness.run("suite", Suite, threads=2, device="cpu", only="speed")
    stored = json.loads((tmp_path / "suite.json").read_text())
    assert [row["ours"] for row in stored["claims"]] == [1.0, 2.0]  # other threads: not comparable
    harness.run("suite", Suite, threads=1, device="cpu", only="size")
    stored = json.loads((tmp_path / "suite.json").read_text())
    assert [row["ours"] for row in stored["claims"]] == [1.0, 0.5]
    assert [row["case"] for row in stored["figures"]] == ["Speed", "Size"]
    assert stored["summary"] == "2 of 2 hold, 0 fall short, 0 not run"


def test_every_public_estimator_and_rule_is_on_the_scoreboard_once():
    from sklowrank import neural
    from sklowrank._nets.training import Rule

    members = (getattr(neural, name) for name in neural.__all__)
    rules = {c.__name__ for c in members if isinstance(c, type) and issubclass(c, Rule)}
    expected = {type(estimator).__name__ for estimator in public_estimators()} | rules | {"MFAC"}
    assert sorted(METHODS) == sorted(expected)


def test_names_on_the_scoreboard_are_public():
    import sklowrank

    packages = [importlib.import_module(f"sklowrank.{name}") for name in sklowrank.__all__ if name != "__version__"]
    assert set(METHODS) <= {name for package in packages for name in package.__all__}


def test_a_contender_of_the_scoreboard_runs():
    found = entries.contend("benchmarks.scoreboard.tables", "PrivateSimilarityClassifier", "ours")
    assert 0 < found["error"] < 0.5
    assert found["seconds"] > 0
    assert "over 3 seeds" in found["remark"]


@pytest.mark.parametrize(
    ("ours", "plain", "peer", "words"),
    [
        (0.10, 0.2, 0.3, "better than both"),
        (0.10, 0.101, 0.099, "as good"),
        (0.10, 0.05, 0.05, "**worse than both**"),
        (0.10, 0.2, 0.05, "better than A, **worse than B**"),
        (0.10, 0.2, None, "better than A"),
        (0.0, 0.0, 0.1, "as good as A, better than B"),
        (None, 0.2, 0.1, "not run"),
        (float("nan"), 0.2, 0.1, "not run"),
    ],
)
def test_outcomes_of_the_scoreboard(ours, plain, peer, words):
    ours, plain, peer = ({} if error is None else {"error": error, "errors": [error]} for error in (ours, plain, peer))
    answers = entries.against(ours, plain), entries.against(ours, peer)
    assert entries.outcome(*answers, ("A", "B")) == words


def test_what_is_within_the_noise_over_seeds_is_as_good():
    ours, other = {"error": 0.2, "errors": [0.1, 0.2, 0.3]}, {"error": 0.23, "errors": [0.2, 0.19, 0.3]}
    assert entries.against(ours, other) == "equal"  # the differences are -0.1, 0.01 and 0
    assert entries.against(ours, {"error": 0.23, "errors": [0.13, 0.23, 0.33]}) == "better"


def test_table_of_the_scoreboard():
    def figures(case, role, error, seconds):
        row = {"case": case, "role": role, "name": f"{role} of {case}", "data": "rows", "measure": "misses"}
        return {**row, "error": error, "errors": [error], "seconds": seconds}

    good = [figures("Good", *row) for row in (("ours", 0.1, 1.0), ("plain", 0.2, 4.0), ("peer", 0.1, 0.5))]
    bad = [figures("Bad, Worse", "ours", 0.3, 1.0), figures("Bad, Worse", "plain", 0.1, 1.0)]
    absent = {"case": "Bad, Worse", "role": "peer", "name": "peer", "remark": "missing: it is not installed"}
    lines = list(entries.table({"figures": [*good, *bad, absent, {"case": "Good", "remark": "a note"}]}))
    rows = [line for line in lines if line.startswith("| `")]
    assert rows[0].startswith("| `Good` | rows | misses | 0.1 | plain of Good 0.2 | peer of Good 0.1 | 1 / 4 / 0.5 |")
    assert rows[0].endswith("| better than plain of Good, as good as peer of Good | 4 / 0.5 |")
    assert rows[1].startswith("| `Bad`, `Worse` |")
    assert "missing: it is not installed" in rows[1]
    assert "**worse than plain of Bad, Worse**" in rows[1]
    assert any("Of 2 methods against the best plain baseline: 1 better, 0 as good, 1 worse" in line for line in lines)
    assert any("Of 1 methods against the best peer: 0 better, 1 as good, 0 worse" in line for line in lines)


def test_summary_stands_before_the_claims(tmp_path, monkeypatch, capsys):
    class Suite:
        """Two methods."""

        TITLE = "A comparison"

    def case(bench):
        """Speed: who is faster"""
        bench.claim("seconds", bench.measure("ours", figures, 1.0).seconds, at_most=2)

    Suite.CASES, Suite.summary = (case,), staticmethod(lambda stored: [f"{len(stored['figures'])} figures", ""])
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(harness, "REPORTS", tmp_path / "doc" / "reports")
    harness.run("suite", Suite, threads=1, device="cpu")
    harness.render("suite", None, Suite.summary)
    report = (tmp_path / "doc" / "reports" / "suite.md").read_text()
    assert report.index("1 figures") < report.index("## What is claimed")
    assert "1 figures" in capsys.readouterr().out
