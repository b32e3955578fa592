"""Reading rows of identifiers and numbers: by kind of column, or a sparse matrix whose columns are identifiers."""

from numbers import Real
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from sklearn.utils import assert_all_finite
from sklearn.utils.validation import validate_data

from .._core.validation import explained
from .._core.warn import warn
from ._identifier_keys import keys_of, keys_of_integers
from ._identifiers import values_of
from ._reading import numbers_of, prepared, separate

_LARGEST = 1e150  # beyond it squares of numbers are infinite
_LARGEST_CELL = 1e30  # of sparse X, which enters gradients with its square
_EXACT = 2.0**53  # floating numbers beyond it stand for several integers


class Kinds(NamedTuple):
    """What the columns of X hold."""

    identifiers: list[int]  # positions of columns; none where X is sparse
    numeric: list[int]
    sparse: bool  # a column is an identifier, a cell its weight

    def same_form(self, X) -> bool:
        """Return whether X comes in the form of the first rows."""
        return sp.issparse(X) == self.sparse


class Rows(NamedTuple):
    """Rows as keys of identifiers and numbers."""

    keys: np.ndarray  # (n, n_identifier_columns), or (n_cells,) of a sparse matrix
    columns: np.ndarray  # the column of each key: (n_identifier_columns,) or (n_cells,)
    Z: np.ndarray  # (n, n_numeric), float64, as they are
    cells: np.ndarray | None = None  # (n_cells,) weights of identifiers
    starts: np.ndarray | None = None  # (n + 1,): the cells of row i are those from starts[i] to starts[i + 1]

    def __len__(self):
        return len(self.Z)

    def part(self, start, stop):
        """Return consecutive rows."""
        if self.starts is None:
            return Rows(self.keys[start:stop], self.columns, self.Z[start:stop])
        starts = self.starts[start : stop + 1]
        cells = slice(starts[0], starts[-1])
        return Rows(self.keys[cells], self.columns[cells], self.Z[start:stop], self.cells[cells], starts - starts[0])

    def take(self, order):
        """Return rows in another order, or some of them."""
        if self.starts is None:
            return Rows(self.keys[order], self.columns, self.Z[order])
        lengths = np.diff(self.starts)[order]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        cells = np.arange(starts[-1]) + np.repeat(self.starts[:-1][order] - starts[:-1], lengths)
        return Rows(self.keys[cells], self.columns[cells], self.Z[order], self.cells[cells], starts)


def checked_table(estimator, X, *, reset):
    """Return X as scikit-learn's validation passes it: a frame, an array of any type, or a CSR matrix."""
    names = vars(estimator).get("feature_names_in_")
    if not reset and names is None and _plain_integers(X, vars(estimator).get("n_features_in_")):
        return X  # nothing of it could be refused
    if sp.issparse(X):
        X, how = X, {"accept_sparse": "csr", "dtype": [np.float64, np.float32]}
    else:
        X, _, how = prepared(X, None)
    with explained(X, dtype=None):
        return validate_data(estimator, X, reset=reset, **how)


def _plain_integers(X, n_features):
    return type(X) is np.ndarray and X.dtype.kind in "iu" and X.ndim == 2 and X.shape[1] == n_features and len(X) > 0


def kinds_of(X, categorical_features, names) -> Kinds:
    """Return which columns of X are identifiers."""
    if sp.issparse(X):
        return Kinds([], [], True)
    if isinstance(categorical_features, str):
        chosen = [_holds_identifiers(column) for column in separate(X)]
    else:
        chosen = named_columns(categorical_features, X.shape[1], names)
    return Kinds([j for j, yes in enumerate(chosen) if yes], [j for j, yes in enumerate(chosen) if not yes], False)


def _holds_identifiers(column) -> bool:
    """Return whether a column is of another type than floating numbers; one of objects has the type of all of them."""
    dtype = column.dtype if hasattr(column, "dtype") else column.type  # of Arrow
    name, kind = str(dtype).lower(), getattr(dtype, "kind", "")  # which types of Polars and Arrow do not have
    if kind == "f" or name.startswith(("float", "double", "halffloat")):
        return False
    if kind == "c":
        raise ValueError("Complex data not supported: X has complex numbers. Pass real and imaginary parts as columns.")
    if name != "object":
        return True
    return not all(isinstance(value, float | np.floating) for value in column)


def named_columns(categorical_features, n_features, names):
    """Return a mask of the columns that the user has named."""
    wanted = [] if categorical_features is None else list(categorical_features)
    if len(wanted) == n_features and all(isinstance(value, bool | np.bool_) for value in wanted):
        return wanted
    places = [position_of(value, n_features, names, "categorical_features") for value in wanted]
    return [j in places for j in range(n_features)]


def position_of(column, n_features, names, parameter) -> int:
    """Return the position of a column that a parameter names by position or by name."""
    known = [] if names is None else list(names)
    if isinstance(column, str) and column in known:
        return known.index(column)
    if isinstance(column, int | np.integer) and not isinstance(column, bool) and -n_features <= column < n_features:
        return int(column) % n_features
    columns = f", or one of the names {known[:10]}" if known else ""
    raise ValueError(
        f"{parameter} names the column {column!r}, and X has {n_features} columns. Pass positions from 0 to "
        f"{n_features - 1}{columns}."
    )


def rows_of_table(X, kinds: Kinds) -> Rows:
    """Return the rows of a table that was checked."""
    if not kinds.same_form(X):
        first, now = ("sparse", "dense") if kinds.sparse else ("dense", "sparse")
        raise ValueError(f"X is {now}, and was {first} in the first call. Pass it in the same form.")
    if kinds.sparse:
        assert_all_finite(X, input_name="X")
        X = _canonical(X)
        cells = X.data.astype(np.float64)
        columns = X.indices.astype(np.int64)
        if np.abs(cells).max(initial=0.0) > _LARGEST_CELL:
            raise ValueError(f"X contains numbers beyond {_LARGEST_CELL:.0e}, too large for weights. Divide them.")
        return Rows(keys_of(columns, 0), columns, np.empty((X.shape[0], 0)), cells, X.indptr.astype(np.int64))
    if isinstance(X, np.ndarray) and X.dtype.kind == "i" and not kinds.numeric:
        keys = keys_of_integers(X, kinds.identifiers)
        return Rows(keys, np.array(kinds.identifiers, dtype=np.int64), np.empty((len(X), 0)))
    if isinstance(X, np.ndarray) and X.dtype.kind in "biuf" and not kinds.identifiers:
        Z, columns = X.astype(np.float64), {}
    else:
        columns = dict(enumerate(separate(X)))
        Z = _side_by_side([_numbers(columns[j], j) for j in kinds.numeric], len(X), np.float64)
    _check_numbers(Z, [_name_of(columns[j], j) for j in kinds.numeric] if columns else kinds.numeric)
    keys = [_column_keys(columns[j], j) for j in kinds.identifiers]
    return Rows(_side_by_side(keys, len(X), np.int64), np.array(kinds.identifiers, dtype=np.int64), Z)


def _column_keys(column, j):
    """Return the keys of a column of identifiers; what goes wrong with one of them names the column."""
    name = _name_of(column, j)
    if getattr(getattr(column, "dtype", None), "kind", "") == "f":
        values = np.asarray(values_of(column), np.float64)
        rounded = (np.abs(values) >= _EXACT) & np.isfinite(values)
        if rounded.any():
            warn(
                f"Column {name!r} of X holds identifiers as floating numbers, such as {values[rounded][0]:.17g}. "
                "Beyond 2**53 one of them stands for several integers, which share a row. Pass integers, in pandas as "
                "Int64 where values are missing, or text.",
                UserWarning,
            )
    try:
        return keys_of(column, j)
    except TypeError as error:
        raise TypeError(f"Column {name!r} of X: {error} Convert it to text, or leave it out.") from None


def _canonical(X):
    """Return a CSR matrix in which no cell stands twice and none is zero."""
    if not X.has_canonical_format or (X.data == 0).any():
        X = X.copy()
        X.sum_duplicates()
        X.eliminate_zeros()
    return X


def _side_by_side(columns, n_rows, dtype):
    """Return columns as a table in memory of its own; there may be none."""
    table = np.empty((n_rows, len(columns)), dtype)
    for j, column in enumerate(columns):
        table[:, j] = column
    return table


def _numbers(column, j):
    """Return a numeric column as float64; what is missing is NaN."""
    return numbers_of(
        column,
        f"X could not be converted to numeric values: the column {_name_of(column, j)!r} is numeric and holds "
        "something else. Name it in categorical_features where its values are identifiers.",
    )


def _name_of(column, j):
    """Return the name of a column, or its number where it has none."""
    name = getattr(column, "name", None)
    return j if name is None else name


def _check_numbers(Z, names):
    """Refuse what is missing, infinite, or so large that its square is; `names` are those of the columns of Z."""
    if not Z.size:
        return
    try:
        assert_all_finite(Z, input_name="X")
    except ValueError as error:
        column = names[int(np.isfinite(Z).all(axis=0).argmin())]
        raise ValueError(
            f"{str(error).partition(chr(10))[0]} Column {column!r} is numeric, by the first call. Impute the value; "
            "where it is an identifier, name the column in categorical_features: a missing one is an identifier too."
        ) from None
    if max(Z.max(), -Z.min()) > _LARGEST:
        raise ValueError(f"X contains numbers beyond {_LARGEST:.0e}, whose squares are infinite. Divide them.")


def by_column(value, default, n_features, names, parameter) -> np.ndarray:
    """Return a parameter by column (n_features,): one value for all, or a dict of those that are not the default."""
    if not isinstance(value, dict):  # of one number in memory: sparse X may have millions of columns
        return np.broadcast_to(np.float64(default if value is None else value), (n_features,))
    found = np.full(n_features, default, dtype=np.float64)
    for column, at in value.items():
        if not isinstance(at, Real) or isinstance(at, bool) or not at > 0:
            raise ValueError(f"{parameter} gives the column {column!r} the value {at!r}. Pass a number above 0.")
        found[position_of(column, n_features, names, parameter)] = at
    return found
