"""Layers of our own networks, and those that take the place of a linear layer."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .._math.linalg import stable_svd

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "tanh": nn.Tanh, "identity": nn.Identity}


def linear(n_in: int, n_out: int, generator: torch.Generator | None, *, bias: bool = True) -> nn.Linear:
    """Return a linear layer in float32, on the CPU, with torch's initial distribution drawn from `generator`.

    Without a generator the weights are not initialised: they are to be loaded.
    """
    layer = nn.utils.skip_init(nn.Linear, n_in, n_out, bias=bias, device="cpu", dtype=torch.float32)
    if generator is not None:
        with torch.no_grad():
            for part in layer.parameters():
                part.uniform_(-(n_in**-0.5), n_in**-0.5, generator=generator)
    return layer


class Standardized(nn.Module):
    """A network with its standardisation before it, so that it takes rows in their own units."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, network: nn.Module, mean: torch.Tensor, scale: torch.Tensor):
        super().__init__()
        self.register_buffer("mean", mean.float())
        self.register_buffer("scale", scale.float())
        self.network = network

    def forward(self, x):
        return self.network(standard_units(x, self.mean, self.scale))


def standard_units(x: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return (x - mean) / scale of rows; a single column is not taken for all of them."""
    if x.shape[-1] != mean.shape[-1]:
        raise ValueError(f"The network takes rows of {mean.shape[-1]} columns, and these have {x.shape[-1]}.")
    return (x - mean) / scale


class InOwnUnits(nn.Module):
    """A network that takes rows, and gives values of a regression, in their own units, for export.

    Units are applied in float64, so that a column of large numbers that differ little keeps its digits.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype, rows: Any, values: Any):
        super().__init__()
        self.network, self.dtype, self.has_rows, self.has_values = network, dtype, rows is not None, values is not None
        for name, units in (("row", rows), ("value", values)):
            for part, number in zip(("mean", "scale"), units or ()):
                number = np.asarray(number, dtype=np.float64).copy()
                self.register_buffer(f"{name}_{part}", torch.as_tensor(number, device="cpu"))

    def forward(self, x):
        x = (x - self.row_mean) / self.row_scale if self.has_rows else x
        out = self.network(x.to(self.dtype))
        if not self.has_values:
            return out
        out = out[:, 0] if self.value_mean.ndim == 0 else out
        return out * self.value_scale + self.value_mean


class Dropout(nn.Module):
    """Dropout that draws from the generator of the fit, on the CPU: a seed means the same on every device."""

    def __init__(self, share: float, generator: torch.Generator):
        super().__init__()
        self.share, self.generator = share, generator

    def forward(self, x):
        if not self.training or not self.share:
            return x
        draws = torch.rand(x.shape, generator=self.generator, device="cpu", dtype=torch.float32)
        return x * ((draws >= self.share).to(x) / (1 - self.share))


def dropout_layer(share: float, generator: torch.Generator | None) -> nn.Module:
    """Return a dropout layer; torch's own where there is no generator, because nothing is trained."""
    return nn.Dropout(share) if generator is None else Dropout(share, generator)


def mlp(
    n_in: tuple[int, ...],
    n_out: int | None,
    generator: torch.Generator | None,
    *,
    hidden_layer_sizes: Sequence[int],
    activation: str = "relu",
    dropout: float = 0.0,
    batch_norm: bool = False,
) -> nn.Sequential:
    """Return a multilayer perceptron of torch's layers.

    Without `n_out` it ends with the last activation. `batch_norm` normalises after the first linear layer.
    """
    hidden_layer_sizes = check_layers(hidden_layer_sizes, activation, dropout)
    layers: list[nn.Module] = []
    width = n_in[0]
    for i, size in enumerate(hidden_layer_sizes):
        layers.append(linear(width, size, generator))
        if batch_norm and i == 0:
            layers.append(nn.BatchNorm1d(size, device="cpu", dtype=torch.float32))
        layers.append(ACTIVATIONS[activation]())
        if dropout:
            layers.append(dropout_layer(dropout, generator))
        width = size
    if n_out is not None:
        layers.append(linear(width, n_out, generator))
    return nn.Sequential(*layers)


def layer_sizes(hidden_layer_sizes: Any) -> list[int]:
    """Return `hidden_layer_sizes` as ints; raise a ValueError where they are none, or a layer is empty."""
    try:
        sizes = [int(size) for size in hidden_layer_sizes]
        whole = all(size == given and not isinstance(given, bool) for size, given in zip(sizes, hidden_layer_sizes))
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole:
        raise ValueError(
            f"hidden_layer_sizes={hidden_layer_sizes!r} is no sequence of ints. Pass widths >= 1, such as (128, 64)."
        )
    if any(size < 1 for size in sizes):
        raise ValueError(f"hidden_layer_sizes={tuple(hidden_layer_sizes)} has an empty layer. Pass widths >= 1.")
    return sizes


def check_layers(hidden_layer_sizes: Sequence[int], activation: str, dropout: float) -> list[int]:
    """Return :func:`layer_sizes`; raise a ValueError for an unknown activation, or dropout outside of [0, 1)."""
    sizes = layer_sizes(hidden_layer_sizes)
    if activation not in ACTIVATIONS:
        raise ValueError(f"module__activation={activation!r} is unknown. Use one of {sorted(ACTIVATIONS)}.")
    if not 0 <= dropout < 1:
        raise ValueError(f"module__dropout={dropout} has to be in [0, 1).")
    return sizes


def as_tensor(value: Any) -> Any:
    """Return an array as a tensor that shares its memory, on the CPU whatever the default device is."""
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


class SideBySide(nn.Module):
    """K multilayer perceptrons of one shape, computed at once: (K, b, n_features) to (K, b, n_outputs).

    A linear map is added to the output of the layers. Weights and dropout are drawn from `generator`, on the CPU, so
    that a seed means the same on every device; without one the weights are to be loaded.
    """

    def __init__(
        self, count: int, n_features: int, n_outputs: int, generator, *, hidden_layer_sizes, activation, dropout
    ):
        super().__init__()
        hidden_layer_sizes = check_layers(hidden_layer_sizes, activation, dropout)
        self.activation, self.dropout = ACTIVATIONS[activation](), dropout_layer(dropout, generator)

        def drawn(n_in, *shape):
            weights = torch.empty(count, *shape, device="cpu", dtype=torch.float32)
            if generator is not None:
                weights.uniform_(-(n_in**-0.5), n_in**-0.5, generator=generator)
            return nn.Parameter(weights)

        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for n_in, n_out in zip([n_features, *hidden_layer_sizes], [*hidden_layer_sizes, n_outputs]):
            self.weights.append(drawn(n_in, n_in, n_out))
            self.biases.append(drawn(n_in, 1, n_out))
        self.straight = drawn(n_features, n_features, n_outputs)
        self.count = count

    def forward(self, x):
        last, straight = len(self.weights) - 1, torch.bmm(x, self.straight)
        for i, (W, b) in enumerate(zip(self.weights, self.biases)):
            x = torch.baddbmm(b, x, W)
            if i < last:
                x = self.dropout(self.activation(x))
        return x + straight

    def parts(self) -> list[dict[str, torch.Tensor]]:
        """Return a copy of each net's weights."""
        state = self.state_dict()
        return [{name: value[k].clone() for name, value in state.items()} for k in range(self.count)]


class ThinLinear(nn.Module):
    """A linear layer of low rank, ``up @ down``: what rules and compressors put in the place of ``nn.Linear``.

    It takes the rank of weights that are loaded into it, because its rank may fall while it is trained.
    """

    kind = "thin"

    def __init__(self, n_in: int, n_out: int, rank: int, bias: bool | int = True):
        super().__init__()
        self.down = nn.Parameter(torch.zeros(rank, n_in, device="cpu", dtype=torch.float32))
        self.up = nn.Parameter(torch.zeros(n_out, rank, device="cpu", dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(n_out, device="cpu", dtype=torch.float32)) if bias else None

    @property
    def shape(self) -> tuple[int, ...]:
        """The arguments of the constructor, as integers."""
        return self.down.shape[1], *self.up.shape, int(self.bias is not None)

    @property
    def rank(self) -> int:
        """The number of components."""
        return len(self.down)

    @classmethod
    def nearest_to(cls, layer: nn.Module, rank: int) -> "ThinLinear":
        """Return the layer of some rank whose weights are nearest to those of a linear or thin layer."""
        W = dense_weight(layer).double()
        U, s, Vh = stable_svd(W)
        root = s[:rank].sqrt()
        thin = cls(W.shape[1], W.shape[0], min(rank, len(s)), layer.bias is not None)
        with torch.no_grad():
            thin.up.copy_(U[:, :rank] * root)
            thin.down.copy_(root[:, None] * Vh[:rank])
            if thin.bias is not None:
                thin.bias.copy_(layer.bias)  # type: ignore[arg-type]
        return thin

    def multiplied_out(self) -> nn.Linear:
        """Return the same map as one linear layer."""
        n_out, n_in = len(self.up), self.down.shape[1]
        layer = linear(n_in, n_out, None, bias=self.bias is not None).to(self.up)
        with torch.no_grad():
            layer.weight.copy_(dense_weight(self))
            if self.bias is not None:
                layer.bias.copy_(self.bias)
        return layer

    def forward(self, x):
        return nn.functional.linear(nn.functional.linear(x, self.down), self.up, self.bias)

    @property
    def weight(self) -> torch.Tensor:
        """The product (n_out, n_in): modules such as torch's transformers read it without calling the layer."""
        return self.up @ self.down

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        down, up = (state_dict.get(prefix + name) for name in ("down", "up"))
        if down is not None and up is not None and down.shape != self.down.shape:
            for parameter, part in ((self.down, down), (self.up, up)):  # the same parameters: an optimizer has them
                parameter.data, parameter.grad = parameter.new_empty(part.shape), None
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def dense_weight(layer: nn.Module) -> torch.Tensor:
    """Return the weight (n_out, n_in) of a linear or a thin layer."""
    return (layer.up @ layer.down if isinstance(layer, ThinLinear) else layer.weight).detach()  # type: ignore[operator]


# Layers that may take the place of a linear layer, by kind. Each has a `kind`, a property `shape` of integers that are
# the arguments of its constructor, and `multiplied_out()`, the same map as one linear layer.
_REPLACEMENTS: dict[str, Callable[..., nn.Module]] = {"thin": ThinLinear}


def replaces_linear(cls):
    """Register a class of layers that may take the place of a linear layer, and return it."""
    _REPLACEMENTS[cls.kind] = cls
    return cls


def kind_and_shape(layer: nn.Module) -> tuple[str, tuple[int, ...]]:
    """Return by what :func:`layer_of` makes a layer like this one.

    Raises
    ------
    TypeError
        If it is of no kind that can take the place of another.
    """
    if type(layer) is nn.Linear:
        return "linear", (layer.in_features, layer.out_features, int(layer.bias is not None))
    if _is_linear(layer):
        return str(layer.kind), tuple(layer.shape)  # type: ignore[arg-type]
    raise TypeError(
        f"A {type(layer).__name__} cannot replace a layer: it has to be one of {['linear', *_REPLACEMENTS]}."
    )


def layer_of(kind: str, shape: Sequence[int]) -> nn.Module:
    """Return a layer of the kind and shape that :func:`kind_and_shape` says; its weights are to be loaded."""
    if kind == "linear":
        return linear(shape[0], shape[1], None, bias=bool(shape[2]))
    return _REPLACEMENTS[kind](*shape)


def linear_layers(module: nn.Module) -> list[tuple[str, Any]]:
    """Return the linear layers of a module, and what has taken the place of one, with their paths and in its order."""
    return [(path, layer) for path, layer in module.named_modules() if _is_linear(layer)]


def layers_of_a_rule(module: nn.Module, skip_first: int, skip_last: bool) -> list[str]:
    """Return the paths of the linear layers that a rule treats: neither frozen nor with a weight that others share.

    Raises
    ------
    ValueError
        If there is none.
    """
    layers = linear_layers(module)
    uses = Counter(id(p) for _, p in module.named_parameters(remove_duplicate=False))
    paths = [
        path
        for path, layer in layers[skip_first : len(layers) - bool(skip_last)]
        if all(p.requires_grad and uses[id(p)] == 1 for name, p in layer.named_parameters() if name != "bias")
    ]
    if not paths:
        raise ValueError(
            f"skip_first={skip_first} and skip_last={skip_last} leave none of the {len(layers)} linear layers to the "
            "training rule, which leaves out frozen and shared weights, too. Lower skip_first, set skip_last=False, "
            "pass a network with hidden layers, or train without a rule: a compressor may have replaced the others."
        )
    return paths


def _is_linear(layer):
    return type(layer) is nn.Linear or getattr(layer, "kind", None) in _REPLACEMENTS


def rank_of(layer: nn.Module) -> int:
    """Return the rank that the weight of a linear layer, or of what has taken its place, has by its shape."""
    return int(getattr(layer, "rank", min(kind_and_shape(layer)[1][:2])))


def low_rank_start(weight: torch.Tensor, rank: int) -> torch.Tensor:
    """Return the nearest matrix of some rank, scaled to the Frobenius norm of the weight; full rank changes no bit.

    The norm is kept, because features change less with a larger norm, which would hide what the rank does.
    """
    if rank >= min(weight.shape):
        return weight.detach().clone()
    W = weight.detach().double()
    U, s, Vh = stable_svd(W)
    low = (U[:, :rank] * s[:rank]) @ Vh[:rank]
    norm = low.norm()
    return (low * torch.where(norm > 0, W.norm() / norm, 0.0)).to(weight)


def refresh_statistics(module: nn.Module, rows: torch.Tensor, batch_size: int) -> None:
    """Compute the running statistics of batch normalisation again from rows; everything else is in eval mode."""
    layers = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    module.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over batches
        layer.train()
    try:
        with torch.no_grad():
            for batch in rows.split(batch_size):
                if len(batch) > 1 or len(rows) == 1:
                    module(batch)
    finally:
        for layer, momentum in zip(layers, momenta):
            layer.momentum = momentum
        module.eval()
