"""The regressor on pairs: recovery, identifiers of any kind, unknown ones, duplicates, new rows."""

import copy
import datetime
import os
import pickle
import uuid
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score

from sklowrank.recommend import MatrixFactorizationRegressor, _known_pairs
from sklowrank.recommend._identifiers import as_identifiers, concat_identifiers, encode, find


def ratings(m=60, n=40, values=1400, noise=0.1, seed=7):
    """Pairs of positions, their values 3 + u . v + noise, and all values without noise."""
    rng = np.random.RandomState(seed)
    cell = rng.permutation(m * n)[:values]
    pairs = np.column_stack(np.divmod(cell, n))
    truth = 3 + rng.randn(m, 2) @ rng.randn(2, n)
    return pairs, truth[tuple(pairs.T)] + noise * rng.randn(values), truth


def regressor(n_components=2, **params):
    return MatrixFactorizationRegressor(n_components, **{"random_state": 0, "clip": None, **params})


@pytest.mark.parametrize(
    "params",
    [{}, {"inference": "map", "alpha": 0.3}, {"inference": "map", "alpha": 0.3, "solver": "cg"}],
    ids=["variational", "cholesky", "cg"],
)
def test_predicts_unseen_pairs(params):
    pairs, y, _ = ratings()
    model = regressor(**params).fit(pairs[:1200], y[:1200])
    assert model.score(pairs[1200:], y[1200:]) > 0.98
    means = pd.Series(y[:1200]).groupby(pairs[:1200, 1]).mean().reindex(pairs[1200:, 1]).to_numpy()
    assert 1 - ((means - y[1200:]) ** 2).mean() / y[1200:].var() < 0.3  # what column means explain


def test_surplus_components_cost_nothing():
    pairs, y, truth = ratings()
    wide = regressor(12).fit(pairs, y)
    assert wide.n_components_effective_ == 2
    everywhere = np.argwhere(np.ones_like(truth))
    assert np.sqrt(((wide.predict(everywhere) - truth.ravel()) ** 2).mean()) < 0.06


def test_movielens_u1():
    if "SKLOWRANK_DATA" not in os.environ:
        pytest.skip("SKLOWRANK_DATA is not set: MovieLens-100k may not be shipped")
    folder = Path(os.environ["SKLOWRANK_DATA"]) / "movielens_100k"
    rows, test = (np.loadtxt(folder / name, dtype=int)[:, :3] for name in ("u.data", "u1.test"))
    train = rows[~np.isin(rows[:, 0] * 10_000 + rows[:, 1], test[:, 0] * 10_000 + test[:, 1])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = MatrixFactorizationRegressor(10, max_iter=60, random_state=0).fit(train[:, :2], train[:, 2])
    assert np.sqrt(((model.predict(test[:, :2]) - test[:, 2]) ** 2).mean()) <= 0.920
    guess, std = model.predict(test[:, :2], return_std=True)
    assert 0.85 <= (np.abs(guess - test[:, 2]) <= 1.645 * std).mean() <= 0.95


# ---------------------------------------------------------------- identifiers


def test_identifiers_of_any_kind_give_the_same_model():
    pairs, y, _ = ratings()
    expected = regressor().fit(pairs[:1200], y[:1200]).predict(pairs[1200:])
    who, what = (np.char.add(p, np.char.zfill(c.astype(str), 3)) for p, c in zip("ui", pairs.T))
    days = np.datetime64("2026-01-01") + pairs[:, 1]
    frames = (
        pd.DataFrame({"who": who, "what": what}),
        pd.DataFrame({"who": pairs[:, 0], "what": what}),
        pd.DataFrame({"who": pairs[:, 0] / 7, "day": days.astype("datetime64[s]")}),
        np.column_stack([who, what]),
        np.column_stack([who, what]).astype(object),
    )
    for X in frames:
        train, test = (X[:1200], X[1200:]) if isinstance(X, np.ndarray) else (X.iloc[:1200], X.iloc[1200:])
        np.testing.assert_allclose(regressor().fit(train, y[:1200]).predict(test), expected, rtol=1e-8)


def test_unknown_identifiers_are_no_error():
    pairs, y, _ = ratings()
    model = regressor().fit(pairs, y)
    columns = model.predict([[999, j] for j in model.col_ids_])
    np.testing.assert_allclose(columns, model.mean_ + model.col_intercept_)
    rows = model.predict([[i, 999] for i in model.row_ids_])
    np.testing.assert_allclose(rows, model.mean_ + model.row_intercept_)
    np.testing.assert_allclose(model.predict([[999, 999], [-1, 0.5]]), model.mean_)
    _, std = model.predict([[pairs[0, 0], pairs[0, 1]], [999, pairs[0, 1]], [999, 999]], return_std=True)
    assert 0 < std[0] < std[1]
    assert std[0] < std[2]


def test_identifiers_of_another_kind_are_unknown_and_warned_of():
    pairs, y, _ = ratings()
    text = regressor().fit(np.char.add("a", pairs.astype(str)), y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # text that was not seen is no other kind
        unseen = text.predict(np.array([["zzz", "a1"]]))
    np.testing.assert_allclose(unseen, text.mean_ + text.col_intercept_[[1]], rtol=1e-12)
    with pytest.warns(UserWarning, match=r"row identifiers in X are numbers, those seen in fit are text"):
        np.testing.assert_allclose(text.predict([[1, 2]]), text.mean_)
    numbers = regressor().fit(pairs, y)
    with pytest.warns(UserWarning, match=r"column identifiers in X are text, those seen in fit are numbers"):
        np.testing.assert_allclose(numbers.predict(pairs.astype(str)), y.mean())
    with pytest.warns(UserWarning, match="row identifiers in X are numbers and text"):
        numbers.predict([[1, 2], ["1", 2]])
    with pytest.warns(UserWarning, match="row identifiers"):
        numbers.recommend(["1"])


def numbered(kind, a, b):
    """Pairs of positions as identifiers of some type."""
    day, large = datetime.date(2020, 1, 1), 2**60 + a
    text = [f"u{i:03d}" for i in a]
    return {
        "nullable integers": lambda: pd.DataFrame({"u": large, "v": b}).convert_dtypes(),
        "integers of Arrow": lambda: pd.DataFrame({"u": large, "v": b}).convert_dtypes(dtype_backend="pyarrow"),
        "highest uint64": lambda: pd.DataFrame({"u": np.uint64(2**64 - 1) - np.uint64(59) + a.astype("u8"), "v": b}),
        "lowest int64": lambda: pd.DataFrame({"u": np.int64(-(2**63)) + a, "v": -b}),
        "beyond 64 bits": lambda: pd.DataFrame({"u": [10**30 + int(i) for i in a], "v": b}),
        "beside a fraction": lambda: pd.DataFrame({"u": large, "v": b, "z": np.zeros(len(a))}),
        "categories": lambda: pd.DataFrame({"u": pd.Categorical(text, [*sorted(set(text)), "unused"]), "v": b}),
        "strings of pandas": lambda: pd.DataFrame({"u": pd.array(text, dtype="string"), "v": b}),
        "bytes": lambda: pd.DataFrame({"u": [t.encode() for t in text], "v": b}),
        "time zone": lambda: pd.DataFrame(
            {"u": pd.Timestamp("2020-01-01", tz="Europe/Berlin") + pd.to_timedelta(a, unit="D"), "v": b}
        ),
        "durations": lambda: pd.DataFrame({"u": pd.to_timedelta(a, unit="D"), "v": b}),
        "dates in a list": lambda: [[day + datetime.timedelta(days=int(i)), int(j)] for i, j in zip(a, b)],
        "list": lambda: [[2**60 + int(i), f"i{j:02d}", 0.0] for i, j in zip(a, b)],
        "polars": lambda: pl.DataFrame({"u": large, "v": pl.Series([f"i{j:02d}" for j in b], dtype=pl.Categorical)}),
        "mixed": lambda: pd.DataFrame({"u": [int(i) if i < 30 else f"g{i}" for i in a], "v": b}),
        "tuples": lambda: pd.DataFrame({"u": [(0, int(i)) for i in a], "v": b}),
        "uuid": lambda: pd.DataFrame({"u": [uuid.UUID(int=int(i)) for i in a], "v": b}),
    }[kind]()


@pytest.mark.parametrize(
    "kind",
    [
        "nullable integers",
        "integers of Arrow",
        "highest uint64",
        "lowest int64",
        "beyond 64 bits",
        "beside a fraction",
        "categories",
        "strings of pandas",
        "bytes",
        "time zone",
        "durations",
        "dates in a list",
        "list",
        "polars",
        "mixed",
        "tuples",
        "uuid",
    ],
)
def test_identifiers_stay_apart_whatever_their_type(kind):
    """Sixty rows, none of them merged with another; answers do not depend on what else is asked."""
    pairs, y, _ = ratings()
    X = numbered(kind, *pairs.T)
    model = regressor().fit(X, y)
    assert len(model.row_ids_) == 60
    everything = model.predict(X)
    assert np.ptp(everything) > 1
    np.testing.assert_allclose(model.predict(X[:2]), everything[:2], rtol=1e-12)
    best, scores = model.recommend(list(model.row_ids_[:2]), 3)
    assert best.shape == (2, 3)
    assert not np.array_equal(scores[0], scores[1])
    grown = model.fold_in(X[:5], y[:5])
    assert grown.row_ids_.dtype == model.row_ids_.dtype
    assert list(grown.row_ids_) == list(model.row_ids_)


def test_numbers_are_the_same_identifier_where_their_values_are_equal():
    large = np.array([-(2**63), -5, 0, 1, 2**53, 2**53 + 1, 2**63 - 1])
    assert find(large, large.astype(object)).tolist() == list(range(7))
    assert find(large, np.array([1.0, 0.5, 2.0**53, 2.0**63, -(2.0**63)])).tolist() == [3, 7, 4, 7, 0]
    assert find(large, np.array([2**63 - 1, 2**63], dtype=np.uint64)).tolist() == [6, 7]
    assert find(large, np.array([True, False])).tolist() == [3, 2]
    unsigned = np.array([0, 2**63, 2**64 - 1], dtype=np.uint64)
    assert find(unsigned, np.array([-1, 0])).tolist() == [3, 0]
    assert find(unsigned, np.array([2.0**63, -1.0, 2.0**64])).tolist() == [1, 3, 3]
    assert find(np.array([0.5, 2.0**53]), np.array([2**53, 2**53 + 1])).tolist() == [1, 2]
    assert as_identifiers(np.array([1, 2.0, 2**60 + 1], dtype=object)).tolist() == [1, 2, 2**60 + 1]
    assert concat_identifiers([np.array([2**63 - 1]), np.array([2**63], dtype=np.uint64)]).tolist() == [
        2**63 - 1,
        2**63,
    ]


def test_text_is_not_cut_and_long_text_does_not_swell_the_rest():
    pair = np.array(["a", "a\0"], dtype=object)
    assert len(encode(as_identifiers(pair), "row")[0]) == 2
    long = np.array(["x" * 1_000_000, *map(str, range(1000))], dtype=object)
    assert as_identifiers(long).dtype == object
    assert find(encode(long, "row")[0], long[:1]).tolist() == [1000]


def test_folding_in_other_types_keeps_the_old_ones():
    pairs, y, _ = ratings()
    model = regressor().fit(pairs, y)
    with pytest.warns(UserWarning, match="row identifiers in X are text"):
        grown = model.fold_in(pd.DataFrame({"u": ["new", "new"], "v": [1, 2]}), [1.0, 2.0])
    assert list(grown.row_ids_) == [*range(60), "new"]
    np.testing.assert_allclose(grown.predict(pairs), model.predict(pairs), rtol=1e-12)
    assert grown.predict(pd.DataFrame({"u": ["new"], "v": [1]})) != pytest.approx(model.mean_ + model.col_intercept_[1])


def test_find_and_encode():
    ids, place = encode(np.array([5, 3, 5, 9]), "row")
    assert ids.tolist() == [3, 5, 9]
    assert place.tolist() == [1, 0, 1, 2]
    assert find(ids, np.array([9, 4, 3, 10])).tolist() == [2, 3, 0, 3]
    assert find(np.array(["a", "b"]), np.array(["b", "c"], dtype=object)).tolist() == [1, 2]
    assert find(ids, np.array(["a", None], dtype=object)).tolist() == [3, 3]
    with pytest.raises(ValueError, match=r"row identifiers .* cannot be sorted.*one type"):
        encode(np.array([{}, {1}], dtype=object), "row")


@pytest.mark.parametrize(
    "values",
    [
        np.arange(-128, 128).astype(np.int8),
        np.array([0, 255, 3], dtype=np.uint8),
        np.array([2**63 + 5, 2**63 + 1, 2**63 + 5], dtype=np.uint64),
        np.array([2**62, -(2**62), 3]),
        np.array([7, -2, 7, 0]),
    ],
    ids=["int8", "uint8", "uint64", "far apart", "narrow"],
)
def test_integers_of_any_width_and_range_are_encoded_as_numpy_does(values):
    ids, place = encode(values, "row")
    expected_ids, expected_place = np.unique(values, return_inverse=True)
    assert ids.dtype == values.dtype
    assert np.array_equal(ids, expected_ids)
    assert np.array_equal(place, expected_place)
    assert np.array_equal(find(ids, values), expected_place)


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        (pd.Series([None, *"abc"], dtype=object), "None"),
        ([np.nan, 1.0, 2.0, 3.0], "NaN"),
        ([np.inf, 1.0, 2.0, 3.0], "infinity"),
        (pd.array([pd.NA, 1, 2, 3], dtype="Int64"), "<NA>"),
        (pd.to_datetime([pd.NaT, "2020-01-01", "2020-01-02", "2020-01-03"]), "NaT"),
        (pd.Categorical([None, *"abc"]), "NaN"),
        (pd.array([pd.NA, *"abc"], dtype="string"), "<NA>"),
    ],
    ids=["None", "NaN", "inf", "Int64", "dates", "categories", "string"],
)
@pytest.mark.parametrize("place", [0, 1])
def test_missing_identifiers_are_named(column, shown, place):
    columns = [range(4), column] if place else [column, range(4)]
    frame = pd.DataFrame({"who": columns[0], "what": columns[1]})
    name = ("row", "column")[place]
    whole = frame.iloc[1:].reset_index(drop=True)
    model = regressor(1).fit(whole, np.arange(3.0))
    for call in (lambda: regressor(1).fit(frame, np.arange(4.0)), lambda: model.predict(frame)):
        with pytest.raises(ValueError, match=rf"contains {shown}: the {name} identifiers of 1 of 4.*sample 0") as told:
            call()
        assert "OneHotEncoder" not in str(told.value)


def test_missing_identifiers_of_polars_and_lists():
    frame = pl.DataFrame({"who": [2**60, None, 2**60 + 1], "what": [1, 2, 3]})
    for X in (frame, [[1, 2], [None, 2], [3, 4]]):
        with pytest.raises(ValueError, match=r"row identifiers of 1 of 3.*sample 1"):
            regressor(1).fit(X, np.arange(3.0))


def test_frames_that_do_not_fit_are_refused():
    pairs, y, _ = ratings()
    frame = pd.DataFrame({"who": pairs[:, 0], "what": pairs[:, 1], "age": y, "dose": -y})
    for X in (frame, pl.from_pandas(frame)):
        model = regressor().fit(X, y)
        for other in (["what", "who", "age", "dose"], ["who", "what", "dose", "age"]):
            with pytest.raises(ValueError, match="same order"):
                model.predict(X[other])
    with pytest.raises(ValueError, match="NaN"):
        regressor().fit(frame.assign(age=np.nan), y)
    for wrong, told in (
        (frame[:0], "0 sample"),
        (frame[[]], "0 feature"),
        (frame.who, "2-dim|2D"),
        (pl.Series(pairs[:, 0]), "2-dim|2D"),
        (frame.assign(age=1j), "must be numbers"),
        (frame.assign(who=1j), "Complex data not supported"),
        (frame.assign(age=pd.Timestamp("2020-01-01")), "must be numbers"),
        (frame.assign(age="blue"), "must be numbers"),
        (frame.assign(age=np.inf), "infinity"),
    ):
        with pytest.raises(ValueError, match=told):
            regressor().fit(wrong, y[: len(wrong)])
    with pytest.raises(ValueError, match="y could not be converted to numeric values") as error:
        regressor().fit(frame, ["secret", *y[1:]])
    assert "secret" not in str(error.value)
    np.testing.assert_array_equal(
        regressor().fit(frame, y.astype(str)).predict(frame), regressor().fit(frame, y).predict(frame)
    )


# ---------------------------------------------------------------- standard errors


def test_standard_errors_cover_and_shrink_with_data():
    pairs, y, _ = ratings(noise=0.5)
    model = regressor().fit(pairs[:1200], y[:1200])
    guess, std = model.predict(pairs[1200:], return_std=True)
    assert 0.85 <= (np.abs(guess - y[1200:]) <= 1.645 * std).mean() <= 0.97
    few, many = pairs[:, 0] < 30, pairs[:, 0] >= 30
    thinned = few & (np.arange(len(y)) % 4 > 0)  # a quarter of the values of every other row
    model = regressor().fit(pairs[~thinned], y[~thinned])
    std = model.predict(pairs, return_std=True)[1]
    assert std[few].mean() > 1.1 * std[many].mean()


def test_standard_errors_do_not_depend_on_order_or_blocks():
    pairs, y, _ = ratings()
    model = regressor().fit(pairs, y)
    _, std = model.predict(pairs, return_std=True)
    order = np.random.RandomState(0).permutation(len(pairs))
    _, shuffled = model.set_params(batch_size=13).predict(pairs[order], return_std=True)
    np.testing.assert_allclose(shuffled, std[order], rtol=1e-10)


def test_standard_errors_belong_to_variational():
    pairs, y, _ = ratings()
    with pytest.raises(ValueError, match=r"return_std=True needs .*'variational'"):
        regressor(inference="map").fit(pairs, y).predict(pairs, return_std=True)


# ---------------------------------------------------------------- duplicates, covariates, clipping


def test_duplicates_count_as_often():
    pairs, y, _ = ratings()
    settings = {"inference": "map", "init": "random", "max_iter": 2000, "tol": 1e-12}
    once = regressor(alpha=1.0, **settings).fit(pairs, y).predict(pairs)
    both = np.vstack([pairs, pairs])
    twice = regressor(alpha=2.0, **settings).fit(both, np.r_[y, y]).predict(pairs)
    apart = regressor(alpha=2.0, **settings).fit(both, np.r_[y + 0.3, y - 0.3])
    np.testing.assert_allclose(once, twice, atol=1e-4)
    np.testing.assert_allclose(once, apart.predict(pairs), atol=1e-4)
    residual = np.r_[y + 0.3, y - 0.3] - np.r_[once, once]
    assert apart.noise_variance_ == pytest.approx((residual**2).mean(), rel=1e-3)


def test_noise_of_repeated_measurements_is_that_of_one():
    pairs, _, truth = ratings()
    rng = np.random.RandomState(0)
    many = np.vstack([pairs] * 4)
    y = truth[tuple(many.T)] + 0.4 * rng.randn(len(many))
    assert regressor().fit(many, y).noise_variance_ == pytest.approx(0.16, rel=0.05)


@pytest.mark.parametrize("params", [{}, {"inference": "map"}, {"inference": "map", "solver": "cg"}])
def test_further_columns_enter_linearly(params):
    pairs, y, _ = ratings()
    rng = np.random.RandomState(1)
    Z = rng.randn(len(y), 2) * [1, 100] + [0, 5]
    X = np.column_stack([pairs, Z])
    target = y + Z @ [2.0, -0.03]
    model = regressor(**params).fit(X[:1200], target[:1200])
    np.testing.assert_allclose(model.coef_, [2.0, -0.03], rtol=0.03)
    assert model.score(X[1200:], target[1200:]) > 0.98
    assert regressor(**params).fit(pairs[:1200], target[:1200]).score(pairs[1200:], target[1200:]) < 0.5


def test_further_columns_with_duplicates_and_text():
    pairs, y, _ = ratings()
    rng = np.random.RandomState(1)
    both, z = np.vstack([pairs, pairs]), rng.randn(2 * len(y), 1)
    model = regressor().fit(np.hstack([both, z]), np.r_[y, y] + 3 * z[:, 0])
    np.testing.assert_allclose(model.coef_, [3.0], rtol=0.01)
    with pytest.raises(ValueError, match="must be numbers"):
        regressor().fit(np.column_stack([pairs.astype(str), np.full(len(y), "blue")]), y)


def test_one_column_learns_offsets():
    rng = np.random.RandomState(0)
    who = rng.randint(20, size=2000)
    level = rng.randn(20)
    model = regressor().fit(who[:, None], level[who] + 0.1 * rng.randn(2000))
    np.testing.assert_allclose(model.predict(np.arange(20)[:, None]), level, atol=0.05)


def test_clip():
    pairs, y, _ = ratings(noise=1.0)
    stars = np.clip(np.round(y), 1, 5)
    guess = regressor(clip="observed").fit(pairs, stars).predict(np.argwhere(np.ones((60, 40))))
    assert guess.min() >= 1
    assert guess.max() <= 5
    guess = regressor(clip=(2, 3)).fit(pairs, stars).predict(pairs)
    assert (guess.min(), guess.max()) == (2, 3)
    for clip in (("a", "b"), (3, 2), (0, np.nan), (np.zeros(2), 1)):
        with pytest.raises(ValueError, match="clip"):
            regressor(clip=clip).fit(pairs, stars)


# ---------------------------------------------------------------- recommend, fold_in


def test_recommend_new_columns_best_first():
    pairs, y, _ = ratings()
    model = regressor().fit(pairs, y)
    ids, scores = model.recommend([4, 9, 999], n=5)
    assert ids.shape == scores.shape == (3, 5)
    assert (np.diff(scores, axis=1) <= 0).all()
    seen = set(map(tuple, pairs))
    assert not any((row, col) in seen for row, best in zip((4, 9), ids) for col in best)
    for row, best, score in zip((4, 9, 999), ids, scores):
        np.testing.assert_allclose(model.predict([[row, col] for col in best]), score, rtol=1e-10)
    everything, _ = model.recommend([4], n=40, exclude_seen=False)
    assert sorted(everything[0]) == sorted(model.col_ids_)
    expected = model.col_ids_[np.argsort(-model.col_intercept_)][:5]
    assert ids[2].tolist() == expected.tolist()


def test_recommend_says_where_nothing_is_left():
    pairs = np.array([[0, 0], [0, 1], [0, 2], [1, 0], [2, 1], [2, 2]])
    _, scores = regressor(1).fit(pairs, np.arange(6.0)).recommend([0, 1], n=3)
    assert np.isneginf(scores[0]).all()
    assert np.isfinite(scores[1]).sum() == 2
    with pytest.raises(ValueError, match=r"n=4 must lie between 1 and .* 3"):
        regressor(1).fit(pairs, np.arange(6.0)).recommend([0], n=4)
    for n, error in ((2.5, TypeError), ("2", TypeError), (0, ValueError), (-1, ValueError), (True, TypeError)):
        with pytest.raises(error, match="n"):
            regressor(1).fit(pairs, np.arange(6.0)).recommend([0], n=n)
    with pytest.raises(ValueError, match=r"list of identifiers, such as \[0\]"):
        regressor(1).fit(pairs, np.arange(6.0)).recommend(0, n=1)


def test_lists_of_rows_in_any_container():
    pairs, y, _ = ratings()
    model = regressor().fit(pairs, y)
    expected, _ = model.recommend(np.array([4, 9]), 3)
    lists = [4, 9], (4, 9), [4.0, 9.0], pd.Series([4, 9]), pd.Index([4, 9]), pl.Series([4, 9]), pd.Categorical([4, 9])
    for rows in lists:
        assert np.array_equal(model.recommend(rows, 3)[0], expected)
    nothing, none = model.recommend([], 3)
    assert nothing.shape == none.shape == (0, 3)
    assert nothing.dtype == expected.dtype
    for wrong in ("ab", None, [[4]], {4, 9}):
        with pytest.raises(ValueError, match="list of identifiers"):
            model.recommend(wrong)
    with pytest.raises(ValueError, match="row identifiers of 1 of 2"):
        model.recommend([4, None])


def test_recommend_does_not_depend_on_blocks():
    pairs, y, _ = ratings()
    model = regressor().fit(pairs, y)
    whole, parts = model.recommend(np.arange(60)), model.set_params(batch_size=7).recommend(np.arange(60))
    assert np.array_equal(whole[0], parts[0])


@pytest.mark.parametrize(
    "params", [{}, {"inference": "map"}, {"inference": "map", "reg_scaling": "count", "alpha": 0.01}]
)
def test_fold_in_equals_a_fit_whose_columns_are_the_same(params):
    """New and known rows are solved from all their values: as `fit` itself does in its last pass over the rows."""
    pairs, y, _ = ratings()
    late = pairs[:, 0] >= 50
    rest = regressor(**params).fit(pairs[~late], y[~late])
    grown = rest.fold_in(pairs[late], y[late])
    assert np.array_equal(grown.row_ids_, np.arange(60))
    assert np.array_equal(rest.row_ids_, np.arange(50))
    assert np.array_equal(grown.components_, rest.components_)
    assert grown.score(pairs[late], y[late]) > 0.98
    split = pairs[:, 0] * 7 + pairs[:, 1] * 3
    in_two = rest.fold_in(pairs[late & (split % 2 == 0)], y[late & (split % 2 == 0)])
    in_two = in_two.fold_in(pairs[late & (split % 2 == 1)], y[late & (split % 2 == 1)])
    np.testing.assert_allclose(in_two.row_embedding_, grown.row_embedding_, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(in_two.row_intercept_, grown.row_intercept_, rtol=1e-6, atol=1e-8)
    if rest.inference == "variational":
        one, two = (model.predict(pairs[late], return_std=True)[1] for model in (grown, in_two))
        np.testing.assert_allclose(one, two, rtol=1e-8)


@pytest.mark.parametrize("params", [{}, {"inference": "map"}])
def test_folding_in_weighted_values(params):
    pairs, y, _ = ratings()
    late = pairs[:, 0] >= 50
    weights = np.random.RandomState(0).randint(0, 3, late.sum())
    rest = regressor(**params).fit(pairs[~late], y[~late])
    weighted = rest.fold_in(pairs[late], y[late], sample_weight=weights)
    repeated = rest.fold_in(np.repeat(pairs[late], weights, axis=0), np.repeat(y[late], weights))
    np.testing.assert_allclose(weighted.predict(pairs), repeated.predict(pairs), rtol=1e-9)
    nothing = rest.fold_in(pairs[late], y[late], sample_weight=np.zeros(late.sum()))
    assert np.array_equal(nothing.row_ids_, rest.row_ids_)


def test_fold_in_nonnegative_and_unknown_columns():
    rng = np.random.RandomState(0)
    truth = rng.exponential(size=(30, 2)) @ rng.exponential(size=(2, 20))
    pairs = np.argwhere(rng.rand(30, 20) < 0.6)
    model = regressor(inference="map", nonnegative=True, alpha=0.01, max_iter=1000).fit(pairs, truth[tuple(pairs.T)])
    assert model.score(pairs, truth[tuple(pairs.T)]) > 0.99
    new = np.column_stack([np.full(21, 77), np.r_[np.arange(20), 99]])
    grown = model.fold_in(new, np.r_[truth[3], 1e6])
    assert grown.row_embedding_.min() >= 0
    np.testing.assert_allclose(grown.predict(new[:20]), truth[3], rtol=0.15, atol=0.05)
    assert 77 not in model.row_ids_


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize("further", [0, 2])
@pytest.mark.parametrize(
    "params",
    [{}, {"inference": "map"}, {"inference": "map", "solver": "cg"}, {"inference": "map", "reg_scaling": "count"}],
    ids=["variational", "map", "cg", "count"],
)
def test_a_weight_of_k_is_k_observations_and_none_is_absence(params, further):
    pairs, y, _ = ratings()
    rng = np.random.RandomState(1)
    Z = rng.randn(len(y), further) * [1, 100][:further] + [0, 5][:further]
    X, y = np.column_stack([pairs, Z]), y + Z @ [2.0, -0.03][:further]
    weights = rng.randint(0, 4, len(y))
    weights[pairs[:, 0] == 7] = 0
    weights[pairs[:, 1] == 9] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        weighted = regressor(**params).fit(X, y, sample_weight=weights)
        repeated = regressor(**params).fit(np.repeat(X, weights, axis=0), np.repeat(y, weights))
    assert 7 not in weighted.row_ids_
    assert 9 not in weighted.col_ids_
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), rtol=1e-7)
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-7)
    assert weighted.noise_variance_ == pytest.approx(repeated.noise_variance_, rel=1e-7)
    if not params:
        stds = (m.predict(X, return_std=True)[1] for m in (weighted, repeated))
        np.testing.assert_allclose(*stds, rtol=1e-7)


def test_weights_that_are_no_whole_numbers():
    """Weight 0.5 on two copies of each value is one of each; the penalty alone has a scale of its own."""
    pairs, y, _ = ratings()
    halves = regressor().fit(np.vstack([pairs] * 2), np.r_[y, y], sample_weight=np.full(2 * len(y), 0.5))
    np.testing.assert_allclose(halves.predict(pairs), regressor().fit(pairs, y).predict(pairs), rtol=1e-8)
    assert regressor().fit(pairs, y, sample_weight=np.ones(len(y))).score(pairs, y) == regressor().fit(pairs, y).score(
        pairs, y
    )
    for weights, told in (
        (-np.ones(len(y)), "Negative"),
        (np.zeros(len(y)), "sample_weight is zero"),
        (y[:3], "shape"),
    ):
        with pytest.raises(ValueError, match=told):
            regressor().fit(pairs, y, sample_weight=weights)


# ---------------------------------------------------------------- factors of pairs


@pytest.mark.parametrize("container", ["default", "pandas", "polars"])
def test_factors_of_pairs_side_by_side(container):
    pairs, y, _ = ratings()
    frame = pd.DataFrame(pairs, columns=["who", "what"], index=np.arange(len(y))[::-1])
    model = regressor(3).set_output(transform=container).fit(frame, y)
    new = pd.DataFrame({"who": [5, 999, 5], "what": [7, 7, 999]}, index=list("abc"))
    found = model.transform(new)
    names = ["row_factor0", "row_factor1", "row_factor2", "column_factor0", "column_factor1", "column_factor2"]
    assert list(model.get_feature_names_out()) == names
    if container != "default":
        assert list(found.columns) == names
        assert container == "polars" or found.index.equals(new.index)
    u, v = model.row_embedding_[5], model.components_[:, 7]
    np.testing.assert_array_equal(np.asarray(found), [[*u, *v], [0, 0, 0, *v], [*u, 0, 0, 0]])
    offsets = model.mean_ + model.row_intercept_[5] + model.col_intercept_[7]
    np.testing.assert_allclose(model.predict(new[:1]), offsets + u @ v)


# ---------------------------------------------------------------- values that arrive in batches


@pytest.fixture
def short_memory(monkeypatch):
    """Let 8 values per row and column be kept instead of 20, so that streams of a test are longer than that."""
    monkeypatch.setattr(_known_pairs, "_KEPT_PER_ENTITY", 8)


@pytest.mark.parametrize("order", ["by row", "by column", "at random"])
@pytest.mark.usefixtures("short_memory")
def test_batches_lead_near_the_fit_to_all_values(order):
    pairs, y, truth = ratings(m=150, n=40, values=4000, noise=0.3)
    at = {"by row": np.argsort(pairs[:, 0]), "by column": np.argsort(pairs[:, 1]), "at random": slice(None)}[order]
    X, y = pairs[at], y[at]
    stream, whole, first = regressor(4), regressor(4).fit(X, y), regressor(4).fit(X[:1000], y[:1000])
    for i in range(0, 4000, 250):
        stream.partial_fit(X[i : i + 250], y[i : i + 250])
    assert stream._fitted["first_values"] is None
    assert stream.n_samples_seen_ == 4000
    assert np.array_equal(stream.row_ids_, whole.row_ids_)
    assert np.array_equal(stream.col_ids_, whole.col_ids_)
    everywhere = np.argwhere(np.ones_like(truth))
    errors = [np.sqrt(((m.predict(everywhere) - truth.ravel()) ** 2).mean()) for m in (stream, whole, first)]
    assert errors[0] < 1.15 * errors[1]  # 0.99 to 1.06 were measured; the first quarter alone 2.7 to 11
    assert errors[2] > 2 * errors[1]
    stds = [m.predict(everywhere, return_std=True)[1] for m in (stream, whole)]
    assert np.median(stds[0] / stds[1]) == pytest.approx(1, abs=0.05)  # 1.00 to 1.01


def test_the_first_values_are_fitted_anew_when_they_have_doubled():
    pairs, y, _ = ratings()
    weights = np.random.RandomState(0).randint(1, 3, 32)
    stream = regressor()
    for i in range(32):
        stream.partial_fit(pairs[i : i + 1], y[i : i + 1], sample_weight=weights[i : i + 1])
    expected = regressor().fit(pairs[:32], y[:32], sample_weight=weights)
    np.testing.assert_allclose(stream.predict(pairs), expected.predict(pairs), rtol=1e-8)
    np.testing.assert_allclose(
        regressor().partial_fit(pairs, y).predict(pairs), regressor().fit(pairs, y).predict(pairs), rtol=1e-12
    )
    first, late = (slice(1000), slice(1000, None))
    whole, blocks = (
        regressor(batch_size=size).fit(pairs[first], y[first]).partial_fit(pairs[late], y[late]) for size in ("auto", 7)
    )
    np.testing.assert_allclose(blocks.predict(pairs), whole.predict(pairs), rtol=1e-9)


def test_a_batch_of_new_rows_is_what_folding_in_gives_while_columns_are_sure():
    pairs, y, _ = ratings()
    late = pairs[:, 0] >= 59
    model = regressor().fit(pairs[~late], y[~late])
    folded = model.fold_in(pairs[late], y[late])
    grown = copy.deepcopy(model).partial_fit(pairs[late], y[late])
    assert grown.row_ids_[-1] == 59
    np.testing.assert_allclose(grown.predict(pairs[late]), folded.predict(pairs[late]), atol=0.02)
    assert not np.array_equal(grown.components_, model.components_)
    untouched = np.setdiff1d(model.col_ids_, pairs[late, 1])
    assert np.array_equal(grown.components_[:, untouched], model.components_[:, untouched])


@pytest.mark.usefixtures("short_memory")
def test_streams_with_covariates_weights_new_types_and_bounds():
    pairs, y, _ = ratings(values=2000)
    z = np.random.RandomState(1).randn(len(y), 1)
    X, target = np.hstack([pairs, z]), y + 3 * z[:, 0]
    stream = MatrixFactorizationRegressor(2, random_state=0)
    for i in range(0, 2000, 500):
        weights = np.where(np.arange(500) % 5, 1.0, 0.0)  # the values without weight are far off
        values = np.where(weights > 0, target[i : i + 500], 1e6)
        stream.partial_fit(X[i : i + 500], values, sample_weight=weights)
    np.testing.assert_allclose(stream.coef_, [3.0], rtol=0.02)
    assert stream.score(X, target) > 0.97
    there = np.arange(2000) % 5 > 0
    assert stream._fitted["bounds"] == pytest.approx((target[there].min(), target[there].max()))
    named = pd.DataFrame({"u": ["new"] * 3, "v": [1, 2, 3], "z": 0.0})
    with pytest.warns(UserWarning, match="row identifiers in X are text"):
        regressor().fit(X, target).partial_fit(pd.DataFrame(named).to_numpy(), [1.0, 2.0, 3.0])
    assert regressor().fit(pairs, y.astype(np.float32)).partial_fit(pairs[:9], y[:9]).components_.dtype == np.float32
    assert not hasattr(regressor(inference="map"), "partial_fit")
    same = regressor().fit(pairs, y)
    before = same.predict(pairs)
    same.partial_fit(pairs[:5], y[:5], sample_weight=np.zeros(5))
    assert np.array_equal(same.predict(pairs), before)


def test_ridge_by_count_is_the_ridge_times_the_values():
    pairs = np.argwhere(np.ones((30, 8)))
    T = np.random.RandomState(0).randn(30, 2) @ np.random.RandomState(1).randn(2, 8)
    T = (T - T.mean()) / T.std()
    settings = {"inference": "map", "alpha": 0.01, "reg_scaling": "count", "max_iter": 2000, "tol": 1e-12}
    model = regressor(2, **settings).fit(pairs, T.ravel())
    u, v = model.row_embedding_, model.components_
    residual = T - model.row_intercept_[:, None] - model.col_intercept_ - u @ v
    np.testing.assert_allclose(residual @ v.T, 0.01 * 8 * u, atol=1e-4)
    np.testing.assert_allclose(residual.T @ u, 0.01 * 30 * v.T, atol=1e-3)


# ---------------------------------------------------------------- precision, blocks, searches


@pytest.mark.parametrize("params", [{}, {"inference": "map"}, {"inference": "map", "solver": "cg"}])
def test_blocks_and_float32_change_nothing(params):
    pairs, y, _ = ratings()
    whole = regressor(**params).fit(pairs, y).predict(pairs)
    np.testing.assert_allclose(
        regressor(batch_size=9, **params).fit(pairs, y).predict(pairs), whole, rtol=1e-6, atol=1e-7
    )
    single = regressor(**params).fit(pairs, y.astype(np.float32)).predict(pairs)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, whole, atol=5e-3)


def test_searches_and_pickles():
    pairs, y, _ = ratings()
    search = GridSearchCV(regressor(), {"n_components": [1, 2]}, cv=3, error_score="raise").fit(pairs, y)
    assert search.best_params_ == {"n_components": 2}
    assert cross_val_score(regressor(), pairs, y, cv=3).min() > 0.9
    model = pickle.loads(pickle.dumps(search.best_estimator_))
    assert np.array_equal(model.recommend([1])[0], search.best_estimator_.recommend([1])[0])


@pytest.mark.parametrize("params", [{}, {"inference": "map"}, {"inference": "map", "solver": "cg"}])
def test_a_matrix_that_could_never_be_dense(params):
    """Some 79,000 x 79,000 cells would take 50 GB: only what is observed may be multiplied."""
    rng = np.random.RandomState(0)
    pairs = rng.randint(200_000, size=(100_000, 2))
    pairs[0], pairs[1] = 0, 199_999
    pairs[:, 0] *= 1000  # identifiers far apart
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = regressor(**params, init="random", max_iter=2).fit(pairs, rng.randn(100_000))
    assert len(model.row_ids_) * len(model.col_ids_) > 5e9
    assert np.isfinite(model.predict(pairs[:100])).all()


def test_a_constant_target():
    pairs, y, _ = ratings()
    model = regressor().fit(pairs, np.full(len(y), 4.0))
    np.testing.assert_allclose(model.predict(pairs), 4.0)


@pytest.mark.cuda
def test_cuda_agrees():
    pairs, y, _ = ratings()
    for params in ({}, {"inference": "map"}, {"inference": "map", "solver": "cg"}):
        here, there = (regressor(device=d, **params).fit(pairs, y) for d in ("cpu", "cuda"))
        np.testing.assert_allclose(there.predict(pairs), here.predict(pairs), rtol=1e-5, atol=1e-6)
        assert np.array_equal(there.recommend([1, 2])[0], here.recommend([1, 2])[0])


def test_values_whose_squares_overflow():
    who, what = np.divmod(np.arange(48), 8)
    X, y = np.column_stack([who, what]), (1.0 + who) * (1.0 + what)
    small, large = (
        MatrixFactorizationRegressor(2, random_state=0).fit(X, y * unit).predict(X) for unit in (1.0, 2.0**600)
    )
    np.testing.assert_allclose(large / 2.0**600, small, rtol=1e-9)
    assert np.isfinite(MatrixFactorizationRegressor(2, inference="map").fit(X, y * 1e200).predict(X)).all()
