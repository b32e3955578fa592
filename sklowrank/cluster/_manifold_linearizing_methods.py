"""The methods of manifold linearizing and clustering that read a fitted network and stored codes."""

from collections.abc import Iterable

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin

from .._core.fitted import recall
from .._core.modes import in_plain_modes
from .._core.standardize import standardized
from .._core.validation import check_new_data, is_integer
from .._core.workspace import open_workspace
from .._math.linalg import unit_rows
from . import _manifold_linearizing_solver as solver
from ._membership import find_clusters, log_masses, membership

_MEMBERSHIP_ROWS = 20_000


class FittedCodesMixin(ClusterMixin, TransformerMixin, ClassNamePrefixFeaturesOutMixin):
    """Methods that read features and codes of new rows; :class:`ManifoldLinearizingClustering` fits them."""

    @in_plain_modes
    def predict(self, X):
        """Return the cluster of each row: that with the largest kernel mass of its stored codes.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        labels : array of shape (n_samples,)
        """
        ws, model, _, C = self._codes(X, "predict")
        return ws.store(log_masses(C, *model.clusters()).argmax(1))

    @in_plain_modes
    def predict_proba(self, X):
        """Return the probabilities of clusters: their shares of the kernel mass of a row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        memberships : array of shape (n_samples, n_clusters)
            At least 0; rows sum to 1.
        """
        ws, model, _, C = self._codes(X, "predict_proba")
        return ws.store(log_masses(C, *model.clusters()).to(ws.dtype).softmax(1))

    @in_plain_modes
    def transform(self, X):
        """Return the features of each row: those of one cluster lie near a subspace.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        Z : array of shape (n_samples, n_components)
            Rows of unit length.
        """
        ws, _, Z, _ = self._codes(X, "transform")
        return ws.store(unit_rows(Z.to(ws.dtype)))

    @in_plain_modes
    def membership(self, X):
        """Return the doubly stochastic membership of rows.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows, at most 20,000.

        Returns
        -------
        membership : array of shape (n_samples, n_samples)
            Symmetric, at least 0; rows and columns sum to 1.
        """
        ws, model, _, C = self._codes(X, "membership")
        if len(C) > _MEMBERSHIP_ROWS:
            raise ValueError(f"n_samples={len(C)} should be <= {_MEMBERSHIP_ROWS}: the result would be too large.")
        return ws.store(membership(unit_rows(C.to(ws.dtype)), model.clustering.eta, model.clustering.kernel)[0])

    @in_plain_modes
    def score(self, X, y=None):
        """Return the rate reduction: coding rate of the features less the rate given their membership.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.
        y : ignored
            Present for pipelines.

        Returns
        -------
        score : float
            In nats per row; higher is better. The mean over batches of `batch_size` rows, the same in every call. It
            depends on `n_components`, `precision`, `eta` and `batch_size`.
        """
        _, model, Z, C = self._codes(X, "score")
        return solver.mean_rate_reduction(Z, C, model)

    @in_plain_modes
    def estimate_n_clusters(self, X, n_clusters=solver.CANDIDATES):
        """Return the smallest number of clusters whose coding length is within 2 % of the shortest.

        It is the length of the features and labels of some rows. Only the membership is cut into more or fewer
        clusters; the network stays.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.
        n_clusters : iterable of ints, default=range(2, 21)
            Candidates, each at least 1.

        Returns
        -------
        n_clusters : int
        """
        _, model, Z, C = self._codes(X, "estimate_n_clusters")
        candidates = list(n_clusters) if isinstance(n_clusters, Iterable) else []
        if not candidates or not all(is_integer(k) for k in candidates):
            raise ValueError(f"n_clusters={n_clusters!r} has to name numbers of clusters, ints of at least 1.")
        return find_clusters(Z, C, sorted(set(candidates)), model.clustering, np.random.RandomState(0))[1]

    @property
    def _n_features_out(self):
        return self.n_components_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _codes(self, X, method):
        """Return the workspace of new rows, the model, their features and their codes."""
        X = check_new_data(self, X, like="cluster_centers_", method=method)
        ws = open_workspace(X, device=self.device)
        model = recall(self, solver.Model, ws.exact())
        rows = standardized(ws.load(X), model.mean, model.scale)
        return ws, model, *solver.codes_of(solver.restored(model, model.weights, ws.device), rows)
