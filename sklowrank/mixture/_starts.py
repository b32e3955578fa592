"""Where the mixture starts: clusterings of the rows, each good at what others miss; the likelihood chooses."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.cluster import KMeans

from .._core.iterate import Step
from .._core.rows import Rows, RowSource
from .._core.workspace import Workspace
from .._math.em import (
    CentredRows,
    EMState,
    MixtureForm,
    by_posterior,
    centred_rows,
    expectation_maximization,
    least_noise,
    maximised,
    mean_log_likelihood,
    model_of_labels,
    moments_by,
)
from .._math.graphs import affinity, csr_from, spectral_labels
from .._math.mixtures import LowRankGaussians, log_joint, n_parameters
from .._math.subspaces import dims_by_threshold, possible_dimension, ranks_by_threshold, table_of
from ..cluster._directions import distinct_directions
from ..cluster._k_subspaces_solver import matching_dims, random_starts
from ..cluster._k_subspaces_starts import MOST_ROWS, check_dims, check_enough, distinct, draw_rows, draw_seed
from ..cluster._least_squares import least_squares_codes
from ..cluster._orthogonal_matching_pursuit import matching_pursuit_codes
from ..cluster._thresholded import thresholded_codes

_ITERATIONS = 10  # of EM, after which starts are compared
_ENOUGH_ROWS = 30  # of a cluster, to tell its dimension
_STRONGEST = 50  # codes of a row that are kept where all are non-zero
_RUNS = 3  # of k-means on the embedding of a graph
_RESTARTS = 2, 20  # of K-subspaces: the more where subspaces overlap, which graphs miss; more than half of D in all
_NEAR = 1e-3  # nats a row: an iteration that gains less is near the end
_REACH = 50  # iterations in which a run that is behind could reach the best
_CONVERGED = 1e-7  # nats a row: the gain of an iteration at which a start is left as it is


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
    floor: float  # of the noise variances
    options: MixtureOptions

    def form(self, n_dims: Sequence[int]) -> MixtureForm:
        """Return the free parameters of a mixture whose components have the given dimensions."""
        return MixtureForm(tuple(n_dims), floor=self.floor, **free_parameters(self.options))


class Start(NamedTuple):
    """A model to start from, relative to the centre of the rows, and the name of the clustering that it comes from."""

    name: str
    model: LowRankGaussians


def free_parameters(options: MixtureOptions) -> dict[str, bool]:
    """Return which parameters of a mixture are free or shared, as :class:`MixtureForm` names them."""
    return {
        "affine": options.affine,
        "isotropic": options.spectrum == "isotropic",
        "shared": options.noise == "shared",
        "uniform": options.weights == "uniform",
    }


def mixture_problem(
    source: RowSource,
    weights: torch.Tensor | None,
    options: MixtureOptions,
    ws: Workspace,
    former: LowRankGaussians | None = None,
    at_least: int | None = None,
) -> MixtureProblem:
    """Check relations between parameters and rows, and return what to fit.

    Up to 5000 rows are reduced to the distinct ones in a fixed order, so that a row of weight 2 is two rows, unless
    labels are given or the fit goes on from a `former` model. At least `at_least` rows are needed, by default as many
    as components.
    """
    K, D = options.n_components, source.shape[1]
    n_dims = check_dims(options.n_dims, K, D, name="n_components")
    n_samples = len(source) if weights is None else int((weights > 0).sum())
    check_enough(n_samples, len(source), at_least or K, name="n_components")
    labels, rows, row_weights = None, source, weights
    if former is not None:
        _check_former(K, D, *former.means.shape)
    elif not isinstance(options.init, str):
        labels = given_labels(options, source, ws)
    elif len(source) <= MOST_ROWS:
        X = source.take(slice(None)).double()
        X, row_weights, _ = distinct(X, X.new_ones(len(X)) if weights is None else weights)
        rows = Rows(X)
    centred = centred_rows(rows, row_weights, affine=options.affine, device=ws.device, generator=ws.generator)
    floor = least_noise(centred, options.noise_floor, affine=options.affine)
    return MixtureProblem(source, centred, labels, n_dims, floor, options)


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


def mixture_starts(problem: MixtureProblem, former: LowRankGaussians | None = None) -> list[Start]:
    """Return models to start from, the most promising first: `former`, of given labels, or the best clusterings.

    Clusterings are made of at most 5000 rows, and compared after 10 iterations of generalised EM on them.
    """
    if former is not None:
        return [_warm_start(problem, former)]
    if problem.labels is not None:
        return [_labelled_start(problem)]
    rows = problem.rows if len(problem.rows) <= MOST_ROWS else _sampled(problem.rows)
    labels, n_dims = starting_labels(rows, problem.n_dims, problem.options)
    form = problem.form(n_dims)
    starts = [Start(name, _model_of_clusters(rows, found, form)) for name, found in labels]
    if len(starts) == 1:
        return starts
    starts = best_restarts(rows, starts, form, n_iter=_ITERATIONS, keep=2 if len(problem.rows) <= MOST_ROWS else 1)
    return starts if problem.n_dims else _with_own_dims(problem, rows, starts, form)


def _sampled(rows: CentredRows) -> CentredRows:
    """Return the distinct ones of at most 5000 rows."""
    weights = _weights(rows)
    chosen = draw_rows(weights, rows.generator)
    X, weights, _ = distinct(rows.rows.take(chosen).double(), weights[chosen])
    return CentredRows(Rows(X), weights, rows.shift, rows.generator)


def _weights(rows):
    return rows.shift.new_ones(len(rows)) if rows.weights is None else rows.weights


def starting_labels(
    rows: CentredRows, n_dims: list[int] | None, options: MixtureOptions
) -> tuple[list[tuple[str, torch.Tensor]], list[int]]:
    """Return the clusterings (name, labels (n,)) that `init` names, and the dimensions of the components.

    Where `n_dims` is None, one dimension for all is found: the median of those of the clusterings.
    """
    X, weights, generator = rows.rows.take(slice(None)), rows.weights, rows.generator
    K, affine, init = options.n_components, options.affine, options.init
    if len(X) <= K:
        return [(init, torch.arange(len(X), device=X.device))], n_dims or [1] * K
    if K == 1:
        labels = torch.zeros(len(X), dtype=torch.long, device=X.device)
        return [(init, labels)], n_dims or [dims_by_threshold(table_of(X, centred=affine), labels, 1)]

    names = {
        "auto": ["tsc", "wide tsc", "omp", "lsr"] + ["kmeans"] * (affine and options.n_init),
        "tsc": ["tsc", "wide tsc"],
        "kmeans": ["kmeans"] * options.n_init,
        "random": ["random"] * options.n_init,
        "k-subspaces": ["tsc"] if n_dims is None else [],
    }.get(init, [init])
    unit = torch.nn.functional.normalize(X, dim=1, eps=torch.finfo(X.dtype).tiny)
    first, place, _ = distinct_directions(unit)
    found: list[tuple[str, torch.Tensor]] = []
    for name in names:
        if name == "kmeans":
            means = KMeans(K, n_init=1, random_state=draw_seed(generator))
            labels = means.fit(X.cpu().numpy(), sample_weight=weights.cpu().numpy()).labels_
        elif name == "random":
            labels = torch.randint(K, (len(X),), generator=generator, dtype=torch.long, device="cpu")
        elif len(first) <= K + 1:
            labels = place % K
        else:
            graph = _graph_of_directions(name, unit[first], draw_seed(generator))
            labels = spectral_labels(graph, K, random_state=draw_seed(generator), n_init=_RUNS)[place.cpu().numpy()]
        found.append((name.removeprefix("wide "), torch.as_tensor(labels, dtype=torch.long, device=X.device)))
    if n_dims is None:
        table = table_of(X, centred=affine)
        dims = sorted(dims_by_threshold(table, labels, K) for _, labels in found)
        n_dims = [dims[len(dims) // 2]] * K
    if init in ("auto", "k-subspaces"):
        restarts = _RESTARTS[init == "k-subspaces" or 2 * sum(n_dims) > X.shape[1]]
        labels = random_starts(X, weights, K, n_dims, restarts, centred=affine, generator=generator, max_iter=50)
        found = [*(found if init == "auto" else []), ("k-subspaces", labels)]
    return _distinct_partitions(found), n_dims


def _graph_of_directions(name, unit, seed):
    """Return the affinity of rows of unit length: by the codes of a clusterer, or their largest inner products."""
    n = len(unit)
    if name == "omp":
        return affinity(matching_pursuit_codes(unit, min(5, n - 1), 1e-6, random_state=seed), "sum")
    if name == "lsr":
        values, columns = least_squares_codes(unit, 0.1, True).abs().topk(min(_STRONGEST, n), dim=1)
        return affinity(csr_from(columns, values, n), "max")
    q = (2 if name == "wide tsc" else 1) * max(3, int(np.ceil(2 * np.log(n) / 3)))
    return affinity(thresholded_codes(unit, min(n - 1, q)), "sum")


def _distinct_partitions(found):
    """Leave out clusterings that equal an earlier one up to the numbers of clusters."""
    kept: list[tuple[str, torch.Tensor]] = []
    for name, labels in found:
        labels = torch.unique(labels, return_inverse=True)[1]
        if not any(_same_partition(labels, other) for _, other in kept):
            kept.append((name, labels))
    return kept


def _same_partition(a, b):
    pairs = torch.unique(torch.stack([a, b]), dim=1).shape[1]
    return pairs == int(a.max()) + 1 == int(b.max()) + 1


def _model_of_clusters(rows, labels, form):
    """Return the best model for labels, whose numbers are those that suit the dimensions best."""
    if len(set(form.n_dims)) > 1:
        Z = rows.take(slice(None))
        labels = matching_dims(Z, rows.weights, labels, form.n_dims, centred=form.affine)[labels]
    return model_of_labels(rows, labels, form)


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


def _with_own_dims(problem, rows, starts, form):
    """Give each component with enough rows the dimension of its cluster, where that has the lower BIC.

    Initial clusterings mix clusters, which raises the dimensions found; those of the best model do so less.
    """
    Z = rows.take(slice(None))
    labels = [log_joint(Z, start.model).argmax(1) for start in starts]
    table = table_of(rows.rows.take(slice(None)), centred=form.affine)
    ranks = ranks_by_threshold(table, labels[0], len(form.n_dims))
    sizes = torch.bincount(labels[0], minlength=len(ranks)).tolist()
    n_dims = [
        possible_dimension(rank, len(rows.shift)) if size >= _ENOUGH_ROWS else before
        for rank, size, before in zip(ranks, sizes, form.n_dims)
    ]
    if tuple(n_dims) == form.n_dims:
        return starts
    own = problem.form(n_dims)
    again = [Start(start.name, _model_of_clusters(rows, parted, own)) for start, parted in zip(starts, labels)]
    again[:1] = best_restarts(rows, again[:1], own, n_iter=_ITERATIONS, keep=1)
    criteria = [_bic(problem, rows, some[0].model) for some in (starts, again)]
    return again if criteria[1] < criteria[0] else starts


def _bic(problem, rows, model):
    free = n_parameters(model.n_dims, len(rows.shift), **free_parameters(problem.options))
    return free * math.log(rows.total) - 2 * rows.total * mean_log_likelihood(rows, model)


def _labelled_start(problem):
    """Return the best model for given labels, and dimensions by at most 5000 rows where none are given."""
    rows, labels, options = problem.rows, problem.labels, problem.options
    weights = _weights(rows)
    chosen = draw_rows(weights, rows.generator)
    positive = weights[chosen] > 0
    X, few_weights, few_labels = rows.rows.take(chosen)[positive].double(), weights[chosen][positive], labels[chosen]
    few_labels, n_dims, K = few_labels[positive], problem.n_dims, options.n_components
    if n_dims is None:
        n_dims = [dims_by_threshold(table_of(X, centred=options.affine), few_labels, K)] * K
    if len(set(n_dims)) > 1:
        labels = matching_dims(X, few_weights, few_labels, n_dims, centred=options.affine)[labels]
    name = "callable" if callable(options.init) else "array"
    return Start(name, model_of_labels(rows, labels, problem.form(n_dims)))


def _warm_start(problem, former):
    """Return the former model; what is asked for now is learnt from its responsibilities."""
    n_dims, name = problem.n_dims, "warm start"
    if n_dims is None:
        rows, form = _sampled(problem.rows), problem.form(former.n_dims)
        sampled = Start(name, _converted(rows, former, form))
        n_dims = _with_own_dims(problem, rows, [sampled], form)[0].model.n_dims
    return Start(name, _converted(problem.rows, former, problem.form(n_dims)))


def _converted(rows, former, form):
    """Return a former model in another form, relative to the centre of the rows."""
    model = former.moved(-rows.shift)
    if list(form.n_dims) == former.n_dims and (form.affine or bool((model.means == 0).all())):
        return model
    return maximised(moments_by(rows, partial(by_posterior, model), model.means * form.affine, form)[0], form)


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
