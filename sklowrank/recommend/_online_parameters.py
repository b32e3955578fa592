"""Parameters of the online estimators: their ranges, and what they say of a stream."""

from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

from .._core.compat import Interval, StrOptions
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
    if not all(isinstance(count, Integral) and count >= 1 for count in counts):
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
    if not all(isinstance(size, Integral) and size >= 1 for size in hidden):
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
