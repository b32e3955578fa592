"""Classes of private rows: features of a similarity and their sums, weights of scores, labels that no message names."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils.multiclass import check_classification_targets

from .._core.validation import on_host
from .._core.warn import warn
from ._accountant import PrivacyLeakWarning
from ._ball_features import BallFeatures, BallOptions, ball_features
from ._cosine_features import CosineFeatures, KernelOptions, cosine_features, wave_sums
from ._lattice import ball_sums
from ._mechanism import PrivacyOptions
from ._private_rows import without_cells
from ._public_parameters import read_bandwidth, read_bounds
from ._sketch import Noise

_WIDTH, _WIDTH_IN_BOX = 0.7, 0.15  # of bandwidth "auto", times the root of the number of columns


class ClassOptions(NamedTuple):
    """The parameters of a similarity to classes and of its features."""

    similarity: str
    bandwidth: Any
    bounds: Any
    class_weighting: Any
    n_components: Any
    count_weight: float
    clip_center: Any
    clip_norm: float | None


def class_features(
    options: ClassOptions, rows, n_classes: int, privacy: PrivacyOptions, *, sparse: bool
) -> tuple[CosineFeatures | BallFeatures, Noise]:
    """Return the features of a similarity and the noise; bad parameters are refused before anything is released."""
    bounds = read_bounds(options.bounds, rows, False, "")
    bandwidth = _bandwidths(options.bandwidth, rows.shape[1], bounds)  # a bad one is refused also where it has no part
    if options.similarity == "linear":
        if not isinstance(options.class_weighting, str) or options.class_weighting != "average":
            raise ValueError("class_weighting has to be 'average' with similarity='linear'.")
        ball = BallOptions(bounds, options.clip_center, options.clip_norm, options.count_weight)
        return ball_features(rows.shape[1], ball, privacy, sparse=sparse, n_groups=n_classes)
    class_weights(options.class_weighting, torch.ones(n_classes, dtype=torch.float64, device="cpu"))
    kernel = KernelOptions(
        kernel=options.similarity,
        bandwidth=bandwidth,
        bounds=bounds,
        n_components=options.n_components,
        count_weight=options.count_weight,
        feature_map="rff",
        n_samples_hint=None,
        query_margin=0.0,
    )
    return cosine_features(kernel, privacy, sparse=sparse, n_groups=n_classes)


def _bandwidths(bandwidth, n_features: int, bounds) -> np.ndarray:
    """Return the bandwidth of each column, (n_features,)."""
    if not (isinstance(bandwidth, str) and bandwidth == "auto"):
        return read_bandwidth(bandwidth, n_features)
    if bounds is None:
        return np.full(n_features, _WIDTH * math.sqrt(n_features))
    return _WIDTH_IN_BOX * math.sqrt(n_features) * (bounds[1] - bounds[0])


def class_sums(rows, features: CosineFeatures | BallFeatures, groups, n_classes: int, batch_size) -> np.ndarray:
    """Return the sums of the features over the rows of each class, whole numbers (n_classes, n_entries)."""
    if isinstance(features, CosineFeatures):
        return wave_sums(rows, features.waves(), groups, n_classes, batch_size, groups.device)
    return ball_sums(rows, features.centre, features.unit, groups, n_classes, batch_size, features.bounds)


def class_weights(weighting, counts: torch.Tensor) -> torch.Tensor:
    """Return what the mean similarity to each class is multiplied by."""
    if isinstance(weighting, str):
        return counts if weighting == "sum" else torch.ones_like(counts)
    weights = np.asarray(weighting, dtype=float)
    if weights.shape != counts.shape or not ((weights > 0) & np.isfinite(weights)).all():
        raise ValueError(f"class_weighting has to hold {len(counts)} numbers above 0, one for each of classes_.")
    return torch.from_numpy(weights).to(counts)


def parzen_shares(scores: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Return the shares of the classes in scores (n, n_classes): a softmax in units of noise where none is positive."""
    positive = scores.clamp(min=0)
    total = positive.sum(1, keepdim=True)
    shares = torch.where(total > 0, positive / total.clamp(min=torch.finfo(total.dtype).tiny), 0.0)
    return torch.where(total > 0, shares, (scores / noise.amax()).softmax(1))


def encoded_labels(y, classes):
    """Return the classes, sorted, and the place of each label; messages never name a label.

    Where the classes are public, labels are only compared with them: no warning or error depends on how many there are.
    """
    y = np.asarray(y)
    if classes is None:
        warn(
            "classes are read from y, which reveals a class even if it has a single row. Pass classes that you know "
            "without looking.",
            PrivacyLeakWarning,
        )
        without_cells(check_classification_targets, y)
        return without_cells(np.unique, y, return_inverse=True)
    known = _public_classes(classes)
    codes = without_cells(_places, y, known)
    if (codes < 0).any():
        raise ValueError("y has labels that are not among classes. Name all of them, or leave their rows out.")
    return known, codes


def _places(y, known):
    """Return the place of each label among sorted classes, -1 where it is none of them."""
    if y.dtype.kind == known.dtype.kind and y.dtype.kind in "biuU":
        codes = np.searchsorted(known, y).clip(max=len(known) - 1)
        return np.where(known[codes] == y, codes, -1)
    places = {label: i for i, label in enumerate(known.tolist())}
    return np.array([places.get(label, -1) for label in y.tolist()], dtype=np.int64)


def _public_classes(classes) -> np.ndarray:
    """Return the classes that the user names, sorted."""
    try:
        known = np.asarray(on_host(classes))
        usable = known.ndim == 1 and known.size > 0 and not (known.dtype.kind in "fc" and np.isnan(known).any())
        if usable:
            return np.unique(known)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"classes={classes!r} has to be a list of labels, all numbers or all text, without NaN.")
