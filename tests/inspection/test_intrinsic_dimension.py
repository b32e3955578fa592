"""The search for the intrinsic dimension against problems whose dimension is known, and against its own definition."""

import pickle

import numpy as np
import pytest
import torch
from joblib import parallel_config
from sklearn.datasets import load_iris, make_regression
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklowrank.inspection import IntrinsicDimension
from sklowrank.inspection import _intrinsic_dimension_solver as module
from sklowrank.neural import NetworkClassifier, NetworkRegressor, RandomSubspace, SharpnessAware

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def network(**params):
    settings = {"learning_rate": 0.03, "max_iter": 8, "tol": 0, "device": "cpu"}
    return NetworkClassifier((8,), **{**settings, **params})


def iris():
    return load_iris(return_X_y=True)


def measured(scores, **params):
    """Search where the score of a dimension is given by a function of the dimension and of how often it was asked."""
    asked = []

    def score(estimator, dim, seed, X, y, rows, scoring, one_thread):
        asked.append((dim, seed))
        return scores(dim, sum(d == dim for d, _ in asked)), 1000

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_score", score)
        X, y = iris()
        return IntrinsicDimension(network(), refit=False, random_state=0, **params).fit(X, y), asked


# The search


def test_ten_sums_need_ten_numbers():
    """The toy problem of the paper: 1,000 parameters, ten groups whose sums are given."""

    class Sums(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.Parameter(torch.randn(10, 100, dtype=torch.float64))

        def forward(self, x):
            return x @ self.parts.sum(1, keepdim=True)

    X, y = np.eye(10), np.arange(1.0, 11)[:, None]
    net = NeuralNetRegressor(
        Sums, optimizer=torch.optim.LBFGS, lr=1.0, optimizer__max_iter=40, batch_size=10, max_epochs=3, verbose=0
    )
    net.set_params(train_split=None, optimizer__history_size=50, optimizer__tolerance_change=0.0)

    def performance(model, X, y):
        return np.exp(-np.square(model.predict(X) - y).sum())

    every = [(np.arange(10), np.arange(10))]
    params = {"baseline": 1.0, "cv": every, "scoring": performance, "d_min": 7, "n_seeds": 1, "random_state": 0}
    search = IntrinsicDimension(net, **params).fit(X, y)
    assert search.intrinsic_dim_ == 10
    assert search.n_full_parameters_ == 1000
    assert search.score(X, y) > 0.999
    assert search.curve_["mean"][list(search.curve_["d"]).index(9)] < 0.9


@pytest.mark.parametrize(("known", "d_min"), [(1, 1), (2, 1), (3, 1), (37, 1), (100, 7), (999, 1), (1000, 1), (5, 9)])
def test_the_smallest_dimension_within_the_resolution(known, d_min):
    found, asked = measured(lambda dim, times: 1.0 if dim is None or dim >= known else 0.0, d_min=d_min, n_seeds=2)
    assert max(known, d_min) <= found.intrinsic_dim_ <= max(1.1 * known, d_min)
    exact, _ = measured(lambda dim, times: float(dim is None or dim >= known), d_min=d_min, resolution=1e-6)
    assert exact.intrinsic_dim_ == max(known, d_min)
    assert len(asked) == len(set(asked))  # each fit has a seed of its own
    assert (np.diff(found.curve_["d"]) > 0).all()


def test_one_unlucky_seed_is_tried_again_below():
    def scores(dim, times):  # 40 suffices, but its first score is bad
        return 1.0 if dim is None or (dim >= 40 and (dim > 44 or times > 1)) else 0.8

    found, _ = measured(scores, n_seeds=1, share=0.85)
    assert found.intrinsic_dim_ <= 44
    steady, _ = measured(lambda dim, times: 1.0 if dim is None or dim > 44 else 0.8, n_seeds=1, share=0.85)
    assert steady.intrinsic_dim_ > 44


def test_the_mean_over_seeds_decides():
    def scores(dim, times):
        return 1.0 if dim is None or dim >= 50 or (dim >= 20 and times == 1) else 0.0

    found, _ = measured(scores, n_seeds=3)
    assert 50 <= found.intrinsic_dim_ <= 55


def test_a_list_is_tried_as_a_whole():
    found, _ = measured(lambda dim, times: 1.0 if dim is None else dim / 40, search=[40, 10, 30, 38], n_seeds=2)
    assert found.intrinsic_dim_ == 38
    assert list(found.curve_["d"]) == [10, 30, 38, 40]
    assert np.allclose(found.curve_["mean"], [0.25, 0.75, 0.95, 1])
    assert not found.curve_["std"].any()


@pytest.mark.parametrize(("baseline", "target"), [(0.8, 0.72), (-1.0, -1.1), ("direct", 0.45)])
def test_the_target_is_a_share_of_the_baseline(baseline, target):
    found, _ = measured(lambda dim, times: 0.5, baseline=baseline)
    assert np.isclose(found.target_, target)
    assert found.baseline_score_ == (0.5 if baseline == "direct" else baseline)


def test_none_and_a_warning_where_no_dimension_does():
    with pytest.warns(ConvergenceWarning, match=r"no score of target_=0.9 with up to 64 dimensions. Raise d_max"):
        found, _ = measured(lambda dim, times: float(dim is None), d_max=64)
    assert found.intrinsic_dim_ is None
    X, y = iris()
    with pytest.warns(ConvergenceWarning, match="no score of target"):
        fitted = IntrinsicDimension(network(), baseline=2.0, d_max=4, n_seeds=1, random_state=0).fit(X, y)
    assert fitted.best_estimator_.n_parameters_ == 4
    assert fitted.predict(X).shape == y.shape


def test_scores_are_those_of_held_out_rows_with_the_budget_of_the_baseline():
    X, y = iris()
    seen = []

    class Noted(NetworkClassifier):
        def fit(self, X, y, sample_weight=None):
            seen.append((len(X), len(np.unique(y)), self.max_iter, self.random_state, self.training))
            return super().fit(X, y, sample_weight)

    rows = []

    def scoring(model, X, y):
        rows.append((len(X), tuple(np.bincount(y))))
        return model.score(X, y)

    Noted.__init__ = NetworkClassifier.__init__
    search = IntrinsicDimension(Noted((8,), max_iter=3, tol=0), search=[5, 30], scoring=scoring, random_state=0)
    search.fit(X, y)
    assert {part[:3] for part in seen[:-1]} == {(120, 3, 3)}
    assert seen[-1][0] == 150
    assert set(rows) == {(30, (10, 10, 10))}
    seeds = [part[3] for part in seen]
    assert len(set(seeds)) == len(seeds) == 10  # three of the baseline, of each dimension, and the last fit
    dims = [None if part[4] is None else part[4].subspace_dim for part in seen]
    assert dims[:9] == [None] * 3 + [5] * 3 + [30] * 3


def test_folds():
    found, asked = measured(lambda dim, times: 1.0, cv=KFold(4), n_seeds=2)
    assert found.intrinsic_dim_ == 1
    assert len(asked) == 2 * 2 * 4


# What it takes


def test_the_estimator_found():
    X, y = iris()
    estimator = network(training=SharpnessAware(), learning_rate=0.1)
    search = IntrinsicDimension(estimator, share=0.7, n_seeds=1, random_state=0).fit(X, y)
    assert isinstance(estimator.training, SharpnessAware)
    assert estimator.random_state is None
    assert (
        search.best_estimator_.n_parameters_ == search.intrinsic_dim_ == len(search.best_estimator_.weights_["theta"])
    )
    assert search.n_full_parameters_ == 4 * 8 + 8 + 8 * 3 + 3
    assert list(search.classes_) == [0, 1, 2]
    assert search.predict_proba(X).shape == (150, 3)
    assert search.score(X, y) == search.best_estimator_.score(X, y) > 0.6
    again = pickle.loads(pickle.dumps(search))
    assert np.array_equal(again.predict_proba(X), search.predict_proba(X))
    twin = IntrinsicDimension(estimator, share=0.7, n_seeds=1, random_state=0).fit(X, y)
    assert np.array_equal(twin.curve_["mean"], search.curve_["mean"])


def test_a_regressor_in_a_pipeline():
    X, y = make_regression(120, 6, n_informative=3, random_state=0)
    estimator = NetworkRegressor((8,), learning_rate=0.03, max_iter=20, tol=0, device="cpu")
    search = IntrinsicDimension(make_pipeline(StandardScaler(), estimator), n_seeds=1, share=0.8, random_state=0)
    search.fit(X, y)
    assert search.intrinsic_dim_ < 65
    assert search.score(X, y) > 0.5
    assert not hasattr(search, "predict_proba")
    assert not hasattr(search, "classes_")


@pytest.mark.parametrize("pipeline", [False, True])
def test_a_skorch_net(pipeline):
    X, y = iris()
    net = NeuralNetClassifier(
        nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.1,
        max_epochs=8,
        batch_size=32,
        train_split=None,
        iterator_train__shuffle=True,
        verbose=0,
    )
    estimator = make_pipeline(StandardScaler(), net) if pipeline else net
    state = torch.get_rng_state()
    first, second = (
        IntrinsicDimension(estimator, search=[3, 20], n_seeds=2, random_state=0).fit(X.astype(np.float32), y)
        for _ in range(2)
    )
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(first.curve_["mean"], second.curve_["mean"])
    assert first.n_full_parameters_ == 67
    assert first.score(X.astype(np.float32), y) > 0.5
    assert net.callbacks is None


def test_fits_at_a_time_give_what_fits_in_turn_give():
    X, y = iris()
    with parallel_config(backend="threading"):
        one, two = (
            IntrinsicDimension(network(), search=[3, 20], n_seeds=2, n_jobs=jobs, random_state=0).fit(X, y)
            for jobs in (1, 2)
        )
    assert np.array_equal(one.curve_["mean"], two.curve_["mean"])
    assert np.array_equal(one.predict_proba(X), two.predict_proba(X))


@pytest.mark.parametrize(
    "estimator",
    [LogisticRegression(), make_pipeline(StandardScaler(), LogisticRegression()), nn.Linear(2, 2), NetworkClassifier],
)
def test_anything_else_is_refused(estimator):
    X, y = iris()
    with pytest.raises(TypeError, match=r"cannot be trained in a subspace. Pass a NetworkClassifier"):
        IntrinsicDimension(estimator).fit(X, y)


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"share": 0}, "share"),
        ({"baseline": "best"}, "baseline"),
        ({"search": []}, "search"),
        ({"search": [0, 3]}, "search"),
        ({"search": [1.5]}, "search"),
        ({"search": [68]}, "search or d_min has 68 dimensions, but the network has 67 weights"),
        ({"d_min": 5, "d_max": 4}, "d_max=4 is below d_min=5"),
        ({"resolution": 0}, "resolution"),
        ({"n_seeds": 0}, "n_seeds"),
        ({"scoring": lambda model, X, y: np.nan}, "The baseline's score is nan"),
    ],
)
def test_what_is_refused(params, text):
    X, y = iris()
    with pytest.raises(ValueError, match=text):
        IntrinsicDimension(network(max_iter=1), **params).fit(X, y)


def test_without_a_refit_there_is_no_estimator():
    found, _ = measured(lambda dim, times: 1.0)
    assert not hasattr(found, "best_estimator_")
    with pytest.raises(AttributeError, match="predict"):
        found.predict(iris()[0])
    with pytest.raises(NotFittedError):
        IntrinsicDimension(network()).predict(iris()[0])


def test_in_a_search():
    X, y = iris()
    search = GridSearchCV(
        IntrinsicDimension(network(max_iter=2), search=[5, 20], n_seeds=1, random_state=0),
        {"estimator__hidden_layer_sizes": [(4,), (8,)]},
        cv=2,
    ).fit(X, y)
    assert isinstance(search.best_estimator_.best_estimator_.training, RandomSubspace)
