"""Metric multidimensional scaling: points whose distances are near given ones, and places of further points."""

from collections.abc import Iterator

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh

from .._core.blocks import in_blocks, join_blocks, rows_per_block
from .._core.iterate import Step
from .._math.linalg import signs_of_largest

_SMALL = 200  # points up to which the eigendecomposition is dense
_NEAREST = 10  # landmarks at whose mean a further point starts
_PLACE_ITER = 10
_LEAST_WEIGHT = 1e-8  # of the largest: below it, parts that smaller weights alone connect could not be placed
_BLOCK = {"cpu": 1 << 16, "cuda": 1 << 24}  # distances at once: on a CPU those that its caches hold


def classical_scaling(distances: torch.Tensor, n_components: int, start: torch.Tensor) -> torch.Tensor:
    """Return the points (m, n_components) of classical scaling; components without variance are zero.

    `start` (m,) is where Lanczos' method begins.
    """
    m = len(distances)
    squares = distances.square().mul_(-0.5)
    if m <= max(_SMALL, 2 * n_components + 1):
        centred = squares - squares.mean(0) - squares.mean(1, keepdim=True) + squares.mean()
        values, vectors = torch.linalg.eigh((centred + centred.mT) / 2)
        values, vectors = values.flip(0)[:n_components], vectors.flip(1)[:, :n_components]
    else:
        values, vectors = _leading(squares, n_components, start)
    points = vectors * values.clamp(min=0).sqrt()
    points = points * signs_of_largest(points.mT)
    return torch.nn.functional.pad(points, (0, n_components - points.shape[1]))


def _leading(squares, count, start):
    """Return the largest eigenvalues, and their vectors, of a matrix that is centred on the way."""

    def multiply(v):
        v = torch.from_numpy(np.ascontiguousarray(v, dtype=np.float64)).to(squares.device)
        v = squares @ (v - v.mean())
        return (v - v.mean()).cpu().numpy()

    m = len(squares)
    operator = LinearOperator((m, m), matvec=multiply, dtype=np.float64)
    values, vectors = eigsh(operator, count, which="LA", v0=start.cpu().numpy(), tol=1e-10)
    order = np.argsort(-values)
    parts = (np.ascontiguousarray(part) for part in (values[order], vectors[:, order]))
    return tuple(torch.from_numpy(part).to(squares.device) for part in parts)


def stress(points: torch.Tensor, distances: torch.Tensor) -> float:
    """Return the root of the squared errors of distances over the sum of their squares."""
    total = distances.square().sum()
    error = sum(embedded.sub_(distances[rows]).square_().sum() for rows, embedded in _embedded_distances(points))
    return float((error / total.clamp(min=torch.finfo(total.dtype).tiny)).sqrt())


def _embedded_distances(points):
    """Yield distances between points in blocks of rows."""
    m = len(points)

    def of(rows):
        return rows, torch.cdist(points[rows], points, compute_mode="donot_use_mm_for_euclid_dist")

    block = max(1, _BLOCK[points.device.type] // m)
    return in_blocks(of, m, min(m, block), bytes_per_row=24 * m)


def smacof_steps(distances: torch.Tensor, start: torch.Tensor, weights: torch.Tensor | None = None) -> Iterator[Step]:
    """Minimise the stress by Guttman transforms, from a start (m, p); yield points after each.

    Weights count as 1e-8 of the largest at least. The loss is the root of the weighted squared errors over the weighted
    squares; the gap is by how much it falls.
    """
    weights = None if weights is None else weights.clamp(min=_LEAST_WEIGHT * float(weights.max()))
    solve = None if weights is None else _weighted_solver(weights)
    total = _weighted_squares(distances, weights)
    points, former = start, None
    while True:
        moved, error = _guttman(points, distances, weights)
        now = float((error / total.clamp(min=torch.finfo(total.dtype).tiny)).sqrt())
        if former is not None:
            gap = (former - now) / former if former > 0 else 0.0
            yield Step(points, max(gap, 0.0), now)
        points, former = moved if solve is None else solve(moved), now


def _weighted_squares(distances, weights):
    return distances.square().sum() if weights is None else (weights * distances.square()).sum()


def _guttman(points, distances, weights):
    """Return B(points) points, over m without weights, and the squared errors of the points."""
    error, parts = 0.0, []
    for rows, embedded in _embedded_distances(points):
        target = distances[rows]
        ratio = (target / embedded).masked_fill_(embedded == 0, 0.0)
        errors = embedded.sub_(target).square_()
        if weights is not None:
            ratio, errors = ratio.mul_(weights[rows]), errors.mul_(weights[rows])
        error += errors.sum()
        parts.append(ratio.sum(1, keepdim=True) * points[rows] - ratio @ points)
    moved = torch.cat(parts)
    return (moved / len(points) if weights is None else moved), error


def _weighted_solver(weights):
    """Return a function that multiplies by the pseudo-inverse of the Laplacian of the weights."""
    m = len(weights)
    system = torch.diag(weights.sum(1) - weights.diagonal()) - (weights - torch.diag(weights.diagonal()))
    scale = system.diagonal().mean()
    factor = torch.linalg.cholesky(system + scale / m)
    return lambda B: torch.cholesky_solve(B - B.mean(0), factor)


def principal_axes(points: torch.Tensor) -> torch.Tensor:
    """Return the points centred and turned to their principal axes, with signs that do not depend on their order."""
    centred = points - points.mean(0)
    turned = centred @ torch.linalg.eigh(centred.mT @ centred).eigenvectors.flip(1)
    return turned * signs_of_largest(turned.mT)


def place(distances: torch.Tensor, landmarks: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Return places (n, p) of points by their distances (n, m) to landmarks (m, p): a local minimum of the stress.

    A point starts at the mean of its nearest landmarks, weighted by inverse distance, and takes Gauss-Newton steps as
    long as they lower its stress.
    """
    size = 8 * landmarks.numel() * 4

    def of(rows):
        return _placed(distances[rows], landmarks, None if weights is None else weights[rows])

    return join_blocks(of, len(distances), rows_per_block("auto", len(distances), size), bytes_per_row=size)


def _placed(distances, landmarks, weights):
    near = distances.topk(min(_NEAREST, len(landmarks)), dim=1, largest=False)
    share = 1 / near.values.clamp(min=1e-9 * float(distances.max()) or 1.0)
    share = share / share.sum(1, keepdim=True)
    places = (share[:, :, None] * landmarks[near.indices]).sum(1)
    weights = torch.ones_like(distances) if weights is None else weights / weights.amax(1, keepdim=True)
    best = _errors(places, landmarks, distances, weights)
    for _ in range(_PLACE_ITER):
        tried = places + _gauss_newton(places, landmarks, distances, weights)
        now = _errors(tried, landmarks, distances, weights)
        better = now < (1 - 1e-6) * best
        if not better.any():
            break
        places = torch.where(better[:, None], tried, places)
        best = torch.where(better, now, best)
    return places


def _errors(places, landmarks, distances, weights):
    embedded = torch.cdist(places, landmarks, compute_mode="donot_use_mm_for_euclid_dist")
    return (weights * (embedded - distances).square()).sum(1)


def _gauss_newton(places, landmarks, distances, weights):
    towards = places[:, None, :] - landmarks
    embedded = towards.norm(dim=2)
    unit = towards / embedded.clamp(min=torch.finfo(embedded.dtype).tiny)[:, :, None]
    weighted = weights[:, :, None] * unit
    normal = weighted.mT @ unit
    p = normal.shape[1]
    trace = normal.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    normal += torch.where(trace > 0, 1e-10 * trace, 1.0) * torch.eye(p, dtype=normal.dtype, device=normal.device)
    return torch.linalg.solve(normal, (weighted * (distances - embedded)[:, :, None]).sum(1))


def place_classical(distances: torch.Tensor, landmarks: torch.Tensor, between: torch.Tensor) -> torch.Tensor:
    """Return places (n, p) in a classical scaling of landmarks with the distances `between` them: Gower's formula."""
    centred = landmarks - landmarks.mean(0)
    variances = centred.square().sum(0)
    inverse = torch.where(variances > 1e-12 * variances.max(), 1 / variances.clamp(min=1e-300), 0.0)
    return -0.5 * (distances.square() - between.square().mean(0)) @ (centred * inverse) + landmarks.mean(0)
