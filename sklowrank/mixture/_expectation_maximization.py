"""Expectation maximisation of a mixture of low-rank Gaussians, over rows that stream in blocks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import torch

from .._core.blocks import in_blocks, rows_per_block
from .._core.iterate import Step
from .._core.subspaces import leading_directions
from ._low_rank_gaussian import Model, log_joint, responsibilities

_NEGLIGIBLE = 1e-12  # responsibilities below it are left out of a component's sums
_WIDE = 512  # features above which streamed rows are sketched: a scatter matrix per component would be too large
_SURPLUS = 8  # columns of the sketch beyond the dimension
_RESEEDS = 5
_SETTLED = 1e-7  # nats a row: a run that gains less in an iteration has arrived


class Form(NamedTuple):
    """What the model may learn."""

    n_dims: tuple[int, ...]  # dimension of each component
    centred: bool  # free means
    isotropic: bool  # one signal variance per component
    shared: bool  # one noise variance for all
    uniform: bool  # equal weights
    floor: float  # of the noise variances


@dataclass(frozen=True)
class Rows:
    """The data: float64 blocks of rows, moved by `shift` so that their middle is near the origin."""

    X: torch.Tensor
    weights: torch.Tensor | None
    shift: torch.Tensor
    block: int
    randn: Callable[..., torch.Tensor]

    def __len__(self):
        return len(self.X)

    @property
    def in_memory(self) -> bool:
        """True where one block holds all rows."""
        return self.block >= len(self)

    def map(self, compute: Callable):
        """Yield ``compute(block of rows, their slice)``, block by block."""

        def moved(rows):
            return compute(self.X[rows].to(self.shift) - self.shift, rows)

        return in_blocks(moved, len(self), self.block, bytes_per_row=32 * self.X.shape[1])

    def weigh(self, R: torch.Tensor, rows: slice) -> torch.Tensor:
        """Return responsibilities R (or other values by row) times the weights of their rows."""
        if self.weights is None:
            return R
        return self.weights[rows].view(-1, *[1] * (R.ndim - 1)) * R

    @property
    def total(self) -> float:
        """Sum of the weights."""
        return float(len(self) if self.weights is None else self.weights.sum())


def rows_of(X: torch.Tensor, weights, *, centred: bool, width: int, randn) -> Rows:
    """Return the data as `Rows`; `width` is the number of coordinates that a row has in all components together."""
    block = rows_per_block("auto", len(X), 32 * (X.shape[1] + width))
    shift = torch.zeros(X.shape[1], dtype=torch.float64, device=X.device)
    rows = Rows(X, weights, shift, block, randn)
    if centred:
        rows = Rows(X, weights, sum(rows.map(lambda Z, at: rows.weigh(Z, at).sum(0))) / rows.total, block, randn)
    return rows


def mean_variance(data: Rows, *, centred: bool) -> float:
    """Return the mean over features of their variances (of their mean squares, where nothing is centred)."""
    first = sum(data.map(lambda Z, at: data.weigh(Z, at).sum(0))) / data.total
    second = sum(data.map(lambda Z, at: data.weigh(Z.square(), at).sum(0))) / data.total
    return float((second - first.square() if centred else second).mean())


# M-step: the best model for given responsibilities


class Moments(NamedTuple):
    """What the M-step needs of each component's weighted scatter matrix S_k = sum w z z' / sum w."""

    mass: torch.Tensor  # (K,)
    means: torch.Tensor  # (K, D), or zeros
    bases: torch.Tensor  # (K, D, d), leading eigenvectors
    eigenvalues: torch.Tensor  # (K, d)
    traces: torch.Tensor  # (K,)


def maximise(moments: Moments, form: Form) -> Model:
    """Return the maximiser of the expected log-likelihood.

    With shared noise, directions whose variance falls below the noise hold noise alone and are averaged into it: the
    noise is the root of an increasing convex function, which Newton's steps reach from above.
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
    return Model(weights / weights.sum(), means, bases, (e - s[:, None]).clamp(min=0) * real, s)


# The moments, in one of three ways


def moments_by(data: Rows, assign: Callable, about: torch.Tensor, form: Form, frames=None) -> Moments:
    """Return the moments under the responsibilities ``assign(block, slice)`` of shape (rows, K), weights included.

    Exact where one block holds all rows, or D is at most 512; otherwise one step of block power iteration from the
    former bases `frames`, in which the likelihood does not fall either. Sums are taken `about` (K, D).
    """
    if data.in_memory:
        return next(data.map(lambda Z, at: _moments_of_block(Z, assign(Z, at), form)))
    if data.X.shape[1] <= _WIDE:
        return _moments_by_scatter(data, assign, about, form)
    return _moments_by_sketch(data, assign, about, form, frames)


def _members(Z, R, k):
    """Return the rows of component k that count, and their responsibilities."""
    rows = (R[:, k] > _NEGLIGIBLE).nonzero()[:, 0]
    return (Z, R[:, k]) if len(rows) == len(Z) else (Z[rows], R[rows, k])


def _moments_of_block(Z, R, form):
    K, D, width = R.shape[1], Z.shape[1], max(form.n_dims)
    means, bases = Z.new_zeros(K, D), Z.new_zeros(K, D, width)
    e, traces = Z.new_zeros(K, width), Z.new_zeros(K)
    mass = R.sum(0)
    for k, d in enumerate(form.n_dims):
        Y, w = _members(Z, R, k)
        w = w / _positive(mass[k])
        if form.centred:
            means[k] = w @ Y
            Y = Y - means[k]
        bases[k, :, :d], e[k, :d] = leading_directions(Y, w, d)
        traces[k] = w @ Y.square().sum(1)
    return Moments(mass, means, bases, e, traces)


def _moments_by_scatter(data, assign, about, form):
    def sums(Z, at):
        R = assign(Z, at)
        first, second = torch.zeros_like(about), Z.new_zeros(*about.shape, about.shape[1])
        for k in range(len(about)):
            Y, w = _members(Z, R, k)
            Y = Y - about[k]
            first[k] = w @ Y
            second[k] = Y.T @ (w[:, None] * Y)
        return R.sum(0), first, second

    mass, first, second = (sum(parts) for parts in zip(*data.map(sums)))
    means, second = _central(mass, first, second, about, form)
    e, V = torch.linalg.eigh(second)
    width = max(form.n_dims)
    e, V = e[:, -width:].flip(1).clamp(min=0), V[:, :, -width:].flip(2)
    return _cut(Moments(mass, means, V, e, second.diagonal(dim1=1, dim2=2).sum(1)), form)


def _moments_by_sketch(data, assign, about, form, frames):
    K, D = about.shape
    Q = data.randn(K, D, min(D, max(form.n_dims) + _SURPLUS)).to(about)
    if frames is not None:
        Q[:, :, : frames.shape[2]] = frames
    Q = torch.linalg.qr(Q).Q

    def products(Z, at):
        R = assign(Z, at)
        first, images, traces = torch.zeros_like(about), torch.zeros_like(Q), about.new_zeros(K)
        for k in range(K):
            Y, w = _members(Z, R, k)
            Y = Y - about[k]
            first[k], images[k] = w @ Y, Y.T @ (w[:, None] * (Y @ Q[k]))
            traces[k] = w @ Y.square().sum(1)
        return R.sum(0), first, images, traces

    mass, first, images, traces = (sum(parts) for parts in zip(*data.map(products)))
    inverse = 1 / _positive(mass)
    m = first * inverse[:, None] if form.centred else torch.zeros_like(first)
    images = images * inverse[:, None, None] - m[:, :, None] * torch.einsum("kd,kdq->kq", m, Q)[:, None]
    Q = torch.linalg.qr(images).Q

    def squares(Z, at):
        R = assign(Z, at)
        inner = about.new_zeros(K, Q.shape[2], Q.shape[2])
        for k in range(K):
            Y, w = _members(Z, R, k)
            C = (Y - about[k] - m[k]) @ Q[k]
            inner[k] = C.T @ (w[:, None] * C)
        return inner

    e, V = torch.linalg.eigh(sum(data.map(squares)) * inverse[:, None, None])
    width = max(form.n_dims)
    e, V = e[:, -width:].flip(1).clamp(min=0), (Q @ V)[:, :, -width:].flip(2)
    traces = traces * inverse - m.square().sum(1)
    return _cut(Moments(mass, about + m if form.centred else about, V, e, traces), form)


def _central(mass, first, second, about, form):
    """Return means and scatter matrices about them from sums about other points; about the origin without means."""
    inverse = 1 / _positive(mass)
    second = second * inverse[:, None, None]
    if not form.centred:
        return about, second
    m = first * inverse[:, None]
    return about + m, second - m[:, :, None] * m[:, None]


def _cut(moments, form):
    """Zero the columns beyond each component's dimension."""
    d = torch.tensor(form.n_dims, device=moments.mass.device)
    real = torch.arange(max(form.n_dims), device=moments.mass.device) < d[:, None]
    return moments._replace(bases=moments.bases * real[:, None], eigenvalues=moments.eigenvalues * real)


def _positive(mass):
    return mass.clamp(min=torch.finfo(mass.dtype).tiny)


# The iteration


class Fit(NamedTuple):
    """Where a run of EM stands."""

    model: Model
    bounds: list[float]  # mean log-likelihood after each iteration
    starved: bool = False  # a component has too few rows, and re-seeding has not helped
    gap: float = 0.0  # what the last iteration has gained
    place: int = 0  # of the model that this run started from


def model_of_labels(data: Rows, labels: torch.Tensor, form: Form) -> Model:
    """Return the best model for rows with known components."""
    K = len(form.n_dims)

    def assign(Z, at):
        return data.weigh(torch.nn.functional.one_hot(labels[at], K).to(Z), at)

    return maximise(moments_by(data, assign, data.shift.new_zeros(K, len(data.shift)), form), form)


def expectation_maximization(data: Rows, model: Model, form: Form) -> Iterator[Fit]:
    """Yield the fit, iteration by iteration."""
    moments, bound = _expect(data, model, form)
    bounds: list[float] = []
    reseeds = 0
    while True:
        starved = _starved(moments.mass, form)
        rescue = starved and reseeds < _RESEEDS
        if rescue:
            moments = _reseed(data, model, moments, starved, form)
            reseeds += 1
        before, model = bound, maximise(moments, form)
        moments, bound = _expect(data, model, form)
        bounds.append(bound)
        yield Fit(model, bounds, bool(starved), float("inf") if rescue else bound - before)


def race(data: Rows, models: Sequence[Model], form: Form) -> Iterator[Step]:
    """Run EM from several models side by side; the state is the fit with the best likelihood."""
    for steps in zip(*(expectation_maximization(data, model, form) for model in models)):
        place = max(range(len(steps)), key=lambda run: steps[run].bounds[-1])
        gap = max(fit.gap for fit in steps)
        best = steps[place]._replace(gap=gap, place=place)
        yield Step(best, gap, -best.bounds[-1])


def leaders(data: Rows, models: Sequence[Model], form: Form, *, n_iter: int, keep: int) -> list[tuple[int, Model]]:
    """Return the places and the models of the runs that lead after `n_iter` iterations, the best first."""
    after = []
    for place, model in enumerate(models):
        for fit in islice(expectation_maximization(data, model, form), n_iter):
            if fit.gap <= _SETTLED:
                break
        after.append((fit.bounds[-1], place, fit.model))
    after.sort(key=lambda entry: (-entry[0], entry[1]))
    best: list[tuple[float, int, Model]] = []
    for entry in after:  # two runs at the same optimum are one
        if len(best) < keep and all(abs(entry[0] - other[0]) > 10 * _SETTLED for other in best):
            best.append(entry)
    return [(place, model) for _, place, model in best]


def _expect(data, model, form):
    """E-step: return the moments under the model's responsibilities, and its mean log-likelihood."""
    bounds = {}  # by first row: a block that was tried again in halves counts once

    def assign(Z, at):
        if at.start == 0:
            bounds.clear()
        R, total = responsibilities(log_joint(Z, model))
        bounds[at.start] = data.weigh(total, at).sum()
        return data.weigh(R, at)

    moments = moments_by(data, assign, model.means, form, model.bases)
    return moments, float(sum(bounds.values())) / data.total


def _starved(mass, form):
    """Return the components with fewer rows than determine a flat, or than half a fair share where that is less."""
    mass = mass.tolist()
    fair = sum(mass) / (2 * len(mass))
    return [k for k, d in enumerate(form.n_dims) if mass[k] < min(d + 1, fair)]


def _reseed(data, model, moments, starved, form):
    """Give starved components the rows that the model explains worst."""
    share = max(form.n_dims) + 1
    worst = _strays(data, model, share * len(starved))
    parts = [part.clone() for part in moments]
    for place, k in enumerate(starved):
        Z = worst[place * share : (place + 1) * share]
        if len(Z):
            alone = form._replace(n_dims=form.n_dims[k : k + 1])
            for part, new in zip(parts, _moments_of_block(Z, Z.new_ones(len(Z), 1), alone)):
                part[k] = 0
                part[k][tuple(slice(size) for size in new[0].shape)] = new[0]
    return Moments(*parts)


def _strays(data, model, count):
    """Return the rows of lowest density."""

    def lowest(Z, at):
        total = log_joint(Z, model).logsumexp(1)
        best = total.topk(min(count, len(Z)), largest=False)
        return best.values, Z[best.indices]

    values, rows = (torch.cat(parts) for parts in zip(*data.map(lowest)))
    return rows[values.argsort()[:count]]


def refine(X: torch.Tensor, labels: torch.Tensor, n_dims: Sequence[int], *, randn) -> Model:
    """Return the mixture, of linear subspaces with one noise variance, that EM reaches from the labels of rows X.

    The defaults of the estimator: at most 200 iterations, until a row gains 1e-4 nats, noise above 1e-6 of the
    variance.
    """
    data = rows_of(X, None, centred=False, width=len(n_dims) * max(n_dims), randn=randn)
    floor = max(1e-6 * mean_variance(data, centred=False), torch.finfo(X.dtype).tiny ** 0.5)
    form = Form(tuple(n_dims), centred=False, isotropic=False, shared=True, uniform=False, floor=floor)
    model = model_of_labels(data, labels, form)
    for fit in islice(expectation_maximization(data, model, form), 200):
        if fit.gap <= 1e-4:
            break
    return fit.model
