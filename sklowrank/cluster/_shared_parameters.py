"""The parameters and attributes that all self-expressive clusterers have: their constraints, and what they mean."""

from numbers import Integral

from .._core.compat import Interval, RealNotInt, StrOptions

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
        Scale rows to unit length, so that angles count and not sizes.
    center : bool, default=False
        Subtract the mean of the rows first. The subspaces then pass through it instead of the origin.
    n_pca : int, float in (0, 1) or None, default=None
        Work with this many principal axes of the rows (at least 2), or with as many as hold this share of their
        squares. None takes the rows as they are.
    affinity : {"auto", "max", "sum", "doubly_stochastic", "nearest_neighbors"}, default="auto"
        How magnitudes of codes become a symmetric graph: "sum" adds the transpose, "max" first divides each row by its
        largest entry, "doubly_stochastic" projects on matrices with unit row sums, "nearest_neighbors" joins each row
        to the 3 with the most similar codes. "auto" is "{default}". The graph of the distinct rows is made, and given
        to their copies.
    n_init : int, default=10
        Runs of k-means on the spectral embedding; the best is kept.
    assign_labels : {"kmeans", "cluster_qr"}, default="kmeans"
        How the embedding becomes labels: k-means, or pivoted QR, which needs no seed.
    refine : {"none", "k-subspaces", "mixture"}, default="none"
        What to do with the labels of the graph: nothing, or start K-subspaces or a mixture of low-rank Gaussians from
        them. "mixture" is the better one on most real data.
    predict_method : {"residual", "code"}, default="residual"
        `predict` assigns new rows to the nearest subspace, or codes them over the training rows, which are then kept,
        and takes the cluster with the largest share of the code.
    n_dims : int or "auto", default="auto"
        Dimension of the subspaces behind `predict` and `refine`, below `n_features`. "auto" is the number of singular
        values above the noise, the median over clusters. Dead, repeated and rare columns do not count.
"""
_LAST_PARAMETERS = """
    batch_size : int or "auto", default="auto"
        Rows handled at once. It bounds memory and does not change the result.
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1".
    random_state : int, RandomState instance or None, default=None
        Seeds the spectral step.
"""
_ATTRIBUTES = """
    affinity_matrix_ : sparse array of shape (n_samples, n_samples)
        The graph: symmetric, CSR, with an empty diagonal. Copies of a row have its neighbours.
    labels_ : ndarray of shape (n_samples,)
        Cluster of each training row, from the graph; copies have one label. `predict` on the same rows asks the
        subspaces instead and may differ; with `refine` both agree.
    bases_ : list of ndarrays of shape (n_features, n_dims_[k])
        Orthonormal bases of the clusters' subspaces, for each cluster found.
    means_ : ndarray of shape (n_clusters, n_features)
        A point of each subspace: the mean of the rows with `center`, else zeros.
    n_dims_ : ndarray of shape (n_clusters,)
        Dimensions of the subspaces.
    n_components_graph_ : int
        Number of connected components of the graph of distinct rows; more than `n_clusters` say that it falls apart.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where X had names that are strings.
"""


def documented(affinity: str):
    """Fill the lines <shared ...> of a class's docstring with what all six say in the same words."""

    def fill(cls):
        parts = {
            "shared parameters": _PARAMETERS.replace("{default}", affinity),
            "last parameters": _LAST_PARAMETERS,
            "shared attributes": _ATTRIBUTES,
        }
        for name, text in parts.items():
            cls.__doc__ = (cls.__doc__ or "").replace(f"<{name}>", text.strip())
        return cls

    return fill
