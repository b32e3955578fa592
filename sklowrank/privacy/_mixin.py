"""The methods that all private estimators share."""

import threading
import weakref
from typing import Self

from sklearn.utils.validation import check_is_fitted

from .._core.fitted import keep, options, recall
from .._core.workspace import open_workspace
from ._accountant import PrivacySpent
from ._options import PrivacyParameters, privacy_options
from ._sketch import ReleaseCounter, Sketch, are_equal, described, merge_sketches, not_mergeable

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
        if type(self) is not type(other) or not are_equal(self._features(), other._features()):
            raise not_mergeable()
        ws, features = open_workspace(self.sketch_, device=self.device), self._features()
        sketch = merge_sketches(recall(self, Sketch, None), recall(other, Sketch, None))
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
