"""Compressed weights: rounded, pruned, or what a function makes of them; and matrices that are stored in few bytes."""

from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .._nets.recording import layer_type, weight_matrix


class WeightOptions(NamedTuple):
    """How weights are compressed."""

    compression: str | Callable
    bits: int
    group_size: int | None
    sparsity: float
    n: int
    m: int
    importance: str


class Codes(nn.Module):
    """A matrix of few bits: integer codes, packed into bytes, and a scale for each row and group of columns."""

    codes: torch.Tensor
    scales: torch.Tensor

    def __init__(self, codes: torch.Tensor, scales: torch.Tensor, bits: int, n_columns: int):
        super().__init__()
        self.bits, self.shape = bits, (len(scales), n_columns)
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)

    def forward(self) -> torch.Tensor:
        """Return the matrix."""
        rows, columns = self.shape
        levels = unpacked(self.codes, self.bits, rows * columns).to(self.scales.dtype) - top_code(self.bits)
        return (levels.reshape(rows, self.scales.shape[1], -1) * self.scales[:, :, None]).reshape(rows, columns)

    def extra_repr(self) -> str:
        """Return what is printed."""
        return f"shape={self.shape}, bits={self.bits}"


class KeptEntries(nn.Module):
    """A matrix of which few entries are not zero: these, and a bit for each entry that says whether it is one."""

    mask: torch.Tensor

    def __init__(self, mask: torch.Tensor, values: nn.Parameter, shape: tuple[int, int]):
        super().__init__()
        self.shape = shape
        self.register_buffer("mask", mask)
        self.values = values

    def forward(self) -> torch.Tensor:
        """Return the matrix."""
        rows, columns = self.shape
        kept = unpacked(self.mask, 1, rows * columns).bool()
        return self.values.new_zeros(rows * columns).masked_scatter(kept, self.values).reshape(rows, columns)

    def extra_repr(self) -> str:
        """Return what is printed."""
        return f"shape={self.shape}, kept={len(self.values)}"


Part = nn.Parameter | Codes | KeptEntries  # a matrix, however it is stored


def matrix_of(part: Any) -> torch.Tensor:
    """Return a matrix, however it is stored."""
    return part if isinstance(part, torch.Tensor) else part()


class Inputs(NamedTuple):
    """What is known of the rows that a layer multiplies its weight with, in float64."""

    mean: torch.Tensor  # (in,)
    covariance: torch.Tensor | None  # (in, in); None: rows are one-hot, with the mean as the frequencies
    magnitude: torch.Tensor | None = None  # (in,): the means of magnitudes

    @property
    def squares(self) -> torch.Tensor:
        """The means of squares (in,)."""
        return self.mean if self.covariance is None else self.covariance.diagonal() + self.mean.square()


# What weights become


def compressed(twin: nn.Module | None, options: WeightOptions, layer: Any, name: str, inputs: Inputs) -> Part:
    """Return the compressed weight of a layer, as it is stored: that of the user's twin, where there is one."""
    W, dtype = weight_matrix(layer), layer.weight.dtype
    if twin is not None:
        return nn.Parameter(weight_of_twin(twin, name, layer).to(layer.weight.device, dtype))
    if callable(options.compression):
        return nn.Parameter(weight_by(options.compression, name, W, inputs).to(layer.weight.device, dtype))
    if options.compression == "quantize":
        _check_divides("group_size", options.group_size, W, name)
        return rounded(W, options.bits, options.group_size, dtype)
    scores = W.abs()
    if options.importance == "activation":
        scores = scores * (inputs.squares[:, None] if inputs.covariance is None else inputs.squares).sqrt()
    if options.compression == "prune":
        kept = largest(scores.flatten()[None], W.flatten()[None], W.numel() - round(options.sparsity * W.numel()))
        return kept_entries(W, kept.reshape(W.shape), dtype)
    _check_divides("m", options.m, W, name)
    kept = largest(scores.reshape(-1, options.m), W.reshape(-1, options.m), options.n)
    return kept_entries(W, kept.reshape(W.shape), dtype)


def largest(scores: torch.Tensor, weights: torch.Tensor, n_kept: int) -> torch.Tensor:
    """Return a mask of the `n_kept` largest scores of each row; of equal ones, those of the larger weights."""
    by_weight = weights.abs().argsort(dim=1, descending=True, stable=True)
    order = by_weight.gather(1, scores.gather(1, by_weight).argsort(dim=1, descending=True, stable=True))
    mask = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    return mask.scatter(1, order[:, :n_kept], True)


def weight_of_twin(twin: nn.Module, name: str, layer: Any) -> torch.Tensor:
    """Return the weight matrix of the layer of that name in the user's compressed network."""
    try:
        weight = twin.get_submodule(name).weight
    except AttributeError:
        raise ValueError(f"compressed has no layer {name!r} with a weight, which the network has.") from None
    weight = weight() if callable(weight) else weight  # torch's own quantised layers
    weight = weight.dequantize() if getattr(weight, "is_quantized", False) else weight
    if not isinstance(weight, torch.Tensor) or weight.shape != layer.weight.shape:
        shapes = f"{tuple(getattr(weight, 'shape', ()))}, and in the network one of {tuple(layer.weight.shape)}"
        raise ValueError(f"In compressed the layer {name!r} has a weight of shape {shapes}.")
    matrix = weight.detach().double()
    return matrix.T if layer_type(layer) == "transposed" else matrix.flatten(1)


def weight_by(compression: Callable, name: str, W: torch.Tensor, inputs: Inputs) -> torch.Tensor:
    """Return the weight that the user's function makes of one."""
    if inputs.covariance is None:
        raise ValueError(f"A function as compression takes no embeddings: leave {name!r} out by modules.")
    second = inputs.covariance + torch.outer(inputs.mean, inputs.mean)
    given = {"mean": inputs.mean.cpu().numpy(), "second": second.cpu().numpy()}
    found = np.asarray(compression(W.cpu().numpy().copy(), given), dtype=float)
    if found.shape != tuple(W.shape) or not np.isfinite(found).all():
        raise ValueError(
            f"compression has to return finite values of shape {tuple(W.shape)} for the weight of {name!r}; it gave "
            f"shape {found.shape}{'' if np.isfinite(found).all() else ' with NaN or infinity'}."
        )
    return torch.from_numpy(found)


def _check_divides(parameter, value, W, name):
    if value is not None and W.shape[1] % value:
        raise ValueError(
            f"{parameter}={value} does not divide the {W.shape[1]} inputs of the layer {name!r}. Pass a divisor, or "
            "leave the layer out by modules."
        )


# How matrices are stored


def rounded(matrix: torch.Tensor, bits: int, group_size: int | None, dtype: torch.dtype) -> Codes:
    """Return a matrix rounded to the nearest of ``2^bits - 1`` levels, symmetric about 0.

    The largest magnitude of each row, or of each `group_size` columns of it, is the outermost level.
    """
    rows, columns = matrix.shape
    groups = matrix.double().reshape(rows, columns // (group_size or columns), -1)
    top = top_code(bits)
    scales = (groups.abs().amax(2) / top).to(dtype)
    steps = scales.double()[:, :, None]
    levels = torch.where(steps > 0, groups / steps, 0.0).round().clamp(-top, top)
    return Codes(packed((levels + top).to(torch.uint8).flatten(), bits), scales, bits, columns)


def kept_entries(matrix: torch.Tensor, kept: torch.Tensor, dtype: torch.dtype) -> KeptEntries:
    """Return a matrix with zeros but where `kept`, a mask of its shape, is True."""
    values = nn.Parameter(matrix[kept].to(dtype))
    return KeptEntries(packed(kept.flatten().to(torch.uint8), 1), values, tuple(matrix.shape))


def top_code(bits: int) -> int:
    """Return the largest code: codes are symmetric about 0."""
    return 2 ** (bits - 1) - 1


def packed(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Return codes (n,) below ``2^bits``, of type uint8, as bytes that hold `bits` bits of each.

    Where `bits` is no power of two, the lowest bits of all come first, as many as divide a byte, then the next ones.
    """
    parts = []
    for low, width in _fields(bits):
        field = (codes >> low) & (2**width - 1)
        field = F.pad(field, (0, -len(field) % (8 // width))).reshape(-1, 8 // width)
        parts.append((field << _places(width, codes.device)).sum(1, dtype=torch.uint8))
    return torch.cat(parts)


def unpacked(packed: torch.Tensor, bits: int, n_codes: int) -> torch.Tensor:
    """Return the codes (n_codes,) in bytes that :func:`packed` made."""
    fields, start = [], 0
    for low, width in _fields(bits):
        stop = start - (-n_codes * width // 8)
        field = packed[start:stop, None]
        if width < 8:
            field = (field >> _places(width, packed.device)) & (2**width - 1)
        field = field.flatten()[:n_codes]
        fields.append(field << low if low else field)
        start = stop
    return reduce(torch.bitwise_or, fields)


def _fields(bits):
    """Return the lowest bit and the number of bits of the parts of a code, each of which divides a byte."""
    widths = [width for width in (8, 4, 2, 1) if bits & width]
    return [(sum(widths[:i]), width) for i, width in enumerate(widths)]


def _places(width, device):
    return torch.arange(0, 8, width, dtype=torch.uint8, device=device)
