"""Learning the mixture as a denoiser: stochastic gradients of the loss with which diffusion models are trained."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch

from .._core.iterate import Step
from .._math.subspaces import orthonormal
from ._data import Data, weigh
from ._expectation_maximization import Fit, Form
from ._low_rank_gaussian import Model, conditional_mean


class Schedule(NamedTuple):
    """How the descent runs, and the log-normal law of its noise levels in units of the data's root mean square."""

    batch_size: int
    learning_rate: float
    max_steps: int
    log_mean: float
    log_std: float


def denoising_descent(data: Data, start: Model, form: Form, schedule: Schedule, generator) -> Iterator[Step]:
    """Yield the model after each step of Adam on the denoising loss; the last step has gap 0.

    Rows x are disturbed by sigma e and -sigma e, and the loss is the mean of
    ``(sigma² + rms²) / (sigma rms)² * ||E[x_0 | x ± sigma e] - x||²``. Bases are the orthonormal factors of free
    matrices, which are put back onto them after each step.
    """
    parameters = _parameters(start, form, generator)
    optimizer = torch.optim.Adam(list(parameters.values()), lr=schedule.learning_rate)
    rms = math.sqrt(float(data.gather(_squares)[0]) / data.total / len(data.shift))
    rms = rms or 1.0  # rows that are all equal have no scale

    for t in range(schedule.max_steps):
        x = _draw_rows(data, schedule.batch_size, generator)
        sigma = rms * torch.exp(schedule.log_mean + schedule.log_std * _normal(generator, x[:, :1]))
        e = sigma * _normal(generator, x)
        loss = _denoising_loss(x, e, sigma, rms, _model(parameters, form))

        optimizer.param_groups[0]["lr"] = schedule.learning_rate * (1 + math.cos(math.pi * t / schedule.max_steps)) / 2
        optimizer.zero_grad()
        loss.backward()
        with torch.device(x.device):  # Adam makes its step counters on the default device, which may be another one
            optimizer.step()
        with torch.no_grad():
            parameters["bases"].copy_(orthonormal(parameters["bases"]))
        model = Model(*(part.detach() for part in _model(parameters, form)))
        gap = float(t + 1 < schedule.max_steps)
        yield Step(Fit(_sorted(model), [], gap=gap), gap, float(loss.detach()))


def _squares(Z, w):
    return (weigh(Z.square(), w).sum(),)


def _denoising_loss(x, e, sigma, rms, model):
    twice = torch.cat([sigma, sigma]).square()
    guess = conditional_mean(torch.cat([x + e, x - e]), model, twice, exact=False)
    error = (guess - torch.cat([x, x])).square().sum(1, keepdim=True)
    return ((twice + rms**2) / (twice * rms**2) * error).mean()


def _parameters(start, form, generator):
    """Return what Adam moves: the start, or for a single component random bases, so that they are learnt here."""
    tiny = torch.finfo(start.noise.dtype).tiny
    bases = orthonormal(_normal(generator, start.bases)) if len(start.weights) == 1 else start.bases.clone()
    variances = torch.maximum(start.variances, start.noise[:, None] + tiny).log()
    moved = {
        "bases": bases,
        "variances": variances[:, :1].clone() if form.isotropic else variances,
        "noise": (start.noise[:1] if form.shared else start.noise).log(),
    }
    if form.centred:
        moved["means"] = start.means.clone()
    if not form.uniform:
        moved["weights"] = start.weights.log()
    return {name: value.requires_grad_() for name, value in moved.items()}


def _model(parameters, form):
    K, D, width = parameters["bases"].shape
    bases = parameters["bases"]
    dims = torch.tensor(form.n_dims, device=bases.device)
    real = (torch.arange(width, device=bases.device) < dims[:, None]).to(bases)
    means, weights = parameters.get("means"), parameters.get("weights")
    return Model(
        bases.new_full((K,), 1 / K) if weights is None else weights.softmax(0),
        bases.new_zeros(K, D) if means is None else means,
        torch.linalg.qr(bases).Q * real[:, None],
        parameters["variances"].exp() * real,
        parameters["noise"].exp().expand(K).clamp(min=form.floor),
    )


def _sorted(model):
    order = model.variances.argsort(dim=1, descending=True, stable=True)
    bases = model.bases.gather(2, order[:, None].expand_as(model.bases))
    return model._replace(bases=bases, variances=model.variances.gather(1, order))


def _draw_rows(data, count, generator):
    """Draw rows with replacement, in proportion to their weights."""
    u = torch.rand(count, generator=generator, dtype=torch.float64, device="cpu").to(data.shift.device)
    if data.weights is None:
        at = (u * len(data)).long()
    else:
        ladder = data.weights.cumsum(0)
        at = torch.searchsorted(ladder, u * ladder[-1], right=True).clamp(max=len(data) - 1)
    return data.take(at)


def _normal(generator, like):
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device="cpu").to(like.device)
