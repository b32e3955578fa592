"""The fitted model as a value: stored as plain arrays, not twice, and read again; a new fit replaces a former one."""

import pickle
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator

from sklowrank._core.fitted import (
    fitted_attributes,
    fitted_matrix,
    keep,
    options,
    public_attributes,
    recall,
    unchanged_on_error,
)
from sklowrank._core.workspace import open_workspace


class Scale(NamedTuple):
    mean: torch.Tensor
    unit: float


class Model(NamedTuple):
    bases: list[torch.Tensor]
    scale: Scale
    noise: torch.Tensor | None
    form: str
    parts: list[Scale]


class Estimator(BaseEstimator):
    def __init__(self, rank=2, tol=1e-3):
        self.rank = rank
        self.tol = tol


class Options(NamedTuple):
    rank: int
    tol: float


def model_and_workspace(dtype=np.float64):
    ws = open_workspace(np.zeros((2, 2), dtype=dtype))
    scale = Scale(torch.ones(3, dtype=torch.float64), 2.0)
    return Model([torch.eye(2), torch.ones(3)], scale, None, "free", [scale, scale]), ws


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b.to(a.dtype))
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return a == b


def test_a_model_comes_back_as_it_was():
    model, ws = model_and_workspace()
    estimator = keep(Estimator(), ws, model, form_="free")
    assert same(recall(estimator, Model, ws), model)
    assert same(recall(pickle.loads(pickle.dumps(estimator)), Model, ws), model)
    assert not any(isinstance(value, torch.Tensor | tuple) for value in estimator._fitted.values())


def test_what_an_attribute_holds_is_not_stored_twice():
    model, ws = model_and_workspace()
    estimator = keep(Estimator(), ws, model, bases_=model.bases)
    assert set(estimator._fitted) == set(Model._fields) - {"bases"}
    assert all(isinstance(basis, np.ndarray) for basis in estimator.bases_)
    estimator.bases_[0][:] = 7  # as a user may do
    assert (recall(estimator, Model, ws).bases[0] == 7).all()


def test_models_are_kept_together_and_recalled_one_by_one():
    model, ws = model_and_workspace()
    scale = Scale(torch.ones(2, dtype=torch.float64), 3.0)
    estimator = keep(Estimator(), ws, model, None, scale, mean_=scale.mean)
    assert set(estimator._fitted) == {*Model._fields, "unit"}
    assert same(recall(estimator, Model, ws), model)
    assert same(recall(estimator, Scale, ws), scale)


def test_several_models_are_stored_side_by_side():
    model, ws = model_and_workspace()
    options = Options(3, 0.5)
    estimator = keep(Estimator(), ws, model, options, tol_=options.tol)
    assert same(recall(estimator, Model, ws), model)
    assert recall(estimator, Options, None) == options  # which has no tensor
    assert "tol" not in estimator._fitted


def test_public_attributes_are_those_of_the_fit():
    model, ws = model_and_workspace()
    estimator = keep(Estimator(), ws, model, labels_=torch.zeros(2), n_iter_=3)
    estimator.n_features_in_ = 3
    assert list(public_attributes(estimator)) == ["labels_", "n_iter_"]
    again = keep(estimator, ws, model, **{**public_attributes(estimator), "n_iter_": 4})
    assert again.n_iter_ == 4
    assert again.labels_.tolist() == [0, 0]


def test_a_model_comes_in_the_precision_of_the_workspace():
    model, ws = model_and_workspace(np.float32)
    estimator = keep(Estimator(), ws, model)
    assert recall(estimator, Model, ws).scale.mean.dtype == torch.float32
    assert recall(estimator, Model, ws.exact()).scale.mean.dtype == torch.float64


def test_attributes_of_a_former_fit_vanish():
    model, ws = model_and_workspace()
    estimator = Estimator()
    estimator.n_features_in_ = 3
    keep(estimator, ws, model, labels_=torch.zeros(2), loss_curve_=[1.0])
    estimator._sklearn_output_config = {"transform": "pandas"}
    keep(estimator, ws, labels_=torch.ones(2))
    assert set(vars(estimator)) == {"rank", "tol", "n_features_in_", "_sklearn_output_config", "labels_"}
    assert estimator.labels_.tolist() == [1, 1]


def test_tensors_are_given_back_in_the_users_library():
    _, ws = model_and_workspace()
    found = fitted_attributes(ws, weights_={"a": torch.ones(1)}, bases_=[torch.ones(1)], n_iter_=3, none_=None)
    assert isinstance(found["weights_"]["a"], np.ndarray)
    assert isinstance(found["bases_"][0], np.ndarray)
    assert (found["n_iter_"], found["none_"]) == (3, None)


def test_options_are_the_parameters_with_what_was_resolved():
    assert options(Estimator(rank="auto"), Options, rank=4) == Options(4, 1e-3)


class Defaults(NamedTuple):
    tol: float = 7.0
    passes: int = 5


def test_a_field_that_is_no_parameter_has_its_default():
    assert options(Estimator(), Defaults) == Defaults(1e-3, 5)
    assert options(Estimator(), Defaults, passes=2).passes == 2


class Graph(NamedTuple):
    affinity: csr_array | None
    mean: torch.Tensor


class GraphEstimator(Estimator):
    affinity_ = fitted_matrix("affinity")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_csr_matrices_are_stored_by_their_parts(dtype):
    W = csr_array(np.array([[0, 2.5, 0], [1, 0, 0]], dtype=dtype))
    _, ws = model_and_workspace()
    estimator = pickle.loads(pickle.dumps(keep(GraphEstimator(), ws, Graph(W, torch.ones(2)))))
    assert all(isinstance(part, np.ndarray | list) for part in estimator._fitted["affinity"].values())
    for again in (recall(estimator, Graph, ws).affinity, estimator.affinity_):
        assert again.dtype == dtype
        assert again.format == "csr"
        assert np.array_equal(again.toarray(), W.toarray())


def test_a_matrix_that_was_not_stored_is_no_attribute():
    _, ws = model_and_workspace()
    for estimator in (GraphEstimator(), keep(GraphEstimator(), ws, Graph(None, torch.ones(2)))):
        assert not hasattr(estimator, "affinity_")
        with pytest.raises(AttributeError, match="GraphEstimator has no affinity_: it is not fitted"):
            _ = estimator.affinity_


def test_an_error_leaves_the_estimator_as_it_was():
    estimator = Estimator()

    def interrupted():
        with unchanged_on_error(estimator):
            estimator.rank, estimator.labels_ = 5, [1]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert vars(estimator) == {"rank": 2, "tol": 1e-3}


def test_a_model_that_cannot_be_stored_leaves_the_former_fit():
    model, ws = model_and_workspace()
    estimator = keep(Estimator(), ws, model, labels_=[1])

    class Full:
        def store(self, tensor):
            raise MemoryError

    with pytest.raises(MemoryError):
        keep(estimator, Full(), labels_=torch.ones(2))
    assert estimator.labels_ == [1]
    assert same(recall(estimator, Model, ws), model)
