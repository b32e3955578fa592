"""The monitor: it stops where the score does, and compares equal rows only."""

import copy
import pickle

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklowrank.topology import PersistenceSeparability, SeparabilityMonitor
from tests.topology.test_persistence_separability import groups


class Given:
    """An estimator whose score is the first cell."""

    def get_params(self, deep=True):
        return {}

    def fit(self, X, y=None):
        self.score_ = float(X[0, 0])
        return self


def stops(scores, **parameters):
    monitor = SeparabilityMonitor(Given(), **parameters)
    return [monitor.update(np.full((3, 1), score)) for score in scores], monitor


@pytest.mark.parametrize("patience", [1, 2, 3])
@pytest.mark.parametrize("tol", [0.0, 0.05, 0.2])
def test_it_stops_where_the_last_scores_bring_no_progress(patience, tol):
    scores = np.random.default_rng(0).random(30).cumsum() % 1
    said, monitor = stops(scores, patience=patience, tol=tol)
    for i, stop in enumerate(said):
        earlier, last = scores[: max(0, i + 1 - patience)], scores[max(0, i + 1 - patience) : i + 1]
        assert stop == (len(earlier) > 0 and last.max() - earlier.max() < tol)
    assert monitor.history_ == list(scores)
    assert monitor.best_index_ == scores.argmax()


def test_groups_that_move_apart_and_stay():
    tables = [groups(spread)[0] for spread in (0, 3, 8, 8, 8)]
    monitor = SeparabilityMonitor(PersistenceSeparability(random_state=0, calibrate=False), patience=2)
    assert [monitor.update(X) for X in tables] == [False, False, False, False, True]
    assert monitor.best_index_ == 2


def test_rows_and_permutations_are_those_of_the_first_update():
    X, _ = groups(3)
    monitor = SeparabilityMonitor(PersistenceSeparability(max_samples=100))
    for _ in range(3):
        monitor.update(X)
    assert len(set(monitor.history_)) == 1
    scorer = PersistenceSeparability(max_samples=100, random_state=3)
    first, second = SeparabilityMonitor(scorer), SeparabilityMonitor(scorer)
    first.update(X)
    second.update(X)
    assert first.history_ == second.history_


def test_another_number_of_rows_is_refused():
    X, _ = groups(3)
    monitor = SeparabilityMonitor()
    monitor.update(X)
    with pytest.raises(ValueError, match=r"n_samples=100.*n_samples=600"):
        monitor.update(X[:100])
    assert len(monitor.history_) == 1
    monitor.update(X[:, :5].tolist())  # of any dimension, and lists too


def test_pickles_and_copies_go_on():
    X, _ = groups(3)
    monitor = SeparabilityMonitor(patience=2)
    monitor.update(X)
    for twin in (pickle.loads(pickle.dumps(monitor)), copy.deepcopy(monitor)):
        twin.update(X)
        assert twin.history_ == monitor.history_ * 2
    assert len(monitor.history_) == 1


@pytest.mark.parametrize("bad", [{"patience": 0}, {"patience": 2.5}, {"tol": -1.0}, {"tol": "no"}, {"tol": np.nan}])
def test_parameters_are_checked_at_the_first_update(bad):
    monitor = SeparabilityMonitor(**bad)
    for _ in range(2):
        with pytest.raises(ValueError, match=next(iter(bad))):
            monitor.update(groups(3)[0])


def test_a_pipeline_is_scored_by_its_last_step_with_one_seed():
    X, _ = groups(3)
    pipe = make_pipeline(StandardScaler(), PersistenceSeparability(max_samples=100))
    monitor = SeparabilityMonitor(pipe)
    for _ in range(3):
        monitor.update(X)
    assert len(set(monitor.history_)) == 1
    with pytest.raises(ValueError, match=r"estimator=StandardScaler.*has no score_ after fit"):
        SeparabilityMonitor(StandardScaler()).update(X)


def test_an_update_that_fails_leaves_no_trace():
    X, _ = groups(3)
    monitor = SeparabilityMonitor()
    with pytest.raises(ValueError, match="NaN"):
        monitor.update(np.full((50, 2), np.nan))
    assert monitor.history_ == []
    monitor.update(X)
    with pytest.raises(ValueError, match="n_samples=50"):
        monitor.update(X[:50])
    assert len(monitor.history_) == 1


def test_a_network_in_training():
    """Stopping loses little of the accuracy of nearest neighbours on hidden states, and gains over the first epoch."""
    X, y = load_digits(return_X_y=True)
    order = np.random.RandomState(0).permutation(len(X))
    X, train, test = X / 16, order[:600], order[600:1000]
    net, monitor, accuracy = MLPClassifier((64,), random_state=0, learning_rate_init=4e-3), SeparabilityMonitor(), []
    for _ in range(30):
        net.partial_fit(X[train], y[train], classes=range(10))
        hidden = np.maximum(X @ net.coefs_[0] + net.intercepts_[0], 0)
        accuracy.append(KNeighborsClassifier(5).fit(hidden[train], y[train]).score(hidden[test], y[test]))
        if monitor.update(hidden[test]):
            break
    assert len(accuracy) < 30
    assert accuracy[-1] > accuracy[0]
    assert accuracy[-1] > max(accuracy) - 0.02
