"""Sparse spectral training: all singular values and some singular vectors at a time."""

import math
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from .._core.compat import Interval, StrOptions
from .._nets.architecture import Edit, edited
from .._nets.layers import ThinLinear, layers_of_a_rule
from .._nets.training import Rule
from ._sparse_spectral_layer import SpectralLinear, precise

_COUPLED = {"SGD", "ASGD", "Adam", "Adamax", "NAdam", "RAdam", "RMSprop", "Adagrad", "Adadelta"}
_WAIT = 2  # rounds after which an index that was not drawn is drawn next


class SparseSpectralTraining(Rule):
    """Train all singular values of the weights, and a sample of their singular vectors at a time.

    The optimizer holds moments for r pairs of vectors per layer only, as for an adapter of rank r, and yet the weights
    can become any: another sample is drawn again and again. For wide networks where the state of the optimizer is what
    does not fit. Where memory is no concern, plain training reaches the same or more in less time; where the change may
    be confined to rank r, an adapter is cheaper.

    Parameters
    ----------
    rank : int, default=8
        Number of pairs of singular vectors that are trained at a time, in each layer; at most all. More of them train
        faster and take more memory.
    iteration_length : int, default=50
        Number of steps for which a sample of vectors is trained.
    round_length : int or "auto", default="auto"
        Number of samples after which the weights are decomposed again, so that their vectors are orthogonal. "auto" is
        as many as it takes to train as many pairs as a layer has.
    sampling : {"mixed", "multinomial", "uniform", "top"}, default="mixed"
        How a sample is drawn, without replacement. "multinomial" is in proportion to the singular values, "mixed" the
        mean of this and "uniform", and "top" the largest ones. Under "mixed" and "uniform" no pair waits for more than
        three rounds of the automatic length.
    enhanced_gradient : bool, default=True
        Whether the gradients of vectors are without the factor of their singular value, so that pairs of small ones
        are trained as fast as others.
    warmup : int, default=10
        Number of steps after each new sample in which the steps of its vectors grow linearly to their full length.
    skip_first : int, default=0
        Number of linear layers, from the first one, that are trained as they are.
    skip_last : bool, default=True
        Whether the last linear layer is trained as it is.
    prune_energy : float, default=1.0
        Share of the squared singular values that is kept after the training. With less than 1 a layer becomes one of
        low rank where that has fewer numbers.

    See Also
    --------
    NetworkClassifier : Takes the rule as `training`.
    OrderedRank : Factors ordered by importance, for one network of many sizes.
    TrainedRankPruning : Weights truncated while they are trained.
    RandomSubspace : Far fewer trained numbers.

    Notes
    -----
    A weight of shape (o, i) is decomposed once, :math:`W = U \\operatorname{diag}(s) V^\\top`, and then held so. With
    the gradient :math:`G` of the loss in :math:`W`, a step of the optimizer gets :math:`g_{s_j} = u_j^\\top G v_j` of
    all :math:`m = \\min(o, i)` values, and :math:`G v_j`, :math:`G^\\top u_j` of the r pairs in the sample. After it
    values are clamped at 0 and vectors divided by their norms. G is not formed: for b rows a step takes O(b (o + i) m)
    time, a third more than of a square plain layer. The optimizer's state is that of r (o + i) + m numbers instead of
    o i; the layer itself holds m (o + i), twice a square plain one. There is no gain where r is at least m / 2.

    With a new sample the optimizer's state of the vectors is dropped, with a new decomposition that of the values, too.
    A `weight_decay` acts on the singular values, whose squares sum to the squared norm of the weight; vectors have unit
    length and no decay. Any optimizer of torch and any schedule may be used. Frozen layers, and those that share a
    weight with others, stay as they are.

    Linear layers of the module are exchanged, nested ones too. When training ends they become plain linear layers
    again, which is where the next call of `partial_fit` starts: by a decomposition, a new sample and counts from zero.
    So a call should have many more steps than `warmup`, and what is reported is of the last call.

    Reports `singular_values` of the weights by the path of their layer, descending; `n_trainable`, the number of
    numbers of these weights that are trained at a time, and `trainable_fraction`, its ratio to that of the weights;
    `selection_counts`, by path how often each index was drawn; and `n_resvd`, the number of decompositions after the
    first ones, summed over the layers.

    References
    ----------
    Zhao, J., Zhang, Y., Li, X., Liu, H., Cannistraci, C. V. (2025). Sparse spectral training and inference on Euclidean
    and hyperbolic neural networks. International Conference on Machine Learning.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import train_test_split
    >>> from sklowrank.neural import NetworkClassifier, SparseSpectralTraining
    >>> X, y = load_digits(return_X_y=True)
    >>> X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    >>> rule = SparseSpectralTraining(rank=4)
    >>> model = NetworkClassifier((64,), training=rule, max_iter=10, tol=0, learning_rate=0.01)
    >>> model.set_params(random_state=0).fit(X_train, y_train).score(X_test, y_test) > 0.9
    True
    >>> model.training_["n_trainable"], model.network()[0]
    (576, Linear(in_features=64, out_features=64, bias=True))
    """

    _parameter_constraints = {
        "rank": [Interval(Integral, 1, None, closed="left")],
        "iteration_length": [Interval(Integral, 1, None, closed="left")],
        "round_length": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "sampling": [StrOptions({"mixed", "multinomial", "uniform", "top"})],
        "enhanced_gradient": ["boolean"],
        "warmup": [Interval(Integral, 0, None, closed="left")],
        "skip_first": [Interval(Integral, 0, None, closed="left")],
        "skip_last": ["boolean"],
        "prune_energy": [Interval(Real, 0, 1, closed="right")],
    }

    def __init__(
        self,
        rank: int = 8,
        *,
        iteration_length: int = 50,
        round_length: int | Literal["auto"] = "auto",
        sampling: Literal["mixed", "multinomial", "uniform", "top"] = "mixed",
        enhanced_gradient: bool = True,
        warmup: int = 10,
        skip_first: int = 0,
        skip_last: bool = True,
        prune_energy: float = 1.0,
    ):
        self.rank = rank
        self.iteration_length = iteration_length
        self.round_length = round_length
        self.sampling = sampling
        self.enhanced_gradient = enhanced_gradient
        self.warmup = warmup
        self.skip_first = skip_first
        self.skip_last = skip_last
        self.prune_energy = prune_energy

    def convert(self, module: nn.Module) -> list[Edit]:
        """Decompose the weights of the layers that are to be trained so, and draw the first sample.

        Returns
        -------
        edits : list of Edit
        """
        self._validate_params()
        paths = layers_of_a_rule(module, self.skip_first, self.skip_last)
        self.n_steps_, self.n_resvd_, self.before_ = 0, 0, {}
        self.singular_values_, self.selection_counts_, self.waits_ = {}, {}, {}
        self.n_trainable_, self.n_dense_ = 0, 0
        edits = []
        for path in paths:
            layer = module.get_submodule(path)
            spectral = SpectralLinear.decomposing(layer, self.rank, enhanced=self.enhanced_gradient)
            edits.append(edited(module, path, spectral))
            self.selection_counts_[path] = torch.zeros(spectral.rank, dtype=torch.int64, device="cpu")
            self.waits_[path] = torch.zeros(spectral.rank, dtype=torch.int64, device="cpu")
            self.n_trainable_ += spectral.left.numel() + spectral.right.numel() + spectral.rank
            self.n_dense_ += spectral.left.shape[1] * spectral.right.shape[1]
            self._sample(path, spectral)
        self._note(module)
        return edits

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        """Drop the state of the optimizer for other vectors, and copy the present ones during the warm-up."""
        if not training:
            return
        if self.n_steps_ == 0:
            for layer in self._layers(net.module_):
                _forget(net.optimizer_, layer.s, layer.left, layer.right)
        if self._share() < 1:
            vectors = {path: (layer.left, layer.right) for path, layer in self._named(net.module_)}
            self.before_ = {path: [v.detach().clone() for v in pair] for path, pair in vectors.items()}

    def on_grad_computed(self, net, named_parameters, X=None, y=None, training=False, **kwargs):
        """Take the weight decay of vectors, which the optimizer is about to add, out of their gradients."""
        if type(net.optimizer_).__name__ not in _COUPLED:
            return
        decays = {
            p: group["weight_decay"]
            for group in net.optimizer_.param_groups
            if group.get("weight_decay") and not group.get("decoupled_weight_decay")
            for p in group["params"]
        }
        for layer in self._layers(net.module_) if decays else ():
            for vectors in (layer.left, layer.right):
                if vectors in decays and vectors.grad is not None:
                    vectors.grad.sub_(vectors.detach(), alpha=decays[vectors])

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        """Shorten the step in the warm-up, constrain the factors, and draw another sample where it is time."""
        if not training:
            return
        share = self._share()
        with torch.no_grad():
            for path, layer in self._named(net.module_):
                for vectors, before in zip((layer.left, layer.right), self.before_.get(path, ())):
                    vectors.copy_(torch.lerp(before, vectors, share))
                layer.constrain()
        self.before_ = {}
        self.n_steps_ += 1
        if self.n_steps_ % self.iteration_length == 0:
            for path, layer in self._named(net.module_):
                self._next_iteration(net.optimizer_, path, layer)

    def on_epoch_end(self, net, **kwargs):
        """Note the singular values."""
        self._note(net.module_)

    def finish(self, module: nn.Module) -> list[Edit]:
        """Multiply the layers out, cut to the share of energy that is kept.

        Returns
        -------
        edits : list of Edit
        """
        edits = []
        for path, layer in self._named(module):
            s = _singular_values(layer.weight)
            k = _kept(s, self.prune_energy)
            new: nn.Module = layer.multiplied_out()
            if k < len(s):
                n_in, n_out = layer.shape[:2]
                thin = ThinLinear.nearest_to(layer, k)
                new = thin if k * (n_in + n_out) < n_in * n_out else thin.multiplied_out()
            self.singular_values_[path] = s[:k].numpy()
            edits.append(edited(module, path, new))
        return edits

    def report(self) -> dict[str, Any]:
        """Return the singular values, the number of trained numbers, and what was drawn and decomposed how often.

        Returns
        -------
        report : dict
        """
        return {
            "singular_values": dict(self.singular_values_),
            "n_trainable": self.n_trainable_,
            "trainable_fraction": self.n_trainable_ / self.n_dense_,
            "selection_counts": {path: counts.numpy().copy() for path, counts in self.selection_counts_.items()},
            "n_resvd": self.n_resvd_,
        }

    def _named(self, module):
        """Return the layers that are trained so, with their paths."""
        layers = [(path, module.get_submodule(path)) for path in self.selection_counts_]
        return [(path, layer) for path, layer in layers if isinstance(layer, SpectralLinear)]

    def _layers(self, module):
        return [layer for _, layer in self._named(module)]

    def _share(self):
        """Return by what the step of the vectors is multiplied."""
        return min(1.0, (self.n_steps_ % self.iteration_length + 1) / (self.warmup or 1))

    def _note(self, module):
        for path, layer in self._named(module):
            self.singular_values_[path] = layer.s.detach().double().sort(descending=True).values.cpu().numpy()

    def _next_iteration(self, optimizer, path, layer):
        """Decompose the weight again at the end of a round, draw another sample, and drop the moments of the former."""
        length = math.ceil(layer.rank / len(layer.left)) if self.round_length == "auto" else self.round_length
        if self.n_steps_ % (self.iteration_length * length) == 0:
            W = layer.weight
            if W.isfinite().all():  # else the training says that it has diverged
                layer.decompose(W)
                self.n_resvd_ += 1
                _forget(optimizer, layer.s)
        self._sample(path, layer)
        _forget(optimizer, layer.left, layer.right)

    def _sample(self, path, layer):
        counts, waits = self.selection_counts_[path], self.waits_[path]
        indices = draw(layer.s.detach(), len(layer.left), self.sampling, waits, self.generator_)
        counts[indices] += 1
        waits += 1
        waits[indices] = 0
        layer.activate(indices)


# Which vectors are trained, and the singular values that are kept


def draw(s: torch.Tensor, count: int, sampling: str, waits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return `count` different indices of singular values s (m,).

    `waits` has for each index the number of samples since it was in one. Where all indices have a positive probability,
    those that have waited for the samples of two rounds come first.
    """
    s = s.double().cpu()
    if sampling == "top":
        return s.topk(count).indices
    m = len(s)
    uniform = torch.full_like(s, 1 / m)
    by_size = s / s.sum() if s.sum() > 0 else uniform
    p = {"uniform": uniform, "multinomial": by_size, "mixed": (uniform + by_size) / 2}[sampling]
    # The largest of log p + Gumbel noise are a sample without replacement.
    score = p.log() - torch.empty_like(p).exponential_(generator=generator).log()
    if sampling != "multinomial":
        overdue = waits >= _WAIT * math.ceil(m / count)
        score = torch.where(overdue, score.max().clamp(min=0) + waits, score)
    return score.topk(count).indices


def _forget(optimizer, *parameters):
    """Drop the optimizer's state of some parameters, its count of steps too: it begins anew at the next step."""
    for parameter in parameters:
        optimizer.state.pop(parameter, None)


def _singular_values(W):
    """Return the singular values of a weight, float64, on the CPU; NaN where it is not finite."""
    if not W.isfinite().all():
        return torch.full((min(W.shape),), math.nan, dtype=torch.float64, device="cpu")
    return torch.linalg.svdvals(precise(W)).double().cpu()


def _kept(s, share):
    """Return how many of the descending singular values have this share of the sum of squares, at least one."""
    energy = np.cumsum(np.square(s.numpy()))
    if share == 1 or not energy[-1] > 0:
        return len(s)
    return int(np.searchsorted(energy, share * energy[-1])) + 1
