"""What a fitted mixture of low-rank Gaussians answers: its attributes, and the methods that read them."""

import math
from collections.abc import Callable
from functools import partial
from numbers import Real
from typing import Any, NamedTuple

import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, ClusterMixin, DensityMixin, TransformerMixin
from sklearn.utils import check_scalar
from sklearn.utils.validation import check_is_fitted

from .._core.fitted import options, recall
from .._core.rows import concat_blocks, rows_of
from .._core.validation import check_count, check_new_data
from .._core.workspace import open_workspace
from .._math.em import CentredRows, EMState, MixtureForm, mean_log_likelihood
from .._math.linalg import signs_of_largest
from .._math.mixtures import (
    LowRankGaussians,
    conditional_mean,
    draw_samples,
    log_density_gradient,
    log_joint,
    n_parameters,
    projections,
    responsibilities,
)
from .._math.subspaces import coordinates, first_largest, padded_bases
from ._problem import MixtureOptions, MixtureProblem, free_parameters

_LARGEST_NOISE = 1e150  # the squares of larger ones overflow


class FittedMixture(NamedTuple):
    """The public attributes that determine the density."""

    weights: torch.Tensor
    means: torch.Tensor
    bases: list[torch.Tensor]
    variances: list[torch.Tensor]
    noise_variance: torch.Tensor


class LowRankDensityMixin(DensityMixin, ClusterMixin, TransformerMixin, ClassNamePrefixFeaturesOutMixin):
    """The methods of a fitted mixture of low-rank Gaussians."""

    def predict(self, X):
        """Return the most probable component of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        labels : array of shape (n_samples,)
        """
        return self._answer(X, "predict", _most_probable)

    def predict_proba(self, X):
        """Return the posterior probability of each component.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        probabilities : array of shape (n_samples, n_components)
        """
        return self._answer(X, "predict_proba", _posterior)

    def score_samples(self, X):
        """Return the logarithm of the density at each row, in nats.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        log_density : array of shape (n_samples,)
        """
        return self._answer(X, "score_samples", _log_density)

    def score(self, X, y=None):
        """Return the mean log density of the rows, in nats.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.
        y : ignored
            Present for pipelines.

        Returns
        -------
        score : float
        """
        return float(self._by_rows(X, "score", _log_density)[0].mean())

    def transform(self, X):
        """Return the coordinates of each row in each component, times the component's posterior probability.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        coordinates : array of shape (n_samples, sum(n_dims_))
        """
        return self._answer(X, "transform", _weighted_coordinates)

    def project(self, X):
        """Return the projection of each row on the affine subspace of its most probable component.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        X_projected : array of shape (n_samples, n_features)
        """
        return self._answer(X, "project", projections, in_feature_space=True)

    def denoise(self, X, noise_std):
        """Return the posterior mean of each row, given that Gaussian noise was added to a draw from the mixture.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.
        noise_std : float
            Standard deviation of the noise in each feature, in units of X, at least 0. ``noise_std -> 0`` returns X
            unchanged; ``noise_std -> inf`` returns the mixture mean.

        Returns
        -------
        X_clean : array of shape (n_samples, n_features)
        """
        check_is_fitted(self)
        compute = partial(conditional_mean, noise=_variance(noise_std))
        return self._answer(X, "denoise", compute, in_feature_space=True)

    def score_gradient(self, X, noise_std=0.0):
        """Return the gradient of the log density with respect to the row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.
        noise_std : float, default=0.0
            Standard deviation of Gaussian noise that is added to the model first, in units of X, at least 0.

        Returns
        -------
        gradient : array of shape (n_samples, n_features)
            In nats per unit of X.
        """
        check_is_fitted(self)
        return self._answer(X, "score_gradient", partial(log_density_gradient, noise=_variance(noise_std)))

    def sample(self, n_samples=1):
        """Draw rows from the mixture.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.

        Returns
        -------
        X : array of shape (n_samples, n_features)
            The rows, component by component.
        labels : array of shape (n_samples,)
            Their components.
        """
        check_is_fitted(self)
        n_samples = check_count(n_samples, "n_samples", "sample")
        ws = open_workspace(self.means_, device=self.device, random_state=self.random_state)
        X, labels = draw_samples(self._model(ws), n_samples, ws.generator)
        return ws.answer(X), ws.store(labels)

    def bic(self, X):
        """Return the Bayesian information criterion on X; lower is better.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        bic : float
        """
        values, _ = self._by_rows(X, "bic", _log_density)
        return -2 * float(values.sum()) + self._n_parameters() * math.log(len(values))

    def aic(self, X):
        """Return the Akaike information criterion on X; lower is better.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        aic : float
        """
        return -2 * float(self._by_rows(X, "aic", _log_density)[0].sum()) + 2 * self._n_parameters()

    @property
    def _n_features_out(self):
        return sum(U.shape[1] for U in self.bases_)

    def _model(self, ws):
        """Return the fitted model in float64."""
        fitted = recall(self, FittedMixture, ws.exact())
        bases, variances = padded_bases(fitted.bases), padded_bases([v[None] for v in fitted.variances])[:, 0]
        return LowRankGaussians(fitted.weights, fitted.means, bases, variances, fitted.noise_variance)

    def _by_rows(self, X, method, compute, *, in_feature_space=False):
        """Return ``compute(rows, model)`` of all rows as a float64 tensor, and the workspace."""
        X = check_new_data(self, X, method=method, like="means_")
        ws = open_workspace(X, device=self.device)
        return by_rows(compute, rows_of(X, ws), self._model(ws), in_feature_space=in_feature_space), ws

    def _answer(self, X, method, compute, **kwargs):
        """Return what `_by_rows` computes, in the user's library and precision."""
        values, ws = self._by_rows(X, method, compute, **kwargs)
        return ws.answer(values)

    def _n_parameters(self):
        n_dims = [U.shape[1] for U in self.bases_]
        return n_parameters(n_dims, self.n_features_in_, **free_parameters(options(self, MixtureOptions)))


def _variance(noise_std):
    """Return the square of the standard deviation of added noise."""
    check_scalar(noise_std, "noise_std", Real, min_val=0)
    if not noise_std <= _LARGEST_NOISE:
        raise ValueError(
            f"noise_std={noise_std} is above {_LARGEST_NOISE:g}, or NaN. Pass a number that can be squared."
        )
    return float(noise_std) ** 2


def described(
    problem: MixtureProblem, form: MixtureForm, dtype: torch.dtype, tol: float, state: EMState
) -> dict[str, Any]:
    """Return the fitted attributes of a state of either solver; labels are those of the attributes as stored."""
    model = state.model._replace(means=state.model.means + problem.rows.shift)
    bounds = state.lower_bounds or [mean_log_likelihood(problem.rows, state.model)]
    rounded = LowRankGaussians(*(part.to(dtype).double() for part in model[:3]), model.variances, model.noise)
    labels = by_rows(_most_probable, problem.source, rounded)
    bases = rounded.bases * torch.stack([signs_of_largest(U.mT) for U in model.bases])[:, None]
    return {
        "weights_": rounded.weights.to(dtype),
        "means_": rounded.means.to(dtype),
        "bases_": [U[:, :d].to(dtype) for U, d in zip(bases, form.n_dims)],
        "variances_": [v[:d] for v, d in zip(model.variances, form.n_dims)],
        "noise_variance_": model.noise,
        "n_dims_": torch.tensor(form.n_dims, device=labels.device),
        "labels_": labels,
        "lower_bound_": bounds[-1],
        "lower_bounds_": list(bounds),
        "converged_": state.gap <= tol,
        "init_used_": state.name,
    }


def by_rows(compute: Callable, rows, model: LowRankGaussians, *, in_feature_space: bool = False) -> torch.Tensor:
    """Return ``compute(rows, model)`` of all rows, computed relative to the mixture's mean, against cancellation.

    Values `in_feature_space` are points, to which the mean is added again.
    """
    mean = model.weights @ model.means
    centred, relative = CentredRows(rows, None, mean), model._replace(means=model.means - mean)
    block = partial(_answers_of_block, compute, relative, mean if in_feature_space else None)
    return concat_blocks(centred.gather(block, width=model.variances.numel())[0])


def _answers_of_block(compute, model, mean, Z, w):
    found = compute(Z, model)
    return ([found if mean is None else found + mean],)


def _most_probable(Z, model):
    return first_largest(log_joint(Z, model))


def _posterior(Z, model):
    return responsibilities(log_joint(Z, model))[0]


def _log_density(Z, model):
    return log_joint(Z, model).logsumexp(1)


def _weighted_coordinates(Z, model):
    P = coordinates(Z, model.means, model.bases)[0]
    real = (model.bases != 0).any(1).flatten()
    return (_posterior(Z, model)[..., None] * P).flatten(1)[:, real]
