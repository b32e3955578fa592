"""Accuracy of a clustering, error of estimated subspaces, error of self-expressive codes."""

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics.cluster import contingency_matrix
from sklearn.utils import check_array, check_consistent_length

from .._core.compat import validate_params
from ._labels import check_labels


@validate_params({"y": ["array-like"], "labels": ["array-like"]}, prefer_skip_nested_validation=True)
def clustering_accuracy(y, labels):
    """Return the accuracy of clusters under the best one-to-one matching to classes.

    The matching maximises the number of rows that agree, by the Hungarian method on the contingency table. The value is
    on the scale of a classifier's accuracy. Unlike :func:`~sklearn.metrics.adjusted_rand_score` it is not corrected for
    chance.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Classes: numbers or strings.
    labels : array-like of shape (n_samples,)
        Clusters: numbers or strings. There may be more or fewer clusters than classes; surplus ones are not matched.

    Returns
    -------
    accuracy : float
        Between 0 and 1, higher is better.

    See Also
    --------
    sklearn.metrics.adjusted_rand_score : Agreement of pairs of rows, corrected for chance.

    Examples
    --------
    >>> from sklowrank.metrics import clustering_accuracy
    >>> clustering_accuracy(["a", "a", "b", "b"], [1, 1, 0, 2])
    0.75
    """
    y, labels = check_labels(y, "y"), check_labels(labels, "labels")
    check_consistent_length(y, labels)
    table = contingency_matrix(y, labels)
    return float(table[linear_sum_assignment(table, maximize=True)].sum() / len(y))


@validate_params({"bases_a": ["array-like"], "bases_b": ["array-like"]}, prefer_skip_nested_validation=True)
def subspace_recovery_error(bases_a, bases_b):
    r"""Return the distance between two sets of subspaces, which does not depend on their order or on their bases.

    The mean of :math:`\|UU^\top - VV^\top\|_F / \sqrt{d_U + d_V}` over the best one-to-one matching, where the bases U
    and V have :math:`d_U` and :math:`d_V` columns: 0 for equal subspaces, 1 for orthogonal ones.

    Parameters
    ----------
    bases_a, bases_b : sequences of n_subspaces arrays of shape (n_features, n_dims)
        Bases with orthonormal columns; `n_dims` may differ between subspaces.

    Returns
    -------
    error : float
        Between 0 and 1, lower is better.

    Raises
    ------
    ValueError
        If the sequences differ in length, bases differ in `n_features`, or columns are not orthonormal.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.metrics import subspace_recovery_error
    >>> plane, line = np.eye(4)[:, :2], np.eye(4)[:, 3:]
    >>> subspace_recovery_error([plane, line], [-line, plane[:, ::-1]])
    0.0
    """
    a, b = _check_bases(bases_a, "bases_a"), _check_bases(bases_b, "bases_b")
    if len(a) != len(b) or len({len(U) for U in (*a, *b)}) != 1:
        raise ValueError(
            f"bases_a has {len(a)} subspaces and bases_b has {len(b)}, with n_features in "
            f"{sorted({len(U) for U in (*a, *b)})}. Pass equal numbers of subspaces, of one number of features."
        )
    apart = np.array([[_projections_apart(U, V) for V in b] for U in a])
    return float(apart[linear_sum_assignment(apart)].mean())


@validate_params(
    {"representation": ["array-like", "sparse matrix"], "y": ["array-like"]}, prefer_skip_nested_validation=True
)
def subspace_preserving_error(representation, y):
    """Return the share of the 1-norm of codes that is on rows of other classes, the mean over rows.

    A self-expressive clusterer codes each row as a linear combination of other rows. The error is 0 where all nonzero
    coefficients are on rows of the same class: the graph then has no edge between classes.

    Parameters
    ----------
    representation : array-like or sparse matrix of shape (n_samples, n_samples)
        Codes, one per row, such as `representation_` of the self-expressive clusterers.
    y : array-like of shape (n_samples,)
        Classes: numbers or strings.

    Returns
    -------
    error : float
        Between 0 and 1, lower is better. The error of a row whose code is zero is 0.

    Examples
    --------
    >>> from sklowrank.metrics import subspace_preserving_error
    >>> codes = [[0.0, 0.5, 0.0], [0.3, 0.0, -0.1], [0.0, 0.0, 0.0]]
    >>> round(subspace_preserving_error(codes, ["left", "left", "right"]), 4)
    0.0833
    """
    codes = check_array(representation, accept_sparse="csr", dtype=np.float64)
    classes = np.unique(check_labels(y, "y"), return_inverse=True)[1]
    if codes.shape != (len(classes), len(classes)):
        raise ValueError(
            f"representation has shape {codes.shape}, but y has n_samples={len(classes)}. Pass a representation of "
            f"shape ({len(classes)}, {len(classes)})."
        )
    mass = abs(codes) @ np.eye(classes.max() + 1)[classes]
    total = mass.sum(1)
    own = mass[np.arange(len(classes)), classes]
    return float(np.divide(total - own, total, out=np.zeros_like(total), where=total > 0).clip(0, 1).mean())


def _check_bases(bases, name):
    bases = [check_array(basis, dtype=np.float64, input_name=name) for basis in bases]
    for k, U in enumerate(bases):
        if not np.allclose(U.T @ U, np.eye(U.shape[1]), atol=1e-3):
            raise ValueError(
                f"The columns of {name}[{k}], of shape {U.shape}, are not orthonormal. Pass np.linalg.qr(basis)[0], or "
                "the transpose if its rows are the directions."
            )
    return bases


def _projections_apart(U, V):
    """Return the distance of two projections, by the residuals of each basis: by Pythagoras digits would be lost."""
    outside = np.sum((U - V @ (V.T @ U)) ** 2) + np.sum((V - U @ (U.T @ V)) ** 2)
    return np.sqrt(outside / (U.shape[1] + V.shape[1]))
