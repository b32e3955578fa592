"""Statistical dependence between two sets of vectors."""

import torch
from sklearn.utils import check_array, check_consistent_length

from .._core.blocks import in_blocks, rows_per_block
from .._core.compat import validate_params
from .._core.workspace import open_workspace


@validate_params({"X": ["array-like"], "Y": ["array-like"]}, prefer_skip_nested_validation=True)
def distance_correlation(X, Y):
    """Return the distance correlation of two sets of vectors, between 0 and 1.

    For n_samples to infinity it is 0 if and only if X and Y are independent. It measures nonlinear dependence as well
    as linear, and is invariant to translation, rotation and scaling of X or Y.

    Parameters
    ----------
    X : array-like of shape (n_samples, p) or (n_samples,)
        Vectors.
    Y : array-like of shape (n_samples, q) or (n_samples,)
        Vectors of the same samples.

    Returns
    -------
    value : float
        Biased estimate (V-statistic); 0 where X or Y is constant.

    Notes
    -----
    The square of the value is the distance covariance, the mean product of the doubly centred distances, divided by the
    geometric mean of the two distance variances. For ``p = q = 1`` time is O(n_samples log n_samples) and memory
    O(n_samples) [2]_, [3]_. Otherwise distances are computed in blocks: time O(n_samples² (p + q)), memory O(n_samples)
    for each row of a block.

    References
    ----------
    .. [1] G. J. Székely, M. L. Rizzo, N. K. Bakirov, "Measuring and testing dependence by correlation of distances",
       Annals of Statistics, 2007.
    .. [2] X. Huo, G. J. Székely, "Fast computing for distance covariance", Technometrics 58(4), 2016.
    .. [3] A. Chaudhuri, W. Hu, "A fast algorithm for computing distance correlation", Computational Statistics & Data
       Analysis 135, 2019.

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
    of_columns = A.shape[1] == B.shape[1] == 1
    products, means = _distances_of_columns(A[:, 0], B[:, 0]) if of_columns else _distances_of_rows(A, B)
    whole = means.mean(0)
    covariances = [
        float(product - 2 * (means[:, i] * means[:, j]).mean() + whole[i] * whole[j])
        for product, (i, j) in zip(products, ((0, 1), (0, 0), (1, 1)))
    ]
    spread = (max(covariances[1], 0.0) * max(covariances[2], 0.0)) ** 0.5
    tiny = torch.finfo(torch.float64).eps * float((products[1] * products[2]).sqrt())
    return (max(covariances[0], 0.0) / spread) ** 0.5 if spread > tiny else 0.0


def _scaled(table):
    """Return vectors translated and scaled so that distances do not overflow."""
    table = table.reshape(len(table), -1)
    table = table - table[:1]
    size = table.abs().amax()
    return table / size if size > 0 else table


def _distances_of_rows(A, B):
    """Return the means of the products a b, a a, b b of distances between rows, and the means (n, 2) of each row."""
    n = len(A)

    def part(rows):
        a, b = (torch.cdist(T[rows], T, compute_mode="donot_use_mm_for_euclid_dist") for T in (A, B))
        products = torch.stack([(u * v).sum() for u, v in ((a, b), (a, a), (b, b))])
        return products, torch.stack([a.mean(1), b.mean(1)], 1)

    parts = list(in_blocks(part, n, rows_per_block("auto", n, 32 * n), bytes_per_row=32 * n))
    return sum(p for p, _ in parts) / n**2, torch.cat([m for _, m in parts])


def _distances_of_columns(x, y):
    """Return the same for numbers x (n,) and y (n,), in O(n log n)."""
    n = len(x)
    x, y = x - x.mean(), y - y.mean()
    squares = [2 * (v.square().mean() - v.mean() ** 2) for v in (x, y)]
    order = x.argsort()
    a, b = x[order], y[order]
    V = torch.stack([torch.ones_like(a), a, b, a * b], 1)
    count, sum_a, sum_b, sum_ab = (2 * _sums_below(b, V) - (V.cumsum(0) - V)).T
    product = 2 * (count * a * b - a * sum_b - b * sum_a + sum_ab).sum() / n**2
    return torch.stack([product, *squares]), torch.stack([_mean_distances(x), _mean_distances(y)], 1)


def _mean_distances(x):
    """Return the mean distance of each number from all numbers."""
    n = len(x)
    order = x.argsort()
    ordered = x[order]
    before = ordered.cumsum(0) - ordered
    places = torch.arange(n, dtype=x.dtype, device=x.device)
    means = torch.empty_like(x)
    means[order] = ((2 * places - n) * ordered + ordered.sum() - 2 * before) / n
    return means


def _sums_below(y, V):
    """Return for each row the sum of V (n, k) over the rows before it with a smaller y; ties may count or not.

    Rows sorted by y are partitioned by the bits of their positions, the highest first: at each bit, rows whose bit is
    set add the rows before them whose bit is not.
    """
    place = y.argsort()
    values, sums = V[place], torch.zeros_like(V)
    at = torch.arange(len(y), device=y.device)
    for bit in reversed(range((len(y) - 1).bit_length())):
        is_set = (place >> bit & 1).bool()
        begin = place >> (bit + 1) << (bit + 1)  # of the rows that agree in all higher bits
        parts = torch.cat([(~is_set)[:, None].to(V.dtype), values * ~is_set[:, None]], 1)
        sums_before = parts.cumsum(0)
        sums_before = sums_before - (sums_before - parts)[begin]
        sums[place[is_set]] += sums_before[is_set, 1:]
        unset = sums_before[:, 0].long() - (~is_set).long()
        to = begin + torch.where(is_set, (1 << bit) + at - begin - unset, unset)
        place, values = (
            torch.empty_like(place).scatter(0, to, place),
            torch.empty_like(values).index_copy(0, to, values),
        )
    return sums
