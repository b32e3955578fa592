"""Relative representations: rows by their similarities to anchors, comparable between encoders."""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from .._core.annotations import RandomState
from .._core.compat import Interval, RealNotInt, StrOptions, _fit_context
from .._core.fitted import keep, options, recall
from .._core.rows import rows_of
from .._core.tags import partitioned
from .._core.validation import check_fit_rows, check_new_data
from .._core.workspace import open_workspace
from ._anchors import AnchorOptions, anchor_indices
from ._relative_rows import Anchors, fitted_anchors, relative_rows

_SIMILARITIES = ("cosine", "euclidean", "rbf", "geodesic")
Similarity = Literal["cosine", "euclidean", "rbf", "geodesic"]


class RelativeRepresentation(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Describe each row by its similarities to fixed anchor rows.

    Embeddings of the same objects by different encoders often differ by little more than a rotation, a scale, an offset
    and the width. Similarities to anchors do not depend on these, where the anchors are the same objects in the same
    order for each encoder: a model fitted to the relative rows of one encoder then works for another, without training.
    Between two encoders of equal width an orthogonal Procrustes map is about as accurate, and more so where they are
    less alike.

    Parameters
    ----------
    n_anchors : int or float, default=100
        Number of anchors, or their share of the rows in (0, 1]. At most the number of rows.
    anchors : array-like of shape (n_anchors,), "first" or None, default=None
        Indices of the rows that are anchors; "first" is the first `n_anchors` rows, None selects them. For tables of
        two encoders pass the same indices, or the same `random_state` for tables whose rows are aligned.
    anchor_selection : {"random", "farthest", "kmeans", "stratified"}, default="random"
        How anchors are selected. "farthest": each the farthest from those before it. "kmeans": the rows nearest to the
        centres of clusters. "stratified": drawn, of each class of y its share. All but "random" and "stratified"
        depend on the values of X, so that other tables need the `anchor_indices_` of the first.
    similarity : {"cosine", "euclidean", "rbf", "geodesic"} or list of these, default="cosine"
        Similarity of a row and an anchor. "cosine": cosine. "euclidean": minus the distance, in units of the mean
        distance of two anchors. "rbf": ``exp(-distance² / mean squared distance of two anchors)``. "geodesic":
        ``1 - 2 angle / pi``. A list concatenates blocks of columns.
    center : bool, default=True
        Whether to subtract the column means. They are those of the anchors. Without it cosines change where an encoder
        adds an offset; distances do not depend on it.
    whiten : bool, default=False
        Whether to divide rows by the square root of the anchors' covariance. Then an invertible linear map between
        encoders changes little, where there are clearly more anchors than features. With ``center=False`` it is the
        mean of squares and products.
    quantize : float or None, default=None
        Bin to whose multiples similarities are rounded.
    batch_size : int or "auto", default="auto"
        Number of rows processed at once; it bounds memory and does not change the result.
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1".
    random_state : int, RandomState or None, default=None
        Seed or generator of random numbers; pass an int for reproducible results. It draws the anchors.

    Attributes
    ----------
    anchors_ : array of shape (n_anchors, n_features)
        The anchors.
    anchor_indices_ : array of shape (n_anchors,)
        Their indices among the rows of `fit`.
    mean_ : array of shape (n_features,)
        Mean of the anchors; zeros where `center` is False.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : array of shape (n_features_in_,)
        Names of the columns of X, where all are strings.

    See Also
    --------
    StitchedClassifier : A classifier on relative rows, which can be adapted to other encoders.
    relative_distance : How alike two encoders are.
    scipy.linalg.orthogonal_procrustes : A rotation between two tables of equal width.

    Notes
    -----
    With the mean :math:`\\mu` of the anchors :math:`a_j` the cosine similarities are

    .. math:: r(x)_j = \\frac{\\langle x - \\mu, a_j - \\mu \\rangle}{\\|x - \\mu\\| \\, \\|a_j - \\mu\\|} .

    They do not change under :math:`x \\mapsto c Q x + b` with an orthogonal :math:`Q` and :math:`c > 0`. The paper does
    not subtract the mean, so that an offset :math:`b` changes them. Whitening uses the covariance of the anchors with
    1e-3 of its mean variance added to the diagonal. A row at the mean has cosines of zero. Time O(n_samples n_anchors
    n_features), in blocks of rows; in `fit` "farthest" takes as many products, and "kmeans" several times as many. The
    distance of a row to an anchor that is equal to it has an absolute error of the square root of the precision. Sparse
    X is taken with ``center=False`` and ``whiten=False``.

    References
    ----------
    .. [1] L. Moschella, V. Maiorca, M. Fumero, A. Norelli, F. Locatello, E. Rodolà, "Relative representations enable
       zero-shot latent space communication", ICLR 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.metric_learning import RelativeRepresentation
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 8))
    >>> Q = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    >>> Z = 3 * X @ Q + 5  # another encoder of the same objects
    >>> here, there = (RelativeRepresentation(20, random_state=0).fit_transform(rows) for rows in (X, Z))
    >>> here.shape
    (200, 20)
    >>> bool(np.allclose(here, there))
    True
    """

    _parameter_constraints = {
        "n_anchors": [
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="right"),
        ],
        "anchors": ["array-like", StrOptions({"first"}), None],
        "anchor_selection": [StrOptions({"random", "farthest", "kmeans", "stratified"})],
        "similarity": [StrOptions(set(_SIMILARITIES)), list, tuple],
        "center": ["boolean"],
        "whiten": ["boolean"],
        "quantize": [Interval(Real, 0, None, closed="neither"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "device": [str],
        "random_state": ["random_state"],
    }

    # Set by fit
    anchors_: np.ndarray
    anchor_indices_: np.ndarray
    mean_: np.ndarray
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        n_anchors: int | float = 100,
        *,
        anchors: Any | Literal["first"] | None = None,
        anchor_selection: Literal["random", "farthest", "kmeans", "stratified"] = "random",
        similarity: Similarity | Sequence[Similarity] = "cosine",
        center: bool = True,
        whiten: bool = False,
        quantize: float | None = None,
        batch_size: int | Literal["auto"] = "auto",
        device: str = "auto",
        random_state: RandomState = None,
    ):
        self.n_anchors = n_anchors
        self.anchors = anchors
        self.anchor_selection = anchor_selection
        self.similarity = similarity
        self.center = center
        self.whiten = whiten
        self.quantize = quantize
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None) -> Self:
        """Select the anchors.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows.
        y : array-like of shape (n_samples,), default=None
            Their classes, for ``anchor_selection="stratified"``.

        Returns
        -------
        self : RelativeRepresentation
        """
        similarities_of(self.similarity)
        X = check_fit_rows(self, X, accept_sparse=self._sparse_formats(X))
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        rows = rows_of(X, ws)
        indices = anchor_indices(rows, y, options(self, AnchorOptions), ws)
        at = ws.load(indices)
        anchors = ws.load(X[indices].toarray()) if issparse(X) else rows.take(at)
        model = fitted_anchors(anchors.double(), center=self.center, whiten=self.whiten)
        return keep(self, ws, model, anchors_=anchors, anchor_indices_=at, mean_=model.mean.to(ws.dtype))

    def transform(self, X):
        """Return the similarities of rows to the anchors.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        similarities : array of shape (n_samples, n_anchors * n_similarities)
            The columns of each similarity in the order of `anchors_`.
        """
        X = check_new_data(self, X, like="anchors_", method="transform", accept_sparse=self._sparse_formats(X))
        ws = open_workspace(X, device=self.device)
        names = similarities_of(self.similarity)
        exact = names != ["cosine"]  # others are differences of large numbers
        model = recall(self, Anchors, ws.exact() if exact else ws)
        rows = X if issparse(X) else ws.load(X)
        found = relative_rows(rows, model, names, quantize=self.quantize, batch_size=self.batch_size, ws=ws)
        return ws.answer(found)

    @property
    def _n_features_out(self):
        return len(self.anchors_) * len(similarities_of(self.similarity))

    def _sparse_formats(self, X):
        """Return the sparse formats that are taken, or say why there are none."""
        if not issparse(X) or not (self.center or self.whiten):
            return "csr"
        name = "center" if self.center else "whiten"
        raise TypeError(f"Sparse X is not taken with {name}=True, which makes it dense. Pass {name}=False.")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = not (self.center or self.whiten)
        tags.array_api_support = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return partitioned(tags)


def similarities_of(similarity) -> list[str]:
    """Return the names of similarities as a list, or raise where there is an unknown one or none."""
    names = [similarity] if isinstance(similarity, str) else list(similarity)
    unknown = [name for name in names if name not in _SIMILARITIES]
    if unknown or not names:
        said = f"has {unknown[0]!r}" if unknown else "is empty"
        raise ValueError(f"similarity {said}. Pass one of {_SIMILARITIES}, or a list of these.")
    return names
