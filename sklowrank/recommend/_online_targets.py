"""Targets of online models: labels as positions among classes that are known from the start, numbers in units."""

import numpy as np
from sklearn.utils import check_consistent_length
from sklearn.utils.multiclass import check_classification_targets, unique_labels

from .._core.compat import check_y
from .._core.validation import explained, on_host
from ._reading import numeric_values, numeric_weights


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
            f"y has one class only, {classes.tolist()}. Two are needed; partial_fit is told all of them by classes."
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
    scale = float(np.average((y - mean) ** 2, weights=weights) ** 0.5)
    return {"y_mean_": mean, "y_scale_": scale if scale > 1e-13 * abs(mean) else 1.0}


def in_units(y, unit) -> np.ndarray:
    return ((y - unit["y_mean_"]) / unit["y_scale_"])[:, None]


def checked_weights(sample_weight, y) -> np.ndarray | None:
    """Return weights of rows as float64, or None where all are one."""
    return numeric_weights(sample_weight, y)


def network_targets(positions, n_outputs) -> np.ndarray:
    """Return positions of classes as what the loss reads: as they are, or as numbers where there is one output."""
    return positions if n_outputs > 1 else positions[:, None].astype(np.float64)
