"""What the self-expressive clusterers share: rows made ready, and the way from codes to labels, flats and predictions.

Each method codes every row as a combination of the other rows. The codes make a graph, its spectrum makes clusters, and
the clusters make subspaces, by which new rows are assigned. Methods differ in how they code and in nothing else.
"""

from numbers import Integral
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.exceptions import ConvergenceWarning

from .._core.blocks import in_blocks, rows_per_block
from .._core.validation import check_fit_data, check_new_data
from .._core.warn import warn
from .._core.workspace import Workspace, open_workspace
from .._math.em import refine
from .._math.graphs import affinity, graph_clusters, largest_cluster, pack, strong_pieces, unpack
from .._math.linalg import signs_of_largest
from .._math.mixtures import LowRankGaussians, log_joint
from .._math.subspaces import (
    dims_by_threshold,
    first_largest,
    nearest_flats,
    squared_distances,
    table_of,
    top_eigenpairs,
)
from ._directions import Directions, codes_of_all, distinct_directions, graph_of_all, rows_at
from ._gram import mask_own, norms_of, products
from ._k_subspaces_solver import alternate

_LEFT_OUT = 0.1  # share of rows outside the largest components, from which a graph has fallen apart
_MOST = 0.5  # share of rows with a near copy, from which these are the cause
_STRONG = 0.1  # share of the largest weight of a row from which an edge is strong
_NEARLY = 0.995  # cosine of an angle of 0.1: such rows are nearly equal


class Ready(NamedTuple):
    """Rows as they are coded: centred, projected on principal axes and scaled to unit length, as far as asked for."""

    rows: torch.Tensor | sp.csr_array  # (m, p), float64: in `fit` the distinct ones
    centre: torch.Tensor | None  # (D,)
    axes: torch.Tensor | None  # (D, p)
    ws: Workspace
    directions: Directions | None = None  # which of the distinct rows each of n rows equals


# Rows made ready


def read(estimator, X, *, sparse: bool = False):
    """Validate the X of `fit`."""
    X = check_fit_data(
        estimator, X, ensure_min_features=2, ensure_min_samples=2, accept_sparse="csr" if sparse else False
    )
    n_samples, n_features = X.shape
    if n_samples < estimator.n_clusters:
        raise ValueError(
            f"n_samples={n_samples} should be >= n_clusters={estimator.n_clusters}. Lower n_clusters or add data."
        )
    if estimator.n_dims != "auto" and estimator.n_dims >= n_features:
        raise ValueError(
            f"n_dims={estimator.n_dims} is too large for X with n_features={n_features}. "
            f"Pass at most {n_features - 1}, or 'auto'."
        )
    if sp.issparse(X) and estimator.center:
        raise ValueError("center=True would make a sparse X dense. Pass center=False, or X.toarray().")
    if sp.issparse(X) and estimator.refine != "none" and estimator.n_pca is None:
        raise ValueError(f"refine={estimator.refine!r} needs dense rows. Pass n_pca, X.toarray(), or refine='none'.")
    return X


def make_ready(estimator, X, *, negatives: bool = True) -> Ready:
    """Return the distinct training rows as they are coded; warn of rows that are all zeros.

    With `negatives` a row and its negative count as one.
    """
    ws = open_workspace(X, device=estimator.device, random_state=estimator.random_state)
    rows = sp.csr_array(X, dtype=np.float64) if sp.issparse(X) else ws.load(X).double()
    centre = rows.mean(0) if estimator.center else None
    rows = rows if centre is None else rows - centre
    axes = None if estimator.n_pca is None else _principal_axes(rows, estimator.n_pca)
    rows = _scaled(_projected(rows, axes), estimator.normalize)
    n_zeros = int((_lengths(rows) == 0).sum())
    if n_zeros:
        warn(
            f"{n_zeros} of {rows.shape[0]} rows are all zeros and say nothing about a subspace; they join the largest "
            "cluster. Leave them out, or pass center=True.",
            UserWarning,
        )
    directions = distinct_directions(rows, negatives=negatives)
    return Ready(rows_at(rows, directions.first), centre, axes, ws, directions)


def _principal_axes(rows, n_pca):
    """Return the leading right singular vectors (D, p) of rows, or as many as hold the share `n_pca` of the squares."""
    V, e = _right_singular_vectors(rows, min(rows.shape))
    if isinstance(n_pca, Integral):
        return V[:, : max(2, n_pca)]
    held = e.cumsum(0) / e.sum().clamp(min=torch.finfo(e.dtype).tiny)
    return V[:, : max(2, int((held < n_pca).sum()) + 1)]


def _right_singular_vectors(rows, count):
    """Return `count` right singular vectors (D, count) and squared singular values, by the smaller Gram matrix."""
    n, D = rows.shape
    if n >= D:
        return top_eigenpairs(_dense(rows.T @ rows), count)
    V, e = top_eigenpairs(_dense(rows @ rows.T), count)
    U = torch.from_numpy(rows.T @ V.numpy()) if sp.issparse(rows) else rows.T @ V
    return torch.linalg.qr(U / e.clamp(min=torch.finfo(e.dtype).tiny).sqrt()).Q, e


def _dense(product):
    return torch.from_numpy(product.toarray()) if sp.issparse(product) else product


def _projected(rows, axes):
    if axes is None:
        return rows
    return torch.from_numpy(rows @ axes.cpu().numpy()) if sp.issparse(rows) else rows @ axes


def _scaled(rows, normalize):
    """Return rows of unit length; rows of zeros stay so."""
    if not normalize:
        return rows
    tiny = np.finfo(np.float64).tiny
    if sp.issparse(rows):
        return sp.csr_array(sp.diags_array(1 / np.maximum(_lengths(rows).numpy(), tiny)) @ rows)
    largest = rows.abs().amax(1, keepdim=True).clamp(min=tiny)  # squares of the quotient neither overflow nor vanish
    return torch.nn.functional.normalize(rows / largest, dim=1, eps=tiny)


def _lengths(rows):
    if sp.issparse(rows):
        return torch.from_numpy(np.sqrt(np.asarray(rows.power(2).sum(axis=1)).ravel()))
    return torch.linalg.vector_norm(rows, dim=1)


# From codes to clusters


def outcome(estimator, ready: Ready, codes, *, strengths=None, affinity_by_default: str) -> dict:
    """Return the fitted attributes that follow from codes (m, m) of the distinct rows, CSR or dense.

    `strengths` (m, m) make the graph in place of the codes themselves.
    """
    how = affinity_by_default if estimator.affinity == "auto" else estimator.affinity
    K, ws = estimator.n_clusters, ready.ws
    W = affinity(codes if strengths is None else strengths, how, n_pieces=K)
    seed = int(torch.randint(2**31 - 1, (1,), generator=ws.generator, dtype=torch.long, device="cpu"))
    labels, n_pieces = graph_clusters(
        W, K, random_state=seed, n_init=estimator.n_init, assign_labels=estimator.assign_labels
    )
    labels = torch.from_numpy(labels).to(ws.device)
    if len(labels) <= K:  # each direction is a cluster
        labels = torch.where(_lengths(ready.rows).to(ws.device) > 0, torch.arange(len(labels), device=ws.device), -1)
    return {
        **_flats(estimator, ready, labels),
        **_stored_codes(codes_of_all(codes, ready.directions), ws),
        "_affinity": pack(graph_of_all(W.astype(_numpy_dtype(ws)), ready.directions)),
        "n_components_graph_": n_pieces,
    }


def conclude(estimator, ready: Ready, found: dict) -> None:
    """Set the fitted attributes; warn of fewer clusters than asked for, or of a graph that falls apart."""
    vars(estimator).update(found)
    K, n_found, n_distinct = estimator.n_clusters, len(found["bases_"]), len(ready.directions.first)
    raised = [name for name in ("n_neighbors", "n_nonzero", "gamma") if hasattr(estimator, name)]
    denser = f"raise {' or '.join(raised)}" if raised else "take affinity='max'"
    if n_found < K:
        n_components = found["n_components_graph_"]
        warn(
            f"The number of clusters found, {n_found}, is smaller than n_clusters={K}: the rows of X have {n_distinct} "
            f"distinct directions, which form {n_components} connected components of the graph. Lower n_clusters, "
            f"or {denser if n_distinct >= K else 'add rows'}.",
            ConvergenceWarning,
        )
    elif n_distinct > K:
        _warn_of_pieces(unpack(found["_affinity"]), K, _share_of_close(ready.rows), denser)


def _warn_of_pieces(W, K, close, denser):
    """Warn if many rows lie outside the largest components; of strong edges, where most rows have a near copy."""
    near = close > _MOST
    n_pieces, left_out = strong_pieces(W, K, _STRONG if near else 0.0)
    if left_out <= _LEFT_OUT:
        return
    edges = "edges of a tenth of a row's largest" if near else "edges"
    cause = f"{close:.0%} of the rows have a nearly equal row, which dominates their codes. Merge such rows, or"
    warn(
        f"The graph falls apart: its {edges} leave {n_pieces} connected components for n_clusters={K}, and "
        f"{left_out:.0%} of the rows are in none of the {K} largest. {cause if near else 'The codes are too sparse:'} "
        f"{denser}.",
        UserWarning,
    )


def _share_of_close(rows):
    """Return the share of (at most 1000) rows with another one at an angle below 0.1."""
    some = slice(0, min(1000, rows.shape[0]))
    lengths = norms_of(rows).clamp(min=torch.finfo(torch.float64).tiny)
    cosines = mask_own(products(rows[some], rows).abs_(), some, 0.0) / (lengths[some, None] * lengths)
    return float((cosines.amax(1) > _NEARLY).double().mean())


def _stored_codes(codes, ws):
    if sp.issparse(codes):
        return {"_representation": pack(codes.astype(_numpy_dtype(ws)))}
    return {"representation_": ws.store(codes.to(ws.dtype))}


def _numpy_dtype(ws):
    return np.float32 if ws.dtype == torch.float32 else np.float64


def _flats(estimator, ready, labels):
    """Return the flats of the clusters, the labels of all rows, and what predictions need."""
    rows, ws = ready.rows, ready.ws
    known = labels >= 0
    if not known.any():  # a graph without an edge: one cluster
        known, labels = known | True, torch.zeros_like(labels)
    K = int(labels.max()) + 1
    members = [(known & (labels == k)).nonzero()[:, 0] for k in range(K)]
    dims = _dimensions(estimator, rows, torch.where(known, labels, -1), members)
    bases = _bases(rows, members, dims)
    mixture = None
    if estimator.refine != "none":
        filled = torch.where(known, labels, squared_distances(rows, rows.new_zeros(K, rows.shape[1]), bases).argmin(1))
        bases, mixture = _refined(estimator.refine, rows, filled, dims, ws)

    signs = torch.stack([signs_of_largest(U.mT) for U in bases])[:, None]
    full = bases * signs if ready.axes is None else ready.axes @ (bases * signs)
    found = {
        "bases_": [ws.store(U[:, :d].to(ws.dtype)) for U, d in zip(full, dims)],
        "means_": ws.store(_means(ready, K, full.shape[1])),
        "n_dims_": ws.store(torch.tensor(dims, device=ws.device)),
        "_preparation": [ws.store(part) for part in (ready.centre, ready.axes) if part is not None],
        "_mixture": [ws.store(part) for part in (mixture.weights, mixture.variances, mixture.noise)] if mixture else [],
        "_training_rows": None,
        "_places": None,
    }
    if estimator.predict_method == "code":
        found["_training_rows"] = pack(rows) if sp.issparse(rows) else ws.store(rows)
        found["_places"] = ws.store(ready.directions.first)
    assigned = _assigned(estimator, found, ready, rows)
    labels = torch.where(known, labels, assigned) if estimator.refine == "none" else assigned
    place, zero = ready.directions.place.to(labels.device), _lengths(rows).to(labels.device) == 0
    return {**found, "labels_": ws.store(_place_zeros(zero[place], labels[place]))}


def _refined(how, rows, labels, dims, ws):
    """Return the bases that K-subspaces or the mixture reaches from labels, and in the latter case the mixture."""
    if how == "k-subspaces":
        return alternate(rows, rows.new_ones(len(rows)), labels, dims, centred=False)[1], None

    mixture = refine(rows, labels, dims, generator=ws.generator)
    return mixture.bases, mixture


def _means(ready, K, D):
    if ready.centre is None:
        return torch.zeros(K, D, dtype=ready.ws.dtype, device=ready.ws.device)
    return ready.centre.to(ready.ws.dtype).expand(K, D)


def _dimensions(estimator, rows, labels, members):
    """Return the dimension of each cluster's subspace: one for all, as far as a cluster has the rows."""
    if estimator.n_dims == "auto":
        dimension = dims_by_threshold(table_of(rows, centred=False), labels, len(members))
    else:
        dimension = min(estimator.n_dims, rows.shape[1] - 1)
    return [max(1, min(dimension, len(m))) for m in members]


def _bases(rows, members, dims):
    """Return the bases (K, D, d) of the subspaces nearest to the rows of each cluster."""
    device = "cpu" if sp.issparse(rows) else rows.device
    bases = torch.zeros(len(dims), rows.shape[1], max(dims), dtype=torch.float64, device=device)
    for k, (m, d) in enumerate(zip(members, dims)):
        bases[k, :, :d] = _right_singular_vectors(rows[_index(rows, m)], d)[0]
    return bases


def _index(rows, positions):
    return positions.cpu().numpy() if sp.issparse(rows) else positions


def _place_zeros(zero, labels):
    """Give rows of zeros, which lie in every subspace, to the largest cluster."""
    if not zero.any():
        return labels
    return torch.where(zero, largest_cluster(torch.where(zero, -1, labels).cpu().numpy()), labels)


# New rows


def predict(estimator, X, code, *, sparse: bool = False):
    """Return the clusters of new rows; ``code(estimator, atoms, rows, ws)`` codes them for `predict_method` "code"."""
    X = check_new_data(estimator, X, method="predict", like="means_", accept_sparse="csr" if sparse else False)
    ws = open_workspace(X, device=estimator.device, random_state=estimator.random_state)
    exact, left = ws.exact(), list(estimator._preparation)
    centre = exact.load(left.pop(0)) if estimator.center else None
    axes = exact.load(left.pop(0)) if left else None
    rows = sp.csr_array(X, dtype=np.float64) if sp.issparse(X) else ws.load(X).double()
    rows = rows if centre is None else rows - centre
    rows = _scaled(_projected(rows, axes), estimator.normalize)
    ready = Ready(rows, centre, axes, ws)
    labels = _assigned(estimator, vars(estimator), ready, rows)
    if estimator.predict_method == "code":
        labels = _labels_by_code(estimator, ready, labels, code)
    zero = _lengths(rows).to(labels.device) == 0
    return ws.store(torch.where(zero, largest_cluster(_training_labels(estimator, ws)), labels))


def _training_labels(estimator, ws):
    return ws.load(estimator.labels_).cpu().numpy()


def _assigned(estimator, fitted, ready, rows):
    """Return the nearest subspace of each row, or its most probable component after refining by the mixture."""
    exact = ready.ws.exact()
    bases = [exact.load(U) for U in fitted["bases_"]]
    width = max(U.shape[1] for U in bases)
    bases = torch.stack([torch.nn.functional.pad(U, (0, width - U.shape[1])) for U in bases])
    bases = bases if ready.axes is None else ready.axes.mT @ bases
    K, D = len(bases), bases.shape[1]
    flat, origin = bases.permute(1, 0, 2).reshape(D, -1), bases.new_zeros(K, D)
    posterior = _posterior([exact.load(part) for part in fitted["_mixture"]], origin, bases)

    def nearest(at):
        part = rows[at]
        if posterior is not None:
            return first_largest(posterior(part))
        if sp.issparse(part):
            P = torch.from_numpy(part @ flat.numpy()).view(-1, K, width)
            return first_largest(P.square().sum(2))  # the flats pass through the origin: the largest leaves least
        return nearest_flats(part, origin, bases)[0]

    per_row = 8 * (3 * D + 3 * K * (width + 2))
    block = rows_per_block("auto", rows.shape[0], per_row)
    return torch.cat(list(in_blocks(nearest, rows.shape[0], block, bytes_per_row=per_row)))


def _posterior(mixture, means, bases):
    """Return the joint log densities of rows as a function, or None where nothing was refined by the mixture."""
    if not mixture:
        return None
    weights, variances, noise = mixture
    model = LowRankGaussians(weights, means, bases, variances, noise)
    return lambda part: log_joint(part, model)


def _labels_by_code(estimator, ready, labels, code):
    """Return the cluster with the largest absolute code mass of each row; `labels` where the code is empty."""
    atoms = estimator._training_rows
    if atoms is None:
        raise ValueError("predict_method='code' needs the training rows. Set it before fit.")
    atoms = unpack(atoms) if isinstance(atoms, list) else ready.ws.exact().load(atoms)
    rows = ready.rows
    if sp.issparse(rows) != sp.issparse(atoms):
        rows, atoms = (part if sp.issparse(part) else sp.csr_array(part.cpu().numpy()) for part in (rows, atoms))
    codes = code(estimator, atoms, rows, ready.ws)
    known = _training_labels(estimator, ready.ws)[ready.ws.load(estimator._places).cpu().numpy()]
    member = sp.csr_array((np.ones(len(known)), (np.arange(len(known)), known)))
    if sp.issparse(codes):
        mass = torch.from_numpy((abs(codes) @ member).toarray())
    else:
        mass = codes.abs() @ torch.from_numpy(member.toarray()).to(codes)
    return torch.where((mass > 0).any(1).to(labels.device), mass.argmax(1).to(labels.device), labels)
