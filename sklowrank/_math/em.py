"""Expectation maximisation of a mixture of low-rank Gaussians, over rows that are read in blocks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import NamedTuple

import torch

from .._core.iterate import Step
from .._core.rows import Rows, RowSource, merge_sum
from .mixtures import LowRankGaussians, log_joint, responsibilities
from .scatter import NEGLIGIBLE, about_means, image_sums, positive, scatter_sums, sums_within
from .subspaces import improved_directions

_WIDE = 512  # features above which streamed rows are sketched: a scatter matrix per component would be too large
_SURPLUS = 8  # columns of the sketch beyond the dimension
_FIRST = 100  # rows whose mean is a first guess of the centre
_NEAR = 1e-3  # nats a row: an iteration that gains less is near the end
_REACH = 50  # iterations in which a run that is behind could reach the best
_CONVERGED = 1e-7  # nats a row: the gain of an iteration at which a start is left as it is
_RESEEDS = 5  # times that components with too few rows get new ones


# The rows


@dataclass(frozen=True)
class CentredRows:
    """Float64 rows less `shift`, so that their mean is near the origin, with weights."""

    rows: RowSource
    weights: torch.Tensor | None  # (n,)
    shift: torch.Tensor  # (D,)
    generator: torch.Generator | None = None  # draws the sketches

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def total(self) -> float:
        """Sum of the weights."""
        return float(len(self) if self.weights is None else self.weights.sum())

    def gather(self, compute: Callable, *aligned, width: int, merge: Callable = merge_sum):
        """Return the merged results of ``compute(block, weights, *aligned)``.

        `width` is the number of values that a row has at work besides its features.
        """
        shifted = partial(_on_shifted, compute, self.shift)
        return self.rows.gather(shifted, self.weights, *aligned, size=self._size(width), merge=merge)

    def fit_in_one_block(self, width: int) -> bool:
        """Return whether `gather` would take all rows at once."""
        return self.rows.fit_in_one_block(self._size(width))

    def take(self, at) -> torch.Tensor:
        """Return some rows, a slice or positions (m,)."""
        return self.rows.take(at).to(self.shift) - self.shift

    def _size(self, width):
        return 32 * (len(self.shift) + width)


def _on_shifted(compute, shift, X, w, *aligned):
    return compute(X.to(shift) - shift, w, *aligned)


def centred_rows(
    rows: RowSource, weights: torch.Tensor | None, *, affine: bool, device, generator=None
) -> tuple[CentredRows, float, float]:
    """Return rows less their weighted mean, or with ``affine=False`` as they are, their mean variance, and rounding.

    The variance is the mean over features, about the origin unless `affine`. Rounding is that of the largest entry.
    """
    origin = torch.zeros(rows.shape[1], dtype=torch.float64, device=device)
    if affine:  # one pass is accurate about a point amid the rows
        origin = rows.take(slice(0, _FIRST)).to(origin).mean(0)
    guess = CentredRows(rows, weights, origin, generator)
    first, second, largest = guess.gather(partial(_scale, origin), width=0, merge=_merged_scale)
    first, second = first / guess.total, second / guess.total
    variance = float((second - first.square() if affine else second).mean())
    centre = origin + first if affine else origin
    return CentredRows(rows, weights, centre, generator), variance, torch.finfo(torch.float64).eps * float(largest)


def _scale(origin, Z, w):
    """Sums of a block: of rows, of their squares; and the largest entry of rows with a weight."""
    weighted = weigh(Z, w)
    X = (Z if w is None else Z[w > 0]) + origin
    return weighted.sum(0), weigh(Z.square(), w).sum(0), X.abs().amax() if X.numel() else X.new_zeros(())


def _merged_scale(a, b):
    return a[0] + b[0], a[1] + b[1], torch.maximum(a[2], b[2])


def weigh(values: torch.Tensor, w: torch.Tensor | None) -> torch.Tensor:
    """Return values by row (n, ...) times the weights of their rows."""
    return values if w is None else w.view(-1, *[1] * (values.ndim - 1)) * values


def least_noise(share: float, variance: float, rounding: float) -> float:
    """Return the floor of the noise variances: a share of the mean variance, but not below rounding."""
    return max(share * variance, rounding**2, torch.finfo(torch.float64).tiny ** 0.5)


def mean_log_likelihood(rows: CentredRows, model: LowRankGaussians) -> float:
    """Return the mean log density of the rows."""
    return float(rows.gather(partial(_log_likelihood, model), width=model.variances.numel())[0]) / rows.total


def _log_likelihood(model, Z, w):
    return (weigh(log_joint(Z, model).logsumexp(1), w).sum(),)


class MixtureForm(NamedTuple):
    """The parameters of a mixture that are free."""

    n_dims: tuple[int, ...]  # dimension of each component
    affine: bool  # free means
    isotropic: bool  # one signal variance per component
    shared: bool  # one noise variance for all components
    uniform: bool  # equal weights
    floor: float  # of the noise variances

    @property
    def width(self) -> int:
        """Number of coordinates that a row has in all components together."""
        return len(self.n_dims) * max(self.n_dims)


# M-step: the best model for given responsibilities


class Moments(NamedTuple):
    """What the M-step reads of each component's weighted scatter matrix S_k = sum w z z' / sum w."""

    mass: torch.Tensor  # (K,)
    means: torch.Tensor  # (K, D), or zeros
    bases: torch.Tensor  # (K, D, d), leading eigenvectors
    eigenvalues: torch.Tensor  # (K, d)
    traces: torch.Tensor  # (K,)


def maximised(moments: Moments, form: MixtureForm) -> LowRankGaussians:
    """Return the maximiser of the expected log-likelihood.

    Directions whose variance falls below a shared noise are averaged into it: the noise variance is the root of an
    increasing convex function, to which Newton's steps converge from above.
    """
    mass, means, bases, e, traces = moments
    D = means.shape[1]
    d = torch.tensor(form.n_dims, dtype=e.dtype, device=e.device)
    real = torch.arange(e.shape[1], device=e.device) < d[:, None]
    tails = (traces - e.sum(1)).clamp(min=0)
    if form.isotropic:
        e = (e.sum(1) / d)[:, None] * real

    if form.shared:
        s = (mass @ tails) / (mass @ (D - d))
        for _ in range(8):
            noise_like = (real & (e < s)).to(e)
            s = (mass @ (tails + (noise_like * e).sum(1))) / (mass @ (D - d + noise_like.sum(1)))
        s = s.expand(len(mass))
    else:
        s = tails / (D - d)
    s = s.clamp(min=form.floor)
    weights = torch.ones_like(mass) if form.uniform else mass.clamp(min=torch.finfo(mass.dtype).tiny)
    return LowRankGaussians(weights / weights.sum(), means, bases, (e - s[:, None]).clamp(min=0) * real, s)


# E-step: responsibilities of rows by a model or by labels, and the moments under them


def by_posterior(model: LowRankGaussians, Z, w):
    """Assign rows by the model."""
    R, total = responsibilities(log_joint(Z, model))
    return weigh(R, w), weigh(total, w).sum()


def by_label(K: int, Z, w, labels):
    """Assign rows to their labels."""
    return weigh(torch.nn.functional.one_hot(labels, K).to(Z), w), Z.new_zeros(())


def moments_by(
    rows: CentredRows, assign: Callable, about: torch.Tensor, form: MixtureForm, frames=None, aligned=(), *, exact=True
):
    """Return the moments under responsibilities, and the log-likelihood of all rows.

    ``assign(Z, w, *aligned)`` returns the responsibilities of a block of rows (b, K), times their weights, and the
    log-likelihood of the block. Sums are taken about points `about` (K, D). The moments are exact where one block holds
    all rows or D is at most 512; otherwise, and unless `exact`, by one step of block power iteration from the former
    bases `frames` (K, D, d), in which the likelihood does not fall either.
    """
    former = None if exact else frames
    if rows.fit_in_one_block(form.width):
        collect = partial(_moments_of_block, assign, form, former)
        found = rows.gather(collect, *aligned, width=form.width, merge=_not_merged)
        if found is not None:
            return found
    if about.shape[1] <= _WIDE:
        return _moments_by_scatter(rows, assign, about, form, aligned, former)
    return _moments_by_sketch(rows, assign, about, form, frames, aligned)


def _not_merged(a, b):
    """Return None for moments of two blocks: the device ran out of memory for one block of all rows."""
    return None


def _moments_of_block(assign, form, frames, Z, w, *aligned):
    R, bound = assign(Z, w, *aligned)
    return moments_of(Z, R, form, frames), bound


def moments_of(Z: torch.Tensor, R: torch.Tensor, form: MixtureForm, frames: torch.Tensor | None = None) -> Moments:
    """Return the moments of rows Z (n, D) under responsibilities R (n, K).

    The bases are those of the leading eigenvectors, or `frames` (K, D, d) after one step of block power iteration.
    """
    K, D, width = R.shape[1], Z.shape[1], max(form.n_dims)
    means, bases = Z.new_zeros(K, D), Z.new_zeros(K, D, width)
    e, traces = Z.new_zeros(K, width), Z.new_zeros(K)
    mass = R.sum(0)
    for k, d in enumerate(form.n_dims):
        members = (R[:, k] > NEGLIGIBLE).nonzero()[:, 0]
        Y, w = (Z, R[:, k]) if len(members) == len(Z) else (Z[members], R[members, k])
        w = w / mass[k].clamp(min=torch.finfo(mass.dtype).tiny)
        if form.affine:
            means[k] = w @ Y
            Y = Y - means[k]
        if frames is None:
            bases[k, :, :d], e[k, :d] = leading_directions(Y, w, d)
        else:
            bases[k, :, :d], e[k, :d] = improved_directions(w.sqrt()[:, None] * Y, frames[k, :, :d])
        traces[k] = w @ Y.square().sum(1)
    return Moments(mass, means, bases, e, traces)


def leading_directions(Z: torch.Tensor, weights: torch.Tensor, n_dims: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the top eigenvectors (D, n_dims) and eigenvalues (n_dims,) of ``Z.T @ diag(weights) @ Z`` for rows Z.

    Through the smaller of the two Gram matrices. Directions beyond the rank of Z complete an orthonormal set, with
    eigenvalue 0.
    """
    n, D = Z.shape
    A = weights.sqrt()[:, None] * Z
    S = Z.T @ (weights[:, None] * Z) if n >= D else A @ A.T
    e, V = torch.linalg.eigh(S)
    count = min(n, n_dims)
    e, V = e[-count:].flip(0).clamp(min=0), V[:, -count:].flip(1)
    if n >= D:
        return V, e
    U = A.T @ V / e.clamp(min=torch.finfo(e.dtype).tiny).sqrt()
    spare = U.new_zeros(D, n_dims - count)
    return torch.linalg.qr(torch.cat([U, spare], 1)).Q, torch.cat([e, spare[0]])


def _moments_by_scatter(rows, assign, about, form, aligned, frames):
    mass, first, second, bound = rows.gather(partial(scatter_sums, assign, about), *aligned, width=form.width)
    means, second = about_means(mass, first, second, about, affine=form.affine)
    traces = second.diagonal(dim1=1, dim2=2).sum(1)
    if frames is None:
        e, V = torch.linalg.eigh(second)
        width = max(form.n_dims)
        e, V = e[:, -width:].flip(1).clamp(min=0), V[:, :, -width:].flip(2)
        return _cut(Moments(mass, means, V, e, traces), form), bound
    bases, e = torch.zeros_like(frames), torch.zeros_like(frames[:, 0])
    for k, d in enumerate(form.n_dims):
        U = torch.linalg.qr(second[k] @ frames[k, :, :d]).Q
        values, V = torch.linalg.eigh(U.T @ second[k] @ U)
        bases[k, :, :d], e[k, :d] = U @ V.flip(1), values.flip(0).clamp(min=0)
    return Moments(mass, means, bases, e, traces), bound


def _moments_by_sketch(rows, assign, about, form, frames, aligned):
    K, D = about.shape
    shape = K, D, min(D, max(form.n_dims) + _SURPLUS)
    Q = torch.randn(shape, generator=rows.generator, dtype=about.dtype, device="cpu").to(about.device)
    if frames is not None:
        Q[:, :, : frames.shape[2]] = frames
    Q = torch.linalg.qr(Q).Q

    mass, first, images, traces, bound = rows.gather(partial(image_sums, assign, about, Q), *aligned, width=form.width)
    inverse = 1 / positive(mass)
    m = first * inverse[:, None] if form.affine else torch.zeros_like(first)
    images = images * inverse[:, None, None] - m[:, :, None] * torch.einsum("kd,kdq->kq", m, Q)[:, None]
    Q = torch.linalg.qr(images).Q

    inner = rows.gather(partial(sums_within, assign, about + m, Q), *aligned, width=form.width)[0]
    e, V = torch.linalg.eigh(inner * inverse[:, None, None])
    width = max(form.n_dims)
    e, V = e[:, -width:].flip(1).clamp(min=0), (Q @ V)[:, :, -width:].flip(2)
    traces = traces * inverse - m.square().sum(1)
    return _cut(Moments(mass, about + m if form.affine else about, V, e, traces), form), bound


def _cut(moments, form):
    """Zero the columns beyond each component's dimension."""
    d = torch.tensor(form.n_dims, device=moments.mass.device)
    real = torch.arange(max(form.n_dims), device=moments.mass.device) < d[:, None]
    return moments._replace(bases=moments.bases * real[:, None], eigenvalues=moments.eigenvalues * real)


# The iteration


class EMState(NamedTuple):
    """Where a run of EM stands."""

    model: LowRankGaussians
    lower_bounds: list[float]  # mean log-likelihood after each iteration
    starved: bool = False  # a component has too few rows, and re-seeding has not helped
    gap: float = 0.0  # gain of the last iteration
    name: str = ""  # of the start


def model_of_labels(rows: CentredRows, labels: torch.Tensor, form: MixtureForm) -> LowRankGaussians:
    """Return the best model for rows with known components."""
    K = len(form.n_dims)
    about = rows.shift.new_zeros(K, len(rows.shift))
    return maximised(moments_by(rows, partial(by_label, K), about, form, aligned=(labels,))[0], form)


def expectation_maximization(
    rows: CentredRows, model: LowRankGaussians, form: MixtureForm, *, exact_below: float = torch.inf
) -> Iterator[EMState]:
    """Yield the state after each iteration.

    Until an iteration gains at most `exact_below`, they are those of generalised EM: bases are improved by one step of
    block power iteration, at a tenth of the time of an eigendecomposition.
    """
    exact = exact_below == torch.inf
    moments, bound = _expect(rows, model, form, exact)
    bounds: list[float] = []
    reseeds = 0
    while True:
        mass = moments.mass.tolist()
        fair = sum(mass) / (2 * len(mass))  # fewer rows than this, and than determine a subspace, are too few
        starved = [k for k, d in enumerate(form.n_dims) if mass[k] < min(d + 1, fair)]
        rescue = starved and reseeds < _RESEEDS
        if rescue:
            moments = _reseed(rows, model, moments, starved, form)
            reseeds += 1
        before, model = bound, maximised(moments, form)
        moments, bound = _expect(rows, model, form, exact)
        if not (exact or rescue) and bound - before <= exact_below:
            exact = True
            moments, bound = _expect(rows, model, form, exact)
        bounds.append(bound)
        yield EMState(model, bounds, bool(starved), float("inf") if rescue else bound - before)


def _expect(rows, model, form, exact):
    """E-step: return the moments under the model's responsibilities, and its mean log-likelihood."""
    moments, bound = moments_by(rows, partial(by_posterior, model), model.means, form, model.bases, exact=exact)
    return moments, float(bound) / rows.total


def _reseed(rows, model, moments, starved, form):
    """Give starved components the rows that the model explains worst."""
    share = max(form.n_dims) + 1
    worst = _least_likely(rows, model, share * len(starved))
    parts = [part.clone() for part in moments]
    for place, k in enumerate(starved):
        Z = worst[place * share : (place + 1) * share]
        if len(Z):
            alone = form._replace(n_dims=form.n_dims[k : k + 1])
            for part, new in zip(parts, moments_of(Z, Z.new_ones(len(Z), 1), alone)):
                part[k] = 0
                part[k][tuple(slice(size) for size in new[0].shape)] = new[0]
    return Moments(*parts)


def _least_likely(rows, model, count):
    """Return the rows of lowest density."""
    found = rows.gather(partial(_lowest, model, count), width=model.variances.numel())
    values, Z = (torch.cat(parts) for parts in found)
    return Z[values.argsort()[:count]]


def _lowest(model, count, Z, w):
    if w is not None:
        Z = Z[w > 0]
    total = log_joint(Z, model).logsumexp(1)
    best = total.topk(min(count, len(Z)), largest=False)
    return [best.values], [Z[best.indices]]


class Start(NamedTuple):
    """A model to start from, relative to the centre of the rows, and the name of the clustering that it comes from."""

    name: str
    model: LowRankGaussians


def best_restarts(
    rows: CentredRows, starts: Sequence[Start], form: MixtureForm, *, n_iter: int, keep: int
) -> list[Start]:
    """Return the models of the `keep` best runs after `n_iter` iterations of generalised EM, best first.

    The runs advance side by side. One stops early that has converged, or that at its present gain an iteration would
    end below the `keep` best.
    """
    runs = {
        place: expectation_maximization(rows, start.model, form, exact_below=-torch.inf)
        for place, start in enumerate(starts)
    }
    states: dict[int, EMState] = {}
    for left in reversed(range(n_iter)):
        states |= {place: next(runs[place]) for place in runs}
        bar = sorted((state.lower_bounds[-1] for state in states.values()), reverse=True)[min(keep, len(states)) - 1]
        runs = {
            place: run
            for place, run in runs.items()
            if states[place].gap > _CONVERGED and states[place].lower_bounds[-1] + left * states[place].gap >= bar
        }
    best: list[int] = []
    bounds = {place: state.lower_bounds[-1] for place, state in states.items()}
    for place in sorted(states, key=lambda place: (-bounds[place], place)):  # two runs at the same optimum are one
        if len(best) < keep and all(abs(bounds[place] - bounds[other]) > 10 * _CONVERGED for other in best):
            best.append(place)
    return [Start(starts[place].name, states[place].model) for place in best]


def run_restarts(rows: CentredRows, starts: Sequence[Start], form: MixtureForm, *, tol: float = 0.0) -> Iterator[Step]:
    """Run EM from several starts side by side; yield the state with the best likelihood.

    Bases are exact from where an iteration gains 1e-3 nats a row, or `tol` if that is more. A run is dropped that at
    its present gain would take more than 50 iterations to reach the best.
    """
    limit = max(tol, _NEAR)
    runs = {k: expectation_maximization(rows, start.model, form, exact_below=limit) for k, start in enumerate(starts)}
    while True:
        states = {k: next(run) for k, run in runs.items()}
        best = max(states, key=lambda k: states[k].lower_bounds[-1])
        bound = states[best].lower_bounds[-1]
        reach = {k: state.lower_bounds[-1] + _REACH * max(state.gap, 0.0) for k, state in states.items()}
        runs = {k: run for k, run in runs.items() if reach[k] >= bound}
        gap = max(states[k].gap for k in runs)
        yield Step(states[best]._replace(gap=gap, name=starts[best].name), gap, -bound)


def refine(
    X: torch.Tensor, labels: torch.Tensor, n_dims: Sequence[int], *, generator: torch.Generator
) -> LowRankGaussians:
    """Return the mixture, of linear subspaces with one noise variance, that EM reaches from the labels of rows X.

    With the defaults of :class:`~sklowrank.mixture.LowRankGaussianMixture`: at most 200 iterations, until the mean
    log-likelihood gains 1e-4 nats, and noise above 1e-6 of the variance.
    """
    rows, *scale = centred_rows(Rows(X), None, affine=False, device=X.device, generator=generator)
    floor = least_noise(1e-6, *scale)
    form = MixtureForm(tuple(n_dims), affine=False, isotropic=False, shared=True, uniform=False, floor=floor)
    model = model_of_labels(rows, labels, form)
    for state in islice(expectation_maximization(rows, model, form), 200):
        if state.gap <= 1e-4:
            break
    return state.model
