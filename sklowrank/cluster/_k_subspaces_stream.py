"""K-subspaces over more rows than are held at once: blocks of rows, second moments, sketches of them."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from .._core.blocks import in_blocks, rows_per_block
from .._core.iterate import Step
from .._core.linalg import signs_of_largest
from .._core.subspaces import squared_distances
from ._k_subspaces_solver import Flats, assign, leading, reseed, share_of_fall, shortened


class Data(NamedTuple):
    """Rows as the user gave them, with what makes them fit for squaring."""

    X: torch.Tensor
    weights: torch.Tensor
    unit: float
    centre: torch.Tensor

    def load(self, rows) -> torch.Tensor:
        """Return some rows in float64, centred and of moderate size."""
        return self.X[rows].double() / self.unit - self.centre


def power_of_two(*tensors: torch.Tensor) -> float:
    """Return a power of two near the largest magnitude of some tensors: dividing by it rounds nothing off."""
    largest = max(float(torch.stack(t.aminmax()).abs().max()) for t in tensors)
    return math.ldexp(1.0, math.frexp(largest)[1] - 1) if largest > 0 else 1.0


def distances(X, means, bases, batch_size):
    """Return an iterator of squared distances (b, K) of blocks of rows of X, and the unit whose square they are in."""
    K, D, d = bases.shape
    unit, bytes_per_row = power_of_two(X, means), 8 * (3 * D + 3 * K * (d + 2))
    means, bases = means.double() / unit, bases.double()

    def compute(rows):
        return squared_distances(X[rows].double() / unit, means, bases)

    block = rows_per_block(batch_size, len(X), bytes_per_row)
    return in_blocks(compute, len(X), block, bytes_per_row=bytes_per_row), unit


def nearest(X, means, bases, batch_size):
    """Return the nearest flats (n,) of rows, their squared distances (n,), and the unit whose square these are in."""
    blocks, unit = distances(X, means, bases, batch_size)
    distance, labels = zip(*(R.min(1) for R in blocks))
    return torch.cat(labels), torch.cat(distance), unit


def stream(data: Data, start: Flats, n_dims: Sequence[int], *, centred: bool, batch_size="auto") -> Iterator[Step]:
    """Yield the steps of one descent that holds a block of rows at a time, from flats rather than labels.

    One pass over the rows finds the nearest flats and the second moments of the next ones.
    """
    means, bases, weights = start.means, start.bases, data.weights
    labels = torch.zeros(len(weights), dtype=torch.long, device=weights.device)
    labels, distance, before, moments = sweep(data, means, bases, labels, batch_size)
    while True:
        means, bases, strengths, counts = flats_of(moments, means, n_dims, centred=centred)
        labels, distance, before, moments = sweep(data, means, bases, labels, batch_size)
        inertia = distance @ weights
        freed = reseed(labels[None], distance[None], weights, n_dims, centred=centred)[0]
        if freed > 0:
            moments = sweep(data, means, bases, labels, batch_size, reassign=False)[3]
        gap = float(share_of_fall(before - inertia + freed, before))
        yield Step(Flats(means, bases, strengths, counts, float(inertia)), gap)
        if gap == 0:
            return


def sweep(data: Data, means, bases, labels, batch_size, *, reassign: bool = True):
    """Return the nearest flats (n,), squared distances, the inertia of `labels`, and moments about the flats' means.

    Moments are sums of weights (K,), first moments (K, D) and second moments (K, D, D) of the rows of each flat, or of
    each label where `reassign` is False.
    """
    K, D, d = bases.shape
    bytes_per_row = 8 * (3 * D + 3 * K * (d + 2))

    def compute(rows):
        Z, w = data.load(rows), data.weights[rows]
        found, distance, before = assign(Z, w, means[None], bases[None], labels[None, rows], len(Z))
        found = found[0] if reassign else labels[rows]
        order = found.argsort(stable=True)
        parts = Z[order].split(torch.bincount(found, minlength=K).tolist())
        shares = w[order].split([len(part) for part in parts])
        moved = [part - mean for part, mean in zip(parts, means)]
        first = torch.stack([share @ part for share, part in zip(shares, moved)])
        second = torch.stack([part.T @ (share[:, None] * part) for share, part in zip(shares, moved)])
        return found, distance[0], before[0], torch.stack([share.sum() for share in shares]), first, second

    block = rows_per_block(batch_size, len(labels), bytes_per_row)
    found, distance, sums = [], [], None
    for labelled, away, *more in in_blocks(compute, len(labels), block, bytes_per_row=bytes_per_row):
        found.append(labelled)
        distance.append(away)
        sums = more if sums is None else [total.add_(part) for total, part in zip(sums, more)]
    before, *moments = sums
    return torch.cat(found), torch.cat(distance), before, moments


def flats_of(moments, means, n_dims: Sequence[int], *, centred: bool):
    """Return means, bases, strengths and weights of the best flats for moments about `means`."""
    counts, first, second = moments
    if centred:
        shift = first / counts.clamp(min=torch.finfo(counts.dtype).tiny)[:, None]
        second = second - counts[:, None, None] * shift[:, :, None] * shift[:, None, :]
        means = means + shift
    e, V = torch.linalg.eigh(second)
    d = max(n_dims)
    return means, shortened(V[..., -d:].flip(-1), n_dims), e[:, -d:].flip(-1).clamp(min=0), counts


def absorb(X, weights, labels, means, bases, sketch, total, n_dims: Sequence[int], *, centred: bool):
    """Add labelled rows to their clusters, in place: means, bases, sketches and sums of weights."""
    unit = power_of_two(X, means)
    for k in labels[weights > 0].unique().tolist():
        rows = ((labels == k) & (weights > 0)).nonzero()[:, 0]
        Z, mean, known = (part.double() / unit for part in (X[rows], means[k], sketch[k]))
        known, total[k], mean, U = _added(known, total[k], mean, Z, weights[rows], n_dims[k], centred=centred)
        means[k], sketch[k] = mean * unit, (known * unit).to(X.dtype)
        bases[k, :, : n_dims[k]] = U * signs_of_largest(U.mT)


def _added(sketch, weight, mean, Z, w, n_dims: int, *, centred: bool):
    """Add rows Z (m, D) with weights w to the sketch (l, D) of a cluster; return sketch, weight, mean and basis (D, d).

    The second moments about the mean are ``sketch.T @ sketch``, kept to ``2 * n_dims + 8`` rows by frequent directions:
    what is cut off is taken off the rows that stay, too, so that no direction is overrated.
    """
    added = w.sum()
    rows = [sketch, w.sqrt()[:, None] * Z]
    if centred:
        shift = w @ Z / added - mean
        rows[1] = w.sqrt()[:, None] * (Z - mean - shift)
        rows.append((weight * added / (weight + added)).sqrt() * shift[None])
        mean = mean + shift * (added / (weight + added))
    stacked = torch.cat(rows)
    size = min(2 * n_dims + 8, Z.shape[1])
    V, e = leading(stacked, min(size + 1, Z.shape[1]))
    e = (e - (e[-1] if len(e) > size else 0)).clamp(min=0)[:size]
    return e.sqrt()[:, None] * V[:, :size].T, weight + added, mean, V[:, :n_dims]
