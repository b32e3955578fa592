"""Scores of a network that is trained in random subspaces, and the search for the smallest one that does."""

import math
import warnings
from contextlib import nullcontext

import numpy as np
from joblib import effective_n_jobs
from sklearn.base import clone, is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils import check_random_state, indexable
from sklearn.utils.parallel import Parallel, delayed
from skorch import NeuralNet
from threadpoolctl import threadpool_limits

from .._core.validation import is_integer, on_host
from .._nets.randomness import fixed_randomness
from ..neural import RandomSubspace
from ._wrapped_network import last_step, rows_at

_NAME = "random_subspace"  # of the callback
_HELD_OUT = 0.2


def listed_dims(search, d_min, d_max):
    """Return the dimensions of a list in order; None where they are searched."""
    if isinstance(search, str):
        if d_max is not None and d_max < d_min:
            raise ValueError(f"d_max={d_max} is below d_min={d_min}. Raise d_max.")
        return None
    dims = sorted(set(search))
    if not dims or not all(map(is_integer, dims)):
        raise ValueError(f"search={search!r} has to be 'bisect' or a list of integers >= 1.")
    return [int(d) for d in dims]


class ScoredDims:
    """Scores of the estimator on held-out rows, by the dimension of the subspace."""

    def __init__(self, search, X, y):
        X, y = indexable(X, y)
        self.estimator, self.scoring, self.n_jobs = search.estimator, search.scoring, search.n_jobs
        self.n_seeds, self.X, self.y = search.n_seeds, X, y
        self.random_state = check_random_state(search.random_state)
        self.splits = _splits(search.cv, X, y, is_classifier(self.estimator), self.random_state)
        self.scores: dict[int, list[float]] = {}
        self.n_full = 0

    def direct(self):
        """Return the mean score of ordinary training."""
        return float(np.mean(self._run(None)))

    def mean(self, dim):
        """Return the mean score so far."""
        return float(np.mean(self.scores[dim])) if dim in self.scores else self.again(dim)

    def again(self, dim):
        """Score with new seeds, and return the mean of all scores of the dimension."""
        if 0 < self.n_full < dim:
            raise ValueError(f"search or d_min has {dim} dimensions, but the network has {self.n_full} weights.")
        self.scores.setdefault(dim, []).extend(self._run(dim))
        return float(np.mean(self.scores[dim]))

    def curve(self):
        """Return the means and standard deviations of all dimensions, in order."""
        dims = sorted(self.scores)
        return {
            "d": np.array(dims),
            "mean": np.array([np.mean(self.scores[d]) for d in dims]),
            "std": np.array([np.std(self.scores[d]) for d in dims]),
        }

    def fitted(self, dim):
        """Return the estimator fitted to all rows."""
        seed = self._seed()
        with _drawing(self.estimator, seed):
            return _fit(self.estimator, dim, seed, self.X, self.y)

    def _seed(self):
        return int(self.random_state.randint(np.iinfo(np.int32).max))

    def _run(self, dim):
        """Return a score for each seed and fold."""
        several = effective_n_jobs(self.n_jobs) > 1
        seeds = [self._seed() for _ in range(self.n_seeds)]
        found = Parallel(n_jobs=self.n_jobs)(
            delayed(_score)(self.estimator, dim, seed, self.X, self.y, rows, self.scoring, several)
            for seed in seeds
            for rows in self.splits
        )
        self.n_full = found[0][1]
        return [score for score, _ in found]


def _splits(cv, X, y, classifier, random_state):
    """Return pairs of rows that are fitted and scored."""
    targets = on_host(y)
    if cv is not None:
        return list(check_cv(cv, targets, classifier=classifier).split(np.zeros(len(targets)), targets))
    n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
    if n_rows < 2:
        raise ValueError(f"Found array with {n_rows} sample(s), while a minimum of 2 is required to hold rows out.")
    order = random_state.permutation(n_rows)
    if classifier:
        codes = np.unique(np.asarray(targets).ravel(), return_inverse=True)[1]
        order = order[np.argsort(codes[order], kind="stable")]
    count = min(max(1, round(_HELD_OUT * n_rows)), n_rows - 1)
    held_out = order[((np.arange(count) + 0.5) * n_rows / count).astype(int)]
    return [(np.setdiff1d(order, held_out), held_out)]


def _score(estimator, dim, seed, X, y, rows, scoring, one_thread):
    """Return the score of a fit on held-out rows, and the number of weights of the network."""
    fitted, held_out = rows
    with warnings.catch_warnings(), threadpool_limits(1 if one_thread else None), _drawing(estimator, seed):
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = _fit(estimator, dim, seed, rows_at(X, fitted), rows_at(y, fitted))
        score = check_scoring(model, scoring)(model, rows_at(X, held_out), rows_at(y, held_out))
    return float(score), _n_full(model)


def _fit(estimator, dim, seed, X, y):
    """Return a copy that is fitted in a subspace; without a dimension, by ordinary training."""
    rule = None if dim is None else RandomSubspace(dim)
    model = clone(estimator)
    last = last_step(model)
    if not isinstance(last, NeuralNet):
        last.set_params(training=rule, random_state=seed)
        return model.fit(X, y)
    if rule is not None:
        last.set_params(callbacks=[*(last.callbacks or []), (_NAME, rule)])
    return model.fit(X, y)


def _drawing(estimator, seed):
    """Let a skorch net draw from torch's global generators in the block, and leave them as they were."""
    return fixed_randomness(seed).scope() if isinstance(last_step(estimator), NeuralNet) else nullcontext()


def _n_full(model):
    last = last_step(model)
    if isinstance(last, NeuralNet):
        return sum(p.numel() for p in last.module_.parameters() if p.requires_grad)
    return last.n_dense_parameters_


def bisected(scored, target, d_min, d_max, resolution):
    """Return the smallest dimension that reaches a target, up to a relative width; None where the largest fails."""
    passed, failed = d_min, 0
    while scored.mean(passed) < target:
        most = scored.n_full if d_max is None else min(d_max, scored.n_full)
        if passed >= most:
            return None
        failed, passed = passed, min(2 * passed, most)
    repeated = set()
    while failed:
        while passed - failed > 1 and passed > (1 + resolution) * failed:
            middle = min(max(round(math.sqrt(failed * passed)), failed + 1), passed - 1)
            if scored.mean(middle) < target:
                failed = middle
            else:
                passed = middle
        if failed in repeated or scored.again(failed) < target:
            return passed
        repeated.add(failed)
        passed, failed = failed, max((d for d in scored.scores if d < failed and scored.mean(d) < target), default=0)
    return passed
