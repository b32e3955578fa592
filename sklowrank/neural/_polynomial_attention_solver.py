"""Learnt similarity of rows: a projection with an adapter of low rank, trained through attention to all rows."""

from collections import deque
from collections.abc import Iterable, Iterator
from math import inf
from typing import Any, NamedTuple

import torch

from .._core.iterate import Step
from .._core.standardize import standardization, standardized
from .._core.workspace import Workspace
from .._math.attention import (
    Keys,
    count_monomials,
    exact_attention,
    key_sums,
    largest_shift,
    longest,
    polynomial_attention,
    read_sums,
    series_errors,
    with_ones,
)
from .._math.linalg import signs_of_largest

PATIENCE = 20  # steps in which the loss has to fall
PROBED = 256  # queries


class AttentionOptions(NamedTuple):
    """The parameters that the solver reads."""

    n_components: int
    adapter_rank: int
    tie: bool
    norm_bound: float
    degree: Any
    error_tol: float
    max_features: int
    method: str
    key_bias: str
    max_iter: int
    learning_rate: float
    batch_size: Any
    standardize: bool


class Problem(NamedTuple):
    """What is fitted."""

    Z: torch.Tensor  # standardised rows (n, d), in float64
    mean: torch.Tensor
    scale: torch.Tensor
    values: torch.Tensor  # what is averaged (n, c): indicators of classes, or targets in their standard units
    units: torch.Tensor  # of the values (c,)
    codes: torch.Tensor | None  # classes (n,)
    base: torch.Tensor  # the projection at the start (h, d)
    adapter: tuple[torch.Tensor, torch.Tensor]  # A (r, d) and B (h, r) at the start
    chosen: AttentionOptions


class Model(NamedTuple):
    """What predictions need: sums over the keys, or the keys themselves where attention is exact."""

    mean: torch.Tensor
    scale: torch.Tensor
    components: torch.Tensor
    norm_bound: float
    degree: int | None
    key_features_sum: torch.Tensor | None
    value_features: torch.Tensor | None
    keys: Keys | None


def attention_problem(
    X: torch.Tensor,
    values: torch.Tensor,
    units: Any,
    codes: torch.Tensor | None,
    chosen: AttentionOptions,
    ws: Workspace,
) -> Problem:
    """Return the problem at its start: whitened principal components, and an adapter that changes nothing yet."""
    mean, scale = standardization(X, "columns" if chosen.standardize else "global")
    Z = standardized(X, mean, scale, torch.float64)
    base, directions = whitened_components(Z, chosen.n_components)
    noise = ws.randn(len(directions), chosen.adapter_rank) / max(1, len(directions)) ** 0.5
    adapter = noise.T @ directions, Z.new_zeros(chosen.n_components, chosen.adapter_rank)
    values, units = values.to(ws.device, torch.float64), torch.as_tensor(units, dtype=torch.float64, device=ws.device)
    codes = None if codes is None else codes.to(ws.device)
    problem = Problem(Z, mean, scale, values, units.expand(values.shape[1]), codes, base, adapter, chosen)
    return problem._replace(chosen=resolved(problem))


def whitened_components(Z: torch.Tensor, n_components: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return projections (h, d) of unit variance onto principal components, and all components that vary (k, d).

    Projections are zero where fewer than h components vary.
    """
    n, d = Z.shape
    Z = Z - Z.mean(0)
    wide = d > n
    values, vectors = torch.linalg.eigh((Z @ Z.T if wide else Z.T @ Z) / n)
    varies = values > max(n, d) * torch.finfo(Z.dtype).eps * values[-1]
    values, vectors = values[varies].flip(0), vectors[:, varies].flip(1)
    directions = (vectors.T @ Z / (n * values[:, None]).sqrt()) if wide else vectors.T
    directions = directions * signs_of_largest(directions)[:, None]
    base = Z.new_zeros(n_components, d)
    base[: len(values)] = (directions / values[:, None].sqrt())[:n_components]
    return base, directions


def resolved(problem: Problem) -> AttentionOptions:
    """Return the options with a method and a degree, chosen at the start."""
    chosen, n = problem.chosen, len(problem.Z)
    if chosen.method == "exact":
        return chosen._replace(degree=None)
    degree = chosen.degree if chosen.degree != "auto" else _smallest_degree(problem)
    n_features = count_monomials(chosen.n_components, degree)
    if chosen.method == "auto" and n * chosen.n_components < n_features * (problem.values.shape[1] + 1):
        return chosen._replace(method="exact", degree=None)
    return chosen._replace(method="polynomial", degree=degree)


def _smallest_degree(problem):
    """Return the smallest degree that is guaranteed to be good enough, or is found to be, or the largest one."""
    h, chosen = problem.chosen.n_components, problem.chosen
    degrees = [g for g in range(2, 42, 2) if count_monomials(h, g) <= chosen.max_features]
    keys, bound = attended(problem, problem.base)
    for degree in degrees:
        if largest_shift(bound, degree) <= chosen.error_tol:
            return degree
    found = measured(problem, problem.base, keys, degrees)
    return next((errors.degree for errors in found if errors.share <= chosen.error_tol), degrees[-1])


def projected(Z: torch.Tensor, components: torch.Tensor, norm_bound: float) -> torch.Tensor:
    """Return rows (n, h) in the ball of radius sqrt(norm_bound): longer ones are shortened."""
    P = Z @ components.T
    return P * (norm_bound / P.square().sum(1, keepdim=True).clamp(min=norm_bound)).sqrt()


def keys_of(points: torch.Tensor, values: torch.Tensor, key_bias: str) -> Keys:
    """Return keys about their mean; with a Gaussian bias their masses are exp(-norm² / 2)."""
    log_mass = points.square().sum(1) / -2 if key_bias == "gaussian" else points.new_zeros(len(points))
    return Keys(points - points.mean(0), log_mass - log_mass.detach().amax(), values)


def attended(problem: Problem, components: torch.Tensor) -> tuple[Keys, float]:
    """Return the keys, and a bound on the logits of every query in the ball."""
    chosen = problem.chosen
    points = projected(problem.Z, components if chosen.tie else problem.base, chosen.norm_bound)
    keys = keys_of(points, problem.values, chosen.key_bias)
    return keys, chosen.norm_bound**0.5 * longest(keys.points.detach())


def attend(Q: torch.Tensor, keys: Keys, chosen: AttentionOptions, own: torch.Tensor | None = None) -> torch.Tensor:
    """Return the means of the keys' values (n, c); `own` are keys that a query leaves out."""
    if chosen.degree is None:
        return exact_attention(Q, keys, own, chosen.batch_size)
    return polynomial_attention(Q, keys, chosen.degree, own, chosen.batch_size)


def row_losses(outputs: torch.Tensor, problem: Problem, rows: Any = slice(None)) -> torch.Tensor:
    """Return the losses of rows: minus the logarithm of the probability of the class, or the mean squared error."""
    if problem.codes is None:
        return (outputs - problem.values[rows]).square().mean(1)
    own = outputs.gather(1, problem.codes[rows, None])[:, 0]
    return -own.clamp(min=torch.finfo(own.dtype).eps).log()


def training(problem: Problem) -> Iterator[Step]:
    """Train the adapter by Adam on all rows; each row is predicted by all others.

    The last step has a gap of 0, so that a fit that reaches `max_iter` does not warn.
    """
    A, B = (part.clone().requires_grad_() for part in problem.adapter)
    optimizer = torch.optim.Adam([A, B], lr=problem.chosen.learning_rate)
    everyone = torch.arange(len(problem.Z), device=problem.Z.device)
    former: deque[float] = deque(maxlen=PATIENCE)
    for step in range(1, problem.chosen.max_iter + 1):
        components = problem.base + B @ A
        keys, _ = attended(problem, components)
        queries = projected(problem.Z, components, problem.chosen.norm_bound)
        loss = row_losses(attend(queries, keys, problem.chosen, everyone), problem).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        now = float(loss.detach())
        gap = (former[0] - now) / max(abs(former[0]), 1e-300) if len(former) == PATIENCE else inf
        former.append(now)
        yield Step((A.detach().clone(), B.detach().clone()), 0.0 if step == problem.chosen.max_iter else gap, now)


class Errors(NamedTuple):
    """How far the polynomial of a degree is from exact attention, measured on some queries."""

    degree: int
    share: float  # largest error of an output as a share of the range of its value
    output: float  # largest error of an output in units of y
    gradient: float  # relative error of the gradient of the components
    loss_ratio: float  # the loss over that of exact attention


_EXACT = Errors(0, 0.0, 0.0, 0.0, 1.0)


def measured(problem: Problem, components: torch.Tensor, keys: Keys, degrees: Iterable[int]) -> Iterator[Errors]:
    """Yield the errors of polynomials on 256 queries, which are spread over all, whatever the order of rows."""
    rows = _probed_rows(problem, components)
    exact = _answers_and_gradient(problem, components, rows, keys, None)
    for degree in degrees:
        found = _answers_and_gradient(problem, components, rows, keys, degree)
        error, gradient = (found[0] - exact[0]).abs().amax(0), torch.linalg.vector_norm(found[1] - exact[1])
        size = torch.linalg.vector_norm(exact[1]).clamp(min=torch.finfo(gradient.dtype).tiny)
        share, output = (error / _divisors(keys.values)).amax(), (error * problem.units).amax()
        tiny = torch.finfo(gradient.dtype).tiny  # both losses can be zero
        ratio = (found[2] + tiny) / (exact[2] + tiny)
        yield Errors(degree, *(float(part) for part in (share, output, gradient / size, ratio)))


def _probed_rows(problem, components):
    """Return 256 rows, spread along the components; equal rows come in the order of their values."""
    along = projected(problem.Z, components, problem.chosen.norm_bound).sum(1).float()  # without the noise of rounding
    n, c = problem.values.shape
    value = (problem.values @ torch.linspace(1, 2, c, dtype=torch.float64, device=along.device)).float()
    order = value.argsort(stable=True)
    order = order[along[order].argsort(stable=True)]
    at = torch.linspace(0, n - 1, min(PROBED, n), dtype=torch.float64, device=along.device)
    return order[at.round().long()]


def _answers_and_gradient(problem, components, rows, keys, degree):
    """Return outputs of some queries, the gradient of their training loss in their projection, and the loss."""
    chosen, leaf = problem.chosen._replace(degree=degree), components.detach().clone().requires_grad_()
    queries = projected(problem.Z[rows], leaf, chosen.norm_bound)
    loss = row_losses(attend(queries, keys, chosen, rows), problem, rows).mean()
    (gradient,) = torch.autograd.grad(loss, leaf)
    return attend(queries.detach(), keys, chosen), gradient, loss.detach()


def _divisors(values):
    """Return the ranges of values (n, c), 1 where all are equal."""
    found = values.amax(0) - values.amin(0)
    return found.where(found > 0, 1.0)


class Certificate(NamedTuple):
    """How far predictions can be from exact attention, and how far some of them are."""

    public: dict[str, Any]  # in units of y
    bound: float  # of all errors, as a share of the range
    probed: float  # the largest error found, as a share of the range


def certificate(problem: Problem, adapter: tuple[torch.Tensor, torch.Tensor]) -> Certificate:
    """Return the certificate of an adapter."""
    components = problem.base + adapter[1] @ adapter[0]
    keys, largest = attended(problem, components)
    degree, tol = problem.chosen.degree, problem.chosen.error_tol
    share = 0.0 if degree is None else largest_shift(largest, degree)
    errors = _EXACT
    if degree is not None:
        (errors,) = measured(problem, components, keys, [degree])
    spread = (keys.values.amax(0) - keys.values.amin(0)) * problem.units
    public = {
        "B": largest,
        "relative_error": 0.0 if degree is None else series_errors(largest, degree)[0],
        "output_bound": share * float(spread.amax()),
        "probed_error": errors.output,
        "probed_gradient_error": errors.gradient,
        "probed_loss_ratio": errors.loss_ratio,
        "satisfied": "guaranteed" if share <= tol else "probed" if errors.share <= tol else "no",
    }
    return Certificate(public, share, errors.share)


def exactly(certificate: dict[str, Any]) -> dict[str, Any]:
    """Return a certificate of exact predictions after a training by polynomials."""
    errors = dict.fromkeys(("relative_error", "output_bound", "probed_error"), 0.0)
    return {**certificate, **errors, "probed_loss_ratio": 1.0, "satisfied": "guaranteed"}


class Fit(NamedTuple):
    """What a fit has found."""

    model: Model
    attributes: dict[str, Any]


def fitted(problem: Problem, adapter: tuple[torch.Tensor, torch.Tensor], *, exact: bool = False) -> Fit:
    """Return the model of an adapter and its public attributes but the certificate; `exact` keeps the keys."""
    A, B = adapter
    components, chosen = problem.base + B @ A, problem.chosen
    keys, _ = attended(problem, components)
    degree, sums = None if exact else chosen.degree, None
    if degree is not None:
        sums = key_sums(keys.points, with_ones(keys.values, keys.log_mass.exp()), degree, chosen.batch_size)
    public: dict[str, Any] = {
        "components_": components,
        "base_components_": problem.base,
        "adapter_A_": A,
        "adapter_B_": B,
        "key_features_sum_": None if sums is None else sums[:, 0],
        "value_features_": None if sums is None else sums[:, 1:],
        "degree_": degree,
        "n_features_map_": None if sums is None else len(sums),
        "max_logit_": longest(projected(problem.Z, components, chosen.norm_bound)) * longest(keys.points),
    }
    units: dict[str, Any] = {"mean": problem.mean, "scale": problem.scale, "norm_bound": chosen.norm_bound}
    names = ("components", "degree", "key_features_sum", "value_features")
    parts = {name: public[f"{name}_"] for name in names}
    return Fit(Model(**units, **parts, keys=keys if sums is None else None), public)


def predicted(model: Model, X: torch.Tensor, batch_size: Any) -> torch.Tensor:
    """Return the means (n, c) of the values that rows attend to."""
    Q = projected(standardized(X, model.mean, model.scale, torch.float64), model.components, model.norm_bound)
    if model.keys is not None:
        return exact_attention(Q, model.keys, batch_size=batch_size)
    sums = torch.cat([model.key_features_sum[:, None], model.value_features], 1)
    found = read_sums(Q, sums, model.degree, batch_size)
    return found[:, 1:] / found[:, :1]
