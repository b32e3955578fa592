"""Parameters and methods that the Fréchet estimators have."""

from numbers import Integral

from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin

from .._core.compat import Interval, RealNotInt, StrOptions
from .._core.docs import documented as filled
from .._core.fitted import recall
from ._ball_features import FittedBalls, explained_shares, restored_balls
from ._metric_spaces import NAMES

CONSTRAINTS = {
    "n_components": [Interval(Integral, 1, None, closed="left"), Interval(RealNotInt, 0, 1, closed="neither")],
    "metric": [StrOptions({"auto", *NAMES}), callable],
    "n_landmarks": [Interval(Integral, 1, None, closed="left")],
    "n_thresholds": [Interval(Integral, 1, 255, closed="both")],
    "device": [str],
}
_DOCS = {
    "n_components": """
    n_components : int or float, default=2
        Number of components. A float in (0, 1) selects the fewest whose eigenvalues are this share of the sum of all.
""",
    "metric": """
    metric : str or callable, default="auto"
        Distance between responses: "euclidean" for numbers (n_samples,) and vectors (n_samples, q), "discrete" for
        labels, "wasserstein" for samples or quantiles of distributions (n_samples, size) or samples of vectors
        (n_samples, size, q), both also of unequal sizes in a list, "spd_log" (or "spd"), "spd_cholesky", "spd_affine"
        for symmetric positive definite matrices (n_samples, k, k) or (n_samples, k * k), "frobenius" for other
        matrices, "sphere" for directions (n_samples, q) of length one, names of
        :func:`scipy.spatial.distance.cdist` such as "manhattan", "precomputed" for distances (n_samples, r) to r
        reference objects, or a function of two rows of y, which may be arrays of unequal sizes in a list. It is called
        about n_samples times `n_landmarks` times, and for all pairs of up to 400 rows. "auto" is "discrete" for strings
        and booleans, else "euclidean".
""",
    "balls": """
    n_landmarks : int, default=64
        Number of landmarks. They are responses around which there are balls, spread evenly over all by their distances.
    n_thresholds : int, default=16
        Number of radii of the balls around each landmark, at most 255.
""",
    "whiten": """
    whiten : bool, default=False
        Whether all components have unit variance on the training rows. Otherwise variances are in the proportion of
        the eigenvalues, and the first is one.
""",
    "standardize": """
    standardize : bool, default=True
        Whether to centre each column and divide it by its standard deviation.
""",
    "device": """
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1".
""",
    "random_state": """
    random_state : int, RandomState instance or None, default=None
        Seed or generator of random numbers; pass an int for reproducible results.
""",
    "dependence": """
    components_dependence_ : array of shape (n_components_,)
        Eigenvalues: the variance of the features of responses that each component explains in training, descending.
    dependence_ratio_ : array of shape (n_components_,)
        Their shares of the sum of all eigenvalues found.
""",
    "fitted balls": """
    landmarks_ : array of shape (m,)
        Rows of the training data whose responses are landmarks, m being `n_landmarks` or fewer; columns of y with
        `metric="precomputed"`.
    landmark_objects_ : array of shape (m, ...)
        Their responses; an array of arrays where these have unequal sizes. Missing with `metric="precomputed"`.
    thresholds_ : array of shape (m, t)
        Radii of the balls, ascending; infinity where a landmark has fewer than others.
    feature_means_ : array of shape (m * t,)
        Share of the training responses in each ball.
    n_components_ : int
        Number of components.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features seen in `fit`, if X had names that are strings.
""",
}


# Fills the lines <shared ...> of a class's docstring with what the estimators say in the same words.
documented = filled(**{f"shared {name}": text for name, text in _DOCS.items()})


class FrechetMethods(ClassNamePrefixFeaturesOutMixin, TransformerMixin):
    """Methods of estimators that keep :class:`FittedBalls`, and whose `_components` maps rows to components.

    ``_components(X, method)`` returns the workspace of new rows and their components (n, k) in float64,
    ``_regression(components, ws)`` the predictors, loadings and ends that :func:`explained_shares` takes.
    """

    def transform(self, X):
        """Return the components of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows, in a form that `fit` accepts.

        Returns
        -------
        Z : array of shape (n_samples, n_components_)
            Components, by descending eigenvalues; uncorrelated and of mean zero on the training rows.
        """
        ws, Z = self._components(X, "transform")
        return ws.store(Z.to(ws.dtype))

    def score(self, X, y):
        """Return R² of predicting the ball indicators of y from the components; at most 1, higher is better.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows, in a form that `fit` accepts.
        y : array-like of shape (n_samples, ...)
            Their responses.

        Returns
        -------
        score : float
            0 for the mean of the training rows. Noise in y keeps it far below 1. Only scores of one `metric` can be
            compared.
        """
        return float(self.explained_dependence(X, y).sum())

    def explained_dependence(self, X, y):
        """Return by how much each component raises the score.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows, in a form that `fit` accepts.
        y : array-like of shape (n_samples, ...)
            Their responses.

        Returns
        -------
        shares : ndarray of shape (n_components_,)
            Shares of R² that sum to the score.
        """
        ws, Z = self._components(X, "score")
        balls = restored_balls(recall(self, FittedBalls, ws.exact()))
        return explained_shares(balls, y, *self._regression(Z, ws.exact()))

    @property
    def _n_features_out(self):
        return self.n_components_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
