"""Hostile inputs, and what counts as a right answer to each.

A case makes an input of a harmless one and says what has to come of it: an error that names the cause, or an answer
that an oracle accepts. Anything else is wrong: an error that names something else, or, worse, a silent wrong answer.
"""

import tempfile
import warnings
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import polars as pl
import scipy.sparse as sp
from sklearn.utils import get_tags

from tests.common import answers, fit, needs_two_features, off_the_law, seeded, small_data
from tests.estimators import spec_of

ERRORS = (ValueError, TypeError, MemoryError)
_N_FEATURES = 5  # of the harmless data
RIGHT, NAMED, UNNAMED, SILENT = "right answer", "error that names the cause", "other error", "silent and wrong"


class Attack(NamedTuple):
    """An input, and what has to come of it."""

    X: Any
    y: Any
    oracle: Any = None  # from (fitted, answers, base) to whether they are right; None where only an error is right
    words: tuple[str, ...] = ()  # one of which an error has to contain; none where only an answer is right
    new: Any = None  # what is asked about, where it is not X
    params: dict = {}


# Oracles


def finite(fitted, found, base):
    """Every answer is finite, and labels are among those that there can be."""
    fine = all(np.isfinite(a).all() for a in found.values() if a.dtype.kind == "f")
    labels = found.get("labels_")
    clusters = getattr(fitted, "n_clusters", getattr(fitted, "n_components", None))
    if labels is not None and isinstance(clusters, int):
        fine = fine and labels.min() >= 0 and labels.max() < clusters
    return fine


def same(tolerance=1e-6):
    """The answers are those to the harmless input."""

    def oracle(fitted, found, base):
        return found.keys() == base.keys() and all(_alike(found[k], base[k], tolerance) for k in base)

    return oracle


def _alike(a, b, tolerance):
    if a.shape != b.shape:
        return False
    if a.dtype.kind == "f" and b.dtype.kind == "f":
        return bool(np.abs(a - b).max(initial=0) <= tolerance * max(np.abs(b).max(initial=0), 1e-300))
    return bool(np.mean(a == b) >= (0.99 if tolerance < 1e-2 else 0.9))


def turned(fitted, found, base):
    """The answers are those to the harmless input, upside down or renumbered; they may also be of another optimum."""
    return finite(fitted, found, base) and {k: v.shape for k, v in found.items()} == {
        k: v.shape for k, v in base.items()
    }


def twins(fitted, found, base):
    """Equal rows get equal answers."""
    return finite(fitted, found, base) and all(_alike(*np.split(a, 2), 1e-6) for a in found.values() if a.ndim)


def follows_its_law(scale):
    """Every answer follows the law of scale that the table of estimators states for its method."""

    def oracle(fitted, found, base):
        off = (off_the_law(fitted, name, answer, found[name], scale, _N_FEATURES) for name, answer in base.items())
        return all(far <= 1e-4 for far in off)

    return oracle


# Attacks: each from (estimator, X, y)


def _scale(factor):
    def attack(estimator, X, y):
        params = spec_of(estimator).in_units(estimator, factor, X.shape[1])
        return Attack(X * factor, y, follows_its_law(factor), params=params)

    return attack


def _answered(change, oracle=finite, words=()):
    """An attack that is answered, or refused with some words."""
    return lambda estimator, X, y: Attack(*change(X, y), oracle, words)


def _refused(change, *words):
    return lambda estimator, X, y: Attack(*change(X, y), None, words)


def _put(value):
    def change(X, y):
        X = X.copy()
        X[5, 2] = value
        return X, y

    return change


def _few_features(count):
    def attack(estimator, X, y):
        words = ("feature",) if needs_two_features(estimator) and count == 1 else ()
        return Attack(X[:, :count], y, finite, words)

    return attack


def _missing(estimator, X, y):
    X = _put(np.nan)(X, y)[0]
    allowed = estimator.__sklearn_tags__().input_tags.allow_nan
    return Attack(X, y, finite if allowed else None, () if allowed else ("NaN",))


def _bad_target(value, *words):
    def attack(estimator, X, y):
        if y is None:
            return Attack(X, y, same())
        y = y.astype(float)
        y[3] = value
        unlabelled = spec_of(estimator).unlabelled and np.isnan(value)
        return Attack(X, y, finite if unlabelled else None, words)

    return attack


def _one_class(estimator, X, y):
    if y is None:
        return Attack(X, y, same())
    return Attack(X, np.ones_like(y), finite, ("class", "constant"))


def _strings(estimator, X, y):
    if spec_of(estimator).ids:
        return Attack(np.char.add("id ", X[:, :2].astype(int).astype(str)), y, finite)
    if spec_of(estimator).categories:
        return Attack(np.full(X.shape, "a", dtype=object), y, finite)
    return Attack(np.full(X.shape, "a", dtype=object), y, None, ("could not convert", "string", "numeric"))


def _huge_integers(estimator, X, y):
    return Attack((X * 1e4).astype(np.int64) + 2**61, y, finite, ("constant", "equally far"))


def _other_columns(change, *words):
    def attack(estimator, X, y):
        frame = pd.DataFrame(X, columns=[f"c{j}" for j in range(X.shape[1])])
        return Attack(frame, y, None, words, new=change(frame))

    return attack


def _sparse(form):
    def attack(estimator, X, y):
        if estimator.__sklearn_tags__().input_tags.sparse:
            oracle = finite if spec_of(estimator).categories else turned  # whose features are others
            return Attack(form(X), y, oracle, ("bounds",))
        return Attack(form(X), y, None, ("Sparse", "sparse"))

    return attack


def _three_dimensions(estimator, X, y):
    """Refused, but by estimators of objects that each are a table; some ask for a y on the grid of the table."""
    if estimator.__sklearn_tags__().input_tags.three_d_array:
        return Attack(X[:, :, None], y, finite, ("grid_shape",))
    return Attack(X[:, :, None], y, None, ("dim",))


def _memmap(estimator, X, y):
    with tempfile.TemporaryFile() as file:  # what is mapped outlives the file that is closed
        file.write(np.ascontiguousarray(X).tobytes())
        file.flush()
        mapped = np.memmap(file, dtype=X.dtype, mode="r", shape=X.shape)
    return Attack(mapped, y, same())


def _wrong_length(estimator, X, y):
    if y is None:
        return Attack(X, y, same())
    return Attack(X, y[:-1], None, ("inconsistent", "samples"))


def _without_target(estimator, X, y):
    if y is None:
        return Attack(X, y, same())
    if not get_tags(estimator).target_tags.required:
        return Attack(X, None, finite)
    return Attack(X, None, None, ("y",))


def _few_rows(count, *words):
    def attack(estimator, X, y):
        return Attack(X[:count], None if y is None else y[:count], finite, words)

    return attack


NAMES = ("sample", "row", "class", "constant", "member", "n_components", "n_clusters")
ATTACKS = {
    "values of 1e25": _scale(1e25),
    "values of 1e-25": _scale(1e-25),
    "columns in units from 1e-6 to 1e6": _answered(lambda X, y: (X * 10.0 ** np.linspace(-6, 6, X.shape[1]), y)),
    "far from the origin": _answered(lambda X, y: (X + 1e8, y)),
    "a constant column": _answered(lambda X, y: (np.column_stack([X[:, :4], np.full(len(X), 7.0)]), y)),
    "constant columns only": _answered(lambda X, y: (np.full_like(X, 3.0), y), finite, NAMES),
    "zeros only": _answered(lambda X, y: (np.zeros_like(X), y), finite, (*NAMES, "zero")),
    "a column twice": _answered(lambda X, y: (np.column_stack([X, X[:, 2]]), y)),
    "collinear columns": _answered(lambda X, y: (np.outer(X[:, 0], np.arange(1.0, 6.0)), y)),
    "every row twice": _answered(lambda X, y: (np.vstack([X, X]), None if y is None else np.r_[y, y]), twins),
    "one row many times": _answered(lambda X, y: (np.repeat(X[:1], 60, axis=0), y), finite, NAMES),
    "one row": _few_rows(1, *NAMES),
    "two rows": _few_rows(2, *NAMES),
    "three rows": _few_rows(3, *NAMES),
    "one feature": _few_features(1),
    "two features": _few_features(2),
    "fewer rows than features": lambda e, X, y: Attack(
        np.hstack([X[:12]] * 4) + np.random.default_rng(0).normal(size=(12, 20)), None if y is None else y[:12], finite
    ),
    "one class, or one value of y": _one_class,
    "ties": _answered(lambda X, y: (X.round(), y)),
    "two values only": _answered(lambda X, y: ((X.mean(0) < X).astype(float), y)),
    "sorted rows": _answered(lambda X, y: (X[np.argsort(X[:, 0])], None if y is None else y[np.argsort(X[:, 0])])),
    "rows in reverse, by negative strides": _answered(lambda X, y: (X[::-1], None if y is None else y[::-1]), turned),
    "every other column of a wider array": _answered(lambda X, y: (np.repeat(X, 2, axis=1)[:, ::2], y), same()),
    "an outlier of 1e12": _answered(_put(1e12)),
    "NaN": _missing,
    "infinity": _refused(_put(np.inf), "infinity"),
    "minus infinity": _refused(_put(-np.inf), "infinity"),
    "NaN in y": _bad_target(np.nan, "NaN"),
    "infinity in y": _bad_target(np.inf, "infinity"),
    "integers near 2^61": _huge_integers,
    "small integers": _answered(lambda X, y: (X.round().astype(np.int8), y)),
    "truth values": _answered(lambda X, y: (X.mean(0) < X, y)),
    "strings": _strings,
    "complex numbers": _refused(lambda X, y: (X + 1j, y), "omplex"),
    "another number of columns later": lambda e, X, y: Attack(X, y, None, ("features",), new=X[:, :4]),
    "columns in another order later": _other_columns(lambda frame: frame[frame.columns[::-1]], "feature names"),
    "columns of other names later": _other_columns(lambda frame: frame.add_prefix("x"), "feature names"),
    "no rows": _refused(lambda X, y: (X[:0], None if y is None else y[:0]), "sample"),
    "no features": _refused(lambda X, y: (X[:, :0], y), "feature"),
    "one dimension": _refused(lambda X, y: (X[:, 0], y), "1D", "2D"),
    "three dimensions": _three_dimensions,
    "CSR": _sparse(sp.csr_array),
    "COO": _sparse(sp.coo_array),
    "a file opened for reading": _memmap,
    "Fortran order": _answered(lambda X, y: (np.asfortranarray(X), y), same()),
    "float16": _answered(lambda X, y: (X.astype(np.float16), y), turned),
    "objects that are numbers": _answered(lambda X, y: (X.astype(object), y), same()),
    "lists": _answered(lambda X, y: (X.tolist(), None if y is None else y.tolist()), same()),
    "a polars frame": _answered(lambda X, y: (pl.DataFrame(X, schema=[f"c{j}" for j in range(5)]), y), same()),
    "y of another length": _wrong_length,
    "no y": _without_target,
}


def judge(estimator, name):
    """Return one of the four verdicts, and what was said or found."""
    X, y = small_data(estimator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = answers(fit(seeded(estimator), X, y), X)
        attack = ATTACKS[name](estimator, X, y)
        try:
            model = seeded(estimator, **attack.params)
            fitted = model.fit(attack.X) if attack.y is None else model.fit(attack.X, attack.y)
            found = answers(fitted, attack.X if attack.new is None else attack.new)
        except ERRORS as error:
            named = any(word in str(error) for word in attack.words)
            return (NAMED if named else UNNAMED), f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        except Exception as error:
            return UNNAMED, f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    right = attack.oracle is not None and attack.oracle(fitted, found, base)
    return (RIGHT if right else SILENT), "" if right else "an answer where none is right, or not the right one"
