"""Validation of labels for metrics."""

import numpy as np
from sklearn.utils import column_or_1d


def check_labels(y, name: str) -> np.ndarray:
    """Return labels as an array (n_samples,); refuse empty arrays, and missing or infinite labels."""
    y = column_or_1d(y)
    if not len(y):
        raise ValueError(f"{name} has n_samples=0. Pass at least one label.")
    missing = np.flatnonzero(_is_missing(y))
    if len(missing):
        raise ValueError(
            f"{name} has {len(missing)} missing or infinite values, the first at position {missing[0]}. Pass a label "
            "for each row, or drop these rows."
        )
    return y


def _is_missing(y):
    if y.dtype.kind in "fc":
        return ~np.isfinite(y)
    if y.dtype.kind in "mM":
        return np.isnat(y)
    if y.dtype.kind != "O":
        return np.zeros(len(y), dtype=bool)
    return np.array([label is None or not _equals_itself(label) or label in (np.inf, -np.inf) for label in y])


def _equals_itself(label):
    """Return False for NaN, NaT and NA of pandas."""
    try:
        return bool(label == label)
    except TypeError:  # whether NA equals NA is NA
        return False
