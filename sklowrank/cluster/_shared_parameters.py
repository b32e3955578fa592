"""Parameters and attributes that all self-expressive clusterers have: their constraints, and their descriptions."""

from numbers import Integral

from .._core.compat import Interval, RealNotInt, StrOptions
from .._core.docs import documented

CONSTRAINTS = {
    "n_clusters": [Interval(Integral, 1, None, closed="left")],
    "normalize": ["boolean"],
    "center": ["boolean"],
    "n_pca": [None, Interval(Integral, 1, None, closed="left"), Interval(RealNotInt, 0, 1, closed="neither")],
    "affinity": [StrOptions({"auto", "max", "sum", "doubly_stochastic", "nearest_neighbors"})],
    "n_init": [Interval(Integral, 1, None, closed="left")],
    "assign_labels": [StrOptions({"kmeans", "cluster_qr"})],
    "refine": [StrOptions({"none", "k-subspaces", "mixture"})],
    "predict_method": [StrOptions({"residual", "code"})],
    "n_dims": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    "device": [str],
    "random_state": ["random_state"],
}


_PARAMETERS = """
    normalize : bool, default=True
        Whether to scale rows to unit norm, so that only the angles between them count.
    center : bool, default=False
        Whether to subtract the column means. The subspaces then pass through the mean of the rows instead of the
        origin.
    n_pca : int, float in (0, 1) or None, default=None
        Number of principal axes that rows are projected on first (at least 2), or the share of their sum of squares
        that the axes explain. None uses the rows as they are.
    affinity : {"auto", "max", "sum", "doubly_stochastic", "nearest_neighbors"}, default="auto"
        How the magnitudes of codes become a symmetric affinity: "sum" adds the transpose, "max" divides each row by its
        largest entry and adds the transpose, "doubly_stochastic" projects onto matrices with unit row sums,
        "nearest_neighbors" connects each row to the 3 rows with the most similar codes. "auto" is "{default}". The
        graph is that of the distinct rows; copies of a row have its edges.
    n_init : int, default=10
        Number of starts; the best one wins. The starts are those of k-means on the spectral embedding.
    assign_labels : {"kmeans", "cluster_qr"}, default="kmeans"
        How labels are assigned. In the spectral embedding, by k-means or by pivoted QR, which is deterministic.
    refine : {"none", "k-subspaces", "mixture"}, default="none"
        Refinement of the spectral labels: none, or by K-subspaces or a mixture of low-rank Gaussians that starts from
        them. "mixture" is the more accurate one on most real data.
    predict_method : {"residual", "code"}, default="residual"
        "residual": `predict` assigns rows to the nearest subspace. "code": it codes them over the training rows, which
        are stored, and assigns them to the cluster with the largest sum of absolute coefficients.
    n_dims : int or "auto", default="auto"
        Dimension of the subspaces. They are used by `predict` and `refine`; the dimension is below `n_features`. "auto"
        is the number of singular values above the noise, the median over clusters; columns that are constant, repeated
        or nonzero in few rows do not count.
"""
_LAST_PARAMETERS = """
    batch_size : int or "auto", default="auto"
        Number of rows processed at once; it bounds memory and does not change the result.
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1".
    random_state : int, RandomState instance or None, default=None
        Seed or generator of random numbers; pass an int for reproducible results.
"""
_ATTRIBUTES = """
    affinity_matrix_ : sparse array of shape (n_samples, n_samples)
        Symmetric affinity, CSR, with an empty diagonal.
    labels_ : ndarray of shape (n_samples,)
        Cluster of each training row, by the graph; copies of a row have its label. `predict` on the same rows uses the
        subspaces instead and may differ; with `refine` both agree.
    bases_ : list of ndarrays of shape (n_features, n_dims_[k])
        Orthonormal bases of the subspaces, for each cluster found.
    cluster_centers_ : ndarray of shape (n_clusters, n_features)
        A point of each subspace: the column means with `center`, else zeros.
    n_dims_ : ndarray of shape (n_clusters,)
        Dimensions of the subspaces.
    n_components_graph_ : int
        Number of connected components of the graph of distinct rows; where it is above `n_clusters`, the graph is too
        sparse.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where X had names that are strings.
"""
_FIT = """
    Parameters
    ----------
    X : {form} of shape (n_samples, n_features)
        The rows.
    y : ignored
        Present for pipelines.

    Returns
    -------
    self : object
        The fitted clusterer.
"""


def documented_clusterer(*, affinity: str = "sum", sparse: bool = False):
    """Return a decorator that fills in what the docstrings of all self-expressive clusterers have in common."""
    return documented(
        shared_parameters=_PARAMETERS.replace("{default}", affinity),
        last_parameters=_LAST_PARAMETERS,
        shared_attributes=_ATTRIBUTES,
        fit_parameters=_FIT.replace(
            "{form}", "array-like, tensor or sparse matrix" if sparse else "array-like or tensor"
        ),
    )
