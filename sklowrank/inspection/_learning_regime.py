"""Whether a network has learnt features, or only weighted those that it had at the start."""

import copy
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone, is_classifier
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import nn

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.fitted import keep
from .._core.validation import on_host
from .._nets.architecture import edited
from .._nets.found import find_network
from .._nets.layers import linear_layers
from ..metrics import effective_rank, kernel_alignment, tangent_kernel
from ._wrapped_network import NetworkWrapper, check_trainable, last_step, rows_at

_MEASURES = ("weight", "kernel", "representation", "sign")
_NAME = "learning_regime"  # of the callback


def _estimator_has(name):
    """Return a check whether the estimator has a method."""

    def check(self):
        getattr(getattr(self, "estimator_", self.estimator), name)
        return True

    return check


class LearningRegime(NetworkWrapper, MetaEstimatorMixin, BaseEstimator):
    """Fit a network, and measure how far it has learnt features: the rich or the lazy regime of learning.

    In the lazy regime a network keeps the features of its random start and weights them, as a kernel method would; in
    the rich regime hidden layers learn features of the task. Use it to choose width, scale and rank of the start, to
    see whether a kernel method would do, or whether representations are worth transferring. It costs some evaluations
    of the tangent kernel, and the fitted network is the one that the estimator alone would give. It does not say which
    regime generalises better: compare scores for that.

    Parameters
    ----------
    estimator : estimator
        The network. A copy of it is fitted: :class:`~sklowrank.neural.NetworkClassifier` or
        :class:`~sklowrank.neural.NetworkRegressor`, with any training rule, a skorch net, or a Pipeline whose last step
        is one of these.
    probe_size : int, default=200
        Number of rows of X on which kernels and representations are compared, drawn once, of each class its share. All
        rows where X has fewer.
    measures : sequence of {"weight", "kernel", "representation", "sign"}
        What is measured; all by default. The attributes of the others are not set.
    kernel_method : {"jacobian", "sum"}, default="jacobian"
        Tangent kernel of all outputs, or of their sum, as in :func:`~sklowrank.metrics.tangent_kernel`. With many
        outputs the first takes much memory: (probe_size * n_outputs)² numbers.
    layers : {"hidden", "all"} or sequence of str, default="hidden"
        Layers that are measured: all linear and convolutional ones but the last, all of them, or those of some paths in
        the torch module, such as ``["2"]``. The tangent kernel is that of their weights and biases, frozen ones too.
    random_state : int, RandomState instance or None, default=None
        Seed or generator of random numbers; pass an int for reproducible results. It draws the probe rows alone.

    Attributes
    ----------
    estimator_ : estimator
        The fitted estimator.
    weight_change_ : dict of str to float
        Frobenius norm of the change of each layer's weight.
    relative_weight_change_ : dict of str to float
        The same, divided by the norm at the start.
    kernel_alignment_ : float
        Alignment of the tangent kernels at the start and at the end: 1 in the lazy limit, 0 where nothing of the
        first kernel is left.
    representation_alignment_ : dict of str to float
        Alignment of the kernels HHᵀ of the representations behind each layer, at the start and at the end.
    sign_similarity_ : dict of str to float
        Share of the entries of the representations behind each layer that have the same sign at the start and at the
        end.
    effective_rank_ : dict of str to (float, float)
        Stable rank of each layer's weight at the start and at the end; with "weight" among the `measures`.
    history_ : dict of lists
        The course of the training. `epoch`: 1, 2, 4, 8, ... and the last one, which stands for the fitted network.
        `train_loss`, and for each measure `relative_weight_change`, `kernel_alignment`, `representation_alignment` and
        `sign_similarity`, means over layers.
    classes_ : array of shape (n_classes,)
        Class labels, of a classifier.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : array of shape (n_features_in_,)
        Names of the columns of X, where the estimator has them.

    See Also
    --------
    sklowrank.metrics.tangent_kernel : Tangent kernel of a network.
    sklowrank.metrics.kernel_alignment : Alignment of two kernels.
    sklowrank.metrics.effective_rank : Effective rank of a weight.

    Notes
    -----
    The start is the network when training begins, after a training rule has replaced layers. Layers of rules are
    compared multiplied out: their weights and kernels are those of one linear layer with the same map. Networks are
    compared in eval mode, on the same rows, and by their logits. The representation behind a layer is the input of the
    layer that is called next, after the activation; behind the last layer it is the output. For n probe rows, k outputs
    and widths that sum to d a comparison takes O((nk)² d), at 2 + log2 epochs times; copies of the network are kept for
    these.

    Comparisons are fair at equal training loss and at equal norms of the starts: a larger norm makes a network lazier,
    and any network changes more the longer it is trained. `init_rank` of the estimators keeps the norm, and `history_`
    has the loss. Alignments rise with the rank of the start; the change of the weights does not follow it, so do not
    read it alone.

    References
    ----------
    .. [1] Y. H. Liu, A. Baratin, J. Cornford, S. Mihalas, E. Shea-Brown, G. Lajoie, "How connectivity structure shapes
       rich and lazy learning in neural circuits", ICLR 2024.
    .. [2] L. Chizat, E. Oyallon, F. Bach, "On lazy training in differentiable programming", NeurIPS 2019.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklowrank.inspection import LearningRegime
    >>> from sklowrank.neural import NetworkClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = NetworkClassifier((32, 32), learning_rate=1e-2, max_iter=20, random_state=0)
    >>> regime = LearningRegime(model, random_state=0).fit(X, y)
    >>> regime.kernel_alignment_ < 0.8, regime.score(X, y) > 0.95  # far from 1: features were learnt
    (True, True)
    >>> regime.history_["epoch"]
    [1, 2, 4, 8, 16, 20]
    """

    _parameter_constraints = {
        "estimator": "no_validation",
        "probe_size": [Interval(Integral, 1, None, closed="left")],
        "measures": ["array-like"],
        "kernel_method": [StrOptions({"jacobian", "sum"})],
        "layers": [StrOptions({"hidden", "all"}), "array-like"],
        "random_state": ["random_state"],
    }

    estimator_: Any
    weight_change_: dict[str, float]
    relative_weight_change_: dict[str, float]
    kernel_alignment_: float
    representation_alignment_: dict[str, float]
    sign_similarity_: dict[str, float]
    effective_rank_: dict[str, tuple[float, float]]
    history_: dict[str, list]

    def __init__(
        self,
        estimator: Any,
        *,
        probe_size: int = 200,
        measures: Sequence[str] = _MEASURES,
        kernel_method: Literal["jacobian", "sum"] = "jacobian",
        layers: str | Sequence[str] = "hidden",
        random_state: RandomState = None,
    ):
        self.estimator = estimator
        self.probe_size = probe_size
        self.measures = measures
        self.kernel_method = kernel_method
        self.layers = layers
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y) -> Self:
        """Fit the estimator, and compare its network before and after.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows, as the estimator takes them.
        y : array-like
            The targets, as the estimator takes them.

        Returns
        -------
        self : LearningRegime
        """
        measures = _checked_measures(self.measures)
        check_trainable(self.estimator, how="is no network that can be trained")
        model = clone(self.estimator)
        taken = _fit_watched(model, X, y)
        layers = _chosen_layers(taken[0].module, self.layers)
        X = X if hasattr(X, "shape") or hasattr(X, "__len__") else np.asarray(X)
        at = _probe(X, y if is_classifier(model) else None, self.probe_size, check_random_state(self.random_state))
        rows = find_network(model).prepare(on_host(rows_at(X, at)))
        views = (_seen(snapshot.module, rows, layers, measures, self.kernel_method) for snapshot in taken)
        start, course = next(views), []
        for view in views:  # a kernel may be large: one at a time
            course.append(_compared(start, view, measures))
        found = _attributes(start, view, course[-1], measures) | {"history_": _history(taken, course, measures)}
        return keep(self, None, estimator_=model, **found)

    @available_if(_estimator_has("predict"))
    def predict(self, X):
        """Return what the fitted estimator predicts.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        y : array
        """
        self._check_namespace(X, "predict")
        return self.estimator_.predict(X)

    @available_if(_estimator_has("predict_proba"))
    def predict_proba(self, X):
        """Return the probabilities of the classes by the fitted estimator.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        probabilities : array of shape (n_samples, n_classes)
        """
        self._check_namespace(X, "predict_proba")
        return self.estimator_.predict_proba(X)

    @available_if(_estimator_has("score"))
    def score(self, X, y):
        """Return the score of the fitted estimator.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.
        y : array-like
            Their targets.

        Returns
        -------
        score : float
        """
        check_is_fitted(self)
        return self.estimator_.score(X, y)


def _checked_measures(measures):
    measures = tuple(measures)
    for measure in measures:
        if measure not in _MEASURES:
            raise ValueError(f"measures has {measure!r}. Use some of {', '.join(map(repr, _MEASURES))}.")
    if not measures:
        raise ValueError(f"measures is empty. Use some of {', '.join(map(repr, _MEASURES))}.")
    return measures


# The fit, watched


class _Snapshot(NamedTuple):
    """The network at some epoch."""

    epoch: int
    loss: float  # of the training rows, the mean over the epoch
    module: nn.Module


class _Snapshots(Callback):
    """Takes copies of a network when training begins, after epochs 1, 2, 4, 8, ..., and when it has ended."""

    def __init__(self):
        self.taken: list[_Snapshot] = []

    def on_train_begin(self, net, **kwargs):
        self.epoch, self.taken = 0, []
        self._take(net)

    def on_epoch_end(self, net, **kwargs):
        self.epoch += 1
        if self.epoch & (self.epoch - 1) == 0:
            self._take(net)

    def on_train_end(self, net, **kwargs):
        if self.epoch and self.taken[-1].epoch == self.epoch:
            del self.taken[-1]  # the fitted network may be that of an earlier epoch
        self._take(net)

    def _take(self, net):
        loss = net.history[-1].get("train_loss", np.nan) if self.epoch else np.nan
        self.taken.append(_Snapshot(self.epoch, float(loss), copy.deepcopy(net.module_).eval()))


def _fit_watched(model, X, y) -> list[_Snapshot]:
    """Fit the model, and return the copies that were taken; no callback is left in the model."""
    last, watch = last_step(model), _Snapshots()
    if isinstance(last, NeuralNet):
        former = last.callbacks
        if isinstance(former, str):
            raise ValueError("callbacks='disable' would disable the one that measures. Pass callbacks=None or a list.")
        last.callbacks = [*(former or []), (_NAME, watch)]
        model.fit(X, y)
        last.callbacks = former
        last.callbacks_ = [pair for pair in last.callbacks_ if pair[1] is not watch]
    else:
        former = last.net_params
        callbacks = [*((former or {}).get("callbacks") or []), (_NAME, watch)]
        last.net_params = {**(former or {}), "callbacks": callbacks}
        model.fit(X, y)
        last.net_params = former
    return watch.taken


def _probe(X, y, size, random_state):
    """Draw rows without replacement; of each class its share, where the targets are classes."""
    n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
    order = random_state.permutation(n_rows)
    if size >= n_rows:
        return order
    if y is not None:
        classes = np.unique(np.asarray(on_host(y)).ravel(), return_inverse=True)[1]
        order = order[np.argsort(classes[order], kind="stable")]
    return order[((np.arange(size) + 0.5) * n_rows / size).astype(int)]


# What is seen of a network


class _View(NamedTuple):
    """What is compared of a network."""

    weights: dict[str, torch.Tensor]  # (o, p) by layer
    kernel: torch.Tensor | None
    representations: dict[str, torch.Tensor]  # (n, d) by layer


def _layers(module) -> dict[str, nn.Module]:
    """Return linear and convolutional layers, and what has taken the place of one, by path and in order."""
    linear = dict(linear_layers(module))
    kinds = nn.Linear | nn.modules.conv._ConvNd
    return {path: part for path, part in module.named_modules() if path in linear or isinstance(part, kinds)}


def _chosen_layers(module, layers):
    known = list(_layers(module))
    if isinstance(layers, str):
        chosen = known if layers == "all" else known[:-1]
        if not chosen:
            raise ValueError(
                f"layers={layers!r}, but the network has {len(known)} linear or convolutional layers. "
                + ("Pass layers='all', or add a hidden layer." if known else "It needs one at least.")
            )
        return chosen
    for path in layers:
        if path not in known:
            raise ValueError(f"layers has {path!r}, but the layers of the network are {', '.join(map(repr, known))}.")
    if not len(layers):
        raise ValueError(f"layers is empty. Pass some of {', '.join(map(repr, known))}, or 'hidden'.")
    return list(layers)


def _seen(module, rows, layers, measures, method) -> _View:
    """Return what is compared of a copy of a network, in which layers of rules are multiplied out."""
    for path, layer in linear_layers(module):
        if hasattr(layer, "multiplied_out"):
            edited(module, path, layer.multiplied_out())
    like = next(module.parameters())
    rows = rows.to(like.device, like.dtype if rows.is_floating_point() else None)
    parts = _layers(module)
    there = [path for path in layers if path in parts]  # a rule may have put something else there
    weights = {path: parts[path].weight.detach().flatten(1).double().cpu() for path in there}
    kernel = tangent_kernel(module, rows, params=there, method=method) if "kernel" in measures else None
    representations = _representations(module, rows, parts, there) if {"representation", "sign"} & {*measures} else {}
    return _View(weights if "weight" in measures else {}, kernel, representations)


def _representations(module, rows, parts, layers) -> dict[str, torch.Tensor]:
    """Return what lies behind layers: the input (n, d) of the layer that is called next; of the last one its output."""
    calls: list[tuple[str, torch.Tensor, torch.Tensor]] = []
    handles = [
        part.register_forward_hook(
            lambda layer, args, output, path=path: calls.append((path, args[0].clone(), output.clone()))
        )
        for path, part in parts.items()
    ]
    try:
        with torch.inference_mode():
            module(rows)
    finally:
        for handle in handles:
            handle.remove()
    behind: dict[str, torch.Tensor] = {}
    for i, (path, _, output) in enumerate(calls):
        if path in layers:
            H = calls[i + 1][1] if i + 1 < len(calls) else output
            behind.setdefault(path, H.reshape(len(rows), -1).double())
    return behind


# Comparisons


def _compared(start: _View, end: _View, measures) -> dict[str, Any]:
    """Return by measure what the layers that both views have give."""
    weights, behind = _both(start.weights, end.weights), _both(start.representations, end.representations)
    change = {path: float((W - W_0).norm()) for path, (W_0, W) in weights.items()}
    found: dict[str, Any] = {
        "weight_change": change,
        "relative_weight_change": {path: _ratio(change[path], float(W_0.norm())) for path, (W_0, _) in weights.items()},
        "sign_similarity": {p: float((H.sign() == H_0.sign()).double().mean()) for p, (H_0, H) in behind.items()},
    }
    if "kernel" in measures:
        found["kernel_alignment"] = kernel_alignment(end.kernel, start.kernel)
    if "representation" in measures:
        found["representation_alignment"] = {
            p: kernel_alignment(H @ H.T, H_0 @ H_0.T) for p, (H_0, H) in behind.items()
        }
    return found


def _both(start, end):
    """Return pairs of what two views have of one shape."""
    return {path: (A, end[path]) for path, A in start.items() if path in end and end[path].shape == A.shape}


def _ratio(change, norm):
    return change / norm if norm > 0 else float("inf" if change > 0 else 0)


_FOUND = {
    "weight": ("weight_change", "relative_weight_change"),
    "kernel": ("kernel_alignment",),
    "representation": ("representation_alignment",),
    "sign": ("sign_similarity",),
}


def _attributes(start: _View, end: _View, last, measures) -> dict[str, Any]:
    found = {f"{name}_": last[name] for measure in measures for name in _FOUND[measure]}
    if "weight" in measures:
        weights = _both(start.weights, end.weights)
        found["effective_rank_"] = {
            path: (effective_rank(W_0), effective_rank(W)) for path, (W_0, W) in weights.items()
        }
    return found


def _history(taken, course, measures) -> dict[str, list]:
    """Return the measures of each epoch at which there was a copy, means over layers."""
    names = [
        name for measure in _MEASURES if measure in measures for name in _FOUND[measure] if name != "weight_change"
    ]
    history: dict[str, list] = {
        "epoch": [snapshot.epoch for snapshot in taken[1:]],
        "train_loss": [snapshot.loss for snapshot in taken[1:]],
    }
    return history | {name: [_mean(found[name]) for found in course] for name in names}


def _mean(value):
    return sum(value.values()) / max(1, len(value)) if isinstance(value, dict) else value
