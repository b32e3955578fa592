"""Heat on a graph of neighbours: affinities, columns of the heat kernel, and distances by the logarithm of it."""

import math
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.csgraph import connected_components, dijkstra, reverse_cuthill_mckee
from scipy.special import gammaln, ive, nbdtrc
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.neighbors import NearestNeighbors

from .._core.warn import warn
from .._math.graphs import csr_from
from .._math.neighbors import farthest_points, nearest_neighbors
from .._math.sparse import csr_tensor

_TIES = 10  # neighbours looked at beyond n_neighbors, among them those at the same distance as the last one
_FLOORS = {"euler": np.finfo(np.float64).tiny, "chebyshev": 1e-16, "exact": 1e-16}  # the latter two return round-off
_DENSE = 8000  # dense algebra takes as long as the series where n is this share of the number of columns
_COLUMNS = {"cpu": 16, "cuda": 512}  # columns at once: on a CPU those that its caches hold
_ACCURACY = 1e-7  # relative, of each entry of the kernel
_MOST_CURVE_ROWS = 200  # whose heat is followed over time to choose the diffusion time
TIMES = np.linspace(0.05, 50, 20)


class HeatOptions(NamedTuple):
    """What says how heat spreads."""

    graph: str
    n_neighbors: int
    decay: float
    laplacian: str
    heat_solver: str
    n_steps: int
    volume_weight: float


class RowGraph(NamedTuple):
    """A connected graph of rows."""

    affinity: sp.csr_array  # (n, n), symmetric, with an empty diagonal
    n_connected: int  # connected components, before they were joined


# The graph


def scaled(rows: Any, like: Any = None) -> Any:
    """Return rows (tensor or CSR) in units in which no square overflows; dense ones are centred.

    Units and centre are those of `like`, the rows of the fit.
    """
    like = rows if like is None else like
    if sp.issparse(rows):
        return rows * (1 / _unit(float(abs(like).max()) if like.nnz else 0.0))
    unit = _unit(float(like.abs().max()))
    return rows / unit - (like / unit).mean(0)


def _unit(largest):
    return 2.0 ** math.frexp(largest)[1] if largest > 0 else 1.0


def find_neighbors(points: Any, n_neighbors: int, queries: Any = None, device: Any = None):
    """Return distances and indices, as :func:`nearest_neighbors` does, of points that may be a CSR matrix."""
    if not sp.issparse(points):
        return nearest_neighbors(points, n_neighbors, queries)
    distances, indices = NearestNeighbors(n_neighbors=n_neighbors).fit(points).kneighbors(queries)
    return torch.from_numpy(distances).to(device), torch.from_numpy(indices.astype(np.int64)).to(device)


def row_graph(points: Any, options: HeatOptions, device: Any) -> RowGraph:
    """Return the graph of nearest neighbours of points (n, d), with components joined by their shortest edges."""
    n, k = points.shape[0], options.n_neighbors
    distances, indices = find_neighbors(points, min(n - 1, k + _TIES), device=device)
    directed = csr_from(indices, neighbor_weights(distances, options), n)
    both = directed.maximum(directed.T) if options.graph == "knn" else (directed + directed.T) / 2
    return _joined(sp.csr_array(both), points, distances[:, k - 1].cpu().numpy(), options)


def neighbor_weights(distances: torch.Tensor, options: HeatOptions) -> torch.Tensor:
    """Return the weights of neighbours by their ascending distances; those beyond the last of `n_neighbors` have 0.

    Neighbours as far away as the last one count too: among them the order of rows would choose.
    """
    bandwidths = distances[:, options.n_neighbors - 1 : options.n_neighbors]
    within = distances <= bandwidths * (1 + 1e-9)
    if options.graph == "knn":
        return within.to(distances.dtype)
    positive = bandwidths[bandwidths > 0]
    least = 1e-12 * float(positive.median()) if len(positive) else 1.0
    return torch.exp(-((distances / bandwidths.clamp(min=least)) ** options.decay)) * within


def _joined(affinity, points, bandwidths, options):
    """Join connected components by the edges of a minimum spanning tree of them.

    The weight of an edge of length d is that of the last neighbour, times (bandwidth / d)^2: weights of a difference
    quotient fall like this.
    """
    count, component = connected_components(affinity, directed=False)
    n_connected = count
    if isinstance(points, torch.Tensor) and count > 1:
        points = points.cpu().numpy()
    typical = float(np.median(bandwidths))
    while count > 1:
        largest = np.bincount(component).argmax()
        edges = [_shortest_edge(points, component == c) for c in range(count) if c != largest]
        i, j, length = (np.array(part) for part in zip(*edges))
        reach = np.maximum(np.maximum(bandwidths[i], bandwidths[j]), typical)
        share = np.divide(reach, length, out=np.ones_like(length), where=length > reach) ** 2
        weight = share if options.graph == "knn" else share / math.e
        new = sp.csr_array(sp.coo_array((weight, (i, j)), shape=affinity.shape))
        affinity = sp.csr_array(affinity.maximum(new).maximum(new.T))
        count, component = connected_components(affinity, directed=False)
    return RowGraph(affinity, int(n_connected))


def _shortest_edge(points, inside):
    """Return the ends and the length of the shortest edge between points that are inside and those that are not."""
    ours, others = np.flatnonzero(inside), np.flatnonzero(~inside)
    nearest, distance = pairwise_distances_argmin_min(points[ours], points[others])
    i = distance.argmin()
    return ours[i], others[nearest[i]], distance[i]


def given_graph(affinity: Any) -> RowGraph:
    """Return the graph of an affinity matrix, dense or sparse.

    Raises
    ------
    ValueError
        If it is not square, not symmetric, has negative entries, or is not connected.
    """
    affinity = sp.csr_array(affinity).astype(np.float64)
    n = affinity.shape[0]
    if affinity.shape[1] != n:
        raise ValueError(f"X has shape {affinity.shape}, but graph='precomputed' needs a square affinity matrix.")
    if affinity.nnz and affinity.data.min() < 0:
        least = f"{affinity.data.min():.3g}"
        raise ValueError(f"X has negative entries, down to {least}, but graph='precomputed' needs affinities from 0.")
    largest = affinity.max() if affinity.nnz else 0.0
    gap = abs(affinity - affinity.T).max() if affinity.nnz else 0.0
    if gap > 1e-8 * max(largest, 1e-300):
        raise ValueError(
            f"X is not symmetric: entries differ from those of its transpose by up to {gap:.3g}. Pass (X + X.T) / 2."
        )
    affinity = sp.csr_array((affinity + affinity.T) / 2)
    affinity.setdiag(0)
    affinity.eliminate_zeros()
    count, _ = connected_components(affinity, directed=False)
    if count > 1:
        raise ValueError(
            f"X is the affinity matrix of a graph with {count} connected components, between which no distance is "
            "defined. Connect them, or pass each of them alone."
        )
    return RowGraph(affinity, 1)


def choose_landmarks(points: Any, graph: RowGraph, n_landmarks: int) -> torch.Tensor:
    """Return ascending indices of rows, each the farthest from those before it; the first is farthest from the mean.

    Without points, where the affinity was given, lengths of paths take the place of distances; an edge is as long as
    the inverse of its weight.
    """
    n = graph.affinity.shape[0]
    if n_landmarks >= n:
        return torch.arange(n, device="cpu")
    if isinstance(points, torch.Tensor):
        first = int(points.square().sum(1).argmax())
        return farthest_points(points, n_landmarks, first).cpu().sort().values
    distances_to = _distances_to(points) if points is not None else _paths_to(graph.affinity)
    chosen, nearest = [], distances_to(None)
    for _ in range(n_landmarks):
        chosen.append(int(nearest.argmax()))
        distances = distances_to(chosen[-1])
        nearest = np.minimum(nearest, distances) if len(chosen) > 1 else distances
    return torch.tensor(chosen, device="cpu").sort().values


def _distances_to(points):
    """Return a function from the index of a row of a CSR matrix to squared distances to it; None is the mean."""
    norms = np.asarray(points.multiply(points).sum(1)).ravel()
    mean = np.asarray(points.mean(0)).ravel()

    def distances_to(row):
        other = mean if row is None else points[[row]].toarray()[0]
        return norms - 2 * (points @ other) + other @ other

    return distances_to


def _paths_to(affinity):
    """Return a function from a vertex to the lengths of paths to it; None gives minus the degrees, for the outermost."""
    lengths = affinity.copy()
    lengths.data = 1 / lengths.data
    degrees = np.asarray(affinity.sum(1)).ravel()
    return lambda row: -degrees if row is None else dijkstra(lengths, directed=False, indices=row)


# The heat kernel


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
    n, n_queries = laplacian.shape[0], weights.shape[0]
    if options.heat_solver == "exact":
        return _times(weights, _exact_kernel(laplacian, t, device), columns)
    if options.heat_solver == "euler" and n * n <= _DENSE * n_queries:
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

    Entries of Q are not negative, and terms are weighted by a negative binomial distribution: with
    p = 1 / (1 + t/S max(diag L)) the power is sum_k C(k + S - 1, k) p^S (1 - p)^k Q^k. As all terms are positive, entries
    are exact relative to their own size, however small.
    """
    top = laplacian.diagonal().max()
    walk = _csr(sp.eye_array(laplacian.shape[0]) - laplacian / top, device)
    p = 1 / (1 + t / n_steps * top)
    weights, mean = _negative_binomial(n_steps, p), n_steps * (1 - p) / p

    def apply(block):
        total = block * weights[0]
        for k, weight in enumerate(weights[1:], 1):
            block = walk @ block
            total.add_(block, alpha=weight)
            if k % 16 == 0 and k > mean and bool((weight * block <= _ACCURACY * total).all() & (total > 0).all()):
                break
        return total

    return apply


def _negative_binomial(n, p):
    """Return the probabilities of 0, 1, ... failures before the n-th success, up to where none is left in float64."""
    count = 1024
    while nbdtrc(count, n, p) > np.finfo(np.float64).tiny:
        count *= 2
    k = np.arange(count)
    logarithms = gammaln(k + n) - gammaln(n) - gammaln(k + 1.0) + n * math.log(p) + k * math.log1p(-p)
    return np.exp(logarithms).tolist()


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
    chosen = identity_rows(rows[:: max(1, len(rows) // _MOST_CURVE_ROWS)], laplacian.shape[0])
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


def heat_distances(laplacian, landmarks, times, options: HeatOptions, device, *, with_kernel=False) -> HeatDistances:
    """Return distances of all rows to the landmarks, averaged over diffusion times."""
    n, rows = laplacian.shape[0], landmarks.to(device)
    chosen, diagonals, n_clipped = identity_rows(landmarks, n), [], 0
    distances = kernel = None
    for t, share in zip(times, time_shares(times)):
        heat = heat_rows(laplacian, chosen, t, options, device).clamp_(min=_FLOORS[options.heat_solver])
        between = heat[:, rows]
        between = (between + between.mT) / 2
        heat[:, rows] = between
        if with_kernel:
            kernel = _added(kernel, share * heat)
        own = between.diagonal().clone()
        diagonal = own @ heat / heat.sum(0)
        diagonal[rows] = own
        squares = log_distances(heat, own[:, None], diagonal, t, options.volume_weight)
        squares[torch.arange(len(rows), device=device), rows] = 0
        n_clipped += int((squares[:, rows] < 0).sum())
        distances = _added(distances, squares.clamp_(min=0).sqrt_().mul_(share))
        diagonals.append(diagonal)
    return HeatDistances(distances, torch.stack(diagonals), kernel, n_clipped)


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


def new_row_weights(points: Any, queries: Any, options: HeatOptions, device: Any) -> sp.csr_array:
    """Return the weights (n_queries, n) by which new rows average the heat of their neighbours; rows sum to 1.

    They are those of the graph over the squared distance, so that a row that comes near a row of the fit gets its heat.
    """
    n = points.shape[0]
    distances, indices = find_neighbors(points, min(n, options.n_neighbors + _TIES), queries, device)
    reach = distances[:, options.n_neighbors - 1 : options.n_neighbors]
    ratio = distances / torch.where(reach > 0, reach, 1.0)
    weights = neighbor_weights(distances, options) / ratio.clamp(min=1e-8).square()
    return csr_from(indices, weights / weights.sum(1, keepdim=True), n)
