"""What a stream has taught, changed in place by each batch: a step costs no more than the rows that it touches.

The table of identifiers and the clock live on the host, where identifiers come from; weights live on the device. What
is pickled are plain arrays, numbers and strings.
"""

from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch

from ._admission import make_filter
from ._identifier_keys import normal_values
from ._online_batches import Distinct, batch_of, distinct_identifiers
from ._online_embedding_model import (
    INITIAL_SQUARES,
    Shape,
    adagrad,
    forward,
    gradients,
    losses,
    new_dense,
    new_moments,
    step_dense,
)
from ._online_plain import Kept, filter_of, new_table, owned, plain_of, same_plain, serving_of, shape_of, table_of
from ._online_serving import (
    Changes,
    Numbers,
    Readable,
    Serving,
    copied,
    copy_of,
    grown,
    host,
    placed,
    tensor_of,
    tensors_of,
)
from ._online_snapshot import Saved

_SLACK = 16  # where there are too many rows, a part of them goes at once, so that the search for them is rare
_MOST_GONE = 100_000  # identifiers that left are remembered for deltas, at least so many


class Settings(NamedTuple):
    """What may change from call to call."""

    rates: tuple[float, float]  # of Adagrad, of Adam
    init_scale: float
    batch_size: int
    min_counts: np.ndarray  # by column of X
    expire_after: np.ndarray | None  # by column of X
    evict_every: int | None
    max_rows: int | None
    sync_interval: int


class OnlineState:
    """The model of a stream, and how to learn a batch."""

    table: Any
    filter: Any  # of new identifiers; made when it is first needed
    clock: dict[str, Any]
    gone: dict[str, Any]
    serving: Serving | None
    saved: Saved | None
    pending: list[tuple[np.ndarray, np.ndarray]]  # rows touched and keys gone since the last exchange

    def __init__(self, shape: Shape, kept: Kept, loss: str, seed: int, settings: Settings, ws):
        self.shape, self.kept, self.loss, self.seed = shape, kept, loss, seed
        self.table = new_table(kept)
        self.filter = None
        self.rows = {  # by row, which stands at 1 + its number: unknown identifiers read place 0, which stays zero
            "values": np.zeros((1, shape.width)),
            "squares": np.zeros((1, shape.width)),
            "updated": np.zeros(1),
            "versions": np.zeros(1, np.int64),
            "columns": np.zeros(1, np.int64),
        }
        vectors = settings.init_scale * normal_values(np.arange(shape.n_numeric), seed, shape.n_components)
        dense = new_dense(shape, ws.load(vectors), ws)
        self.dense = {name: ws.store(weights) for name, weights in dense.items()}
        self.moments = {name: ws.store(values) for name, values in new_moments(dense).items()}
        self.numbers = Numbers(0.0, np.zeros(shape.n_numeric), np.zeros(shape.n_numeric))
        self.clock = {"n_seen": 0, "n_filtered": 0, "n_evicted": 0, "turn": 0, "version": 0, "t": 0.0, "timed": None}
        self.gone = {"keys": np.empty(0, np.int64), "versions": np.empty(0, np.int64), "since": 0}
        self.device, self.serving, self.saved = "cpu", None, None
        self.pending = []

    def __getstate__(self):
        return plain_of(self)

    def __setstate__(self, plain):
        self.shape, self.kept = shape_of(plain), Kept(**plain["kept"])
        self.loss, self.seed, self.clock = plain["loss"], plain["seed"], dict(plain["clock"])
        self.table, self.filter = table_of(plain), filter_of(plain)
        self.rows, self.dense, self.moments = owned(plain["rows"]), owned(plain["dense"]), owned(plain["moments"])
        self.numbers, self.gone = Numbers(**plain["numbers"]), dict(plain["gone"])
        self.device, self.saved = "cpu", None
        self.serving, self.pending = serving_of(plain, self.table, self.rows["values"])

    def __eq__(self, other):
        return type(other) is type(self) and same_plain(plain_of(self), plain_of(other))

    __hash__ = None  # type: ignore[assignment]

    # Where weights live

    def move_to(self, device: torch.device) -> None:
        """Bring weights to a device, where they are not there yet."""
        if str(device) == self.device:
            return
        with torch.inference_mode(False):  # they are changed later, outside of a mode that the user may be in
            for store, names in ((self.rows, ("values", "squares")), (self.dense, None), (self.moments, None)):
                for name in names or list(store):
                    store[name] = _brought(store[name], device)
            if self.serving is not None:
                now = self.serving.current
                dense = {name: _brought(weights, device) for name, weights in now.dense.items()}
                self.serving = Serving(now._replace(values=_brought(now.values, device), dense=dense))
        self.device = str(device)

    @contextmanager
    def reading(self, live: bool):
        """Give what a prediction reads."""
        serving = self.serving
        if live or serving is None:
            yield Readable(self.table, self.rows["values"], self.dense, self.numbers)
        else:
            with serving.reading() as copy:
                yield copy

    # Learning

    @contextmanager
    def changing(self, settings: Settings):
        """Learn within a block, as a new version; one that is broken off has learned some of its batches."""
        self.keep_copy(settings.sync_interval > 0)
        self.clock["version"] += 1
        try:
            yield
        except BaseException:
            self._repair(settings)
            raise

    def keep_copy(self, wanted: bool) -> None:
        """Have a copy that answers from now on, or none."""
        if wanted and self.serving is None:
            with self.reading(live=True) as now:
                self.pending = []
                self.serving = Serving(copied(now))
        elif not wanted:
            self.serving, self.pending = None, []

    def _repair(self, settings: Settings) -> None:
        """Bring table and rows together again, where identifiers may have a row to which nothing was written."""
        self.table = type(self.table).from_arrays(self.table.arrays())
        self.reserve()
        rows = self.table.live_rows()
        squares = self.rows["squares"]
        empty = rows[host(squares[placed(rows + 1, squares)])[:, 0] == 0]
        self._start(empty, self.table.keys_of_rows()[empty], settings)

    def start_clock(self, times) -> None:
        """Note whether rows have times; what was learned by `fit`, without them, is as old as the first one."""
        clock = self.clock
        if clock["timed"] is None and times is not None and clock["n_seen"] and len(times):
            clock["t"] = self.rows["updated"][:] = float(times[0])
        clock["timed"] = times is not None

    def see_numbers(self, Z, weights) -> None:
        """Let the means and variances of numeric columns count rows."""
        self.numbers = self.numbers.followed_by(Z, weights)

    def learn(self, rows, y, weights, times, settings: Settings, *, again=False):
        """Learn a batch, and return the sum of the losses of its rows before.

        Parameters
        ----------
        rows : Rows
            The rows.
        y : ndarray
            Numbers (n, 1), or positions of classes (n,).
        weights : ndarray of shape (n,) or None
            Their weights, above 0.
        times : ndarray of shape (n,) or None
            Their times; None counts rows.
        settings : Settings
            Parameters.
        again : bool
            Whether the rows were learned before: then they do not count, and bring no new identifiers.
        """
        n, clock = len(rows), self.clock
        times = clock["n_seen"] + np.arange(1.0, n + 1) if times is None else times
        distinct = distinct_identifiers(rows, times)
        places, distinct = self._places(distinct, settings, again)
        with torch.inference_mode(not self.shape.has_network):  # whose gradients torch finds; small steps are faster so
            loss = self._step(rows, y, weights, places, distinct, settings)
        self.rows["versions"][places] = clock["version"]
        if self.serving is not None:
            self.pending.append((places - 1, np.empty(0, np.int64)))
        if not again:
            self.rows["updated"][places] = np.maximum(self.rows["updated"][places], distinct.times)
            clock["n_seen"], clock["t"] = clock["n_seen"] + n, max(clock["t"], float(times.max()))
        if settings.max_rows is not None and self.table.n_ids > settings.max_rows:
            self._drop_oldest(settings.max_rows)
        return loss

    def _places(self, distinct: Distinct, settings: Settings, again):
        """Return the places of identifiers, 0 for those without a row; new ones get one where they are admitted."""
        found = self.table.find(distinct.keys)
        new = np.flatnonzero(found < 0)
        if len(new) and not again:
            admitted = new[self._admitted(distinct, new, settings)]
            if len(admitted):
                found[admitted] = self._added(distinct.keys[admitted], distinct.columns[admitted], settings)
        places = found + 1
        if self.kept.table == "modulo":  # keys may share a row
            places, merged = np.unique(places, return_inverse=True)
            times = np.full(len(places), -np.inf)
            np.maximum.at(times, merged, distinct.times)
            distinct = distinct._replace(slots=merged[distinct.slots], times=times)
        return places, distinct

    def _admitted(self, distinct: Distinct, new, settings: Settings):
        """Return the mask of new identifiers that get a row."""
        least = settings.min_counts[distinct.columns[new]]
        if self.filter is None and (least <= 1).all():
            return slice(None)
        if self.filter is None:
            self.filter = make_filter(self.kept.admission, self.kept.filter_capacity)
        generator = None
        if self.kept.admission == "probabilistic":
            generator = np.random.default_rng((self.seed, self.clock["n_seen"]))  # a restored stream draws the same
        admitted = self.filter.admit(distinct.keys[new], distinct.counts[new], least, generator)
        self.clock["n_filtered"] += int(distinct.counts[new][~admitted].sum())
        return admitted

    def _added(self, keys, columns, settings: Settings):
        """Give rows to new identifiers: weights of zero, and a vector that depends on the identifier alone."""
        rows = self.table.add(keys)
        self.reserve()
        self._start(rows, self.table.keys_of_rows()[rows], settings)  # of shared rows, the key that took it into use
        self.rows["updated"][rows + 1], self.rows["columns"][rows + 1] = -np.inf, columns
        return rows

    def _start(self, rows, keys, settings: Settings) -> None:
        """Write what new rows begin with."""
        start, k = np.zeros((len(rows), self.shape.width)), self.shape.n_components
        start[:, self.shape.n_outputs :] = settings.init_scale * normal_values(keys, self.seed, k)
        self.write_rows(rows, start, np.full_like(start, INITIAL_SQUARES))

    def _step(self, rows, y, weights, places, distinct: Distinct, settings: Settings):
        """Make the step of a batch, and return the sum of its losses before."""
        values, squares = tensor_of(self.rows["values"]), tensor_of(self.rows["squares"])
        dense, moments = tensors_of(self.dense), tensors_of(self.moments)
        at = self._here(places)
        touched = values[at]
        batch = batch_of(rows, distinct.slots, self.numbers, self.device)
        found = forward(touched, batch, dense, self.shape)
        weights = None if weights is None else self._here(weights[:, None])
        loss, slope = losses(self.loss, found.outputs, self._here(y), weights)
        grad, by_name = gradients(slope, touched, batch, found, dense, self.shape)
        if not places.all():  # what unknown identifiers read is never trained
            known = self._here(np.flatnonzero(places))
            at, touched, grad = at[known], touched[known], grad[known]
        new, new_squares = adagrad(touched, squares[at], grad, settings.rates[0])
        values.index_copy_(0, at, new), squares.index_copy_(0, at, new_squares)
        self.clock["turn"] += 1
        step_dense(dense, moments, by_name, self.clock["turn"], settings.rates)
        return loss

    def reserve(self) -> None:
        """Make room for all rows of the table."""
        if 1 + self.table.n_rows > len(self.rows["updated"]):
            self.rows = {name: grown(array, 1 + self.table.n_rows) for name, array in self.rows.items()}

    def write_rows(self, rows, values, squares) -> None:
        """Write weights of rows, and their sums of squared gradients; arrays, or numbers for all of them."""
        for name, new in (("values", values), ("squares", squares)):
            store = self.rows[name]
            here = self._here(new) if isinstance(store, torch.Tensor) and isinstance(new, np.ndarray) else new
            store[placed(rows + 1, store)] = here

    def _here(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return tensor if self.device == "cpu" else tensor.to(self.device)

    def take_dense(self, dense, moments, numbers: Numbers, clock) -> None:
        """Replace all that no identifier owns."""
        for mine, new in ((self.dense, dense), (self.moments, moments)):
            for name, array in new.items():
                mine[name] = _brought(array.copy(), self.device)
        self.numbers, self.clock = numbers, clock

    # Forgetting

    def evict(self, now: float, expire_after) -> int:
        """Drop rows that no batch has touched for as long as their column says, and return how many."""
        rows = self.table.live_rows()
        age = now - self.rows["updated"][rows + 1]
        return self.drop(rows[age >= expire_after[self.rows["columns"][rows + 1]]])

    def _drop_oldest(self, max_rows) -> None:
        rows = self.table.live_rows()
        n_gone = min(len(rows), len(rows) - max_rows + max_rows // _SLACK)
        self.drop(rows[np.argsort(self.rows["updated"][rows + 1], kind="stable")[:n_gone]])

    def drop(self, rows) -> int:
        """Drop rows in use, and return how many; nothing of them is left for those who get them next."""
        if not len(rows):
            return 0
        keys = self.table.keys_of_rows()[rows]
        self.table.remove(keys)
        self.write_rows(rows, 0.0, 0.0)
        self.rows["updated"][rows + 1] = self.rows["columns"][rows + 1] = 0
        self.rows["versions"][rows + 1] = self.clock["version"]
        self.clock["n_evicted"] += len(rows)
        self.forget(keys)
        return len(rows)

    def forget(self, keys) -> None:
        """Note that identifiers have left, for deltas and for the copy that answers."""
        gone, version = self.gone, self.clock["version"]
        keys_gone = np.concatenate([gone["keys"], keys])
        versions = np.concatenate([gone["versions"], np.full(len(keys), version)])
        surplus = len(keys_gone) - 2 * max(_MOST_GONE, self.table.n_ids)
        if surplus > 0:
            cut = np.searchsorted(versions, versions[surplus + len(keys_gone) // 4], side="right")
            gone["since"], keys_gone, versions = int(versions[cut - 1]), keys_gone[cut:], versions[cut:]
        self.gone = {**gone, "keys": keys_gone, "versions": versions}
        if self.serving is not None:
            self.pending.append((np.empty(0, np.int64), keys))

    # The copy that answers

    def pending_keys(self):
        """Return the identifiers that have changed since the last exchange, and those that have left."""
        rows = np.unique(np.concatenate([np.empty(0, np.int64), *(touched for touched, _ in self.pending)]))
        rows = rows[rows >= 0]
        keys = self.table.keys_of_rows()[rows]
        keys = keys[self.table.find(keys) == rows]  # of those that are still there
        gone = np.unique(np.concatenate([np.empty(0, np.int64), *(keys for _, keys in self.pending)]))
        return keys, gone[self.table.find(gone) < 0]

    def sync(self) -> None:
        """Let the copy that answers take over what has changed."""
        if self.serving is None:
            return
        keys, gone = self.pending_keys()
        values = self.rows["values"]
        dense = {name: copy_of(weights) for name, weights in self.dense.items()}
        changed = values[placed(self.table.find(keys) + 1, values)]
        self.serving.take_over(Changes(keys, changed, gone, dense, self.numbers))
        self.pending = []

    def compact(self) -> None:
        """Keep what is pending in bounds, where exchanges are rare."""
        if sum(len(touched) + len(gone) for touched, gone in self.pending) > 10_000 + 4 * self.table.n_rows:
            keys, gone = self.pending_keys()
            self.pending = [(self.table.find(keys), gone)]


def _brought(array, device: torch.device | str):
    """Return weights on a device: numpy's on the CPU, tensors elsewhere."""
    tensor = tensor_of(array).to(device)
    return tensor.numpy() if tensor.device.type == "cpu" else tensor
