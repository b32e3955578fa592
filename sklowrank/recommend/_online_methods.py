"""What both online estimators do with a stream: learning, answers and forgetting.

Rows are read and become keys of identifiers in `_online_columns` and `_identifier_keys`. `_online_batches` leads them
in batches to the state of the stream, `_online_state`: a table of identifiers (`_identifier_table`), new ones that wait
(`_admission`), weights, and where wanted a copy of them that answers (`_online_serving`). What a batch computes is in
`_online_embedding_model`. The state leaves its process by `_online_exchange`, as deltas, or as snapshots that
`_online_snapshot` writes of the plain arrays of `_online_plain`.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import lru_cache, partial
from numbers import Real
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import check_array, check_consistent_length, check_scalar
from sklearn.utils.validation import check_is_fitted

from .._core.blocks import join_blocks, rows_per_block
from .._core.fitted import fitted_attributes, keep, options
from .._core.iterate import drive
from .._core.modes import in_plain_modes
from .._core.workspace import open_workspace
from ._identifiers import values_of
from ._online_batches import batch_of, epochs, learn_in_order
from ._online_columns import Kinds, checked_table, kinds_of, named_columns, rows_of_table
from ._online_embedding_model import forward, side_by_side
from ._online_exchange import StreamExchange
from ._online_parameters import CONSTRAINTS, OnlineOptions, check_unchanged, kept_of, model_shape, settings_of
from ._online_serving import host, tensor_of, tensors_of
from ._online_state import OnlineState, Settings

_BLOCK = 1 << 14  # rows answered at once
_FEW = 1 << 8  # rows that need no blocks, which take time


class Stored(NamedTuple):
    """What a fitted estimator holds beside its public attributes."""

    state: OnlineState
    kinds: Kinds


def _of_state(read: Callable, summary: str) -> Any:
    """Return a property that reads the state of a stream."""

    def get(self):
        state = vars(self).get("_fitted", {}).get("state")
        if state is None:
            raise AttributeError(f"This {type(self).__name__} is not fitted: call fit or partial_fit first.")
        return read(state)

    return property(get, doc=summary)


class OnlineEmbeddingMethods(StreamExchange, CallbackSupportMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin):
    """Methods of online embedding models; the estimators have `fit`, `partial_fit` and `predict`."""

    _parameter_constraints = CONSTRAINTS

    n_features_in_: int
    feature_names_in_: np.ndarray
    loss_curve_: list[float]
    n_iter_: int

    n_ids_ = _of_state(lambda state: state.table.n_ids, "Number of identifiers that have a row.")
    n_seen_ = _of_state(lambda state: state.clock["n_seen"], "Number of rows of X that were learned.")
    n_filtered_ = _of_state(lambda state: state.clock["n_filtered"], "Number of occurrences that were not admitted.")
    n_evicted_ = _of_state(lambda state: state.clock["n_evicted"], "Number of identifiers that have lost their row.")
    t_ = _of_state(lambda state: state.clock["t"], "The clock.")
    version_ = _of_state(lambda state: state.clock["version"], "Version of the model.")
    numeric_mean_ = _of_state(lambda state: state.numbers.mean, "Means of the numeric columns.")
    numeric_var_ = _of_state(lambda state: state.numbers.variance, "Variances of the numeric columns.")
    embeddings_ = _of_state(lambda state: _embeddings(state), "Vectors by row.")
    weights_ = _of_state(lambda state: _weights(state), "Weights of head and network.")

    @property
    def intercept_(self) -> np.ndarray:
        """Answer to a row of unknown identifiers."""
        if "_fitted" not in vars(self):
            raise AttributeError(f"This {type(self).__name__} is not fitted: call fit or partial_fit first.")
        scale, shift = self._unit()
        return host(self._stream().dense["intercept"]) * scale + shift

    @intercept_.setter
    def intercept_(self, value):
        store, (scale, shift) = tensor_of(self._stream().dense["intercept"]), self._unit()
        new = check_array(value, ensure_2d=False, dtype=np.float64, ensure_min_samples=0, input_name="intercept_")
        if new.shape not in ((), (1,), tuple(store.shape)):
            raise ValueError(f"intercept_ has {len(store)} entries, and the new one has the shape {new.shape}.")
        store.copy_(torch.from_numpy((np.broadcast_to(new, store.shape) - shift) / scale))
        self._stream().clock["version"] += 1  # for deltas, which are empty otherwise
        self._stream().sync()

    def _unit(self) -> tuple[float, float]:
        """Return scale and shift of answers, by which the model's outputs are multiplied and moved."""
        return 1.0, 0.0

    # Learning

    def _begin(self, table, n_outputs, loss) -> tuple[Stored, Any, Any]:
        """Return an empty stream for a table that was checked, its rows, and where to compute."""
        kinds = kinds_of(table, self.categorical_features, vars(self).get("feature_names_in_"))
        rows = rows_of_table(table, kinds)
        chosen, settings = self._options(), self._settings()
        shape, kept = model_shape(chosen, kinds, n_outputs), kept_of(chosen)
        ws = self._workspace(np.float64)
        return Stored(OnlineState(shape, kept, loss, ws.generator.initial_seed(), settings, ws), kinds), rows, ws

    def _fit(self, stored: Stored, rows, target, ws, *, X, y, **attributes) -> Self:
        """Learn all rows in epochs, and keep what was learned."""
        state, settings = stored.state, self._settings()
        state.move_to(ws.device)

        def described(state):
            return fitted_attributes(ws, stored, **attributes)

        steps = epochs(state, rows, target, settings, self.max_iter, ws.generator)
        with state.changing(settings._replace(sync_interval=0)):
            run = drive(self, steps, attributes=described, X=X, y=y, tol=0.0)
        state.keep_copy(settings.sync_interval > 0)  # which has seen all of it
        return keep(self, ws, stored, **attributes, loss_curve_=run.loss_curve, n_iter_=run.n_iter)

    def _absorb(self, stored: Stored, rows, target, weights, timestamps, ws, **attributes) -> Self:
        """Learn rows in their order, and keep what was learned; all that could be refused was checked before."""
        state, settings = stored.state, self._settings()
        times = _checked_times(timestamps, len(rows), state.clock["timed"])
        check_unchanged(self._options(), state.shape, state.kept)
        self._check_columns(stored.kinds)
        if weights is not None and not weights.all():  # what has no weight is as if it were not there
            there = np.flatnonzero(weights)
            rows, target, weights = rows.take(there), target[there], weights[there]
            times = None if times is None else times[there]
        state.move_to(ws.device)
        with state.changing(settings):
            state.start_clock(times)
            loss = learn_in_order(state, rows, target, weights, times, settings)
        if "_fitted" not in vars(self):
            return keep(self, ws, stored, **attributes, loss_curve_=[loss], n_iter_=1)
        self.loss_curve_, self.n_iter_ = [loss], 1  # all else is there, at each moment, for threads that predict
        return self

    def _check_columns(self, kinds: Kinds) -> None:
        """Refuse `categorical_features` other than those that the model began with."""
        chosen = self.categorical_features
        if isinstance(chosen, str) or kinds.sparse:  # by type: columns stay what they were in the first call
            return
        mask = named_columns(chosen, self.n_features_in_, vars(self).get("feature_names_in_"))
        if [j for j, yes in enumerate(mask) if yes] != kinds.identifiers:
            raise ValueError(
                f"categorical_features={chosen!r}: the columns {kinds.identifiers} held identifiers when the model "
                "began, which cannot change. Call fit, or set it back."
            )

    def _stream(self) -> OnlineState:
        if "_fitted" not in vars(self):
            check_is_fitted(self)  # which raises
        return self._fitted["state"]

    def _continued(self, table) -> tuple[Stored, Any, Any]:
        """Return the stream so far, the rows of a table that was checked, and where to compute."""
        return Stored(self._stream(), Kinds(**self._fitted["kinds"])), *self._read(table)

    def _workspace(self, dtype):
        return replace(_workspace_on(self.device, dtype), random_state=self.random_state)

    def _options(self) -> OnlineOptions:
        return options(self, OnlineOptions)

    def _settings(self) -> Settings:
        return settings_of(self._options(), self.n_features_in_, vars(self).get("feature_names_in_"))

    # Answers

    def _asked(self, X):
        """Return new rows, and where to compute; answers have the type of numeric X."""
        self._stream()
        return self._read(checked_table(self, X, reset=False))

    def _read(self, table):
        """Return the rows of a table that was checked, and where to compute."""
        rows = rows_of_table(table, Kinds(**self._fitted["kinds"]))
        return rows, self._workspace(np.float32 if getattr(table, "dtype", None) == np.float32 else np.float64)

    def _answered(self, rows, ws, answer):
        """Return what `answer` makes of blocks of rows and of the weights that it may read, (n, ...)."""
        state = self._stream()
        state.move_to(ws.device)
        with torch.inference_mode(), state.reading(live=self.sync_interval == 0) as now:
            values, dense = tensor_of(now.values), tensors_of(now.dense)

            def one_block(part):
                some = rows.part(part.start, part.stop)
                places = now.table.find(some.keys.ravel()).reshape(some.keys.shape) + 1
                return answer(values, batch_of(some, places, now.numbers, ws.device), dense, state.shape)

            if len(rows) <= _FEW:
                return one_block(slice(0, len(rows)))
            bytes_per_row = 8 * 3 * state.shape.width * max(1, state.shape.n_identifiers + state.shape.n_numeric)
            return join_blocks(one_block, len(rows), rows_per_block(_BLOCK, len(rows), 1), bytes_per_row=bytes_per_row)

    def _outputs(self, X):
        """Return the outputs (n, n_outputs) of new rows, and where they were computed."""
        rows, ws = self._asked(X)
        return self._answered(rows, ws, _outputs_of), ws

    def transform(self, X):
        """Return the vectors of identifiers and of numeric columns, side by side.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        vectors : ndarray of shape (n_samples, n_features_in_ * n_components)
            A block for each column in their order: the vector of an identifier, zeros where it is unknown; for a
            numeric column its vector times the standardised number. For sparse X (n_samples, n_components): the sum of
            the vectors of a row, weighted by its cells.
        """
        rows, ws = self._asked(X)
        kinds = Kinds(**self._fitted["kinds"])
        return ws.answer(self._answered(rows, ws, partial(_vectors_of, [*kinds.identifiers, *kinds.numeric])))

    @property
    def _n_features_out(self):
        shape = self._stream().shape
        return shape.n_components * (1 if shape.sparse else self.n_features_in_)

    def rows_of(self, X):
        """Return the rows of identifiers in `embeddings_`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows, dense.

        Returns
        -------
        rows : ndarray of shape (n_samples, n_identifier_columns)
            Integers; -1 for unknown identifiers. Columns of identifiers alone are there, in their order.
        """
        rows, _ = self._asked(X)
        if rows.starts is not None:
            raise ValueError("rows_of needs dense X: the rows of a sparse matrix have no columns of identifiers.")
        return self._stream().table.find(rows.keys.ravel()).reshape(rows.keys.shape)

    # Forgetting, and the copy that answers

    @in_plain_modes
    def evict(self, now=None) -> int:
        """Drop the identifiers that no row has touched for `expire_after`.

        Parameters
        ----------
        now : float or None, default=None
            The time; None is `t_`.

        Returns
        -------
        n_evicted : int
            How many were dropped. They are unknown from now on, and begin anew where they come again.
        """
        state, settings = self._stream(), self._settings()
        now = state.clock["t"] if now is None else float(check_scalar(now, "now", Real))
        if settings.expire_after is None:
            return 0
        state.clock["version"] += 1
        gone = state.evict(now, settings.expire_after)
        state.clock["version"] -= not gone  # nothing has changed
        return gone

    @in_plain_modes
    def sync(self) -> Self:
        """Let predictions see all that was learned; only with `sync_interval` above 0 do they not do so anyway.

        Returns
        -------
        self : estimator
        """
        self._stream().sync()
        return self

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


@lru_cache(maxsize=16)  # small batches are answered in the time that this takes
def _workspace_on(device, dtype):
    """Return where to compute; rows are numbers of numpy by now."""
    return open_workspace(np.empty(0, dtype), device=device)


def _checked_times(timestamps, n_rows, timed) -> np.ndarray | None:
    """Return the times of rows; a stream has them in all calls or in none."""
    if timed is not None and timed != (timestamps is not None):
        had = "had timestamps" if timed else "counted rows"
        raise ValueError(f"timestamps have to be given in all calls of partial_fit or in none: the former ones {had}.")
    if timestamps is None:
        return None
    timestamps = _in_seconds(timestamps)
    times = check_array(timestamps, ensure_2d=False, dtype=np.float64, input_name="timestamps", ensure_min_samples=0)
    if times.ndim != 1:
        raise ValueError(f"timestamps have to be one-dimensional, and have the shape {times.shape}.")
    check_consistent_length(times, range(n_rows))
    return times


def _in_seconds(timestamps):
    """Return dates as seconds since 1970, whatever their resolution and zone; all else as it is."""
    values = values_of(timestamps)
    if values.dtype.kind == "O" and values.ndim == 1 and all(isinstance(value, datetime) for value in values):
        values = np.asarray(timestamps, dtype="datetime64[us]")  # of zones, as pandas keeps them
    return (values - np.datetime64(0, "s")) / np.timedelta64(1, "s") if values.dtype.kind == "M" else timestamps


def _outputs_of(values, batch, dense, shape):
    return forward(values, batch, dense, shape).outputs


def _vectors_of(order, values, batch, dense, shape):
    """Return vectors by column (n, n_features * n_components), or their sums (n, n_components)."""
    k = shape.n_outputs
    if shape.sparse:
        return forward(values, batch, dense, shape).sums
    vectors = side_by_side(values[batch.slots][..., k:], batch, dense, k)
    by_column = vectors.reshape(len(batch.Z), len(order), shape.n_components)
    return by_column[:, np.argsort(order)].flatten(1)


def _embeddings(state) -> np.ndarray:
    return host(state.rows["values"][1 : 1 + state.table.n_rows, state.shape.n_outputs :]).copy()


def _weights(state) -> dict[str, np.ndarray]:
    return {name: host(array).copy() for name, array in state.dense.items() if name not in ("intercept", "numeric")}
