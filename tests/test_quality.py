"""What the quality report measures with: it can tell right from wrong."""

import numpy as np
import pytest

from benchmarks.quality import __main__ as report
from benchmarks.quality import hostile, measures
from benchmarks.quality.tables import BUNDLED, tables_for
from sklowrank.cluster import KSubspaces
from sklowrank.decomposition import SupervisedDictionaryLearning
from sklowrank.dimension_reduction import LinearFrechetSDR
from sklowrank.impute import MatrixCompletionImputer
from sklowrank.privacy import PrivateDistanceSum
from sklowrank.recommend import MatrixFactorizationRegressor
from sklowrank.topology import PersistenceSeparability
from tests.common import public_estimators


@pytest.fixture(autouse=True)
def without_further_data(monkeypatch):
    monkeypatch.delenv("SKLOWRANK_DATA", raising=False)


@pytest.mark.parametrize("estimator", public_estimators(), ids=lambda e: type(e).__name__)
def test_every_estimator_is_measured_on_the_bundled_tables(estimator):
    tables = dict(tables_for(estimator))
    assert list(tables) == list(BUNDLED)
    for data in tables.values():
        assert len(data.X) >= 100
        assert data.y is None or len(data.y) == len(data.X)


def test_tables_have_the_form_that_estimators_take():
    imputed, pairs, clustered, classes, private = (
        dict(tables_for(e))["wine"]
        for e in (
            MatrixCompletionImputer(),
            MatrixFactorizationRegressor(),
            KSubspaces(),
            SupervisedDictionaryLearning(),
            PrivateDistanceSum(),
        )
    )
    hidden = np.isnan(imputed.X)
    assert 0.27 < hidden.mean() < 0.33
    assert pairs.X.shape == ((~hidden).sum(), 2)
    assert clustered.params == {"n_clusters": 3}
    assert np.abs(clustered.X.mean(0)).max() < 1e-12
    assert np.unique(classes.y).tolist() == [0, 1, 2]
    assert private.params == {"bounds": (-10.0, 10.0)}


def test_precision_of_one_estimator_is_within_its_bounds():
    estimator = KSubspaces()
    found = measures.precision(estimator, dict(tables_for(estimator))["wine"])
    assert found[0] > 0
    assert measures.is_precise(*found)


@pytest.mark.parametrize(
    "estimator", [e for e in public_estimators() if "module" in e.get_params()], ids=lambda e: type(e).__name__
)
def test_networks_see_the_same_numbers_whatever_the_precision_of_the_data(estimator):
    """A difference in the last digit of what a network is trained with ends in another network after some epochs."""
    found = measures.precision(estimator, dict(tables_for(estimator))["digits"])
    assert found[0] <= 1e-5


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda a: a + 0.01 * a.std(0) if a.dtype.kind == "f" else a, (0.01, 0)),
        (lambda a: np.full_like(a, np.inf) if a.dtype.kind == "f" else a, (np.inf, 0)),
        (lambda a: np.full_like(a, np.nan) if a.dtype.kind == "f" else a, (np.nan, 0)),
        (lambda a: a if a.dtype.kind == "f" else np.where(np.arange(len(a)) < 18, (a + 1) % 3, a), (0, 18 / 178)),
    ],
    ids=["a hundredth of a deviation", "infinite", "no number", "a tenth of the labels"],
)
def test_imprecise_answers_are_told(spoil, expected, monkeypatch):
    """float32 answers are spoilt; what is found is what was done to them."""
    answers = measures.answers

    def spoilt(fitted, X):
        found = answers(fitted, X)
        return {name: spoil(a) for name, a in found.items()} if X.dtype == np.float32 else found

    monkeypatch.setattr(measures, "answers", spoilt)
    estimator = KSubspaces()
    found = measures.precision(estimator, dict(tables_for(estimator))["wine"])
    assert not measures.is_precise(*found)
    np.testing.assert_allclose(found, expected, rtol=0.01, atol=1e-4)


@pytest.mark.parametrize("wrong", [np.zeros_like, lambda a: np.full_like(a, np.inf), lambda a: a * 1.01])
def test_answers_off_their_law_of_scale_are_wrong(wrong):
    estimator = PrivateDistanceSum()
    base = {"transform": np.random.default_rng(0).normal(size=(20, 1)) ** 2}
    oracle = hostile.follows_its_law(1e25)
    assert oracle(estimator, {"transform": base["transform"] * 1e25}, base)
    assert not oracle(estimator, {"transform": wrong(base["transform"] * 1e25)}, base)
    assert not oracle(estimator, base, base)


def test_deviations_of_answers_that_are_no_numbers_are_told():
    one = {"transform": np.ones((3, 2)), "labels_": np.array([0, 0, 1])}
    assert measures.deviation(one, one) == 0
    assert not measures.deviation(one, {**one, "transform": np.full((3, 2), np.nan)}) <= 1
    assert measures.deviation(one, {**one, "labels_": np.array([0, 1, 1])}) == pytest.approx(1 / 3)


def test_answers_that_depend_on_the_order_of_rows_are_found(monkeypatch):
    """A fit of sums over rows hardly depends on it; an answer to which the number of its row is added does."""
    estimator = LinearFrechetSDR(2)
    table = dict(tables_for(estimator))["wine"]
    found = measures.deviations(estimator, table)
    assert found.keys() == measures.COMPARED.keys()
    assert max(found.values()) < 1e-6
    answers = measures.answers

    def numbered(fitted, X):
        return {name: answer + np.arange(len(answer))[:, None] for name, answer in answers(fitted, X).items()}

    monkeypatch.setattr(measures, "answers", numbered)
    found = measures.deviations(estimator, table)
    assert min(found["order asked"], found["order fitted"]) > 0.1
    assert max(found["threads"], found["blocks"]) < 1e-6


def test_an_answer_of_one_number_is_measured():
    estimator = PersistenceSeparability(random_state=0)
    table = dict(tables_for(estimator))["wine"]
    assert measures.is_precise(*measures.precision(estimator, table))
    assert measures.deviations(estimator, table)["order asked"] < 1e-6


@pytest.mark.parametrize("part", ["attacks", "deviations", "precision", "sizes"])
def test_parts_of_the_report_are_tables_with_a_row_for_each_estimator(part):
    lines, wrong = report.PARTS[part][1]([LinearFrechetSDR(2)])
    header = next(line for line in lines if line.startswith("| estimator"))
    (row,) = (line for line in lines if line.startswith("| LinearFrechetSDR"))
    assert row.count("|") == header.count("|") > 2
    assert wrong == 0
