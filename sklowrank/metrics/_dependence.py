"""Dependence between two tables of vectors."""

import torch
from sklearn.utils import check_array, check_consistent_length

from .._core.blocks import in_blocks, rows_per_block
from .._core.compat import validate_params
from .._core.workspace import open_workspace


@validate_params({"X": ["array-like"], "Y": ["array-like"]}, prefer_skip_nested_validation=True)
def distance_correlation(X, Y):
    """Return the distance correlation of vectors, 0 for independent ones, in the limit of many rows, and at most 1.

    It sees relations of any shape, and does not change when either table is moved, turned or scaled.

    Parameters
    ----------
    X : array-like of shape (n_samples, p) or (n_samples,)
        Vectors.
    Y : array-like of shape (n_samples, q) or (n_samples,)
        Vectors that belong to the same rows.

    Returns
    -------
    value : float
        The biased estimate, by means over all pairs of rows; 0 where X or Y is constant.

    Notes
    -----
    The square of the value is the mean product of the doubly centred distances, over the geometric mean of their mean
    squares. Distances are computed in blocks: time O(n_samples² (p + q)), memory O(n_samples) for each row of a block.

    References
    ----------
    .. [1] G. J. Székely, M. L. Rizzo, N. K. Bakirov, "Measuring and testing dependence by correlation of distances",
       Annals of Statistics, 2007.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.metrics import distance_correlation
    >>> x = np.linspace(-1, 1, 200)
    >>> round(distance_correlation(x, 3 - 2 * x), 6), bool(distance_correlation(x, x**2) > 0.4)
    (1.0, True)
    """
    X, Y = (check_array(A, ensure_2d=False, input_name=name) for A, name in ((X, "X"), (Y, "Y")))
    check_consistent_length(X, Y)
    ws = open_workspace(X).exact()
    A, B = (_scaled(ws.load(table).double()) for table in (X, Y))
    n = len(A)

    def part(rows):
        a, b = (torch.cdist(T[rows], T, compute_mode="donot_use_mm_for_euclid_dist") for T in (A, B))
        products = torch.stack([(u * v).sum() for u, v in ((a, b), (a, a), (b, b))])
        return products, torch.stack([a.mean(1), b.mean(1)], 1)

    parts = list(in_blocks(part, n, rows_per_block("auto", n, 32 * n), bytes_per_row=32 * n))
    products, means = sum(p for p, _ in parts) / n**2, torch.cat([m for _, m in parts])
    whole = means.mean(0)
    covariances = [
        float(product - 2 * (means[:, i] * means[:, j]).mean() + whole[i] * whole[j])
        for product, (i, j) in zip(products, ((0, 1), (0, 0), (1, 1)))
    ]
    spread = (max(covariances[1], 0.0) * max(covariances[2], 0.0)) ** 0.5
    tiny = torch.finfo(torch.float64).eps * float((products[1] * products[2]).sqrt())
    return (max(covariances[0], 0.0) / spread) ** 0.5 if spread > tiny else 0.0


def _scaled(table):
    """Return rows moved and scaled so that nothing overflows."""
    table = table.reshape(len(table), -1)
    table = table - table[:1]
    size = table.abs().amax()
    return table / size if size > 0 else table
