"""Expectation maximisation of a mixture of low-rank Gaussians, over rows that stream in blocks."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

import torch

from .._core.iterate import Step
from .._core.rows import Rows
from .._math.subspaces import improved_directions, leading_directions
from ._data import Data, data_of, mean_variance, weigh
from ._low_rank_gaussian import Model, log_joint, responsibilities

_NEGLIGIBLE = 1e-12  # responsibilities below it are left out of a component's sums
_WIDE = 512  # features above which streamed rows are sketched: a scatter matrix per component would be too large
_SURPLUS = 8  # columns of the sketch beyond the dimension
_RESEEDS = 5
_NEAR = 1e-3  # nats a row: an iteration that gains less is near the end
_PATIENCE = 50  # iterations in which a run that is behind could reach the best
_SETTLED = 1e-7  # nats a row: a run that gains less in an iteration has arrived


class Form(NamedTuple):
    """What the model may learn."""

    n_dims: tuple[int, ...]  # dimension of each component
    centred: bool  # free means
    isotropic: bool  # one signal variance per component
    shared: bool  # one noise variance for all
    uniform: bool  # equal weights
    floor: float  # of the noise variances


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


# The moments, in one of three ways. Responsibilities come from assign(Z, w, *beside) -> R (rows, K), weights included,
# and the log-likelihood of the rows.


def by_posterior(model: Model, Z, w):
    """Assign rows by the model."""
    R, total = responsibilities(log_joint(Z, model))
    return weigh(R, w), weigh(total, w).sum()


def by_label(K: int, Z, w, labels):
    """Assign rows to their labels."""
    return weigh(torch.nn.functional.one_hot(labels, K).to(Z), w), Z.new_zeros(())


def moments_by(data: Data, assign: Callable, about: torch.Tensor, form: Form, frames=None, beside=(), *, exact=True):
    """Return the moments under the responsibilities, and the log-likelihood of all rows.

    Exact where one block holds all rows, or D is at most 512; otherwise, and unless `exact`, one step of block power
    iteration from the former bases `frames`, in which the likelihood does not fall either. Sums are taken `about`
    (K, D).
    """
    former = None if exact else frames
    if data.in_memory:
        collect = partial(_moments_of_block, assign, form, former)
        found = data.gather(collect, *beside, merge=_not_merged)
        if found is not None:
            return found
    if about.shape[1] <= _WIDE:
        return _moments_by_scatter(data, assign, about, form, beside, former)
    return _moments_by_sketch(data, assign, about, form, frames, beside)


def _not_merged(a, b):
    """Stand for moments of two blocks, where one was expected to hold all rows and the device ran out of memory."""
    return None


def _members(Z, R, k):
    """Return the rows of component k that count, and their responsibilities."""
    rows = (R[:, k] > _NEGLIGIBLE).nonzero()[:, 0]
    return (Z, R[:, k]) if len(rows) == len(Z) else (Z[rows], R[rows, k])


def _moments_of_block(assign, form, frames, Z, w, *beside):
    R, bound = assign(Z, w, *beside)
    return moments_of(Z, R, form, frames), bound


def moments_of(Z: torch.Tensor, R: torch.Tensor, form: Form, frames: torch.Tensor | None = None) -> Moments:
    """Return the moments of rows Z (n, D) that are at hand under responsibilities R (n, K).

    The bases are those of the leading eigenvectors, or `frames` (K, D, d) after one step of block power iteration.
    """
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
        if frames is None:
            bases[k, :, :d], e[k, :d] = leading_directions(Y, w, d)
        else:
            bases[k, :, :d], e[k, :d] = improved_directions(w.sqrt()[:, None] * Y, frames[k, :, :d])
        traces[k] = w @ Y.square().sum(1)
    return Moments(mass, means, bases, e, traces)


def _moments_by_scatter(data, assign, about, form, beside, frames):
    mass, first, second, bound = data.gather(partial(_scatter, assign, about), *beside)
    means, second = _central(mass, first, second, about, form)
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


def _scatter(assign, about, Z, w, *beside):
    """Sums of a block: of responsibilities, and of rows and their outer products about one point for each component."""
    R, bound = assign(Z, w, *beside)
    first, second = torch.zeros_like(about), Z.new_zeros(*about.shape, about.shape[1])
    for k in range(len(about)):
        Y, r = _members(Z, R, k)
        Y = Y - about[k]
        first[k] = r @ Y
        second[k] = Y.T @ (r[:, None] * Y)
    return R.sum(0), first, second, bound


def _moments_by_sketch(data, assign, about, form, frames, beside):
    K, D = about.shape
    Q = data.randn(K, D, min(D, max(form.n_dims) + _SURPLUS)).to(about)
    if frames is not None:
        Q[:, :, : frames.shape[2]] = frames
    Q = torch.linalg.qr(Q).Q

    mass, first, images, traces, bound = data.gather(partial(_images, assign, about, Q), *beside)
    inverse = 1 / _positive(mass)
    m = first * inverse[:, None] if form.centred else torch.zeros_like(first)
    images = images * inverse[:, None, None] - m[:, :, None] * torch.einsum("kd,kdq->kq", m, Q)[:, None]
    Q = torch.linalg.qr(images).Q

    inner = data.gather(partial(_squares_within, assign, about + m, Q), *beside)[0]
    e, V = torch.linalg.eigh(inner * inverse[:, None, None])
    width = max(form.n_dims)
    e, V = e[:, -width:].flip(1).clamp(min=0), (Q @ V)[:, :, -width:].flip(2)
    traces = traces * inverse - m.square().sum(1)
    return _cut(Moments(mass, about + m if form.centred else about, V, e, traces), form), bound


def _images(assign, about, Q, Z, w, *beside):
    """Sums of a block: of responsibilities and rows, of scatter matrices times frames Q (K, D, q), of squares."""
    R, bound = assign(Z, w, *beside)
    first, images, traces = torch.zeros_like(about), torch.zeros_like(Q), about.new_zeros(len(Q))
    for k in range(len(about)):
        Y, r = _members(Z, R, k)
        Y = Y - about[k]
        first[k], images[k] = r @ Y, Y.T @ (r[:, None] * (Y @ Q[k]))
        traces[k] = r @ Y.square().sum(1)
    return R.sum(0), first, images, traces, bound


def _squares_within(assign, about, Q, Z, w, *beside):
    """Sums of a block: the scatter matrices within the frames Q."""
    R, _ = assign(Z, w, *beside)
    inner = about.new_zeros(len(Q), Q.shape[2], Q.shape[2])
    for k in range(len(Q)):
        Y, r = _members(Z, R, k)
        C = (Y - about[k]) @ Q[k]
        inner[k] = C.T @ (r[:, None] * C)
    return (inner,)


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


def model_of_labels(data: Data, labels: torch.Tensor, form: Form) -> Model:
    """Return the best model for rows with known components."""
    K = len(form.n_dims)
    about = data.shift.new_zeros(K, len(data.shift))
    return maximise(moments_by(data, partial(by_label, K), about, form, beside=(labels,))[0], form)


def expectation_maximization(data: Data, model: Model, form: Form, *, settled: float = torch.inf) -> Iterator[Fit]:
    """Yield the fit, iteration by iteration.

    Until an iteration gains at most `settled`, they are those of generalised EM: bases are improved by one step of
    block power iteration, at a tenth of the time of an eigendecomposition.
    """
    exact = settled == torch.inf
    moments, bound = _expect(data, model, form, exact)
    bounds: list[float] = []
    reseeds = 0
    while True:
        starved = _starved(moments.mass, form)
        rescue = starved and reseeds < _RESEEDS
        if rescue:
            moments = _reseed(data, model, moments, starved, form)
            reseeds += 1
        before, model = bound, maximise(moments, form)
        moments, bound = _expect(data, model, form, exact)
        if not (exact or rescue) and bound - before <= settled:
            exact = True
            moments, bound = _expect(data, model, form, exact)
        bounds.append(bound)
        yield Fit(model, bounds, bool(starved), float("inf") if rescue else bound - before)


def race(data: Data, models: Sequence[Model], form: Form, *, tol: float = 0.0) -> Iterator[Step]:
    """Run EM from several models side by side; the state is the fit with the best likelihood.

    Bases are exact from where an iteration gains 1e-3 nats a row, or `tol` if that is more. A run is left that at its
    present gain would take more than 50 iterations to reach the best.
    """
    runs = {k: expectation_maximization(data, model, form, settled=max(tol, _NEAR)) for k, model in enumerate(models)}
    while True:
        fits = {place: next(run) for place, run in runs.items()}
        place = max(fits, key=lambda run: fits[run].bounds[-1])
        bound = fits[place].bounds[-1]
        reach = {k: fit.bounds[-1] + _PATIENCE * max(fit.gap, 0.0) for k, fit in fits.items()}
        runs = {k: run for k, run in runs.items() if reach[k] >= bound}
        gap = max(fits[k].gap for k in runs)
        yield Step(fits[place]._replace(gap=gap, place=place), gap, -bound)


def leaders(data: Data, models: Sequence[Model], form: Form, *, n_iter: int, keep: int) -> list[tuple[int, Model]]:
    """Return the places and the models of the runs that lead after `n_iter` iterations of generalised EM, best first.

    The runs advance side by side. One stops early that has arrived, or that at its present gain an iteration would end
    below the `keep` best.
    """
    runs = {
        place: expectation_maximization(data, model, form, settled=-torch.inf) for place, model in enumerate(models)
    }
    fits: dict[int, Fit] = {}
    for left in reversed(range(n_iter)):
        fits |= {place: next(runs[place]) for place in runs}
        bar = sorted((fit.bounds[-1] for fit in fits.values()), reverse=True)[min(keep, len(fits)) - 1]
        runs = {
            place: run
            for place, run in runs.items()
            if fits[place].gap > _SETTLED and fits[place].bounds[-1] + left * fits[place].gap >= bar
        }
    after = sorted(((fit.bounds[-1], place, fit.model) for place, fit in fits.items()), key=lambda e: (-e[0], e[1]))
    best: list[tuple[float, int, Model]] = []
    for entry in after:  # two runs at the same optimum are one
        if len(best) < keep and all(abs(entry[0] - other[0]) > 10 * _SETTLED for other in best):
            best.append(entry)
    return [(place, model) for _, place, model in best]


def _expect(data, model, form, exact):
    """E-step: return the moments under the model's responsibilities, and its mean log-likelihood."""
    moments, bound = moments_by(data, partial(by_posterior, model), model.means, form, model.bases, exact=exact)
    return moments, float(bound) / data.total


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
            for part, new in zip(parts, moments_of(Z, Z.new_ones(len(Z), 1), alone)):
                part[k] = 0
                part[k][tuple(slice(size) for size in new[0].shape)] = new[0]
    return Moments(*parts)


def _strays(data, model, count):
    """Return the rows of lowest density."""
    values, rows = (torch.cat(parts) for parts in data.gather(partial(_lowest, model, count)))
    return rows[values.argsort()[:count]]


def _lowest(model, count, Z, w):
    if w is not None:
        Z = Z[w > 0]
    total = log_joint(Z, model).logsumexp(1)
    best = total.topk(min(count, len(Z)), largest=False)
    return [best.values], [Z[best.indices]]


def refine(X: torch.Tensor, labels: torch.Tensor, n_dims: Sequence[int], *, randn) -> Model:
    """Return the mixture, of linear subspaces with one noise variance, that EM reaches from the labels of rows X.

    The defaults of the estimator: at most 200 iterations, until a row gains 1e-4 nats, noise above 1e-6 of the
    variance.
    """
    data = data_of(Rows(X), None, centred=False, width=len(n_dims) * max(n_dims), randn=randn, device=X.device)
    floor = max(1e-6 * mean_variance(data, centred=False), torch.finfo(X.dtype).tiny ** 0.5)
    form = Form(tuple(n_dims), centred=False, isotropic=False, shared=True, uniform=False, floor=floor)
    model = model_of_labels(data, labels, form)
    for fit in islice(expectation_maximization(data, model, form), 200):
        if fit.gap <= 1e-4:
            break
    return fit.model
