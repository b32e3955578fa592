"""The Gaussian process of a field: a kernel of modes plus one of coordinates, its evidence and its posterior."""

import math
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize, minimize_scalar

from .._math.neighbors import farthest_points

_EXACT = 2000  # numbers observed up to which the kernel of coordinates is exact
_INDUCING = 512  # locations that stand for all beyond that
_RANK = 1e-10  # of the largest eigenvalue: smaller ones of the kernel of coordinates count as zero
_ROUNDING = 1e-14
_LENGTHS = 5  # of the kernel of coordinates that are tried, from twice the spacing of the landmarks
_LONGEST = 30.0  # of them, in medians of distances
_SHORTEST = 1e-3
_ROUGH = {"ftol": 1e-6, "gtol": 1e-2}  # tolerances while the length is searched
_ROUGH_LENGTH = {"xatol": 0.05}
_BOUNDS = {  # of logarithms; variances relative to the mean square of y
    "length_scale": (1e-1, 1e3),
    "amplitude": (1e-6, 1e4),
    "noise_variance": (1e-8, 1e1),
    "ambient_amplitude": (1e-6, 1e4),
}


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


class Process(NamedTuple):
    """What is fitted."""

    posterior: Posterior
    kernel: Kernel
    median: float  # distance, in units of the points
    log_likelihood: float
    log_likelihood_of_all: float  # of whole vectors, of which parts outside of the tangent spaces are noise


class Coordinates(NamedTuple):
    """Distances, in units of their median, by which the kernel of coordinates is made."""

    landmarks: torch.Tensor  # (u,): locations
    within: torch.Tensor  # (u, u)
    across: torch.Tensor  # (u, m): to the observations
    median: float
    spacing: float  # in units of the median, the typical distance of a landmark to the nearest other one
    complete: bool  # the landmarks are the observations, one for one


def fit_process(observed, points, eigenvalues, options, draws):
    """Return the fitted process; `draws` (n_restarts, 4) are starts of the optimisation on the unit interval."""
    coordinates = _coordinates(observed, points) if options.ambient else None
    kernel, loss = _best_kernel(observed, coordinates, eigenvalues, options, draws)
    posterior = _posterior(observed, coordinates, eigenvalues, kernel, options)
    units = float(observed.scale.log().sum()) * (observed.Y.numel() / len(observed.scale))
    median = 1.0 if coordinates is None else coordinates.median
    found = -loss - units
    return Process(posterior, kernel, median, found, found + _likelihood_beside(observed, kernel.noise_variance))


def _likelihood_beside(observed, noise):
    """Return the logarithm of the likelihood of the parts outside of the tangent spaces, which are noise alone."""
    units = 2 * float(observed.scale.log().sum())
    return -(observed.beside / noise + observed.n_beside * (math.log(2 * math.pi * noise) + units)) / 2


def observe(y, place, cloud, tangent, in_frames):
    """Return the labelled rows of y (n,) or (n, p), NaN elsewhere; of tangent vectors their part `in_frames` if wanted.

    Numbers are centred, vectors are not, unless there is but one location.
    """
    y = y.reshape(len(y), -1)
    given = (~y.isnan().any(1)).nonzero()[:, 0]
    given = given[place[given].argsort(stable=True)]  # in the order of the locations, not in that of the rows
    node, values = place[given], y[given]
    codes, offset = cloud.codes[node], torch.zeros_like(values[0])
    offset = offset if tangent and len(cloud.points) > 1 else values.mean(0)
    values, offset = values - offset, offset[:, None] if tangent else offset[None]
    values = values[:, :, None] if tangent else values[:, None]
    scale = _root_mean_square(values)
    if tangent and in_frames:
        frames = cloud.frames[node]
        beside = float(((values - frames @ (frames.mT @ values)) / scale).square().sum())
        n_beside = len(frames) * (frames.shape[1] - frames.shape[2])
        codes, values = frames.mT @ codes, frames.mT @ values
        return Observed(codes, values / scale, node, offset, scale, beside, n_beside)
    return Observed(codes, values / scale, node, offset, scale)


def _root_mean_square(values):
    """Return the root mean square of values (m, q, c) by their last axis; 1 where all are zero."""
    largest = values.abs().amax((0, 1))
    unit = torch.where(largest > 0, largest, 1.0)
    mean = (values / unit).square().mean((0, 1)).sqrt() * unit
    return torch.where(largest > 0, mean, 1.0)


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
        covariance = _matern(_distances(queries, queries) / ambient.length) - (features * ambient.shrink) @ features.mT
        w, V = torch.linalg.eigh(covariance * ambient.amplitude)
        own = (V * w.clamp(min=0).sqrt()) @ draw(n, q * c * n_draws)
        moved = codes @ weights + own.reshape(n, q, -1)
    return around[..., None] + moved.reshape(n, q, c, n_draws) * posterior.scale[:, None]


def _coordinates(observed, points):
    """Return the landmarks of the kernel of coordinates: all locations that were observed, or some far apart."""
    distinct, place = torch.unique(observed.node, return_inverse=True)
    most = max(1, _EXACT // observed.P.shape[1])
    landmarks = distinct
    if len(distinct) > most:
        here = points[distinct]
        first = (here - here.mean(0)).square().sum(1).argmax()
        landmarks = distinct[farthest_points(here, min(_INDUCING, most), int(first))]
    whole = len(landmarks) == len(distinct)
    within = _distances(points[landmarks], points[landmarks])
    across = within[:, place] if whole else _distances(points[landmarks], points[observed.node])
    median, spacing = _typical(within)
    distances = landmarks, within / median, across / median
    return Coordinates(*distances, median, spacing, len(landmarks) == len(observed.node))


def _typical(within):
    """Return the median of the distances that are not zero, and in units of it that of the nearest ones."""
    apart = torch.where(within > 0, within, torch.inf)
    if not bool((apart < torch.inf).any()):
        return 1.0, 1.0
    nearest, median = apart.amin(1), float(within[within > 0].median())
    return median, max(float(nearest[nearest < torch.inf].median()) / median, _SHORTEST)


def _distances(a, b):
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _matern(distances):
    """Return the Matérn kernel of smoothness 3/2."""
    r = math.sqrt(3) * distances
    return (1 + r) * torch.exp(-r)


def _features(queries, points, ambient):
    """Return the features (n, r) of new points whose products with those of the landmarks are the kernel."""
    return _matern(_distances(queries, points[ambient.landmarks]) / ambient.length) @ ambient.whiten


def _best_kernel(observed, coordinates, eigenvalues, options, draws):
    """Return the hyperparameters of the largest evidence, and the negative evidence.

    For a length of the kernel of coordinates the evidence is cheap in all others: that length is searched over a grid
    and then between its neighbours, with the others optimised for each.
    """
    noise = max(options.noise_variance, _BOUNDS["noise_variance"][0])
    start = Kernel(options.length_scale, *((1.0, noise, 0.0) if coordinates is None else (0.5, noise, 0.5)))
    if options.optimizer is None:
        moments, _ = _moments(observed, coordinates, 1.0)
        values = [value for value in start[:4] if value > 0]
        return start, _loss_and_slope(np.log(values), moments, eigenvalues, options)[0]
    names = [name for name in _BOUNDS if name != "ambient_amplitude" or coordinates is not None]
    low, high = np.log([_BOUNDS[name] for name in names]).T
    best = _Best(math.inf, np.log([getattr(start, name) for name in names]), 0.0)

    def improve(log_length, *thetas, **tolerances):
        nonlocal best
        moments, _ = _moments(observed, coordinates, math.exp(log_length))
        solve = partial(minimize, _loss_and_slope, args=(moments, eigenvalues, options), jac=True, method="L-BFGS-B")
        found = [solve(np.clip(t, low, high), bounds=list(zip(low, high)), options=tolerances) for t in thetas]
        best = min(best, *(_Best(run.fun, run.x, log_length) for run in found), key=lambda b: b.loss)
        return min(run.fun for run in found)

    improve(0.0, best.theta, *(low + (high - low) * (0.25 + 0.5 * draws[:, : len(names)])), **_ROUGH)
    if coordinates is not None:
        lengths, step = np.linspace(math.log(2 * coordinates.spacing), math.log(_LONGEST), _LENGTHS, retstep=True)
        for log_length in lengths:
            improve(log_length, best.theta, _by_coordinates(best.theta), **_ROUGH)
        about = max(best.log_length - step, math.log(coordinates.spacing)), best.log_length + step
        search = partial(minimize_scalar, method="bounded", options=_ROUGH_LENGTH)
        search(lambda log_length: improve(log_length, best.theta, **_ROUGH), bounds=about)
    improve(best.log_length, best.theta)
    return Kernel(*np.exp(best.theta), ambient_length_scale=math.exp(best.log_length)), best.loss


class _Best(NamedTuple):
    """The best hyperparameters so far: logarithms in the order of _BOUNDS, and that of the length of coordinates."""

    loss: float
    theta: np.ndarray
    log_length: float


def _by_coordinates(theta):
    """Return a start at which the kernel of coordinates has the larger part: once that is lost no slope leads back."""
    return np.array([theta[0], math.log(0.05), theta[2], 0.0])


def _moments(observed, coordinates, length):
    """Return the moments for a length of the kernel of coordinates, and the map to its features."""
    P, Y = observed.P, observed.Y
    if coordinates is None:
        e, whiten = P.new_zeros(0), P.new_zeros(0, 0)
        along_P, along_Y = P[:0], Y[:0]
    else:
        e, E = _eigenpairs(_matern(coordinates.within / length))
        whiten = E / e.sqrt()
        if coordinates.complete:
            along_P, along_Y = _along(E.mT, P), _along(E.mT, Y)
        else:
            F = whiten.mT @ _matern(coordinates.across / length)
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


def _loss_and_slope(theta, moments, eigenvalues, options):
    """Return the negative logarithm of the marginal likelihood at logarithms `theta` of hyperparameters, and its slope.

    With inducing locations it is Titsias' bound, which counts what they do not represent as a loss. The slopes are
    those of Fisher's identity: expectations, under the posterior, of the slopes with the weights of the modes known.
    """
    length_scale, amplitude, noise, *a = np.exp(theta).tolist()
    a, (_, q, c) = a[0] if a else 0.0, moments.Y.shape
    root, by_length = _root_spectrum(eigenvalues, length_scale, amplitude, options)
    inverse, G, b, y = _products(moments, noise, a)
    L = _factor(root, G)
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


def _products(moments, noise, a):
    """Return 1 / (noise + a e), and G, b, y with the noise and the kernel of coordinates inverted between them."""
    inverse = 1 / (noise + a * moments.energies)
    weighted = moments.P * inverse[:, None, None]
    G = moments.G / noise + _gram(weighted, moments.P)
    b = moments.b / noise + _gram(weighted, moments.Y)
    y = moments.y / noise + (moments.Y.square() * inverse[:, None, None]).sum((0, 1))
    return inverse, G, b, y


def _root_spectrum(eigenvalues, length_scale, amplitude, options):
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


def _factor(root, G):
    """Return the Cholesky factor of I + S^1/2 G S^1/2, with its rounding errors added to the diagonal."""
    B = root[:, None] * G * root
    diagonal = 1 + _ROUNDING * B.diagonal().sum()
    return torch.linalg.cholesky(B + diagonal * torch.eye(len(B), dtype=B.dtype, device=B.device))


def _posterior(observed, coordinates, eigenvalues, kernel, options):
    """Return the posterior under a kernel."""
    a, noise, length = kernel.ambient_amplitude, kernel.noise_variance, kernel.ambient_length_scale
    moments, whiten = _moments(observed, coordinates, length)
    half, _ = _root_spectrum(eigenvalues, kernel.length_scale, kernel.amplitude, options)
    inverse, G, b, _ = _products(moments, noise, a)
    L = _factor(half, G)
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
