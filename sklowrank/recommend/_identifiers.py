"""Identifiers of rows and columns: any sortable values, found again by binary search, never an exception."""

import numpy as np


def readable(X):
    """Return a pandas frame with dates or categories as one of objects, which scikit-learn can validate, else X."""
    types = getattr(X, "dtypes", ())
    if hasattr(X, "astype") and any(getattr(t, "kind", "f") not in "biuf" for t in types):
        return X.astype(object)
    return X


def as_identifiers(column):
    """Return one column of X as an array of one type: objects of a common type become numbers or text."""
    if column.dtype.kind != "O":
        return column
    plain = np.asarray(column.tolist())
    return plain if plain.ndim == 1 and plain.dtype.kind != "O" else column


def encode(column, name):
    """Return the sorted distinct identifiers of a column and the position of each value among them."""
    column = as_identifiers(column)
    if column.dtype.kind in "iu" and int(column.max()) - int(column.min()) < 4 * len(column):
        return _encode_dense(column)
    try:
        return np.unique(column, return_inverse=True)
    except TypeError:
        raise ValueError(
            f"The {name} identifiers in X cannot be sorted. Pass identifiers of one type, all numbers or all text, and "
            "none missing."
        ) from None


def _encode_dense(column):
    """The same for integers from a narrow range, by a table instead of a sort."""
    least = column.min()
    wide = column if column.dtype.itemsize == 8 else column.astype(np.int64)  # the range of an int8 is none itself
    shifted = (wide - wide.min()).astype(np.int64)
    present = np.zeros(int(shifted.max()) + 1, dtype=bool)
    present[shifted] = True
    identifiers = np.flatnonzero(present).astype(wide.dtype) + wide.dtype.type(least)
    return identifiers.astype(column.dtype), (np.cumsum(present) - 1)[shifted]


def find(identifiers, column):
    """Return the position of each value among sorted identifiers, and their number where it is not one of them."""
    column = as_identifiers(np.asarray(column))
    if _is_text(column) != _is_text(identifiers) and "O" not in (column.dtype.kind, identifiers.dtype.kind):
        return np.full(len(column), len(identifiers))
    try:
        position = np.searchsorted(identifiers, column)
    except TypeError:  # objects that do not compare: none of them is known
        return np.full(len(column), len(identifiers))
    inside = np.minimum(position, len(identifiers) - 1)
    return np.where(identifiers[inside] == column, inside, len(identifiers))


def _is_text(array):
    return array.dtype.kind in "US"
