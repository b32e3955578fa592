"""Releases without an accountant: an estimator and its clones are one family, of which the second release warns."""

import threading
import weakref

from .._core.warn import warn
from ._accountant import PrivacyWarning

_families = weakref.WeakKeyDictionary()  # from estimators to the numbers of releases of their families
_families_lock = threading.Lock()


class _Family:
    """How many releases an estimator and its clones have made without an accountant."""

    def __init__(self):
        self.n_releases = 0


def keep_family(estimator, clone):
    """Let a clone be of the family of an estimator, and return it."""
    with _families_lock:
        _families[clone] = _families.setdefault(estimator, _Family())
    return clone


def note_unpaid(estimator) -> None:
    """Warn at the second release that an estimator and its clones make without an accountant."""
    with _families_lock:
        family = _families.setdefault(estimator, _Family())
        family.n_releases += 1
        second = family.n_releases == 2
    if second:
        name = type(estimator).__name__
        warn(
            f"{name} and its clones have made a second release without an accountant, as a grid search, a "
            "cross-validation or a second fit does. The costs of releases from the same rows add up, and nothing "
            "limits them. Pass accountant=PrivacyAccountant(epsilon=..., delta=...).",
            PrivacyWarning,
        )
