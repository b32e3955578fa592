"""Graphs of rows: symmetric affinities from codes, and labels from affinities by spectral clustering."""

import warnings

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import ArpackNoConvergence, eigsh
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from .._core.blocks import join_blocks, rows_per_block
from .._core.compat import cluster_qr
from .doubly_stochastic import doubly_stochastic

_SMALL = 100  # rows up to which the eigendecomposition is dense: Lanczos is not faster there
_TINY = np.finfo(np.float64).tiny


def csr_from(columns: torch.Tensor, values: torch.Tensor, n_columns: int) -> sp.csr_array:
    """Return the CSR matrix whose row i has `values[i]` at `columns[i]`; zeros are not stored."""
    columns, order = columns.sort(1)
    values = values.gather(1, order)
    filled = values != 0
    indptr = np.zeros(len(values) + 1, dtype=np.int32)
    np.cumsum(filled.sum(1).cpu().numpy(), out=indptr[1:])
    indices = columns[filled].cpu().numpy().astype(np.int32)
    return sp.csr_array((values[filled].cpu().numpy(), indices, indptr), shape=(len(values), n_columns))


def affinity(codes, how: str, *, n_components: int = 1, n_neighbors: int = 3) -> sp.csr_array:
    """Return a symmetric affinity with an empty diagonal from codes (n, n): CSR, or a dense tensor.

    With A = |codes|: "max" divides each row of A by its largest entry and adds the transpose, "sum" adds the transpose
    as it is, "doubly_stochastic" projects A onto matrices with unit row sums, as sparse as at most `n_components`
    connected components allow, and "nearest_neighbors" connects each row to the `n_neighbors` others with the largest
    absolute cosine between codes.
    """
    if how == "nearest_neighbors":
        return _symmetric(_similar_codes(codes, n_neighbors))
    A = abs(codes.tocsr()) if sp.issparse(codes) else sp.csr_array(codes.abs().cpu().numpy())
    A = _without_diagonal(sp.csr_array(A))
    if how == "doubly_stochastic":
        return doubly_stochastic(A, n_components)
    if how == "max":
        largest = A.max(axis=1).toarray().ravel()
        A.data /= np.repeat(np.maximum(largest, _TINY), np.diff(A.indptr))
    return _symmetric(A)


def _symmetric(A):
    return sp.csr_array(A + A.T)


def _without_diagonal(A):
    if np.any(A.diagonal()):
        row = np.repeat(np.arange(A.shape[0], dtype=A.indices.dtype), np.diff(A.indptr))
        A.data[row == A.indices] = 0
    A.eliminate_zeros()
    return A


def _similar_codes(codes, n_neighbors):
    """Return the 0/1 matrix that connects each row to those with the largest absolute cosine between codes."""
    n = codes.shape[0]
    q = min(n_neighbors, n - 1)
    if sp.issparse(codes):
        norms = np.sqrt(np.asarray(codes.power(2).sum(axis=1)).ravel())
        unit = sp.csr_array(sp.diags_array(1 / np.maximum(norms, _TINY)) @ codes)
    else:
        unit = torch.nn.functional.normalize(codes, dim=1, eps=_TINY)

    def nearest(rows):
        products = unit[rows] @ unit.T
        cosine = torch.from_numpy(products.toarray()) if sp.issparse(products) else products
        cosine.diagonal(rows.start).fill_(-1)
        value, column = cosine.topk(q, dim=1)
        return column, (value > 0).to(cosine.dtype)

    columns, values = join_blocks(nearest, n, rows_per_block("auto", n, 8 * n), bytes_per_row=8 * n)
    return csr_from(columns, values, n)


def spread(graph, place) -> sp.csr_array:
    """Return the affinity of n rows from that of the distinct ones, of which row i is number ``place[i]``.

    Copies of a row have its edges; rows whose `place` is -1 are isolated vertices.
    """
    rows = (place >= 0).nonzero()[0]
    pick = sp.csr_array((np.ones(len(rows)), (rows, place[rows])), shape=(len(place), graph.shape[0]))
    return sp.csr_array(pick @ graph @ pick.T)


def spectral_labels(W, n_clusters: int, *, random_state, n_init: int = 10, assign_labels: str = "kmeans") -> np.ndarray:
    """Return labels (n,) of the rows of a symmetric affinity W (CSR), consecutive from 0.

    Rows that :func:`graph_clusters` leaves out join the largest cluster.
    """
    labels, _ = graph_clusters(W, n_clusters, random_state=random_state, n_init=n_init, assign_labels=assign_labels)
    labels[labels < 0] = largest_cluster(labels)
    return labels


def largest_cluster(labels: np.ndarray) -> int:
    """Return the label with the most rows, without negative labels; 0 where there is none."""
    counts = np.bincount(labels[labels >= 0], minlength=1)
    return int(counts.argmax())


def graph_clusters(
    W, n_clusters: int, *, random_state, n_init: int = 10, assign_labels: str = "kmeans"
) -> tuple[np.ndarray, int]:
    """Return spectral labels of the rows of W, -1 for rows left out, and the number of connected components of W.

    The embedding is by the leading eigenvectors of ``D^-1/2 W D^-1/2``, with rows scaled to unit norm; labels are by
    k-means or pivoted QR. Isolated vertices are left out. Where the graph has more than `n_clusters` components, so are
    components of fewer than ``max(2, n / (20 n_clusters))`` rows, which would take eigenvectors from larger ones, and
    all but the `n_clusters` largest.
    """
    rng = check_random_state(random_state)
    W = sp.csr_array(W)
    n_components, component = connected_components(W, directed=False)
    sizes = np.bincount(component, minlength=n_components)
    kept = _components_kept(sizes, n_clusters)
    labels = np.full(W.shape[0], -1, dtype=np.int64)
    rows = np.flatnonzero(np.isin(component, kept))
    if len(kept) == n_clusters:
        labels[rows] = _consecutive(component[rows])
    elif len(rows):
        V = _leading_eigenvectors(W, [np.flatnonzero(component == k) for k in kept], n_clusters, rng)[rows]
        V = V / np.maximum(np.linalg.norm(V, axis=1, keepdims=True), _TINY)
        labels[rows] = _consecutive(_assign(V, n_clusters, rng, n_init, assign_labels))
    return labels, int(n_components)


def strong_components(W, n_clusters: int, share: float) -> tuple[int, float]:
    """Return the number of connected components by strong edges, and the share of rows outside the largest of them.

    An edge is strong if it has this share of the largest weight at one of its ends; with 0 every edge is. The largest
    are the components, at most `n_clusters`, that :func:`graph_clusters` would cluster.
    """
    largest = W.max(axis=1).toarray().ravel()
    row = np.repeat(np.arange(W.shape[0]), np.diff(W.indptr))
    strong = W.data >= share * np.minimum(largest[row], largest[W.indices])
    edges = sp.csr_array((W.data[strong], (row[strong], W.indices[strong])), shape=W.shape)
    n_components, component = connected_components(edges, directed=False)
    sizes = np.bincount(component, minlength=n_components)
    return int(n_components), 1 - float(sizes[_components_kept(sizes, n_clusters)].sum()) / W.shape[0]


def _components_kept(sizes, n_clusters):
    """Return the indices of the components that are clustered, the largest first."""
    smallest = 2 if len(sizes) <= n_clusters else max(2, sizes.sum() / (20 * n_clusters))
    order = np.argsort(-sizes, kind="stable")
    kept = order[sizes[order] >= smallest]
    return kept[:n_clusters] if len(kept) else order[sizes[order] >= 2][:n_clusters]


def _leading_eigenvectors(W, components, count, rng):
    """Return (n, count) eigenvectors of the normalised affinity with the largest eigenvalues.

    Each component has the eigenvalue 1. Components are decomposed one by one, so that no copy of it is missed.
    """
    degree = np.asarray(W.sum(axis=1)).ravel()
    scale = sp.diags_array(1 / np.sqrt(np.maximum(degree, _TINY)))
    M = sp.csr_array(scale @ W @ scale)
    values, vectors = [], []
    for rows in components:
        part = M if len(rows) == M.shape[0] else M[rows][:, rows]
        e, V = _top_eigenpairs(part, min(count - len(components) + 1, len(rows)), rng)
        values.append(e)
        vectors.append((rows, V))
    chosen = np.argsort(-np.concatenate(values), kind="stable")[:count]
    out = np.zeros((M.shape[0], len(chosen)))
    owner = np.repeat(np.arange(len(components)), [len(e) for e in values])
    offset = np.cumsum([0] + [len(e) for e in values])
    for column, k in enumerate(chosen):
        rows, V = vectors[owner[k]]
        out[rows, column] = V[:, k - offset[owner[k]]]
    return out


def _top_eigenpairs(M, count, rng):
    """Return the `count` largest eigenvalues of M, descending, and their eigenvectors as columns."""
    n = M.shape[0]
    if n <= _SMALL or 2 * count + 1 >= n:
        e, V = np.linalg.eigh(M.toarray())
        return e[::-1][:count], V[:, ::-1][:, :count]
    start = rng.uniform(-1, 1, n)
    shifted = sp.csr_array(M + sp.eye_array(n))  # from [-1, 1] to [0, 2]: largest is then also largest in magnitude
    for tol in (1e-10, 1e-4):
        try:
            e, V = eigsh(shifted, count, which="LA", v0=start, ncv=min(n, max(4 * count, 40)), tol=tol)
            break
        except ArpackNoConvergence as stuck:
            e, V = stuck.eigenvalues, stuck.eigenvectors
    order = np.argsort(-e)
    return e[order] - 1, V[:, order]


def _assign(V, n_clusters, rng, n_init, assign_labels):
    """Return a label for each row of the embedding V."""
    if assign_labels == "cluster_qr":
        return cluster_qr(V)
    return k_means(V, n_clusters, n_init=n_init, rng=rng)


def drawn_seed(generator: torch.Generator) -> int:
    """Return a seed for what numpy draws."""
    return int(torch.randint(2**31 - 1, (1,), generator=generator, dtype=torch.long, device="cpu"))


def k_means(V: np.ndarray, n_clusters: int, *, n_init: int, rng) -> np.ndarray:
    """Return k-means labels of the rows of an embedding; fewer clusters where fewer rows are distinct."""
    means = KMeans(min(n_clusters, len(V)), n_init=n_init, random_state=rng.randint(np.iinfo(np.int32).max))
    with warnings.catch_warnings():
        # of fewer distinct points than clusters, about which a user can do nothing
        warnings.simplefilter("ignore", ConvergenceWarning)
        return means.fit(V).labels_


def _consecutive(labels):
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)
