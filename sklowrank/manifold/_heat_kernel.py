"""The heat kernel of a graph, and distances by its logarithm."""

import math
from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.csgraph import reverse_cuthill_mckee
from scipy.special import gammaln, ive, nbdtrc

from .._math.sparse import csr_tensor

_TINY = np.finfo(np.float64).tiny
_FLOORS = {"euler": _TINY, "chebyshev": 1e-16, "exact": 1e-16}  # the latter two return round-off
_MOST_DENSE = 4000  # rows up to which there may be a dense kernel although a part of it is asked for
_COLUMNS = {"cpu": 16, "cuda": 512}  # columns at once: on a CPU those that its caches hold
_ACCURACY = 1e-7  # relative, of each entry of the kernel
_WEIGHTS = 1024  # of the series that are computed at once
_MOST_SPREAD = 1e10  # t times the largest degree: beyond it the identity is lost in I + t L
_EVEN = 1e-10  # below it, what heat differs by is rounding
TIMES = np.linspace(0.05, 50, 20)


class HeatOptions(NamedTuple):
    """What says how heat spreads, and how distances follow from it."""

    laplacian: str
    heat_solver: str
    n_steps: int
    volume_weight: float


def laplacian_of(affinity: sp.csr_array, kind: str) -> sp.csr_array:
    """Return D - W, or I - D^-1/2 W D^-1/2."""
    degrees = np.asarray(affinity.sum(1)).ravel()
    if kind == "combinatorial":
        return sp.csr_array(sp.diags_array(degrees) - affinity)
    root = sp.diags_array(1 / np.sqrt(degrees))
    return sp.csr_array(sp.eye_array(len(degrees)) - root @ affinity @ root)


def heat_rows(laplacian, weights, t: float, options: HeatOptions, device, columns=None) -> torch.Tensor:
    """Return ``weights @ H``, or some `columns` of it, of the heat kernel H at time t.

    Parameters
    ----------
    laplacian : csr_array of shape (n, n)
        The Laplacian.
    weights : csr_array of shape (n_queries, n)
        Rows of the identity matrix give rows of the kernel, others averages of them.
    t : float
        Diffusion time.
    options : HeatOptions
        By `heat_solver` and `n_steps` the kernel is computed.
    device : torch.device
        Where.
    columns : tensor of int64, default=None
        Columns that are returned.

    Returns
    -------
    rows : tensor of shape (n_queries, n_columns), float64
    """
    n_queries = weights.shape[0]
    if options.heat_solver == "exact":
        return _times(weights, _exact_kernel(laplacian, t, device), columns)
    if options.heat_solver == "euler" and _dense_is_faster(laplacian, n_queries, t / options.n_steps, options.n_steps):
        return _times(weights, _euler_kernel(laplacian, t, options.n_steps, device), columns)
    order = reverse_cuthill_mckee(laplacian, symmetric_mode=True)  # neighbours lie near one another in memory
    ordered, weights = sp.csr_array(laplacian[order][:, order]), sp.csr_array(weights[:, order])
    series = _euler_series if options.heat_solver == "euler" else _chebyshev_series
    apply = series(ordered, t, options.n_steps, device)
    place = torch.from_numpy(np.argsort(order)).to(device)
    place = place if columns is None else place[columns.to(device)]
    out = torch.empty(n_queries, len(place), dtype=torch.float64, device=device)
    width = _COLUMNS[device.type]
    for start in range(0, n_queries, width):
        block = np.ascontiguousarray(weights[start : start + width].toarray().T)
        out[start : start + width] = apply(torch.from_numpy(block).to(device))[place].mT
    return out


def _dense_is_faster(laplacian, n_queries, step, n_steps):
    """Return whether the dense kernel takes less time than the series, by about ten times the operations per second."""
    n = laplacian.shape[0]
    terms = 100 + 4 * n_steps * step * laplacian.diagonal().max()  # as measured; the mean, and far pairs
    return n <= max(_MOST_DENSE, 2 * n_queries) and 14 * n**3 <= 10 * 2 * laplacian.nnz * terms * n_queries


def averages(weights, rows) -> torch.Tensor:
    """Return weights (CSR) times rows (n, k)."""
    return _csr(weights, rows.device) @ rows


def _times(weights, kernel, columns):
    kernel = kernel if columns is None else kernel[:, columns.to(kernel.device)]
    return averages(weights, kernel)


def _csr(matrix, device):
    matrix = sp.csr_array(matrix)
    parts = (torch.from_numpy(part).to(device) for part in (matrix.indptr, matrix.indices, matrix.data))
    indptr, indices, values = parts
    return csr_tensor(indptr.int(), indices.int(), values.double(), matrix.shape)


def _exact_kernel(laplacian, t, device):
    values, vectors = torch.linalg.eigh(torch.from_numpy(laplacian.toarray()).to(device))
    return (vectors * torch.exp(-t * values)) @ vectors.mT


def _euler_kernel(laplacian, t, n_steps, device):
    """Return (I + t/S L)^-S. Nothing is subtracted off the diagonal: entries are exact relative to their own size."""
    system = torch.from_numpy(laplacian.toarray()).to(device).mul_(t / n_steps)
    system.diagonal().add_(1)
    return torch.linalg.matrix_power(torch.cholesky_inverse(torch.linalg.cholesky(system)), n_steps)


def _euler_series(laplacian, t, n_steps, device):
    """Return a function that multiplies by (I + t/S L)^-S, as a series in Q = I - L / max(diag L).

    With p = 1 / (1 + t/S max(diag L)) the power is sum_k C(k + S - 1, k) p^S (1 - p)^k Q^k, weighted by a negative
    binomial distribution. No entry of Q is negative: entries of the sum are exact relative to their own size.
    """
    top = laplacian.diagonal().max()
    walk = _csr(sp.eye_array(laplacian.shape[0]) - laplacian / top, device)
    p = 1 / (1 + t / n_steps * top)
    mean = n_steps * (1 - p) / p

    def apply(block):
        total = torch.zeros_like(block)
        for k, weight in enumerate(_negative_binomial(n_steps, p)):
            block = walk @ block if k else block
            total.add_(block, alpha=weight)
            if k % 16 == 0 and k > mean and bool((weight * block <= _ACCURACY * total).all() & (total > 0).all()):
                break
        return total

    return apply


def _negative_binomial(n, p) -> Iterator[float]:
    """Yield the probabilities of 0, 1, ... failures before the n-th success, until none is left in float64."""
    for start in count(0, _WEIGHTS):
        if start and nbdtrc(start, n, p) < _TINY:
            return
        k = np.arange(start, start + _WEIGHTS)
        binomials = gammaln(k + n) - gammaln(n) - gammaln(k + 1.0)
        yield from np.exp(binomials + n * math.log(p) + k * math.log1p(-p)).tolist()


def _chebyshev_series(laplacian, t, order, device):
    """Return a function that multiplies by a Chebyshev expansion of exp(-t L)."""
    half = float(laplacian.diagonal().max())  # eigenvalues of a Laplacian are at most twice as large
    centred = _csr(laplacian / half - sp.eye_array(laplacian.shape[0]), device)
    orders = np.arange(order + 1)
    coefficients = 2 * (-1.0) ** orders * ive(orders, t * half)
    coefficients[0] /= 2

    def apply(block):
        former, latest = block, centred @ block
        total = coefficients[0] * former + coefficients[1] * latest
        for c in coefficients[2:]:
            former, latest = latest, 2 * (centred @ latest) - former
            total.add_(latest, alpha=float(c))
        return total

    return apply


# Distances


def knee_time(laplacian, rows, options: HeatOptions, device) -> float:
    """Return the time of :data:`TIMES` at the knee of the entropy of heat that starts in some rows.

    The knee is where the curve is farthest from the line between its ends.
    """
    _check_times(TIMES, laplacian)
    chosen = identity_rows(rows, laplacian.shape[0])
    curve = np.array([_entropy(heat_rows(laplacian, chosen, t, options, device)) for t in TIMES])
    chord = np.interp(TIMES, TIMES[[0, -1]], curve[[0, -1]])
    return float(TIMES[np.abs(curve - chord).argmax()])


def _entropy(heat):
    return float(-torch.xlogy(heat.clamp(min=0), heat.clamp(min=0)).sum())


def identity_rows(rows: torch.Tensor, n: int) -> sp.csr_array:
    """Return rows of the identity matrix of size n."""
    rows = rows.cpu().numpy()
    return sp.csr_array((np.ones(len(rows)), rows, np.arange(len(rows) + 1)), shape=(len(rows), n))


class HeatDistances(NamedTuple):
    """Distances to landmarks, and what those of new rows need."""

    distances: torch.Tensor  # (n_landmarks, n)
    diagonals: torch.Tensor  # (n_times, n): H_ii; of rows that are no landmarks a mean of those of landmarks
    kernel: torch.Tensor | None  # (n_landmarks, n): the mean kernel, where it was asked for
    n_clipped: int
    n_vanished: int  # entries between landmarks that float64 cannot represent
    even: bool  # whether rows of the kernel differ by rounding alone


def heat_distances(laplacian, landmarks, times, options: HeatOptions, device, *, with_kernel=False) -> HeatDistances:
    """Return distances of all rows to the landmarks, averaged over diffusion times."""
    _check_times(times, laplacian)
    n, rows = laplacian.shape[0], landmarks.to(device)
    chosen, diagonals, n_clipped, n_vanished, even = identity_rows(landmarks, n), [], 0, 0, False
    distances = kernel = None
    for t, share in zip(times, time_shares(times)):
        heat = heat_rows(laplacian, chosen, t, options, device).clamp_(min=_FLOORS[options.heat_solver])
        between = heat[:, rows]
        between = (between + between.mT) / 2
        heat[:, rows] = between
        if with_kernel:
            kernel = _added(kernel, share * heat)
        own = between.diagonal().clone()
        n_vanished += int((between <= _TINY).sum())
        even |= _is_even(between)
        diagonal = own @ heat / heat.sum(0)
        diagonal[rows] = own
        squares = log_distances(heat, own[:, None], diagonal, t, options.volume_weight)
        squares[torch.arange(len(rows), device=device), rows] = 0
        n_clipped += int((squares[:, rows] < 0).sum())
        distances = _added(distances, squares.clamp_(min=0).sqrt_().mul_(share))
        diagonals.append(diagonal)
    return HeatDistances(distances, torch.stack(diagonals), kernel, n_clipped, n_vanished, even)


def _check_times(times, laplacian):
    """Refuse times for which the kernel cannot be computed."""
    degree, t = float(laplacian.diagonal().max()), max(times)
    if t * degree > _MOST_SPREAD:
        raise ValueError(
            f"The diffusion time t={t:.3g} times the largest degree of the graph, {degree:.3g}, has to be at most "
            f"{_MOST_SPREAD:.0e}: heat would spread evenly over all rows. Pass a smaller t or times, or smaller "
            "affinities for graph='precomputed'."
        )


def _is_even(between):
    """Return whether all H_ij^2 are H_ii H_jj, to which they tend for large times."""
    root = between.diagonal().sqrt()
    return float((between / root).div_(root[:, None]).min()) > 1 - _EVEN


def log_distances(heat, own, others, t, volume_weight):
    """Return the squared dissimilarities of positive kernel entries, in the memory of `heat`; some may be negative."""
    squares = heat.log_().mul_(-4 * t)
    if volume_weight:
        squares += (4 * t * volume_weight) * ((own + others) / 2).log()
    return squares


def time_shares(times):
    """Return the weights of several times, in proportion to 1 - t / sum(t)."""
    if len(times) == 1:
        return [1.0]
    shares = 1 - np.asarray(times) / np.sum(times)
    return list(shares / shares.sum())


def _added(total, part):
    return part if total is None else total.add_(part)


def landmark_heat(laplacian, landmarks, times, options: HeatOptions, device) -> list[torch.Tensor]:
    """Return for each time the heat (n, n_landmarks) of all rows at the landmarks."""
    chosen = identity_rows(landmarks, laplacian.shape[0])
    return [heat_rows(laplacian, chosen, t, options, device).mT.contiguous() for t in times]


def new_heat(laplacian, weights, landmarks, times, options: HeatOptions, device) -> list[torch.Tensor]:
    """Return for each time the heat (n_queries, n_landmarks) of averages of rows by `weights` at the landmarks."""
    return [heat_rows(laplacian, weights, t, options, device, landmarks) for t in times]


def new_distances(heat, own, others, times, options: HeatOptions):
    """Return distances (n_queries, n_landmarks) by heat, a list by times, and the mean heat.

    `own` (n_times, n_queries) and `others` (n_times, n_landmarks) are diagonals of the kernel.
    """
    distances = kernel = None
    for t, share, h, mine, theirs in zip(times, time_shares(times), heat, own, others):
        h = h.clamp(min=_FLOORS[options.heat_solver])
        kernel = _added(kernel, share * h)
        squares = log_distances(h, mine[:, None], theirs, t, options.volume_weight)
        distances = _added(distances, squares.clamp_(min=0).sqrt_().mul_(share))
    return distances, kernel
