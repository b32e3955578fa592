"""Sums of bounded features over private rows, as exact whole numbers.

Features live on a lattice of step 2^-20. What a row adds is a function of that row alone, bit for bit: coordinates are
rounded to whole steps one by one, products of whole numbers below 2^53 are exact in float64 in any order, cosines come
from a table, and sums are of integers that cannot overflow for fewer than 2^40 rows.
That holds for any cell: infinite ones and NaN have a place like all others, and cells of a sparse row that are stored
twice are summed first. So neither the order of rows nor the size of batches nor the device changes a digit, and one row
changes the sums by no more than the norm of its own features. That is what sensitivities rely on.
"""

import math
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix, issparse

STEP = 2.0**-20  # of the lattice
SHRINK = 1 - 2.0**-16  # of features, more than all rounding of floats: norms stay below those of real numbers
TURN = 1 << 27  # whole steps of phase in a full turn
_SHIFT = 11  # of a phase to its place in the table
TABLE = TURN >> _SHIFT
PARTS = 1024  # of a row between the two ends of its bin
_FAR = 1 << 22  # of an entry before rows are moved into the ball, and less for more than 2^18 columns
_COLUMNS = 256  # whose products are summed at once, exactly
_EXACT = 2.0**53  # below which float64 has all whole numbers
_HALF = 1 << 13  # of the digits of a coordinate that is too large for exact products


class Waves(NamedTuple):
    """Features a_k cos(w_k x), a_k sin(w_k x) for k = 1..M, whose frequencies are whole steps of phase.

    The coordinate of a row is the whole number nearest to (x - origin) / unit, less whole multiples of `TURN`, which
    change no phase. With a box, x is moved into it first.
    """

    origin: np.ndarray  # (d,)
    unit: np.ndarray  # (d,)
    steps: np.ndarray  # (d, M) whole numbers of phase steps per unit
    amplitudes: np.ndarray  # (M,) positive
    box: tuple[np.ndarray, np.ndarray] | None = None  # lowest and highest of each column


def block_wave_sums(waves, steps, fastest, tables, amplitudes, n_groups, X, groups):
    """Return the sums of the features of a block of rows by group, in a tuple.

    Sums of whole numbers are below 2^53: exact in any order. `tables` hold cosines and sines in TABLE places of a turn.

    Proof of the sensitivity: the entries of a row are truncated towards zero, so their squares are at most those of
    a_k cos(t_k) and a_k sin(t_k) times 2^20 (1 - 2^-16), t_k being the angle in the table. Hence the 2-norm is at most
    2^20 |a|_2, and the 1-norm 2^20 √2 |a|_1.
    """
    place = _phases(_coordinates(X, waves, steps.device), steps, fastest)
    found = [_entries(table, place, amplitudes) for table in tables]
    if n_groups == 1:
        return (torch.cat([entries.sum(0, dtype=torch.float64) for entries in found])[None].to(torch.int64),)
    zero = torch.zeros(n_groups, steps.shape[1], dtype=torch.float64, device=steps.device)
    return (torch.cat([zero.index_add(0, groups, entries.double()) for entries in found], 1).to(torch.int64),)


def _entries(table, place, amplitudes):
    """Return the entries of the features at these places of a table, whole numbers."""
    entries = table.index_select(0, place.view(-1)).view(place.shape)
    return entries if amplitudes is None else (entries * amplitudes).trunc_()


def _coordinates(X, waves, device):
    """Return rows in whole units within half of `TURN`, in float64; sparse rows stay sparse."""
    if issparse(X):
        part = canonical(X)
        part.data = _turned(torch.from_numpy(part.data) / torch.from_numpy(waves.unit[part.indices])).numpy()
        return part
    part = X.to(device, torch.float64)
    if waves.box is not None:
        part = part.clamp(*(torch.from_numpy(end).to(device) for end in waves.box))
    origin, unit = (torch.from_numpy(value).to(device) for value in (waves.origin, waves.unit))
    return _turned((part - origin) / unit)


def _turned(values):
    """Return values as whole numbers less whole turns, exactly; what is infinite or NaN counts as zero."""
    whole = values.round_()
    return whole.sub_((whole / TURN).round_().mul_(TURN)).nan_to_num_()


def canonical(X) -> csr_matrix:
    """Return a copy of a CSR matrix, in float64, that stores each cell once: what is stored twice is summed."""
    part = csr_matrix((X.data.astype(np.float64), X.indices, X.indptr), shape=X.shape, copy=True)
    part.sum_duplicates()
    return part


def _clipped(whole, values, unit, limit):
    """Return values in units, made whole, up to a limit; NaN counts as zero."""
    with np.errstate(over="ignore", invalid="ignore"):  # a warning would say something about the rows
        return np.nan_to_num(np.clip(whole(values / unit), -limit, limit))


def _phases(whole, steps, fastest):
    """Return the places in the table, (rows, M); where products pass 2^53, from two halves of the digits."""
    values = torch.from_numpy(whole.data) if issparse(whole) else whole
    farthest = float(values.abs().max()) if values.numel() else 0.0
    if farthest * fastest * min(len(steps), _COLUMNS) < _EXACT:
        phase = exact_products(whole, steps)
    else:
        high = (whole / _HALF).floor()
        phase = exact_products(high, steps).mul_(_HALF).add_(exact_products(whole - high * _HALF, steps))
    phase = phase.add_(1 << (_SHIFT - 1))
    return phase.bitwise_right_shift_(_SHIFT).bitwise_and_(TABLE - 1)


def exact_products(whole, steps: torch.Tensor) -> torch.Tensor:
    """Return products of whole numbers, int64, where 256 columns cannot give more than 2^52 in magnitude.

    Then float64 adds them up exactly in any order; what more columns give is added as integers. Random waves have at
    most 2^24 steps, and coordinates of 2^26 are halved to 2^13 first; a sum of phases that passes 63 bits wraps around,
    by whole turns, and its phase is right. A grid has at most 2^27 times 2^20 in all columns together, unit vectors in
    whole steps 2^19 times 2^23.
    """
    total = None
    for start in range(0, len(steps), _COLUMNS):
        columns = slice(start, start + _COLUMNS)
        if issparse(whole):
            product = torch.from_numpy(whole[:, columns] @ steps[columns].cpu().numpy()).to(steps.device)
        else:
            product = whole[:, columns] @ steps[columns]
        product = product.to(torch.int64)
        total = product if total is None else total.add_(product)
    return total


def sizes(groups: torch.Tensor, n_groups: int) -> np.ndarray:
    """Return the numbers of rows of all groups."""
    return torch.bincount(groups, minlength=n_groups).cpu().numpy()


def bin_counts(coordinate: torch.Tensor, n_bins: int) -> torch.Tensor:
    """Return how rows in [0, 1] are shared between the ends of equal bins: (columns, n_bins + 1) numbers of 1024ths.

    A row between two ends counts at both, by its distance from the other: 1024 parts in all.
    """
    columns = coordinate.shape[1]
    place = coordinate * n_bins
    low = place.floor().clamp_(0, n_bins - 1)
    high = ((place - low) * PARTS).round_()
    index = low.to(torch.int64) + (n_bins + 1) * torch.arange(columns, dtype=torch.int64, device=low.device)
    counts = torch.zeros(columns * (n_bins + 1), dtype=torch.float64, device=low.device)
    counts.index_add_(0, index.flatten(), (PARTS - high).flatten())
    counts.index_add_(0, index.flatten() + 1, high.flatten())
    return counts.view(columns, n_bins + 1)


def binned_sums(counts: np.ndarray, amplitudes: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Return the sums of features a_jk cos(pi k u_j) and a_jk sin(pi k u_j), from counts of 1024ths at the ends of
    bins.

    `amplitudes` are (columns, M), `orders` the whole numbers k. The result is (columns, 2 M): cosines, then sines.

    Proof of the sensitivity: a row adds a mean of the features at two ends, whose norms are at most those of a single
    row; the division by 1024 rounds each sum once, by less than one step, and so adds at most one step per entry.
    """
    n_bins = counts.shape[1] - 1
    angle = np.pi / n_bins * ((np.arange(n_bins + 1)[:, None] * orders) % (2 * n_bins))
    tables = [np.cos(angle), np.sin(angle)]
    high, low = np.divmod(counts.astype(np.int64), PARTS << 10)  # so that no product passes 63 bits
    found = []
    for table in tables:
        for much, rest, size in zip(high, low, amplitudes):
            entries = np.trunc(table * (size * (SHRINK / STEP))).astype(np.int64)
            found.append(((much @ entries) << 10) + rest @ entries // PARTS)
    columns = len(counts)
    return np.hstack([np.array(found[:columns]), np.array(found[columns:])])


def ball_sums(rows, centre, unit, groups, n_groups: int, batch_size, box=None) -> np.ndarray:
    """Return the sums of rows (x - centre) / unit, moved into the unit ball, by group: (n_groups, d) whole numbers.

    With a box, the lowest and highest of each column, rows are moved into it first.

    Proof of the sensitivity: entries are truncated towards zero after a division by a norm that is computed from whole
    numbers, and shrunk by more than its rounding, so a row's 2-norm is at most 2^20. The squares of d whole numbers up
    to the root of 2^62 / d add up in 63 bits.
    """
    collect = partial(_sparse_ball_sums if rows.kind == "csr" else _ball_sums, centre, unit, box, n_groups)
    (sums,) = rows.gather(collect, groups, size=32 * rows.shape[1], batch_size=batch_size)
    return sums.cpu().numpy()


def _farthest(n_columns):
    """Return the largest whole number whose squares add up in 63 bits over all columns, at most 2^22."""
    return min(_FAR, math.isqrt((1 << 62) // n_columns))


def _ball_sums(centre, unit, box, n_groups, X, groups):
    """What :func:`ball_sums` returns, of a block."""
    X = X.double()
    low, wide = (torch.from_numpy(value).to(X.device) for value in (centre, unit))
    if box is not None:
        X = X.clamp(*(torch.from_numpy(end).to(X.device) for end in box))
    far = _farthest(X.shape[1])
    whole = ((X - low) / wide / STEP).clamp_(-far, far).trunc_().nan_to_num_()
    length = whole.to(torch.int64).square().sum(1).double().sqrt()
    scale = (SHRINK / STEP / length.clamp(min=1.0)).clamp(max=1.0)
    entries = (whole * scale[:, None]).trunc_().to(torch.int64)
    zero = torch.zeros(n_groups, X.shape[1], dtype=torch.int64, device=X.device)
    return (zero.index_add(0, groups, entries),)


def _sparse_ball_sums(centre, unit, box, n_groups, X, groups):
    """The same of a block of a CSR matrix, whose zeros stay zeros: there is neither a centre nor a box."""
    part = canonical(X)
    whole = _clipped(np.trunc, part.data, unit[part.indices] * STEP, _farthest(part.shape[1]))
    row_of = np.repeat(np.arange(part.shape[0]), np.diff(part.indptr))
    squares = np.zeros(part.shape[0], dtype=np.int64)
    np.add.at(squares, row_of, whole.astype(np.int64) ** 2)
    scale = np.minimum(SHRINK / STEP / np.maximum(np.sqrt(squares.astype(np.float64)), 1.0), 1.0)
    found = np.zeros((n_groups, part.shape[1]), dtype=np.int64)
    np.add.at(found, (groups.cpu().numpy()[row_of], part.indices), np.trunc(whole * scale[row_of]).astype(int))
    return (torch.from_numpy(found),)
