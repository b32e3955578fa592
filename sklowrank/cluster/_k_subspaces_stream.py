"""K-subspaces over blocks of rows: steps over more rows than are held at once, distances, updates by a batch."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import scipy.sparse as sp
import torch

from .._core.iterate import Step
from .._core.rows import concat_blocks, largest_magnitude
from .._math.linalg import power_of_two, signs_of_largest
from .._math.subspaces import nearest_flats, padded_bases, squared_distances
from ._k_subspaces_solver import (
    Flats,
    ScaledRows,
    assign,
    descend,
    last,
    leading,
    share_of_fall,
    shortened,
)
from ._k_subspaces_starts import SubspacesProblem

_LABELS = torch.int32  # of many rows: half of what indices take


class FittedSubspaces(NamedTuple):
    """K fitted subspaces, in units of X, with what is known of their rows."""

    cluster_centers: torch.Tensor  # (K, D)
    bases: list[torch.Tensor]  # (D, n_dims[k]) each
    sketches: list[torch.Tensor]  # times themselves, from the left transposed: second moments about the centres
    counts: torch.Tensor  # (K,), sums of weights
    affinity_matrix: sp.csr_array | None


def subspace_steps(problem: SubspacesProblem) -> Iterator[Step]:
    """Return the steps of the fit: those of all starts, or where there are more rows those of the best on all rows."""
    n_dims, options = problem.n_dims, problem.options
    how = {"centred": options.affine, "batch_size": options.batch_size}
    steps = descend(problem.sample, problem.sample_weights, problem.labels, n_dims, **how)
    return stream(problem.rows, last(steps, options.max_iter), n_dims, **how) if problem.sampled else steps


def distances(rows, means, bases, batch_size):
    """Return the distances (n, K) of all rows from each subspace."""
    unit, size = _unit_and_size(rows, means, bases)
    compute = partial(_distances, means.double() / unit, bases.double(), unit)
    return concat_blocks(rows.gather(compute, size=size, batch_size=batch_size)[0])


def nearest(rows, weights, means, bases, batch_size):
    """Return the nearest subspaces (n,) of rows, and the weighted sum of their squared distances.

    `weights` are None or (n,).
    """
    unit, size = _unit_and_size(rows, means, bases)
    compute = partial(_nearest, means.double() / unit, bases.double(), unit)
    labels, inertia = rows.gather(compute, weights, size=size, batch_size=batch_size)
    return concat_blocks(labels).long(), float(inertia) * unit * unit


def _unit_and_size(rows, means, bases):
    return power_of_two(largest_magnitude(rows), means.abs().amax()), _size(bases)


def _distances(means, bases, unit, X):
    return ([squared_distances(X.double() / unit, means, bases).sqrt() * unit],)


def _nearest(means, bases, unit, X, w):
    labels, distance = nearest_flats(X.double() / unit, means, bases)
    return [labels.to(_LABELS)], distance.sum() if w is None else distance @ w


def stream(
    data: ScaledRows, start: Flats, n_dims: Sequence[int], *, centred: bool, batch_size="auto"
) -> Iterator[Step]:
    """Yield the steps of one descent that holds a block of rows at a time, from subspaces rather than labels.

    One pass over the rows finds the nearest subspaces and the second moments of the next ones. Only labels are kept of
    the rows.
    """
    means, bases = start.means, start.bases
    nobody = torch.zeros(len(data.rows), dtype=_LABELS, device=means.device)
    labels, _, _, moments = sweep(data, means, bases, nobody, batch_size)
    while True:
        means, bases, strengths, counts = flats_of(moments, means, n_dims, centred=centred)
        labels, inertia, before, moments = sweep(data, means, bases, labels, batch_size)
        freed = _reseed(data, means, bases, labels, moments[0], n_dims, centred, batch_size)
        if freed > 0:
            moments = sweep(data, means, bases, labels, batch_size, reassign=False)[3]
        gap = float(share_of_fall(before - inertia + freed, before))
        yield Step(Flats(means, bases, strengths, counts, float(inertia)), gap)
        if gap == 0:
            return


def _reseed(data, means, bases, labels, counts, n_dims, centred, batch_size):
    """Give empty clusters, in place, the rows of the largest distances; return the inertia that this removes."""
    wanted = [(k, n_dims[k] + centred) for k in (counts == 0).nonzero()[:, 0].tolist()]
    freed, count = 0.0, sum(size for _, size in wanted)
    if not wanted:
        return freed
    collect = partial(_worst, data.unit, data.centre, means, bases, count)
    places = torch.arange(len(labels), device=labels.device)
    found = data.rows.gather(collect, data.weights, places, size=_size(bases), batch_size=batch_size)
    distance, weights, at = (torch.cat(part) for part in found)
    order, start = distance.argsort(descending=True)[:count], 0
    for k, size in wanted:
        some, start = order[start : start + size], start + size
        some = some[distance[some] > 0]
        labels[at[some]] = k
        freed += float(distance[some] @ weights[some])
    return freed


def _worst(unit, centre, means, bases, count, X, w, places):
    """The rows of a block that are worst fitted: their squared distances, weights and places."""
    distance = squared_distances(X.double() / unit - centre, means, bases).amin(1)
    if w is not None:
        distance = torch.where(w > 0, distance, 0.0)
    worst = distance.topk(min(count, len(distance))).indices
    return [distance[worst]], [torch.ones_like(distance[worst]) if w is None else w[worst]], [places[worst]]


# The statistics of rows: collected from blocks, added up, and turned into subspaces


def sweep(data: ScaledRows, means, bases, labels, batch_size, *, reassign: bool = True):
    """Return the nearest subspaces (n,), the inertia, that of `labels`, and moments about the means.

    Moments are sums of weights (K,), first moments (K, D) and second moments (K, D, D) of the rows of each subspace, or
    of each label where `reassign` is False.
    """
    collect = partial(_moments, data.unit, data.centre, means, bases, reassign)
    found = data.rows.gather(collect, data.weights, labels, size=_size(bases), batch_size=batch_size)
    labels, inertia, before, *moments = found
    return torch.cat(labels), inertia, before, moments


def _size(bases):
    """Return the bytes that a row takes in a block."""
    K, D, d = bases.shape
    return 8 * (3 * D + 3 * K * (d + 2))


def _moments(unit, centre, means, bases, reassign, X, w, labels):
    """What :func:`sweep` returns, of a block."""
    Z, labels = X.double() / unit - centre, labels.long()
    w = Z.new_ones(len(Z)) if w is None else w
    found, distance, before = assign(Z, w, means[None], bases[None], labels[None], len(Z))
    found = found[0] if reassign else labels
    order = found.argsort(stable=True)
    parts = Z[order].split(torch.bincount(found, minlength=len(means)).tolist())
    shares = w[order].split([len(part) for part in parts])
    moved = [part - mean for part, mean in zip(parts, means)]
    first = torch.stack([share @ part for share, part in zip(shares, moved)])
    second = torch.stack([part.T @ (share[:, None] * part) for share, part in zip(shares, moved)])
    counts = torch.stack([share.sum() for share in shares])
    return [found.to(_LABELS)], distance[0] @ w, before[0], counts, first, second


def flats_of(moments, means, n_dims: Sequence[int], *, centred: bool):
    """Return means, bases, strengths and weights of the best subspaces for moments about `means`."""
    counts, first, second = moments
    shift, second = _central(counts, first, second, centred)
    e, V = torch.linalg.eigh(second)
    d = max(n_dims)
    return means + shift, shortened(V[..., -d:].flip(-1), n_dims), e[:, -d:].flip(-1).clamp(min=0), counts


def _central(counts, first, second, centred):
    """Return how far the means lie from where moments were taken, and the second moments about them."""
    if not centred:
        return torch.zeros_like(first), second
    shift = first / counts.clamp(min=torch.finfo(counts.dtype).tiny)[:, None]
    return shift, second - counts[:, None, None] * shift[:, :, None] * shift[:, None, :]


def absorbed(
    model: FittedSubspaces, rows, weights: torch.Tensor | None, *, affine: bool, batch_size, dtype: torch.dtype
) -> FittedSubspaces:
    """Return a model updated with rows, each assigned to the nearest subspace; it is float64, the result `dtype`.

    The second moments about a centre are ``sketch.T @ sketch``, kept to ``2 * n_dims + 8`` rows by frequent directions:
    the first eigenvalue that is cut off is subtracted from those that stay, so that no direction is overestimated.
    """
    unit = power_of_two(largest_magnitude(rows), model.cluster_centers.abs().amax())
    means, bases = model.cluster_centers / unit, padded_bases(model.bases)
    data = ScaledRows(rows, weights, unit, torch.zeros_like(means[0]))
    former = torch.zeros(len(rows), dtype=_LABELS, device=means.device)
    *_, (counts, first, second) = sweep(data, means, bases, former, batch_size)
    shift, second = _central(counts, first, second, affine)
    directions, sketches, total = list(model.bases), [sketch / unit for sketch in model.sketches], model.counts.clone()
    for k in (counts > 0).nonzero()[:, 0].tolist():
        d = directions[k].shape[1]
        e, V = torch.linalg.eigh(second[k])
        both = total[k] + counts[k]
        between = (total[k] * counts[k] / both).sqrt() * shift[k]
        stacked = torch.cat([sketches[k], e.clamp(min=0).sqrt()[:, None] * V.T, between[None]])
        size = min(2 * d + 8, len(V))
        V, e = leading(stacked, min(size + 1, len(V)))
        e = (e - (e[-1] if len(e) > size else 0)).clamp(min=0)[:size]
        sketches[k] = e.sqrt()[:, None] * V[:, :size].T
        means[k] += shift[k] * (counts[k] / both)
        total[k] = both
        U = V[:, :d]
        directions[k] = U * signs_of_largest(U.mT)
    parts = [part.to(dtype) for part in (*directions, *(sketch * unit for sketch in sketches))]
    return FittedSubspaces((means * unit).to(dtype), parts[: len(total)], parts[len(total) :], total, None)
