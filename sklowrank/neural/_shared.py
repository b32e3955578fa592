"""What the two estimators with one network share: parameters, their descriptions, methods that take no target."""

from collections.abc import Callable
from functools import update_wrapper
from numbers import Integral
from types import MethodType
from typing import Any, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import nn

from .._core.compat import Interval, StrOptions
from .._core.docs import documented as filled
from .._core.modes import in_plain_modes
from .._core.validation import check_new_data
from .._nets.estimating import changed_copy, fitted_network
from .._nets.found import reading_of, whole_network
from .._nets.layers import ACTIVATIONS
from .._nets.pairs import in_pairs
from .._nets.parameters import NETWORK_CONSTRAINTS, network_parameters
from .._nets.training import Rule
from ._ordered_rank import OrderedRank
from ._ordered_rank_solver import account, cut

CONSTRAINTS: dict[str, Any] = {
    **NETWORK_CONSTRAINTS,
    "training": [Rule, None],
    "activation": [StrOptions(set(ACTIVATIONS))],
    "init_rank": [Interval(Integral, 1, None, closed="left"), None],
    "early_stopping": ["boolean"],
    "standardize": ["boolean"],
    "warm_start": ["boolean"],
}

_FIRST = """
hidden_layer_sizes : sequence of ints, default=(128, 128)
    Widths of the hidden layers of the default network. () is a linear model.
training : training rule or None, default=None
    How the network is trained: :class:`OrderedRank`, :class:`TrainedRankPruning`, :class:`SparseSpectralTraining`,
    :class:`RandomSubspace` or :class:`SharpnessAware`. It is copied; its parameters are set and searched as
    ``training__...``. None trains all weights.
activation : {"relu", "gelu", "tanh", "identity"}, default="relu"
    Activation of the hidden layers. A `module` has its own.
"""
_LAST = """
learning_rate : float, default=1e-3
    Step size of the optimizer. Adam, unless `net_params` names another one.
weight_decay : float, default=0.0
    Strength of the weight decay of the optimizer. Adam adds this share of the weights to their gradients.
batch_size : int, default=64
    Number of rows per training step; it changes the result. At most all rows.
max_iter : int, default=50
    Maximum number of iterations. An iteration is an epoch.
tol : float, default=1e-4
    Tolerance of the stopping criterion. Training stops after `n_iter_no_change` epochs none of which had a loss, of the
    held-out rows with `early_stopping`, below the lowest one by more than this share. With 0 and without
    `early_stopping` all epochs are run.
n_iter_no_change : int, default=10
    Number of epochs without an improvement by more than `tol` after which training stops.
early_stopping : bool, default=False
    Whether to hold rows out, of each class its share, and to keep the weights of the epoch with their lowest loss.
validation_fraction : float, default=0.1
    Share of the training rows that is held out. For `early_stopping` alone.
init_rank : int or None, default=None
    Rank of the weights between hidden layers at the start, at their ordinary Frobenius norms. A low rank makes features
    change more in training. None and the full rank are the ordinary start.
standardize : bool, default=True
    Whether to centre each column and divide it by its standard deviation. {standardize}
warm_start : bool, default=False
    Whether `fit` starts from the former fit. It keeps the standardisation of the former fit.
"""
_ATTRIBUTES = """
weights_ : dict of arrays
    Weights of the network, float32, by their names in torch.
n_parameters_ : int
    Number of trained numbers in the fitted network.
n_dense_parameters_ : int
    Number of parameters of the network that training started from.
ranks_ : tuple of ints
    Ranks of the weights of the hidden layers, by their shapes: of every linear layer but the last.
training_ : dict
    What the training rule reports, by name; empty without one.
mean_, scale_ : arrays of shape (n_features,)
    What the columns of X are centred with and divided by, float64.
loss_curve_ : list of floats
    Mean loss of each epoch; of the held-out rows with `early_stopping`.
n_iter_ : int
    Number of epochs.
n_features_in_ : int
    Number of features.
feature_names_in_ : array of shape (n_features_in_,)
    Names of the columns of X, where all are strings.
"""
_NOTES = """
Loss and gradients are weighted means over the rows of a batch: `sample_weight`, divided by its mean, is the weight of
a row. Where one batch holds all rows and X is float64, the default network is trained in float64, and a weight of k
equals k copies of a row. Elsewhere training is in float32, and other batches give another training. The default
network predicts in float64, so that the output of a row does not depend on the other rows.

A training step takes O(b p) time for b rows and p parameters.
"""


def documented(*, standardize: str) -> Callable[[type], type]:
    """Return a decorator that fills in the parts of a docstring that both classes share."""

    def fill(cls):
        network = network_parameters(module_params='``"module__dropout"``, a share in [0, 1), default 0')
        shared = filled(
            first_parameters=_FIRST,
            last_parameters=_LAST.format(standardize=standardize),
            attributes=_ATTRIBUTES,
            notes=_NOTES,
        )
        return network(shared(cls))

    return fill


class _OfOrderedRank:
    """A method of networks that :class:`OrderedRank` trains; of others an AttributeError that names the rule."""

    def __init__(self, method):
        update_wrapper(self, method)

    def __get__(self, estimator, owner=None):
        if estimator is None:
            return self.__wrapped__
        if not isinstance(estimator.training, OrderedRank):
            raise AttributeError(
                f"{type(estimator).__name__} has {self.__name__} with training=OrderedRank(...) alone: other rules do "
                f"not order their components. Got training={estimator.training!r}."
            )
        return MethodType(self.__wrapped__, estimator)


class NetworkMethods:
    """Methods and annotations of both classes."""

    _parameter_constraints = CONSTRAINTS

    # Set by fit
    weights_: dict[str, np.ndarray]
    n_parameters_: int
    n_dense_parameters_: int
    ranks_: tuple[int, ...]
    training_: dict[str, Any]
    mean_: np.ndarray
    scale_: np.ndarray
    loss_curve_: list[float]
    n_iter_: int
    n_features_in_: int
    feature_names_in_: np.ndarray

    @in_plain_modes
    def network(self, device: torch.device | str = "cpu", *, whole: bool = False) -> nn.Module:
        """Return the fitted network as a torch module.

        It is a new one at each call, in float32 and eval mode, and takes standardised rows, ``(X - mean_) / scale_``.
        Thin layers with more numbers than their product are multiplied out.

        Parameters
        ----------
        device : str or torch.device, default="cpu"
            Where its weights are.
        whole : bool, default=False
            Whether it takes rows as `predict` does, with the standardisation in it, and gives values in the units of y.
            A classifier gives logits. It is what to export: its layers are those of torch.

        Returns
        -------
        network : torch.nn.Module
        """
        net = fitted_network(self, device)
        return whole_network(in_pairs(net), reading_of(self)) if whole else net

    @_OfOrderedRank
    def resized(self, size, X=None) -> Self:
        """Return a copy whose network is cut to a size: no training, no decomposition.

        It is there with ``training=OrderedRank(...)``.

        Parameters
        ----------
        size : float in (0, 1] or dict of ints
            Number of parameters at most, as a share of `n_dense_parameters_`; components are kept across layers by
            their importance relative to the first one of their layer, and at least one of each layer. Or ranks by the
            path of the layer, as ``training_["ranks"]`` has them.
        X : array-like or tensor of shape (n_samples, n_features), default=None
            Rows by which the running statistics of batch normalisation are computed again, where there is any.

        Returns
        -------
        model : NetworkClassifier or NetworkRegressor
            Fitted, of the class of this one.
        """
        check_is_fitted(self)
        X = None if X is None else check_new_data(self, X, like="mean_", method="resized")
        found, paths = dict(self.training_), list(self.training_.get("ranks", {}))

        def change(net):
            edits = cut(net, size, paths)
            found.update(account(net, paths))
            return edits

        return changed_copy(self, change, X, training_=found)

    @_OfOrderedRank
    def size_curve(self, X, y, sizes) -> tuple[np.ndarray, np.ndarray]:
        """Return how many parameters and which score the network has when it is cut to several sizes.

        It is there with ``training=OrderedRank(...)``. Running statistics of batch normalisation are computed again
        by X for each size.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.
        y : array-like
            Their classes or values, as `score` takes them.
        sizes : sequence
            Sizes as :meth:`resized` takes them.

        Returns
        -------
        n_parameters : array of shape (n_sizes,)
        scores : array of shape (n_sizes,)
        """
        check_is_fitted(self)
        models = [self.resized(size, X) for size in sizes]
        sizes = np.array([model.n_parameters_ for model in models], dtype=np.int64)
        return sizes, np.array([model.score(X, y) for model in models], dtype=np.float64)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.array_api_support = True
        return tags
