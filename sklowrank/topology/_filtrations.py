"""Two functions on clouds and graphs: the length of edges, and a value of vertices, in units of the training box."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from .._core.blocks import in_blocks, rows_per_block
from ._objects import Cloud, Graph, Objects

QUANTILES = (0.01, 0.99)  # of the second values: the ends of the box
_REACH = 0.9  # quantile of the enclosing radii beyond which there are no edges
_WIDTH = 0.25  # of the kernel, in median distances
_ROUNDING = 1e-13  # relative differences of second values below it are none
_COPIES = 4  # of the distances, that are held at once


class ScaleOptions(NamedTuple):
    """What the scales are, or how they are found."""

    second: str | Callable[..., Any]
    bandwidth: float | str
    max_edge: float | str


class Scales(NamedTuple):
    """The box of the training objects, and the width of the kernel, in units of X."""

    box: torch.Tensor  # (2, 2), the ranges of lengths and of second values, float64
    bandwidth: float | None  # None where there is no kernel
    max_edge: float


class Complexes(NamedTuple):
    """Flag complexes: lengths of edges, and the second value of vertices."""

    lengths: torch.Tensor  # (n_objects, n, n), inf where there is no edge
    second: torch.Tensor  # (n_objects, n), inf behind the last vertex of an object


class _Distances(NamedTuple):
    """Distances from the vertices of clouds to their points, of which the first are the vertices."""

    values: torch.Tensor  # (n_objects, n_vertices, n_points), inf behind the last
    n_vertices: torch.Tensor  # (n_objects,)
    n_points: torch.Tensor


# Scales


def fit_scales(objects: Objects, chosen: ScaleOptions, ws) -> Scales:
    """Return the scales of training objects; what is found of them has their units."""
    if isinstance(objects[0], Graph):
        reach, width = 2 * max(graph.lengths.max(initial=0.0) for graph in objects), None
    else:
        reach, width = _sizes(objects, ws)
    max_edge = float(reach or 1.0) if chosen.max_edge == "auto" else float(chosen.max_edge)
    if width is not None:
        width = float(width or max_edge) if chosen.bandwidth == "auto" else float(chosen.bandwidth)
    bandwidth = width if chosen.second == "codensity" else None

    def values(place):
        second = complexes_of([objects[k] for k in place], chosen.second, bandwidth, max_edge, ws).second
        return second[second.isfinite()].cpu().numpy()

    low, high = _range(np.concatenate(list(over_blocks(objects, values))))
    box = torch.tensor([[0.0, max_edge], [low, high]], dtype=torch.float64, device=ws.device)
    return Scales(box, bandwidth, max_edge)


def _sizes(clouds, ws):
    """Return a quantile of the enclosing radii of clouds, and a share of their median distances."""
    unit = max(np.abs(cloud.points).max() for cloud in clouds) or 1.0

    def of_block(place):
        distances, n_vertices, n_points = _distances([clouds[k] for k in place], unit, ws)
        k = distances.shape[1]
        farthest = torch.where(distances.isfinite(), distances, 0.0)[:, :, :k].amax(2)
        farthest.masked_fill_(_behind(n_vertices, k), torch.inf)
        medians = [_median(d[:v, :p]) for d, v, p in zip(distances, n_vertices.tolist(), n_points.tolist())]
        return torch.stack([farthest.amin(1), torch.stack(medians)]).cpu().numpy()

    radius, median = np.concatenate(list(over_blocks(clouds, of_block)), axis=1)
    reach = np.quantile(radius, _REACH) or radius.max()
    return unit * reach, unit * _WIDTH * (np.median(median) or reach)


def _median(distances):
    """Return the median of the distances from vertices to other points: each vertex has one distance 0 to itself."""
    k, n = distances.shape
    if n == 1:
        return distances[0, 0]
    flat, count = distances.flatten(), k * (n - 1)
    return (flat.kthvalue(k + (count + 1) // 2).values + flat.kthvalue(k + count // 2 + 1).values) / 2


def _range(values):
    """Return the ends of the box: quantiles, the whole range where these are equal, and never a range of width 0."""
    low, high = np.quantile(values, QUANTILES)
    size = np.abs(values).max()
    if high - low <= _ROUNDING * size:
        low, high = values.min(), values.max()
    if high - low <= _ROUNDING * size:
        high = low + (size or 1.0)
    return float(low), float(high)


# Blocks of objects


def over_blocks(objects: Objects, compute: Callable[[np.ndarray], Any], bytes_each=lambda n: 0) -> Iterator[Any]:
    """Yield what `compute` makes of the positions of objects of similar size, the largest first.

    `bytes_each` says how much memory it needs for each object of n vertices, beside the distances.
    """
    order = np.argsort([-thing.n_points for thing in objects], kind="stable")
    start = 0
    while start < len(order):
        largest = objects[order[start]]
        size = bytes_each(largest.n_vertices) + 8 * _COPIES * largest.n_vertices * largest.n_points
        place = order[start : start + rows_per_block("auto", len(order), size)]
        yield from in_blocks(lambda rows, of=place: compute(of[rows]), len(place), len(place), bytes_per_row=size)
        start += len(place)


# Lengths and values


def in_box(objects: Objects, second: Any, scales: Scales, ws) -> Complexes:
    """Return the complexes of objects in units of the box."""
    found = complexes_of(objects, second, scales.bandwidth, scales.max_edge, ws)
    low, high = scales.box[1]
    return found._replace(second=(found.second - low) / (high - low))


def complexes_of(objects: Objects, second: Any, bandwidth: float | None, max_edge: float, ws) -> Complexes:
    """Return the complexes of objects: lengths in units of `max_edge`, second values in their own."""
    if isinstance(objects[0], Graph):
        return Complexes(_edge_lengths(objects, ws) / max_edge, _values(objects, ws))
    distances = _distances(objects, max_edge, ws)
    k = distances.values.shape[1]
    if objects[0].values is not None:
        values = _values(objects, ws)
    elif second == "eccentricity":
        near = torch.where(distances.values.isfinite(), distances.values, 0.0)
        values = max_edge * near.sum(2) / distances.n_points[:, None]
    else:
        kernel = torch.exp(-0.5 * (distances.values * (max_edge / bandwidth)).square())
        values = -torch.log(kernel.sum(2) / distances.n_points[:, None])
    values = torch.where(_behind(distances.n_vertices, k), torch.inf, values)
    return Complexes(distances.values[:, :, :k], values)


def _distances(clouds: list[Cloud], unit: float, ws) -> _Distances:
    """Return the distances in clouds, in a unit in which their squares neither overflow nor vanish."""
    sizes = [torch.tensor(count, device=ws.device) for count in zip(*[(c.n_vertices, c.n_points) for c in clouds])]
    points = np.zeros((len(clouds), int(sizes[1].max()), clouds[0].points.shape[1]))
    for row, cloud in zip(points, clouds):
        row[: cloud.n_points] = cloud.points
    points = torch.from_numpy(points / unit).to(ws.device)
    k = int(sizes[0].max())
    values = torch.cdist(points[:, :k], points, compute_mode="donot_use_mm_for_euclid_dist")
    values.masked_fill_(_behind(sizes[0], k)[:, :, None], torch.inf)
    values.masked_fill_(_behind(sizes[1], points.shape[1])[:, None, :], torch.inf)
    return _Distances(values, *sizes)


def _edge_lengths(graphs: list[Graph], ws) -> torch.Tensor:
    """Return the lengths of the edges of graphs, inf where there is none."""
    n = max(graph.n_vertices for graph in graphs)
    lengths = torch.full((len(graphs), n, n), torch.inf, dtype=torch.float64, device=ws.device)
    for row, graph in zip(lengths, graphs):
        i, j = torch.from_numpy(graph.ends).to(ws.device)
        row[i, j] = row[j, i] = torch.from_numpy(graph.lengths).to(ws.device)
    return lengths


def _values(objects, ws):
    """Return the values of the vertices of objects, inf behind the last."""
    values = np.full((len(objects), max(thing.n_vertices for thing in objects)), np.inf)
    for row, thing in zip(values, objects):
        row[: thing.n_vertices] = thing.values
    return torch.from_numpy(values).to(ws.device)


def _behind(sizes, n):
    """Return where positions are behind the last vertex or point of an object, (n_objects, n)."""
    return torch.arange(n, device=sizes.device) >= sizes[:, None]
