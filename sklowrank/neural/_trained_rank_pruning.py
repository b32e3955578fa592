"""Trained rank pruning: weights that are truncated to low rank while they are trained."""

import math
from numbers import Integral, Real

import numpy as np
import torch
from torch import nn

from .._core.compat import Interval
from .._core.validation import is_integer
from .._core.warn import warn
from .._math.linalg import stable_svd
from .._nets.architecture import edited
from .._nets.layers import ThinLinear, layers_of_a_rule
from .._nets.training import Rule


class TrainedRankPruning(Rule):
    r"""Truncates weights to low rank every few steps, so that the trained network is low-rank.

    A training rule that ends with thin linear layers, mostly without a loss of accuracy and without fine-tuning. Use it
    for a network of fewer parameters whose ranks are found while it trains. Use :class:`OrderedRank` where one network
    is to be cut to several sizes, and plain training of narrow layers where the widths are free: for equal size that is
    as accurate.

    Parameters
    ----------
    energy : float in (0, 1], default=0.98
        Share of the sum of squared singular values that a truncation keeps. A lower one gives lower ranks; below 0.95
        small networks lose accuracy.
    period : int >= 1, default=20
        Number of steps between truncations. A lower one gives lower ranks, and takes more time.
    nuclear_weight : float >= 0, default=3e-4
        Weight of the subgradient of the nuclear norm, which joins the gradient in the steps with a truncation. A larger
        one gives lower ranks.
    final_threshold : float in [0, 1), default=0.01
        Singular values below this share of the largest one are dropped at the end.
    max_rank : int >= 1, dict or None, default=None
        Largest rank of a layer, at each truncation and at the end. A dict has ranks by the paths of layers, such as
        "0" and "2" for the first two layers of the default network; other layers have no limit.
    skip_first : int >= 0, default=0
        Number of linear layers at the input that are left alone.
    skip_last : bool, default=True
        Whether the last linear layer is left alone.
    truncate : bool, default=True
        Whether to truncate while training. With False the nuclear norm works alone, and ranks follow at the end from
        `final_threshold` and `max_rank`. If `nuclear_weight` is 0, too, and `max_rank` is None, training is plain and
        no layer is changed.

    See Also
    --------
    OrderedRank : Trains layers in factors that are ordered by importance.
    SparseSpectralTraining : Trains all singular values, and some singular vectors at a time.

    Notes
    -----
    In each step :math:`t` with :math:`t \bmod` `period` :math:`= 0`, before the forward pass, a weight :math:`W = U
    \operatorname{diag}(s) V^\top` becomes :math:`U_r \operatorname{diag}(s_r) V_r^\top` with the least :math:`r` for
    which

    .. math::
        \sum_{j \le r} s_j^2 \ge \mathrm{energy} \cdot \sum_j s_j^2,

    and the gradient of this step gets `nuclear_weight` times :math:`U V^\top`, of all singular vectors with
    :math:`s_j > 0`. State of the optimizer is not changed. Between truncations training is plain, so that ranks can
    rise, too.

    At the end weights are truncated once more, by energy and by `final_threshold`. A layer with `n_out` outputs and
    `n_in` inputs becomes two of rank :math:`r` where `r (n_out + n_in) < n_out n_in`, and else keeps its shape.

    Where rows are held out, each epoch is validated with truncated weights: these are what early stopping compares and
    keeps. Training continues with the weights from before, so validation does not change it.

    Layers are those of type ``torch.nn.Linear``. Those with a frozen weight, or one that is shared with another layer,
    are left alone, and so are convolutions. Training that continues with thin layers multiplies them out first, and
    counts its steps from 1, because they have just been truncated.

    A truncation takes a thin singular value decomposition per layer, O(n_out n_in min(n_out, n_in)). With the default
    period a step takes 1.1 to 1.3 times as long as plain training at a width of 128, and over 3 times at 1,024, where a
    `period` of 100 or more is better. If a decomposition fails it is repeated in float64 on the CPU; if this fails,
    too, there is a warning, and the layer is not truncated in this step.

    What it reports: `ranks`, a dict by the path of a layer; `rank_curve`, array of shape (n_truncations, n_layers);
    `n_truncations`, of the last call of `fit` or `partial_fit`.

    References
    ----------
    Xu, Y., Li, Y., Zhang, S., Wen, W., Wang, B., Qi, Y., Chen, Y., Lin, W. and Xiong, H. (2020). Trained rank pruning
    for efficient deep neural networks. International Joint Conference on Artificial Intelligence.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklowrank.neural import NetworkClassifier, TrainedRankPruning
    >>> X, y = load_iris(return_X_y=True)
    >>> rule = TrainedRankPruning(energy=0.95, period=5, nuclear_weight=0.01)
    >>> model = NetworkClassifier((32, 32), training=rule, max_iter=40, tol=0, random_state=0).fit(X, y)
    >>> model.n_parameters_ < model.n_dense_parameters_
    True
    """

    _parameter_constraints = {
        "energy": [Interval(Real, 0, 1, closed="right")],
        "period": [Interval(Integral, 1, None, closed="left")],
        "nuclear_weight": [Interval(Real, 0, None, closed="left")],
        "final_threshold": [Interval(Real, 0, 1, closed="left")],
        "max_rank": [Interval(Integral, 1, None, closed="left"), dict, None],
        "skip_first": [Interval(Integral, 0, None, closed="left")],
        "skip_last": ["boolean"],
        "truncate": ["boolean"],
    }

    def __init__(
        self,
        energy=0.98,
        *,
        period=20,
        nuclear_weight=3e-4,
        final_threshold=1e-2,
        max_rank=None,
        skip_first=0,
        skip_last=True,
        truncate=True,
    ):
        self.energy = energy
        self.period = period
        self.nuclear_weight = nuclear_weight
        self.final_threshold = final_threshold
        self.max_rank = max_rank
        self.skip_first = skip_first
        self.skip_last = skip_last
        self.truncate = truncate

    def convert(self, module):
        """Find the layers; those that are thin are multiplied out."""
        self._validate_params()
        self.paths_ = self._treated(module)
        thin = [path for path in self.paths_ if type(module.get_submodule(path)) is not nn.Linear]
        edits = [edited(module, path, module.get_submodule(path).multiplied_out()) for path in thin]
        self.n_steps_ = int(bool(thin))
        self.rank_curve_, self.ranks_ = [], {path: full_rank(module.get_submodule(path)) for path in self.paths_}
        self.subgradients_, self.untruncated_, self.validated_ = {}, {}, set()
        return edits

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        """Truncate the weights in the steps that do, and before a validation."""
        if not training:
            if self.truncate and not self.untruncated_:
                self._truncate_for_validation(net.module_)
            return
        for path, weight in self.untruncated_.items():
            with torch.no_grad():
                net.module_.get_submodule(path).weight.copy_(weight)
        self.untruncated_ = {}
        if self.n_steps_ == 0 and any(net.optimizer_.state.get(w) for w in self._weights(net.module_).values()):
            self.n_steps_ = 1  # continues a training in which no layer has become thin
        if self.n_steps_ % self.period == 0 and (self.truncate or self.nuclear_weight):
            self._truncate(net.module_)
        self.n_steps_ += 1

    def on_grad_computed(self, net, named_parameters, **kwargs):
        """Add the subgradient of the nuclear norm in a step with a truncation."""
        for path, subgradient in self.subgradients_.items():
            gradient = net.module_.get_submodule(path).weight.grad
            if gradient is not None:
                gradient.add_(subgradient.to(gradient), alpha=self.nuclear_weight)

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        """Forget the subgradients."""
        self.subgradients_ = {}

    def finish(self, module):
        """Truncate once more, and replace layers by thin ones where these are smaller."""
        self.subgradients_, self.untruncated_ = {}, {}
        if not (self.truncate or self.nuclear_weight or self.max_rank):
            return []
        edits = []
        for path, weight in self._weights(module).items():
            parts = self._decomposed(path, weight)
            self.ranks_[path] = full_rank(module.get_submodule(path))
            if parts is None:
                continue
            by_energy = self.truncate and (path, _checksum(weight)) not in self.validated_
            rank = self._rank(path, parts[1], self.energy if by_energy else 1.0)
            self.ranks_[path] = rank = min(rank, rank_by_value(parts[1], self.final_threshold))
            if rank * sum(weight.shape) < weight.numel():
                edits.append(_thin(module, path, parts, rank))
            else:
                _set_truncated(weight, parts, rank)
        return edits

    def report(self):
        """Return the ranks by path, those at each truncation, and the number of truncations."""
        shape = (len(self.rank_curve_), len(self.paths_))
        curve = np.array(self.rank_curve_, dtype=np.int64).reshape(shape)
        return {"ranks": dict(self.ranks_), "rank_curve": curve, "n_truncations": len(curve)}

    def _treated(self, module):
        """Return the paths of the layers that are truncated."""
        paths = layers_of_a_rule(module, self.skip_first, self.skip_last)
        limits = self.max_rank if isinstance(self.max_rank, dict) else {}
        for path, rank in limits.items():
            if path not in paths:
                raise ValueError(f"max_rank has no layer {path!r} to limit. Use paths of {paths}.")
            if not is_integer(rank):
                raise ValueError(f"max_rank[{path!r}]={rank!r} has to be an int >= 1.")
        return paths

    def _weights(self, module):
        return {path: module.get_submodule(path).weight for path in self.paths_}

    def _truncate(self, module):
        """Truncate all weights in place, and keep the subgradients of their nuclear norms."""
        for path, weight in self._weights(module).items():
            self.ranks_[path] = full_rank(module.get_submodule(path))
            parts = self._decomposed(path, weight)
            if parts is None:
                continue
            if self.nuclear_weight:
                self.subgradients_[path] = nuclear_subgradient(*parts)
            if self.truncate:
                self.ranks_[path] = self._rank(path, parts[1], self.energy)
                _set_truncated(weight, parts, self.ranks_[path])
        if self.truncate:
            self.rank_curve_.append(list(self.ranks_.values()))

    def _truncate_for_validation(self, module):
        """Truncate all weights in place, until the next step."""
        for path, weight in self._weights(module).items():
            self.untruncated_[path] = weight.detach().clone()
            parts = self._decomposed(path, weight)
            if parts is not None:
                _set_truncated(weight, parts, self._rank(path, parts[1], self.energy))
                self.validated_.add((path, _checksum(weight)))

    def _decomposed(self, path, weight):
        """Return the singular value decomposition, or None with a warning."""
        try:
            return stable_svd(weight.detach())
        except torch.linalg.LinAlgError:
            message = f"The singular value decomposition of layer {path!r} failed; its weight is not truncated now."
            warn(message, RuntimeWarning)
            return None

    def _rank(self, path, s, energy):
        limit = self.max_rank.get(path) if isinstance(self.max_rank, dict) else self.max_rank
        return min(rank_by_energy(s, energy), limit or len(s))


# From singular values to ranks, and from ranks to weights.


def full_rank(layer):
    """Return the largest rank that the weight of a linear layer can have."""
    return min(layer.weight.shape)


def rank_by_energy(s, energy):
    """Return the least number of singular values that have a share of the sum of their squares; 0 if all are zero."""
    if energy == 1:
        return len(s)
    squares = (s.double() / s[0].double().clamp(min=torch.finfo(torch.float64).tiny)).square()
    sums = squares.cumsum(0)
    return int((sums < energy * sums[-1]).sum()) + int(bool(s[0] > 0))


def rank_by_value(s, threshold):
    """Return how many singular values are at least a share of the largest one, and not zero."""
    return int((s >= max(threshold, _precision(s)) * s[0].clamp(min=torch.finfo(s.dtype).tiny)).sum())


def nuclear_subgradient(U, s, Vh):
    """Return the subgradient U V' of the nuclear norm, without singular vectors of zero singular values."""
    return (U * (s > _precision(s) * s[0])) @ Vh


def _precision(s):
    return len(s) * torch.finfo(s.dtype).eps


@torch.no_grad()
def _set_truncated(weight, parts, rank):
    """Set a weight to the first singular triplets; it stays as it is where these are all."""
    U, s, Vh = parts
    if rank < len(s):
        weight.copy_((U[:, :rank] * s[:rank]) @ Vh[:rank])


def _thin(module, path, parts, rank):
    """Put a thin layer in the place of a linear one; both factors get the square roots of the singular values."""
    U, s, Vh = parts
    former = module.get_submodule(path)
    layer = ThinLinear(former.in_features, former.out_features, rank, former.bias is not None)
    edit, root = edited(module, path, layer), s[:rank].sqrt()
    with torch.no_grad():
        layer.up.copy_(U[:, :rank] * root)
        layer.down.copy_(root[:, None] * Vh[:rank])
        if layer.bias is not None:
            layer.bias.copy_(former.bias)
    return edit


def _checksum(weight):
    """Return numbers by which equal weights are recognised."""
    W = weight.detach().double()
    return math.fsum(W.sum(0).tolist()), math.fsum(W.square().sum(1).tolist())
