"""The density of a mixture of low-rank Gaussians: posteriors, gradients, denoising, samples, in closed form.

Component k is N(mu_k, U_k diag(l_k) U_k' + s_k I) with orthonormal columns U_k; no D x D matrix is formed. Gaussian
noise of variance g² replaces s_k by a_k = s_k + g² and changes nothing else.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from .subspaces import coordinates


class LowRankGaussians(NamedTuple):
    """K weighted low-rank Gaussians; beyond a component's dimension, columns of its basis and variances are zero."""

    weights: torch.Tensor  # (K,)
    means: torch.Tensor  # (K, D)
    bases: torch.Tensor  # (K, D, d)
    variances: torch.Tensor  # (K, d), of the signal alone, descending
    noise: torch.Tensor  # (K,)

    @property
    def n_dims(self) -> list[int]:
        """Dimension of each component: the number of its columns that are not zero."""
        return (self.bases != 0).any(1).sum(1).tolist()


def log_joint(X: torch.Tensor, model: LowRankGaussians, noise: torch.Tensor | float = 0.0) -> torch.Tensor:
    """Return log pi_k + log N(x; component k, with noise of variance `noise` added), of shape (n, K)."""
    return _log_joint(*coordinates(X, model.means, model.bases), model, noise, X.shape[1])


def _log_joint(P, R, model, noise, n_features):
    """Return :func:`log_joint` from coordinates P (n, K, d) and squared distances R (n, K)."""
    a = model.noise + noise
    v = model.variances + a[..., None]
    # padding has variance 0 and coordinate 0, and adds log1p(0) = 0
    log_det = n_features * a.log() + (model.variances / a[..., None]).log1p().sum(-1)
    quadratic = (P.square() / v).sum(2) + R / a
    return model.weights.log() - 0.5 * (n_features * math.log(2 * math.pi) + log_det + quadratic)


def responsibilities(L: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return posterior probabilities (n, K) and log densities (n,) from the joint log densities."""
    total = L.logsumexp(1)
    return (L - total[:, None]).exp(), total


def conditional_mean(
    X: torch.Tensor, model: LowRankGaussians, noise: torch.Tensor | float, *, exact: bool = True
) -> torch.Tensor:
    """Return E[x_0 | x_0 + e = x] for e ~ N(0, noise I), of shape (n, D).

    Given component k it is ``mu + (s / a) z + U diag((l + s) / (l + a) - s / a) U' z`` with z = x - mu. `noise` is a
    number or of shape (n, 1). Unless `exact`, distances are differences of squared lengths, with smooth gradients.
    """
    P, R = coordinates(X, model.means, model.bases, exact=exact)
    W = responsibilities(_log_joint(P, R, model, noise, X.shape[1]))[0]
    a = model.noise + noise
    keep = model.noise / a
    v = model.variances + model.noise[:, None]
    gain = v / (model.variances + a[..., None]) - keep[..., None]
    free = W * keep
    pull = (W - free) @ model.means + free.sum(1, keepdim=True) * X
    return pull + _combine(W[..., None] * gain * P, model.bases)


def log_density_gradient(X: torch.Tensor, model: LowRankGaussians, noise: float) -> torch.Tensor:
    """Return the gradient of the log density with noise of variance `noise` added, of shape (n, D)."""
    P, R = coordinates(X, model.means, model.bases)
    W = responsibilities(_log_joint(P, R, model, noise, X.shape[1]))[0]
    a = model.noise + noise
    gain = 1 / a[:, None] - 1 / (model.variances + a[:, None])
    pull = (W / a) @ model.means - (W / a).sum(1, keepdim=True) * X
    return pull + _combine(W[..., None] * gain * P, model.bases)


def projections(X: torch.Tensor, model: LowRankGaussians) -> torch.Tensor:
    """Return the projections of rows X on the affine subspaces of their most probable components, of shape (n, D)."""
    P, R = coordinates(X, model.means, model.bases)
    best = _log_joint(P, R, model, 0.0, X.shape[1]).argmax(1)
    chosen = torch.nn.functional.one_hot(best, len(model.weights)).to(P)
    return model.means[best] + _combine(chosen[..., None] * P, model.bases)


def draw_samples(
    model: LowRankGaussians, n_samples: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows (n, D) drawn from the mixture, component by component, and their components (n,)."""
    device = model.means.device
    chosen = torch.multinomial(model.weights.cpu(), n_samples, replacement=True, generator=generator)
    labels = chosen.sort()[0].to(device)
    Z, E = (
        torch.randn(n_samples, width, generator=generator, dtype=model.means.dtype, device="cpu").to(device)
        for width in (model.variances.shape[1], model.means.shape[1])
    )
    signal = model.variances[labels].sqrt() * Z
    rows = model.means[labels] + model.noise[labels, None].sqrt() * E
    for k in range(len(model.weights)):
        members = labels == k
        rows[members] += signal[members] @ model.bases[k].T
    return rows, labels


def _combine(coefficients, bases):
    """Return sum_k U_k c_k for coefficients (n, K, d)."""
    return coefficients.flatten(1) @ bases.mT.flatten(0, 1)


def n_parameters(n_dims: Sequence[int], n_features: int, *, affine, isotropic, shared, uniform) -> int:
    """Return the number of free parameters of a mixture, for information criteria."""
    K, D = len(n_dims), n_features
    # equal variances determine a subspace alone, a point of the Grassmannian; distinct ones an orthonormal frame
    bases = sum(d * (D - d) if isotropic else d * D - d * (d + 1) // 2 for d in n_dims)
    spectrum = K if isotropic else sum(n_dims)
    return bases + spectrum + (1 if shared else K) + (0 if uniform else K - 1) + (K * D if affine else 0)
