"""Validation keeps float32 and float64, and says what a tensor on a GPU needs."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn import config_context
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from sklowrank._core.validation import check_count, check_fit_data, check_fit_rows, check_new_data, is_integer, on_host


class Plain(BaseEstimator):
    """The least that scikit-learn's validation asks for."""

    def fit(self, X, y=None):
        return self


@pytest.mark.parametrize(
    ("given", "kept"), [(np.float32, np.float32), (np.float64, np.float64), (np.int32, np.float64), (bool, np.float64)]
)
def test_precision_is_that_of_X(given, kept):
    assert check_fit_data(Plain(), np.ones((3, 2), dtype=given)).dtype == kept


def test_new_data_before_fit():
    with pytest.raises(NotFittedError):
        check_new_data(Plain(), np.ones((3, 2)), method="transform", like="mean_")


def test_new_data_of_another_library_names_the_method():
    model = Plain()
    with config_context(array_api_dispatch=True):
        check_fit_data(model, np.ones((3, 2)))
        model.mean_ = np.ones(2)
        with pytest.raises(ValueError, match=r"transform"):
            check_new_data(model, torch.ones(3, 2, device="cpu"), method="transform", like="mean_")


@pytest.mark.cuda
def test_a_tensor_on_a_gpu_without_dispatch_is_refused_with_the_cure():
    with pytest.raises(TypeError, match=r"X\.cpu\(\).*array_api_dispatch"):
        check_fit_data(Plain(), torch.ones(3, 2, device="cuda"))


@pytest.mark.parametrize("dispatch", [False, True])
def test_a_tensor_on_a_device_that_is_not_computed_on_is_refused_with_the_cure(dispatch):
    X, y = np.ones((3, 2)), np.ones(3)
    there = torch.ones(3, 2, device="meta")
    fitted = Plain()
    fitted.mean_ = np.ones(2)
    with config_context(array_api_dispatch=dispatch):
        for call in (
            lambda: check_fit_data(Plain(), there),
            lambda: check_fit_data(Plain(), there, y),
            lambda: check_fit_rows(Plain(), there),
            lambda: check_new_data(fitted, there, method="transform", like="mean_"),
        ):
            with pytest.raises(TypeError, match=r"X is a tensor on the device 'meta', which has no values.*X\.cpu\(\)"):
                call()
        for call in (lambda: check_fit_data(Plain(), X, there[:, 0]), lambda: on_host(there[:, 0])):
            with pytest.raises(TypeError, match=r"y is a tensor on the device 'meta'"):
                call()


def test_gradients_of_the_user_are_not_followed():
    X = torch.ones(3, 2, device="cpu", requires_grad=True)
    assert isinstance(check_fit_data(Plain(), X), np.ndarray)


def test_a_tensor_on_the_cpu_without_dispatch_is_taken_as_numpy():
    assert isinstance(check_fit_data(Plain(), torch.ones(3, 2, device="cpu")), np.ndarray)


# Errors about text


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_columns_of_text_are_named(library):
    frames = pytest.importorskip(library)
    for site in (["a", None], [None, "a"]):
        table = frames.DataFrame({"age": [1.0, 2.0], "region": ["north", "south"], "site": site})
        with pytest.raises(ValueError, match=r"Text is in the columns \['region', 'site'\]\. .*OneHotEncoder.*\.$"):
            check_fit_data(BaseEstimator(), table)


@pytest.mark.parametrize("kind", ["category", "string"])
def test_columns_of_text_are_named_whatever_their_type(kind):
    table = pd.DataFrame({"age": [1.0, 2.0], "region": pd.Series(["north", "south"], dtype=kind)})
    with pytest.raises(ValueError, match=r"\['region'\]"):
        check_fit_data(BaseEstimator(), table)


@pytest.mark.parametrize("form", [np.array, list, lambda X: np.array(X, dtype=object)])
def test_columns_of_text_without_names_are_counted(form):
    with pytest.raises(ValueError, match=r"Text is in the columns \[1\]\. "):
        check_fit_data(BaseEstimator(), form([["1", "north"], ["2.5", "south"]]))


def test_many_columns_of_text_are_not_all_named():
    with pytest.raises(ValueError, match=r"\[0, 1, .*, 9\] and 20 more\."):
        check_fit_data(BaseEstimator(), np.full((2, 30), "a", dtype=object))


@pytest.mark.parametrize("zone", [None, "UTC"])
def test_columns_of_dates_are_named(zone):
    table = pd.DataFrame({"hour": pd.date_range("2024-01-01", periods=2, freq="h", tz=zone), "level": [1.0, 2.0]})
    with pytest.raises(ValueError, match=r"Dates are in the columns \['hour'\]\. .*\.$"):
        check_fit_data(BaseEstimator(), table)


def test_numbers_that_came_as_text_are_numbers():
    X, y = check_fit_data(BaseEstimator(), [["1", "2"]], ["3"], y_numeric=True)
    assert X.dtype == y.dtype == np.float64
    assert (X.tolist(), y.tolist()) == ([[1.0, 2.0]], [3.0])


def test_text_in_y_is_said_of_y():
    X = pd.DataFrame({"age": [1.0, 2.0], "id": ["a", "b"]})
    for y in (["low", "high"], np.array([1.0, "high"], dtype=object), pd.Series(["low", "high"])):
        with pytest.raises(ValueError, match=r"^y could not be converted to numeric values.*\.$"):
            check_fit_data(BaseEstimator(), X[["age"]], y, y_numeric=True)
        with pytest.raises(ValueError, match=r"^y could not be converted to numeric values.*\.$"):
            check_fit_data(BaseEstimator(), X, y, dtype=None, y_numeric=True)  # identifiers may be text


def test_errors_of_other_kinds_name_no_columns():
    text = pd.DataFrame({"age": [1.0, 2.0], "region": ["north", "south"]})
    with pytest.raises(ValueError, match="NaN") as caught:
        check_fit_data(BaseEstimator(), pd.DataFrame({"age": [1.0, np.nan], "digits": ["1", "2"]}))
    assert "Text" not in str(caught.value)
    with pytest.raises(ValueError, match="unique column names") as caught:  # a name stands for both of two columns
        check_fit_data(BaseEstimator(), pd.DataFrame([[1.0, 2.0]], columns=["age", "age"]))
    assert "Text" not in str(caught.value)
    with pytest.raises(ValueError, match="Input y contains NaN") as caught:
        check_fit_data(BaseEstimator(), text, [1.0, np.nan], dtype=None, y_numeric=True)
    assert "Text" not in str(caught.value)
    with pytest.raises(ValueError, match="NaN") as caught:  # a missing identifier
        check_fit_data(BaseEstimator(), text.assign(age=[1.0, np.nan]), dtype=None)
    assert "Text" not in str(caught.value)
    with pytest.raises(ValueError, match="inconsistent numbers of samples") as caught:
        check_fit_data(BaseEstimator(), text, [1.0], dtype=None)
    assert "Text" not in str(caught.value)


def test_columns_in_another_order_are_no_matter_of_text():
    fitted = Plain()
    fitted.mean_ = np.ones(2)
    check_fit_data(fitted, pd.DataFrame({"a": [1.0], "b": [2.0]}))
    with pytest.raises(ValueError, match="feature names should match") as caught:
        check_new_data(fitted, pd.DataFrame({"b": ["x"], "a": [1.0]}), method="transform")
    assert "Text" not in str(caught.value)


@pytest.mark.parametrize(
    ("X", "y"),
    [
        (np.array([[1.0, "secret7731"]], dtype=object), None),
        (np.array([[7731j, 1.0]]), None),
        (np.array([1.0, 7731.0]), None),
        (np.array(7731.0), None),
        (np.ones((1, 1)), [7731j]),
        (np.ones((1, 1)), ["secret7731"]),
    ],
    ids=["text", "complex", "one dimension", "none", "complex y", "text in y"],
)
def test_no_error_shows_a_cell(X, y):
    with pytest.raises(ValueError) as caught:
        check_fit_data(BaseEstimator(), X, *([] if y is None else [y]), **({} if y is None else {"y_numeric": True}))
    assert "7731" not in str(caught.value)
    assert caught.value.__cause__ is None  # a traceback does not show it either
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_array, sp.coo_array])
def test_refusing_sparse_rows_names_a_remedy(form):
    X = form(np.eye(3))
    with pytest.raises(TypeError, match=r"Sparse data was passed for X.*TruncatedSVD.*X\.toarray\(\)"):
        check_fit_data(Plain(), X)
    assert sp.issparse(check_fit_data(Plain(), X, accept_sparse="csr"))


def test_numbers_of_draws_are_integers_and_no_bools():
    assert is_integer(np.int64(2))
    assert is_integer(0, 0)
    assert check_count(np.int32(3), "n_samples", "sample") == 3
    for value in (True, np.True_, 0, -1, 2.0, "2", None, [2]):
        assert not is_integer(value)
        with pytest.raises(ValueError, match=r"'n_samples' parameter of sample must be an int in the range \[1, inf\)"):
            check_count(value, "n_samples", "sample")
