"""Which rows of a table are its anchors."""

from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, column_or_1d

from .._core.rows import RowSource, refuse_kind
from .._core.validation import on_host
from .._core.warn import warn
from .._core.workspace import Workspace

_KMEANS_ITER = 20  # centres of anchors need not converge


class AnchorOptions(NamedTuple):
    """The parameters that choose anchors."""

    n_anchors: int | float
    anchors: Any
    anchor_selection: str


def anchor_indices(rows: RowSource, y, asked: AnchorOptions, ws: Workspace) -> np.ndarray:
    """Return the indices of the rows that are anchors: distinct ones, unless they are given."""
    n = len(rows)
    if asked.anchors is not None and not isinstance(asked.anchors, str):
        return given_indices(asked.anchors, n)
    m = _number(asked.n_anchors, n)
    if asked.anchors == "first":
        return np.arange(m)
    if asked.anchor_selection == "random":
        return torch.randperm(n, generator=ws.generator, device="cpu").numpy()[:m].copy()
    if asked.anchor_selection == "stratified":
        return _stratified(y, n, m, ws)
    needs = f"anchor_selection={asked.anchor_selection!r} needs {{}}. Pass 'random', 'stratified' or anchors for {{}}."
    refuse_kind(rows, "csr", needs.format("dense rows", "sparse X"))
    refuse_kind(rows, "cluster", needs.format("all rows in one place", "partitions"))
    Z = rows.take(slice(0, n)).to(ws.exact().dtype)
    Z = Z - Z.mean(0)
    Z = Z / (Z.abs().max().clamp(min=torch.finfo(Z.dtype).tiny))
    return (_farthest if asked.anchor_selection == "farthest" else _near_centers)(Z, m, ws)


def given_indices(anchors, n: int) -> np.ndarray:
    """Return indices of the user as an array, or raise where they are no indices of n rows."""
    found = np.asarray(on_host(anchors))
    if found.ndim != 1 or len(found) == 0 or found.dtype.kind not in "iu":
        raise ValueError(
            f"anchors has to be a list of at least one integer, the indices of rows of X; got shape {found.shape} and "
            f"type {found.dtype}."
        )
    if found.min() < 0 or found.max() >= n:
        worst = found.min() if found.min() < 0 else found.max()
        raise ValueError(f"anchors has the index {worst}, and X has {n} rows. Pass indices from 0 to {n - 1}.")
    return found.astype(np.int64)


def _number(n_anchors, n):
    """Return how many anchors n rows give."""
    if not isinstance(n_anchors, int | np.integer):
        return max(1, round(n_anchors * n))
    if n_anchors > n:
        warn(f"n_anchors={n_anchors} is more than the {n} rows of X: all {n} rows are anchors.", UserWarning)
    return min(int(n_anchors), n)


def _stratified(y, n, m, ws):
    """Return m drawn rows, of each class its share: rows at equal quantiles of their classes, in a drawn order."""
    if y is None:
        raise ValueError("anchor_selection='stratified' needs the classes y in fit. Pass y, or another selection.")
    labels = on_host(y)
    check_classification_targets(labels)
    labels = column_or_1d(labels)
    check_consistent_length(np.empty(n), labels)
    drawn = torch.randperm(n, generator=ws.generator, device="cpu").numpy()
    _, of, counts = np.unique(labels[drawn], return_inverse=True, return_counts=True)
    by_class = np.argsort(of, kind="stable")
    rank = np.empty(n)
    rank[by_class] = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)
    return drawn[np.argsort((rank + 0.5) / counts[of], kind="stable")[:m]]


def _farthest(Z, m, ws):
    """Return m distinct rows, each the farthest from those before it, beginning with the row farthest from the mean."""
    squares = Z.square().sum(1)
    chosen = squares.argmax()[None]
    nearest = torch.full_like(squares, torch.inf)
    for _ in range(m - 1):
        latest = chosen[-1]
        nearest = torch.minimum(nearest, squares + squares[latest] - 2 * (Z @ Z[latest]))
        nearest[chosen] = -torch.inf
        chosen = torch.cat([chosen, nearest.argmax()[None]])
    return chosen.cpu().numpy()


def _near_centers(Z, m, ws):
    """Return of each of m clusters the row nearest to its centre."""
    rows = Z.to(ws.dtype).cpu().numpy()
    distinct = len(np.unique(rows, axis=0)) if m > 1 else 1
    seed = int(torch.randint(2**31 - 1, (), generator=ws.generator, device="cpu"))
    model = KMeans(min(m, distinct), n_init=1, max_iter=_KMEANS_ITER, random_state=seed).fit(rows)
    away = np.square(rows - model.cluster_centers_[model.labels_]).sum(1)
    order = np.lexsort((away, model.labels_))
    _, start = np.unique(model.labels_[order], return_index=True)
    return _filled(order[start], m, len(rows))


def _filled(chosen, m, n):
    """Return distinct indices, with further ones where there are fewer than m different rows."""
    others = np.setdiff1d(np.arange(n), chosen)
    return np.concatenate([chosen, others[: m - len(chosen)]])
