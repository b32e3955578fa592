"""The posterior of a field: its mean, its standard deviation and draws at any points."""

from typing import NamedTuple

import torch

from ._field_evidence import distances, factor, matern, moments_of, products, root_spectrum


class Ambient(NamedTuple):
    """The kernel of coordinates at new points."""

    landmarks: torch.Tensor  # (u,): locations
    length: float  # in units of the scaled points
    amplitude: float
    whiten: torch.Tensor  # (u, r): from kernels with the landmarks to features
    shrink: torch.Tensor  # (r,): what observations take of the variance of a feature
    coupling: torch.Tensor  # (r, q, K): how features depend on weights of modes
    weights: torch.Tensor  # (r, q, c)


class Posterior(NamedTuple):
    """Weights of modes, the root of their covariance in units of `scale` squared, and the part of the coordinates."""

    alpha: torch.Tensor  # (K, c)
    root: torch.Tensor  # (K, K): root.T @ root is the covariance
    offset: torch.Tensor
    scale: torch.Tensor
    ambient: Ambient | None


def posterior_of(observed, coordinates, eigenvalues, kernel, options):
    """Return the posterior under a kernel."""
    a, noise, length = kernel.ambient_amplitude, kernel.noise_variance, kernel.ambient_length_scale
    moments, whiten = moments_of(observed, coordinates, length)
    half, _ = root_spectrum(eigenvalues, kernel.length_scale, kernel.amplitude, options)
    inverse, G, b, _ = products(moments, noise, a)
    L = factor(half, G)
    root = torch.linalg.solve_triangular(L, half.diag(), upper=False)
    alpha = root.mT @ (root @ b)
    if coordinates is None:
        return Posterior(alpha * observed.scale, root, observed.offset, observed.scale, None)
    gain = (a * moments.energies.sqrt() * inverse)[:, None, None]
    ambient = Ambient(
        landmarks=coordinates.landmarks,
        length=length * coordinates.median,
        amplitude=a,
        whiten=whiten,
        shrink=a * moments.energies * inverse,
        coupling=gain * moments.P,
        weights=gain * (moments.Y - moments.P @ alpha) * observed.scale,
    )
    return Posterior(alpha * observed.scale, root, observed.offset, observed.scale, ambient)


def field_at(codes, points, queries, posterior):
    """Return the mean (n, q, c) of the field at queries with these codes (n, q, K)."""
    mean = codes @ posterior.alpha + posterior.offset
    if posterior.ambient is not None:
        features = _features(queries, points, posterior.ambient)
        mean = mean + torch.einsum("nr,rqc->nqc", features, posterior.ambient.weights)
    return mean


def deviation_at(codes, points, queries, posterior):
    """Return the standard deviations (n, q, c), without noise."""
    variance, ambient = 0.0, posterior.ambient
    if ambient is not None:
        features = _features(queries, points, ambient)
        variance = ambient.amplitude * (1 - features.square() @ ambient.shrink).clamp(min=0)[:, None]
        codes = codes - torch.einsum("nr,rqk->nqk", features, ambient.coupling)
    variance = variance + (codes @ posterior.root.mT).square().sum(2)
    return variance.sqrt()[:, :, None] * posterior.scale


def draws_at(codes, points, queries, posterior, n_draws, draw):
    """Return joint draws (n, q, c, n_draws) of the field; `draw` makes standard normal values of a shape."""
    (n, q, _), (_, c), ambient = codes.shape, posterior.alpha.shape, posterior.ambient
    around = field_at(codes, points, queries, posterior)
    weights = posterior.root.mT @ draw(len(posterior.root), c * n_draws)
    if ambient is None:
        moved = codes @ weights
    else:
        features = _features(queries, points, ambient)
        codes = codes - torch.einsum("nr,rqk->nqk", features, ambient.coupling)
        covariance = matern(distances(queries, queries) / ambient.length) - (features * ambient.shrink) @ features.mT
        w, V = torch.linalg.eigh(covariance * ambient.amplitude)
        own = (V * w.clamp(min=0).sqrt()) @ draw(n, q * c * n_draws)
        moved = codes @ weights + own.reshape(n, q, -1)
    return around[..., None] + moved.reshape(n, q, c, n_draws) * posterior.scale[:, None]


def _features(queries, points, ambient):
    """Return the features (n, r) of new points whose products with those of the landmarks are the kernel."""
    return matern(distances(queries, points[ambient.landmarks]) / ambient.length) @ ambient.whiten
