"""The state of a stream as plain arrays, numbers and strings, and back; and what has changed since a version of it."""

from typing import NamedTuple

import numpy as np

from ._admission import ChanceFilter, ExactFilter, SketchFilter
from ._identifier_table import CuckooTable, ModuloTable
from ._online_embedding_model import Shape
from ._online_serving import Numbers, Readable, Serving, copy_of, placed

_FILTERS = {kind.__name__: kind for kind in (ExactFilter, SketchFilter, ChanceFilter)}


class Kept(NamedTuple):
    """How identifiers are kept; fixed once a stream has begun."""

    table: str
    n_rows: int | None
    admission: str
    filter_capacity: int | None


def new_table(kept: Kept):
    """Return an empty table."""
    return CuckooTable() if kept.table == "cuckoo" else ModuloTable(kept.n_rows)


# States


def plain_of(state) -> dict:
    """Return a state as nested dicts of arrays, numbers and strings; arrays may be those of the state itself."""
    n = 1 + state.table.n_rows
    return {
        "shape": {**state.shape._asdict(), "hidden_layer_sizes": list(state.shape.hidden_layer_sizes)},
        "kept": state.kept._asdict(),
        "loss": state.loss,
        "seed": state.seed,
        "clock": dict(state.clock),
        "table": state.table.arrays(),
        "rows": {name: host(array[:n]) for name, array in state.rows.items()},
        "dense": {name: host(array) for name, array in state.dense.items()},
        "moments": {name: host(array) for name, array in state.moments.items()},
        "numbers": state.numbers._asdict(),
        "gone": dict(state.gone),
        "filter": {} if state.filter is None else {"kind": type(state.filter).__name__, **state.filter.arrays()},
        "serving": {} if state.serving is None else _plain_serving(state),
    }


def shape_of(plain) -> Shape:
    """Return the shape that stands in a plain state."""
    return Shape(**{**plain["shape"], "hidden_layer_sizes": tuple(plain["shape"]["hidden_layer_sizes"])})


def table_of(plain):
    """Return the table of a plain state."""
    kind = CuckooTable if plain["kept"]["table"] == "cuckoo" else ModuloTable
    return kind.from_arrays(plain["table"])


def filter_of(plain):
    """Return the filter of a plain state; None where it has none yet."""
    kind = _FILTERS.get(plain["filter"].get("kind", ""))
    return None if kind is None else kind.from_arrays(plain["filter"])


def owned(arrays) -> dict[str, np.ndarray]:
    """Return arrays that can be written, of the same values."""
    return {name: np.require(array, requirements=["C", "W"]) for name, array in arrays.items()}


def _plain_serving(state) -> dict:
    """Return by what the copy that answers differs from the live rows."""
    keys, gone = state.pending_keys()
    differing = np.concatenate([keys, gone])
    now = state.serving.current
    rows = now.table.find(differing)
    return {
        "keys": keys,
        "gone": gone,
        "there": rows >= 0,
        "values": host(now.values[placed(rows[rows >= 0] + 1, now.values)]),
        "dense": {name: host(array) for name, array in now.dense.items()},
        "numbers": now.numbers._asdict(),
    }


def serving_of(plain, table, values) -> tuple[Serving | None, list]:
    """Return the copy that answers, and what is pending, from a plain state and its live rows."""
    plain = plain["serving"]
    if not plain:
        return None, []
    live = table.keys_of_rows()[table.live_rows()]
    same = live[~np.isin(live, plain["keys"])]
    old = np.concatenate([plain["keys"], plain["gone"]])[plain["there"]]
    copy = table.copy()
    copy.remove(live)
    keys = np.concatenate([same, old])
    rows = copy.add(keys)
    found = np.zeros((1 + copy.n_rows, values.shape[1]))
    found[rows + 1] = np.concatenate([values[table.find(same) + 1], plain["values"]])
    dense = {name: copy_of(array) for name, array in plain["dense"].items()}
    serving = Serving(Readable(copy, found, dense, Numbers(**plain["numbers"])))
    return serving, [(table.find(plain["keys"]), plain["gone"])]


def same_plain(a, b) -> bool:
    """Return whether two plain values are equal to the last bit; NaN equals NaN."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same_plain(a[name], b[name]) for name in a)
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    return type(a) is type(b) and a == b


def host(array) -> np.ndarray:
    """Return weights as an array of numpy."""
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()


# Deltas

_GROUPS = ("dense", "moments", "numbers", "clock")  # of entries such as "dense.intercept"
_ARRAYS = ("keys", "values", "squares", "updated", "columns", "evicted_keys")


def delta_of(state, since: int) -> dict:
    """Return what has changed after a version, as a flat dict of arrays and numbers."""
    version = state.clock["version"]
    if not 0 <= since <= version:
        raise ValueError(f"since={since} has to be a version of this model, from 0 to version_={version}.")
    if since < state.gone["since"]:
        raise ValueError(
            f"since={since} is too long ago: identifiers that left are known from version {state.gone['since']} on. "
            "Send the whole model, by pickle or save_snapshot."
        )
    rows = state.table.live_rows()
    rows = rows[state.rows["versions"][rows + 1] > since]
    gone = np.unique(state.gone["keys"][state.gone["versions"] > since])
    stored = {name: array[placed(rows + 1, array)] for name, array in state.rows.items() if name != "versions"}
    changes = {
        "since": since,
        "version": version,
        "keys": state.table.keys_of_rows()[rows],
        **{name: host(array) for name, array in stored.items()},
        "evicted_keys": gone[state.table.find(gone) < 0],
        "dense": {name: host(array).copy() for name, array in state.dense.items()},
        "moments": {name: host(array).copy() for name, array in state.moments.items()},
        "numbers": {name: np.copy(value) for name, value in state.numbers._asdict().items()},
        "clock": {name: value for name, value in state.clock.items() if value is not None},
    }
    parts = {f"{group}.{name}": value for group in _GROUPS for name, value in changes.pop(group).items()}
    return {**changes, **parts}


def _in_groups(delta) -> dict:
    """Return a delta with its groups as dicts; numbers may have become arrays without dimensions in a file."""
    plain = {
        name: value.item() if np.ndim(value) == 0 and hasattr(value, "item") else value for name, value in delta.items()
    }
    found = {name: value for name, value in plain.items() if "." not in name}
    for group in _GROUPS:
        found[group] = {name.partition(".")[2]: plain[name] for name in plain if name.startswith(f"{group}.")}
    return {**found, "clock": {"timed": None, **found["clock"]}}


def checked_delta(state, delta) -> dict | None:
    """Return a delta in groups, None where it brings nothing new; ValueError where it does not fit."""
    if not isinstance(delta, dict) or not {*_ARRAYS, "since", "version"} <= delta.keys():
        raise ValueError("delta has to be what get_delta returned, with all of its entries.")
    delta, version = _in_groups(delta), state.clock["version"]
    if delta["clock"].keys() != state.clock.keys() or delta["numbers"].keys() != state.numbers._asdict().keys():
        raise ValueError("delta has to be what get_delta returned, with all of its entries.")
    if delta["since"] > version:
        raise ValueError(
            f"The delta follows version {delta['since']}, and this model is of version {version}: the deltas between "
            "them are missing. Apply them first."
        )
    n, width = len(delta["keys"]), state.shape.width
    fits = delta["values"].shape == delta["squares"].shape == (n, width)
    for name, mine in (("dense", state.dense), ("moments", state.moments)):
        fits = fits and {k: np.shape(v) for k, v in delta[name].items()} == {k: tuple(v.shape) for k, v in mine.items()}
    if not (fits and len(delta["updated"]) == len(delta["columns"]) == n):
        raise ValueError("The delta is of a model of other parameters or columns.")
    return delta if delta["version"] > version else None


def apply_delta(state, delta) -> None:
    """Take over a delta that was checked."""
    gone = delta["evicted_keys"]
    gone = gone[state.table.find(gone) >= 0]
    state.clock["version"] = delta["version"]
    state.drop(state.table.find(gone))
    rows = state.table.find(delta["keys"])
    rows[rows < 0] = state.table.add(delta["keys"][rows < 0])
    state.reserve()
    state.write_rows(rows, delta["values"], delta["squares"])
    for name in ("updated", "columns"):
        state.rows[name][rows + 1] = delta[name]
    state.rows["versions"][rows + 1] = delta["version"]
    state.take_dense(delta["dense"], delta["moments"], Numbers(**delta["numbers"]), dict(delta["clock"]))
    if state.serving is not None:
        state.pending.append((rows, np.empty(0, np.int64)))
