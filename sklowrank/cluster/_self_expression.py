"""What the self-expressive clusterers share: preparation of rows, and the way from codes to clusters and predictions.

Each method codes every row as a combination of the other rows. The codes make a graph, its spectrum makes clusters, and
the clusters make subspaces, by which new rows are assigned. Methods differ in the codes alone: `fit` is
:func:`coding_problem`, the codes of ``problem.rows``, :func:`cluster_model`, and `keep`.
"""

from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.exceptions import ConvergenceWarning

from .._core.warn import warn
from .._core.workspace import Workspace
from .._math.em import refine
from .._math.graphs import affinity, drawn_seed, graph_clusters, strong_components
from .._math.linalg import power_of_two, signs_of_largest
from .._math.subspaces import dims_by_threshold, squared_distances, table_of, top_eigenpairs
from ._directions import Directions, codes_of_all, distinct_directions, graph_of_all
from ._k_subspaces_solver import alternate
from ._row_products import (
    device_of,
    fill_own,
    load_rows,
    norms,
    prepared,
    products,
    take,
    transposed_times,
    workspace_of_rows,
)
from ._subspace_predictions import ComponentParams, Subspaces, in_largest_cluster, nearest_subspaces

LEAST_SHAPE = {"ensure_min_samples": 2, "ensure_min_features": 2}
_LONGEST = 1e150  # of rows: products of longer ones overflow
_LEFT_OUT = 0.1  # share of rows outside the largest components, from which a graph is called disconnected
_MOST = 0.5  # share of rows with a near copy, from which these are the cause
_STRONG = 0.1  # share of the largest weight of a row from which an edge is strong
_NEARLY = 0.995  # cosine of an angle of 0.1: such rows are nearly equal


class SpectralOptions(NamedTuple):
    """The parameters that all self-expressive clusterers have."""

    n_clusters: int
    normalize: bool
    center: bool
    n_pca: int | float | None
    affinity: str
    n_init: int
    assign_labels: str
    refine: str
    predict_method: str
    n_dims: int | str
    device: str
    random_state: Any


class CodingProblem(NamedTuple):
    """Distinct rows to code: centred, projected on principal axes and scaled to unit norm, where asked for."""

    rows: torch.Tensor | sp.csr_array  # (m, p), float64
    directions: Directions  # which of the m distinct rows each of n rows equals
    centre: torch.Tensor | None  # (D,)
    axes: torch.Tensor | None  # (D, p)
    options: SpectralOptions
    ws: Workspace


class ClusterModel(NamedTuple):
    """A fitted clustering: :class:`Subspaces`, and the graph that it comes from."""

    bases: list[torch.Tensor]
    labels: torch.Tensor
    centre: torch.Tensor | None
    axes: torch.Tensor | None
    components: ComponentParams | None
    atoms: torch.Tensor | sp.csr_array | None
    atom_places: torch.Tensor | None
    rank: int | None
    representation: torch.Tensor | sp.csr_array  # (n, n)
    affinity_matrix: sp.csr_array  # (n, n)
    n_components_graph: int


# The problem


def coding_problem(X, options: SpectralOptions, *, negatives: bool = True) -> CodingProblem:
    """Return the distinct rows of validated X as they are coded; warn of rows that are all zeros.

    With `negatives` a row and its negative count as one.
    """
    check_sizes(X, options)
    ws = workspace_of_rows(X, device=options.device, random_state=options.random_state)
    rows = load_rows(X, ws)
    centre = rows.mean(0) if options.center else None
    axes = None if options.n_pca is None else _principal_axes(rows if centre is None else rows - centre, options.n_pca)
    rows = prepared(rows, centre, axes, options.normalize)
    lengths = norms(rows)
    if not bool((lengths <= _LONGEST).all()):
        raise ValueError(
            f"X has rows longer than {_LONGEST:g}, whose products overflow. Divide X by it, or pass normalize=True."
        )
    n_zeros = int((lengths == 0).sum())
    if n_zeros:
        warn(
            f"{n_zeros} of {rows.shape[0]} rows are all zeros and lie in every subspace; they join the largest "
            "cluster. Leave them out, or pass center=True.",
            UserWarning,
        )
    directions = distinct_directions(rows, negatives=negatives)
    return CodingProblem(take(rows, directions.first), directions, centre, axes, options, ws)


def check_sizes(X, options: SpectralOptions) -> None:
    """Refuse parameters that do not fit the shape or the format of X."""
    n_samples, n_features = X.shape
    if n_samples < options.n_clusters:
        raise ValueError(
            f"n_samples={n_samples} should be >= n_clusters={options.n_clusters}. Lower n_clusters or add data."
        )
    if options.n_dims != "auto" and options.n_dims >= n_features:
        raise ValueError(
            f"n_dims={options.n_dims} is too large for X with n_features={n_features}. "
            f"Pass at most {n_features - 1}, or 'auto'."
        )
    if sp.issparse(X) and options.center:
        raise ValueError("center=True would make a sparse X dense. Pass center=False, or X.toarray().")
    if sp.issparse(X) and options.refine != "none" and options.n_pca is None:
        raise ValueError(f"refine={options.refine!r} needs dense rows. Pass n_pca, X.toarray(), or refine='none'.")


def _principal_axes(rows, n_pca):
    """Return the leading right singular vectors (D, p) of rows, or as many as explain the share `n_pca` of squares."""
    V, e = _right_singular_vectors(rows / power_of_two(abs(rows).max()), min(rows.shape))
    if isinstance(n_pca, Integral):
        return V[:, : max(2, n_pca)]
    explained = e.cumsum(0) / e.sum().clamp(min=torch.finfo(e.dtype).tiny)
    return V[:, : max(2, int((explained < n_pca).sum()) + 1)]


def _right_singular_vectors(rows, count):
    """Return `count` right singular vectors (D, count) and squared singular values, by the smaller Gram matrix."""
    n, D = rows.shape
    if n >= D:
        return top_eigenpairs(products(rows.T, rows.T), count)
    V, e = top_eigenpairs(products(rows, rows), count)
    U = transposed_times(rows, V)
    return torch.linalg.qr(U / e.clamp(min=torch.finfo(e.dtype).tiny).sqrt()).Q, e


# From codes to clusters


def cluster_model(
    codes, problem: CodingProblem, *, strengths=None, default_affinity: str = "sum", rank: int | None = None
) -> ClusterModel:
    """Return the clustering of all rows by codes (m, m) of the distinct ones, CSR or dense.

    `strengths` (m, m) make the graph in place of the codes, `default_affinity` is that of ``affinity="auto"``. The
    generator of the workspace stays as it is, so that equal codes have equal clusters.
    """
    ws, generator = problem.ws, problem.ws.generator.clone_state()
    W, labels, n_components = _graph(codes if strengths is None else strengths, problem, default_affinity, generator)
    subspaces = _subspaces(problem, labels, rank, generator)
    dtype, representation = (
        np.float32 if ws.dtype == torch.float32 else np.float64,
        codes_of_all(codes, problem.directions),
    )
    return ClusterModel(
        **subspaces._asdict(),
        representation=representation.astype(dtype) if sp.issparse(representation) else representation.to(ws.dtype),
        affinity_matrix=graph_of_all(W.astype(dtype), problem.directions),
        n_components_graph=n_components,
    )


def described(model: ClusterModel, problem: CodingProblem) -> dict:
    """Return the public attributes of a clustering; CSR matrices are read by properties of the class."""
    K, D, ws = len(model.bases), len(model.bases[0]), problem.ws
    centre = torch.zeros(D, device=ws.device) if model.centre is None else model.centre
    dense = {} if sp.issparse(model.representation) else {"representation_": model.representation}
    return {
        "labels_": model.labels,
        "bases_": model.bases,
        "cluster_centers_": centre.to(ws.dtype).expand(K, D),
        "n_dims_": torch.tensor([U.shape[1] for U in model.bases], device=ws.device),
        "n_components_graph_": model.n_components_graph,
        **dense,
    }


def warn_of_graph(model: ClusterModel, problem: CodingProblem, denser: str) -> None:
    """Warn of fewer clusters than asked for, or of a disconnected graph; `denser` says what adds edges to it."""
    K, n_found, n_distinct = problem.options.n_clusters, len(model.bases), problem.rows.shape[0]
    if n_found < K:
        warn(
            f"The number of clusters found, {n_found}, is smaller than n_clusters={K}: the rows of X have {n_distinct} "
            f"distinct directions, which form {model.n_components_graph} connected components of the graph. Lower "
            f"n_clusters, or {denser if n_distinct >= K else 'add rows'}.",
            ConvergenceWarning,
        )
    elif n_distinct > K:
        _warn_of_components(model.affinity_matrix, K, _share_of_close(problem.rows), denser)


def _warn_of_components(W, K, close, denser):
    """Warn if many rows lie outside the largest components; of strong edges, where most rows have a near copy."""
    near = close > _MOST
    n_components, left_out = strong_components(W, K, _STRONG if near else 0.0)
    if left_out <= _LEFT_OUT:
        return
    edges = "edges of a tenth of a row's largest" if near else "edges"
    cause = f"{close:.0%} of the rows have a nearly equal row, which dominates their codes. Merge such rows, or"
    warn(
        f"The graph is disconnected: its {edges} leave {n_components} connected components for n_clusters={K}, and "
        f"{left_out:.0%} of the rows are in none of the {K} largest. {cause if near else 'The codes are too sparse:'} "
        f"{denser}.",
        UserWarning,
    )


def _share_of_close(rows):
    """Return the share of (at most 1000) rows with another one at an angle below 0.1."""
    some = slice(0, min(1000, rows.shape[0]))
    lengths = norms(rows).clamp(min=torch.finfo(torch.float64).tiny)
    cosines = fill_own(products(rows[some], rows).abs_(), some, 0.0) / (lengths[some, None] * lengths)
    return float((cosines.amax(1) > _NEARLY).double().mean())


def _graph(strengths, problem, default_affinity, generator):
    """Return the affinity of the distinct rows, their labels, -1 for rows left out, and its number of components."""
    options, device, seed = problem.options, problem.ws.device, drawn_seed(generator)
    kind = default_affinity if options.affinity == "auto" else options.affinity
    W = affinity(strengths, kind, n_components=options.n_clusters)
    labels, n_components = graph_clusters(
        W, options.n_clusters, random_state=seed, n_init=options.n_init, assign_labels=options.assign_labels
    )
    labels = torch.from_numpy(labels).to(device)
    if len(labels) <= options.n_clusters:  # each direction is a cluster
        labels = torch.where(norms(problem.rows).to(device) > 0, torch.arange(len(labels), device=device), -1)
    if not (labels >= 0).any():  # a graph without an edge: one cluster
        labels = torch.zeros_like(labels)
    return W, labels, n_components


def _subspaces(problem, labels, rank, generator):
    """Return the subspaces of the clusters of distinct rows, refined where asked for, and the labels of all rows."""
    rows, directions, centre, axes, options, ws = problem
    known, K = labels >= 0, int(labels.max()) + 1
    members = [(labels == k).nonzero()[:, 0] for k in range(K)]
    dims = _dimensions(rows, labels, members, options.n_dims)
    bases, components = _bases(rows, members, dims), None
    if options.refine != "none":
        start = torch.where(known, labels, squared_distances(rows, rows.new_zeros(K, rows.shape[1]), bases).argmin(1))
        bases, components = _refined(options.refine, rows, start, dims, generator)

    signs = torch.stack([signs_of_largest(U.mT) for U in bases])[:, None]
    full = bases * signs if axes is None else axes @ (bases * signs)
    coded = options.predict_method == "code"
    model = Subspaces(
        bases=[U[:, :d].to(ws.dtype) for U, d in zip(full, dims)],
        labels=labels,
        centre=centre,
        axes=axes,
        components=components,
        atoms=rows if coded else None,
        atom_places=directions.first if coded else None,
        rank=rank,
    )
    nearest = nearest_subspaces(rows, model)
    labels = (torch.where(known, labels, nearest) if options.refine == "none" else nearest)[directions.place]
    zero = (norms(rows) == 0)[directions.place]
    return model._replace(labels=in_largest_cluster(zero, labels, torch.where(zero, -1, labels)))


def _dimensions(rows, labels, members, n_dims):
    """Return the dimension of each cluster's subspace: one for all, at most the number of the cluster's rows."""
    if n_dims == "auto":
        n_dims = dims_by_threshold(table_of(rows, centred=False), labels, len(members))
    n_dims = min(n_dims, rows.shape[1] - 1)
    return [max(1, min(n_dims, len(m))) for m in members]


def _bases(rows, members, dims):
    """Return the bases (K, D, d) of the subspaces nearest to the rows of each cluster."""
    bases = torch.zeros(len(dims), rows.shape[1], max(dims), dtype=torch.float64, device=device_of(rows))
    for k, (m, d) in enumerate(zip(members, dims)):
        bases[k, :, :d] = _right_singular_vectors(take(rows, m), d)[0]
    return bases


def _refined(how, rows, labels, dims, generator):
    """Return the bases that K-subspaces or the mixture reaches from labels, and in the latter case its parameters."""
    if how == "k-subspaces":
        return alternate(rows, rows.new_ones(len(rows)), labels, dims, centred=False)[1], None

    mixture = refine(rows, labels, dims, generator=generator)
    return mixture.bases, ComponentParams(mixture.weights, mixture.variances, mixture.noise)
