"""Validation keeps float32 and float64, and says what a tensor on a GPU needs."""

import numpy as np
import pytest
import torch
from sklearn import config_context
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from sklowrank._core.validation import check_fit_data, check_new_data


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


def test_a_tensor_elsewhere_without_dispatch_is_refused_with_the_cure():
    with pytest.raises(TypeError, match=r"X\.cpu\(\).*array_api_dispatch"):
        check_fit_data(Plain(), torch.ones(3, 2, device="meta"))


def test_a_tensor_on_the_cpu_without_dispatch_is_taken_as_numpy():
    assert isinstance(check_fit_data(Plain(), torch.ones(3, 2, device="cpu")), np.ndarray)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_columns_of_text_are_named(library):
    frames = pytest.importorskip(library)
    table = frames.DataFrame({"age": [1.0, 2.0], "region": ["north", "south"], "site": ["a", None]})
    with pytest.raises(ValueError, match=r"Text is in the columns \['region', 'site'\].*OneHotEncoder"):
        check_fit_data(BaseEstimator(), table)


def test_errors_of_other_kinds_name_no_columns():
    pd = pytest.importorskip("pandas")
    with pytest.raises(ValueError, match="NaN") as caught:
        check_fit_data(BaseEstimator(), pd.DataFrame({"age": [1.0, np.nan], "digits": ["1", "2"]}))
    assert "Text" not in str(caught.value)
    with pytest.raises(ValueError, match="unique column names") as caught:  # a name stands for both of two columns
        check_fit_data(BaseEstimator(), pd.DataFrame([[1.0, 2.0]], columns=["age", "age"]))
    assert "Text" not in str(caught.value)
