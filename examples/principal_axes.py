"""An estimator of one's own, written as those of the suite are: forty lines, of which ten are the method."""

from functools import partial
from numbers import Integral

from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from sklowrank._core.compat import Interval, _fit_context
from sklowrank._core.rows import rows_of
from sklowrank._core.standardize import standardization
from sklowrank._core.tags import partitioned
from sklowrank._core.validation import check_fit_rows, check_new_data
from sklowrank._core.workspace import open_workspace
from sklowrank._math.linalg import signs_of_largest
from sklowrank._math.subspaces import top_eigenpairs


class PrincipalAxes(TransformerMixin, ClassNamePrefixFeaturesOutMixin, BaseEstimator):
    """Project rows on the directions in which they vary most."""

    _parameter_constraints = {"n_components": [Interval(Integral, 1, None, closed="left")], "device": [str]}

    def __init__(self, n_components=1, *, device="auto"):
        self.n_components = n_components
        self.device = device

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Find the directions."""
        X = check_fit_rows(self, X, ensure_min_samples=2)
        if self.n_components > X.shape[1]:
            cure = f"Pass at most {X.shape[1]}."
            raise ValueError(f"n_components={self.n_components} is too large for n_features={X.shape[1]}. {cure}")
        ws = open_workspace(X, device=self.device)
        rows = rows_of(X, ws)

        mean, scale = standardization(rows, "global")
        (scatter,) = rows.gather(partial(_scatter, mean, scale), size=24 * rows.shape[1])
        axes = top_eigenpairs(scatter, self.n_components)[0].T

        self.components_ = ws.store((axes * signs_of_largest(axes)[:, None]).to(ws.dtype))
        self.mean_ = ws.store(mean.to(ws.dtype))
        return self

    def transform(self, X):
        """Return the coordinates along the directions."""
        X = check_new_data(self, X, like="components_", method="transform")
        ws = open_workspace(X, device=self.device)
        return ws.store((ws.load(X) - ws.load(self.mean_)) @ ws.load(self.components_).T)

    @property
    def _n_features_out(self):
        return self.components_.shape[0]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return partitioned(tags)


def _scatter(mean, scale, X):
    """What a block adds to the sum over rows: tensors in, tensors out."""
    Z = (X.double() - mean) / scale
    return (Z.T @ Z,)
