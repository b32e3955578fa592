"""Coding rate of rows, and its reduction by a clustering."""

import math
from numbers import Real

import numpy as np
import torch
from sklearn.utils import check_array, check_consistent_length

from .._core.compat import Interval, validate_params
from ._labels import check_labels

_PRECISION = [Interval(Real, 0, None, closed="neither")]


@validate_params({"Z": ["array-like"], "precision": _PRECISION}, prefer_skip_nested_validation=True)
def coding_rate(Z, precision=0.5):
    r"""Return the coding rate of rows: the mean number of nats to encode a row up to a precision.

    .. math:: \tfrac12\log\det\Bigl(I + \tfrac{d}{n\epsilon^2} Z^\top Z\Bigr)

    It measures volume: high for rows that spread over all directions, low for rows near a subspace, 0 for rows of
    zeros.

    Parameters
    ----------
    Z : array-like of shape (n_samples, n_features)
        The rows. They are not centred. To compare rates, scale rows alike, for example to unit norm.
    precision : float, default=0.5
        Squared precision :math:`\epsilon^2`, > 0, in squared units of Z.

    Returns
    -------
    rate : float
        Nats per row, at least 0.

    See Also
    --------
    sklowrank.metrics.rate_reduction : Reduction of the coding rate by a clustering.

    References
    ----------
    .. [1] Y. Ma, H. Derksen, W. Hong, J. Wright, "Segmentation of multivariate mixed data via lossy data coding and
       compression", IEEE Transactions on Pattern Analysis and Machine Intelligence, 2007.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.metrics import coding_rate
    >>> round(coding_rate(np.eye(4)), 3), round(coding_rate(np.eye(4)[[0, 0, 0, 0]]), 3)
    (2.197, 1.099)
    """
    return _rate(_rows(Z), precision)


@validate_params(
    {"Z": ["array-like"], "membership": ["array-like"], "precision": _PRECISION}, prefer_skip_nested_validation=True
)
def rate_reduction(Z, membership, precision=0.5):
    r"""Return the coding rate of rows minus the mean rate of their clusters: the objective of MCR².

    .. math:: \tfrac12\log\det\Bigl(I + \tfrac{d}{n\epsilon^2} Z^\top Z\Bigr) -
        \sum_j \frac{t_j}{2n}\log\det\Bigl(I + \tfrac{d}{t_j\epsilon^2} Z^\top \operatorname{diag}(\Pi_j) Z\Bigr)

    where :math:`\Pi_j` is the j-th column of the membership and :math:`t_j` its sum. It is large where clusters span
    orthogonal subspaces, each with rows in all of its directions. It compares clusterings of the same features, or
    features of equal number and scale.

    Parameters
    ----------
    Z : array-like of shape (n_samples, n_features)
        The rows, usually of unit norm.
    membership : array-like of shape (n_samples,) or (n_samples, n_clusters)
        Labels, numbers or strings; or membership weights of each row in the clusters, at least 0.
    precision : float, default=0.5
        Squared precision :math:`\epsilon^2`, > 0, in squared units of Z.

    Returns
    -------
    reduction : float
        Nats per row. At least 0 where the weights of each row sum to 1.

    See Also
    --------
    sklowrank.metrics.coding_rate : The first term.
    sklowrank.cluster.ManifoldLinearizingClustering : Features and memberships that maximise it.

    References
    ----------
    .. [1] Y. Yu, K. H. R. Chan, C. You, C. Song, Y. Ma, "Learning diverse and discriminative representations via the
       principle of maximal coding rate reduction", NeurIPS 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.metrics import rate_reduction
    >>> Z = np.eye(4)[[0, 0, 1, 1]]
    >>> round(rate_reduction(Z, [0, 0, 1, 1]), 3)  # the clusters are the two directions
    0.511
    >>> bool(abs(rate_reduction(Z, [0, 1, 0, 1])) < 1e-12)  # clusters unrelated to Z
    True
    """
    rows = _rows(Z)
    shares = check_array(_shares(membership), dtype=np.float64, input_name="membership")
    check_consistent_length(rows, shares)
    if shares.min() < 0:
        raise ValueError(
            f"membership has the negative entry {shares.min():.3g}. Pass weights of at least 0, or labels."
        )
    sums = shares.sum(axis=0)
    left = 0.0
    for share, total in zip(shares.T, sums):
        if total > 0:
            weighted = rows * torch.from_numpy(share / total).sqrt()[:, None] * len(rows) ** 0.5
            left += total / len(rows) * _rate(weighted, precision)
    return float(_rate(rows, precision) - left)


def _rate(rows, precision):
    """Return the coding rate by singular values: rounding would make a Gram matrix of large rows indefinite."""
    n, d = rows.shape
    log_squares = 2 * torch.linalg.svdvals(rows).log() + math.log(d / n) - math.log(precision)
    return float(torch.logaddexp(log_squares, torch.zeros_like(log_squares)).sum()) / 2


def _rows(Z):
    return torch.from_numpy(np.ascontiguousarray(check_array(Z, dtype=np.float64, input_name="Z")))


def _shares(membership):
    """Return labels as an indicator matrix; a matrix as it is."""
    if np.ndim(membership) != 1:
        return membership
    names, labels = np.unique(check_labels(membership, "membership"), return_inverse=True)
    return np.eye(len(names))[labels]
