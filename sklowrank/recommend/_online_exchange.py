"""How a fitted stream leaves its process: changes for copies of it, and snapshots that it continues from."""

import hashlib
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Self

import numpy as np
from sklearn.utils import check_scalar

from .._core.fitted import replace_attributes
from .._core.modes import in_plain_modes
from . import _online_snapshot as snapshot
from ._online_serving import Numbers, host, placed
from ._online_state import OnlineState

_MEANINGS = ("classes_", "y_mean_", "y_scale_", "feature_names_in_")  # of outputs and columns
_GROUPS = ("dense", "moments", "numbers", "clock")  # of entries of a delta such as "dense.intercept"
_BY_KEY = ("values", "squares", "updated", "columns")


class StreamExchange:
    """Methods of an estimator whose `_stream` returns its state."""

    def get_delta(self, since) -> dict:
        """Return what has changed after a version, for a copy of this model in another process.

        Parameters
        ----------
        since : int
            A former `version_`: that of the copy.

        Returns
        -------
        delta : dict
            Arrays, numbers and a text: "keys" of identifiers with their "values" and sums of "squares" of gradients,
            "evicted_keys", the dense weights, "since", "version" and "model", which is the same for copies of one
            model. `numpy.savez(file, **delta)` writes it, and `dict(numpy.load(file))` reads it.
        """
        return {"model": self._identity(), **delta_of(self._stream(), check_scalar(since, "since", Integral))}

    @in_plain_modes
    def apply_delta(self, delta) -> Self:
        """Take over what has changed in the model that this one is a copy of.

        Parameters
        ----------
        delta : dict
            What :meth:`get_delta` returned. One that brings nothing new changes nothing; one that follows a later
            version than this model's, or is of a model that this one is no copy of, is refused. Counts of identifiers
            that wait for admission are not in it. A copy that learns rows itself is no copy any more.

        Returns
        -------
        self : estimator
        """
        state = self._stream()
        news = checked_delta(state, delta, self._identity(), self.n_features_in_)
        if news is not None:
            state.keep_copy(self.sync_interval > 0)
            apply_delta(state, news)
            state.sync()
        return self

    def _identity(self) -> str:
        """Return a text that is equal for models whose weights mean the same."""
        state, attributes = self._stream(), vars(self)
        meant = [np.asarray(attributes[name]).tolist() for name in _MEANINGS if name in attributes]
        parts = (type(self).__name__, tuple(state.shape), tuple(state.kept), state.seed, self._fitted["kinds"], meant)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def save_snapshot(self, path, *, incremental=False) -> Self:
        """Write the whole state of the model to a folder, from which it continues as if it had never stopped.

        At each moment the folder holds the last completed snapshot or the new one.

        Parameters
        ----------
        path : str or path
            The folder, which is made where it is not there.
        incremental : bool, default=False
            Whether to add what has changed to the snapshot that this model has written there, or was loaded from. All
            is written where there is none, and where former changes are larger than what they were added to. Counts for
            admission are written each time.

        Returns
        -------
        self : estimator
        """
        state = self._stream()
        names = [name for name in vars(self) if name.endswith("_") and not name.startswith("_")]
        params = {name: value for name, value in self.get_params(deep=False).items() if name != "random_state"}
        seed = self.random_state if isinstance(self.random_state, Integral) else None
        header = {
            "class": type(self).__name__,
            "params": {**params, "random_state": seed},
            "attributes": {name: getattr(self, name) for name in names},
            "kinds": self._fitted["kinds"],
        }
        state.saved = snapshot.write(path, header, state.__getstate__(), state.saved, incremental=incremental)
        return self

    @classmethod
    def load_snapshot(cls, path) -> Self:
        """Return the model of a snapshot; no code in it is run.

        Parameters
        ----------
        path : str or path
            The folder that :meth:`save_snapshot` has written. One that is damaged is refused.

        Returns
        -------
        model : estimator
        """
        header, plain, saved = snapshot.read(path)
        if header["class"] != cls.__name__:
            raise ValueError(f"The snapshot {Path(path)} is of a {header['class']}, not of a {cls.__name__}.")
        model = cls(**header["params"])
        state = object.__new__(OnlineState)
        state.__setstate__(plain)
        state.saved = saved
        fitted = {"state": state, "kinds": header["kinds"]}
        return replace_attributes(model, {**header["attributes"], "_fitted": fitted})


# Deltas


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


def checked_delta(state, delta, model, n_features) -> dict | None:
    """Return a delta in groups, None where it brings nothing new; ValueError where it does not fit."""
    delta = dict(delta) if isinstance(delta, Mapping) else {}
    if str(delta.get("model", model)) != model:
        raise ValueError(
            "The delta is of a model of other parameters or columns, other classes or units of y, or another "
            "random_state. Make the copy from its model, by pickle or load_snapshot."
        )
    own = {"model": model, **delta_of(state, state.clock["version"])}  # of which nothing has changed
    missing = own.keys() - {"clock.timed"} - delta.keys()
    if missing:
        raise ValueError(
            f"delta has to be what get_delta returned, with all of its entries; it lacks {min(missing)!r}."
        )
    delta = {name: np.asarray(value) for name, value in delta.items()}
    for name, mine in own.items():
        if name in delta and not _is_like(delta[name], mine, name):
            raise ValueError(f"delta has to be what get_delta returned: {name!r} has another type or shape, or NaN.")
    version, found = state.clock["version"], _in_groups(delta)
    if found["since"] > version:
        raise ValueError(
            f"The delta follows version {found['since']}, and this model is of version {version}: the deltas between "
            "them are missing. Apply them first."
        )
    if not _is_consistent(found, n_features):
        raise ValueError("The delta is damaged: its entries contradict each other. Get it again.")
    return found if found["version"] > version else None


def _is_like(value, mine, name) -> bool:
    """Return whether an entry has the type and shape of that of another delta, which is finite."""
    mine = np.asarray(mine)
    lengths = slice(1, None) if name in ("keys", "evicted_keys", *_BY_KEY) else slice(None)
    same_form = value.ndim == mine.ndim and value.shape[lengths] == mine.shape[lengths]
    same_type = value.dtype == mine.dtype or name == "model"
    if not (same_form and same_type) or value.dtype.kind != "f":
        return same_form and same_type
    return not np.isnan(value).any() if name == "updated" else bool(np.isfinite(value).all())  # -inf is never


def _is_consistent(delta, n_features) -> bool:
    """Return whether each identifier is there once, with a row of a column of X, and versions follow each other."""
    n, keys = len(delta["keys"]), np.concatenate([delta["keys"], delta["evicted_keys"]])
    columns = delta["columns"]
    return (
        all(len(delta[name]) == n for name in _BY_KEY)
        and len(np.unique(keys)) == len(keys)
        and bool((delta["squares"] > 0).all() and ((columns >= 0) & (columns < n_features)).all())
        and delta["clock"]["timed"] in (None, True, False)
        and 0 <= delta["since"] <= delta["version"] == delta["clock"]["version"]
    )


def _in_groups(delta) -> dict:
    """Return a delta of arrays with its groups as dicts, and arrays without dimensions as numbers."""
    plain = {name: value if value.ndim else value.item() for name, value in delta.items()}
    found = {name: value for name, value in plain.items() if "." not in name}
    for group in _GROUPS:
        found[group] = {name.partition(".")[2]: plain[name] for name in plain if name.startswith(f"{group}.")}
    return {**found, "clock": {"timed": None, **found["clock"]}}


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
