"""Online estimators: what is refused or warned of, so that no answer is wrong without a word."""

import copy
import pickle
import warnings
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from sklowrank.recommend import OnlineEmbeddingClassifier, OnlineEmbeddingRegressor

RNG = np.random.default_rng(0)
X, Y = RNG.integers(0, 40, (300, 2)), RNG.integers(0, 2, 300)


def online(**params):
    return OnlineEmbeddingClassifier(random_state=0, **params)


# Numbers out of range


@pytest.mark.parametrize("scale", [1e-200, 1e-25, 1e25, 1e200])
def test_the_unit_of_y_does_not_matter(scale):
    y = RNG.normal(size=300)
    predicted = OnlineEmbeddingRegressor(random_state=0).fit(X, y * scale).predict(X) / scale
    np.testing.assert_allclose(predicted, OnlineEmbeddingRegressor(random_state=0).fit(X, y).predict(X), rtol=1e-9)


def test_a_target_that_no_step_can_follow_is_refused():
    model = OnlineEmbeddingRegressor(random_state=0).partial_fit(X, RNG.normal(size=300))
    before = pickle.dumps(model)
    with pytest.raises(ValueError, match=r"y has the value 1e\+200, more than 1e\+30 times y_scale_"):
        model.partial_fit(X[:1], [1e200])
    assert pickle.dumps(model) == before


def test_weights_and_cells_whose_gradients_have_no_squares_are_refused():
    with pytest.raises(ValueError, match=r"sample_weight has the value 1e\+200; at most 1e\+30"):
        online().partial_fit(X, Y, sample_weight=np.full(300, 1e200))
    cells = sp.random(300, 20, 0.2, format="csr", random_state=0)
    with pytest.raises(ValueError, match=r"X contains numbers beyond 1e\+30"):
        online().partial_fit(cells * 1e155, Y)
    assert np.isfinite(online().partial_fit(cells * 1e29, Y).decision_function(cells * 1e29)).all()


def test_a_first_call_that_shows_no_unit_of_y_is_warned_of():
    with pytest.warns(UserWarning, match=r"All y of the first call to partial_fit are 1000, so that y_scale_=1"):
        model = OnlineEmbeddingRegressor(random_state=0).partial_fit(X[:1], [1000.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.partial_fit(X[:1], [1000.0])
        OnlineEmbeddingRegressor(random_state=0).partial_fit(X[:2], [1.0, 2.0])


# Identifiers that lost their digits, and columns that cannot be read


@pytest.mark.parametrize("form", ["array", "frame"])
def test_identifiers_that_were_rounded_are_warned_of(form):
    ids = (np.arange(300) % 7 + 2**60).astype(float)[:, None]
    rows = ids if form == "array" else pd.DataFrame(ids, columns=["user"])
    name = "0" if form == "array" else "'user'"
    with pytest.warns(UserWarning, match=rf"Column {name} of X holds identifiers as floating numbers, such as 1\.15"):
        assert online(categorical_features=[0]).partial_fit(rows, Y).n_ids_ == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        missing = pd.DataFrame({"user": pd.array([None, *(np.arange(299) + 2**60)], dtype="Int64")})
        assert online().partial_fit(missing, Y).n_ids_ == 300
        small = np.where(X < 3, np.nan, X)
        n_ids = sum(len(np.unique(column)) for column in small.T)
        assert online(categorical_features=[0, 1]).partial_fit(small, Y).n_ids_ == n_ids


def test_what_cannot_be_read_names_its_column():
    frame = pd.DataFrame({"user": X[:, 0], "price": RNG.normal(size=300)})
    model = online().partial_fit(frame, Y)
    with pytest.raises(ValueError, match=r"Input X contains NaN.* 'price' is numeric.* categorical_features"):
        model.partial_fit(frame.assign(price=np.nan), Y)
    for values in (pd.date_range("2020", periods=300), [(1, 2)] * 300):
        with pytest.raises(TypeError, match=r"Column 'day' of X: argument must be a string or a real .* Convert"):
            online().partial_fit(pd.DataFrame({"day": values}), Y)


def test_tables_of_arrow():
    arrow = pytest.importorskip("pyarrow")
    values = {"user": ["a", "b", None] * 100, "item": list(range(300)), "price": [0.1 * i for i in range(300)]}
    model = online().partial_fit(arrow.table(values), Y)
    assert (model.n_ids_, len(model.numeric_mean_)) == (303, 1)
    same = online().partial_fit(pd.DataFrame(values), Y)
    np.testing.assert_array_equal(model.predict_proba(arrow.table(values)), same.predict_proba(pd.DataFrame(values)))


# Parameters


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"min_count": {0: "a"}}, r"min_count gives the column 0 the value 'a'"),
        ({"min_count": {0: 2.5}}, r"min_count=\{0: 2.5\} has to hold integers of at least 1"),
        ({"min_count": {1: 0}}, r"min_count gives the column 1 the value 0"),
        ({"expire_after": {1: np.nan}}, r"expire_after gives the column 1 the value nan"),
        ({"min_count": {1: 16}, "filter_capacity": 100}, r"min_count=\{1: 16\} is too large with filter_capacity"),
    ],
)
def test_parameters_by_column(params, words):
    with pytest.raises(ValueError, match=words):
        online(**params).partial_fit(X, Y)


def test_columns_cannot_change_their_kind():
    model = online().partial_fit(X, Y)
    with pytest.raises(ValueError, match=r"categorical_features=\[0\]: the columns \[0, 1\] held identifiers"):
        model.set_params(categorical_features=[0]).partial_fit(X, Y)
    assert model.set_params(categorical_features=[1, 0]).partial_fit(X, Y).n_seen_ == 600


# Times


def test_dates_are_seconds_whatever_their_resolution():
    start = datetime(2026, 3, 1)
    days = [start + timedelta(days=i) for i in range(300)]
    last = (days[-1] - datetime(1970, 1, 1)).total_seconds()
    for dates in (
        np.array(days, "datetime64[s]"),
        np.array(days, "datetime64[ns]"),
        pd.Series(days),
        pd.Series(days).dt.tz_localize("UTC"),
        pd.Series(days).dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo"),
        days,
    ):
        model = online(expire_after=86_400 * 200.0).partial_fit(X, Y, timestamps=dates)
        assert model.t_ == last
        assert model.evict(now=last + 86_400 * 150) > 0
    with pytest.raises(ValueError, match="timestamps contains NaN"):
        online().partial_fit(X, Y, timestamps=np.array([None, *days[1:]], "datetime64[s]"))


# Deltas


def followed(**params):
    """Return a model, a copy of it before its last call, and the delta of that call."""
    leader = online(expire_after=150.0, evict_every=50, **params).partial_fit(X[:200], Y[:200])
    replica = copy.deepcopy(leader)
    leader.partial_fit(X[200:], Y[200:])
    return leader, replica, leader.get_delta(replica.version_)


@pytest.mark.parametrize(
    ("entry", "change"),
    [
        ("keys", lambda a: a.astype(float)),
        ("keys", lambda a: np.r_[a[:1], a[:1], a[2:]]),
        ("keys", lambda a: a[:-1]),
        ("keys", lambda a: a[:, None]),
        ("values", lambda a: a * np.nan),
        ("values", lambda a: a.astype(np.float32)),
        ("squares", lambda a: -a),
        ("updated", lambda a: a.astype(str)),
        ("columns", lambda a: a + 2),
        ("evicted_keys", lambda a: np.r_[a, a]),
        ("version", lambda a: float("nan")),
        ("version", lambda a: a + 1),
        ("since", lambda a: None),
        ("since", lambda a: -1),
        ("clock.t", lambda a: "now"),
        ("clock.timed", lambda a: "no"),
        ("dense.intercept", lambda a: a * np.inf),
        ("numbers.mean", lambda a: np.zeros(3)),
        ("model", lambda a: a[::-1]),
    ],
)
def test_a_delta_that_was_tampered_with_is_refused_and_changes_nothing(entry, change):
    _, replica, delta = followed()
    assert len(delta["evicted_keys"]) > 0
    before = pickle.dumps(replica)
    with pytest.raises(ValueError, match="delta"):
        replica.apply_delta({**delta, entry: change(delta[entry])})
    assert pickle.dumps(replica) == before


def test_a_delta_through_a_file(tmp_path):
    leader, replica, delta = followed()
    np.savez(tmp_path / "delta.npz", **delta)
    with np.load(tmp_path / "delta.npz", allow_pickle=False) as file:
        replica.apply_delta(file)
    np.testing.assert_array_equal(replica.predict_proba(X), leader.predict_proba(X))


@pytest.mark.parametrize(
    "other",
    [
        lambda: OnlineEmbeddingClassifier(random_state=1).partial_fit(X, Y),
        lambda: online().partial_fit(X, np.array(["no", "yes"])[Y]),
        lambda: online(table="modulo", n_rows=100).partial_fit(X, Y),
        lambda: online(interaction="deepfm").partial_fit(X, Y),
        lambda: online().partial_fit(pd.DataFrame(X, columns=["user", "item"]), Y),
        lambda: OnlineEmbeddingRegressor(random_state=0).partial_fit(X, Y),
    ],
)
def test_a_delta_of_another_model_is_refused(other):
    with pytest.raises(ValueError, match="delta is of a model of other parameters or columns, other classes"):
        other().apply_delta(followed()[2])


@pytest.mark.parametrize("sync_interval", [0, 10_000])
def test_an_intercept_that_was_set_is_answered_and_sent(sync_interval):
    leader, _, _ = followed(sync_interval=sync_interval)
    replica, since = copy.deepcopy(leader), leader.version_
    leader.intercept_ = 3.0
    nobody = np.full((1, 2), 10**6)
    assert leader.decision_function(nobody) == 3.0
    replica.apply_delta(leader.get_delta(since))
    assert replica.decision_function(nobody) == 3.0
    for value, words in ((np.nan, "intercept_ contains NaN"), ([1.0, 2.0], "intercept_ has 1 entries")):
        with pytest.raises(ValueError, match=words):
            leader.intercept_ = value
    assert leader.intercept_ == 3.0


# All of it together


@pytest.mark.parametrize("seed", range(6))
def test_calls_in_any_order_leave_one_model(seed, tmp_path):
    """A stream, one that is also pickled and saved, and a replica that follows by deltas, agree at each step."""
    g = np.random.default_rng(seed)
    model = online(
        batch_size=int(g.integers(1, 40)),
        interaction=("fm", "linear", "deepfm")[seed % 3],
        expire_after=float(g.integers(50, 400)),
        evict_every=int(g.integers(10, 200)),
        max_rows=(None, 60, 200)[g.integers(3)],
        min_count=int(g.integers(1, 4)),
        filter_capacity=(None, 100)[g.integers(2)],
        sync_interval=(0, 120)[g.integers(2)],
        table=("cuckoo", "modulo")[int(seed == 5)],
        n_rows=97,
    )
    asked = g.integers(0, 400, (100, 2))

    def rows():
        n = int(g.integers(1, 120))
        return g.integers(0, 400, (n, 2)), g.integers(0, 3, n)

    def live(model):
        return copy.deepcopy(model).set_params(sync_interval=0).predict_proba(asked)

    model.partial_fit(*rows(), classes=[0, 1, 2])
    twin, replica = copy.deepcopy(model), copy.deepcopy(model)
    for step in range(20):
        act = ("learn", "learn", "evict", "save", "pickle")[g.integers(5)]
        if act == "learn":
            X_new, y_new = rows()
            weights = g.integers(0, 3, len(y_new))
            model.partial_fit(X_new, y_new, sample_weight=weights)
            twin.partial_fit(X_new, y_new, sample_weight=weights)
        elif act == "evict":
            assert model.evict(model.t_ + 50) == twin.evict(twin.t_ + 50)
        elif act == "save":
            model = OnlineEmbeddingClassifier.load_snapshot(
                model.save_snapshot(tmp_path, incremental=True) and tmp_path
            )
        else:
            model = pickle.loads(pickle.dumps(model))
        np.testing.assert_array_equal(model.predict_proba(asked), twin.predict_proba(asked))
        assert model.max_rows is None or model.n_ids_ <= model.max_rows
        if step % 3 == 2:
            replica.apply_delta(model.get_delta(replica.version_))
            np.testing.assert_array_equal(live(replica), live(model))
            assert (replica.n_ids_, replica.n_evicted_) == (model.n_ids_, model.n_evicted_)
