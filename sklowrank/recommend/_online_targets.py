"""Targets of online models: labels as positions among classes that are known from the start, numbers in units."""

import numpy as np
from sklearn.utils import check_consistent_length
from sklearn.utils.multiclass import check_classification_targets, unique_labels

from .._core.compat import check_y
from .._core.validation import explained, on_host
from .._core.warn import warn
from ._reading import numeric_values, numeric_weights

_LARGEST = 1e30  # of what multiplies a gradient, so that its square is finite


def checked_labels(name, y, n_rows):
    """Return labels of classes that were checked; `name` is that of the estimator."""
    if y is None:
        raise ValueError(f"{name} requires y to be passed, but the target y is None.")
    y = on_host(y)
    with explained(None, y):
        y = check_y(y, estimator=name)
    check_classification_targets(y)
    check_consistent_length(y, range(n_rows))
    return y


def plain_labels(y, n_rows) -> bool:
    """Return whether nothing of y could be refused but labels that are not known."""
    return type(y) is np.ndarray and y.dtype.kind in "biu" and y.shape == (n_rows,)


def declared_classes(y, classes, known):
    """Return the classes: those of the first call, those that it declares, or those of its y."""
    if known is not None:
        if classes is not None and not (np.array_equal(known, classes) or np.array_equal(known, np.unique(classes))):
            raise ValueError(f"classes={classes!r} is not the same as in the first call to partial_fit: {known!r}.")
        return known
    return unique_labels(y if classes is None else on_host(classes))


def positions_of(y, classes) -> np.ndarray:
    """Return the positions of labels among the classes."""
    places = np.minimum(np.searchsorted(classes, y), len(classes) - 1)
    unknown = classes[places] != y
    if np.any(unknown):
        new = np.unique(y[unknown])[:5].tolist()
        raise ValueError(
            f"y has the labels {new}, which are not among the classes {classes[:10].tolist()}. Name all classes in the "
            "first call to partial_fit."
        )
    return places


def outputs_for(classes) -> int:
    """Return one output for two classes, else one for each."""
    if len(classes) < 2:
        raise ValueError(
            f"y has one class only, {classes.tolist()}, and at least 2 are needed. Where others come later, name all "
            "of them by classes in the first call to partial_fit."
        )
    return 1 if len(classes) == 2 else len(classes)


def loss_for(n_outputs) -> str:
    return "logistic" if n_outputs == 1 else "softmax"


def checked_numbers(name, y, n_rows) -> np.ndarray:
    """Return numeric targets that were checked, as float64; `name` is that of the estimator."""
    y = numeric_values(on_host(y), name).astype(np.float64)
    check_consistent_length(y, range(n_rows))
    return y


def unit_of(y, weights) -> dict[str, float]:
    """Return mean and scale of targets; a constant has the scale 1."""
    if weights is not None and not weights.any():
        weights = None
    mean = float(np.average(y, weights=weights))
    widest = float(np.abs(y - mean).max())
    if widest <= 1e-13 * abs(mean):
        return {"y_mean_": mean, "y_scale_": 1.0}
    scale = float(np.average(((y - mean) / widest) ** 2, weights=weights) ** 0.5)  # squares of tiny numbers are zero
    return {"y_mean_": mean, "y_scale_": widest * scale if scale > 0 else 1.0}


def first_unit(y, weights) -> dict[str, float]:
    """Return the unit of a stream of targets by those of its first call; a warning where they do not show one."""
    unit = unit_of(y, weights)
    if unit["y_scale_"] == 1.0 and (y == y[0]).all():
        warn(
            f"All y of the first call to partial_fit are {y[0]:.6g}, so that y_scale_=1 is the unit of y in all "
            "further calls; values that differ by much more or much less are learned slowly. Pass rows of different y "
            "in the first call, or call fit on them first.",
            UserWarning,
        )
    return unit


def in_units(y, unit) -> np.ndarray:
    """Return targets (n, 1) as multiples of their scale, from their mean."""
    scaled = (y - unit["y_mean_"]) / unit["y_scale_"]
    largest = np.abs(scaled).argmax()
    if not abs(scaled[largest]) <= _LARGEST:
        raise ValueError(
            f"y has the value {y[largest]:.6g}, more than {_LARGEST:.0e} times y_scale_={unit['y_scale_']:.6g} away "
            f"from y_mean_={unit['y_mean_']:.6g}. Leave the row out, or call fit on rows of this scale."
        )
    return scaled[:, None]


def checked_weights(sample_weight, y) -> np.ndarray | None:
    """Return weights of rows as float64, or None where all are one."""
    weights = numeric_weights(sample_weight, y)
    if weights is not None and weights.max() > _LARGEST:
        raise ValueError(
            f"sample_weight has the value {weights.max():.6g}; at most {_LARGEST:.0e} is allowed. Divide all weights."
        )
    return weights


def network_targets(positions, n_outputs) -> np.ndarray:
    """Return positions of classes as what the loss reads: as they are, or as numbers where there is one output."""
    return positions if n_outputs > 1 else positions[:, None].astype(np.float64)
