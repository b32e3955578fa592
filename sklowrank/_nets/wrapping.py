"""Estimators that hold a changed network of another estimator: how they check, answer, and give the network back."""

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.frozen import FrozenEstimator
from sklearn.utils import Tags, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn
from torch.utils.data import Dataset, Subset

from .._core.compat import num_samples, safe_indexing
from .._core.fitted import forget_columns, recall
from .._core.modes import in_plain_modes
from .._core.rows import first_rows
from .._core.tags import partitioned
from .._core.workspace import check_place, on_cluster, open_workspace
from .architecture import copied_module
from .calls import outputs_of
from .found import array_of, find_network, whole_network
from .holding import Held, StoredHeld, is_ours, network_calls, restored_held
from .passes import lie_elsewhere, rows_at
from .recording import device_of

_BLOCK = 256
# What methods compute with, made once per fit and never given out; it is not pickled with the estimator.
_LIVE: WeakKeyDictionary[Any, tuple[Any, Held]] = WeakKeyDictionary()


def checked_rows(estimator, X: Any, *, reset: bool, min_samples: int = 1) -> Any:
    """Note or check the columns of X, which the wrapped estimator checks itself; return X.

    Raises
    ------
    ValueError
        If there are too few rows, or X has other columns than those of the fit.
    """
    check_place(X, "X")
    n_rows = count_rows(X)
    if n_rows < min_samples:
        raise ValueError(
            f"Found array with {n_rows} sample(s), n_samples={n_rows}, while a minimum of {min_samples} is required."
        )
    if not reset and hasattr(estimator, "n_features_in_") and len(getattr(X, "shape", ())) == 1:
        raise ValueError(
            f"Expected an array of {estimator.n_features_in_} columns, got a 1D array instead. Reshape your data: "
            "X.reshape(1, -1) is a single row."
        )
    if not (_is_of_inputs(X) or isinstance(X, Dataset)):
        validate_data(estimator, first_rows(X), skip_check_array=True, reset=reset)
    elif reset:
        forget_columns(estimator)
    return X


def count_rows(X: Any) -> int:
    """Return the number of rows; a dict has inputs of the network by their names, each with a row per sample."""
    return num_samples(next(iter(X.values()), [])) if _is_of_inputs(X) else num_samples(X)


def _is_of_inputs(X):
    """Return whether X has inputs by their names; a kind of sparse matrix is a dict, too."""
    return isinstance(X, dict) and not issparse(X)


def some_rows(X: Any, y: Any, count: int | None, generator: torch.Generator) -> tuple[Any, Any]:
    """Return at most `count` rows, drawn without replacement, in their order, and their targets.

    All rows, where they are not more, stay where they are, but for few of a cluster.
    """
    n_rows = count_rows(X)
    if count is None or count >= n_rows:
        return (rows_at(X, np.arange(n_rows)) if count is not None and on_cluster(X) else X), y
    at = torch.randperm(n_rows, generator=generator, device="cpu", dtype=torch.int64)[:count].sort().values.numpy()
    return _rows_at(X, at), None if y is None else _rows_at(y, at)


def _rows_at(X, at):
    if _is_of_inputs(X):
        return {name: _rows_at(values, at) for name, values in X.items()}
    if isinstance(X, Dataset):
        return Subset(X, at.tolist())
    if lie_elsewhere(X):
        return rows_at(X, at)
    return X[torch.from_numpy(at).to(X.device)] if isinstance(X, torch.Tensor) else safe_indexing(X, at)


def where_to_compute(X: Any) -> Any:
    """Return rows that say where to compute: arrays themselves, an empty one for anything else."""
    return X if isinstance(X, np.ndarray | torch.Tensor) or hasattr(X, "__array_namespace__") else np.empty((0, 0))


def check_finite(outputs: torch.Tensor) -> None:
    """Raise a ValueError where outputs (n, ...) are not finite."""
    bad = int((~outputs.reshape(len(outputs), -1).isfinite()).any(1).sum())
    if bad:
        raise ValueError(
            f"The network gives NaN or infinity for {bad} of {len(outputs)} rows, so that there is nothing to keep. "
            "Leave these rows out, or correct the network."
        )


def relative_error(outputs: torch.Tensor, of: torch.Tensor) -> float:
    """Return the mean squared change of outputs over their variance; 0 where nothing changes.

    Where outputs have no variance but that of rounding, such a change is none.
    """
    precision = torch.finfo(of.dtype).eps if of.is_floating_point() else 0.0
    outputs, of = (t.double().reshape(len(t), -1) for t in (outputs, of))
    change, variance = (outputs - of).square().sum(), (of - of.mean(0)).square().sum()
    rounding = (16 * precision) ** 2 * of.square().sum()
    return 0.0 if change == 0 or (variance <= rounding and change <= rounding) else float(change / variance)


def with_tags_of(estimator: Any, tags: Tags) -> Tags:
    """Return tags of a wrapper with those of rows and targets that an inner estimator has; a torch module has none."""
    if not isinstance(estimator, nn.Module):
        inner = get_tags(estimator)
        tags.estimator_type, tags.target_tags, tags.input_tags = (
            inner.estimator_type,
            inner.target_tags,
            inner.input_tags,
        )
        tags.classifier_tags, tags.regressor_tags = inner.classifier_tags, inner.regressor_tags
    return tags


def _inner_has(method):
    """Return a check that there is an estimator with a method, fitted or not."""

    def check(self):
        if isinstance(self.estimator, nn.Module):
            raise AttributeError(f"A torch module has no {method}: use predict_raw, or pass a skorch net.")
        getattr(self.estimator, method)
        return True

    return check


class HeldNetwork:
    """The methods of an estimator that holds a changed network; `fit` keeps a :class:`StoredHeld`."""

    if TYPE_CHECKING:  # a parameter of the constructor, no fitted attribute
        estimator: Any

    @property
    def estimator_(self) -> Any:
        """The inner estimator with the changed network, new at each access, ready to predict and to be trained on."""
        self._check_fitted("estimator_")
        return self._restored().estimator

    @available_if(_inner_has("predict"))
    def predict(self, X: ArrayLike) -> Any:
        """Return what the estimator with the changed network predicts.

        Parameters
        ----------
        X : what the estimator predicts on, of n_samples rows
            The rows.

        Returns
        -------
        y : array of shape (n_samples,) or (n_samples, n_targets)
        """
        return self._ask("predict", X)

    @available_if(_inner_has("predict_proba"))
    def predict_proba(self, X: ArrayLike) -> Any:
        """Return the probabilities of the classes.

        Parameters
        ----------
        X : what the estimator predicts on, of n_samples rows
            The rows.

        Returns
        -------
        probabilities : array of shape (n_samples, n_classes)
        """
        return self._ask("predict_proba", X)

    @available_if(_inner_has("decision_function"))
    def decision_function(self, X: ArrayLike) -> Any:
        """Return the scores of the classes.

        Parameters
        ----------
        X : what the estimator predicts on, of n_samples rows
            The rows.

        Returns
        -------
        scores : array of shape (n_samples,) or (n_samples, n_classes)
        """
        return self._ask("decision_function", X)

    @available_if(_inner_has("score"))
    def score(self, X: ArrayLike, y: ArrayLike | None = None, **params: Any) -> float:
        """Return the score of the estimator with the changed network.

        Parameters
        ----------
        X : what the estimator predicts on, of n_samples rows
            The rows.
        y : array-like of n_samples values, default=None
            Their targets.
        **params : dict
            What else the estimator's score takes, such as `sample_weight`.

        Returns
        -------
        score : float
        """
        return self._ask("score", X, y, **params)

    @in_plain_modes
    def predict_raw(self, X: ArrayLike) -> np.ndarray:
        """Return the outputs of the changed network, before the estimator makes predictions of them.

        Parameters
        ----------
        X : what the estimator predicts on, of n_samples rows
            The rows.

        Returns
        -------
        outputs : ndarray of shape (n_samples, ...)
        """
        check_is_fitted(self)
        X = checked_rows(self, X, reset=False)
        device = open_workspace(np.empty((0, 0)), device=self.device).device  # type: ignore[attr-defined]
        held = live(self)
        calls, module = network_calls(held, X), held.module
        if device_of(module) != device:  # it stays where its estimator computes, perhaps in another thread
            module = copied_module(module).to(device)
        return array_of(outputs_of(module, calls, _BLOCK, device))

    @in_plain_modes
    def network(self, device: torch.device | str = "cpu", *, whole: bool = False) -> nn.Module:
        """Return the changed network as a torch module.

        It is a new one at each call, in eval mode. Steps of a pipeline before it are not in it.

        Parameters
        ----------
        device : str or torch.device, default="cpu"
            Where its weights are.
        whole : bool, default=False
            Whether the standardisation of a :class:`~sklowrank.neural.NetworkClassifier` or
            :class:`~sklowrank.neural.NetworkRegressor` is in it: it then takes rows as these do, and gives values in
            the units of y, or logits. Other estimators have none. It is what to export.

        Returns
        -------
        network : torch.nn.Module
        """
        check_is_fitted(self)
        held = self._restored()
        module = held.module
        if whole and held.estimator is not None and is_ours(held.owner):
            module = whole_network(module, find_network(held.owner).reading)
        return module.to(device)

    @property
    def classes_(self) -> np.ndarray:
        """Class labels of the inner estimator."""
        self._check_fitted("classes_")
        return live(self).estimator.classes_

    def _restored(self) -> Held:
        """Return the held network, new at each call; another estimator may store it in another way."""
        return restored_held(_stored(self))

    def _answering(self) -> object:
        """Return an object that is another one where methods are to answer in another way."""
        return vars(self)["_fitted"]

    @in_plain_modes
    def _ask(self, method, X, *args, **params):
        check_is_fitted(self)
        open_workspace(np.empty((0, 0)), device=self.device)  # type: ignore[attr-defined]  # where there is none, it says so
        return getattr(live(self).estimator, method)(checked_rows(self, X, reset=False), *args, **params)

    def _check_fitted(self, name):
        if "_fitted" not in vars(self):
            raise AttributeError(f"This {type(self).__name__} has no {name}: it is not fitted.")

    def __sklearn_is_fitted__(self) -> bool:
        return "_fitted" in vars(self)

    def __sklearn_tags__(self):
        tags = with_tags_of(self.estimator, super().__sklearn_tags__())  # type: ignore[misc]
        tags.target_tags.required = tags.target_tags.required and not isinstance(self.estimator, FrozenEstimator)
        return tags


class CalibratedNetwork(HeldNetwork):
    """An estimator whose `fit` takes of rows what they show of layers in passes: sums, which a cluster can compute."""

    def __sklearn_tags__(self):
        return partitioned(super().__sklearn_tags__(), keep_integers=True)


@in_plain_modes
def live(estimator: HeldNetwork) -> Held:
    """Return the held network that methods compute with: it is read, never changed nor given out."""
    answering = estimator._answering()
    found = _LIVE.get(estimator)
    if found is None or found[0] is not answering:
        found = answering, estimator._restored()
        _LIVE[estimator] = found
    return found[1]


def _stored(estimator) -> StoredHeld:
    return recall(estimator, StoredHeld, open_workspace(np.empty((0, 0)), device="cpu"))
