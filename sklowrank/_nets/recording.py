"""Layers of a module by name, and what reaches and leaves them: the walk, the recorder, and second moments of rows.

A linear layer is taken as ``rows @ weight.T + bias``: a convolution of the patches of its input, each position a row;
an embedding of one-hot rows.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from .._core.fitted import update_attributes
from .._core.warn import warn
from .calls import Calls

_CONVOLUTIONS: dict[type, str] = {nn.Conv1d: "conv1d", nn.Conv2d: "conv2d", nn.Conv3d: "conv3d"}


class Moments(NamedTuple):
    """Number, mean and scatter about it of rows, in float64."""

    n_rows: int
    mean: torch.Tensor  # (d,)
    scatter: torch.Tensor  # (d, d): the sum of squares about the mean

    @property
    def covariance(self) -> torch.Tensor:
        """The covariance (d, d)."""
        return self.scatter / max(1, self.n_rows)

    @property
    def second(self) -> torch.Tensor:
        """The uncentred second moment (d, d)."""
        return self.covariance + torch.outer(self.mean, self.mean)


class Selected(NamedTuple):
    """Layers of a module that are to be changed, in the order in which a pass reaches them first."""

    names: list[str]
    tied: list[str]  # left alone, because they share weights


class LayerReport(list):
    """What was done to each layer: a list of dicts, which notebooks show as a table."""

    def to_frame(self) -> Any:
        """Return the report as a pandas DataFrame; ranks are integers or missing."""
        import pandas as pd

        frame = pd.DataFrame(list(self))
        return frame.astype({"rank": "Int64"}) if "rank" in frame else frame

    def _repr_html_(self):
        try:
            return self.to_frame()._repr_html_()
        except ImportError:
            return None


def layer_type(layer: nn.Module) -> str | None:
    """Return "linear", "conv1d", "conv2d", "conv3d" or "embedding", or None for a layer of another kind.

    Subclasses are of another kind, since their forward pass may be another, but for the layer of transformers whose
    weight is (in, out): "transposed". So are layers whose weight is computed of others, changed by each call, or not
    real, and those of torch.jit. Attention is "MultiheadAttention" where keys and values are as wide as queries, and
    none are added.
    """
    if type(layer) is nn.MultiheadAttention:
        plain = layer._qkv_same_embed_dim and layer.bias_k is None and not layer.add_zero_attn
        return "MultiheadAttention" if plain else None
    weight = None if isinstance(layer, torch.jit.ScriptModule) else layer._parameters.get("weight")
    if not isinstance(weight, nn.Parameter) or not weight.is_floating_point():
        return None
    if type(layer) is nn.Linear:
        return "linear"
    if type(layer) is nn.Embedding:
        return "embedding" if layer.max_norm is None else None
    if type(layer).__name__ == "Conv1D" and hasattr(layer, "nf") and getattr(layer.weight, "ndim", 0) == 2:
        return "transposed"
    return _CONVOLUTIONS.get(type(layer))


def select_layers(
    module: nn.Module,
    calls: Calls,
    *,
    types: Sequence[str],
    modules: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    grouped: bool = False,
) -> Selected:
    """Return the layers of some types whose names match a pattern of `modules` and none of `exclude`.

    Layers that share a weight with another one are left alone, with a warning; those that no pass reaches or that have
    hooks, and convolutions in groups unless `grouped`, silently.

    Raises
    ------
    ValueError
        If a pattern matches no layer, or no layer is left.
    """
    known: dict[str, Any] = {name: layer for name, layer in module.named_modules() if layer_type(layer) in types}
    wanted, unwanted = patterns_of("modules", modules), patterns_of("exclude", exclude)
    for parameter, patterns in (("modules", wanted), ("exclude", unwanted)):
        for pattern in patterns or ():
            if not any(fnmatchcase(name, pattern) for name, _ in module.named_modules()):
                there = ", ".join(known) or "no layer of these types"
                raise ValueError(f"{parameter}={pattern!r} matches no layer of the network, which has {there}.")
    names = [
        name
        for name, layer in known.items()
        if (wanted is None or any(fnmatchcase(name, pattern) for pattern in wanted))
        and not any(fnmatchcase(name, pattern) for pattern in unwanted or ())
        and (grouped or getattr(layer, "groups", 1) == 1)
        and not (layer._forward_hooks or layer._forward_pre_hooks)
    ]
    uses = Counter(id(p) for _, p in module.named_parameters(remove_duplicate=False))
    tied = [name for name in names if any(uses[id(p)] > 1 for p in known[name].parameters())]
    if tied:
        warn(f"Layers with tied weights are left as they are: {', '.join(tied)}.", UserWarning)
    names = reached(module, calls, [name for name in names if name not in tied])
    if not names:
        others = {name: _described(m) for name, m in module.named_modules() if list(m.parameters(recurse=False))}
        there = ", ".join(f"{name or 'itself'} ({kind})" for name, kind in others.items() if name not in known)
        raise ValueError(
            f"No layer is left to be changed: of types {', '.join(types)} the network has "
            f"{', '.join(known) or 'no layer'}; of others {there or 'none'}. Change modules or exclude."
        )
    return Selected(names, tied)


def _described(layer):
    """Return the type of a layer, and for attention why it is not taken."""
    kind = type(layer).__name__
    if type(layer) is not nn.MultiheadAttention:
        return kind
    given = {
        f"kdim={layer.kdim}, vdim={layer.vdim}": not layer._qkv_same_embed_dim,
        "add_bias_kv=True": layer.bias_k is not None,
        "add_zero_attn=True": layer.add_zero_attn,
    }
    options = ", ".join(name for name, is_given in given.items() if is_given)
    return f"{kind} with {options}" if options else kind


def patterns_of(parameter: str, value: Any) -> list[str] | None:
    """Return a parameter with a name, a pattern or several of them as a list.

    Raises
    ------
    ValueError
        If one of them is no string; the error names the parameter.
    """
    patterns = [value] if isinstance(value, str) else None if value is None else list(value)
    for pattern in patterns or ():
        if not isinstance(pattern, str):
            raise ValueError(f"{parameter} has {pattern!r}, which is no str: pass names of layers or patterns.")
    return patterns


def reached(module: nn.Module, calls: Calls, names: Sequence[str]) -> list[str]:
    """Return the names of layers that rows reach, in the order in which they do so first."""
    order: list[str] = []
    behind: list[str] = []  # the layers that the current call has reached

    def see(name, layer, args, out):
        if not _is_empty(out):
            if name not in order:
                order.insert(max((order.index(former) for former in behind), default=-1) + 1, name)
            behind.append(name)

    with watching(module, names, see), torch.inference_mode():
        for size in (2, 64):  # the first rows mostly reach all layers; others may take other ways
            for args, kwargs in calls.batches(size, device_of(module)):
                module(*args, **kwargs)
                behind.clear()
                if size == 2:
                    break
            if len(order) == len(names):
                break
    return order


def _is_empty(out):
    """Return whether the output of a layer has no rows; attention layers give tuples."""
    first = out if isinstance(out, torch.Tensor) else out[0]
    return isinstance(first, torch.Tensor) and not first.numel()


@contextmanager
def watching(module: nn.Module, names: Sequence[str], see: Callable[[str, nn.Module, tuple, Any], None]) -> Iterator:
    """Call ``see(name, layer, arguments, output)`` in the block after each call of the named layers.

    Torch's transformer layers have a path in eval mode on which they do not call their parts: hooks close it, but that
    of the whole encoder, for which its layers count as being in training; their parts do not.
    """

    def hook(name):
        return lambda layer, args, kwargs, out: see(name, layer, (*args, *kwargs.values()), out)

    hooks = [module.get_submodule(name).register_forward_hook(hook(name), with_kwargs=True) for name in names]
    encoders = [m for m in module.modules() if isinstance(m, nn.TransformerEncoderLayer) and not m.training]
    try:
        for encoder in encoders:
            encoder.training = True
        yield
    finally:
        for encoder in encoders:
            encoder.training = False
        for handle in hooks:
            handle.remove()


def run(module: nn.Module, calls: Calls, size: int) -> None:
    """Pass all rows through a module for what hooks see, without gradients."""
    with torch.inference_mode():
        for args, kwargs in calls.batches(size, device_of(module)):
            module(*args, **kwargs)


def device_of(module: nn.Module) -> torch.device:
    """Return where the parameters of a module are."""
    return next((p.device for p in module.parameters()), torch.device("cpu"))


def moments(
    module: nn.Module,
    calls: Calls,
    names: Sequence[str],
    rows: Callable[[nn.Module, tuple, torch.Tensor], torch.Tensor],
    size: int,
) -> dict[str, Moments]:
    """Return the moments of the rows (n, d) that ``rows(layer, args, output)`` makes of each call of the named layers.

    A layer that a pass reaches several times pools its rows; one that no row reaches has none. Nothing of the size of
    the rows is kept.
    """
    return calls.gather(module, partial(_moments_of_calls, list(names), rows, size), partial(merged_by_name, merged))


def _moments_of_calls(names, rows, size, module, calls):
    found: dict[str, Moments] = {}

    def see(name, layer, args, out):
        if _is_empty(out):
            return
        now = moments_of(rows(layer, args, out))
        found[name] = merged(found[name], now) if name in found else now

    with watching(module, names, see):
        run(module, calls, size)
    return found


def merged_by_name(merge: Callable, a: dict, b: dict) -> dict:
    """Return what was found of layers by either pass, merged where it was by both."""
    return {name: merge(a[name], b[name]) if name in a and name in b else (a | b)[name] for name in a | b}


def moments_of(rows: torch.Tensor) -> Moments:
    """Return the moments of rows (n, d)."""
    rows = rows.double()
    mean = rows.mean(0)
    centred = rows - mean
    return Moments(len(rows), mean, centred.T @ centred)


def merged(a: Moments, b: Moments) -> Moments:
    """Return the moments of the rows of both."""
    n = a.n_rows + b.n_rows
    gap = b.mean - a.mean
    mean = a.mean + gap * (b.n_rows / n)
    return Moments(n, mean, a.scatter + b.scatter + torch.outer(gap, gap) * (a.n_rows * b.n_rows / n))


def output_rows(layer: Any, args: tuple, out: torch.Tensor) -> torch.Tensor:
    """Return the outputs of a layer as rows (n, out): of a convolution each position is one."""
    if layer_type(layer) in _CONVOLUTIONS.values():
        out = out.movedim(1 - layer.weight.ndim, -1)
    return out.reshape(-1, out.shape[-1])


def input_rows(layer: Any, args: tuple, out: torch.Tensor) -> torch.Tensor:
    """Return what a layer multiplies its weight with as rows (n, in): of a convolution without groups its patches."""
    x = args[0]
    if layer_type(layer) in _CONVOLUTIONS.values():
        return patches(layer, x).reshape(-1, math.prod(layer.weight.shape[1:]))
    return x.reshape(-1, x.shape[-1])


def patches(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """Return what a convolution multiplies its weight with: patches (n, positions, channels, kernel)."""
    n_axes = len(layer.kernel_size)
    x = x if x.ndim == n_axes + 2 else x[None]
    sides: list[int] = []
    for k, d, p in zip(layer.kernel_size, layer.dilation, _paddings(layer)):
        before, after = (d * (k - 1) // 2, d * (k - 1) - d * (k - 1) // 2) if p == "same" else (p, p)
        sides = [before, after, *sides]  # torch's order begins with the last axis
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = nn.functional.pad(x, sides, mode=mode)
    for axis, (k, d, s) in enumerate(zip(layer.kernel_size, layer.dilation, layer.stride)):
        x = x.unfold(2 + axis, d * (k - 1) + 1, s)[..., ::d]
    x = x.movedim(1, n_axes + 1)  # (n, *positions, channels, *kernel)
    return x.flatten(1, n_axes).flatten(3)


def _paddings(layer):
    if layer.padding == "valid":
        return [0] * len(layer.kernel_size)
    return ["same"] * len(layer.kernel_size) if layer.padding == "same" else layer.padding


def weight_matrix(layer: Any) -> torch.Tensor:
    """Return the weight as a matrix (out, in) in float64; that of an embedding is (rows, width)."""
    weight = layer.weight.detach().double()
    return weight.T if layer_type(layer) == "transposed" else weight.flatten(1)


def give_matrix(layer: Any, matrix: torch.Tensor) -> None:
    """Give a layer a weight by its matrix, in the precision and on the device that it has."""
    matrix = matrix.T if layer_type(layer) == "transposed" else matrix
    with torch.no_grad():
        layer.weight.copy_(matrix.reshape(layer.weight.shape))


def keep_sizes(new: nn.Module, layer: nn.Module) -> None:
    """Give what replaces a layer its sizes, strides and the like, such as `in_features`: code may read them."""
    update_attributes(new, {name: getattr(layer, name) for name in getattr(layer, "__constants__", ())})
