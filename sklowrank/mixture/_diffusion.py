"""The mixture learnt as a denoiser: stochastic gradients of the loss with which diffusion models are trained."""

import math
from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any, NamedTuple

import torch
from sklearn.utils import check_scalar

from .._core.iterate import Step
from .._math.em import CentredRows, EMState, MixtureForm, Start, weigh
from .._math.mixtures import LowRankGaussians, conditional_mean
from .._math.subspaces import orthonormal


class DiffusionOptions(NamedTuple):
    """Options of the descent; noise levels are log-normal, in units of the root mean square of the centred rows."""

    batch_size: int = 256
    learning_rate: float = 0.02
    max_steps: int = 1500
    noise_log_mean: float = math.log(0.3)
    noise_log_std: float = 1.2


_RANGES: dict[str, dict[str, Any]] = {
    "batch_size": {"target_type": Integral, "min_val": 1},
    "learning_rate": {"target_type": Real, "min_val": 0, "include_boundaries": "neither"},
    "max_steps": {"target_type": Integral, "min_val": 1},
    "noise_log_mean": {"target_type": Real},
    "noise_log_std": {"target_type": Real, "min_val": 0},
}


def diffusion_options(solver_params: dict[str, Any] | None) -> DiffusionOptions:
    """Return the options that a user gave by name, the others by default."""
    given = solver_params or {}
    unknown = sorted(map(str, given.keys() - DiffusionOptions._fields))
    if unknown:
        valid = ", ".join(map(repr, DiffusionOptions._fields))
        raise ValueError(
            f"solver_params has the unknown keys {unknown}. Valid keys for solver='diffusion' are {valid}."
        )
    for name, value in given.items():
        check_scalar(value, f"solver_params[{name!r}]", **_RANGES[name])
        if not math.isfinite(value):
            raise ValueError(f"solver_params[{name!r}]={value} must be finite.")
    return DiffusionOptions(**given)


def denoising_descent(rows: CentredRows, start: Start, form: MixtureForm, options: DiffusionOptions) -> Iterator[Step]:
    """Yield the state after each step of Adam on the denoising loss; the last step has gap 0.

    Noise sigma e and -sigma e is added to rows x, and the loss is the mean of
    ``(sigma² + rms²) / (sigma rms)² * ||E[x_0 | x ± sigma e] - x||²``. Bases are the orthonormal factors of free
    matrices, which are replaced by them after each step.
    """
    generator = rows.generator
    parameters = _parameters(start.model, form, generator)
    optimizer = torch.optim.Adam(list(parameters.values()), lr=options.learning_rate)
    rms = math.sqrt(float(rows.gather(_squares, width=0)[0]) / rows.total / len(rows.shift))
    rms = rms or 1.0  # rows that are all equal have no scale

    for t in range(options.max_steps):
        x = _draw_rows(rows, options.batch_size, generator)
        sigma = rms * torch.exp(options.noise_log_mean + options.noise_log_std * _normal(generator, x[:, :1]))
        e = sigma * _normal(generator, x)
        loss = _denoising_loss(x, e, sigma, rms, _model(parameters, form))

        optimizer.param_groups[0]["lr"] = options.learning_rate * (1 + math.cos(math.pi * t / options.max_steps)) / 2
        optimizer.zero_grad()
        loss.backward()
        with torch.device(x.device):  # Adam makes its step counters on the default device, which may be another one
            optimizer.step()
        with torch.no_grad():
            parameters["bases"].copy_(orthonormal(parameters["bases"]))
        model = LowRankGaussians(*(part.detach() for part in _model(parameters, form)))
        gap = float(t + 1 < options.max_steps)
        yield Step(EMState(_sorted(model), [], gap=gap, name=start.name), gap, float(loss.detach()))


def _squares(Z, w):
    return (weigh(Z.square(), w).sum(),)


def _denoising_loss(x, e, sigma, rms, model):
    twice = torch.cat([sigma, sigma]).square()
    guess = conditional_mean(torch.cat([x + e, x - e]), model, twice, exact=False)
    error = (guess - torch.cat([x, x])).square().sum(1, keepdim=True)
    return ((twice + rms**2) / (twice * rms**2) * error).mean()


def _parameters(start, form, generator):
    """Return the parameters of Adam: the start, but random bases for one component, whose start is exact."""
    tiny = torch.finfo(start.noise.dtype).tiny
    bases = orthonormal(_normal(generator, start.bases)) if len(start.weights) == 1 else start.bases.clone()
    variances = torch.maximum(start.variances, start.noise[:, None] + tiny).log()
    moved = {
        "bases": bases,
        "variances": variances[:, :1].clone() if form.isotropic else variances,
        "noise": (start.noise[:1] if form.shared else start.noise).log(),
    }
    if form.affine:
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
    return LowRankGaussians(
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


def _draw_rows(rows, count, generator):
    """Draw rows with replacement, in proportion to their weights."""
    u = torch.rand(count, generator=generator, dtype=torch.float64, device="cpu").to(rows.shift.device)
    if rows.weights is None:
        at = (u * len(rows)).long()
    else:
        ladder = rows.weights.cumsum(0)
        at = torch.searchsorted(ladder, u * ladder[-1], right=True).clamp(max=len(rows) - 1)
    return rows.take(at)


def _normal(generator, like):
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device="cpu").to(like.device)
