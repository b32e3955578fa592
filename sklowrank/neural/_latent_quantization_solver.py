"""Latent quantization filters: units of the columns, what is trained, answers for new rows."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from .._core.blocks import join_blocks, rows_per_block
from .._core.rows import column_ends, rows_of
from .._core.standardize import standardization, standardized
from .._core.warn import warn
from .._nets.architecture import as_numpy, load_weights
from .._nets.batches import Batches
from .._nets.designs import Design
from .._nets.estimating import distinct_outputs
from .._nets.layers import layer_sizes
from ._latent_quantization_network import Autoencoder, Decoder, Encoder, Purifier

_MOST_COMPONENTS = 12  # of "auto"
_KERNELS = (0.1, 0.5, 1.0, 2.0, 5.0)  # widths, times twice the number of components
_ROWS_LOOKED_AT = 1000  # for a warning
_ROUNDING = 8 * torch.finfo(torch.float64).eps  # a column with a smaller range, relative to its values, is constant


class Options(NamedTuple):
    """The parameters of the estimator that decide the network and its training."""

    n_components: int | str
    step: float
    latent_noise: float
    input_noise: float
    prior_weight: float
    lipschitz: float | None
    hidden_layer_sizes: Any
    output_range: Any


class Units(NamedTuple):
    """What rows are measured in, float64 (n_features,)."""

    mean: torch.Tensor
    scale: torch.Tensor  # range times `common`; of a constant column the range counts as one
    data_min: torch.Tensor
    data_max: torch.Tensor
    common: torch.Tensor  # ()


class Problem(NamedTuple):
    """What the network is trained on, and how."""

    rows: torch.Tensor  # (n, n_features), standardised, float32; zero in constant columns
    units: Units
    widths: list[int]  # of the encoder, from the columns to the components
    low: torch.Tensor  # (n_features,), bounds of the answers
    high: torch.Tensor
    options: Options

    @property
    def design(self) -> Design:
        """How the trained network is built."""
        options = self.options
        bound = None if options.lipschitz is None else float(options.lipschitz)
        return Design(Autoencoder, {"widths": self.widths, "step": float(options.step), "lipschitz": bound})


class Model(NamedTuple):
    """A fitted filter."""

    weights: dict[str, np.ndarray]
    mean: torch.Tensor
    scale: torch.Tensor
    data_min: torch.Tensor
    data_max: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    widths: list[int]
    step: float


# The problem


def filter_problem(X: torch.Tensor, options: Options) -> Problem:
    """Return the problem of rows X.

    Raises
    ------
    ValueError
        If `output_range` is no pair of increasing numbers, or a hidden layer is empty.
    """
    sizes, n_features = layer_sizes(options.hidden_layer_sizes), X.shape[1]
    given = options.n_components
    n_components = min(_MOST_COMPONENTS, n_features) if isinstance(given, str) else int(given)
    units = units_of(X, n_components)
    low, high = bounds_of(options.output_range, units)
    rows = standardized(X, units.mean, scale_read(units))
    return Problem(rows, units, [n_features, *sizes, n_components], low, high, options)


def units_of(X: torch.Tensor, n_components: int) -> Units:
    """Return mean and scale of the columns, so that the scaled rows have the total variance `n_components`."""
    rows = rows_of(X)
    low, high = (end.double() for end in column_ends(rows))
    varies = is_varying(low, high)
    span = torch.where(varies, high - low, 1.0)
    mean = torch.where(varies, standardization(X, True)[0], low)
    (squares,) = rows.gather(partial(_sum_of_squares, mean, span), size=24 * X.shape[1])
    common = (squares[varies].sum() / len(X) / n_components).sqrt()
    common = torch.where(common > 0, common, 1.0)
    return Units(mean, span * common, low, high, common)


def _sum_of_squares(mean, span, X):
    return (((X.double() - mean) / span).square().sum(0),)


def is_varying(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Return which columns have a range above the rounding of their values."""
    return high - low > _ROUNDING * torch.maximum(low.abs(), high.abs())


def scale_read(units: Units | Model) -> torch.Tensor:
    """Return the scale by which rows are divided: infinite for constant columns, in which there is nothing to learn."""
    return torch.where(is_varying(units.data_min, units.data_max), units.scale, torch.inf)


def bounds_of(output_range: Any, units: Units) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the lowest and the highest value of each column in the answers."""
    if isinstance(output_range, str):
        return units.data_min, units.data_max
    try:
        ends = np.asarray((-np.inf, np.inf) if output_range is None else output_range, dtype=np.float64)
    except (TypeError, ValueError):
        ends = np.empty(0)
    if ends.shape != (2,) or not ends[0] < ends[1]:
        raise ValueError(
            f"output_range={output_range!r} is no pair of a lower and a higher number. Pass one, such as (0, 1), "
            "(0, np.inf), 'data', or None."
        )
    low, high = (torch.full_like(units.mean, float(end)) for end in ends)
    return low, high


# The training


def noisy_batches(problem: Problem, generator: torch.Generator) -> Batches:
    """Return batches of rows with noise, noise for their codes, the clean rows, and draws of the prior."""
    rows, options, units = problem.rows, problem.options, problem.units
    varies = is_varying(units.data_min, units.data_max)
    spread = torch.where(varies, options.input_noise / units.common, 0.0).float()

    def draw(n_rows, n_columns):
        noise = torch.randn(n_rows, n_columns, generator=generator, device="cpu", dtype=torch.float32)
        return noise.to(rows.device)

    def make(at):
        x, k = rows[at.to(rows.device)], problem.widths[-1]
        noisy = x + spread * draw(*x.shape)
        return {"x": noisy, "noise": options.latent_noise * draw(len(x), k)}, (x, draw(len(x), k))

    return Batches(make, len(rows), whole=True)


def filter_loss(problem: Problem) -> Callable[[Any, Any], torch.Tensor]:
    """Return the loss of a batch: squared error in ranges of the columns, and the distance of the codes to normal."""
    weight, unit = float(problem.options.prior_weight), float(problem.units.common) ** 2
    widths = kernel_widths(problem.widths[-1], problem.rows)

    def loss(outputs, target):
        (z, found), (x, prior) = outputs, target
        error = unit * (found - x).square().sum(1).mean()
        return error + weight * discrepancy(z, prior, widths) if weight else error

    return loss


def kernel_widths(n_components: int, like: torch.Tensor) -> torch.Tensor:
    """Return the widths of the kernels, which grow with squared distances of normal rows, as a tensor (5, 1, 1)."""
    return like.new_tensor([2 * n_components * c for c in _KERNELS])[:, None, None]


def discrepancy(Z: torch.Tensor, P: torch.Tensor, widths: torch.Tensor) -> torch.Tensor:
    """Return the squared maximum mean discrepancy of two samples of one size, without bias: it may be negative."""
    n, of_equal_rows = len(Z), 2 * len(Z) * len(widths)
    within = (_kernel_sum(Z, Z, widths) + _kernel_sum(P, P, widths) - of_equal_rows) / max(1, n * (n - 1))
    return within - 2 * _kernel_sum(Z, P, widths) / n**2


def _kernel_sum(A, B, widths):
    """Return the sum of inverse multiquadratic kernels over all pairs; each is 1 for equal rows."""
    squares = (A.square().sum(1)[:, None] + B.square().sum(1) - 2 * A @ B.T).clamp(min=0.0)
    return (widths / (widths + squares)).sum()


def described(problem: Problem, weights: dict[str, np.ndarray]) -> tuple[Model, dict[str, Any]]:
    """Return the model and the public attributes of weights in training."""
    net: Any = problem.design.restored(weights)
    plain = as_numpy(net.plain())
    units, options = problem.units, problem.options
    of_columns = {name: getattr(units, name) for name in ("mean", "scale", "data_min", "data_max")}
    model = Model(plain, **of_columns, low=problem.low, high=problem.high, widths=problem.widths, step=options.step)
    public = {f"{name}_": value for name, value in of_columns.items()}
    return model, public | {"weights_": plain, "n_components_": problem.widths[-1]}


def warn_of_one_code(X: torch.Tensor, model: Model, options: Options) -> None:
    """Warn where rounding gives all rows one code, so that all answers are equal though the rows are not."""
    some = X[:: max(1, len(X) // _ROWS_LOOKED_AT)]
    codes = codes_of(some, model, torch.float64)
    if bool((codes == codes[0]).all()) and not bool((some == some[0]).all()):
        bound = "" if options.lipschitz is None else f"raise lipschitz={options.lipschitz}, "
        warn(
            f"All rows have one code, so that transform returns the same row for each: step={options.step} is wide for "
            f"codes that differ so little. Lower step, {bound}or train for longer.",
            UserWarning,
        )


# New rows


def restored(model: Model, device: torch.device | str, dtype: torch.dtype) -> Purifier:
    """Return the filter as a module, in eval mode."""
    read = scale_read(model)
    written = torch.where(read.isinf(), 0.0, model.scale)
    encoder = Encoder(model.widths, float(model.step), model.mean, read)
    decoder = Decoder(model.widths, model.mean, written, model.low, model.high)
    net = Purifier(encoder, decoder)
    load_weights(net, model.weights, device)
    return net.to(dtype)


def codes_of(X: torch.Tensor, model: Model, precision: torch.dtype) -> torch.Tensor:
    """Return the codes (n, n_components) of rows, in the precision of the answers."""
    net = restored(model, X.device, torch.float64)
    return distinct_outputs(net.encoder, X, size=_bytes_per_row(model))[0].to(precision)


def rows_of_codes(codes: torch.Tensor, model: Model) -> torch.Tensor:
    """Return the rows (n, n_features) of codes, in float64; equal codes have equal rows."""
    net = restored(model, codes.device, torch.float64)
    return distinct_outputs(net.decoder, codes, size=_bytes_per_row(model))[0]


def purified(X: torch.Tensor, model: Model, precision: torch.dtype) -> torch.Tensor:
    """Return the purified rows of X, in float64; by way of codes in the precision of the answers."""
    return rows_of_codes(codes_of(X, model, precision), model)


def _bytes_per_row(model):
    return 8 * (2 * sum(model.widths) + model.widths[0])


def scores_of(X: torch.Tensor, purified: torch.Tensor, model: Model) -> torch.Tensor:
    """Return minus the mean over columns of the squared error, in ranges of the columns; constant ones count 0."""
    span = torch.where(is_varying(model.data_min, model.data_max), model.data_max - model.data_min, torch.inf)
    size = 24 * X.shape[1]

    def of(at):
        return -((X[at].double() - purified[at]) / span).square().mean(1)

    return join_blocks(of, len(X), rows_per_block("auto", len(X), size), bytes_per_row=size)
