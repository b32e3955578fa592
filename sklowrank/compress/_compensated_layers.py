"""Layers with a compressed weight and a path of low rank beside it; their bytes, and adapters in files."""

import hashlib
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .._nets.found import array_of
from .._nets.recording import layer_type
from ._compressed_weights import Codes, KeptEntries, Part, matrix_of

_CONVOLVE: dict[str, Any] = {"conv1d": F.conv1d, "conv2d": F.conv2d, "conv3d": F.conv3d}


class Form(NamedTuple):
    """How a layer multiplies its input with its weight."""

    kind: str  # as recording.layer_type says it
    shape: tuple[int, ...]  # of the weight
    options: dict[str, Any] = {}  # of a convolution or an embedding, for torch's function
    sides: tuple[int, ...] = ()  # how a convolution that does not pad with zeros pads
    padding_mode: str = "constant"


class CompensatedLayer(nn.Module):
    """A layer whose weight is compressed, with a path ``B (A x)`` beside it.

    Modules that read its `weight` get that of both together.
    """

    B: Any  # (out, r); transposed where it is stored as codes, which have a scale for each column of it
    A: Any  # (r, in)

    def __init__(self, form: Form, base: Part, path: tuple[Part, Part] | None, bias: nn.Parameter | None):
        super().__init__()
        self.form, self.base = form, base
        self.B, self.A = path or (None, None)
        self.register_parameter("bias", bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output of the layer."""
        out = product(self.form, matrix_of(self.base), x, self.bias)
        return out if self.A is None else out + self._path(x)

    def _path(self, x):
        B, A = self.path
        if self.form.kind == "embedding":
            return F.embedding(x, A.T, self.form.options["padding_idx"]) @ B.T
        if self.form.kind in _CONVOLVE:
            low = product(self.form, A, x, None)
            return _CONVOLVE[self.form.kind](low, B.reshape(*B.shape, *[1] * (len(self.form.shape) - 2)))
        return F.linear(F.linear(x, A), B)

    @property
    def path(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The matrices B (out, r) and A (r, in)."""
        return matrix_of(self.B).T if isinstance(self.B, Codes) else matrix_of(self.B), matrix_of(self.A)

    @property
    def rank(self) -> int:
        """Rank of the path."""
        return 0 if self.A is None else self.A.shape[0]

    @property
    def weight(self) -> torch.Tensor:
        """The weight of the compressed layer and its path together, computed anew at each access."""
        matrix = matrix_of(self.base)
        if self.A is not None:
            B, A = self.path
            matrix = matrix + ((B @ A).T if self.form.kind == "embedding" else B @ A)
        if self.form.kind == "embedding":  # layers of its kind have no bias that could be read beside it
            return matrix if self.bias is None else matrix + self.bias
        return matrix.T if self.form.kind == "transposed" else matrix.reshape(self.form.shape)

    def extra_repr(self) -> str:
        """Return what is printed."""
        return f"{self.form.kind}, shape={tuple(self.form.shape)}, rank={self.rank}"


def form_of(layer: Any) -> Form:
    """Return how a layer of torch multiplies its input with its weight."""
    kind = layer_type(layer) or ""
    shape = tuple(layer.weight.shape)
    if kind == "embedding":
        return Form(kind, shape, {"padding_idx": layer.padding_idx})
    if kind not in _CONVOLVE:
        return Form(kind, shape)
    options = {"stride": layer.stride, "dilation": layer.dilation, "padding": layer.padding}
    if layer.padding_mode == "zeros":
        return Form(kind, shape, options)
    sides = tuple(layer._reversed_padding_repeated_twice)
    return Form(kind, shape, {**options, "padding": 0}, sides, layer.padding_mode)


def product(form: Form, matrix: torch.Tensor, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return what a layer of a form and with this weight, as a matrix, makes of its input."""
    if form.kind == "embedding":
        out = F.embedding(x, matrix, **form.options)
        return out if bias is None else out + bias
    if form.kind in _CONVOLVE:
        x = F.pad(x, form.sides, mode=form.padding_mode) if form.sides else x
        return _CONVOLVE[form.kind](x, matrix.reshape(len(matrix), *form.shape[1:]), bias, **form.options)
    return F.linear(x, matrix, bias)


# How large networks are


def n_bytes(module: nn.Module) -> int:
    """Return the bytes of the parameters of a module, shared ones once, and of what stores compressed weights."""
    parts = [*module.parameters(), *_stored_buffers(module)]
    return sum(part.numel() * part.element_size() for part in parts)


def n_numbers(module: nn.Module) -> int:
    """Return how many numbers a network has, in whatever bits: entries that were removed are none."""
    codes = [part for part in module.modules() if isinstance(part, Codes)]
    quantised = sum(part.shape[0] * part.shape[1] + part.scales.numel() for part in codes)
    return quantised + sum(part.numel() for part in module.parameters())


def _stored_buffers(module):
    return [buffer for part in module.modules() if isinstance(part, Codes | KeptEntries) for buffer in part.buffers()]


# Adapters in files


def compensated_layers(module: nn.Module) -> dict[str, CompensatedLayer]:
    """Return the layers of a module that have a compressed weight, by their names."""
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, CompensatedLayer)}


def adapter_arrays(layers: dict[str, CompensatedLayer]) -> dict[str, np.ndarray]:
    """Return the paths and biases of layers, and what says to which compressed weights they belong."""
    arrays = {"layers": np.array(list(layers)), "weights": np.array([_digest(layer.base) for layer in layers.values()])}
    for name, layer in layers.items():
        own = {key: value for key, value in layer.state_dict().items() if not key.startswith("base")}
        arrays |= {f"{name}.{key}": array_of(value) for key, value in own.items()}
        if isinstance(layer.A, Codes):
            arrays[f"{name}.bits"] = np.array(layer.A.bits)
    return arrays


def give_adapters(layers: dict[str, CompensatedLayer], arrays: dict[str, np.ndarray]) -> None:
    """Give layers the paths and biases that :func:`adapter_arrays` made of others with the same compressed weights.

    Raises
    ------
    ValueError
        If these are for other layers or weights.
    """
    theirs = arrays.get("layers", np.array([])).tolist()
    if theirs != list(layers):
        raise ValueError(f"The file has adapters of the layers {theirs}, and not of {list(layers)}.")
    for (name, layer), weight in zip(layers.items(), arrays["weights"].tolist(), strict=True):
        if weight != _digest(layer.base):
            raise ValueError(
                f"The file has adapters for another compressed weight of the layer {name!r}: adapters make up for the "
                "errors of one weight."
            )
        trained = any(part.requires_grad for part in layer.parameters())
        _give_adapter(layer, {key.removeprefix(f"{name}."): value for key, value in arrays.items()})
        layer.requires_grad_(trained)


def _give_adapter(layer, arrays):
    dtype = matrix_of(layer.base).dtype
    n_out, n_in = layer.form.shape[0], math.prod(layer.form.shape[1:])
    if layer.form.kind in ("embedding", "transposed"):
        n_out, n_in = n_in, n_out
    layer.bias = nn.Parameter(torch.from_numpy(arrays["bias"]).to(dtype)) if "bias" in arrays else None
    if "bits" in arrays:
        parts = {key: torch.from_numpy(arrays[key]) for key in ("A.codes", "A.scales", "B.codes", "B.scales")}
        bits = int(arrays["bits"])
        layer.A = Codes(parts["A.codes"], parts["A.scales"].to(dtype), bits, n_in)
        layer.B = Codes(parts["B.codes"], parts["B.scales"].to(dtype), bits, n_out)
    else:
        layer.A, layer.B = (
            nn.Parameter(torch.from_numpy(arrays[key]).to(dtype)) if key in arrays else None for key in "AB"
        )


def _digest(part):
    stored = part.state_dict().values() if isinstance(part, nn.Module) else [part]
    found = hashlib.sha256(b"".join(array_of(value).tobytes() for value in stored))
    return found.hexdigest()[:16]
