"""Ordered low-rank layers: factors sorted by importance, so that one fit gives networks of any size."""

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import torch
from skorch.dataset import unpack_data
from torch import nn

from .._core.compat import Interval, StrOptions
from .._nets.architecture import Edit, edited
from .._nets.layers import ThinLinear, linear_layers
from .._nets.outputs import divergence, outputs_of, unchanged_buffers
from .._nets.training import Rule, exchanging


class OrderedRank(Rule):
    r"""Factors of each layer ordered by importance, by training with random cuts: one fit, networks of any size.

    Every treated weight is trained as a product of two factors. In each step one layer is cut to a random number of
    its first components, and the cut network has to predict, too: so the first components become the most important
    ones. Ranks fall while it trains, and :meth:`NetworkClassifier.resized` cuts the fitted network to any size without
    training. Use it to deploy one model to several devices, or to find ranks. For a single small network
    :class:`TrainedRankPruning` takes half the time.

    Parameters
    ----------
    group_lasso : float >= 0, default=1e-5
        Weight of the penalty on the norms of trailing components. A larger one gives lower ranks.
    threshold : float in [0, 1), default=0.05
        Components are removed whose importance is below this share of the importance of the first one of the layer.
    sampler : {"single_layer", "independent"} or None, default="single_layer"
        How the cut of a step is drawn: one layer is cut, and all pairs of layer and rank are gone through in random
        order; or each layer is cut to a random rank; or nothing is cut, and the penalty alone orders the components.
    full_pass : bool, default=True
        Whether a step has the loss of the uncut network, too. Without it a step takes about half the time.
    distill : bool, default=True
        Whether the cut network is trained to the outputs of the uncut one instead of to y; needs `full_pass`.
    progressive : bool, default=True
        Whether components are removed after each epoch, which makes training faster; else at the end.
    init : {"spectral", "default"}, default="spectral"
        Start of the factors: singular vectors of the weight that a plain layer would start with, times roots of its
        singular values; or two layers as torch draws them.
    skip_first : int, default=0
        Number of linear layers, from the first one, that are trained as they are.
    skip_last : bool, default=True
        Whether the last linear layer is trained as it is.

    See Also
    --------
    TrainedRankPruning : Truncates weights while they are trained.
    NetworkClassifier : Its methods `resized` and `size_curve` cut what this rule has trained.

    Notes
    -----
    With :math:`W = U V^\top`, :math:`U` of shape (o, k), :math:`V` of shape (i, k), k = min(o, i), a step minimises

    .. math:: L(f) + D(f, f_{l, j}) + \lambda \sum_l \sum_{j=0}^{k_l - 1} \bigl(\|U_l[:, j:]\| + \|V_l[:, j:]\|\bigr),

    where :math:`f_{l, j}` is the network with layer l cut to its first j components, and D the Kullback-Leibler
    divergence of the outputs, half their squared distance in regressions, or the loss itself without `distill`. The
    importance of component j is :math:`\|U[:, j:]\| \|V[:, j:]\|`: it never rises with j, so that removing components
    below a threshold cuts the factors. For one linear layer and squared loss the minimum is the truncated singular
    value decomposition of the map, at all ranks at once. A step takes two forward and backward passes through factors,
    O(b k (o + i)) each for b rows. Optimizer moments of removed components are removed, too.

    The layers stay factors. `network()` of the estimators multiplies out those that have no fewer numbers than their
    product. In a skorch net the fitted ones are in `net.module_`; :func:`cut` makes it smaller. Statistics of batch
    normalisation are those of the uncut network.

    Reports `ranks` and `importances`, by the path of the layer.

    References
    ----------
    Horvath, S., Laskaridis, S., Rajput, S., Wang, H. (2024). Maestro: uncovering low-rank structures via trainable
    decomposition. International Conference on Machine Learning.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import train_test_split
    >>> from sklowrank.neural import NetworkClassifier, OrderedRank
    >>> X, y = load_digits(return_X_y=True)
    >>> X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    >>> model = NetworkClassifier((64,), training=OrderedRank(), max_iter=10, tol=0, random_state=0)
    >>> small = model.fit(X_train, y_train).resized({"0": 12})
    >>> small.ranks_, small.score(X_test, y_test) > 0.9
    ((12,), True)
    """

    _parameter_constraints = {
        "group_lasso": [Interval(Real, 0, None, closed="left")],
        "threshold": [Interval(Real, 0, 1, closed="left")],
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

    def convert(self, module) -> list[Edit]:
        """Replace linear layers by factors; those that are factors already stay."""
        self._validate_params()
        if self.distill and not self.full_pass and self.sampler is not None:
            raise ValueError(
                "distill=True needs the outputs of the uncut network. Set full_pass=True, or distill=False."
            )
        self.cuts_, self.recorder_, self.outputs_ = [], None, None
        layers = linear_layers(module)
        self.paths_ = [path for path, _ in layers[self.skip_first : len(layers) - self.skip_last]]
        for path in self.paths_:
            layer = module.get_submodule(path)
            if type(layer) is nn.Linear:
                edited(module, path, _factors(layer, self.init, self.generator_))
        return _edits(module, self.paths_)

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        """Draw the cut of the step; without a pass of the uncut network it is in force at once."""
        if not training:
            return
        layers = self._layers(net.module_)
        self.cut_ = self._drawn(layers)
        if not self.full_pass:
            _set_cuts(layers, self.cut_)
        elif self.distill and self.cut_:
            self.recorder_ = net.module_.register_forward_hook(self._record)

    def _record(self, module, inputs, outputs):
        self.outputs_ = outputs.detach()

    def on_grad_computed(self, net, named_parameters=None, batch=None, training=True, **kwargs):
        """Add the gradients of the cut network and of the penalty."""
        self._stop_recording()
        layers = self._layers(net.module_)
        loss = self.group_lasso * sum(_penalty(layer) for layer in layers.values()) if self.group_lasso else None
        with unchanged_buffers(net.module_):  # until the backward pass is over, which may read them
            if self.full_pass and self.cut_:
                loss = self._loss_of_the_cut(net, layers, batch) + (0.0 if loss is None else loss)
            if loss is not None and loss.requires_grad:
                loss.backward()

    def _loss_of_the_cut(self, net, layers, batch):
        X, y = unpack_data(batch)
        _set_cuts(layers, self.cut_)
        try:
            outputs = net.infer(X)
        finally:
            _set_cuts(layers, {})
        if not self.distill:
            return net.get_loss(outputs, y, X=X, training=True)
        weights = net.row_weights(y) if hasattr(net, "row_weights") else None
        return divergence(self.outputs_, outputs, outputs_of(net), weights=weights)

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        """End the cut."""
        if training:
            self._stop_recording()
            self.outputs_ = None
            _set_cuts(self._layers(net.module_), {})

    def on_epoch_end(self, net, **kwargs):
        """Remove components, and their moments in the optimizer."""
        if self.progressive:
            ranks = _significant(self._layers(net.module_), self.threshold)
            _remove(net, {path: rank for path, rank in ranks.items() if rank < net.module_.get_submodule(path).rank})
        self.importances_ = _importances(self._layers(net.module_))

    def finish(self, module) -> list[Edit]:
        """Remove the last components below the threshold; the layers stay factors."""
        self._stop_recording()
        layers = self._layers(module)
        _set_cuts(layers, {})
        self.outputs_, self.cuts_ = None, []
        _shorten(module, _significant(layers, self.threshold))
        self.importances_ = _importances(self._layers(module))
        return _edits(module, self.paths_)

    def report(self) -> dict[str, Any]:
        """Return ranks and importances by path."""
        return _report(getattr(self, "importances_", {}))

    def _layers(self, module):
        return {path: module.get_submodule(path) for path in self.paths_}

    def _stop_recording(self):
        if self.recorder_ is not None:
            self.recorder_.remove()
            self.recorder_ = None

    def _drawn(self, layers):
        """Draw the ranks to which layers are cut in a step, by path."""
        if self.sampler is None or not any(layer.rank for layer in layers.values()):
            return {}
        if self.sampler == "independent":
            return {path: 1 + self._below(layer.rank) for path, layer in layers.items() if layer.rank}
        while self.cuts_:
            path, rank = self.cuts_.pop()
            if rank <= layers[path].rank:
                return {path: rank}
        pairs = [(path, j) for path, layer in layers.items() for j in range(1, layer.rank + 1)]
        order = torch.randperm(len(pairs), generator=self.generator_, device="cpu", dtype=torch.int64)
        self.cuts_ = [pairs[i] for i in order.tolist()]
        return dict([self.cuts_.pop()])

    def _below(self, n):
        return int(torch.randint(n, (), generator=self.generator_, device="cpu", dtype=torch.int64))


# Factors


def _factors(layer, init, generator):
    """Return the factors that a linear layer starts as, of full rank."""
    rank = min(layer.weight.shape)
    thin = ThinLinear.nearest_to(layer, rank)
    if init == "default":
        with torch.no_grad():
            for part in (thin.down, thin.up):
                part.uniform_(-(part.shape[1] ** -0.5), part.shape[1] ** -0.5, generator=generator)
    return thin


def _tail_norms(layer):
    """Return the norms of the components from each one to the last, of both factors (rank,)."""
    squares = layer.up.square().sum(0), layer.down.square().sum(1)
    return [(part.flip(0).cumsum(0).flip(0) + 1e-12).sqrt() for part in squares]  # the root of 0 has no gradient


def _penalty(layer):
    up, down = _tail_norms(layer)
    return up.sum() + down.sum()


@torch.no_grad()
def importances(layer: ThinLinear) -> np.ndarray:
    """Return the importance of each component of a layer, never rising (rank,)."""
    up, down = _tail_norms(layer)
    return (up * down).double().cpu().numpy()


def _importances(layers):
    return {path: importances(layer) for path, layer in layers.items()}


def _report(found):
    return {"ranks": {path: len(values) for path, values in found.items()}, "importances": dict(found)}


def _significant(layers, threshold):
    """Return by path how many components have at least a share of the importance of the first one."""
    ranks = {}
    for path, layer in layers.items():
        values = importances(layer)
        ranks[path] = int((values >= max(threshold * values[0], 2e-12)).sum()) if len(values) else 0
    return ranks


def _set_cuts(layers, ranks):
    for path, layer in layers.items():
        layer.cut = ranks.get(path)


def _shorten(module, ranks):
    """Cut factors to their first components, in place; return the new layers' edits."""
    edits = []
    for path, rank in ranks.items():
        layer = module.get_submodule(path)
        if rank < layer.rank:
            short = ThinLinear(layer.shape[0], layer.shape[1], rank, layer.bias is not None)
            edits.append(edited(module, path, short))
            with torch.no_grad():
                short.down.copy_(layer.down[:rank])
                short.up.copy_(layer.up[:, :rank])
            short.bias = layer.bias
    return edits


def _remove(net, ranks):
    """Cut factors in a net that is trained, with the moments of the optimizer."""
    optimizer = net.optimizer_
    former = {path: net.module_.get_submodule(path) for path in ranks}
    states = {path: [optimizer.state.get(p, {}) for p in (layer.down, layer.up)] for path, layer in former.items()}
    with exchanging(net):
        _shorten(net.module_, ranks)
    for path, (down, up) in states.items():
        layer, rank = net.module_.get_submodule(path), ranks[path]
        optimizer.state[layer.down] = _cut_state(down, former[path].down.shape, (slice(rank),))
        optimizer.state[layer.up] = _cut_state(up, former[path].up.shape, (slice(None), slice(rank)))


def _cut_state(state, shape, kept):
    """Return the state of a parameter with what is kept of its moments."""
    return {k: v[kept].clone() if torch.is_tensor(v) and v.shape == shape else v for k, v in state.items()}


def _edits(module, paths):
    return [Edit(path, "thin", module.get_submodule(path).shape) for path in paths]


# Cutting to a size


def cut(module: nn.Module, size: float | Mapping[str, int]) -> list[Edit]:
    """Cut ordered factors of a module in place, and return what has changed.

    Parameters
    ----------
    module : torch.nn.Module
        A network that :class:`OrderedRank` has trained.
    size : float in (0, 1] or dict
        Largest share of the parameters that the network with dense layers has, or ranks by the paths of layers. Under
        a share all layers lose the components whose importance is below one share of that of their first component.

    Raises
    ------
    ValueError
        If `size` is out of range, names a layer without factors, or cannot be reached with one component per layer.
    """
    layers = {path: layer for path, layer in linear_layers(module) if isinstance(layer, ThinLinear)}
    if isinstance(size, Mapping):
        for path, rank in size.items():
            if path not in layers:
                raise ValueError(f"size names the layer {path!r}, which has no factors; those that have: {[*layers]}.")
            if not isinstance(rank, Integral) or not 0 <= rank <= layers[path].rank:
                raise ValueError(f"size={{{path!r}: {rank!r}}} has to be an integer from 0 to {layers[path].rank}.")
        return _shorten(module, dict(size))
    if not isinstance(size, Real) or not 0 < size <= 1:
        raise ValueError(f"size={size!r} has to be in (0, 1], or a dict from paths of layers to ranks.")
    return _shorten(module, _ranks_within(layers, size, module))


def report_of(module: nn.Module) -> dict[str, Any]:
    """Return what the rule reports of a module."""
    return _report(_importances({path: m for path, m in linear_layers(module) if isinstance(m, ThinLinear)}))


def _ranks_within(layers, size, module):
    """Return the ranks of largest importance with at most a share of the dense number of parameters."""
    others = sum(p.numel() for p in module.parameters()) - sum(
        _numbers(layer.shape, layer.rank) for layer in layers.values()
    )
    dense = others + sum(layer.shape[0] * layer.shape[1] for layer in layers.values())
    relative = {path: importances(layer) / importances(layer)[0] for path, layer in layers.items() if layer.rank}

    def ranks_at(share):
        ranks = {path: max(1, int((values >= share).sum())) for path, values in relative.items()}
        # A layer that is multiplied out has room for all of its components.
        return {p: layers[p].rank if _numbers(layers[p].shape, r) >= _dense(layers[p]) else r for p, r in ranks.items()}

    def count(ranks):
        return others + sum(min(_numbers(layers[p].shape, r), _dense(layers[p])) for p, r in ranks.items())

    shares = np.unique(np.concatenate([[0.0, np.inf], *relative.values()]))
    low, high = 0, len(shares) - 1
    if count(ranks_at(shares[high])) > size * dense:
        least = count(ranks_at(shares[high])) / dense
        raise ValueError(f"size={size} cannot be reached: with one component per layer it is {least:.3f}.")
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if count(ranks_at(shares[middle])) <= size * dense else (middle + 1, high)
    return ranks_at(shares[low])


def _numbers(shape, rank):
    return rank * (shape[0] + shape[1])


def _dense(layer):
    return layer.shape[0] * layer.shape[1]
