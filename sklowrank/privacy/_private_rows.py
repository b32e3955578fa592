"""Validation of private rows by scikit-learn, with errors that show no cell and no label.

Scikit-learn, numpy and pandas quote what they cannot read: a string that is no number, a complex array, a table of one
dimension. An error text ends up in logs and notebooks, so of theirs only what is known to be about the form of the
table is passed on; everything else is replaced by a text of ours.
"""

import re

from scipy.sparse import issparse
from sklearn.exceptions import NotFittedError

from .._core.validation import text_columns

_RESHAPE = "Reshape your data with reshape(-1, 1) for a single column, or reshape(1, -1) for a single row."
_FILL = "Fill or drop the rows that have them."
_TEXTS = (  # the start of a text of another library, and what is said instead
    (r"X (has \d+|does not contain any) features, but \w+ is expecting \d+ features.*", r"\g<0>"),
    (r"The feature names should match those that were passed during fit.*", r"\g<0>"),
    (r"Feature names are only supported if all input features have string names.*", r"\g<0>"),
    (r"Found array with 0 sample\(s\)", "X has no rows (samples). At least one is needed."),
    (r"Found array with 0 feature\(s\)", "X has 0 feature(s) (shape=(, 0)) while a minimum of 1 is required."),
    (r"(Found array with dim \d+), while dim <= 2 is required", r"\1. X has to have two dimensions."),
    (r"Sparse data was passed.*", r"\g<0>"),
    (r"Only sparse matrices with 32-bit integer indices are accepted\. Got \w+ indices", r"\g<0>."),
    (r"Input (X|y) contains (NaN or infinity|NaN|infinity)\b(?: or a value too large for dtype\('float\d+'\))?",
     r"\g<0>. " + _FILL),
    (r"Input contains NaN", "Input y contains NaN. " + _FILL),
    (r"Complex data not supported", "Complex data not supported. Pass real numbers."),
    (r"Expected 2D array, got (1D|scalar) array instead", r"\g<0>. " + _RESHAPE),
    (r"Expected (2D input|a 2-dimensional container)", r"\g<0>. " + _RESHAPE),
    (r"(float\(\) argument must be a string or a (?:real )?number), not '\w+'", r"\g<0>."),
    (r"np\.matrix is not supported", r"\g<0>. Pass np.asarray(X)."),
    (r"dtype='numeric' is not compatible with arrays of bytes/strings", r"\g<0>."),
    (r"This \w+ estimator requires y to be passed, but the target y is None", r"\g<0>."),
    (r"\w+ requires y to be passed, but the target y is None", r"\g<0>."),
    (r"y should be a 1d array", r"\g<0>."),
    (r"Labels in y_true and y_pred should be of the same type", "y has labels of another type than the classes."),
    (r"Found input variables with inconsistent numbers of samples", "X and y have inconsistent numbers of samples."),
    (r"Unknown label type: [\w-]+\. Maybe you are trying to fit a classifier.*", r"\g<0>"),
    (r"Unknown label type", r"\g<0>. Pass labels that are all numbers or all text."),
    (r"(X|y) is a tensor on .*Pass .*", r"\g<0>"),
    (r"Inputs passed to .*", r"\g<0>"),
)  # fmt: skip


def check_hiding_cells(check, *args, **kwargs):
    """Validate as a function of :mod:`sklowrank._core.validation` does, with errors that show no cell.

    Its arguments are those of the function: an estimator, X, and more.
    """
    return without_cells(_checked, check, *args, table=args[1], **kwargs)


def without_cells(call, *args, table=None, **kwargs):
    """Return what a call returns; its errors are replaced by such as show no cell, no label and no number of rows.

    The new error is raised outside of the handler, so that it has no context either. `table` is what text is looked for
    in, to name columns.
    """
    try:
        return call(*args, **kwargs)
    except NotFittedError:
        raise
    except MemoryError:
        replaced = MemoryError("Memory does not suffice for a block of rows. Lower batch_size or n_components.")
    except Exception as error:
        replaced = (TypeError if isinstance(error, TypeError) else ValueError)(_public_text(error, table))
    raise replaced


def _checked(check, *args, **kwargs):
    found = check(*args, **kwargs)
    for part in found if isinstance(found, tuple) else (found,):
        if issparse(part):
            part.check_format(full_check=True)
    return found


def _public_text(error, table):
    """Return what may be said of an error."""
    text = str(error)
    for start, said in _TEXTS:
        found = re.match(start, text, re.DOTALL)
        if found:
            return found.expand(said)
    columns = _columns_of_text(table)
    if columns:
        return (
            f"Text is in the columns {columns}, which have to be numeric. Encode them by categories that are known "
            "without looking at the rows, or leave them out."
        )
    return (
        f"X or y could not be read: a {type(error).__name__} was raised, whose text is left out because it may show "
        "cells. Pass a table of finite numbers. To see the text, fit KernelDensity to made-up rows of the same form."
    )


def _columns_of_text(table) -> list:
    """Return the names, or else the numbers, of the columns that hold text which is no number."""
    if table is None or issparse(table):
        return []
    try:
        return text_columns(table)
    except Exception:  # of whatever the table is; its text may show cells
        return []
