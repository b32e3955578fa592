"""How a fitted stream leaves its process: changes for copies of it, and snapshots that it continues from."""

from numbers import Integral
from pathlib import Path
from typing import Self

from sklearn.utils import check_scalar

from .._core.fitted import replace_attributes
from .._core.modes import in_plain_modes
from . import _online_snapshot as snapshot
from ._online_plain import apply_delta, checked_delta, delta_of
from ._online_state import OnlineState


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
            Arrays and numbers: "keys" of identifiers with their "values" and sums of "squares" of gradients,
            "evicted_keys", the dense weights, "since" and "version". `numpy.savez(file, **delta)` writes it, and
            `dict(numpy.load(file))` reads it.
        """
        return delta_of(self._stream(), check_scalar(since, "since", Integral))

    @in_plain_modes
    def apply_delta(self, delta) -> Self:
        """Take over what has changed in the model that this one is a copy of.

        Parameters
        ----------
        delta : dict
            What :meth:`get_delta` returned. One that brings nothing new changes nothing; one that follows a later
            version than this model's is refused. Counts of identifiers that wait for admission are not in it.

        Returns
        -------
        self : estimator
        """
        state = self._stream()
        news = checked_delta(state, delta)
        if news is not None:
            state.keep_copy(self.sync_interval > 0)
            apply_delta(state, news)
            state.sync()
        return self

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
