"""K-subspaces: the best subspace for each cluster and the nearest one for each row, in turn; many starts at once.

Rows are (n, D) float64 tensors whose squares neither overflow nor vanish. T starts over the same rows are held as
labels (T, n), means (T, K, D) and bases (T, K, D, d) with orthonormal columns, of which those past a subspace's own
dimension are zero.
"""

from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment

from .._core.blocks import in_blocks, rows_per_block
from .._core.iterate import Step
from .._core.rows import RowSource
from .._math.subspaces import coordinates, improved_directions, squared_distances, turned_product

_BYTES = 1 << 25  # of the rows gathered at once for fitting
_MOST_GRAM_ROWS = 5792  # whose products with one another fill 256 MiB
_PASSES = 1
_TRIAL, _SURVIVORS = 5, 0.2  # iterations of all random starts, and the share that goes on
_ROUNDING = 16  # times eps: falls and distances below this share are rounding


class ScaledRows(NamedTuple):
    """Rows in their own units, and the unit and centre with which their squares neither overflow nor vanish."""

    rows: RowSource
    weights: torch.Tensor | None
    unit: float
    centre: torch.Tensor

    def take(self, at) -> torch.Tensor:
        """Return some rows in float64, divided by the unit, less the centre."""
        return self.rows.take(at).double() / self.unit - self.centre


class Flats(NamedTuple):
    """The subspaces of one fit, and the weighted sum of the rows' squared distances from the nearest of them."""

    means: torch.Tensor
    bases: torch.Tensor
    strengths: torch.Tensor  # (K, d) sums of squares along the columns of the bases, descending
    counts: torch.Tensor  # (K,) sums of weights
    inertia: float


def alternate(X, weights, labels, n_dims, *, centred: bool, max_iter: int = 100):
    """Refine the labels (n,) of rows to a fixed point; return means (K, D), bases (K, D, d) and labels.

    `n_dims` is one dimension for all clusters or one for each. The labels returned are those of the nearest
    subspace. Rows of weight 0 do not count.
    """
    dims = [n_dims] * (int(labels.max()) + 1) if isinstance(n_dims, int) else list(n_dims)
    kept = (weights > 0).nonzero()[:, 0]
    steps = descend(X[kept], weights[kept], labels[kept][None], dims, centred=centred)
    flats = last(steps, max_iter)
    return flats.means, flats.bases, squared_distances(X, flats.means, flats.bases).argmin(1)


def random_starts(X, weights, n_clusters, n_dims, n_starts, *, centred: bool, generator, max_iter: int = 100):
    """Return the labels (n,) of the best of several descents from random subspaces, the most promising of which go on.

    Subspaces are improved by block power iteration, at a tenth of the time of the best subspaces for the labels.
    """
    dims = [n_dims] * n_clusters if isinstance(n_dims, int) else list(n_dims)
    kept = (weights > 0).nonzero()[:, 0]
    starts = random_labels(X[kept], weights[kept], dims, n_starts, centred=centred, generator=generator)
    survivors = max(1, round(_SURVIVORS * n_starts))
    steps = descend(X[kept], weights[kept], starts, dims, centred=centred, survivors=survivors, passes=_PASSES)
    flats = last(steps, max_iter)
    return squared_distances(X, flats.means, flats.bases).argmin(1)


def last(steps: Iterator[Step], max_iter: int) -> Flats:
    """Run a descent for `max_iter` steps at most, and return where it ends."""
    for step in islice(steps, max_iter):
        pass
    return step.state


def random_labels(X, weights, n_dims: Sequence[int], n_starts: int, *, centred: bool, generator) -> torch.Tensor:
    """Return labels (T, n) of the nearest of isotropic random subspaces, through random rows if `centred`."""
    K, D = len(n_dims), X.shape[1]
    flats = []
    for _ in range(n_starts):
        directions = torch.randn(K, D, max(n_dims), generator=generator, dtype=X.dtype, device="cpu")
        means = X.new_zeros(K, D)
        if centred:
            chosen = torch.multinomial(weights.cpu(), K, replacement=len(X) < K, generator=generator)
            means = X[chosen.to(X.device)]
        flats.append((means, shortened(torch.linalg.qr(directions.to(X.device)).Q, n_dims)))
    means, bases = (torch.stack(part) for part in zip(*flats))
    nobody = torch.zeros(n_starts, len(X), dtype=torch.long, device=X.device)
    return assign(X, weights, means, bases, nobody)[0]


def descend(
    X,
    weights,
    labels,
    n_dims: Sequence[int],
    *,
    centred: bool,
    batch_size="auto",
    survivors: int | None = None,
    passes: int | None = None,
) -> Iterator[Step]:
    """Yield after each iteration the best of the starts `labels` (T, n), which advance together until none moves.

    After five iterations only the `survivors` with the lowest inertia go on. The gap is the largest share of its
    inertia that a start gains by assigning rows to nearer subspaces. With `passes`, the subspaces of an iteration after
    the first are not the best for their rows, but the former ones after this number of passes of block power iteration.
    """
    if len(set(n_dims)) > 1:
        labels = torch.stack([matching_dims(X, weights, start, n_dims, centred=centred)[start] for start in labels])
    labels = labels.clone()
    T, K, D, d = len(labels), len(n_dims), X.shape[1], max(n_dims)
    means, bases, strengths = X.new_zeros(T, K, D), X.new_zeros(T, K, D, d), X.new_zeros(T, K, d)
    counts, inertia = X.new_zeros(T, K), X.new_full((T,), torch.inf)
    moving = torch.arange(T, device=X.device)
    products = X @ X.T if len(X) <= min(K * D, _MOST_GRAM_ROWS) else None
    for number in count(1):
        former = None if passes is None or number == 1 else (bases[moving], passes)
        fitted = fit_starts(X, weights, labels[moving], n_dims, centred=centred, products=products, former=former)
        means[moving], bases[moving], strengths[moving], counts[moving] = fitted
        found, distance, before = assign(X, weights, *fitted[:2], labels[moving], batch_size)
        inertia[moving] = distance @ weights
        freed = reseed(found, distance, weights, n_dims, centred=centred)
        labels[moving] = found
        share = share_of_fall(before - inertia[moving] + freed, before)
        gap, best = float(share.max()), int(inertia.argmin())
        yield Step(Flats(means[best], bases[best], strengths[best], counts[best], float(inertia[best])), gap)
        moving = moving[share > 0]
        if number == _TRIAL and survivors is not None:
            moving = moving[inertia[moving].argsort(dim=0, stable=True)[:survivors]]
        if not len(moving):
            return


def share_of_fall(fall, before):
    """Return fall / before where it is more than rounding, else 0."""
    moved = fall > _ROUNDING * torch.finfo(fall.dtype).eps * before
    return torch.where(moved, fall / before, torch.zeros_like(fall))


def assign(X, weights, means, bases, labels, batch_size="auto"):
    """Return each start's nearest subspaces (T, n), the squared distances from them, and the inertia (T,) of `labels`.

    Distances that are rounding count as 0, so that rows in several subspaces at once do not change for ever.
    """
    T, K, D, d = bases.shape
    bytes_per_row = 8 * (D + 3 * T * K * (d + 2))
    eps = _ROUNDING * torch.finfo(X.dtype).eps

    def compute(rows):
        R = coordinates(X[rows], means.flatten(0, 1), bases.flatten(0, 1), exact=False)[1]
        span = X[rows].square().sum(1)[:, None] + means.flatten(0, 1).square().sum(1)
        R = R.masked_fill(R.le(eps * span), 0).view(-1, T, K).permute(1, 0, 2)
        distance, found = R.min(2)
        return found, distance, R.gather(2, labels[:, rows, None])[:, :, 0] @ weights[rows]

    block = rows_per_block(batch_size, len(X), bytes_per_row)
    found, distance, before = zip(*in_blocks(compute, len(X), block, bytes_per_row=bytes_per_row))
    return torch.cat(found, 1), torch.cat(distance, 1), torch.stack(before).sum(0)


def reseed(labels, distance, weights, n_dims: Sequence[int], *, centred: bool) -> torch.Tensor:
    """Give empty clusters, in place, the rows of the largest distances; return the inertia that this removes."""
    freed = distance.new_zeros(len(labels))
    for t, k in (counts_of(labels, len(n_dims)) == 0).nonzero().tolist():
        worst = distance[t].topk(min(n_dims[k] + centred, distance.shape[1])).indices
        worst = worst[distance[t, worst] > 0]
        labels[t, worst] = k
        freed[t] += distance[t, worst] @ weights[worst]
        distance[t, worst] = 0
    return freed


def counts_of(labels, K: int) -> torch.Tensor:
    """Return how many rows each start's clusters have, (T, K) on the CPU: shapes and loops depend on them."""
    starts = torch.arange(len(labels), device=labels.device)[:, None]
    return torch.bincount((labels + K * starts).flatten(), minlength=K * len(labels)).view(-1, K).cpu()


def fit_starts(X, weights, labels, n_dims: Sequence[int], *, centred: bool, products=None, former=None):
    """Return means (T, K, D), bases (T, K, D, d), strengths (T, K, d) and weights (T, K) of the best subspaces.

    Clusters of similar size are filled up with zero rows and solved as one batch. Where a cluster has fewer rows than
    columns, `products` (n, n) of all rows with one another save most of the work. With `former` bases (T, K, D, d) and
    a number of passes these are improved instead, see :func:`~sklowrank._math.subspaces.improved_directions`.
    """
    (T, n), K, D, d = labels.shape, len(n_dims), X.shape[1], max(n_dims)
    means, bases, strengths = X.new_zeros(T * K, D), X.new_zeros(T * K, D, d), X.new_zeros(T * K, d)
    total = X.new_zeros(T * K)
    counts = counts_of(labels, K).flatten()
    by_cluster = labels.argsort(dim=1, stable=True).flatten()
    first = (counts.cumsum(0) - counts).to(X.device)
    for part, width in _batches(counts, max(1, _BYTES // (8 * D))):
        part, inside = part.to(X.device), torch.arange(width, device=X.device)
        rows = by_cluster[(first[part, None] + inside).clamp(max=T * n - 1)]
        w = weights[rows] * (inside < counts.to(X.device)[part, None])
        Z, total[part] = X[rows], w.sum(1)
        if centred:
            means[part] = torch.einsum("pm,pmd->pd", w, Z) / total[part, None]
            Z = Z - means[part, None]
        A = w.sqrt()[:, :, None] * Z
        if former is not None:
            bases[part], strengths[part] = improved_directions(A, former[0].flatten(0, 1)[part], former[1])
            continue
        gram = None
        if products is not None and width < D:
            gram = _weighted_gram(products[rows[:, :, None], rows[:, None, :]], w, centred=centred)
        bases[part], strengths[part] = leading(A, d, gram)
    bases, strengths = shortened(bases.view(T, K, D, d), n_dims), strengths.view(T, K, d)
    return means.view(T, K, D), bases, strengths, total.view(T, K)


def _batches(counts, n_rows: int):
    """Yield (positions, width) of clusters, the fullest first, so that each batch gathers about `n_rows` rows."""
    order = counts.argsort(descending=True)
    order = order[: int((counts > 0).sum())]
    while len(order):
        width = int(counts[order[0]])
        yield order[: max(1, n_rows // width)], width
        order = order[max(1, n_rows // width) :]


def _weighted_gram(G, w, *, centred: bool):
    """Return the Gram matrices (p, m, m) of rows centred by their weighted mean and scaled, from those of the rows."""
    if centred:
        share = w / w.sum(1, keepdim=True)
        to_mean = (G @ share[:, :, None])[:, :, 0]
        G = G - to_mean[:, :, None] - to_mean[:, None, :] + (share * to_mean).sum(1)[:, None, None]
    return w.sqrt()[:, :, None] * G * w.sqrt()[:, None, :]


def leading(A, n_dims: int, gram=None):
    """Return the top right singular vectors (..., D, n_dims) of A (..., m, D), and their squared singular values.

    Through the smaller Gram matrix, or `gram` if it is known. Where A has a lower rank, further orthonormal directions
    with value 0 complete the set; they depend on the others alone and not on rounding.
    """
    m, D = A.shape[-2:]
    if m >= D:
        e, V = torch.linalg.eigh(A.mT @ A)
        return V[..., -n_dims:].flip(-1), e[..., -n_dims:].flip(-1).clamp(min=0)
    e, V = torch.linalg.eigh(A @ A.mT if gram is None else gram)
    e, V = e[..., -n_dims:].flip(-1), V[..., -n_dims:].flip(-1)
    e = e * (e > m * torch.finfo(e.dtype).eps * e[..., :1])
    scaled = V * torch.where(e > 0, e, torch.inf).rsqrt()[..., None, :]
    U = turned_product(A, scaled)
    spare = n_dims - U.shape[-1]
    U = torch.nn.functional.pad(U, (0, spare))
    return torch.linalg.qr(U).Q, torch.nn.functional.pad(e, (0, spare))


def shortened(bases, n_dims: Sequence[int]):
    """Return the bases (..., K, D, d) with the columns past each subspace's dimension set to zero."""
    if min(n_dims) == max(n_dims):
        return bases
    column = torch.arange(bases.shape[-1], device=bases.device)
    kept = column < torch.tensor(list(n_dims), device=bases.device)[:, None]
    return bases * kept[:, None, :]


def matching_dims(X, weights, labels, n_dims: Sequence[int], *, centred: bool) -> torch.Tensor:
    """Return new numbers (K,) for the labels, with which the given dimensions leave least of them unexplained."""
    K, d = len(n_dims), max(n_dims)
    strengths = fit_starts(X, weights, labels[None], [d] * K, centred=centred)[2][0]
    explained = strengths.cumsum(1)[:, [d - 1 for d in n_dims]].cpu().numpy()
    new = linear_sum_assignment(explained, maximize=True)[1]  # the first part is 0, 1, ..., K - 1
    return torch.from_numpy(new).to(labels.device)
