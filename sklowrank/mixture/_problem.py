"""What a mixture is fitted to: rows about their centre, given labels, and the parameters that are free."""

from typing import Any, NamedTuple

import numpy as np
import torch

from .._core.rows import Rows, RowSource, row_weights
from .._core.workspace import Workspace
from .._math.distinct import distinct_weighted
from .._math.em import CentredRows, centred_rows, least_noise
from .._math.mixtures import LowRankGaussians
from ..cluster._k_subspaces_starts import MOST_ROWS, check_dims, check_enough


class MixtureOptions(NamedTuple):
    """The parameters of the estimator that determine what is fitted, and from where."""

    n_components: int
    n_dims: Any
    affine: bool
    spectrum: str
    noise: str
    weights: str
    init: Any
    n_init: int
    noise_floor: float
    random_state: Any


class MixtureProblem(NamedTuple):
    """What a mixture is fitted to."""

    source: RowSource  # the rows as they were given
    rows: CentredRows  # to iterate on
    labels: torch.Tensor | None  # (n,), given components of the rows
    n_dims: list[int] | None  # None: found by the starts
    free: dict[str, Any]  # the fields of MixtureForm other than the dimensions
    sampled: bool  # whether the starts are made of some of the rows
    options: MixtureOptions


def free_parameters(options: MixtureOptions) -> dict[str, Any]:
    """Return which parameters of a mixture are free or shared, as :class:`MixtureForm` names them."""
    return {
        "affine": options.affine,
        "isotropic": options.spectrum == "isotropic",
        "shared": options.noise == "shared",
        "uniform": options.weights == "uniform",
    }


def mixture_problem(
    source: RowSource,
    sample_weight: Any,
    options: MixtureOptions,
    ws: Workspace,
    generator: torch.Generator,
    former: LowRankGaussians | None = None,
    at_least: int | None = None,
) -> MixtureProblem:
    """Check relations between parameters and rows, and return what to fit.

    Up to 5000 rows are reduced to the distinct ones in a fixed order, so that a row of weight 2 is two rows, unless
    labels are given or the fit goes on from a `former` model. At least `at_least` rows are needed, by default as many
    as components.
    """
    free = free_parameters(options)
    weights = row_weights(sample_weight, source, ws)
    few = source.take(slice(None)).double() if len(source) <= MOST_ROWS else None
    K, D = options.n_components, source.shape[1]
    n_dims = check_dims(options.n_dims, K, D, name="n_components")
    n_samples = len(source) if weights is None else int((weights > 0).sum())
    check_enough(n_samples, len(source), at_least or K, name="n_components")
    labels, rows = None, source
    if former is not None:
        _check_former(K, D, *former.means.shape)
    elif not isinstance(options.init, str):
        labels = given_labels(options, source, ws)
    elif few is not None:
        few, weights, _ = distinct_weighted(few, weights)
        rows = Rows(few)
    centred, *scale = centred_rows(rows, weights, affine=options.affine, device=ws.device, generator=generator)
    free["floor"] = least_noise(options.noise_floor, *scale)
    return MixtureProblem(source, centred, labels, n_dims, free, few is None, options)


def _check_former(K, D, former_K, former_D):
    for name, now, before in (("n_components", K, former_K), ("n_features", D, former_D)):
        if now != before:
            raise ValueError(
                f"{name}={now}, but the fit so far has {before}. Set it back, or fit anew with warm_start=False."
            )


def given_labels(options: MixtureOptions, rows: RowSource, ws: Workspace) -> torch.Tensor:
    """Return the labels (n,) of an array or a callable `init`, as 0, 1, ..."""
    init, K = options.init, options.n_components
    given = init(ws.store(rows.take(slice(None))), K, options.random_state) if callable(init) else init
    labels = np.asarray(given)
    if labels.shape != (len(rows),):
        raise ValueError(
            f"init has shape {labels.shape}, but X has n_samples={len(rows)}. Pass one label for each row."
        )
    values, labels = np.unique(labels, return_inverse=True)
    if len(values) > K:
        raise ValueError(f"init has {len(values)} different labels for n_components={K}. Pass at most {K}.")
    return torch.from_numpy(labels).to(ws.device)
