"""Features of responses: in which balls around some of them, the landmarks, a response lies.

Only the order of the distances from each landmark counts. The features are many and alike, so estimators work with
their principal components, :attr:`Features.targets`.
"""

from functools import partial
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.exceptions import DataDimensionalityWarning
from sklearn.utils import check_consistent_length

from .._core.blocks import in_blocks, rows_per_block
from .._core.validation import on_host
from .._core.warn import warn
from ._distance_order import Law, law_of, order_of_columns
from ._metric_spaces import TIE, as_objects, distances, form_of, points_of, resolve_metric

_KEPT, _KEPT_AT_LEAST = 0.95, 64  # share of the features' variance that their principal components keep, and how many
_RANK = 1e-10  # eigenvalues below this share of the largest are zero
_RADII_ROWS = 50_000  # at most, for the radii of balls
_PRINCIPAL_ROWS = 4000  # at most, for the principal components
_KEPT_BYTES = 1 << 28  # of targets


class Balls(NamedTuple):
    """Balls of responses: m landmarks with t radii each. Feature f = (landmark, radius) is 1 inside, 0 outside."""

    metric: Any  # name, or the user's function
    form: dict[str, Any]  # to which responses are brought, where the metric needs one
    centres: Any  # the landmarks' points, or their columns in given distances
    radii: torch.Tensor  # (m, t), ascending; infinity where a landmark has fewer
    weights: torch.Tensor  # (m t,) of features, they sum to one
    means: torch.Tensor  # (m t,) of features over the training rows


class Features(NamedTuple):
    """The features of the training responses."""

    balls: Balls
    landmarks: np.ndarray  # (m,) rows of the landmarks, or columns
    points: Any  # (n, ...) the responses as points of their space
    law: Law  # of the points
    basis: torch.Tensor  # (m t, r) orthonormal columns: axes of the centred features times the root of their weights
    targets: torch.Tensor | None  # (n, r) principal components along them; None where they take too much memory

    def per_row(self) -> Any:
        """Return what is passed row by row to :meth:`target_function`: the targets, or points of the responses."""
        return self.points if self.targets is None else self.targets

    def target_function(self):
        """Return the function from parts of :meth:`per_row` to targets."""
        return _identity if self.targets is not None else partial(_targets_of, self.balls, self.basis)


class FittedBalls(NamedTuple):
    """What a fitted estimator keeps of balls, from which :func:`restored_balls` makes them again."""

    metric: Any
    form: dict[str, np.ndarray]  # arrays and numbers
    landmarks: torch.Tensor  # (m,) rows of the training data, or columns of given distances
    landmark_objects: np.ndarray | None  # (m, ...) their responses, in the user's library; None for given distances
    thresholds: torch.Tensor  # (m, t) radii
    feature_weights: torch.Tensor  # (m t,)
    feature_means: torch.Tensor  # (m t,)


def _identity(targets):
    return targets


def _targets_of(balls, basis, points):
    return _along(balls, basis, distances(points, balls.centres, balls.metric).to(basis.device), basis.dtype)


def _along(balls, basis, D, dtype):
    """Return the features of rows at distances D (b, m) along some axes, computed in blocks."""
    size = 16 * len(balls.means)

    def part(rows):
        return (_centred(balls, _bins(D[rows], balls.radii)) @ basis).to(dtype)

    return torch.cat(list(in_blocks(part, len(D), rows_per_block("auto", len(D), size), bytes_per_row=size)))


def ball_features(
    y, *, metric, n_landmarks, n_thresholds, device, sample_weight=None, dtype=torch.float64, whole=True
) -> Features:
    """Choose landmarks and radii among responses y, and return the features of all of them.

    Nothing is drawn: landmarks are spread evenly over the responses in an order that distances alone make, and radii
    are order statistics of the distances. So a row of weight two equals two rows, and neither the order of the rows nor
    an isometry of the responses changes the features. Labels are the exception: each class, up to `n_landmarks`, is one
    ball, and all weigh the same. Targets are kept in `dtype`; unless `whole`, only where they take 256 MB at most.

    Raises
    ------
    ValueError
        If all features are constant.
    """
    y = on_host(y)
    metric = resolve_metric(metric, y)
    form = form_of(y, metric, sample_weight)
    points = points_of(y, metric, form)
    points = points.to(device) if isinstance(points, torch.Tensor) else points
    n = points.shape[0]
    weight = np.ones(n) if sample_weight is None else sample_weight
    law = law_of(points, weight, metric)
    landmarks, shares = _landmarks(points, metric, law, n_landmarks)
    centres = torch.from_numpy(landmarks) if metric == "precomputed" else points[landmarks]
    known = None
    if metric == "discrete":
        radii, shares_of_radii = torch.zeros(2, len(landmarks), 1, dtype=torch.float64, device=device)
        shares_of_radii += 1
    else:
        rows, row_weight = _spread(law, _RADII_ROWS)
        D = torch.cat(list(_distances_in_blocks(points, rows, centres, metric, device)))
        radii, shares_of_radii = _order_statistics(D.T.contiguous(), row_weight.to(device), n_thresholds)
        if len(rows) == len(law.rows) and (law.place >= 0).all():
            known = D[law.place]
    weights = torch.from_numpy(shares).to(device)[:, None] * shares_of_radii
    balls = Balls(metric, form, centres, radii, weights.flatten(), torch.empty(0, dtype=torch.float64, device=device))

    def away(some):
        """Return the distances of some rows from the centres, in blocks."""
        if known is not None:
            return [known[some]]
        return _distances_in_blocks(points, some, centres, metric, device)

    everything = np.arange(n)
    means = _means((_bins(D, radii) for D in away(everything)), weight / weight.sum(), radii.shape[1])
    balls = balls._replace(means=means)
    few, few_weights = _spread(law, _PRINCIPAL_ROWS)
    basis = _principal_axes(balls, torch.cat([_bins(D, radii) for D in away(few)]), few_weights)
    targets = None
    if whole or n * basis.shape[1] * dtype.itemsize <= _KEPT_BYTES:
        targets = torch.cat([_along(balls, basis, D, dtype) for D in away(everything)])
    return Features(balls, landmarks, points, law, basis, targets)


def checked_components(n_components, limits: dict[str, int]) -> int:
    """Return the number of components, lowered with a warning to the least of the limits.

    `limits` says what bounds the number.
    """
    what, most = min(limits.items(), key=lambda limit: limit[1])
    if n_components <= most:
        return n_components
    warn(
        f"n_components={n_components} is more than the {most} {what}; {max(1, most)} is used.",
        DataDimensionalityWarning,
    )
    return max(1, most)


def number_of(eigenvalues: torch.Tensor, n_components: int | float) -> int:
    """Return a number of components; a float asks for the fewest that have this share of the eigenvalues' sum."""
    if isinstance(n_components, Integral):
        return int(n_components)
    total = eigenvalues.sum()
    return min(len(eigenvalues), int((eigenvalues.cumsum(0) < n_components * total).sum()) + 1)


def fitted_balls(features: Features, y) -> FittedBalls:
    """Return what a fitted estimator keeps of the balls of training responses y."""
    balls, landmarks = features.balls, features.landmarks
    objects = None
    if balls.metric != "precomputed":
        objects = as_objects(on_host(y))[landmarks]
        objects = torch.from_numpy(objects) if objects.dtype.kind in "fiub" else objects
    return FittedBalls(
        metric=balls.metric,
        form=balls.form,
        landmarks=torch.from_numpy(landmarks),
        landmark_objects=objects,
        thresholds=balls.radii,
        feature_weights=balls.weights,
        feature_means=balls.means,
    )


def described_balls(fitted: FittedBalls) -> dict[str, Any]:
    """Return the public attributes of the balls."""
    names = ["landmarks", "landmark_objects", "thresholds", "feature_means"]
    return {f"{name}_": getattr(fitted, name) for name in names if getattr(fitted, name) is not None}


def restored_balls(fitted: FittedBalls) -> Balls:
    """Return the balls that were kept, on the device of their thresholds."""
    if fitted.metric == "precomputed":
        centres = fitted.landmarks.cpu()
    else:
        points = points_of(on_host(fitted.landmark_objects), fitted.metric, fitted.form)
        centres = _on(points, fitted.thresholds.device)
    return Balls(fitted.metric, fitted.form, centres, fitted.thresholds, fitted.feature_weights, fitted.feature_means)


def explained_shares(balls: Balls, y, predictors: torch.Tensor, loadings: torch.Tensor, ends) -> np.ndarray:
    """Return by how much each component raises the explained share of the features' variance on responses y.

    Predictors (n, k) times loadings (k, m t) predict the centred, weighted features; the j-th component adds the
    predictors up to ``ends[j]``. All is in float64.
    """
    check_consistent_length(predictors, y)
    points = _on(points_of(on_host(y), balls.metric, balls.form), loadings.device)
    _check_shape(points, balls)
    G = predictors.T @ predictors
    C, total, start = torch.zeros_like(loadings), 0.0, 0
    for D in _distances_in_blocks(points, np.arange(len(predictors)), balls.centres, balls.metric, loadings.device):
        F = _centred(balls, _bins(D, balls.radii))
        C += predictors[start : start + len(F)].T @ F
        total += float(F.square().sum())
        start += len(F)
    inner, products = (loadings * C).sum(1), G * (loadings @ loadings.T)
    gains = [float(2 * inner[:end].sum() - products[:end, :end].sum()) for end in ends]
    return np.diff(np.array(gains) / max(total, np.finfo(np.float64).tiny), prepend=0.0)


def loading_sums(predictors, weight, targets) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sums over rows that :func:`loadings_from` needs."""
    weighted = (weight[:, None] * predictors).T
    return weighted @ predictors, weighted @ targets


def loadings_from(gram, products, basis) -> torch.Tensor:
    """Return loadings (k, m t) from the products of predictors with one another and with targets."""
    return torch.linalg.pinv(gram, rtol=_RANK, hermitian=True) @ products @ basis.T  # predictors may be zero


# Landmarks and radii


def _on(points, device):
    return points.to(device) if isinstance(points, torch.Tensor) else points


def _spread(law, most):
    """Return some rows, evenly spread over the law, and their weights; all its points where they are few enough."""
    if len(law.rows) <= most:
        return law.rows, torch.from_numpy(law.mass)
    return law.rows[law.evenly(most)], torch.ones(most, dtype=torch.float64, device="cpu")


def _landmarks(points, metric, law, count):
    """Return rows of landmarks, or columns of given distances, and the share that each of them stands for."""
    if metric == "precomputed":
        n_columns = points.shape[1]
        columns = np.arange(n_columns)
        if count < n_columns:
            D = points[law.rows].cpu().numpy()
            middles = ((np.arange(count) + 0.5) / count * n_columns).astype(np.int64)
            columns = np.sort(order_of_columns(D, law.mass)[middles])
        return columns, np.full(len(columns), 1 / len(columns))
    if metric == "discrete":
        frequent = np.argsort(-law.mass[law.order], kind="stable")[:count]
        rows = np.sort(law.rows[law.order[frequent]])
        return rows, np.full(len(rows), 1 / len(rows))
    if len(law.rows) <= count:
        return law.rows, law.mass / law.mass.sum()
    places, times = np.unique(law.evenly(count), return_counts=True)
    return law.rows[places], times / count


def _order_statistics(D, weight, count):
    """Return radii (m, count) at even levels of the distances D (m, n), duplicates merged, and their shares."""
    D, order = D.sort(dim=1)
    cumulated = weight[order].cumsum(1)
    levels = (torch.arange(count, dtype=torch.float64, device=D.device) + 0.5) / count
    at = torch.searchsorted(cumulated, levels * cumulated[:, -1:] * (1 - TIE))
    radii = D.gather(1, at.clamp(max=D.shape[1] - 1))
    new = torch.ones_like(radii, dtype=torch.bool)
    new[:, 1:] = radii[:, 1:] > radii[:, :-1] * (1 + TIE)
    place = new.long().cumsum(1) - 1
    merged = torch.full_like(radii, torch.inf).scatter(1, place, radii)
    shares = torch.zeros_like(radii).scatter_add(1, place, torch.full_like(radii, 1 / count))
    used = int(place.amax()) + 1
    return merged[:, :used].contiguous(), shares[:, :used].contiguous()


def _check_shape(points, balls):
    comparable = callable(balls.metric) or balls.metric == "precomputed"
    if not comparable and points.shape[1:] != balls.centres.shape[1:]:
        raise ValueError(
            f"Responses of shape {tuple(points.shape[1:])} cannot be compared with those of shape "
            f"{tuple(balls.centres.shape[1:])} that fit has seen."
        )


# Features


def _distances_in_blocks(points, rows, centres, metric, device):
    """Yield the distances of consecutive blocks of rows from the centres."""
    size = 24 * len(centres)
    step = rows_per_block("auto", len(rows), size)
    yield from in_blocks(
        lambda part: distances(points[rows[part]], centres, metric).to(device), len(rows), step, bytes_per_row=size
    )


def _bins(D, radii):
    """Return how many radii of each landmark are below the distance: the ball of rank k holds bins 0 to k.

    What differs by rounding is not below, so that ties stay ties.
    """
    return torch.searchsorted(radii * (1 + TIE), D.T.contiguous()).T.to(torch.uint8)


def _means(blocks, share, count):
    """Return the mean of each feature, rows weighted, from blocks of bins (b, m).

    Raises
    ------
    ValueError
        If all rows lie in the same bins.
    """
    total, first, varies, start = 0.0, None, False, 0
    for bins in blocks:
        part = torch.from_numpy(share[start : start + len(bins)]).to(bins.device)
        total = total + torch.stack([torch.bincount(c, part, minlength=count + 1)[:count] for c in bins.long().T])
        first = bins[0] if first is None else first
        varies, start = varies or bool((bins != first).any()), start + len(bins)
    if not varies:
        raise ValueError("y is constant: all responses are equally far from one another. There is nothing to explain.")
    return total.cumsum(1).flatten().clamp(max=1)


def _centred(balls, bins):
    """Return features (n, m t), centred and times the root of their weights, in float64."""
    t = balls.radii.shape[1]
    inside = bins[:, :, None] <= torch.arange(t, dtype=torch.uint8, device=bins.device)
    return (inside.flatten(1).double() - balls.means) * balls.weights.sqrt()


def _principal_axes(balls, bins, weight):
    """Return the axes (m t, r) that hold nearly all of the variance of the features of some rows."""
    F = _centred(balls, bins) * (weight / weight.sum()).sqrt().to(bins.device)[:, None]
    wide = F.shape[1] > F.shape[0]
    e, V = torch.linalg.eigh(F @ F.T if wide else F.T @ F)
    e, V = e.flip(0).clamp(min=0), V.flip(1)
    enough = max(_KEPT_AT_LEAST, number_of(e, _KEPT))
    V = V[:, : min(enough, int((e > _RANK * e[0]).sum()))]
    return torch.linalg.qr(F.T @ V).Q if wide else V
