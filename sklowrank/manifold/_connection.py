"""The connection Laplacian of a cloud of points: graph, tangent frames, transport, lowest modes, and new points."""

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csc_array, csr_array, eye_array
from scipy.sparse.linalg import LinearOperator, eigsh, splu
from sklearn.exceptions import ConvergenceWarning

from .._core.blocks import join_blocks, rows_per_block
from .._core.warn import warn
from .._math.distinct import distinct_rows
from .._math.neighbors import nearest_neighbors
from .._math.sparse import csr_tensor

SPARE = 8  # neighbours beyond those asked for, among which ties are looked for
_TIE = 1 + 1e-9  # distances that differ by less count as equal
_DENSE = 600  # order of a matrix up to which all its eigenpairs are computed
_SURFACE = 3  # dimension up to which factors of the Laplacian stay sparse
_SHIFT = 1e-6  # of the mean degree, added to the diagonal of the singular Laplacian before it is factorised
_FILTER_DEGREE = 60
_FILTER_SWEEPS = 60
_CONVERGED = 1e-9


class GraphOptions(NamedTuple):
    """Parameters of the graph and of its modes."""

    tangent: bool  # vectors in tangent spaces, or numbers
    n_neighbors: int
    tangent_neighbors: float | str
    intrinsic_dim: int | str
    explained_variance: float
    n_eigenpairs: int
    weights: str


class Cloud(NamedTuple):
    """Distinct locations, centred and scaled, and what the graph says of them.

    Frames are (n, D, d) and codes (n, D, K) for tangent vectors; for numbers frames are ones of shape (n, 1, 1).
    """

    points: torch.Tensor  # (N, D)
    row: torch.Tensor  # (N,): where the frame and the code of a location are
    frames: torch.Tensor
    codes: torch.Tensor
    eigenvalues: torch.Tensor
    density: torch.Tensor  # (N,): sums of Gaussian weights, ones for binary weights
    rule: "Rule"
    unexplained: float = 0.0  # mean share of the local variance outside of the tangent spaces; known while fitting


class Rule(NamedTuple):
    """How neighbours of a point are weighted; new points follow it, too."""

    n_neighbors: int
    wide: int  # neighbours for the tangent space
    bandwidth: float  # squared distance in Gaussian weights; 0 for binary weights
    unit: float  # factor of Gaussian weights that makes the mean degree n_neighbors


class Placement(NamedTuple):
    """Where the rows lie: their distinct locations, the place of each row among these, centre and scale."""

    first: torch.Tensor
    place: torch.Tensor
    center: torch.Tensor
    unit: torch.Tensor


def place_rows(X):
    """Return the distinct locations of rows X, in an order that does not depend on that of the rows."""
    first, place = distinct_rows(X)
    center = X[first].mean(0)
    unit = (X[first] - center).abs().max()
    return Placement(first, place, center, torch.where(unit > 0, unit, 1.0))


def scaled(X, placement):
    """Return rows X in units in which the locations fill the box from -1 to 1."""
    return (X - placement.center) / placement.unit


def connection_modes(points, options):
    """Return the cloud of distinct `points` with the lowest modes of its connection Laplacian."""
    n = len(points)
    k = min(options.n_neighbors, n - 1)
    wide = min(max(1, math.ceil(options.tangent_neighbors * options.n_neighbors)), n - 1)
    distances, neighbors = _with_spare(points, max(k, wide))
    near, beside = _within(distances, k), _within(distances, wide)
    bases, spread = _local_bases(points, points, neighbors, beside)
    dimension = min(_dimension(spread, options), max(1, wide))
    frames = bases[:, :, :dimension] if options.tangent else points.new_ones(n, 1, 1)
    edges, lengths = _edges(neighbors, distances, near)
    bandwidth = float(distances[:, k - 1].square().median()) if options.weights == "gaussian" and k else 0.0
    weights, density, unit = _edge_weights(edges, lengths, n, k, bandwidth)
    L = _laplacian(edges, weights, frames, n)
    eigenvalues, vectors = _lowest_modes(L, options.n_eigenpairs, k, dimension, points.device)
    d = frames.shape[2]
    codes = frames @ (vectors * math.sqrt(n * d)).reshape(n, d, -1)
    row = torch.arange(n, device=points.device)
    rule, unexplained = Rule(k, wide, bandwidth, unit), 1 - float(_explained(spread)[:, dimension - 1].mean())
    return Cloud(points, row, frames.contiguous(), codes, eigenvalues, density, rule, unexplained)


def codes_at(queries, cloud):
    """Return the positional codes (n_queries, D, K) of new points: at a known location its own, else by Nyström."""
    points, rule = cloud.points, cloud.rule
    distances, neighbors = _with_spare(points, max(rule.n_neighbors, rule.wide, 1), queries)
    same = (points[neighbors] == queries[:, None]).all(2)
    codes = cloud.codes[cloud.row[neighbors.gather(1, same.long().argmax(1, keepdim=True))[:, 0]]]
    new = (~same.any(1)).nonzero()[:, 0]
    if len(new):
        codes[new] = _extended(queries[new], distances[new], neighbors[new], cloud)
    return codes


def _extended(queries, distances, neighbors, cloud):
    """Return codes of points beside the cloud: modes of the Laplacian, solved for the row of a new point."""
    rule = cloud.rule
    k = max(rule.n_neighbors, 1)
    near = _within(distances, k)
    weights, neighbors = near[:, : k + SPARE].to(queries.dtype), neighbors[:, : max(k + SPARE, rule.wide + SPARE)]
    if rule.bandwidth:
        weights = weights * torch.exp(-distances[:, : k + SPARE].square() / rule.bandwidth)
        total = weights.sum(1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
        weights = weights / total / cloud.density[neighbors[:, : k + SPARE]] * rule.unit
    beside = neighbors[:, : weights.shape[1]]
    if cloud.frames.shape[1] == 1:
        frames = queries.new_ones(len(queries), 1, 1)
    else:
        bases, _ = _local_bases(queries, cloud.points, neighbors, _within(distances, max(rule.wide, 1)))
        frames = bases[:, :, : cloud.frames.shape[2]]
    row = cloud.row[beside]
    there = cloud.frames[row]
    carried = _polar(frames.mT[:, None] @ there) @ (there.mT @ cloud.codes[row])
    degree, modes = weights.sum(1, keepdim=True), cloud.eigenvalues
    share = torch.where(modes < degree / 2, 1 / (degree - modes).clamp(min=torch.finfo(degree.dtype).tiny), 0.0)
    return frames @ (torch.einsum("ij,ijak->iak", weights, carried) * share[:, None])


def _with_spare(points, n_neighbors, queries=None):
    """Return distances and indices of nearest neighbours, with some more for ties."""
    most = len(points) - (queries is None)
    return nearest_neighbors(points, min(n_neighbors + SPARE, most), queries)


def _within(distances, k):
    """Return which neighbours are among the k nearest; ties with the last of them are."""
    if not distances.shape[1]:
        return distances > 0
    return distances <= distances[:, min(k, distances.shape[1]) - 1, None] * _TIE


def _local_bases(at, points, neighbors, used):
    """Return principal directions (n, D, r) of the used neighbours seen from each point, and singular values (n, r)."""
    if not neighbors.shape[1]:
        eye = torch.eye(at.shape[1], dtype=at.dtype, device=at.device)
        return eye.expand(len(at), -1, -1), at.new_ones(at.shape)

    def of_block(rows):
        seen = (points[neighbors[rows]] - at[rows, None]) * used[rows, :, None]
        _, s, Vh = torch.linalg.svd(seen, full_matrices=False)
        return Vh.mT, s

    bytes_per_row = 4 * at.element_size() * neighbors.shape[1] * at.shape[1]
    block = rows_per_block("auto", len(at), bytes_per_row)
    return join_blocks(of_block, len(at), block, bytes_per_row=bytes_per_row)


def _dimension(spread, options):
    """Return the given dimension, or the least whose share of the variance suffices in most places."""
    if options.intrinsic_dim != "auto":
        return min(options.intrinsic_dim, spread.shape[1])
    share = _explained(spread)
    least = share.mean(0) - share.std(0, correction=0)
    enough = least >= options.explained_variance - 1e-12
    return int(enough.long().argmax()) + 1 if bool(enough.any()) else spread.shape[1]


def _explained(spread):
    """Return the shares (n, r) of the local variance that the leading directions explain."""
    energy = spread.square().cumsum(1)
    return energy / energy[:, -1:].clamp(min=torch.finfo(energy.dtype).tiny)


def _edges(neighbors, distances, near):
    """Return the edges (E, 2) of the union of both directions, each once with the lower index first, and lengths."""
    n, most = neighbors.shape
    start = torch.arange(n, device=neighbors.device)[:, None].expand(n, most)[near]
    end = neighbors[near]
    key, inverse = torch.unique(torch.minimum(start, end) * n + torch.maximum(start, end), return_inverse=True)
    lengths = distances.new_empty(len(key))
    lengths[inverse] = distances[near]
    return torch.stack([key // n, key % n], 1), lengths


def _edge_weights(edges, lengths, n, k, bandwidth):
    """Return weights of edges, density of locations, and the factor of the weights."""
    ones = lengths.new_ones(n)
    if not bandwidth:
        return torch.ones_like(lengths), ones, 1.0
    weights = torch.exp(-lengths.square() / bandwidth)
    density = _sums(edges, weights, n).clamp(min=torch.finfo(weights.dtype).tiny)  # far from all others it vanishes
    weights = weights / density[edges[:, 0]] / density[edges[:, 1]]
    unit = float(k * n / (2 * weights.sum()))
    return unit * weights, density, unit


def _sums(edges, weights, n):
    """Return the sums of the weights of edges at each location."""
    return weights.new_zeros(n).index_add_(0, edges.reshape(-1), weights.repeat_interleave(2))


def _polar(M):
    """Return the orthogonal matrices nearest to M."""
    if M.shape[-1] == 1:
        return torch.where(M < 0, -1.0, 1.0).to(M.dtype)
    U, _, Vh = torch.linalg.svd(M)
    return U @ Vh


def _transports(frames, edges):
    """Return the orthogonal matrices (E, d, d) that carry tangent vectors along edges, in blocks."""

    def of_block(rows):
        return _polar(frames[edges[rows, 0]].mT @ frames[edges[rows, 1]])

    bytes_per_row = 2 * frames.element_size() * frames[0].numel()
    block = rows_per_block("auto", len(edges), bytes_per_row)
    return join_blocks(of_block, len(edges), block, bytes_per_row=bytes_per_row)


def _laplacian(edges, weights, frames, n):
    """Return the connection Laplacian as row and column indices, values, and its order."""
    d, device = frames.shape[2], frames.device
    transport = _transports(frames, edges) * -weights[:, None, None]
    within, nodes = torch.arange(d, device=device), torch.arange(n * d, device=device)
    rows, columns = (torch.cat([edges[:, i], edges[:, 1 - i]])[:, None, None] * d for i in (0, 1))
    blocks = torch.cat([transport, transport.mT])
    rows = torch.cat([(rows + within[:, None]).expand(-1, d, d).reshape(-1), nodes])
    columns = torch.cat([(columns + within).expand(-1, d, d).reshape(-1), nodes])
    values = torch.cat([blocks.reshape(-1), _sums(edges, weights, n).repeat_interleave(d)])
    return rows, columns, values, n * d


def _lowest_modes(L, n_modes, degree, dimension, device):
    """Return the lowest eigenvalues and eigenvectors; a group of equal eigenvalues is not cut in two."""
    rows, columns, values, order = L
    wanted = min(n_modes + 1, order)  # one more, which says whether the last ones are a whole group
    if order <= (_DENSE if device.type == "cpu" else 8 * _DENSE) or 4 * wanted >= order:
        dense = torch.zeros(order, order, dtype=values.dtype, device=device)
        w, V = torch.linalg.eigh(dense.index_put_((rows, columns), values))
        w, V = w[:wanted], V[:, :wanted]
    elif device.type == "cpu" and dimension <= _SURFACE:
        w, V = _by_factors(L, wanted, degree)
    else:
        w, V = _by_filter(L, wanted)
    if len(w) <= n_modes:
        return w.clamp(min=0), V
    gaps = (w.diff() > 1e-9 * max(float(w[-1]), degree * 1e-9)).nonzero()[:, 0]
    kept = int(gaps[-1]) + 1 if len(gaps) else n_modes
    return w[:kept].clamp(min=0), V[:, :kept]


def _by_factors(L, n_modes, degree):
    """Return the lowest eigenpairs by shift and invert."""
    rows, columns, values, order = L
    A, shift = csc_array((values.numpy(), (rows.numpy(), columns.numpy())), shape=(order, order)), _SHIFT * degree
    options = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
    factors = splu(A + shift * eye_array(order, format="csc"), **options)
    inverse = LinearOperator(A.shape, factors.solve, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(order)
    w, V = eigsh(A, n_modes, sigma=-shift, OPinv=inverse, v0=start)
    ascending = np.argsort(w)
    return torch.from_numpy(w[ascending]), torch.from_numpy(V[:, ascending])


def _by_filter(L, n_modes):
    """Return the lowest eigenpairs by subspace iteration with Chebyshev polynomials: products with blocks alone."""
    rows, columns, values, order = L
    A = csr_array((values.cpu().numpy(), (rows.cpu().numpy(), columns.cpu().numpy())), shape=(order, order))
    parts = (torch.from_numpy(part.astype(np.int64)).to(values.device) for part in (A.indptr, A.indices))
    A = csr_tensor(*parts, torch.from_numpy(A.data).to(values.device), A.shape)
    top = 2 * float(values[-order:].max())  # the diagonal; no eigenvalue is above twice the largest degree
    width = min(n_modes + max(16, n_modes // 2), order)
    generator = torch.Generator("cpu").manual_seed(0)
    Q = torch.randn(order, width, generator=generator, dtype=values.dtype, device="cpu").to(values.device)
    for sweep in range(_FILTER_SWEEPS):
        Q = torch.linalg.qr(Q).Q
        product = A @ Q
        w, V = torch.linalg.eigh(Q.mT @ product)
        Q, product = Q @ V, product @ V
        off = float((product - Q * w)[:, :n_modes].square().sum(0).max().sqrt()) / top
        if off <= _CONVERGED or sweep == _FILTER_SWEEPS - 1:
            break
        middle, half = (top + w[-1]) / 2, (top - w[-1]) / 2
        former, Q = Q, (product - middle * Q) / half
        for _ in range(_FILTER_DEGREE - 1):
            former, Q = Q, (A @ Q - middle * Q) * (2 / half) - former
        Q = Q / Q.abs().amax(0)
    if off > _CONVERGED:
        warn(
            f"The modes of the Laplacian have not converged: a residual is {off:.0e} of the largest eigenvalue, above "
            f"{_CONVERGED:.0e}. Lower n_eigenpairs.",
            ConvergenceWarning,
        )
    return w[:n_modes], Q[:, :n_modes]
