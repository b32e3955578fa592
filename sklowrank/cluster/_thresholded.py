"""Thresholded subspace clustering: each row is joined to the rows that point most nearly its way."""

import math
import torch
from .._core.graphs import csr_from
from ._gram import mask_own, norms_of, products, walk


def thresholded_codes(X, n_neighbors, *, targets=None, batch_size="auto"):
    """Return the CSR matrix of ``exp(-2 angle)`` to the `n_neighbors` rows of X with the largest |inner product|.

    Of X (n, D) with itself, no row being its own neighbour, or of other rows `targets` with X.
    """
    Y = X if targets is None else targets
    norms, other = norms_of(X), norms_of(Y)
    q = min(n_neighbors, X.shape[0] - (targets is None))

    def nearest(rows):
        G = products(Y[rows], X).abs_()
        if targets is None:
            mask_own(G, rows, -1.0)
        value, column = G.topk(q, dim=1)
        cosine = (value / (other[rows, None] * norms[column])).clamp(max=1.0)
        return column, torch.where(value > 0, torch.exp(-2 * torch.arccos(cosine)), 0.0)  # rows of zeros have no angle

    columns, values = (torch.cat(part) for part in zip(*walk(nearest, Y, X.shape[0], batch_size)))
    return csr_from(columns, values, X.shape[0])
