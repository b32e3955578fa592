"""Clustering data on a union of subspaces."""

from numbers import Integral, Real

import numpy as np
from sklearn.utils import check_random_state

from .._core.compat import Interval, validate_params


@validate_params(
    {
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "n_features": [Interval(Integral, 1, None, closed="left")],
        "n_dims": [Interval(Integral, 1, None, closed="left")],
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "noise": [Interval(Real, 0, None, closed="left")],
        "orthogonal": ["boolean"],
        "unit_norm": ["boolean"],
        "affine": ["boolean"],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_union_of_subspaces(
    n_samples=300,
    n_features=20,
    n_dims=3,
    n_clusters=3,
    *,
    noise=0.0,
    orthogonal=False,
    unit_norm=False,
    affine=False,
    random_state=None,
):
    """Generate rows on a union of random subspaces, for subspace clustering.

    Each cluster has a random subspace, in which its rows have standard normal coordinates. For isotropic clusters see
    :func:`sklearn.datasets.make_blobs`.

    Parameters
    ----------
    n_samples : int, default=300
        Total number of rows, divided equally among clusters.
    n_features : int, default=20
        Number of features.
    n_dims : int, default=3
        Dimension of the subspaces. At most `n_features`.
    n_clusters : int, default=3
        Number of clusters. Each is on a subspace of its own.
    noise : float, default=0.0
        Standard deviation of the Gaussian noise added to every entry.
    orthogonal : bool, default=False
        Whether subspaces are orthogonal to one another; needs ``n_clusters * n_dims <= n_features``.
    unit_norm : bool, default=False
        Whether to scale the coordinates of each row to unit norm, before noise and offset are added.
    affine : bool, default=False
        Whether subspaces are affine, with an offset each, rather than linear. Offsets have standard normal entries.
    random_state : int, RandomState instance or None, default=None
        Seed or generator of random numbers; pass an int for reproducible results.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features)
        Rows, in random order.
    y : ndarray of shape (n_samples,)
        Cluster of each row, an int from 0 to ``n_clusters - 1``.
    bases : list of n_clusters ndarrays of shape (n_features, n_dims)
        Orthonormal bases of the subspaces.

    Raises
    ------
    ValueError
        If `n_features` is too small for the subspaces.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.datasets import make_union_of_subspaces
    >>> X, y, bases = make_union_of_subspaces(90, 15, n_dims=4, random_state=0)
    >>> X.shape, [int(np.linalg.matrix_rank(X[y == k])) for k in range(3)]
    ((90, 15), [4, 4, 4])
    """
    widest = n_clusters * n_dims if orthogonal else n_dims
    if widest > n_features:
        needed = f"n_clusters={n_clusters} orthogonal subspaces of " if orthogonal else ""
        raise ValueError(
            f"{needed}n_dims={n_dims} needs at least {widest} features, and n_features={n_features}. Raise n_features, "
            + ("lower n_dims or n_clusters, or pass orthogonal=False." if orthogonal else "or lower n_dims.")
        )
    rng = check_random_state(random_state)
    if orthogonal:
        frame = np.linalg.qr(rng.standard_normal((n_features, widest)))[0]
        bases = [np.ascontiguousarray(U) for U in np.split(frame, n_clusters, axis=1)]
    else:
        bases = [np.linalg.qr(rng.standard_normal((n_features, n_dims)))[0] for _ in range(n_clusters)]
    offsets = affine * rng.standard_normal((n_clusters, n_features))

    y = rng.permutation(np.arange(n_samples) % n_clusters)
    coordinates = rng.standard_normal((n_samples, n_dims))
    if unit_norm:
        coordinates /= np.linalg.norm(coordinates, axis=1, keepdims=True)
    X = offsets[y]
    for k, U in enumerate(bases):
        X[y == k] += coordinates[y == k] @ U.T
    return X + noise * rng.standard_normal(X.shape), y, bases
