"""Fitted networks adapted to new rows by updates of low Tucker rank."""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from numbers import Integral, Real
from typing import Any, Literal, Self

import torch
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin
from torch import nn

from .._core.annotations import RandomState
from .._core.compat import Interval, _fit_context
from .._core.validation import is_integer
from ._adapted_network import WeightUpdate
from ._adapting import Adapter
from ._fitting import adapt, begin
from ._parameters import ADAPTER_CONSTRAINTS, adapter_texts

_KINDS = ("linear", "conv1d", "conv2d", "conv3d", "embedding")
_LARGEST_TABLE = 100_000  # rows of an embedding that have factors of their own


@adapter_texts(head="auto")
class TuckerAdapter(Adapter, CallbackSupportMixin, BaseEstimator):
    """Adapt a fitted network to new rows by an update of low Tucker rank for the weight of each layer.

    The network stays as it is; a few thousand numbers are trained on a few hundred rows. Kernels of convolutions keep
    their axes, where low-rank adapters otherwise flatten them to matrices. The numbers are stored apart, exchanged for
    those of other data, or added into the weights, after which predictions cost what they did.

    Parameters
    ----------
    <estimator>
    rank : int, default=8
        Rank of the axes of outputs and inputs, at most their sizes.
    kernel_rank : int or None, default=None
        Rank of the axes of kernels, at most their sizes; None: the sizes.
    ranks : dict or None, default=None
        Ranks of all axes of some layers, as tuples by glob patterns of their names.
    scale : float, default=1.0
        Factor of the updates, above 0.
    layers : tuple of str, default=("linear", "conv1d", "conv2d", "conv3d", "embedding")
        Which types of layers get an update.
    train_norm : bool, default=False
        Whether batch normalisation is adapted, too: statistics of the new rows, weights and biases. Otherwise it
        stays in eval mode throughout.
    <training>

    Attributes
    ----------
    <attributes>

    See Also
    --------
    LDUAdapter : Fewer numbers: one for each pivot of a weight.
    sklowrank.compress.SecondOrderPruner : Fitted networks made smaller.

    Notes
    -----
    The weight W of N axes, of sizes :math:`I_1, ..., I_N`, becomes

    .. math:: W + s \\, G \\times_1 U_1 \\times_2 U_2 \\cdots \\times_N U_N

    with a core G of sizes :math:`r_1, ..., r_N` that starts at zero, and factors :math:`U_i` of :math:`I_i \\times r_i`
    numbers, which start at normal ones with standard deviation :math:`r_i^{-1/2}`. With two axes this is LoRA with a
    core. The weight of a convolution has the axes outputs, inputs in a group, kernel; an embedding has rows and width,
    or, beyond 100 000 rows, one vector that is added to all rows. What is stored as ``core`` is :math:`s \\, G`, so
    adapters of one network are exchanged whatever their `scale`.

    A step of training costs one of the network, plus :math:`\\prod I_i` times the largest rank for each layer.

    References
    ----------
    C. Si, X. Wang, X. Yang, Z. Xu, Q. Li, J. Dai, Y. Qiao, X. Yang, W. Shen. FLoRA: Low-Rank Core Space for
    N-dimension. arXiv 2405.14739, 2024.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklowrank.adapt import TuckerAdapter
    >>> from sklowrank.neural import NetworkClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> network = NetworkClassifier((32, 32), max_iter=30, learning_rate=1e-2, random_state=0).fit(X, y)
    >>> moved = X[:, ::-1]
    >>> adapter = TuckerAdapter(FrozenEstimator(network), rank=4, random_state=0).fit(moved[::3], y[::3])
    >>> network.score(moved, y) < 0.5, adapter.score(moved, y) > 0.9
    (True, True)
    >>> adapter.n_adapter_parameters_, adapter.n_trainable_parameters_
    (432, 531)
    """

    _parameter_constraints = {
        **ADAPTER_CONSTRAINTS,
        "rank": [Interval(Integral, 1, None, closed="left")],
        "kernel_rank": [Interval(Integral, 1, None, closed="left"), None],
        "ranks": [dict, None],
        "scale": [Interval(Real, 0, None, closed="neither")],
        "layers": [list, tuple],
        "train_norm": ["boolean"],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        rank: int = 8,
        kernel_rank: int | None = None,
        ranks: Mapping[str, Sequence[int]] | None = None,
        scale: float = 1.0,
        layers: Sequence[str] = _KINDS,
        train_norm: bool = False,
        max_iter: int = 60,
        learning_rate: float = 1e-2,
        batch_size: int = 64,
        weight_decay: float = 0.0,
        validation_fraction: float = 0.0,
        n_iter_no_change: int = 10,
        head: Literal["auto", "keep", "train", "reset"] = "auto",
        modules: str | Sequence[str] | None = None,
        exclude: str | Sequence[str] | None = None,
        module_getter: Callable | None = None,
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ):
        self.estimator = estimator
        self.rank = rank
        self.kernel_rank = kernel_rank
        self.ranks = ranks
        self.scale = scale
        self.layers = layers
        self.train_norm = train_norm
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.weight_decay = weight_decay
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.head = head
        self.modules = modules
        self.exclude = exclude
        self.module_getter = module_getter
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y) -> Self:
        """Train updates of the network on new rows.

        Parameters
        ----------
        X : what the estimator predicts on, of n_samples rows
            The rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Their targets.

        Returns
        -------
        self : TuckerAdapter
        """
        begun = begin(self, X, y, types=_checked_types(self.layers))
        ranks = {name: _ranks_of(layer, self.rank, self.kernel_rank) for name, layer in begun.layers.items()}
        ranks |= _exact_ranks(begun.layers, self.ranks or {})
        updates = {
            name: TuckerUpdate.drawn(_axes(layer), ranks[name], self.scale, layer.weight, begun.ws.generator)
            for name, layer in begun.layers.items()
        }
        return adapt(self, begun, updates, ranks=ranks, recipe={}, train_norm=self.train_norm)

    def _update(self, layer, numbers, recipe):
        factors = [numbers[f"factors.{i}"] for i in range(len(numbers) - 1)]
        return TuckerUpdate(numbers["core"], factors, 1.0).to(layer.weight)


class TuckerUpdate(WeightUpdate):
    """``weight + scale * core x_1 factors[0] x_2 factors[1] ...``, of the last axes of the weight."""

    def __init__(self, core: torch.Tensor, factors: Sequence[torch.Tensor], scale: float):
        super().__init__()
        self.core = nn.Parameter(core)
        self.factors = nn.ParameterList(nn.Parameter(factor) for factor in factors)
        self.scale = scale

    @classmethod
    def drawn(
        cls, shape: Sequence[int], ranks: Sequence[int], scale: float, like: torch.Tensor, generator: torch.Generator
    ) -> "TuckerUpdate":
        """Return an update that is zero, with factors that are drawn."""
        factors = [
            torch.randn(n, r, generator=generator, device="cpu", dtype=torch.float32) / r**0.5
            for n, r in zip(shape, ranks)
        ]
        return cls(torch.zeros(*ranks, device="cpu", dtype=torch.float32), factors, scale).to(like)

    def forward(self, weight):
        return weight + self.scale * multiplied(self.core, list(self.factors))

    def numbers(self):
        """Return core and factors of the same update with a scale of 1."""
        found = super().numbers()
        return {**found, "core": self.scale * found["core"]}


def multiplied(core: torch.Tensor, factors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the product of a core with a factor (size, rank) along each axis, small axes first."""
    for axis in sorted(range(core.ndim), key=lambda i: len(factors[i])):
        core = torch.tensordot(core, factors[axis], dims=([axis], [1])).movedim(-1, axis)
    return core


# Sizes and ranks


def _checked_types(layers):
    unknown = [kind for kind in layers if kind not in _KINDS]
    if unknown or not layers:
        raise ValueError(f"layers={layers!r} has to name some of {', '.join(_KINDS)}.")
    return tuple(layers)


def _axes(layer):
    """Return the sizes of the axes of an update."""
    shape = tuple(layer.weight.shape)
    return shape[1:] if isinstance(layer, nn.Embedding) and shape[0] > _LARGEST_TABLE else shape


def _ranks_of(layer, rank, kernel_rank):
    """Return the ranks of the axes of an update, at most their sizes."""
    sizes = _axes(layer)
    return tuple(min(n, rank) if axis < 2 else min(n, kernel_rank or n) for axis, n in enumerate(sizes))


def _exact_ranks(layers, wanted):
    """Return the ranks of layers that patterns name; the first pattern that matches counts.

    Raises
    ------
    ValueError
        If a pattern matches no layer, or ranks do not suit its axes.
    """
    found: dict[str, tuple[int, ...]] = {}
    for pattern, ranks in wanted.items():
        names = [name for name in layers if fnmatchcase(name, pattern)]
        if not names:
            raise ValueError(f"ranks has {pattern!r}, which matches none of the layers {', '.join(layers)}.")
        for name in names:
            sizes = _axes(layers[name])
            if len(ranks) != len(sizes) or any(not is_integer(r) or r > n for r, n in zip(ranks, sizes)):
                raise ValueError(
                    f"ranks={{{pattern!r}: {tuple(ranks)}}} does not suit the layer {name}: it has axes of {sizes}, "
                    "each of which needs an integer from 1 to its size."
                )
            found.setdefault(name, tuple(int(r) for r in ranks))
    return found
