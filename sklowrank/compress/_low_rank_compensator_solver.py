"""Paths of low rank beside compressed weights: layers and their inputs, directions of the error, ranks."""

import copy
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import nn

from .._core.rows import merge_sum
from .._core.validation import is_integer
from .._math.linalg import signs_of_largest
from .._nets.calls import Calls
from .._nets.recording import (
    LayerReport,
    Moments,
    device_of,
    give_matrix,
    input_rows,
    keep_sizes,
    layer_type,
    merged_by_name,
    moments,
    patterns_of,
    run,
    select_layers,
    watching,
    weight_matrix,
)
from ._compensated_layers import CompensatedLayer, form_of, n_bytes
from ._compressed_weights import Inputs, Part, matrix_of, rounded

BLOCK = 64  # rows that are passed through the network at once
_FLOOR = 1e-10  # of the largest variance of an input: directions without any are ordered by the weights' own error


class PathOptions(NamedTuple):
    """What is added to compressed weights."""

    rank: int | str | dict[str, int]
    budget: float | None
    method: str
    correct_bias: bool
    merge: bool
    adapter_bits: int | None


Compress = Callable[[Any, str, Inputs], Part]  # the compressed weight of a layer, by its name and inputs


def compensate(
    module: nn.Module, calls: Calls, names: Sequence[str], compress: Compress, options: PathOptions
) -> LayerReport:
    """Compress layers of a module in place and give each a path; return what became of each.

    They follow in the order of a pass. The inputs of a layer are those behind the layers that were compensated before
    it. Layers that are given the same tensor share a pass.
    """
    groups = same_inputs(module, calls, names)
    ranks = ranks_of(module, calls, groups, compress, options)
    report = LayerReport()
    for group in groups:
        inputs = inputs_of(module, calls, group, options)
        for name in group:
            layer = module.get_submodule(name)
            found, row = compensated(layer, name, inputs[name], ranks[name], compress, options)
            module.set_submodule(name, found)
            report.append(row)
    return report


def compensated(
    layer: Any, name: str, inputs: Inputs, rank: int, compress: Compress, options: PathOptions
) -> tuple[nn.Module, dict[str, Any]]:
    """Return the compensated layer and its row of the report."""
    base, form, dtype = compress(layer, name, inputs), form_of(layer), layer.weight.dtype
    D = E = output_error(layer, base)
    centred = shifts_bias(layer, options)
    path = None
    if rank:
        U = leading_directions(D, inputs, options.method, centred=centred)[1][:, :rank]
        path = path_of(D, U, options.adapter_bits, dtype)
    found: Any = CompensatedLayer(form, base, path, getattr(layer, "bias", None))
    keep_sizes(found, layer)
    if rank:
        B, A = found.path
        E = D - B.detach().double() @ A.detach().double()
    if centred:
        shift = E @ inputs.mean
        found.bias = nn.Parameter((shift if found.bias is None else found.bias.detach() + shift).to(dtype))
    variance = mean_square(output_matrix(layer), inputs, centred=True)
    found = merged(layer, found) if options.merge else found
    row = {
        "name": name,
        "type": form.kind,
        "shape": form.shape,
        "rank": rank,
        "error_before": _share(mean_square(D, inputs, centred=False), variance),
        "error": _share(mean_square(E, inputs, centred=centred), variance),
        "nbytes_before": n_bytes(layer),
        "nbytes": n_bytes(found),
    }
    return found.requires_grad_(layer.weight.requires_grad), row


def shifts_bias(layer: Any, options: PathOptions) -> bool:
    """Return whether a bias takes the mean of the error; the padding of an embedding goes on adding nothing."""
    return options.correct_bias and getattr(layer, "padding_idx", None) is None


def merged(layer: Any, found: CompensatedLayer) -> nn.Module:
    """Return a layer of the original's kind with the weight of the compressed one and its path."""
    plain = copy.deepcopy(layer)
    matrix = found.weight.detach().double()
    give_matrix(plain, matrix.T if found.form.kind == "transposed" else matrix.reshape(len(matrix), -1))
    if found.form.kind != "embedding":  # its weight has the bias in it
        plain.bias = found.bias
    return plain


def _share(part, whole):
    return float(part / whole) if part > 0 else 0.0


# The layers and their inputs


def layers_to_take(module: nn.Module, calls: Calls, modules: str | Sequence[str] | None) -> list[str]:
    """Return the names of the layers that are compressed, in the order of a pass."""
    patterns = patterns_of("modules", modules) or []
    wanted = [pattern for pattern in patterns if not pattern.startswith("!")]
    unwanted = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    types = ("linear", "transposed", "conv1d", "conv2d", "conv3d", *("embedding",) * bool(wanted))
    names = select_layers(module, calls, types=types, modules=wanted or None).names
    names = names if wanted else names[:-1]
    for pattern in unwanted:
        if not any(fnmatchcase(name, pattern) for name, _ in module.named_modules()):
            raise ValueError(f"modules='!{pattern}' matches no layer of the network.")
    names = [
        name
        for name in names
        if name  # a network that is one layer has no place in which another could be put
        and not any(fnmatchcase(name, pattern) for pattern in unwanted)
        and getattr(module.get_submodule(name), "max_norm", None) is None
    ]
    if not names:
        raise ValueError(
            f"No layer is left to be compressed with modules={modules!r}. The last layer is taken only if a pattern of "
            "modules names it, and a network that is a single layer within torch.nn.Sequential."
        )
    return names


def same_inputs(module: nn.Module, calls: Calls, names: Sequence[str]) -> list[list[str]]:
    """Return the names in groups of layers that follow one another and are given the same tensor, once each."""
    seen: list[tuple[str, Any, int]] = []
    args, kwargs = next(calls.batches(2, device_of(module)))
    with torch.no_grad(), watching(module, names, lambda name, layer, args, out: seen.append((name, *_state(args[0])))):
        module(*args, **kwargs)
    given = [name for name, _, _ in seen]
    once = {name: (id(x), version) for name, x, version in seen if given.count(name) == 1}
    return [list(group) for _, group in groupby(names, key=lambda name: once.get(name, name))]


def _state(x):
    return x, 0 if x.is_inference() else x._version


def inputs_of(module: nn.Module, calls: Calls, group: Sequence[str], options: PathOptions) -> dict[str, Inputs]:
    """Return what is known of the inputs of layers, by their names."""
    layers = {name: module.get_submodule(name) for name in group}
    linear = [name for name in group if layer_type(layers[name]) in ("linear", "transposed")]
    alone = [*linear[:1], *(name for name in group if layer_type(layers[name]) in ("conv1d", "conv2d", "conv3d"))]
    found: dict[str, Inputs] = {}
    if alone:
        measured = moments(module, calls, alone, input_rows, BLOCK)
        sizes = magnitudes(module, calls, alone) if options.method == "activation_scale" else {}
        none = {name: _no_rows(layers[name]) for name in alone}  # behind compensated layers rows may take other ways
        found = {
            name: Inputs(value.mean, value.covariance, sizes.get(name)) for name, value in (none | measured).items()
        }
    if linear:  # they are given the same rows
        found |= dict.fromkeys(linear, found[linear[0]])
    return found | {name: frequencies(module, calls, name) for name in group if name not in found}


def _no_rows(layer):
    """Return the moments of the inputs of a layer that no row reaches."""
    size = output_matrix(layer).shape[1]
    zeros = torch.zeros(size + 1, size, dtype=torch.float64, device=layer.weight.device)
    return Moments(0, zeros[0], zeros[1:])


def magnitudes(module: nn.Module, calls: Calls, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return the means of the magnitudes of the inputs."""
    sums = calls.gather(module, partial(_magnitude_sums, list(names)), partial(merged_by_name, merge_sum))
    return {name: total / max(1, count) for name, (total, count) in sums.items()}


def _magnitude_sums(names, module, calls):
    sums: dict[str, Any] = {}

    def see(name, layer, args, out):
        rows = input_rows(layer, args, out).double().abs()
        total, count = sums.get(name, (0.0, 0))
        sums[name] = total + rows.sum(0), count + len(rows)

    with watching(module, names, see):
        run(module, calls, BLOCK)
    return sums


def frequencies(module: nn.Module, calls: Calls, name: str) -> Inputs:
    """Return how often each row of an embedding is asked for."""
    total = calls.gather(module, partial(_lookups, name), torch.add).double()
    return Inputs(total / total.sum().clamp(min=1), None)


def _lookups(name, module, calls):
    table = module.get_submodule(name).weight
    counts = torch.zeros(len(table), dtype=torch.int64, device=table.device)

    def see(name, layer, args, out):
        counts.add_(torch.bincount(args[0].flatten(), minlength=len(counts)))

    with watching(module, [name], see):
        run(module, calls, BLOCK)
    return counts


# The path


def output_matrix(layer: Any) -> torch.Tensor:
    """Return the matrix that multiplies the inputs (out, in); those of an embedding are one-hot."""
    matrix = weight_matrix(layer)
    return matrix.T if layer_type(layer) == "embedding" else matrix


def output_error(layer: Any, base: Part) -> torch.Tensor:
    """Return what the compressed weight lacks, (out, in)."""
    error = weight_matrix(layer) - matrix_of(base).detach().double()
    return error.T if layer_type(layer) == "embedding" else error


def leading_directions(
    D: torch.Tensor, inputs: Inputs, method: str, *, centred: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how much of the error of the outputs lies along its principal directions, and these as columns.

    With the moment M of the inputs in the metric of the method, these are the eigenvalues and eigenvectors U of
    ``D M D'``. Of all matrices of rank r ``U_r U_r' D`` comes nearest to D in that metric.
    """
    basis = None
    if D.shape[0] > D.shape[1]:
        basis, D = torch.linalg.qr(D)
    values, U = torch.linalg.eigh(moment_of_outputs(D, inputs, method, centred=centred))
    values, U = values.flip(0).clamp(min=0), U.flip(1)
    return values, U if basis is None else basis @ U


def moment_of_outputs(D: torch.Tensor, inputs: Inputs, method: str, *, centred: bool) -> torch.Tensor:
    """Return D M D' for the moment M of the inputs that a method takes: about the mean where a bias takes the mean."""
    if method == "svd":
        return D @ D.T
    if method == "activation_scale":
        scaled = D * (inputs.mean if inputs.magnitude is None else inputs.magnitude)
        return scaled @ scaled.T
    shift = D @ inputs.mean
    if inputs.covariance is None:
        found = (D * (inputs.mean + _FLOOR * inputs.mean.max())) @ D.T
        return found - torch.outer(shift, shift) if centred else found
    largest = inputs.covariance.diagonal().max()
    found = D @ inputs.covariance @ D.T + _FLOOR * torch.where(largest > 0, largest, 1.0) * (D @ D.T)
    return found if centred else found + torch.outer(shift, shift)


def mean_square(E: torch.Tensor, inputs: Inputs, *, centred: bool) -> torch.Tensor:
    """Return the mean of the squared lengths of the rows times E', about their mean if wanted."""
    shift = (E @ inputs.mean).square().sum()
    if inputs.covariance is None:
        second = (E.square() @ inputs.mean).sum()
        return second - shift if centred else second
    found = ((E @ inputs.covariance) * E).sum()
    return found if centred else found + shift


def path_of(D: torch.Tensor, U: torch.Tensor, bits: int | None, dtype: torch.dtype) -> tuple[Part, Part]:
    """Return B (out, r) and A (r, in), whose product is the projection of D on the directions U, of equal norms."""
    A = U.T @ D
    norms = A.norm(dim=1)
    roots = torch.where(norms > 0, norms, 1.0).sqrt() * signs_of_largest(U.T)
    B, A = U * roots, A / roots[:, None]
    if bits is None:
        return nn.Parameter(B.to(dtype)), nn.Parameter(A.to(dtype))
    return rounded(B.T, bits, None, dtype), rounded(A, bits, None, dtype)


def ranks_of(
    module: nn.Module,
    calls: Calls,
    groups: Sequence[Sequence[str]],
    compress: Compress,
    options: PathOptions,
) -> dict[str, int]:
    """Return the rank of the path of each layer.

    Raises
    ------
    ValueError
        If a dict has ranks of other layers, or others than integers of at least 0.
    """
    layers = {name: module.get_submodule(name) for group in groups for name in group}
    shapes = {name: tuple(output_matrix(layer).shape) for name, layer in layers.items()}
    if options.rank != "auto":
        wanted = options.rank if isinstance(options.rank, dict) else dict.fromkeys(layers, options.rank)
        for name, rank in wanted.items():
            if name not in layers:
                raise ValueError(f"rank has the layer {name!r}, which is not taken. Taken are: {', '.join(layers)}.")
            if not is_integer(rank, 0):
                raise ValueError(f"rank={{{name!r}: {rank!r}}} has to be an integer of at least 0.")
        return {name: min(wanted.get(name, 0), *shapes[name]) for name in layers}
    gains: dict[str, torch.Tensor] = {}
    for group in groups:
        inputs = inputs_of(module, calls, group, options)
        for name in group:
            layer, rows = layers[name], inputs[name]
            D = output_error(layer, compress(layer, name, rows))
            gain = leading_directions(D, rows, options.method, centred=shifts_bias(layer, options))[0]
            variance = mean_square(output_matrix(layer), rows, centred=True)
            gains[name] = gain / variance if variance > 0 else 0 * gain
    return spread_ranks(gains, shapes, options.budget)


def spread_ranks(gains: dict[str, torch.Tensor], shapes: dict[str, tuple[int, int]], budget: float) -> dict[str, int]:
    """Return ranks by the largest gains per entry: the paths have at most a share `budget` of the entries of weights.

    `gains` are in descending order, so that each step of a layer follows the one before it.
    """
    left = budget * sum(rows * columns for rows, columns in shapes.values())
    steps = [(-gain / sum(shapes[name]), name) for name, values in gains.items() for gain in values.tolist()]
    ranks = dict.fromkeys(gains, 0)
    for loss, name in sorted(steps, key=lambda step: step[0]):
        if loss < 0 and sum(shapes[name]) <= left:
            left -= sum(shapes[name])
            ranks[name] += 1
    return ranks
