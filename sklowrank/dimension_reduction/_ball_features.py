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
from .._core.validation import check_fit_data, check_fit_rows, on_host
from .._core.warn import warn
from ._metric_spaces import distances, points_of, resolve_metric

_KEPT, _KEPT_AT_LEAST = 0.95, 64  # share of the features' variance that their principal components keep, and how many
_RANK = 1e-10  # eigenvalues below this share of the largest are zero
_RADII_ROWS = 50_000  # at most, for the radii of balls
_PRINCIPAL_ROWS = 4000  # at most, for the principal components
_KEPT_BYTES = 1 << 28  # of targets
_SORTED_COLUMNS = 8  # by which points are put in order


class Balls(NamedTuple):
    """Balls of responses: m landmarks with t radii each. Feature f = (landmark, radius) is 1 inside, 0 outside."""

    metric: Any  # name, or the user's function
    centres: Any  # the landmarks' points, or their columns in given distances
    radii: torch.Tensor  # (m, t), ascending; infinity where a landmark has fewer
    weights: torch.Tensor  # (m t,) of features, they sum to one
    means: torch.Tensor  # (m t,) of features over the training rows

    def variance(self):
        """Return the variance of all features, weighted."""
        return float((self.weights * self.means * (1 - self.means)).sum())


class Features(NamedTuple):
    """The features of the training responses."""

    balls: Balls
    landmarks: np.ndarray  # (m,) rows of the landmarks, or columns
    points: Any  # (n, ...) the responses as points of their space
    basis: torch.Tensor  # (m t, r) orthonormal columns: axes of the centred features times the root of their weights
    targets: torch.Tensor | None  # (n, r) principal components along them; None where they take too much memory

    def beside(self) -> Any:
        """Return what has to be at hand, row by row, for :meth:`reader`."""
        return self.points if self.targets is None else self.targets

    def reader(self):
        """Return the function from parts of :meth:`beside` to targets."""
        return _as_they_are if self.targets is not None else partial(_targets_of, self.balls, self.basis)


def _as_they_are(targets):
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

    Nothing is drawn: landmarks are spread evenly over the responses in lexicographic order, and radii are order
    statistics of the distances, so a row of weight two is as good as two rows. Labels are the exception: each class,
    up to `n_landmarks`, is one ball, and all weigh the same. Targets are kept in `dtype`; unless `whole`, only where
    they take 256 MB at most.

    Raises
    ------
    ValueError
        If all features are constant.
    """
    y = on_host(y)
    metric = resolve_metric(metric, y)
    points = _on(points_of(y, metric), device)
    n = points.shape[0]
    weight = np.ones(n) if sample_weight is None else sample_weight
    order = _in_order(points, metric)
    landmarks, shares = _landmarks(points, metric, order, weight, n_landmarks)
    centres = torch.from_numpy(landmarks) if metric == "precomputed" else points[landmarks]
    known = None
    if metric == "discrete":
        radii, shares_of_radii = torch.zeros(2, len(landmarks), 1, dtype=torch.float64, device=device)
        shares_of_radii += 1
    else:
        rows, row_weight = _spread(order, weight, _RADII_ROWS)
        D = torch.cat(list(_distances_in_blocks(points, rows, centres, metric, device)))
        radii, shares_of_radii = _order_statistics(D.T.contiguous(), row_weight.to(device), n_thresholds)
        if len(rows) == n:
            known = D[np.argsort(rows)]
    weights = torch.from_numpy(shares).to(device)[:, None] * shares_of_radii
    balls = Balls(metric, centres, radii, weights.flatten(), torch.empty(0, dtype=torch.float64, device=device))

    def away(some):
        """Return the distances of some rows from the centres, in blocks."""
        if known is not None:
            return [known[some]]
        return _distances_in_blocks(points, some, centres, metric, device)

    everything = np.arange(n)
    means = _means((_bins(D, radii) for D in away(everything)), weight / weight.sum(), radii.shape[1])
    balls = balls._replace(means=means)
    few, few_weights = _spread(order, weight, _PRINCIPAL_ROWS)
    basis = _principal_axes(balls, torch.cat([_bins(D, radii) for D in away(few)]), few_weights)
    targets = None
    if whole or n * basis.shape[1] * dtype.itemsize <= _KEPT_BYTES:
        targets = torch.cat([_along(balls, basis, D, dtype) for D in away(everything)])
    return Features(balls, landmarks, points, basis, targets)


def check_pairs(estimator, X, y, **kwargs):
    """Validate features X, and that there are as many responses y; these are checked where their metric is known."""
    if y is None:
        check_fit_data(estimator, X, None, ensure_min_samples=2, **kwargs)  # which raises
    X = check_fit_rows(estimator, X, ensure_min_samples=2, **kwargs)
    check_consistent_length(X, y)
    return X


def checked_components(n_components, limits: dict[str, int]) -> int:
    """Return the number of components, lowered with a warning to the least of the limits.

    `limits` says what there is so many of.
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


def stored_balls(features: Features, y, ws) -> dict[str, Any]:
    """Return the fitted attributes by which :func:`restored_balls` finds the balls again.

    With given distances there are no objects to store.
    """
    balls = features.balls
    known = {
        "landmarks_": ws.store(torch.from_numpy(features.landmarks)),
        "thresholds_": ws.store(balls.radii),
        "feature_means_": ws.store(balls.means),
        "_feature_weights": ws.store(balls.weights),
        "_metric": balls.metric,
    }
    if balls.metric != "precomputed":
        objects = _objects(on_host(y), features)
        known["landmark_objects_"] = ws.store(torch.from_numpy(objects)) if objects.dtype.kind in "fiub" else objects
    return known


def restored_balls(estimator, ws) -> Balls:
    """Return the balls of a fitted estimator."""
    metric = estimator._metric
    if metric == "precomputed":
        centres = ws.load(estimator.landmarks_).cpu()
    else:
        objects = estimator.landmark_objects_
        centres = _on(points_of(on_host(objects), metric), ws.device)
    parts = (ws.load(part) for part in (estimator.thresholds_, estimator._feature_weights, estimator.feature_means_))
    return Balls(metric, centres, *parts)


def explained(balls: Balls, y, predictors: torch.Tensor, loadings: torch.Tensor, ends) -> np.ndarray:
    """Return the shares of the features' variance that some linear predictions explain on responses y.

    Predictors (n, k) times loadings (k, m t) predict the centred, weighted features; the j-th prediction uses the first
    ``ends[j]`` of them.
    """
    points = _on(points_of(on_host(y), balls.metric), loadings.device)
    _check_width(points, balls)
    G = predictors.T @ predictors
    C, total, start = torch.zeros_like(loadings), 0.0, 0
    for D in _distances_in_blocks(points, np.arange(len(predictors)), balls.centres, balls.metric, loadings.device):
        F = _centred(balls, _bins(D, balls.radii))
        C += predictors[start : start + len(F)].T @ F
        total += float(F.square().sum())
        start += len(F)
    inner, products = (loadings * C).sum(1), G * (loadings @ loadings.T)
    gains = [float(2 * inner[:end].sum() - products[:end, :end].sum()) for end in ends]
    return np.array(gains) / max(total, np.finfo(np.float64).tiny)


def explained_by(estimator, y, predictors: torch.Tensor, ends, ws) -> np.ndarray:
    """Return what each component of a fitted estimator adds to the share explained on responses y.

    Component j ends with predictor ``ends[j]``; `ws` computes in float64.
    """
    check_consistent_length(predictors, y)
    shares = explained(restored_balls(estimator, ws), y, predictors, ws.load(estimator._loadings), ends)
    return np.diff(shares, prepend=0.0)


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


def _in_order(points, metric) -> np.ndarray:
    """Return the rows in lexicographic order of their points, where these are numbers."""
    if metric in ("precomputed", "discrete") or points.shape[0] == 0:
        return np.arange(points.shape[0])
    columns = np.asarray(points.cpu() if isinstance(points, torch.Tensor) else points).reshape(len(points), -1)
    if columns.dtype.kind not in "fiub":
        return np.arange(len(columns))
    return np.lexsort(columns[:, :_SORTED_COLUMNS].T[::-1])


def _spread(order, weight, most):
    """Return some of the rows, evenly spread in their order, and their weights; all where there are few enough."""
    if len(order) <= most:
        return order, torch.from_numpy(weight[order])
    return _evenly(order, weight, most), torch.ones(most, dtype=torch.float64, device="cpu")


def _evenly(order, weight, count):
    cumulated = np.cumsum(weight[order])
    levels = (np.arange(count) + 0.5) / count * cumulated[-1]
    return order[np.searchsorted(cumulated, levels)]


def _landmarks(points, metric, order, weight, count):
    """Return rows of landmarks, or columns of given distances, and the share that each of them stands for."""
    if metric == "precomputed":
        columns = np.unique(np.linspace(0, points.shape[1] - 1, min(count, points.shape[1])).round().astype(np.int64))
        return columns, np.full(len(columns), 1 / len(columns))
    if metric == "discrete":
        _, first, code = np.unique(points, return_index=True, return_inverse=True)
        size = np.bincount(code, weight)
        frequent = np.argsort(-size, kind="stable")[: min(count, (size > 0).sum())]
        rows = np.sort(first[frequent])
        return rows, np.full(len(rows), 1 / len(rows))
    rows = _evenly(order, weight, count)
    chosen = np.asarray(points[rows].cpu() if isinstance(points, torch.Tensor) else points[rows]).reshape(count, -1)
    new = np.r_[True, (chosen[1:] != chosen[:-1]).any(1)]  # equal points follow one another
    return rows[new], np.bincount(np.cumsum(new) - 1) / count


def _order_statistics(D, weight, count):
    """Return radii (m, count) at even levels of the distances D (m, n), duplicates merged, and their shares."""
    D, order = D.sort(dim=1)
    cumulated = weight[order].cumsum(1)
    levels = (torch.arange(count, dtype=torch.float64, device=D.device) + 0.5) / count
    at = torch.searchsorted(cumulated, levels * cumulated[:, -1:])
    radii = D.gather(1, at.clamp(max=D.shape[1] - 1))
    new = torch.ones_like(radii, dtype=torch.bool)
    new[:, 1:] = radii[:, 1:] != radii[:, :-1]
    place = new.long().cumsum(1) - 1
    merged = torch.full_like(radii, torch.inf).scatter(1, place, radii)
    shares = torch.zeros_like(radii).scatter_add(1, place, torch.full_like(radii, 1 / count))
    used = int(place.amax()) + 1
    return merged[:, :used].contiguous(), shares[:, :used].contiguous()


def _objects(y, features):
    """Return the landmarks' responses; samples of unequal sizes as their quantiles."""
    try:
        return np.asarray(y)[features.landmarks]
    except ValueError:
        points = features.balls.centres.cpu().numpy()
        return points * points.shape[1] ** 0.5


def _check_width(points, balls):
    if balls.metric == "precomputed":
        width, least = points.shape[1], int(balls.centres.amax()) + 1
        if width < least:
            raise ValueError(f"y has distances to {width} objects, but those to {least} at least are needed.")
    elif points.shape[1:] != balls.centres.shape[1:]:
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
    """Return how many radii of each landmark are below the distance: the ball of rank k holds bins 0 to k."""
    return torch.searchsorted(radii, D.T.contiguous()).T.to(torch.uint8)


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
