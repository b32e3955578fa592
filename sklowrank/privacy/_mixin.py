"""The methods that all private estimators share."""

import threading
import weakref
from typing import Self

from sklearn.utils.validation import check_is_fitted

from .._core.fitted import keep, options, recall
from .._core.workspace import open_workspace
from ._accountant import PrivacySpent
from ._options import PrivacyParameters, privacy_options
from ._sketch import ReleaseCounter, Sketch, are_equal, check_mergeable, described, merge_sketches

_counters: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # from estimators to what they share with clones
_counters_lock = threading.Lock()


class PrivateMixin:
    """Merging, cloning and the record of the guarantee.

    An estimator has `_features()`, which returns the features that its sketch sums.
    """

    @property
    def privacy_spent_(self):
        """The guarantee to each row."""
        return recall(self, PrivacySpent, None)

    def merge(self, other) -> Self:
        """Add the sketch of another holder of rows, none of which are here; equal frequencies are needed.

        Parameters
        ----------
        other : estimator of the same class
            Fitted with the same parameters, classes and `feature_random_state`.

        Returns
        -------
        self : estimator
        """
        check_is_fitted(self)
        check_is_fitted(other)
        if type(self) is not type(other):
            raise ValueError(
                f"Only sketches of the same estimator can be added, {type(self).__name__}, not {type(other).__name__}."
            )
        ws, features = open_workspace(self.sketch_, device=self.device), self._features()
        mine, others = recall(self, Sketch, None), recall(other, Sketch, None)
        check_mergeable(mine, others, same_features=are_equal(features, other._features()))
        sketch = merge_sketches(mine, others)
        return keep(self, ws, sketch, features, **described(sketch, features))

    def _privacy_options(self, former: Sketch | None = None):
        """Read the parameters that all private estimators share, for the first release or one after `former`."""
        counter = self._counter()
        return privacy_options(options(self, PrivacyParameters), former, counter)

    def _counter(self):
        with _counters_lock:
            return _counters.setdefault(self, ReleaseCounter(type(self).__name__))

    def __sklearn_clone__(self):
        clone = super().__sklearn_clone__()
        counter = self._counter()
        with _counters_lock:
            _counters[clone] = counter
        return clone
