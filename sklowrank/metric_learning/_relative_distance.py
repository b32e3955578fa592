"""How alike two encoders are: their relative rows, compared."""

from numbers import Integral

import torch
from sklearn.utils import Bunch
from sklearn.utils.validation import check_consistent_length

from .._core.blocks import in_blocks, rows_per_block
from .._core.compat import Interval, validate_params
from .._core.workspace import open_workspace
from ._relative_representation import RelativeRepresentation


@validate_params(
    {"n_neighbors": [Interval(Integral, 1, None, closed="left")]},
    prefer_skip_nested_validation=True,
)
def relative_distance(X1, X2, anchors, *, n_neighbors=10, similarity="cosine", center=True) -> Bunch:
    """Return how alike two tables of embeddings of the same objects are, by their relative representations.

    Parameters
    ----------
    X1 : array-like, tensor or sparse matrix of shape (n_samples, n_features)
        Rows of one encoder, two at least.
    X2 : array-like, tensor or sparse matrix of shape (n_samples, n_other_features)
        Rows of the other, for the same objects in the same order.
    anchors : array-like of shape (n_anchors,)
        Indices of the rows that are anchors, in both tables.
    n_neighbors : int, default=10
        Number of nearest neighbours. At most ``n_samples - 1`` are used.
    similarity : {"cosine", "euclidean", "rbf", "geodesic"} or list of these, default="cosine"
        Similarity of a row and an anchor, as in :class:`RelativeRepresentation`.
    center : bool, default=True
        Whether to subtract the column means. They are those of the anchors.

    Returns
    -------
    likeness : Bunch
        Three numbers of at most 1, which is reached where the relative rows are equal: `cosine`, the mean cosine of
        matching relative rows; `reciprocal_rank`, the mean of 1 / rank of a row among all of the other table, by cosine
        with its partner, where ties have the best rank; `jaccard`, the mean Jaccard index of the nearest neighbours of
        a row in both tables, by cosine.

    See Also
    --------
    RelativeRepresentation : The relative rows.

    Notes
    -----
    Time O(n_samples² n_anchors), in blocks of rows.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.metric_learning import relative_distance
    >>> X = np.random.default_rng(0).normal(size=(100, 5))
    >>> Z = X[:, ::-1] + 1  # columns in another order, and an offset
    >>> likeness = relative_distance(X, Z, anchors=range(20))
    >>> round(likeness.cosine, 6), round(likeness.reciprocal_rank, 6), round(likeness.jaccard, 6)
    (1.0, 1.0, 1.0)
    """
    check_consistent_length(X1, X2)
    settings = {"anchors": anchors, "similarity": similarity, "center": center}
    first, second = (RelativeRepresentation(**settings).fit(X).transform(X) for X in (X1, X2))
    ws = open_workspace(first)
    r, s = (ws.exact().load(rows) for rows in (first, second))
    if len(r) < 2:
        raise ValueError(f"Found {len(r)} sample in X1 and X2, and neighbours need at least 2 of them.")
    noise = 64 * torch.finfo(torch.promote_types(*(open_workspace(x).dtype for x in (first, second)))).eps
    cosine, reciprocal_rank, jaccard = likenesses(r, s, min(n_neighbors, len(r) - 1), noise)
    return Bunch(cosine=cosine, reciprocal_rank=reciprocal_rank, jaccard=jaccard)


def likenesses(r: torch.Tensor, s: torch.Tensor, k: int, noise: float) -> tuple[float, float, float]:
    """Return mean cosine, reciprocal rank and Jaccard index of k neighbours; cosines within `noise` are ties."""
    r, s = (_unit(rows) for rows in (r, s))

    def of_block(rows):
        C = r[rows] @ s.T
        own = (r[rows] * s[rows]).sum(1)
        rank = 1 + (own[:, None] + noise < C).sum(1)
        near, other = _neighbors(r, rows, k), _neighbors(s, rows, k)
        common = (near[:, :, None] == other[:, None, :]).sum((1, 2)).double()
        return torch.stack([own.sum(), (1 / rank.double()).sum(), (common / (2 * k - common)).sum()])

    bytes_per_row = r.element_size() * (3 * len(r) + k * k)
    block = rows_per_block("auto", len(r), bytes_per_row)
    parts = list(in_blocks(of_block, len(r), block, bytes_per_row=bytes_per_row))
    cosine, rank, jaccard = (torch.stack(parts).sum(0) / len(r)).tolist()
    return cosine, rank, jaccard


def _unit(rows):
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(norms > 0, norms, 1.0)


def _neighbors(r, rows, k):
    """Return the indices of the k rows with the largest cosine, without the row itself."""
    C = r[rows] @ r.T
    at = torch.arange(len(C), device=r.device)
    C[at, at + rows.start] = -torch.inf
    return C.topk(k, dim=1).indices
