"""How good a clustering is, how near subspaces are to one another, how many of a code's weights are misplaced."""

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics.cluster import contingency_matrix
from sklearn.utils import check_array, check_consistent_length

from .._core.compat import validate_params
from ._labels import check_labels


@validate_params({"y": ["array-like"], "labels": ["array-like"]}, prefer_skip_nested_validation=True)
def clustering_accuracy(y, labels):
    """Return the share of rows that the best matching of clusters to classes gets right.

    Each cluster is matched to one class at most, and each class to one cluster, so that as many rows as possible agree
    (the Hungarian method on the contingency table). Unlike :func:`~sklearn.metrics.adjusted_rand_score` it reads as a
    classifier's accuracy; it is not corrected for chance.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        The classes: numbers or strings.
    labels : array-like of shape (n_samples,)
        The clusters. Their number may differ from that of the classes; surplus ones stay unmatched.

    Returns
    -------
    accuracy : float
        Between 0 and 1, higher is better.

    See Also
    --------
    sklearn.metrics.adjusted_rand_score : Pairs of rows instead of a matching, corrected for chance.

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
    r"""Return how far two sets of subspaces are apart, whatever their order and the rotation of their bases.

    The mean over the best matching of :math:`\|UU^\top - VV^\top\|_F / \sqrt{d_U + d_V}`, where the bases U and V have
    :math:`d_U` and :math:`d_V` columns: 0 where they span the same subspaces, 1 where all are at right angles.

    Parameters
    ----------
    bases_a, bases_b : sequences of n_subspaces arrays of shape (n_features, n_dims)
        Orthonormal columns; `n_dims` may differ from one subspace to the next.

    Returns
    -------
    error : float
        Between 0 and 1, lower is better.

    Raises
    ------
    ValueError
        If the sequences differ in length, the subspaces lie in spaces of different dimension, or columns are not
        orthonormal.

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
            f"bases_a holds {len(a)} subspaces and bases_b {len(b)}, of spaces with "
            f"{sorted({len(U) for U in (*a, *b)})} features. Pass as many of the one as of the other, from one space."
        )
    apart = np.array([[_projections_apart(U, V) for V in b] for U in a])
    return float(apart[linear_sum_assignment(apart)].mean())


@validate_params(
    {"representation": ["array-like", "sparse matrix"], "y": ["array-like"]}, prefer_skip_nested_validation=True
)
def subspace_preserving_error(representation, y):
    """Return the share of the codes' weight that lies on rows of another class, the mean over rows.

    In a self-expressive clustering each row is written as a combination of others. Where all of its coefficients belong
    to rows of its own subspace, the graph has no wrong edge and the error is 0.

    Parameters
    ----------
    representation : array-like or sparse matrix of shape (n_samples, n_samples)
        Codes by rows, as in `representation_` of the self-expressive clusterers.
    y : array-like of shape (n_samples,)
        The classes: numbers or strings.

    Returns
    -------
    error : float
        Between 0 and 1, lower is better. A row without any coefficient counts 0.

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
            f"representation of shape {codes.shape} does not belong to y with n_samples={len(classes)}. "
            "Pass one code per row and one coefficient per row."
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
                "the transpose where directions stand in rows."
            )
    return bases


def _projections_apart(U, V):
    """Distance of two projections, by what of each basis is outside the other: Pythagoras would lose digits."""
    outside = np.sum((U - V @ (V.T @ U)) ** 2) + np.sum((V - U @ (U.T @ V)) ** 2)
    return np.sqrt(outside / (U.shape[1] + V.shape[1]))
