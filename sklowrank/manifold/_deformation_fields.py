"""Fields of displacements on a manifold: small networks that read eigenfunctions, trained to meet a target."""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch

from .._math.neighbors import nearest_neighbors
from ._functional_maps import nearest_codes, spread_rows
from ._laplacians import Spectrum

_SAMPLE = 800  # rows of either shape that a field is trained on
_READ = 30  # eigenfunctions that the field in space reads
_SMOOTH = 12  # eigenfunctions that the field in the spectrum reads
_EDGES = 6  # neighbours whose distances are kept
_CHAMFER = 10.0
_RENEWED = 5  # steps in the spectrum after which partners are found anew
_DECAY = 1e-4  # of the weights of the field in the spectrum


class FieldOptions(NamedTuple):
    """How a field is trained; the names are those of the estimator's parameters."""

    hidden_layer_sizes: tuple[int, ...]
    field_steps: int
    learning_rate: float
    lambda_iso: float


def deformed_in_space(
    points: torch.Tensor, target: torch.Tensor, spectrum: Spectrum, opts: FieldOptions, generator: torch.Generator
) -> torch.Tensor:
    """Return source points moved by a field over the source, so that they cover the target and keep their distances.

    The field reads the lowest eigenfunctions rather than coordinates: sheets that touch in space can part.
    """
    k = min(_READ, len(spectrum.values))
    scale = spectrum.values[k - 1].clamp_min(torch.finfo(points.dtype).tiny)
    inputs = spectrum.functions[:, :k] * torch.exp(-spectrum.values[:k] / scale)
    rows, goal = spread_rows(points, _SAMPLE), target[spread_rows(target, _SAMPLE)]
    some = points[rows]
    rest, near = nearest_neighbors(some, min(_EDGES, len(some) - 1))
    rest = rest.clamp_min(1e-3 * rest.mean())

    def loss(field, step):
        moved = some + field(inputs[rows])
        chamfer = chamfer_distance(moved, goal, closest(moved.detach(), goal))
        lengths = (moved[near] - moved[:, None]).square().sum(2).clamp_min(1e-24).sqrt()
        stretch = (lengths / rest - 1).square().mean()
        return _CHAMFER * chamfer + opts.lambda_iso * (1.0 if step < opts.field_steps / 2 else 0.1) * stretch

    field = trained_field(loss, k, points.shape[1], opts, generator, like=points)
    return points + field(inputs)


def refined_in_spectrum(
    codes: torch.Tensor, target_codes: torch.Tensor, values: torch.Tensor, opts: FieldOptions, generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return codes of source and target, those of the source moved by a field towards those of the target.

    The field reads the lowest codes and moves all of them; high frequencies count less. It allows for what a linear
    map of eigenfunctions cannot follow where shapes are not isometric.
    """
    k = min(_SMOOTH, len(values))
    scale = values[k - 1].clamp_min(torch.finfo(codes.dtype).tiny)
    weight = 1 / (1 + values / scale)
    codes, target_codes = codes * weight, target_codes * weight
    rows, goal = spread_rows(codes, _SAMPLE), target_codes[spread_rows(target_codes, _SAMPLE)]
    some, inputs, pairs = codes[rows], codes[:, :k], None

    def loss(field, step):
        nonlocal pairs
        moved = some + field(inputs[rows])
        pairs = pairs if step % _RENEWED else closest(moved.detach(), goal)
        return chamfer_distance(moved, goal, pairs)

    field = trained_field(loss, k, codes.shape[1], opts, generator, like=codes, weight_decay=_DECAY)
    return codes + field(inputs), target_codes


def closest(points: torch.Tensor, goal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return for each point the closest one of the goal, and for each of the goal the closest point."""
    return nearest_codes(goal, points), nearest_codes(points, goal)


def chamfer_distance(points, goal, pairs) -> torch.Tensor:
    """Return the mean squared distance of points from their partners, of both sides."""
    there = (points - goal[pairs[0]]).square().sum(1).mean()
    return there + (points[pairs[1]] - goal).square().sum(1).mean()


def trained_field(
    loss: Callable, n_inputs: int, n_outputs: int, opts: FieldOptions, generator, *, like, weight_decay=0.0
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a network that has been trained from zero displacements; `loss` takes it and the step."""
    sizes = (n_inputs, *opts.hidden_layer_sizes, n_outputs)
    weights = []
    for fan_in, fan_out in pairwise(sizes):
        drawn = torch.randn(fan_in, fan_out, generator=generator, dtype=like.dtype, device="cpu") / fan_in**0.5
        weights.append(drawn.to(like.device).requires_grad_(True))
        weights.append(like.new_zeros(fan_out).requires_grad_(True))
    with torch.no_grad():
        weights[-2].zero_()

    def field(x):
        for W, b in zip(weights[:-2:2], weights[1:-2:2]):
            x = torch.tanh(x @ W + b)
        return x @ weights[-2] + weights[-1]

    optimizer = torch.optim.AdamW(weights, lr=opts.learning_rate, weight_decay=weight_decay)
    for step in range(opts.field_steps):
        optimizer.zero_grad()
        loss(field, step).backward()
        optimizer.step()
    for weight in weights:
        weight.requires_grad_(False)
    return field


def deformed_by_cpd(points: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return source points moved by coherent point drift, of package pycpd.

    Raises
    ------
    ImportError
        If pycpd is not installed.
    """
    try:
        from pycpd import DeformableRegistration
    except ImportError as error:
        raise ImportError("init='cpd' needs the package pycpd. Install it, or pass init='nearest'.") from error
    some, goal = points[spread_rows(points, _SAMPLE)], target[spread_rows(target, _SAMPLE)]
    drift = DeformableRegistration(X=goal.cpu().numpy(), Y=some.cpu().numpy())
    drift.register()
    kernel = torch.exp(-torch.cdist(points, some).square() / (2 * drift.beta**2))
    return points + kernel @ torch.from_numpy(drift.W).to(points)
