"""Parameters of the online estimators: their ranges, what they say of a stream, and their docstrings."""

from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

from .._core.compat import Interval, StrOptions
from .._core.docs import documented
from .._core.validation import is_integer
from ._online_columns import Kinds, by_column
from ._online_embedding_model import Shape
from ._online_plain import Kept
from ._online_state import Settings

_DENSE_RATE = 1e-3  # of Adam, where the user gives one rate
_MOST_COUNTED = 15  # by the sketch

CONSTRAINTS: dict[str, Any] = {
    "n_components": [Interval(Integral, 0, None, closed="left")],
    "interaction": [StrOptions({"fm", "linear", "deepfm"})],
    "hidden_layer_sizes": ["array-like"],
    "categorical_features": [StrOptions({"auto"}), "array-like", None],
    "learning_rate": [Interval(Real, 0, None, closed="neither"), tuple],
    "init_scale": [Interval(Real, 0, None, closed="left")],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "min_count": [Interval(Integral, 1, None, closed="left"), dict],
    "admission": [StrOptions({"count", "probabilistic"})],
    "filter_capacity": [Interval(Integral, 1, None, closed="left"), None],
    "expire_after": [Interval(Real, 0, None, closed="neither"), dict, None],
    "evict_every": [Interval(Integral, 1, None, closed="left"), None],
    "max_rows": [Interval(Integral, 1, None, closed="left"), None],
    "sync_interval": [Interval(Integral, 0, None, closed="left")],
    "table": [StrOptions({"cuckoo", "modulo"})],
    "n_rows": [Interval(Integral, 1, None, closed="left"), None],
    "device": [str],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}


class OnlineOptions(NamedTuple):
    """The parameters that decide what is learned."""

    n_components: int
    interaction: str
    hidden_layer_sizes: Any
    learning_rate: Any
    init_scale: float
    batch_size: int
    min_count: Any
    admission: str
    filter_capacity: int | None
    expire_after: Any
    evict_every: int | None
    max_rows: int | None
    sync_interval: int
    table: str
    n_rows: int | None


def settings_of(options: OnlineOptions, n_features, names) -> Settings:
    """Return what may change from call to call; `names` are those of columns, or None."""
    rates = options.learning_rate if isinstance(options.learning_rate, tuple) else (options.learning_rate, _DENSE_RATE)
    if len(rates) != 2 or not all(isinstance(rate, Real) and rate > 0 for rate in rates):
        raise ValueError(f"learning_rate={rates!r} has to be one number above 0, or a pair of them.")
    least = by_column(options.min_count, 1, n_features, names, "min_count")
    counts = options.min_count.values() if isinstance(options.min_count, dict) else [options.min_count]
    if not all(map(is_integer, counts)):
        raise ValueError(f"min_count={options.min_count!r} has to hold integers of at least 1.")
    if options.filter_capacity is not None and options.admission == "count" and max(counts, default=1) > _MOST_COUNTED:
        raise ValueError(
            f"min_count={options.min_count!r} is too large with filter_capacity, which counts to {_MOST_COUNTED}. Pass "
            f"at most {_MOST_COUNTED}, or filter_capacity=None."
        )
    ages = None
    if options.expire_after is not None:
        ages = by_column(options.expire_after, np.inf, n_features, names, "expire_after")
    limits = options.evict_every, options.max_rows, options.sync_interval
    return Settings(rates, options.init_scale, options.batch_size, least, ages, *limits)


def kept_of(options: OnlineOptions) -> Kept:
    """Return how identifiers are kept."""
    if options.table == "modulo" and options.n_rows is None:
        raise ValueError("table='modulo' needs n_rows, the number of rows that identifiers share.")
    return Kept(options.table, options.n_rows, options.admission, options.filter_capacity)


def model_shape(options: OnlineOptions, kinds: Kinds, n_outputs) -> Shape:
    """Return the form of the model."""
    k = 0 if options.interaction == "linear" else options.n_components
    hidden = tuple(options.hidden_layer_sizes) if options.interaction == "deepfm" else ()
    if not all(map(is_integer, hidden)):
        raise ValueError(f"hidden_layer_sizes={options.hidden_layer_sizes!r} has to hold integers of at least 1.")
    return Shape(options.interaction, k, n_outputs, hidden, len(kinds.identifiers), len(kinds.numeric), kinds.sparse)


def check_unchanged(options: OnlineOptions, shape: Shape, kept: Kept) -> None:
    """Refuse parameters that decide the form of the model, where they are not those it began with."""
    now = {**model_shape(options, Kinds([], [], False), shape.n_outputs)._asdict(), **kept_of(options)._asdict()}
    then = {**shape._asdict(), **kept._asdict()}
    for name in ("interaction", "n_components", "hidden_layer_sizes", *Kept._fields):
        if now[name] != then[name]:
            raise ValueError(
                f"{name}={now[name]!r} was {then[name]!r} when the model began, which cannot change. Call fit, or set "
                "it back."
            )


# Docstrings

_PARAMETERS = """
n_components : int, default=8
    Number of components. At least 0: the length of the vector of an identifier; with 0, and with
    ``interaction="linear"``, an identifier has a weight alone.
interaction : {"fm", "linear", "deepfm"}, default="fm"
    How the rows of the identifiers of a sample are combined. "fm": a factorization machine, the sum of the weights and
    of the inner products of all pairs of vectors. "linear": the sum of the weights. "deepfm": a factorization machine
    plus a multilayer perceptron that sees the vectors side by side, or, for sparse X, their sum.
hidden_layer_sizes : array-like of int, default=(64,)
    Widths of the hidden layers of the default network. Only for "deepfm".
categorical_features : "auto", array-like of bool, int or str, or None, default="auto"
    Which columns hold identifiers; all others are numeric. "auto": all columns but those of floating numbers, by the
    first call. A mask, or positions or names of columns; None takes all columns as numeric. It cannot change between
    calls of `partial_fit`. An array of numpy has one type: beside prices, identifiers become floating numbers too, so
    name their columns, or pass a data frame. In sparse X each column is an identifier whatever is named here, and a
    cell is its weight in the row, of at most 1e30 in absolute value.
learning_rate : float or tuple of two floats, default=0.2
    Step size of the optimizer. It is that of Adagrad, for the rows of identifiers, the intercept and numeric columns. A
    tuple gives that of Adam too, for the weights of classes beyond two and of the perceptron; alone it is 1e-3.
init_scale : float, default=0.01
    Standard deviation of the entries of a new vector, at least 0. A vector depends on the identifier and on
    `random_state` alone, not on the order of arrival. Weights start at zero.
batch_size : int, default=32
    Number of rows per training step; it changes the result. Where rows of one user follow each other, small batches are
    more accurate, and slower.
max_iter : int, default=5
    Maximum number of iterations. Epochs of `fit`, all of which are made; `partial_fit` makes one.
min_count : int or dict, default=1
    How often an identifier has to occur before it gets a row; until then it is unknown. A dict gives it by position or
    name of the column, 1 for others. At most 15 with `filter_capacity`.
admission : {"count", "probabilistic"}, default="count"
    How rare identifiers are kept out. "count": by counts. "probabilistic": by chance at each occurrence, without any
    memory; 95 % are in after `min_count` occurrences.
filter_capacity : int or None, default=None
    Number of waiting identifiers for which a sketch of bounded memory counts, at least 1; those not seen for the
    longest are forgotten. None counts all exactly, in memory that grows with all identifiers that ever waited. Only for
    ``admission="count"``.
expire_after : float, dict or None, default=None
    Age above 0 at which an identifier that no row has touched is dropped by `evict`: in units of `timestamps`, or in
    rows where there are none. A dict gives it by column, for others there is none. None keeps all.
evict_every : int or None, default=None
    Number of rows after which `partial_fit` calls `evict`, at least 1; that takes time in proportion to all
    identifiers. Only with `expire_after`. None never calls it.
max_rows : int or None, default=None
    Most identifiers that have a row, at least 1; above it the least recently updated are dropped, a sixteenth more than
    needed at once. None sets no bound.
sync_interval : int, default=0
    Number of rows after which predictions see what was learned. 0: always, with the rows that are being learned. Above
    0, predictions read a copy, which can be done while another thread learns.
table : {"cuckoo", "modulo"}, default="cuckoo"
    Where identifiers find their rows. "cuckoo": each has a row of its own. "modulo": the hash trick, in which
    identifiers share `n_rows` rows; for comparison.
n_rows : int or None, default=None
    Number of rows of ``table="modulo"``, at least 1; required there.
device : str, default="auto"
    Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda", "cuda:1".
    Identifiers are looked up on the CPU.
random_state : int, RandomState instance or None, default=None
    Seed or generator of random numbers; pass an int for reproducible results. It decides new vectors, the order of rows
    in `fit`, and admission by chance. `partial_fit` reads it in the first call alone.
verbose : int, default=0
    0 prints nothing, 1 prints a line per iteration. An iteration is an epoch of `fit`.
"""

_ATTRIBUTES = """
n_ids_ : int
    Number of identifiers that have a row, over all columns.
n_seen_ : int
    Number of rows of X that were learned, of positive weight; those of `fit` count once.
n_filtered_ : int
    Number of occurrences of identifiers that were not admitted.
n_evicted_ : int
    Number of rows that were taken from identifiers, by age or by `max_rows`.
t_ : float
    The clock: the latest timestamp, or `n_seen_` where there are none.
version_ : int
    Version of the model; it rises with each call that changes it.
embeddings_ : ndarray of shape (n_rows, n_components)
    Vectors by row, as `rows_of` numbers them; rows without an identifier are zero.
weights_ : dict of ndarray
    Weights of the head for more than two classes, and of the perceptron; empty where there is neither.
intercept_ : ndarray of shape (n_outputs,)
    Output for a row of unknown identifiers, with numbers at their means{units}. It can be set.
numeric_mean_ : ndarray of shape (n_numeric,)
    Means of the numeric columns.
numeric_var_ : ndarray of shape (n_numeric,)
    Their variances.
loss_curve_ : list of float
    Mean loss of each epoch of `fit`, or of the last call of `partial_fit`: of each batch before it was learned.
n_iter_ : int
    Number of epochs of the last call.
n_features_in_ : int
    Number of columns.
feature_names_in_ : ndarray of shape (n_features_in_,)
    Names of columns, where `fit` has seen a data frame.
"""

_NOTES = """
A sample with identifiers :math:`f`, of weights :math:`w_f` and vectors :math:`v_f`, has the output

.. math::

    z = b + \\sum_f w_f + \\frac{1}{2} \\sum_d \\left( \\left( \\sum_f v_{fd} \\right)^2 - \\sum_f v_{fd}^2 \\right),

where a numeric column enters with its weight and vector times its standardised value. The gradients of a batch are
summed by identifier, not averaged, and then Adagrad makes one step of the rows that the batch touches:
:math:`A \\leftarrow A + G^2`, :math:`v \\leftarrow v - \\eta G / \\sqrt{A}`. Unknown identifiers read zeros, which are
never trained. A batch costs O(rows * columns * n_components), whatever the number of identifiers.

An identifier needs ``16 * (n_outputs + n_components)`` bytes for values and sums of squares, and about 50 for its place
in the table. Numbers are the same identifier where they are equal (1, 1.0 and True), "1" is another one, and a missing
value is one of its own; the same value in two columns is two identifiers. Integers never share a row; of n texts two
do with odds of about :math:`n^2 / 2^{65}`.

`partial_fit` changes the model in place: copy it by :func:`copy.deepcopy`. A call that raises a ValueError changes
nothing; one that is interrupted has learned some of its batches. One thread may learn at a time. With `sync_interval`
above 0 others may predict meanwhile; `rows_of`, `embeddings_`, `evict`, deltas and snapshots read the rows that are
being learned, and belong into the thread that learns.
"""

_STREAM = """
sample_weight : array-like of shape (n_samples,) or None, default=None
    Weights of the rows, from 0 to 1e30. The gradient of a row of weight k is that of k equal rows in its batch; for
    `min_count` and `n_seen_` it is one row. A row of weight 0 is left out.
timestamps : array-like of shape (n_samples,) or None, default=None
    Times of the rows, for `expire_after`: numbers, or dates, which count in seconds since 1970. They are given in all
    calls or in none; None counts rows. What was learned by `fit` has the time of the first of them.
"""


def online_docs(**differences):
    """Fill the lines ``<parameters>``, ``<attributes>``, ``<notes>`` and ``<stream>`` of an estimator's docstrings."""
    attributes = _ATTRIBUTES.replace("{units}", differences.get("units", ""))
    return documented(parameters=_PARAMETERS, attributes=attributes, notes=_NOTES, stream=_STREAM)
