"""Networks with ordered low-rank layers, of which one fit gives networks of any size."""

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import torch
from skorch.dataset import unpack_data
from torch import nn

from .._core.compat import Interval, StrOptions
from .._nets.architecture import Edit, edited
from .._nets.layers import ThinLinear, layers_of_a_rule
from .._nets.outputs import divergence, outputs_of, unchanged_buffers
from .._nets.training import Rule, exchanging
from ._ordered_rank_solver import (
    PrefixLinear,
    account,
    add_penalty_gradient,
    factors_of,
    importances,
    rank_by_importance,
    shorten,
    shortened_state,
)


class OrderedRank(Rule):
    r"""Train layers in factors whose components are ordered by importance: one fit gives networks of any size.

    Each linear layer becomes two factors. At each step one of them is also cut to its first components, as many as is
    drawn, and trained to answer like the whole: so the first ones learn what matters most. Components whose importance
    becomes small are dropped while the network trains. Afterwards :meth:`NetworkClassifier.resized` cuts the network to
    a size, without training or decomposition. For one fit that serves devices of several sizes, or to find the ranks
    that the task needs. Where one size is wanted and it is not very small, a truncated singular value decomposition
    after plain training, or :class:`TrainedRankPruning`, takes less time and is as accurate or more.

    Parameters
    ----------
    group_lasso : float, default=1e-5
        Strength of the penalty on the norms of all components from each one to the last. More of it gives lower ranks.
    threshold : float, default=0.05
        Importance, as a share of that of the layer's first component, below which components are dropped; in [0, 1]. 0
        keeps all. An importance sums over all later components, too, so a threshold of 0.05 drops at most about a
        twentieth of the layer's norm in an epoch.
    sampler : {"single_layer", "independent"} or None, default="single_layer"
        How the cut of a step is drawn. "single_layer" walks through all layers and ranks in random order and cuts one
        layer, "independent" draws a rank for each layer, which makes better networks of very few components, and None
        cuts none, so that only the penalty orders.
    full_pass : bool, default=True
        Whether the loss of the whole network is trained, too, at the cost of a second pass per step.
    distill : bool, default=True
        Whether the outputs of the whole network are the target of the cut one, instead of y; for `full_pass` alone.
    progressive : bool, default=True
        Whether components are dropped after each epoch; otherwise once, after the training.
    init : {"spectral", "default"}, default="spectral"
        Initialisation of the fit. "spectral" decomposes the initial weights, so that the network starts as the plain
        one would; "default" draws the factors like weights of new layers.
    skip_first : int, default=0
        Number of linear layers, from the first one, that are trained as they are.
    skip_last : bool, default=True
        Whether the last linear layer is trained as it is.

    See Also
    --------
    NetworkClassifier : Takes the rule as `training`; its `resized` and `size_curve` cut the network.
    TrainedRankPruning : Truncates weights while they are trained.
    SparseSpectralTraining : Little memory for the optimizer, dense weights afterwards.

    Notes
    -----
    A weight of shape (o, i) is held as :math:`U V^\top` with k components, :math:`k = \min(o, i)` at first. A step
    takes the gradient of

    .. math::

        L(f(x), y) + L(f_c(x), f(x)) + \lambda \sum_{l, j} \bigl(\|U^l_{:, j:}\|_F + \|V^l_{:, j:}\|_F\bigr),

    where :math:`f_c` is the network with one layer, or each, cut to its first components, and :math:`\lambda` is
    `group_lasso`. With `distill` the second term is the cross-entropy with the probabilities of the whole network, or
    the squared difference of the outputs, without a gradient in :math:`f(x)`; otherwise :math:`L(f_c(x), y)`. The
    criterion decides, as in :class:`SharpnessAware`. The last term runs over the layers and, within each, over the
    tails that begin with component j. It has later components in more terms, which orders them. The importance of
    component j is :math:`\|U_{:, j:}\|_F \|V_{:, j:}\|_F`. Running statistics of batch normalisation are those of the
    whole network.

    A step takes two passes forward and back, O(b k (o + i)) for b rows and a layer; with ``full_pass=False`` one. The
    factors have up to twice the numbers of a square dense weight at first. Components that are dropped are dropped from
    the optimizer's state, too. Callbacks before the rule, such as gradient clipping, see the gradient of the whole
    network and then the sum. Gradients that are accumulated over several batches are not supported.

    After the training layers stay in factors, :class:`NetworkClassifier` multiplies them out in `network()` where that
    has fewer numbers. Another call of `partial_fit` goes on with the ranks that are left.

    Reports `ranks` and `importances`, the latter as arrays, by the path of the layer, and `rank_curve`, an
    array (n_epochs, n_layers) of the ranks after each epoch of the last call.

    References
    ----------
    Horvath, S., Laskaridis, S., Rajput, S. and Wang, H. (2024). Maestro: uncovering low-rank structures via trainable
    decomposition. International Conference on Machine Learning.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import train_test_split
    >>> from sklowrank.neural import NetworkClassifier, OrderedRank
    >>> X, y = load_digits(return_X_y=True)
    >>> X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    >>> net = {"learning_rate": 3e-3, "max_iter": 10, "tol": 0, "random_state": 0}
    >>> model = NetworkClassifier((64, 64), training=OrderedRank(), **net).fit(X_train, y_train)
    >>> model.score(X_test, y_test) > 0.93
    True
    >>> small = model.resized(0.5)
    >>> small.n_parameters_ <= 0.5 * model.n_dense_parameters_, small.score(X_test, y_test) > 0.9
    (True, True)
    """

    _parameter_constraints = {
        "group_lasso": [Interval(Real, 0, None, closed="left")],
        "threshold": [Interval(Real, 0, 1, closed="both")],
        "sampler": [StrOptions({"single_layer", "independent"}), None],
        "full_pass": ["boolean"],
        "distill": ["boolean"],
        "progressive": ["boolean"],
        "init": [StrOptions({"spectral", "default"})],
        "skip_first": [Interval(Integral, 0, None, closed="left")],
        "skip_last": ["boolean"],
    }

    def __init__(
        self,
        group_lasso: float = 1e-5,
        *,
        threshold: float = 0.05,
        sampler: Literal["single_layer", "independent"] | None = "single_layer",
        full_pass: bool = True,
        distill: bool = True,
        progressive: bool = True,
        init: Literal["spectral", "default"] = "spectral",
        skip_first: int = 0,
        skip_last: bool = True,
    ):
        self.group_lasso = group_lasso
        self.threshold = threshold
        self.sampler = sampler
        self.full_pass = full_pass
        self.distill = distill
        self.progressive = progressive
        self.init = init
        self.skip_first = skip_first
        self.skip_last = skip_last

    def convert(self, module: nn.Module) -> list[Edit]:
        """Put factors in the places of linear layers; those that are there already are trained on."""
        self._validate_params()
        self.paths_ = layers_of_a_rule(module, self.skip_first, self.skip_last)
        now = self.generator_.clone_state()  # batches are those of the plain training
        seed = torch.randint(1 << 31, (), generator=now, device="cpu", dtype=torch.int64)
        self.cuts_ = torch.Generator("cpu").manual_seed(int(seed))
        self.queue_: list[tuple[str, int]] = []
        self.drawn_: dict[str, int] = {}
        self.rank_curve_: list[list[int]] = []
        edits = []
        for path in self.paths_:
            layer = module.get_submodule(path)
            thin = layer if isinstance(layer, ThinLinear) else factors_of(layer, self.init, self.cuts_)
            edits.append(edited(module, path, PrefixLinear.of(thin)))
        self._note(module)
        return edits

    def on_train_begin(self, net, **kwargs):
        """Convert the module of a skorch net; the state of the optimizer for parameters of other shapes is dropped."""
        super().on_train_begin(net, **kwargs)
        for parameter, state in list(net.optimizer_.state.items()):
            shapes = {value.shape for value in state.values() if isinstance(value, torch.Tensor) and value.ndim}
            if shapes - {parameter.shape} and parameter in self._factors(net.module_):
                del net.optimizer_.state[parameter]

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        """Draw the cut of this step, and record inputs and outputs of the network."""
        if not training:
            return
        self.drawn_ = self._draw(net.module_)
        if self.drawn_ and self.full_pass:
            self._stop_listening()
            self.listener_ = net.module_.register_forward_hook(self._heard, with_kwargs=True)
        else:
            self._cut(net.module_, self.drawn_)

    def on_grad_computed(self, net, named_parameters, batch=None, training=True, **kwargs):
        """Add the gradient of the cut network and that of the penalty."""
        if self.drawn_ and self.full_pass:
            self._add_cut_pass(net, batch)
        if self.group_lasso:
            for layer in self._layers(net.module_):
                add_penalty_gradient(layer, self.group_lasso)
        if (self.drawn_ and self.full_pass) or self.group_lasso:
            self.hand_gradient_on(net, named_parameters=named_parameters, batch=batch, training=training, **kwargs)

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        """Make the network whole again."""
        if training:
            self._stop_listening()
            self._cut(net.module_, {})

    def on_epoch_end(self, net, **kwargs):
        """Drop components of little importance, from the optimizer's state, too."""
        if self.progressive:
            self._drop(net)
        self._note(net.module_)
        self.rank_curve_.append(list(self.ranks_.values()))

    def finish(self, module: nn.Module) -> list[Edit]:
        """Leave plain thin layers."""
        self._stop_listening()
        edits = []
        for path in self.paths_:
            layer = module.get_submodule(path)
            if not self.progressive:
                shorten(layer, rank_by_importance(importances(layer), self.threshold))
            edits.append(edited(module, path, PrefixLinear.of(layer).plain()))
        self._note(module)
        return edits

    def report(self) -> dict[str, Any]:
        """Return ranks and importances by path, and the ranks after each epoch."""
        shape = (len(self.rank_curve_), len(self.paths_))
        return {
            "ranks": dict(self.ranks_),
            "importances": dict(self.importances_),
            "rank_curve": np.array(self.rank_curve_, dtype=np.int64).reshape(shape),
        }

    def _layers(self, module):
        return [module.get_submodule(path) for path in self.paths_]

    def _factors(self, module):
        return {factor for layer in self._layers(module) for factor in (layer.up, layer.down)}

    def _note(self, module):
        self.ranks_, self.importances_ = account(module, self.paths_).values()

    # A step

    def _draw(self, module):
        """Return how many components are kept of the layers that are cut in this step, by path."""
        ranks = {path: layer.rank for path, layer in zip(self.paths_, self._layers(module)) if layer.rank}
        if not ranks or self.sampler is None:
            return {}
        if self.sampler == "independent":
            draws = torch.rand(len(ranks), generator=self.cuts_, device="cpu", dtype=torch.float64).tolist()
            return {path: 1 + int(u * rank) for u, (path, rank) in zip(draws, ranks.items())}
        if not self.queue_:
            every = [(path, j) for path, rank in ranks.items() for j in range(1, rank + 1)]
            order = torch.randperm(len(every), generator=self.cuts_, device="cpu", dtype=torch.int64)
            self.queue_ = [every[at] for at in order.tolist()]
        path, j = self.queue_.pop()
        return {path: j}

    def _cut(self, module, ranks: Mapping[str, int]):
        for path, layer in zip(self.paths_, self._layers(module)):
            if isinstance(layer, PrefixLinear):
                layer.prefix = ranks.get(path)

    def _add_cut_pass(self, net, batch):
        """Add the gradient of the loss of the cut network; buffers stay those of the whole one."""
        Xi, yi = unpack_data(batch)
        _, named_inputs, whole = self.pass_ or ((), {}, None)
        if self.distill and whole is None:
            raise ValueError(
                "distill=True compares outputs of the module, and the net calls only parts of it. Pass distill=False."
            )
        more = {k: v for k, v in named_inputs.items() if not (isinstance(Xi, Mapping) and k in Xi)}
        self._cut(net.module_, self.drawn_)
        try:
            with unchanged_buffers(net.module_):
                answer = net.infer(Xi, **more)
                if self.distill:
                    taught = self.pass_[2]
                    taught, whole = (part[0] if isinstance(part, tuple) else part for part in (taught, whole))
                    shares = net.row_weights(yi) if hasattr(net, "row_weights") else None
                    loss = taught_loss(whole.detach(), taught, outputs_of(net), shares)
                else:
                    loss = net.get_loss(answer, yi, X=Xi, training=True)
                loss.backward()
        finally:
            self._cut(net.module_, {})

    def _heard(self, module, inputs, named_inputs, outputs):
        self.pass_ = inputs, named_inputs, outputs

    def _stop_listening(self):
        if hasattr(self, "listener_"):
            self.listener_.remove()
            del self.listener_
        self.pass_: Any = None

    # Dropping components

    def _drop(self, net):
        keep = {
            path: rank_by_importance(importances(net.module_.get_submodule(path)), self.threshold)
            for path in self.paths_
        }
        keep = {path: rank for path, rank in keep.items() if rank < self.ranks_[path]}
        if not keep:
            return
        states = {}
        with exchanging(net):
            for path, rank in keep.items():
                for former, (new, axis) in shorten(net.module_.get_submodule(path), rank).items():
                    states[new] = shortened_state(net.optimizer_.state.get(former, {}), former, rank, axis)
        for new, state in states.items():
            if state:
                net.optimizer_.state[new] = state
        self.queue_ = [(path, j) for path, j in self.queue_ if j <= keep.get(path, j)]


def taught_loss(whole, cut, kind, weights=None):
    """Return the loss of outputs whose target are other outputs: with the gradient of a cross-entropy, or squares."""
    found = divergence(whole, cut, kind, "forward", weights) * (2 if kind == "values" else 1)
    return found if weights is None else found * weights.mean()
