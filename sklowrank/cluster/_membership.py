"""Doubly stochastic memberships of unit codes: the projection, its entropy, and the clusters read off it."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from sklearn.metrics.cluster import contingency_matrix

from .._core.blocks import join_blocks, rows_per_block
from .._math.coding_rates import coding_length
from .._math.distinct import distinct_rows
from .._math.graphs import k_means

SPECTRAL_ROWS = 4000  # of more rows, so many at random are clustered by the spectrum
_STORED_CODES = 256  # of each cluster, with which new rows are compared
_ETA_BOUNDS = (0.02, 5.0)
_FEW = 5  # clusters, for which the rule of balance finds too little on round ones and too much on curved ones
_ETA_OF_FEW = 0.3
_SURPLUS = 0.02  # by which a code may be longer: the lengths hardly differ where clusters are cut into pieces
_DENSE_ROWS = 300  # up to so many rows a full decomposition is as fast as Lanczos
_N_INIT = 10  # starts of the k-means
_ENERGY = 0.95  # share of a cluster's second moments that its subspace keeps


class ClusteringOptions(NamedTuple):
    """How clusters are read off a membership."""

    eta: float
    kernel: str
    assign_labels: str
    precision: float


class StoredCodes(NamedTuple):
    """Codes whose clusters are known, with which new rows are compared."""

    codes: torch.Tensor  # (m, d), unit rows
    scaling: torch.Tensor  # (m,), the potentials of the projection, exp(f / eta)
    owners: torch.Tensor  # (m,), clusters


def kernel_of(C: torch.Tensor, eta: float, kernel: str) -> torch.Tensor:
    """Return ``exp((S - 1) / eta)``, where S holds the inner products of unit rows C (n, d), or their magnitudes.

    Nothing overflows, and a row's product with itself gives 1, so that no sum vanishes however small `eta` is: the
    sweeps of the projection are those in logarithms, number for number, at a fraction of their time. For a row of
    zeros, which has no direction, that product is 1 too.
    """
    S = C @ C.T
    S.diagonal().add_((C.detach() == 0).all(1))
    return (((S.abs() if kernel == "absolute" else S) - 1) / eta).exp()


def project(K: torch.Tensor, n_sweeps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a doubly stochastic ``G = u_i K_ij u_j`` near the kernel K (n, n) of :func:`kernel_of`, and u.

    It maximises ``<S, G> + eta entropy(G)``, by symmetric Sinkhorn sweeps ``u <- sqrt(u / (K u))``; after any number of
    them G is symmetric.
    """
    u = torch.ones(len(K), dtype=K.dtype, device=K.device)
    for _ in range(n_sweeps):
        u = (u / (K @ u)).sqrt()
    return u[:, None] * K * u, u


def membership(C: torch.Tensor, eta: float, kernel: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the doubly stochastic membership of codes C (n, d), its sums exact up to rounding, and the potentials."""
    K = kernel_of(C, eta, kernel)
    u = project(K, 0)[1]
    accurate = 32 * torch.finfo(K.dtype).eps
    for _ in range(300):  # 30 suffice as a rule
        Ku = K @ u
        if float((u * Ku - 1).abs().max()) <= accurate:
            break
        u = (u / Ku).sqrt()
    return K.mul_(u[:, None]).mul_(u), u


def perplexity(G: torch.Tensor) -> float:
    """Return the mean over rows of the exponential of the entropy: how many rows a row shares its cluster with."""
    return float(torch.special.entr(G).sum(1).exp().mean())


def balanced_eta(C: torch.Tensor, n_clusters: int, kernel: str) -> float:
    """Return the entropy weight at which a row of the membership spreads over as many rows as a balanced cluster has.

    Bisection of log eta, to 1 %. For up to five clusters it is 0.3.
    """
    if n_clusters <= _FEW:
        return _ETA_OF_FEW
    low, high = np.log(_ETA_BOUNDS)
    while high - low > 0.01:
        middle = (low + high) / 2
        if perplexity(membership(C, np.exp(middle), kernel)[0]) < len(C) / n_clusters:
            low = middle
        else:
            high = middle
    return float(np.exp((low + high) / 2))


def find_clusters(Z, C, candidates, clustering: ClusteringOptions, rng) -> tuple[StoredCodes, int]:
    """Return codes with their clusters, and the number of clusters, from features and codes of rows.

    At most :data:`SPECTRAL_ROWS` rows are clustered: k-means on the leading eigenvectors of their membership, which is
    its own normalised Laplacian, or on their codes. Of several `candidates` for the number of clusters, in ascending
    order, the first is taken whose code of the features is at most 2 % longer than the shortest.
    """
    some = np.sort(rng.permutation(len(C))[:SPECTRAL_ROWS])
    Z, C = Z[some], C[some]
    candidates = [k for k in candidates if k <= len(C)] or [len(C)]
    G, u = membership(C, clustering.eta, clustering.kernel)
    if clustering.assign_labels == "spectral":
        V = leading_eigenvectors(G, max(candidates), rng)
    lengths, found = [], []
    for k in candidates:
        points = V[:, :k] if clustering.assign_labels == "spectral" else C.cpu().numpy()
        labels = _k_means(points, k, rng)
        there = torch.from_numpy(labels).to(Z.device)
        lengths.append(coding_length(Z, there, k, clustering.precision) if len(candidates) > 1 else 0.0)
        found.append(labels)
    best = int(np.argmax(np.array(lengths) <= (1 + _SURPLUS) * min(lengths)))
    stored = _stored(found[best], rng)
    owners = torch.from_numpy(found[best][stored]).to(C.device)
    return StoredCodes(C[stored], u[stored], owners), candidates[best]


def leading_eigenvectors(G: torch.Tensor, count: int, rng) -> np.ndarray:
    """Return the eigenvectors (n, count) of the largest eigenvalues of a membership, strongest first."""
    n = len(G)
    if n > _DENSE_ROWS and 2 * count < n:
        try:
            return _lanczos(G, count, rng)
        except ArpackNoConvergence:
            pass  # eigenvalues that hardly differ: a full decomposition is slow, and sure
    return torch.linalg.eigh(G.double()).eigenvectors.flip(1)[:, :count].cpu().numpy()


def log_masses(C: torch.Tensor, codes: StoredCodes, n_clusters: int, clustering: ClusteringOptions) -> torch.Tensor:
    """Return the logarithm (n, n_clusters) of the mean kernel mass of each row towards the codes of each cluster.

    Equal rows get equal masses: each is computed once.
    """
    first, kind = distinct_rows(C)
    counts = torch.bincount(codes.owners, minlength=n_clusters).to(C.dtype)
    to_clusters = torch.zeros(len(codes.codes), n_clusters, dtype=C.dtype, device=C.device)
    to_clusters[torch.arange(len(codes.codes), device=C.device), codes.owners] = 1.0
    to_clusters = to_clusters / counts.clamp(min=1)
    potentials = codes.scaling.log()

    def of_rows(rows):
        S = C[first[rows]] @ codes.codes.T
        exponent = ((S.abs() if clustering.kernel == "absolute" else S) - 1) / clustering.eta + potentials
        largest = exponent.amax(1, keepdim=True)
        mass = (exponent - largest).exp() @ to_clusters
        return largest + mass.clamp(min=torch.finfo(C.dtype).tiny).log()

    size = 4 * len(codes.codes) * C.element_size()
    step = rows_per_block("auto", len(first), size)
    return join_blocks(of_rows, len(first), step, bytes_per_row=size)[kind]


def assign_rows(
    C, codes: StoredCodes, n_clusters: int, clustering: ClusteringOptions, former=None
) -> tuple[torch.Tensor, StoredCodes, int]:
    """Return the labels of all rows, and the codes and number of clusters without those that got no row.

    The labels are consecutive from 0. With `former` labels of the same rows clusters keep their numbers where they can.
    """
    labels = log_masses(C, codes, n_clusters, clustering).argmax(1).cpu().numpy()
    used = np.unique(labels)
    number = np.full(n_clusters, -1)
    number[used] = np.arange(len(used))
    if former is not None:
        number[used] = _matched(former, number[labels], len(used))
    new = torch.from_numpy(number).to(C.device)
    owners = new[codes.owners]
    kept = owners >= 0
    return (
        new[torch.from_numpy(labels).to(C.device)],
        StoredCodes(*(part[kept] for part in (*codes[:2], owners))),
        len(used),
    )


def main_directions(C: torch.Tensor, labels: torch.Tensor, n_clusters: int) -> list[torch.Tensor]:
    """Return for each cluster orthonormal directions (d, r) that hold 95 % of its second moments, strongest first."""
    bases = []
    for k in range(n_clusters):
        energy, V = torch.linalg.eigh((C[labels == k].T @ C[labels == k]).double())
        energy, V = energy.flip(0).clamp(min=0), V.flip(1)
        r = int((energy.cumsum(0) < _ENERGY * energy.sum()).sum()) + 1
        bases.append(V[:, :r].to(C.dtype))
    return bases


def _lanczos(G, count, rng):
    n = len(G)

    def times(v):
        there = torch.from_numpy(np.asarray(v, dtype=np.float64).reshape(n)).to(G.device, G.dtype)
        return (G @ there).double().cpu().numpy()

    start, width = rng.uniform(0.5, 1, n), min(n, max(2 * count + 1, 40))
    product = LinearOperator((n, n), times, dtype=np.float64)
    values, vectors = eigsh(product, count, which="LA", v0=start, ncv=width, tol=1e-4)
    return vectors[:, np.argsort(-values)]


def _k_means(points, n_clusters, rng):
    """Return k-means labels of the rows of `points`, scaled to unit length."""
    points = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), np.finfo(points.dtype).tiny)
    return k_means(points, n_clusters, n_init=_N_INIT, rng=rng).astype(np.int64)


def _stored(labels, rng):
    """Return the indices of up to 256 random rows of each cluster."""
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    starts = np.searchsorted(labels[order], labels[order])
    return np.sort(order[np.arange(len(order)) - starts < _STORED_CODES])


def _matched(former, labels, n_clusters):
    """Return a new number for each cluster: the one of the former cluster with which it shares most rows."""
    table = contingency_matrix(labels, former)
    mine, theirs = linear_sum_assignment(-table)
    number = np.full(n_clusters, -1)
    wanted = np.unique(former)[theirs]
    fits = wanted < n_clusters
    number[mine[fits]] = wanted[fits]
    number[number < 0] = np.setdiff1d(np.arange(n_clusters), number)
    return number
