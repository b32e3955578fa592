"""What private estimators keep of their releases, as a value: noisy sums, their noise, and the guarantee."""

import hashlib
import math
import threading
from typing import Any, NamedTuple

import numpy as np
import torch

from .._core.validation import on_host
from .._core.warn import warn
from ._accountant import PrivacyWarning

MOSTLY_NOISE = (
    "The release is indistinguishable from noise: at bandwidth={}, in units of X, rows have too few others nearby for "
    "epsilon={}. Where units differ, pass a bandwidth for each column, or divide columns by ranges that you know "
    "without looking; else raise bandwidth or epsilon, or add rows. (This follows from the release, and says nothing "
    "else about the rows.)"
)


class Noise(NamedTuple):
    """Calibrated noise."""

    mechanism: str
    scale: float  # in lattice steps: a standard deviation, or Laplace's scale
    sensitivity: float  # in units of the sketch, in the norm of the mechanism


class Sketch(NamedTuple):
    """The sum of one or more releases from different rows, which have one mechanism and one guarantee."""

    sketch: np.ndarray  # (n_entries,), or (n_groups, n_entries)
    n_samples: float
    class_counts: np.ndarray | None  # (n_groups,) noisy; None where there are no groups
    classes: np.ndarray | None  # (n_groups,) what the groups are called, in the library of y
    mechanism: str
    scale: float  # of the noise in each release, in lattice steps
    sensitivity: float
    noise_scale: float  # of the noise in `sketch`
    noise_std: float  # of the noise in an answer
    epsilon: float
    delta: float
    adjacency: str
    n_releases: int
    noise_backend: str
    noise_secure: bool
    payer: str | None  # the accountant that was charged
    releases: list[str]  # identifiers, so that no release is added twice; empty for one release without a seed

    def release_names(self) -> list[str]:
        """Return the identifiers of all releases; that of a single one without a seed follows from the sketch."""
        sketch = np.ascontiguousarray(on_host(self.sketch), dtype=np.float64)
        return self.releases or [hashlib.sha256(sketch.tobytes()).hexdigest()]

    def noise(self) -> Noise:
        """Return the noise of each release."""
        return Noise(self.mechanism, self.scale, self.sensitivity)


_PUBLIC = (  # the fields that are fitted attributes as they are
    "n_samples",
    "mechanism",
    "sensitivity",
    "noise_scale",
    "noise_std",
    "adjacency",
    "noise_backend",
    "noise_secure",
)


def described(sketch: Sketch, features) -> dict[str, Any]:
    """Return the public fitted attributes that a sketch of these features has."""
    found = {f"{name}_": getattr(sketch, name) for name in _PUBLIC}
    found |= {"sketch_": torch.from_numpy(sketch.sketch), "bounds_": features.bounds}
    if sketch.class_counts is not None:
        found |= {"class_counts_": torch.from_numpy(sketch.class_counts), "classes_": sketch.classes}
    for name in ("frequencies", "amplitudes"):
        if hasattr(features, name):
            found[f"{name}_"] = torch.from_numpy(getattr(features, name))
    return found


def merge_sketches(a: Sketch, b: Sketch) -> Sketch:
    """Return the sketch of the rows of both, none of which are in the other; the payer is that of `a`."""
    counts, n_samples = None, a.n_samples + b.n_samples
    if a.class_counts is not None:
        counts = on_host(a.class_counts) + on_host(b.class_counts)
        if a.adjacency == "add_remove":
            n_samples = max(1.0, float(counts.sum()))
    return a._replace(
        sketch=on_host(a.sketch) + on_host(b.sketch),
        n_samples=float(n_samples),
        class_counts=counts,
        noise_scale=math.hypot(a.noise_scale, b.noise_scale),
        noise_std=math.hypot(a.noise_std, b.noise_std),
        n_releases=a.n_releases + b.n_releases,
        noise_secure=a.noise_secure and b.noise_secure,
        releases=[*a.release_names(), *b.release_names()],
    )


def check_mergeable(a: Sketch, b: Sketch, same_features: bool) -> None:
    """Refuse sketches that do not add up.

    Raises
    ------
    ValueError
        If classes, features, mechanism or guarantee differ, or both contain the same release.
    """
    if not are_equal(a.classes, b.classes):
        raise ValueError("Only classifiers of the same classes can be merged. Fit both with equal classes.")
    same = ("mechanism", "scale", "epsilon", "delta", "adjacency")
    if not same_features or any(getattr(a, name) != getattr(b, name) for name in same):
        raise ValueError(
            "Only sketches of the same frequencies, mechanism and budget can be added. Fit both with equal parameters "
            "and the same feature_random_state."
        )
    releases = [*a.release_names(), *b.release_names()]
    if len(set(releases)) < len(releases):
        raise ValueError(
            "The two sketches have a release in common (one is a copy of the other, or was merged before), or equal "
            "noise from equal random_state: the noise of their sum would not be what is stated. Merge releases of "
            "different rows, with noise of their own."
        )


def are_equal(a: Any, b: Any) -> bool:
    """Return whether two values, tuples of arrays, numbers and tuples, are equal."""
    if isinstance(a, tuple | list):
        return type(a) is type(b) and len(a) == len(b) and all(are_equal(*pair) for pair in zip(a, b))
    if a is None or b is None:
        return a is b
    return np.array_equal(on_host(a), on_host(b))


def is_mostly_noise(sketch: Sketch, features, *, doubted: bool) -> bool:
    """Return whether kernels sum to less than the noise at a row, its own left out, by one release of cosines alone.

    Squares of the entries of all frequencies but zero sum to the kernels between all rows, of which each adds its own,
    and to the variance of the noise. Where rows are few that is known only roughly: within three standard deviations of
    the limit the answer is `doubted`.
    """
    deviation, n, laplace = sketch.noise_std / features.gain, sketch.n_samples, sketch.mechanism == "laplace"
    variance, used = deviation**2, features.steps.any(0)
    entries, own = np.square(sketch.sketch[np.tile(used, 2)]), float(np.square(features.amplitudes[used]).sum())
    if not len(entries):
        return False
    excess = float((entries - variance).sum()) - n * own
    spread = math.sqrt((5 if laplace else 2) * len(entries) * variance**2 + 4 * variance * n * own)
    spread = math.hypot(spread, n * own / math.sqrt(len(entries) / 2))  # of sums of n cosines of unrelated angles
    return excess <= n * deviation * features.gain + (3 * spread if doubted else -3 * spread)


def are_mostly_noise(sketch: Sketch, features) -> bool:
    """Return whether `is_mostly_noise` holds, without doubt, for each group of a sketch."""
    groups = zip(sketch.sketch, sketch.class_counts, strict=True)
    parts = (sketch._replace(sketch=sums, n_samples=max(1.0, float(count))) for sums, count in groups)
    return all(is_mostly_noise(part, features, doubted=False) for part in parts)


class ReleaseCounter:
    """Counts the releases that an estimator and its clones make without an accountant."""

    def __init__(self, name: str):
        self._name, self._n_releases, self._lock = name, 0, threading.Lock()

    def add(self) -> None:
        """Count a release; warn at the second."""
        with self._lock:
            self._n_releases += 1
            second = self._n_releases == 2
        if second:
            warn(
                f"{self._name} and its clones have made a second release without an accountant, as a grid search, a "
                "cross-validation or a second fit does. The costs of releases from the same rows add up, and nothing "
                "limits them. Pass accountant=PrivacyAccountant(epsilon=..., delta=...).",
                PrivacyWarning,
            )
