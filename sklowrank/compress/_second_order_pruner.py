"""Fitted networks with few weights that are not zero, chosen by second-order information."""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import accuracy_score, r2_score
from sklearn.pipeline import Pipeline
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from skorch import NeuralNet
from torch import nn

from .._core.annotations import RandomState
from .._core.compat import HasMethods, Interval, StrOptions, _fit_context
from .._core.fitted import keep, options, recall
from .._core.modes import in_plain_modes
from .._core.validation import check_fit_data, check_new_data
from .._core.warn import warn
from .._core.workspace import open_workspace
from .._nets.architecture import answers_exactly
from .._nets.found import StoredNetwork, find_network, restored_network, stored_network, whole_network
from .._nets.parameters import NETWORK_CONSTRAINTS
from .._nets.wrapping import where_to_compute, with_tags_of
from ._second_order_pruner_solver import PruningOptions, by_name, prune_network, sparsities_of


class SecondOrderPruner(BaseEstimator):
    """Remove most weights of a network and change the others so that its loss grows least.

    It takes networks of this package, of skorch, and torch modules, and predicts like what it was given. Curvature of
    the loss says which weights can go, and how those that stay make up for them: at high sparsities the network keeps
    an accuracy that removing the smallest weights loses, without further training. Zeros make a network smaller to
    store; a dense product is not faster for them. Where products have to be faster, use layers of low rank.

    Parameters
    ----------
    estimator : estimator, skorch net, torch.nn.Module, or one of these in a FrozenEstimator or last in a Pipeline
        The network. A torch module and what is in a :class:`~sklearn.frozen.FrozenEstimator` are pruned as they are;
        of anything else a clone is fitted first, as meta-estimators of scikit-learn do. It is never changed.
    sparsity : float, default=0.9
        Share of the entries of all weight matrices that are removed, in [0, 1). Biases and norms are kept.
    n_grads : int, default=512
        Number of rows whose gradients describe the curvature. They are drawn without replacement; from fewer rows with
        replacement, with a warning. More are more accurate and take memory of ``n_grads`` times the weights.
    damp : float, default=1e-5
        What is added to the diagonal of the curvature matrix, above 0. Larger values are for small `n_grads`, or for
        networks whose losses on the training rows are almost zero.
    block_size : int or None, default=None
        Number of consecutive weights that make up for one another. None lets all do so. Blocks take less time for
        large networks and lose accuracy.
    n_recompute : int, default=16
        Number of steps in which weights are removed, with curvature from new rows in each.
    schedule : sequence of floats or None, default=None
        Increasing sparsities below `sparsity` that are reached first, each followed by `finetune_epochs` of training.
    finetune_epochs : int, default=0
        Number of epochs for which the remaining weights are trained after each sparsity of the schedule and after the
        last one, with Adam and the loss of the network.
    learning_rate : float, default=1e-3
        Step size of the optimizer. For `finetune_epochs` alone.
    batch_size : int, default=64
        Number of rows per training step; it changes the result. For `finetune_epochs` alone.
    scope : {"global", "layer"}, default="global"
        Whether `sparsity` holds for all weight matrices together, or for each.
    criterion : {"mfac", "magnitude"}, default="mfac"
        By what weights are removed: the growth of the loss where all others follow, or the magnitude, where no weight
        follows.
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1".
    random_state : int, RandomState instance or None, default=None
        Seed or generator of random numbers; pass an int for reproducible results. It draws rows; the clone of
        `estimator` has a seed of its own.

    Attributes
    ----------
    masks_ : dict of arrays
        Which entries are kept, bool, by the names of the weight matrices.
    sparsity_ : float
        Share of the entries of weight matrices that were removed, to one weight what was asked for.
    n_nonzero_ : int
        Number of parameters of the network without the removed ones.
    n_parameters_ : int
        Number of parameters of the network.
    weights_ : dict of arrays
        Weights of the network, by their names in torch.
    classes_ : array of shape (n_classes,)
        Class labels of a classifier.
    mean_, scale_ : arrays of shape (n_features,)
        What a network of this package centres columns with and divides them by.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : array of shape (n_features_in_,)
        Names of the columns of X, where all are strings.

    See Also
    --------
    sklowrank.optim.InverseFisher : The matrix alone.
    sklowrank.optim.MFAC : An optimizer with this matrix, which trains pruned networks with ``mask_zeros=True``.
    sklowrank.neural.NetworkClassifier : A network to be pruned.

    Notes
    -----
    The curvature is the empirical Fisher matrix ``F = damp I + G'G / m`` of the gradients G (m, d) of single rows, in
    eval mode. Without a weight q the loss grows by ``w_q^2 / (2 [F^-1]_qq)`` if all others follow: the lowest are
    removed. For the removed weights Q and the kept ones K the change is::

        delta_K = G_K' (m damp I + G_K G_K')^-1 G_Q w_Q

    This is the exact minimum of ``delta' F delta / 2`` with ``delta_Q = -w_Q``, at the cost of one product with the
    inverse; Frantar et al. approximate it by the diagonal of the inverse. A step takes O(d m^2) time and m d numbers of
    memory for d weights; with blocks of b weights it takes O(d m min(b, m)).

    References
    ----------
    E. Frantar, E. Kurtic, D. Alistarh. M-FAC: Efficient Matrix-Free Approximations of Second-Order Information.
    NeurIPS 2021.

    B. Hassibi, D. G. Stork. Second Order Derivatives for Network Pruning: Optimal Brain Surgeon. NeurIPS 1992.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklowrank.compress import SecondOrderPruner
    >>> from sklowrank.neural import NetworkClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> network = NetworkClassifier((16,), learning_rate=1e-2, tol=0, random_state=0)
    >>> pruner = SecondOrderPruner(network, sparsity=0.8, n_grads=100, random_state=0).fit(X, y)
    >>> pruner.n_parameters_, pruner.n_nonzero_
    (131, 41)
    >>> pruner.score(X, y) > 0.9
    True
    """

    _parameter_constraints = {
        "estimator": [HasMethods(["fit", "predict"]), nn.Module],
        "sparsity": [Interval(Real, 0, 1, closed="left")],
        "n_grads": [Interval(Integral, 1, None, closed="left")],
        "damp": [Interval(Real, 0, None, closed="neither")],
        "block_size": [Interval(Integral, 1, None, closed="left"), None],
        "n_recompute": [Interval(Integral, 1, None, closed="left")],
        "schedule": ["array-like", None],
        "finetune_epochs": [Interval(Integral, 0, None, closed="left")],
        "learning_rate": NETWORK_CONSTRAINTS["learning_rate"],
        "batch_size": NETWORK_CONSTRAINTS["batch_size"],
        "scope": [StrOptions({"global", "layer"})],
        "criterion": [StrOptions({"mfac", "magnitude"})],
        "device": NETWORK_CONSTRAINTS["device"],
        "random_state": NETWORK_CONSTRAINTS["random_state"],
    }

    # Set by fit
    masks_: dict[str, np.ndarray]
    sparsity_: float
    n_nonzero_: int
    n_parameters_: int
    weights_: dict[str, np.ndarray]
    classes_: np.ndarray
    mean_: np.ndarray
    scale_: np.ndarray
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        estimator: Any,
        *,
        sparsity: float = 0.9,
        n_grads: int = 512,
        damp: float = 1e-5,
        block_size: int | None = None,
        n_recompute: int = 16,
        schedule: Sequence[float] | None = None,
        finetune_epochs: int = 0,
        learning_rate: float = 1e-3,
        batch_size: int = 64,
        scope: Literal["global", "layer"] = "global",
        criterion: Literal["mfac", "magnitude"] = "mfac",
        device: str = "auto",
        random_state: RandomState = None,
    ):
        self.estimator = estimator
        self.sparsity = sparsity
        self.n_grads = n_grads
        self.damp = damp
        self.block_size = block_size
        self.n_recompute = n_recompute
        self.schedule = schedule
        self.finetune_epochs = finetune_epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.scope = scope
        self.criterion = criterion
        self.device = device
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y) -> Self:
        """Fit a clone of the estimator, unless it is frozen or a torch module, and prune its network.

        Parameters
        ----------
        X : array-like, tensor, or what the estimator takes, of shape (n_samples, n_features)
            The rows: those of the training, for a network that has been fitted.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Their targets. Of a torch module integers are classes, anything else are values.

        Returns
        -------
        self : SecondOrderPruner
        """
        sparsities = sparsities_of(self.schedule, self.sparsity)
        X, y = _checked(self, X, y)
        ws = open_workspace(where_to_compute(X), device=self.device, random_state=self.random_state)
        is_fitted = isinstance(self.estimator, nn.Module | FrozenEstimator)
        found = find_network(self.estimator if is_fitted else clone(self.estimator).fit(X, y))
        _check_width(found, X)
        if self.criterion == "mfac" and self.n_grads > len(y):
            drawn = "rows are drawn with replacement"
            warn(f"n_grads={self.n_grads} is more than n_samples={len(y)}: {drawn}.", UserWarning)
        found.module.to(ws.device)

        weights = prune_network(found, X, y, sparsities, options(self, PruningOptions), ws.generator)
        return keep(self, ws, stored_network(found), **_described(found, weights, y))

    def predict(self, X):
        """Return what the pruned network predicts: classes, values, or the outputs of a torch module.

        Parameters
        ----------
        X : array-like, tensor, or what the estimator takes, of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        y : array of shape (n_samples,) or (n_samples, n_targets)
        """
        ws, found, outputs = _outputs(self, X, method="predict")
        answer = found.answer(outputs)
        if isinstance(getattr(self, "classes_", None), np.ndarray):
            return answer
        return ws.answer(torch.from_numpy(answer))

    @available_if(is_classifier)
    def predict_proba(self, X):
        """Return the probabilities of the classes.

        Parameters
        ----------
        X : array-like, tensor, or what the estimator takes, of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        probabilities : array of shape (n_samples, n_classes)
        """
        ws, found, outputs = _outputs(self, X, method="predict_proba")
        return ws.answer(found.probabilities(outputs))

    def score(self, X, y, sample_weight=None) -> float:
        """Return the accuracy of classes, or the coefficient of determination of values.

        Parameters
        ----------
        X : array-like, tensor, or what the estimator takes, of shape (n_samples, n_features)
            The rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Their targets. Of a torch module integers are classes, and the largest output is the prediction.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        score : float
        """
        answers = self.predict(X)
        if is_classifier(self):
            return accuracy_score(y, answers, sample_weight=sample_weight)
        if np.asarray(y).dtype.kind in "iub" and np.ndim(y) == 1 and np.ndim(answers) == 2 and answers.shape[1] > 1:
            return accuracy_score(y, answers.argmax(1), sample_weight=sample_weight)
        return r2_score(y, answers, sample_weight=sample_weight)

    @in_plain_modes
    def network(self, device: torch.device | str = "cpu", *, whole: bool = False) -> nn.Module:
        """Return the pruned network as a torch module.

        It is a new one at each call, in eval mode, with the zeros in their places. Steps of a pipeline before it are
        not in it.

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
        found = _recalled(self)
        return (whole_network(found.module, found.reading) if whole else found.module).to(device)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "weights_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return with_tags_of(self.estimator, tags)


# What is given


def _holder(estimator):
    """Return what is in a FrozenEstimator."""
    return _holder(estimator.estimator) if isinstance(estimator, FrozenEstimator) else estimator


def _checked(pruner, X, y):
    """Validate what `fit` was given; what goes into a pipeline is checked there."""
    holder = _holder(pruner.estimator)
    if isinstance(holder, Pipeline):
        validate_data(pruner, X, y, skip_check_array=True)
        return X, y
    if isinstance(holder, nn.Module | NeuralNet):
        return check_fit_data(pruner, X, y, dtype=None, allow_nd=True, multi_output=True)
    if not is_classifier(pruner):
        return check_fit_data(pruner, X, y, y_numeric=True, multi_output=True)
    X, y = check_fit_data(pruner, X, y)
    check_classification_targets(y)
    return X, y


def _check_width(found, X):
    """Raise a ValueError where a frozen network was fitted to other columns."""
    mean = found.reading.mean
    if mean is not None and found.reading.steps is None and X.shape[1] != len(mean):
        raise ValueError(
            f"X has {X.shape[1]} features, but the network in estimator is expecting {len(mean)} features."
        )


def _described(found, weights, y):
    """Return the public fitted attributes."""
    n_parameters = sum(parameter.numel() for parameter in found.module.parameters())
    attributes = {
        "masks_": {name: kept.cpu().numpy() for name, kept in by_name(weights, weights.kept, found.module).items()},
        "sparsity_": 1 - float(weights.kept.double().mean()),
        "n_parameters_": n_parameters,
        "n_nonzero_": n_parameters - int((~weights.kept).sum()),
        "weights_": stored_network(found).weights,
    }
    if found.classes is not None:
        attributes["classes_"] = torch.from_numpy(found.classes) if isinstance(y, torch.Tensor) else found.classes
    if found.reading.mean is not None and found.reading.steps is None:
        attributes |= {"mean_": torch.from_numpy(found.reading.mean), "scale_": torch.from_numpy(found.reading.scale)}
    return attributes


# What is asked


def _recalled(pruner, device="cpu"):
    """Return the pruned network."""
    ws = open_workspace(np.empty((0, 0)), device="cpu").exact()
    return restored_network(recall(pruner, StoredNetwork, ws), device)


def _outputs(pruner, X, method):
    """Validate new rows; return the workspace, the network and its outputs.

    The default network is computed in float64: outputs of a row do not depend on the rows beside it.
    """
    check_is_fitted(pruner)
    holder = _holder(pruner.estimator)
    if isinstance(holder, Pipeline):
        validate_data(pruner, X, skip_check_array=True, reset=False)
    elif isinstance(holder, nn.Module | NeuralNet):
        X = check_new_data(pruner, X, method=method, dtype=None, allow_nd=True)
    else:
        X = check_new_data(pruner, X, method=method, like="mean_")
    ws = open_workspace(where_to_compute(X), device=pruner.device)
    found = _recalled(pruner, ws.device)
    if answers_exactly(found.architecture):
        found.module.double()
    return ws, found, found.outputs(X)
