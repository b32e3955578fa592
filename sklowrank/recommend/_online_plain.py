"""The state of a stream as plain arrays, numbers and strings, and back."""

from typing import NamedTuple

import numpy as np

from ._admission import ChanceFilter, ExactFilter, SketchFilter
from ._identifier_table import CuckooTable, ModuloTable
from ._online_embedding_model import Shape
from ._online_serving import Numbers, Readable, Serving, copy_of, host, placed

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
