"""Parameters in units of X that are known without looking at private rows: bounds, bandwidths, centres."""

import numpy as np

from .._core.rows import column_ends
from .._core.warn import warn
from ._accountant import PrivacyLeakWarning
from ._private_rows import without_cells

EXTREME = 1e150  # magnitudes of bounds and widths in units of X, above which squares overflow


def read_bounds(bounds, rows, needed: bool, what: str):
    """Return (lowest, highest) of each column, public or read from rows with a warning; None where not needed."""
    if bounds is None and not needed:
        return None
    d = rows.shape[1]
    if bounds is None:
        warn(
            f"{what} needs bounds, and none were given: they are read from the private rows, which reveals the rows at "
            "the ends. Pass bounds=(lowest, highest) that you know without looking.",
            PrivacyLeakWarning,
        )
        low, high = (end.cpu().numpy() for end in without_cells(column_ends, rows))
        if not (np.maximum(np.abs(low), np.abs(high)) <= EXTREME).all():
            raise ValueError(f"X has columns beyond {EXTREME:g}, where squares overflow. Rescale them, or pass bounds.")
        return low, np.where(high - low >= 1 / EXTREME, high, low + np.maximum(1.0, 1e-9 * np.abs(low)))
    try:
        low, high = bounds
    except (TypeError, ValueError):
        raise ValueError(f"bounds={bounds!r} has to be a pair (lowest, highest).") from None
    low, high = public_numbers("bounds", low, d), public_numbers("bounds", high, d)
    if not (low < high).all():
        raise ValueError("bounds has to be (lowest, highest), finite, with lowest < highest in every column.")
    if not (high - low >= 1 / EXTREME).all():
        raise ValueError(
            f"bounds are less than {1 / EXTREME:g} apart in some column. Rescale the column, or widen them."
        )
    return low, high


def public_numbers(name: str, values, n_features: int) -> np.ndarray:
    """Return the numbers of a parameter, one for each column: (n_features,), finite, in float64.

    Raises
    ------
    ValueError
        If they are no finite real numbers of moderate size, one or one for each column.
    """
    wanted = f"finite real numbers: one, or one for each of {n_features} columns"
    try:
        given = np.asarray(values)
        numbers = given.astype(np.float64) if given.dtype.kind in "fiubO" else None
    except (TypeError, ValueError, OverflowError):
        numbers = None
    if numbers is None or numbers.shape not in ((), (1,), (n_features,)) or not np.isfinite(numbers).all():
        raise ValueError(f"{name}={values!r} has to hold {wanted}.")
    if not (np.abs(numbers) <= EXTREME).all():
        raise ValueError(f"{name}={values!r} is beyond {EXTREME:g}, where squares overflow. Rescale the columns.")
    return np.array(np.broadcast_to(numbers, (n_features,)))


def read_bandwidth(bandwidth, n_features: int) -> np.ndarray:
    """Return the bandwidth of each column, (n_features,).

    Raises
    ------
    ValueError
        If it would be read from the data, or is no positive number, one or one for each column.
    """
    if isinstance(bandwidth, str):
        raise ValueError(
            f"bandwidth={bandwidth!r} would be chosen by looking at the private rows, which the guarantee does not "
            "cover. Pass a number that you know without looking."
        )
    try:
        widths = public_numbers("bandwidth", bandwidth, n_features)
    except ValueError:
        widths = np.zeros(1)
    if not (widths >= 1 / EXTREME).all():
        raise ValueError(
            f"bandwidth={bandwidth!r} has to be a positive number from {1 / EXTREME:g} to {EXTREME:g}, or one for each "
            f"of {n_features} columns."
        )
    return widths


def warn_outside() -> None:
    """Say that queries were moved."""
    warn(
        "Some queries lie outside the bounds and were moved to their edge. Widen bounds before the fit, or raise "
        "query_margin where there is one.",
        UserWarning,
    )
