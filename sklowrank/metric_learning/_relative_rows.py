"""Similarities of rows to anchors, seen from the anchors' mean."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array, issparse

from .._core.blocks import in_blocks, rows_per_block
from .._core.workspace import Workspace
from .._math.sparse import csr_tensor

_SHRINKAGE = 1e-3  # of the anchors' covariance, in units of its mean variance
_BLOCKS = 4  # of the size of the answer, held at once


class Anchors(NamedTuple):
    """The fitted anchors; distances are in units of `unit`, and of whitened rows where there are `directions`."""

    anchors: torch.Tensor  # (n_anchors, n_features)
    mean: torch.Tensor  # (n_features,), zeros where rows are not centred
    unit: float  # largest magnitude of the centred anchors
    directions: torch.Tensor | None  # (rank, n_features), principal axes of the anchors
    gains: torch.Tensor | None  # (rank,), factors along them
    rest: float  # factor of what is orthogonal to them
    distance: float  # mean distance of two different anchors
    square: float  # mean squared distance


def fitted_anchors(anchors: torch.Tensor, *, center: bool, whiten: bool) -> Anchors:
    """Return the anchors, in float64, with what similarities to them need."""
    mean = anchors[0] + (anchors - anchors[0]).mean(0) if center else torch.zeros_like(anchors[0])
    Z = anchors - mean
    unit = float(Z.abs().max()) or 1.0
    model = Anchors(anchors, mean, unit, None, None, 1.0, 1.0, 1.0)
    if whiten:
        model = _whitened(Z / unit, model)
    A = _seen(anchors, model)
    pairs = max(1, len(A) * (len(A) - 1))
    D = torch.cdist(A, A, compute_mode="donot_use_mm_for_euclid_dist")
    return model._replace(
        distance=float(D.sum()) / pairs or 1.0,
        square=float(D.square().sum()) / pairs or 1.0,
    )


def _whitened(Z, model):
    """Add the inverse square root of the shrunken covariance, by its axes; without anchors that differ, nothing."""
    s, axes = torch.linalg.svd(Z, full_matrices=False)[1:]
    variances = s.square() / len(Z)
    ridge = _SHRINKAGE * float(variances.sum()) / Z.shape[1]
    if ridge == 0:
        return model
    return model._replace(directions=axes, gains=(variances + ridge).rsqrt(), rest=ridge**-0.5)


def _seen(X, model):
    """Return rows as similarities see them: from the mean, in the unit, whitened."""
    Z = (X - model.mean).div_(model.unit)
    if model.directions is None:
        return Z
    along = Z @ model.directions.T
    return Z.mul_(model.rest).addmm_(along * (model.gains - model.rest), model.directions)


def relative_rows(
    X: Any, model: Anchors, similarities: list[str], *, quantize: float | None, batch_size: int | str, ws: Workspace
) -> torch.Tensor:
    """Return the similarities (n, n_anchors * n_similarities) of rows to the anchors, in blocks of rows.

    X is a tensor or a CSR matrix; sums are in the precision of the model, the answer in that of `ws`.
    """
    n, m = X.shape[0], len(model.anchors)
    A = _seen(model.anchors, model)
    out = torch.empty(n, m * len(similarities), dtype=ws.dtype, device=ws.device)
    squares, lengths = A.square().sum(1), torch.linalg.vector_norm(A, dim=1)
    V = A / torch.where(lengths > 0, lengths, 1.0)[:, None]

    def put(rows):
        Z, norms = _block(X[rows], model, ws)
        by_name = {}
        if {"cosine", "geodesic"} & set(similarities):
            by_name["cosine"] = (Z @ V.T).div_(torch.where(norms > 0, norms, torch.inf)[:, None])  # zeros for zero rows
        if {"euclidean", "rbf"} & set(similarities):
            by_name["square"] = (Z @ A.T).mul_(-2).add_(norms.square()[:, None] + squares).clamp_(min=0)
        for i, name in enumerate(similarities):
            out[rows, i * m : (i + 1) * m] = _similarity(name, by_name, model)

    bytes_per_row = A.element_size() * (2 * X.shape[1] + _BLOCKS * out.shape[1])
    block = rows_per_block(batch_size, n, bytes_per_row)
    for _ in in_blocks(put, n, block, bytes_per_row=bytes_per_row):
        pass
    return out if quantize is None else out.div_(quantize).round_().mul_(quantize)


def _similarity(name, by_name, model):
    """Return one similarity, from cosines and squared distances."""
    if name == "cosine":
        return by_name["cosine"]
    if name == "geodesic":
        return 1 - by_name["cosine"].clamp(-1, 1).arccos() * (2 / math.pi)
    if name == "euclidean":
        return by_name["square"].sqrt() / -model.distance
    return (by_name["square"] / -model.square).exp()


def _block(X, model, ws):
    """Return rows as similarities see them, a tensor or a sparse one, and their norms."""
    dtype = model.mean.dtype
    if not issparse(X):
        Z = _seen(X.to(dtype), model)
        return Z, torch.linalg.vector_norm(Z, dim=1, dtype=torch.float64).to(dtype)
    X = csr_array((X.data / model.unit, X.indices, X.indptr), shape=X.shape)
    norms = np.sqrt(X.multiply(X).sum(1))
    indptr, indices, values = (ws.load(part) for part in (X.indptr, X.indices, X.data))
    return csr_tensor(indptr, indices, values.to(dtype), X.shape), ws.load(norms).to(dtype)
