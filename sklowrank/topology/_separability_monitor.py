"""When an embedding in training stops to separate its rows any better."""

from numbers import Real

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state

from .._core.compat import num_samples
from .._core.validation import is_integer
from ._persistence_separability import PersistenceSeparability


class SeparabilityMonitor:
    """Watch the separability of the same rows over versions of their embedding, and say when it stops rising.

    Parameters
    ----------
    estimator : estimator, Pipeline or None, default=None
        Estimator whose `score_` after `fit` is the score of a version of the rows; of a pipeline that of the last step.
        None is :class:`PersistenceSeparability` with its defaults. Copies of it are fitted, with one seed for all
        updates, so that the same rows are drawn.
    patience : int, default=5
        Number of updates without progress after which to stop.
    tol : float, default=0.01
        By how much the best of the last `patience` scores has to exceed the best of those before them to count as
        progress.

    Attributes
    ----------
    history_ : list of float
        The scores of all updates.
    best_index_ : int
        Position of the best score; of the first one, where several are equal.

    See Also
    --------
    PersistenceSeparability : The score.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.topology import SeparabilityMonitor
    >>> rng = np.random.default_rng(0)
    >>> group, noise = rng.integers(3, size=200), rng.normal(size=(200, 8))
    >>> monitor = SeparabilityMonitor(patience=2)
    >>> spreads = [0.0, 3.0, 6.0, 6.0, 6.0]
    >>> [monitor.update(noise + spread * np.eye(8)[group]) for spread in spreads]
    [False, False, False, False, True]
    >>> monitor.best_index_
    2
    """

    history_: list[float]
    best_index_: int

    def __init__(self, estimator: BaseEstimator | None = None, *, patience: int = 5, tol: float = 0.01):
        self.estimator = estimator
        self.patience = patience
        self.tol = tol

    def update(self, X) -> bool:
        """Score a version of the rows, and return whether to stop.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows in their present version: as many as in all updates, and in the same order.

        Returns
        -------
        stop : bool
            True where the last `patience` scores bring no progress.

        Raises
        ------
        ValueError
            If `patience` or `tol` is not what it has to be, or the number of rows is another one.
        """
        if not hasattr(self, "history_"):
            self._begin()
        n_samples = num_samples(X)
        if self.history_ and n_samples != self._n_samples:
            raise ValueError(
                f"X has n_samples={n_samples}, but the first update had n_samples={self._n_samples}. Pass the same "
                "rows at each update, or begin a new monitor."
            )
        self.history_.append(_score(clone(self._scorer).fit(X)))
        self._n_samples = n_samples
        self.best_index_ = int(np.argmax(self.history_))
        before, last = self.history_[: -self.patience], self.history_[-self.patience :]
        return bool(before) and max(last) - max(before) < self.tol

    def _begin(self):
        """Check the parameters, and draw the seed of all updates."""
        if not is_integer(self.patience):
            raise ValueError(f"patience={self.patience!r} has to be an int of at least 1.")
        if not isinstance(self.tol, Real) or not self.tol >= 0:
            raise ValueError(f"tol={self.tol!r} has to be a number of at least 0.")
        scorer = PersistenceSeparability() if self.estimator is None else clone(self.estimator)
        for name, value in sorted(scorer.get_params().items(), key=lambda item: item[0]):
            if name == "random_state" or name.endswith("__random_state"):
                seed = check_random_state(value).randint(np.iinfo(np.int32).max)
                scorer.set_params(**{name: int(seed)})
        self._scorer, self.history_ = scorer, []


def _score(fitted):
    """Return the score of a fitted estimator, or of the last step of a pipeline."""
    last = fitted[-1] if isinstance(fitted, Pipeline) else fitted
    if not hasattr(last, "score_"):
        raise ValueError(
            f"estimator={last!r} has no score_ after fit. Pass PersistenceSeparability, or a pipeline that "
            "ends with it."
        )
    return last.score_
