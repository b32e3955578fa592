"""The marginal likelihood of a field: a kernel of modes plus one of coordinates, and its slopes."""

import math
from typing import NamedTuple

import numpy as np
import torch

from .._math.neighbors import farthest_points

_EXACT = 2000  # numbers observed up to which the kernel of coordinates is exact
_INDUCING = 512  # locations that stand for all beyond that
_RANK = 1e-10  # of the largest eigenvalue: smaller ones of the kernel of coordinates count as zero
_ROUNDING = 1e-14
_SHORTEST = 1e-3  # of the median distance, the least spacing


class ProcessOptions(NamedTuple):
    """Parameters of the kernel and of its optimisation."""

    kernel: str
    ambient: str | None
    nu: float
    length_scale: float
    noise_variance: float
    optimizer: str | None
    n_restarts_optimizer: int


class Observed(NamedTuple):
    """Values at m locations: codes P (m, q, K), and values Y (m, q, c) in units of their scale."""

    P: torch.Tensor
    Y: torch.Tensor
    node: torch.Tensor  # (m,): where
    offset: torch.Tensor  # (D, 1) or (1, c)
    scale: torch.Tensor  # (c,)
    beside: float = 0.0  # sum of squares of parts outside of the tangent spaces, in units of the scale
    n_beside: int = 0  # numbers of them


class Coordinates(NamedTuple):
    """Distances, in units of their median, by which the kernel of coordinates is made."""

    landmarks: torch.Tensor  # (u,): locations
    within: torch.Tensor  # (u, u)
    across: torch.Tensor  # (u, m): to the observations
    median: float
    spacing: float  # in units of the median, the typical distance of a landmark to the nearest other one
    complete: bool  # the landmarks are the observations, one for one


class Moments(NamedTuple):
    """What the evidence needs of the observations: along eigenvectors of the kernel of coordinates, and across them."""

    energies: torch.Tensor  # (r,)
    P: torch.Tensor  # (r, q, K): codes along unit eigenvectors
    Y: torch.Tensor  # (r, q, c)
    G: torch.Tensor  # (K, K), (K, c), (c,): products of the rest
    b: torch.Tensor
    y: torch.Tensor
    n_rest: int
    lost: float  # trace of what the inducing locations do not represent


class Kernel(NamedTuple):
    """Hyperparameters; variances relative to the mean square of y, lengths of coordinates to the median distance."""

    length_scale: float
    amplitude: float
    noise_variance: float
    ambient_amplitude: float = 0.0
    ambient_length_scale: float = 1.0


def coordinates_of(observed, points):
    """Return the landmarks of the kernel of coordinates: all locations that were observed, or some far apart."""
    distinct, place = torch.unique(observed.node, return_inverse=True)
    most = max(1, _EXACT // observed.P.shape[1])
    landmarks = distinct
    if len(distinct) > most:
        here = points[distinct]
        first = (here - here.mean(0)).square().sum(1).argmax()
        landmarks = distinct[farthest_points(here, min(_INDUCING, most), int(first))]
    whole = len(landmarks) == len(distinct)
    within = distances(points[landmarks], points[landmarks])
    across = within[:, place] if whole else distances(points[landmarks], points[observed.node])
    median, spacing = _typical(within)
    complete = len(landmarks) == len(observed.node)
    return Coordinates(landmarks, within / median, across / median, median, spacing, complete)


def _typical(within):
    """Return the median of the distances that are not zero, and in units of it that of the nearest ones."""
    apart = torch.where(within > 0, within, torch.inf)
    if not bool((apart < torch.inf).any()):
        return 1.0, 1.0
    nearest, median = apart.amin(1), float(within[within > 0].median())
    return median, max(float(nearest[nearest < torch.inf].median()) / median, _SHORTEST)


def distances(a, b):
    """Return Euclidean distances, without the cancellation of those by inner products."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def matern(apart):
    """Return the Matérn kernel of smoothness 3/2 at distances in units of its length."""
    r = math.sqrt(3) * apart
    return (1 + r) * torch.exp(-r)


def moments_of(observed, coordinates, length):
    """Return the moments for a length of the kernel of coordinates, and the map to its features."""
    P, Y = observed.P, observed.Y
    if coordinates is None:
        e, whiten = P.new_zeros(0), P.new_zeros(0, 0)
        along_P, along_Y = P[:0], Y[:0]
    else:
        e, E = _eigenpairs(matern(coordinates.within / length))
        whiten = E / e.sqrt()
        if coordinates.complete:
            along_P, along_Y = _along(E.mT, P), _along(E.mT, Y)
        else:
            F = whiten.mT @ matern(coordinates.across / length)
            e, V = _eigenpairs(F @ F.mT)
            whiten, turn = whiten @ V, V.mT / e.sqrt()[:, None]
            along_P, along_Y = _along(turn, _along(F, P)), _along(turn, _along(F, Y))
    rest = 0.0 if len(e) == len(P) else 1.0  # where the eigenvectors span everything, there is none
    G = (_gram(P, P) - _gram(along_P, along_P)) * rest
    b = (_gram(P, Y) - _gram(along_P, along_Y)) * rest
    y = (Y.square().sum((0, 1)) - along_Y.square().sum((0, 1))) * rest
    lost = max(0.0, len(P) - float(e.sum())) if len(e) else 0.0
    return Moments(e, along_P, along_Y, G, b, y, len(P) - len(e), lost), whiten


def _eigenpairs(M):
    """Return the eigenpairs of a kernel but for those that are rounding errors."""
    e, E = torch.linalg.eigh(M)
    kept = e > _RANK * e[-1]
    return e[kept], E[:, kept]


def _along(rows, values):
    """Return combinations (r, q, K) of values (m, q, K) by rows (r, m)."""
    return (rows @ values.flatten(1)).reshape(len(rows), *values.shape[1:])


def _gram(A, B):
    """Return the products (K, c) of A (m, q, K) and B (m, q, c)."""
    return A.flatten(0, 1).mT @ B.flatten(0, 1)


def loss_and_slope(theta, moments, eigenvalues, options):
    """Return the negative logarithm of the marginal likelihood at logarithms `theta` of hyperparameters, and its slope.

    With inducing locations it is Titsias' bound, which counts what they do not represent as a loss. The slopes are
    those of Fisher's identity: expectations, under the posterior, of the slopes with the weights of the modes known.
    """
    length_scale, amplitude, noise, *a = np.exp(theta).tolist()
    a, (_, q, c) = a[0] if a else 0.0, moments.Y.shape
    root, by_length = root_spectrum(eigenvalues, length_scale, amplitude, options)
    inverse, G, b, y = products(moments, noise, a)
    L = factor(root, G)
    R = torch.linalg.solve_triangular(L, root.diag(), upper=False)  # R.T @ R is the covariance of the weights
    z = R @ b
    log_det = q * (moments.n_rest * math.log(noise) - inverse.log().sum()) + 2 * L.diagonal().log().sum()
    lost = c * q * a * moments.lost / noise
    loss = y.sum() - z.square().sum() + c * (log_det + (len(inverse) + moments.n_rest) * q * math.log(2 * math.pi))

    alpha, eye = R.mT @ z, torch.eye(len(L), dtype=L.dtype, device=L.device)
    unit = torch.linalg.solve_triangular(L, eye, upper=False)  # R without the spectrum, some of which may be zero
    by_mode = c * (1 - unit.square().sum(0)) - (unit.mT @ z).square().sum(1)
    off = (moments.Y - moments.P @ alpha).square().sum((1, 2)) + c * (moments.P @ R.mT).square().sum((1, 2))
    by_noise = c * q - inverse * off
    rest = moments.y.sum() - 2 * (alpha * moments.b).sum() + (alpha * (moments.G @ alpha)).sum()
    rest = moments.n_rest * c * q - (rest + c * (R @ moments.G * R).sum()) / noise
    slopes = [by_mode @ by_length, by_mode.sum(), noise * (by_noise @ inverse) + rest - lost]
    slopes.append(a * (by_noise @ (inverse * moments.energies)) + lost)
    loss, *slopes = torch.stack([loss + lost, *slopes]).mul(0.5).tolist()
    return loss, np.array(slopes[: len(theta)])


def products(moments, noise, a):
    """Return 1 / (noise + a e), and G, b, y with the noise and the kernel of coordinates inverted between them."""
    inverse = 1 / (noise + a * moments.energies)
    weighted = moments.P * inverse[:, None, None]
    G = moments.G / noise + _gram(weighted, moments.P)
    b = moments.b / noise + _gram(weighted, moments.Y)
    y = moments.y / noise + (moments.Y.square() * inverse[:, None, None]).sum((0, 1))
    return inverse, G, b, y


def root_spectrum(eigenvalues, length_scale, amplitude, options):
    """Return the standard deviations of the weights of modes, and the slopes of the logarithms of their variances.

    They are scaled so that the mean variance of the field is `amplitude`. The slopes are by that of `length_scale`.
    """
    if options.kernel == "matern":
        inner = 2 * options.nu / length_scale**2
        logarithm, slope = -options.nu * (eigenvalues + inner).log(), 2 * options.nu * inner / (eigenvalues + inner)
    else:
        logarithm, slope = -eigenvalues * length_scale**2 / 2, -eigenvalues * length_scale**2
    share = torch.softmax(logarithm, 0)
    return (share * amplitude).sqrt(), slope - share @ slope


def factor(root, G):
    """Return the Cholesky factor of I + S^1/2 G S^1/2, with its rounding errors added to the diagonal."""
    B = root[:, None] * G * root
    diagonal = 1 + _ROUNDING * B.diagonal().sum()
    return torch.linalg.cholesky(B + diagonal * torch.eye(len(B), dtype=B.dtype, device=B.device))
