"""Training of latent densities on perturbed rows, the choice of the perturbation, and what a fitted density answers."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from .._core.standardize import standardization, standardized
from .._nets.batches import Batches
from .._nets.designs import Design, trained_weights
from .._nets.estimating import distinct_outputs
from .._nets.layers import layer_sizes
from .._nets.randomness import Randomness
from .._nets.schedules import cosine
from .._nets.training import Training
from ._perturbed_latent_density_network import LatentDensity, LogDensity, Shape

SCHEDULE = partial(cosine, last=0.02)
CANDIDATES = (0.0, 0.05, 0.1, 0.2, 0.3)  # perturbations among which "auto" chooses

_HELD_OUT = 0.2  # share of the rows with which samples of the candidates are compared
_MOST_HELD_OUT = 10_000
_N_DIRECTIONS, _N_DRAWS = 64, 8  # of the sliced Wasserstein distance
_MOST_COMPONENTS = 10  # by default


class Options(NamedTuple):
    """The parameters of the estimator that decide the density."""

    n_components: int | None
    perturbation: float | str
    n_importance: int
    noise: float | str
    min_noise: float
    hidden_layer_sizes: Sequence[int]
    activation: str


class Problem(NamedTuple):
    """What the density is trained on, and how."""

    rows: torch.Tensor  # (n, n_features), standardised, float32
    mean: torch.Tensor  # (n_features,), float64
    scale: torch.Tensor  # (n_features,), float64
    shape: Shape
    perturbation: float | str
    n_importance: int
    training: Training
    seed: int  # of candidates, and of what answers draw
    precision: str  # of X

    @property
    def design(self) -> Design:
        """How the network is built."""
        return Design(LatentDensity, self.shape._asdict())


class Model(NamedTuple):
    """A fitted density."""

    shape: Shape
    weights: dict[str, np.ndarray]
    mean: torch.Tensor  # (n_features,), float64
    scale: torch.Tensor  # (n_features,), float64
    noise: float
    seed: int  # of the importance draws of answers
    precision: str  # of X


def density_problem(X: torch.Tensor, options: Options, training: Training, generator: torch.Generator) -> Problem:
    """Return the problem of rows X in their own units."""
    n_features = X.shape[1]
    mean, scale = standardization(X, "columns")
    shape = Shape(
        n_features=n_features,
        n_components=options.n_components or min(n_features, _MOST_COMPONENTS),
        hidden_layer_sizes=layer_sizes(options.hidden_layer_sizes),
        activation=options.activation,
        noise=None if options.noise == "learn" else float(options.noise),
        min_noise=float(options.min_noise),
    )
    return Problem(
        rows=standardized(X, mean, scale),
        mean=mean,
        scale=scale,
        shape=shape,
        perturbation=options.perturbation,
        n_importance=options.n_importance,
        training=training,
        seed=int(torch.randint(1 << 31, (), generator=generator, device="cpu", dtype=torch.int64)),
        precision=str(X.dtype).removeprefix("torch."),
    )


def perturbed_batches(problem: Problem, generator: torch.Generator) -> Batches:
    """Return batches of rows with noise that is drawn anew each time, and the draws of their latent coordinates."""
    rows, width, perturbation = problem.rows, problem.shape.n_components, float(problem.perturbation)

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float32, device="cpu").to(rows.device)

    def batch(at):
        x = rows[at.to(rows.device)]
        x = x + perturbation * randn(*x.shape)
        return {"x": x, "draws": randn(len(x), problem.n_importance, width)}, x

    return Batches(batch, len(rows))


def negative_bound(bounds: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return the loss of a batch: the mean of the bounds of its rows' negative log densities."""
    return -bounds.mean()


def described(problem: Problem, weights: dict[str, np.ndarray]) -> tuple[Model, dict[str, Any]]:
    """Return the model and the public attributes of trained weights."""
    with torch.inference_mode():
        noise = float(problem.design.restored(weights, dtype=torch.float64).noise())
    model = Model(problem.shape, weights, problem.mean, problem.scale, noise, problem.seed, problem.precision)
    public = {f"{name}_": getattr(model, name) for name in ("weights", "mean", "scale", "noise")}
    return model, public | {"perturbation_": float(problem.perturbation)}


# The choice of the perturbation


def with_perturbation(problem: Problem) -> tuple[Problem, dict[str, Any]]:
    """Return the problem with a number for "auto", and the public attributes that say how it was found.

    It is the least perturbation whose distances exceed those of the best by no more than a standard error in the mean.
    The draws are common to all candidates, so that the errors of their differences are small.
    """
    if problem.perturbation != "auto":
        return problem, {}
    distances = validation_distances(problem)
    means = {perturbation: float(found.mean()) for perturbation, found in distances.items()}
    best = min(means, key=means.__getitem__)
    excess = {perturbation: found - distances[best] for perturbation, found in distances.items()}
    least = min(s for s, found in excess.items() if found.mean() <= found.std() / _N_DRAWS**0.5)
    return problem._replace(perturbation=least), {"validation_distances_": means}


def validation_distances(problem: Problem) -> dict[float, torch.Tensor]:
    """Return for each candidate the distances of several samples from held-out rows, after a training on the others.

    All candidates begin with the same weights and have the same batches and draws.
    """
    generator = torch.Generator("cpu").manual_seed(problem.seed)
    (n, n_features), device = problem.rows.shape, problem.rows.device
    n_held_out = min(max(1, round(_HELD_OUT * n)), _MOST_HELD_OUT)

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64, device="cpu").to(device)

    order = torch.randperm(n, generator=generator, device="cpu", dtype=torch.int64).to(device)
    rest = problem._replace(rows=problem.rows[order[n_held_out:]])
    directions = randn(n_features, _N_DIRECTIONS)
    distance = sliced_distance(problem.rows[order[:n_held_out]].double(), directions)
    draws = randn(_N_DRAWS, n_held_out, problem.shape.n_components)
    found = {}
    for perturbation in CANDIDATES:
        weights = _candidate(rest._replace(perturbation=perturbation))
        net = problem.design.restored(weights, device, torch.float64)
        found[perturbation] = torch.stack([distance(decoded(net, Z)) for Z in draws])
    return found


def _candidate(problem):
    """Return the weights after a training that begins with the problem's seed."""
    device = problem.rows.device
    randomness = Randomness(torch.Generator("cpu").manual_seed(problem.seed), device, seeds_global=False)
    return trained_weights(
        problem.design,
        perturbed_batches(problem, randomness.generator),
        negative_bound,
        problem.training._replace(verbose=0),
        device=device,
        randomness=randomness,
        schedule=SCHEDULE,
    )


def sliced_distance(rows: torch.Tensor, directions: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the function that computes the sliced 1-Wasserstein distance of as many other rows from `rows`."""
    directions = directions / directions.norm(dim=0)
    quantiles = (rows @ directions).sort(0).values
    return lambda others: ((others @ directions).sort(0).values - quantiles).abs().mean()


# Answers


def decoded(net: LatentDensity, Z: torch.Tensor) -> torch.Tensor:
    """Return the standardised rows of latent coordinates."""
    return distinct_outputs(net.decoder, Z, size=_bytes_per_row(net))[0]


def encoded(net: LatentDensity, X: torch.Tensor) -> torch.Tensor:
    """Return the means of the latent coordinates of standardised rows."""
    return distinct_outputs(net.encoder, X, size=_bytes_per_row(net))[0].chunk(2, 1)[0]


def log_densities(net: LatentDensity, X: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Return the log densities of standardised rows, by the same draws (K, n_components) for each."""
    return distinct_outputs(LogDensity(net, draws), X, size=len(draws) * _bytes_per_row(net))[0]


def score_draws(model: Model, n_draws: int, device: torch.device) -> torch.Tensor:
    """Return the draws (n_draws, n_components) by which all rows are scored."""
    generator = torch.Generator("cpu").manual_seed(model.seed)
    shape = (n_draws, model.shape.n_components)
    return torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu").to(device)


def precision_of(model: Model) -> torch.dtype:
    """Return the type of what is drawn."""
    return getattr(torch, model.precision)


def restored(model: Model, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64) -> LatentDensity:
    """Return the network with its weights, for standardised rows."""
    return Design(LatentDensity, model.shape._asdict()).restored(model.weights, device, dtype)


def _bytes_per_row(net):
    return 8 * sum(parameter.shape[0] for parameter in net.parameters() if parameter.ndim)
