"""Bars of many flag filtrations at once, and the vectors that are made of them."""

from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import pad

from .._core.blocks import in_blocks, rows_per_block
from ._filtrations import Complexes

LONGEST = 1.5  # death of bars that never end, in units of the box
WIDEST = 0.9  # offset of the outermost diagonals
_ROUNDING = 1e-10  # by which an edge may be longer than max_edge
_SLOTS = 30  # loops that one word of 32 bits has room for, beside its sign
_THERE = -(2**31)  # the sign bit


class LineOptions(NamedTuple):
    """What is computed on which lines."""

    degrees: tuple[int, ...]
    resolution: tuple[int, int]
    sigma: float
    weight_power: float
    backend: str


class Bars(NamedTuple):
    """Bars of one degree."""

    item: torch.Tensor  # to which filtration they belong
    birth: torch.Tensor
    death: torch.Tensor


class Filtrations(NamedTuple):
    """One-parameter filtrations of flag complexes, those with the most edges first, and their edges in order."""

    vertices: torch.Tensor  # (n_items, n), when vertices appear
    ends: torch.Tensor  # (2, most_edges, n_items), the ends of the edges
    values: torch.Tensor  # (most_edges, n_items), when edges appear
    counts: torch.Tensor  # (n_items,), number of edges, descending, on the CPU


def line_offsets(n_lines: int) -> np.ndarray:
    """Return the offsets c of the diagonals (t + c/2, t - c/2), from the upper left to the lower right."""
    return np.linspace(-WIDEST, WIDEST, n_lines)


def bytes_of_lines(n_lines: int, n_vertices: int) -> int:
    """Return the memory that the filtrations of one object need, in bytes: their edges, and the bits of each."""
    return 10 * n_lines * n_vertices**2


def line_vectors(complexes: Complexes, chosen: LineOptions) -> torch.Tensor:
    """Return the vectors of complexes, (n_objects, n_degrees, n_lines, n_times)."""
    n_lines, n_times = chosen.resolution
    lengths, second = complexes
    c = torch.from_numpy(line_offsets(n_lines)).to(lengths.device)
    filtrations, order = on_lines(lengths, second, c)
    find = bars_by_gudhi if chosen.backend == "gudhi" else bars_by_sweep
    found = find(filtrations, loops=1 in chosen.degrees)
    shape = (len(lengths), n_lines, n_times)
    parts = [
        bar_sums(found[degree], len(lengths) * n_lines, n_times, chosen.sigma, chosen.weight_power).view(shape)
        for degree in chosen.degrees
    ]
    vectors = torch.empty((len(lengths), len(parts), n_lines, n_times), dtype=lengths.dtype, device=lengths.device)
    vectors[order] = torch.stack(parts, dim=1)
    return vectors


def on_lines(lengths, second, c) -> tuple[Filtrations, torch.Tensor]:
    """Return the filtrations ``max(r - c/2, f + c/2)`` of complexes on lines, and the order of the objects in them."""
    m, n = second.shape
    i, j = torch.triu_indices(n, n, 1, device=lengths.device)
    r, edge = lengths[:, i, j].sort(dim=1)
    counts = (r <= 1 + _ROUNDING).sum(1)
    order = counts.argsort(descending=True, stable=True)
    counts, most = counts[order], int(counts.max()) if m else 0
    r, edge, second = r[order, :most], edge[order, :most], second[order]
    r = torch.where(torch.arange(most, device=r.device) < counts[:, None], r, torch.inf)
    latest = torch.maximum(second.gather(1, i[edge]), second.gather(1, j[edge]))
    half = c[:, None] / 2
    values, place = torch.maximum(r[:, None] - half, latest[:, None] + half).sort(dim=2)
    edge = edge[:, None].expand_as(place).gather(2, place).view(m * len(c), most).T.contiguous()
    return Filtrations(
        vertices=torch.maximum(-half, second[:, None] + half).view(-1, n),
        ends=torch.stack([i[edge], j[edge]]),
        values=values.view(m * len(c), most).T.contiguous(),
        counts=counts.repeat_interleave(len(c)).cpu(),
    ), order


# Bars


def bars_by_sweep(filtrations: Filtrations, *, loops: bool = True) -> list[Bars]:
    """Return the bars of degrees 0 and 1, with one pass over the edges of all filtrations together.

    Components are merged as by Kruskal, the younger one dies. The cycles modulo boundaries are held as sets of loops
    that are alive, one bit each: an edge without triangle between vertices that are connected is a new loop, and an
    edge with triangles is the sum of the other two edges of one of them. Where another of its triangles says otherwise,
    the youngest loop in the difference dies: it is replaced by the others in all edges.
    """
    vertices, ends, values, counts = filtrations
    b, n = vertices.shape
    births, component = vertices.clone(), torch.arange(n, device=vertices.device).repeat(b, 1)
    state = _Loops(b if loops else 0, n, vertices)
    merged = []
    active = [int(k) for k in torch.searchsorted(-counts, -torch.arange(len(values), device=counts.device))]
    for step, a in enumerate(active):
        i, j, value = ends[0, step, :a], ends[1, step, :a], values[step, :a]
        of_i, of_j = (component[:a].gather(1, k[:, None])[:, 0] for k in (i, j))
        apart = of_i != of_j
        if loops:
            state.add_edge(i, j, value, apart)
        item = apart.nonzero()[:, 0]
        if len(item):
            of_i, of_j = of_i[item], of_j[item]
            older = births[item, of_i] <= births[item, of_j]
            kept, gone = torch.where(older, of_i, of_j), torch.where(older, of_j, of_i)
            merged.append(Bars(item, births[item, gone], value[item]))
            births[item, gone] = torch.inf
            part = component.index_select(0, item)
            component[item] = torch.where(part == gone[:, None], kept[:, None], part)
    return [_with_endless(merged, births), _with_endless(state.ended, state.births)]


class _Loops:
    """The loops that are alive in each filtration, and each edge as a sum of loops, modulo boundaries.

    A sum is a set of bits in words of 32 bits, of which the sign of the first says that the edge is there.
    """

    def __init__(self, n_items, n, like):
        self.edges = torch.zeros((n_items, n, 1, n), dtype=torch.int32, device=like.device)
        self.births = torch.full((n_items, _SLOTS), torch.inf, dtype=like.dtype, device=like.device)  # inf: free
        self.starts = torch.arange(n_items, device=like.device) * n
        self.ended = []

    def add_edge(self, i, j, value, apart):
        """Add an edge to each of the first filtrations; `apart` says where it joins two components."""
        rows, (from_i, from_j) = self.edges.flatten(0, 1), (self.starts[: len(k)] + k for k in (i, j))
        sums, others = rows.index_select(0, from_i), rows.index_select(0, from_j)
        common = (sums[:, 0] & others[:, 0]) >> 31  # all bits where a vertex is joined to both ends
        sums.bitwise_xor_(others)
        has, first = common.min(dim=1)
        loops = sums.gather(2, first[:, None, None].expand(-1, sums.shape[1], 1))[:, :, 0] & has[:, None]
        differences = (sums ^ loops[:, :, None]).bitwise_and_(common[:, None])
        new = (has == 0).logical_and_(~apart).nonzero()[:, 0]
        if len(new):
            loops = self._begin(new, value, loops)
            differences = pad(differences, (0, 0, 0, loops.shape[1] - differences.shape[1]))
        loops[:, 0] |= _THERE
        rows = self.edges.flatten(0, 1)
        rows[from_i, :, j] = loops
        rows[from_j, :, i] = loops
        unequal = differences.amax(dim=(1, 2)).nonzero()[:, 0]
        while len(unequal):
            unequal = self._end(unequal, value, differences)

    def _begin(self, item, value, loops):
        """Start a loop in each of some filtrations, and return the loops of all edges with these among them."""
        taken = self.births.index_select(0, item) < torch.inf
        if taken.all(dim=1).any():  # no free slot: one more word for all
            self.births = torch.cat([self.births, torch.full_like(self.births[:, :_SLOTS], torch.inf)], dim=1)
            self.edges = torch.cat([self.edges, torch.zeros_like(self.edges[:, :, :1])], dim=2)
            loops = torch.cat([loops, torch.zeros_like(loops[:, :1])], dim=1)
            taken = self.births.index_select(0, item) < torch.inf
        slot = taken.byte().argmin(dim=1)
        self.births[item, slot] = value[item]
        loops[item, slot // _SLOTS] = (1 << (slot % _SLOTS)).int()
        return loops

    def _end(self, item, value, differences):
        """End the youngest loop of one difference in each of some filtrations; return where others are left.

        Wherever the loop is part of an edge, the rest of the difference takes its place.
        """
        left = differences.index_select(0, item)
        column = left.amax(dim=1).argmax(dim=1)
        members = left.gather(2, column[:, None, None].expand(-1, left.shape[1], 1))[:, :, 0]
        inside = ((members[:, :, None] >> torch.arange(_SLOTS, device=left.device)) & 1).flatten(1).bool()
        births = self.births.index_select(0, item)[:, : inside.shape[1]]
        youngest = torch.where(inside, births, -torch.inf).argmax(dim=1)
        self.ended.append(Bars(item, births.gather(1, youngest[:, None])[:, 0], value[item]))
        self.births[item, youngest] = torch.inf
        bit = torch.zeros_like(members)
        bit.scatter_(1, (youngest // _SLOTS)[:, None], (1 << (youngest % _SLOTS)[:, None]).int())
        k, i, _, j = (self.edges.index_select(0, item) & bit[:, None, :, None]).nonzero(as_tuple=True)
        self.edges[item[k], i, :, j] ^= members[k]
        k, _, j = (left & bit[:, :, None]).nonzero(as_tuple=True)
        left[k, :, j] ^= members[k]
        differences[item] = left
        return item[left.amax(dim=(1, 2)).nonzero()[:, 0]]


def _with_endless(ended, births):
    """Return bars that have ended and, with death inf, those whose births are still there."""
    item, place = births.isfinite().nonzero(as_tuple=True)
    endless = Bars(item, births[item, place], torch.full_like(births[item, place], torch.inf))
    return Bars(*map(torch.cat, zip(*ended, endless)))


def bars_by_gudhi(filtrations: Filtrations, *, loops: bool = True) -> list[Bars]:
    """Return the bars of degrees 0 and 1 as gudhi finds them, one filtration after the other."""
    try:
        import gudhi
    except ImportError as error:
        cure = "Install it with: pip install 'sklowrank[topology]', or use backend='native'."
        raise ImportError(f"backend='gudhi' needs gudhi. {cure}") from error

    vertices, values = filtrations.vertices.cpu().numpy(), filtrations.values.cpu().numpy()
    ends, found = filtrations.ends.cpu().numpy(), ([], [])
    for item, count in enumerate(filtrations.counts.tolist()):
        born = vertices[item]
        i, j = ends[:, :count, item]
        matrix = np.full((len(born), len(born)), np.inf)
        matrix[i, j] = matrix[j, i] = values[:count, item]
        np.fill_diagonal(matrix, born)
        there = np.isfinite(born)
        latest = float(matrix[np.isfinite(matrix)].max())
        tree = gudhi.SimplexTree.create_from_array(matrix[np.ix_(there, there)], max_filtration=latest)
        if loops:
            tree.expansion(2)
        tree.compute_persistence(homology_coeff_field=2, persistence_dim_max=True)
        for degree in (0, 1) if loops else (0,):
            pairs = tree.persistence_intervals_in_dimension(degree).reshape(-1, 2)
            found[degree].append(np.column_stack([np.full(len(pairs), item), pairs]))
    tables = [np.concatenate(part) if part else np.empty((0, 3)) for part in found]
    tables = [torch.from_numpy(table).to(filtrations.vertices.device) for table in tables]
    return [Bars(table[:, 0].long(), table[:, 1], table[:, 2]) for table in tables]


# Vectors


def bar_sums(bars: Bars, n_items: int, n_times: int, sigma: float, power: float) -> torch.Tensor:
    """Return for each filtration the sum of its bars at times, (n_items, n_times).

    A bar counts by the power of its length, and at time t by ``clip(1 + min(t - birth, death - t) / sigma, 0, 1)``.
    """
    death = bars.death.clamp(max=LONGEST)
    lasts = death > bars.birth
    item, birth, death = bars.item[lasts], bars.birth[lasts], death[lasts]
    t = torch.linspace(0, 1, n_times, dtype=birth.dtype, device=birth.device)
    total = torch.zeros((n_items, n_times), dtype=birth.dtype, device=birth.device)

    def shares(rows):
        b, d = birth[rows, None], death[rows, None]
        depth = torch.minimum(t - b, d - t)
        return item[rows], (d - b) ** power * (1 + depth / sigma).clamp(0, 1)

    bytes_per_row = 32 * n_times
    block = rows_per_block("auto", len(item), bytes_per_row)
    for place, share in in_blocks(shares, len(item), block, bytes_per_row=bytes_per_row):
        total.index_add_(0, place, share)
    return total
