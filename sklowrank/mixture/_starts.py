"""Where the mixture starts: clusterings of the rows, each good at what others miss; the likelihood chooses."""

import math
from functools import partial

import numpy as np
import torch
from sklearn.cluster import KMeans

from .._core.rows import Rows
from .._math.distinct import distinct_weighted
from .._math.em import (
    CentredRows,
    MixtureForm,
    Start,
    best_restarts,
    by_posterior,
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
from ..cluster._k_subspaces_starts import draw_rows
from ..cluster._least_squares import least_squares_codes
from ..cluster._orthogonal_matching_pursuit import matching_pursuit_codes
from ..cluster._thresholded import thresholded_codes
from ._problem import MixtureOptions, MixtureProblem

_ITERATIONS = 10  # of EM, after which starts are compared
_ENOUGH_ROWS = 30  # of a cluster, to tell its dimension
_STRONGEST = 50  # codes of a row that are kept where all are non-zero
_RUNS = 3  # of k-means on the embedding of a graph
_RESTARTS = 2, 20  # of K-subspaces: the more where subspaces overlap, which graphs miss; more than half of D in all


def mixture_starts(problem: MixtureProblem, former: LowRankGaussians | None = None) -> tuple[list[Start], MixtureForm]:
    """Return models to start from, the best first, and their form: the former model, given labels, or clusterings.

    Clusterings are made of at most 5000 rows, and compared after 10 iterations of generalised EM on them.
    """
    if former is not None:
        return _warm_start(problem, former)
    if problem.labels is not None:
        return _labelled_start(problem)
    rows = _sampled(problem.rows) if problem.sampled else problem.rows
    labels, n_dims = starting_labels(rows, problem.n_dims, problem.options)
    form = _form(problem, n_dims)
    starts = [Start(name, _model_of_clusters(rows, found, form)) for name, found in labels]
    if len(starts) == 1:
        return starts, form
    starts = best_restarts(rows, starts, form, n_iter=_ITERATIONS, keep=1 if problem.sampled else 2)
    return (starts, form) if problem.n_dims else _with_own_dims(problem, rows, starts, form)


def _form(problem, n_dims):
    return MixtureForm(tuple(n_dims), **problem.free)


def _sampled(rows: CentredRows) -> CentredRows:
    """Return the distinct ones of at most 5000 rows."""
    weights = _weights(rows)
    chosen = draw_rows(weights, rows.generator)
    X, weights, _ = distinct_weighted(rows.rows.take(chosen).double(), weights[chosen])
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
    found = _clusterings(X, weights, names, K, generator)
    if n_dims is None:
        table = table_of(X, centred=affine)
        dims = sorted(dims_by_threshold(table, labels, K) for _, labels in found)
        n_dims = [dims[len(dims) // 2]] * K
    if init in ("auto", "k-subspaces"):
        restarts = _RESTARTS[init == "k-subspaces" or 2 * sum(n_dims) > X.shape[1]]
        labels = random_starts(X, weights, K, n_dims, restarts, centred=affine, generator=generator, max_iter=50)
        found = [*(found if init == "auto" else []), ("k-subspaces", labels)]
    return _distinct_partitions(found), n_dims


def _clusterings(X, weights, names, K, generator):
    """Return (name, labels (n,)) of clusterings: by k-means, at random, or by the spectra of graphs of directions."""
    unit = torch.nn.functional.normalize(X, dim=1, eps=torch.finfo(X.dtype).tiny)
    first, place, _ = distinct_directions(unit)
    unit, n = unit[first], len(first)

    found: list[tuple[str, torch.Tensor]] = []
    for name in names:
        seeds = (
            int(torch.randint(2**31 - 1, (1,), generator=generator, dtype=torch.long, device="cpu")) for _ in range(2)
        )
        if name == "kmeans":
            means = KMeans(K, n_init=1, random_state=next(seeds))
            labels = means.fit(X.cpu().numpy(), sample_weight=weights.cpu().numpy()).labels_
        elif name == "random":
            labels = torch.randint(K, (len(X),), generator=generator, dtype=torch.long, device="cpu")
        elif n <= K + 1:
            labels = place % K
        else:
            seed = next(seeds)
            if name == "omp":
                graph = affinity(matching_pursuit_codes(unit, min(5, n - 1), 1e-6, random_state=seed), "sum")
            elif name == "lsr":
                values, columns = least_squares_codes(unit, 0.1, True).abs().topk(min(_STRONGEST, n), dim=1)
                graph = affinity(csr_from(columns, values, n), "max")
            else:
                q = (2 if name == "wide tsc" else 1) * max(3, int(np.ceil(2 * np.log(n) / 3)))
                graph = affinity(thresholded_codes(unit, min(n - 1, q)), "sum")
            labels = spectral_labels(graph, K, random_state=next(seeds), n_init=_RUNS)[place.cpu().numpy()]
        found.append((name.removeprefix("wide "), torch.as_tensor(labels, dtype=torch.long, device=X.device)))
    return found


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


def _with_own_dims(problem, rows, starts, form):
    """Give each component with enough rows the dimension of its cluster, where that has the lower BIC.

    Initial clusterings mix clusters, which raises the dimensions found; those of the best model do so less.
    """
    X = rows.rows.take(slice(None))
    labels = [log_joint(X - rows.shift, start.model).argmax(1) for start in starts]
    table = table_of(X, centred=form.affine)
    ranks = ranks_by_threshold(table, labels[0], len(form.n_dims))
    sizes = torch.bincount(labels[0], minlength=len(ranks)).tolist()
    n_dims = [
        possible_dimension(rank, len(rows.shift)) if size >= _ENOUGH_ROWS else before
        for rank, size, before in zip(ranks, sizes, form.n_dims)
    ]
    if tuple(n_dims) == form.n_dims:
        return starts, form
    own = _form(problem, n_dims)
    again = [Start(start.name, _model_of_clusters(rows, parted, own)) for start, parted in zip(starts, labels)]
    again[:1] = best_restarts(rows, again[:1], own, n_iter=_ITERATIONS, keep=1)
    better = _bic(rows, again[0].model, own) < _bic(rows, starts[0].model, form)
    return (again, own) if better else (starts, form)


def _bic(rows, model, form):
    flags = {name: getattr(form, name) for name in ("affine", "isotropic", "shared", "uniform")}
    free = n_parameters(form.n_dims, len(rows.shift), **flags)
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
    form = _form(problem, n_dims)
    return [Start(name, model_of_labels(rows, labels, form))], form


def _warm_start(problem, former):
    """Return the former model; parameters that are free now and were not are learnt from its responsibilities."""
    n_dims = problem.n_dims
    if n_dims is None:
        rows, form = _sampled(problem.rows), _form(problem, former.n_dims)
        sampled = Start("", _converted(rows, former, form))
        n_dims = _with_own_dims(problem, rows, [sampled], form)[1].n_dims
    form = _form(problem, n_dims)
    return [Start("warm start", _converted(problem.rows, former, form))], form


def _converted(rows, former, form):
    """Return a former model in another form, relative to the centre of the rows."""
    model = former._replace(means=former.means - rows.shift)
    if list(form.n_dims) == former.n_dims and (form.affine or bool((model.means == 0).all())):
        return model
    return maximised(moments_by(rows, partial(by_posterior, model), model.means * form.affine, form)[0], form)
