"""Supervised dictionaries: names and kinds of covariates, kinds of targets."""

import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import sklearn
import torch
from numpydoc.docscrape import ClassDoc
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklowrank._core.rows import Rows
from sklowrank._core.workspace import open_workspace
from sklowrank.decomposition import SupervisedDictionaryLearning, SupervisedDictionaryRegressor
from sklowrank.decomposition._sdl.problem import scaled_features

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 5))
Z = RNG.normal(size=(80, 3))
NUMBERS = X[:, 0] + Z @ [1.0, -2.0, 0.5]
FRAMES = {"pandas": pd.DataFrame, "polars": pl.DataFrame}
BESIDE = {"age": Z[:, 0], "dose": Z[:, 1], "site": Z[:, 2]}
METHODS = [
    (SupervisedDictionaryLearning, "predict"),
    (SupervisedDictionaryLearning, "predict_proba"),
    (SupervisedDictionaryLearning, "predict_log_proba"),
    (SupervisedDictionaryLearning, "decision_function"),
    (SupervisedDictionaryLearning, "score"),
    (SupervisedDictionaryRegressor, "predict"),
    (SupervisedDictionaryRegressor, "score"),
]
EVERYWHERE = pytest.mark.parametrize(("Estimator", "method"), METHODS, ids=lambda v: getattr(v, "__name__", v))


def targets(Estimator):
    return NUMBERS if Estimator is SupervisedDictionaryRegressor else NUMBERS > 0


def asked(model, method, covariates):
    rest = (targets(type(model)),) if method == "score" else ()
    return getattr(model, method)(X, *rest, covariates=covariates)


# Names of covariates


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
@EVERYWHERE
def test_names_of_covariates_are_compared_with_those_of_fit(Estimator, method, frame):
    beside = frame(BESIDE)
    model = Estimator(2, random_state=0).fit(X, targets(Estimator), covariates=beside)
    assert list(model.covariate_names_in_) == ["age", "dose", "site"]
    asked(model, method, beside)
    wrong = {
        r"covariate names should match(.|\n)*same order": ["dose", "age", "site"],
        r"now missing:\n- site": ["age", "dose"],
    }
    for text, names in wrong.items():
        with pytest.raises(ValueError, match=text):
            asked(model, method, beside[names])
    other = frame({"age": Z[:, 0], "dose": Z[:, 1], "clinic": Z[:, 2]})
    with pytest.raises(ValueError, match=r"unseen at fit time:\n- clinic\n(.|\n)*now missing:\n- site"):
        asked(model, method, other)


@EVERYWHERE
def test_frames_of_any_library_stand_for_one_another_and_arrays_warn(Estimator, method):
    y = targets(Estimator)
    named, plain = (Estimator(2, random_state=0).fit(X, y, covariates=c) for c in (pd.DataFrame(BESIDE), Z))
    assert not hasattr(plain, "covariate_names_in_")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = asked(named, method, pd.DataFrame(BESIDE))
        assert np.array_equal(asked(named, method, pl.DataFrame(BESIDE)), expected)
        assert np.array_equal(asked(plain, method, pd.DataFrame(Z)), expected)  # numbers are no names
    with pytest.warns(UserWarning, match="covariates has no valid column names"):
        assert np.array_equal(asked(named, method, Z), expected)
    with pytest.warns(UserWarning, match="covariates has column names"):
        assert np.array_equal(asked(plain, method, pl.DataFrame(BESIDE)), expected)


@pytest.mark.parametrize("Estimator", [SupervisedDictionaryLearning, SupervisedDictionaryRegressor])
def test_a_refit_forgets_the_names_and_a_long_list_is_cut(Estimator):
    y = targets(Estimator)
    model = Estimator(2, random_state=0).fit(X, y, covariates=pd.DataFrame(BESIDE))
    assert not hasattr(model.fit(X, y, covariates=Z), "covariate_names_in_")
    assert not hasattr(model.fit(X, y), "covariate_names_in_")
    wide = pd.DataFrame(RNG.normal(size=(80, 7)), columns=list("abcdefg"))
    with pytest.raises(ValueError, match=r"now missing:\n- a\n- b\n- c\n- d\n- e\n- \.\.\.\n$"):
        model.fit(X, y, covariates=wide).predict(X, covariates=pd.DataFrame({"z": Z[:, 0]}))
    with pytest.raises(TypeError, match="string names"):
        model.fit(X, y, covariates=pd.DataFrame({"a": Z[:, 0], 1: Z[:, 1]}))


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_named_covariates_are_routed_and_their_order_is_checked_behind_a_pipeline(frame):
    beside, y = frame(BESIDE), NUMBERS > 0
    with sklearn.config_context(enable_metadata_routing=True):
        model = SupervisedDictionaryLearning(2, random_state=0)
        for method in ("fit", "predict", "score"):
            model = getattr(model, f"set_{method}_request")(covariates=True)
        pipe = make_pipeline(StandardScaler(), model)
        search = GridSearchCV(pipe, {"superviseddictionarylearning__xi": [0.1, 1.0]}, cv=2, error_score="raise")
        assert search.fit(X, y, covariates=beside).score(X, y, covariates=beside) > 0.8
        with pytest.raises(ValueError, match="same order"):
            clone(pipe).fit(X, y, covariates=beside).score(X, y, covariates=beside[["site", "dose", "age"]])


# Kinds of covariates and of targets


KINDS = {
    "text": lambda v: v.astype(str),
    "bytes": lambda v: v.astype("S"),
    "objects": lambda v: v.astype(object),
    "objects of text": lambda v: v.astype(str).astype(object),
    "decimals": lambda v: np.vectorize(lambda x: Decimal(str(x)), otypes=[object])(v),
    "lists of text": lambda v: v.astype(str).tolist(),
    "long double": lambda v: v.astype(np.longdouble),
    "big endian": lambda v: v.astype(">f8"),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_numbers_of_any_kind_are_read_as_numbers(kind):
    """Numbers with three digits, which text does not round; the peer converts them all."""
    y, z = NUMBERS.round(3), Z.round(3)
    plain = SupervisedDictionaryRegressor(2, random_state=0).fit(X, y, covariates=z)
    model = SupervisedDictionaryRegressor(2, random_state=0).fit(X, kind(y), covariates=kind(z))
    assert np.allclose(model.predict(X, covariates=kind(z)), plain.predict(X, covariates=z), rtol=1e-12)
    assert np.allclose(Ridge().fit(X, kind(y)).predict(X), Ridge().fit(X, y).predict(X))


@pytest.mark.parametrize("kind", [np.array, pd.Series, list, lambda v: np.array(v, dtype=object)])
def test_words_are_refused_as_targets_and_as_covariates(kind):
    words = ["low", "high"] * 40
    with pytest.raises(ValueError, match=r"could not (be converted|convert)"):
        SupervisedDictionaryRegressor(2).fit(X, kind(words))
    model = SupervisedDictionaryRegressor(2, random_state=0).fit(X, NUMBERS, covariates=Z[:, :1])
    column = pd.DataFrame({"word": kind(words)})
    for fit in (lambda: model.fit(X, NUMBERS, covariates=column), lambda: model.predict(X, covariates=column.values)):
        with pytest.raises(ValueError, match=r"covariates .*could not convert string"):
            fit()


NONE = [
    (value, dtype)
    for value in (None, "nan", np.nan, "inf", -np.inf)
    for dtype in (object, str)
    if value or dtype is object
]


@pytest.mark.parametrize(("value", "dtype"), NONE)
def test_numbers_that_are_none_are_refused_after_they_are_converted(value, dtype):
    y = np.array([value, *NUMBERS[1:]], dtype=dtype)
    with pytest.raises(ValueError, match=r"contains (NaN|infinity)"):
        SupervisedDictionaryRegressor(2).fit(X, y)


# What is kept, and what both estimators share


BOTH = [SupervisedDictionaryLearning, SupervisedDictionaryRegressor]


@pytest.mark.parametrize("Estimator", BOTH)
@pytest.mark.parametrize("params", [{}, {"nonnegative": "codes", "max_iter": 50, "tol": 1e-3}], ids=["filter", "codes"])
def test_parameters_set_after_the_fit_change_nothing(Estimator, params):
    model = Estimator(2, random_state=0, **params).fit(X, targets(Estimator))
    codes, score = model.transform(X), model.score(X, targets(Estimator))
    model.set_params(model="feature", nonnegative=True, n_components=1, covariate_columns=[0])
    assert np.array_equal(model.transform(X), codes)
    assert model.score(X, targets(Estimator)) == score


@pytest.mark.parametrize("Estimator", BOTH)
def test_only_what_no_attribute_holds_is_stored_beside_them(Estimator):
    model = Estimator(2, random_state=0).fit(X, targets(Estimator))
    assert model._fitted == {"model": "filter", "orthonormal": True, "nonnegative_codes": False}


def test_covariates_may_be_negative_where_factors_may_not():
    """Only features are sums of non-negative parts."""
    table = np.hstack([np.abs(X), Z])
    params = {"nonnegative": True, "random_state": 0, "max_iter": 100, "tol": 1e-4}
    model = SupervisedDictionaryLearning(2, covariate_columns=[5, 6, 7], **params).fit(table, NUMBERS > 0)
    other = SupervisedDictionaryLearning(2, **params).fit(np.abs(X), NUMBERS > 0, covariates=Z)
    assert model.components_.min() >= 0
    assert np.allclose(model.predict_proba(table), other.predict_proba(np.abs(X), covariates=Z))


def test_equal_parameters_have_equal_texts_ranges_and_defaults():
    one, other = (
        {name: (p.type, p.desc) for name, p in ((p.name, p) for p in ClassDoc(cls)["Parameters"])} for cls in BOTH
    )
    assert set(one) - set(other) == {"class_weight"}
    assert {name: one[name] for name in other} == other
    ranges = [{k: str(v) for k, v in cls._parameter_constraints.items() if k != "class_weight"} for cls in BOTH]
    assert ranges[0] == ranges[1]
    defaults = [cls().get_params() for cls in BOTH]
    assert {k: v for k, v in defaults[0].items() if k != "class_weight"} == defaults[1]


# Sparse rows


def test_a_sparse_table_is_one_block_of_a_row_source():
    A = sp.random_array((40, 6), density=0.3, random_state=np.random.default_rng(0), format="csr")
    ws, v = open_workspace(np.zeros((2, 2))), torch.full((40,), 1 / 40, dtype=torch.float64)
    sparse = scaled_features(Rows(A, ws), v, center=True, in_memory=False, ws=ws)
    dense = scaled_features(Rows(A.toarray(), ws), v, center=True, in_memory=False, ws=ws)
    assert torch.allclose(sparse.mean, dense.mean)
    assert sparse.unit == pytest.approx(dense.unit)
    rows, W = sparse.table.rows, torch.eye(6, dtype=torch.float64)[:, :2]
    assert (rows.kind, rows.shape, len(rows), rows.fit_in_one_block(1)) == ("csr", (40, 6), 40, True)
    found = rows.gather(lambda block, w: (block.matmul(W), w), v, size=1, batch_size=7, merge=None)
    assert torch.allclose(found[0], dense.table.whole().matmul(W))
    assert torch.equal(found[1], v)
    assert torch.allclose(sparse.table.gram_times(W), dense.table.gram_times(W))
    with pytest.raises(ValueError, match="one block"):
        rows.take(slice(0, 3))


@pytest.mark.parametrize("sign", [1, -1])
def test_magnitudes_of_blocks(sign):
    A = sign * sp.random_array((10, 4), density=0.5, random_state=np.random.default_rng(0), format="csr")
    ws, v = open_workspace(np.zeros((2, 2))), torch.full((10,), 0.1, dtype=torch.float64)
    ones = torch.ones(4, 1, dtype=torch.float64)
    for rows in (Rows(A, ws), Rows(A.toarray(), ws)):
        features = scaled_features(rows, v, center=False, in_memory=True, ws=ws)
        sums = features.table.whole().magnitudes().matmul(ones)
        assert np.allclose(sums[:, 0] * features.unit, abs(A).sum(axis=1))
