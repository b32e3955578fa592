"""From the user's parameters, coordinates and responses to the problem that the solver works on."""

import math
from typing import NamedTuple

import numpy as np
import torch
from sklearn.utils import column_or_1d

from .._core.rows import row_weights, rows_of
from .._core.validation import check_fit_data, is_integer
from ._state_space import ORDERS, Process

_MOST_TUCKER = 256  # entries of a core up to which "auto" learns it
_MOST_COLUMNS = 6
_MOST_ENTRIES = 4096  # of any core: its covariance has 128 MiB
_ALIKE = 1e-14  # y that varies by less, relative to its mean, is constant


class TuckerOptions(NamedTuple):
    """Parameters that the solver reads; checked, those of modes are lists of one value for each."""

    rank: list[int]
    core: str
    kernel: list[str]
    length_scale: list[float]
    signal_variance: float
    categorical_features: list[bool]
    fit_intercept: bool
    optimize_hyperparameters: bool
    noise_prior: tuple[float, float]
    damping: float
    n_init: int
    batch_size: int | str

    @property
    def cp(self) -> bool:
        return self.core == "cp"


class Grid(NamedTuple):
    """The distinct coordinates of a mode."""

    points: torch.Tensor  # (T,), from 0 to 1; labels as they are
    gaps: torch.Tensor  # (T,) to the point before, infinite for the first and for labels
    labels: bool
    process: Process

    @property
    def smooth(self) -> bool:
        """Whether there is a length scale to be learned."""
        return len(self.points) > 1 and not self.labels


class Cells(NamedTuple):
    """Distinct rows, and what is known of each."""

    codes: torch.Tensor  # (n, K), positions in the grids
    weight: torch.Tensor  # (n,)
    y: torch.Tensor  # (n,), means
    order: list[torch.Tensor]  # of each mode, rows sorted by its coordinate
    total_weight: float
    squares: float  # weighted sum of the squares of all y, not of the means


class TuckerProblem(NamedTuple):
    """Rows in the units of the solver, and by what they were brought there."""

    grids: list[Grid]
    cells: Cells
    options: TuckerOptions
    values: list[torch.Tensor]  # distinct coordinates of each mode, in the user's units
    low: torch.Tensor  # (K,), coordinates are (x - low) / span
    span: torch.Tensor
    intercept: float
    scale: float


def check_coordinates(estimator, X, y):
    """Validate X and y; y comes back with one dimension."""
    X, y = check_fit_data(estimator, X, y, y_numeric=True, multi_output=True)
    if y.ndim == 2 and y.shape[1] > 1:
        raise ValueError(
            f"y has {y.shape[1]} columns; one response is fitted at a time. Wrap the estimator in "
            "sklearn.multioutput.MultiOutputRegressor."
        )
    return X, (column_or_1d(y, warn=True) if y.ndim == 2 else y)


def checked_options(chosen: TuckerOptions, n_features: int) -> TuckerOptions:
    """Return options with one rank, kernel and length scale for each column, a mask of labels, and no "auto" core."""
    rank = _for_each_column("rank", chosen.rank, n_features)
    kernel = [str(name) for name in _for_each_column("kernel", chosen.kernel, n_features)]
    length_scale = [float(length) for length in _for_each_column("length_scale", chosen.length_scale, n_features)]
    if not all(map(is_integer, rank)):
        raise ValueError(f"rank={chosen.rank!r} has an entry that is no int >= 1. Pass one for each column.")
    rank = [int(r) for r in rank]
    if not set(kernel) <= set(ORDERS):
        raise ValueError(f"kernel={chosen.kernel!r} has an unknown entry. Choose from {list(ORDERS)}.")
    if not all(0 < length < math.inf for length in length_scale):
        raise ValueError(f"length_scale={chosen.length_scale!r} has an entry that is not a positive number.")
    prior = tuple(np.ravel(chosen.noise_prior).tolist())
    if len(prior) != 2 or not all(isinstance(p, int | float) and 0 < p < math.inf for p in prior):
        raise ValueError(f"noise_prior={chosen.noise_prior!r} is no pair of positive numbers, such as (1e-3, 1e-3).")
    entries = math.prod(rank)
    core = chosen.core
    if core == "auto":
        core = "tucker" if entries <= _MOST_TUCKER and n_features <= _MOST_COLUMNS else "cp"
    if core == "cp" and len(set(rank)) > 1:
        raise ValueError(f"rank={chosen.rank!r} has unequal entries, but core='cp' needs equal ones. Pass one number.")
    if core == "tucker" and entries > _MOST_ENTRIES:
        raise ValueError(
            f"rank={chosen.rank!r} makes a core of {entries} entries for {n_features} columns; at most {_MOST_ENTRIES} "
            "can be learned. Lower rank, or use core='cp'."
        )
    return chosen._replace(
        rank=rank,
        core=core,
        kernel=kernel,
        length_scale=length_scale,
        noise_prior=prior,
        categorical_features=_labels(chosen.categorical_features, n_features),
    )


def tucker_problem(X, y, sample_weight, chosen: TuckerOptions, ws) -> TuckerProblem:
    """Return grids and distinct cells of validated rows; `ws` is in float64."""
    weight = row_weights(sample_weight, rows_of(X, ws), ws)
    X, y = ws.load(X), ws.load(y).to(ws.dtype)
    weight = torch.ones_like(y) if weight is None else weight
    present = weight > 0
    X, y, weight = X[present], y[present], weight[present]
    grids, values, codes, low, span = [], [], [], [], []
    for k in range(X.shape[1]):
        column, place = torch.unique(X[:, k], return_inverse=True)
        labels = chosen.categorical_features[k]
        grid, start, length = _grid(column, Process(chosen.kernel[k], chosen.rank[k], chosen.signal_variance), labels)
        grids.append(grid), values.append(column), codes.append(place), low.append(start), span.append(length)
    y, intercept, scale = _scaled(y, weight, chosen.fit_intercept)
    cells = _merged(torch.stack(codes, 1), y, weight)
    return TuckerProblem(grids, cells, chosen, values, torch.stack(low), torch.stack(span), intercept, scale)


def _grid(column, process, labels):
    """Return the grid of a column's distinct values, and by what they are rescaled: start and range."""
    nothing = column.new_full((1,), torch.inf)
    if labels:
        process = process._replace(kernel="matern12")  # of no memory: a state is the value itself
        return Grid(column, nothing.expand(len(column)), True, process), column.new_zeros(()), column.new_ones(())
    span = column[-1] - column[0] if len(column) > 1 else column.new_ones(())
    points = (column - column[0]) / span
    return Grid(points, torch.cat([nothing, points.diff()]), False, process), column[0], span


def _scaled(y, weight, centred):
    """Return y with mean square one, and the intercept and the scale that it was divided by."""
    size = y.abs().amax()
    size = size if bool(size > 0) else torch.ones_like(size)
    y, share = y / size, weight / weight.sum()
    mean = share @ y if centred else y.new_zeros(())
    y = y - mean
    unit = (share @ y.square()).sqrt()
    unit = unit if bool(unit > _ALIKE * mean.abs()) else torch.ones_like(unit)
    return y / unit, float(mean * size), float(unit * size)


def _merged(codes, y, weight) -> Cells:
    """Return distinct rows of codes with their mean y and sum of weights."""
    place = codes[:, 0]
    for k in range(1, codes.shape[1]):  # a key below rows times values each time
        _, place = torch.unique(place * (codes[:, k].max() + 1) + codes[:, k], return_inverse=True)
    n = int(place.max()) + 1
    cells = codes.new_zeros(n, codes.shape[1])
    cells[place] = codes  # equal rows write the same
    total = weight.new_zeros(n).index_add_(0, place, weight)
    mean = weight.new_zeros(n).index_add_(0, place, weight * y) / total
    order = [torch.argsort(cells[:, k], stable=True) for k in range(codes.shape[1])]
    return Cells(cells, total, mean, order, float(weight.sum()), float(weight @ y.square()))


def _for_each_column(name, value, n_features):
    """Return one value for each column."""
    if isinstance(value, str) or np.ndim(value) == 0:
        return [value] * n_features
    if len(value) != n_features:
        raise ValueError(
            f"{name}={value!r} has {len(value)} entries for X with {n_features} columns. Pass one for each column, or "
            "one for all."
        )
    return list(value)


def _labels(chosen, n_features):
    """Return for each column whether its values are labels."""
    columns = np.asarray([] if chosen is None else chosen)
    if columns.dtype.kind == "b":
        if columns.shape != (n_features,):
            raise ValueError(
                f"categorical_features is a mask of shape {columns.shape} for X with {n_features} columns. Pass one "
                "entry for each column, or indices."
            )
        return columns.tolist()
    known = columns.ndim == 1 and (columns.size == 0 or columns.dtype.kind in "iu")
    if not known or any(not 0 <= k < n_features for k in columns.tolist()):
        raise ValueError(
            f"categorical_features={chosen!r} names a column that X does not have. Pass indices from 0 to "
            f"{n_features - 1}, or a mask."
        )
    return np.isin(np.arange(n_features), columns).tolist()
