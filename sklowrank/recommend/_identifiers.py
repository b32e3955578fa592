"""Identifiers of rows and columns: numbers, text, dates, mixtures of them; kept as they are and found again exactly.

An array of identifiers has one type where all of them have it, and holds objects else: nothing is converted on the way
that could make two identifiers equal. Numbers are the same identifier where their values are equal (1, 1.0 and True);
values of different kinds (1 and "1") never are.
"""

import datetime
import itertools
import numbers

import numpy as np

from .._core.warn import warn

_INT64, _UINT64 = np.iinfo(np.int64), np.iinfo(np.uint64)
_KINDS = {**dict.fromkeys("biuf", "numbers"), "U": "text", "S": "bytes", "M": "dates", "m": "durations"}
_CLASSES = {  # of objects; the first that fits
    "text": str,
    "bytes": bytes,
    "durations": datetime.timedelta | np.timedelta64,
    "numbers": numbers.Number | np.bool_,
}


def values_of(column):
    """Return a column of a frame, a series, an array or a list as a one-dimensional array, each value as it is."""
    if not hasattr(column, "to_numpy"):
        return column if isinstance(column, np.ndarray) else _plain(column)
    if (
        getattr(column, "null_count", None) is not None
    ):  # Polars and Arrow would turn integers with missing values into floats
        has_missing = column.null_count() if callable(column.null_count) else column.null_count
        return (
            _objects(column.to_list() if hasattr(column, "to_list") else column.to_pylist())
            if has_missing
            else (column.to_numpy())
        )
    categories = getattr(column.dtype, "categories", None)
    if categories is not None:
        return values_of(column.astype(categories.dtype))
    if column.isna().any():
        return np.asarray(column.astype(object))
    return column.to_numpy()


def _plain(values):
    """Return a list as an array of objects; anything that numpy knows by itself as its array."""
    return _objects(values) if isinstance(values, list | tuple) else np.asarray(values)


def _objects(values):
    array = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):  # at once, numpy would take tuples for further dimensions
        array[i] = value
    return array


def check_identifiers(column, name):
    """Return a column as identifiers; none of them may be missing or infinite."""
    column = values_of(column)
    if column.dtype.kind in "biuUS":
        return column
    if column.dtype.kind in "cV":
        raise ValueError(f"Complex data not supported: the {name} identifiers in X are {column.dtype}.")
    if column.dtype.kind == "f":
        bad = np.flatnonzero(~np.isfinite(column))
    elif column.dtype.kind in "Mm":
        bad = np.flatnonzero(np.isnat(column))
    else:
        bad = np.flatnonzero([_is_missing(value) for value in column])
    if len(bad):
        value = column[bad[0]]
        shown = {"nan": "NaN", "inf": "infinity", "-inf": "infinity"}.get(str(value), str(value))
        raise ValueError(
            f"Input X contains {shown}: the {name} identifiers of {len(bad)} of {len(column)} samples are missing or "
            f"infinite, the first of them in sample {bad[0]}. Leave these samples out, or give them an identifier."
        )
    return as_identifiers(column)


def _is_missing(value):
    if value is None or isinstance(value, str | bytes | int):
        return value is None
    if isinstance(value, float | np.floating):
        return not np.isfinite(value)
    try:
        return bool(value != value)  # NaT, a Decimal's NaN
    except (TypeError, ValueError):  # pandas.NA does not say
        return True


def check_listed(row_ids, known):
    """Return the parameter `row_ids`, a list, as identifiers of rows."""
    flat = isinstance(row_ids, list | tuple) and not any(isinstance(value, list | np.ndarray) for value in row_ids)
    if not flat and np.ndim(row_ids) != 1:  # the values of a list may be tuples
        raise ValueError(f"row_ids has to be a list of identifiers, such as {known[:1].tolist()}.")
    return check_identifiers(row_ids, "row")


def as_identifiers(column):
    """Return an array of one type where the values of an array of objects have it, else the array."""
    if column.dtype.kind not in "OT":
        return column
    values = column.tolist()
    types = set(map(type, values))
    if all(issubclass(t, str) for t in types):
        return _texts(column, values, str, "\0")
    if all(issubclass(t, bytes) for t in types):
        return _texts(column, values, bytes, b"\0")
    if all(issubclass(t, datetime.timedelta | np.timedelta64) for t in types):  # for numpy durations are integers
        return np.array([v.to_timedelta64() if hasattr(v, "to_timedelta64") else np.timedelta64(v) for v in values])
    if all(issubclass(t, int | float | np.integer | np.floating | np.bool_) for t in types):
        return column if np.timedelta64 in types else _numbers(column, values, types)
    dates = all(issubclass(t, datetime.date | np.datetime64) for t in types)
    if dates and all(getattr(value, "tzinfo", None) is None for value in values):
        return np.array([_date(value) for value in values])
    return column.astype(object, copy=False)


def _texts(column, values, kind, end):
    """An array of text, unless numpy would cut what a value ends with, or one long value would swell all others."""
    lengths = [len(value) for value in values]
    swollen = max(lengths, default=0) * len(values) > 1_000_000 + 8 * sum(lengths)
    if swollen or any(value.endswith(end) for value in values):
        return column.astype(object, copy=False)
    return np.array(values, dtype=kind)


def _numbers(column, values, types):
    if types <= {bool, np.bool_}:
        return np.array(values, dtype=bool)
    if all(issubclass(t, float | np.floating) for t in types):
        return np.array(values, dtype=np.float64)
    if any(value != int(value) for value in values):
        exact = all(float(value) == value for value in values)
        return np.array(values, dtype=np.float64) if exact else column.astype(object, copy=False)
    values = [int(value) for value in values]
    low, high = min(values), max(values)
    if _INT64.min <= low and high <= _INT64.max:
        return np.array(values, dtype=np.int64)
    if low >= 0 and high <= _UINT64.max:
        return np.array(values, dtype=np.uint64)
    return _objects(values)


def _date(value):
    return value.to_datetime64() if hasattr(value, "to_datetime64") else np.datetime64(value)


def concat_identifiers(parts):
    """Return arrays of identifiers as one, without loss."""
    kinds = {part.dtype.kind for part in parts}
    if len(kinds) == 1 and np.result_type(*parts).kind in kinds:  # of int64 and uint64 numpy would make floats
        return np.concatenate(parts)
    return as_identifiers(_objects([*itertools.chain.from_iterable(parts)]))


def encode(column, name):
    """Return the sorted distinct identifiers of a column and the position of each value among them.

    Objects are sorted kind by kind.
    """
    if column.dtype.kind == "O":
        return _encode_objects(column, name)
    if column.dtype.kind in "iu" and len(column) and int(column.max()) - int(column.min()) < 4 * len(column):
        return _encode_dense(column)
    return np.unique(column, return_inverse=True)


def _encode_objects(column, name):
    try:
        first = {}
        keys = [key_of(value) for value in column]
        for key, value in zip(keys, column):
            first.setdefault(key, value)
        order = sorted(first, key=lambda key: (_kind(first[key]), key))
    except TypeError:
        raise ValueError(
            f"The {name} identifiers in X cannot be sorted. Pass numbers, text or dates, or values of one type that "
            "can be hashed and compared."
        ) from None
    place = {key: i for i, key in enumerate(order)}
    return _objects([first[key] for key in order]), np.array([place[key] for key in keys], dtype=np.int64)


def key_of(value):
    """What stands for a value where objects are compared: equal for equal numbers, and for equal dates of any class."""
    if isinstance(value, np.datetime64 | datetime.date) and getattr(value, "tzinfo", None) is None:
        return _date(value).astype("datetime64[ns]").astype(np.int64).item(), "date"
    return value.item() if isinstance(value, np.generic) and not isinstance(value, np.timedelta64) else value


def _encode_dense(column):
    """The same for integers from a narrow range, by a table instead of a sort."""
    least = column.min()
    wide = column if column.dtype.itemsize == 8 else column.astype(np.int64)  # the range of an int8 is none itself
    shifted = (wide - wide.min()).astype(np.int64)
    present = np.zeros(int(shifted.max()) + 1, dtype=bool)
    present[shifted] = True
    identifiers = np.flatnonzero(present).astype(wide.dtype) + wide.dtype.type(least)
    return identifiers.astype(column.dtype), (np.cumsum(present) - 1)[shifted]


def locate(identifiers, column, name):
    """Return what :func:`find` does, and warn of values of a kind that none of the identifiers has."""
    known, asked = kinds_of(identifiers), kinds_of(column)
    if asked - known:
        warn(
            f"The {name} identifiers in X are {_listed(asked)}, those seen in fit are {_listed(known)}: identifiers of "
            "another type are unknown. Convert them to the type of fit.",
            UserWarning,
        )
    return find(identifiers, column)


def _listed(kinds):
    return " and ".join(sorted(kinds))


def kinds_of(column):
    """Return the kinds of values in an array of identifiers: a set of "numbers", "text", "dates" and the like."""
    if column.dtype.kind == "O":
        return {_kind(value) for value in column}
    return {_KINDS[column.dtype.kind]} if len(column) else set()


def _kind(value):
    for kind, types in _CLASSES.items():
        if isinstance(value, types):
            return kind
    if isinstance(value, datetime.date | np.datetime64):
        return "dates" if getattr(value, "tzinfo", None) is None else "dates with a time zone"
    return type(value).__name__


def find(identifiers, column):
    """Return the position of each value among sorted identifiers, and their number where it is not one of them."""
    kinds = identifiers.dtype.kind, column.dtype.kind
    if "O" in kinds:
        place = {key_of(value): i for i, value in enumerate(identifiers)}
        return np.array([place.get(key_of(value), len(identifiers)) for value in column], dtype=np.int64)
    if kinds_of(identifiers) != kinds_of(column):
        return np.full(len(column), len(identifiers))
    exact = np.ones(len(column), dtype=bool)
    if kinds[0] in "biuf":
        wide = np.float64 if kinds[0] == "f" else np.uint64 if identifiers.dtype == np.uint64 else np.int64
        identifiers, (column, exact) = identifiers.astype(wide, copy=False), _exactly(column, wide)
    position = np.minimum(np.searchsorted(identifiers, column), len(identifiers) - 1)
    return np.where(exact & (identifiers[position] == column), position, len(identifiers))


def _exactly(values, wide):
    """Return numbers as int64, uint64 or float64, and which of them are equal to what they became."""
    if wide is np.float64:
        converted = values.astype(np.float64)
        exact = np.ones(len(values), dtype=bool)
        if values.dtype.kind in "iu":
            large = np.flatnonzero(np.abs(converted) >= 2.0**53)
            exact[large] = [float(v) == v for v in values[large].tolist()]  # Python compares without rounding
        return converted, exact
    low, high = (_UINT64.min, _UINT64.max) if wide is np.uint64 else (_INT64.min, _INT64.max)
    if values.dtype.kind == "f":
        exact = (values >= low) & (values < high + 1.0) & (values == np.floor(values))
    else:
        ends = np.iinfo(values.dtype) if values.dtype.kind in "iu" else np.iinfo(np.int8)
        exact = np.ones(len(values), dtype=bool)
        if ends.min < low:
            exact &= values >= low
        if ends.max > high:
            exact &= values <= high
    return np.where(exact, values, 0).astype(wide), exact
