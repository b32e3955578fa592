"""Where the mixture starts: several clusterings of the rows, each good at what others miss; likelihood chooses."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from sklearn.cluster import KMeans

from .._core.rows import Rows, largest_magnitude
from .._math.graphs import affinity, csr_from, spectral_labels
from .._math.subspaces import dims_by_threshold, possible_dimension, ranks_by_threshold, table_of
from ..cluster._directions import distinct_directions
from ..cluster._k_subspaces_solver import matching_dims, random_starts
from ..cluster._k_subspaces_starts import MOST_ROWS, distinct, draw_rows
from ..cluster._least_squares import least_squares_codes
from ..cluster._orthogonal_matching_pursuit import matching_pursuit_codes
from ..cluster._thresholded import thresholded_codes
from ._data import data_of, mean_log_likelihood, mean_variance
from ._expectation_maximization import Form, by_posterior, leaders, maximise, model_of_labels, moments_by
from ._low_rank_gaussian import log_joint, n_parameters

_ITERATIONS = 10  # of EM, after which starts are compared
_ENOUGH_ROWS = 30  # of a cluster, to tell its dimension
_STRONGEST = 50  # codes of a row that are kept where all are non-zero
_RUNS = 3  # of k-means on the embedding of a graph
_RESTARTS = 2, 20  # of K-subspaces: the more where subspaces overlap, which graphs miss; more than half of D in all


def data_and_models(estimator, rows, weights, n_dims, ws, warm=None):
    """Return the rows to iterate on, what the model may learn, the models to start from and their names.

    Up to 5000 rows are reduced to the distinct ones in a fixed order, so that a row of weight 2 is two rows. More rows
    stream as they lie, and 5000 of them decide on the start. `weights` is None or of shape (n,); `warm` is a model to
    start from with the dimensions of its components, `n_dims` None or a list.
    """
    K, centred = estimator.n_components, estimator.mean == "free"
    if warm is not None:
        return _going_on(estimator, rows, weights, n_dims, ws, *warm)
    known = torch.ones(len(rows), dtype=torch.float64, device=ws.device) if weights is None else weights
    chosen = draw_rows(known, ws.generator)
    few, few_weights = rows.take(chosen).double(), known[chosen]
    labels = given_labels(estimator, rows, ws)
    if labels is not None:
        there = few_weights > 0
        few, few_weights, few_labels = few[there], few_weights[there], labels[chosen][there]
        n_dims = n_dims or [dims_by_threshold(table_of(few, centred=centred), few_labels, K)] * K
        if len(set(n_dims)) > 1:
            labels = matching_dims(few, few_weights, few_labels, n_dims, centred=centred)[labels]
        data = _data(rows, weights, estimator, n_dims, ws)
        form = _form(data, estimator, n_dims)
        return data, form, [model_of_labels(data, labels, form)], ["callable" if callable(estimator.init) else "array"]

    few, few_weights, _ = distinct(few, few_weights)
    options = {"centred": centred, "n_init": estimator.n_init, "generator": ws.generator}
    told = n_dims is not None
    starts, n_dims = starting_labels(few, few_weights, estimator.init, K, n_dims, **options)
    sample = _data(Rows(few), few_weights, estimator, n_dims, ws)
    form = _form(sample, estimator, n_dims)
    if len(set(n_dims)) > 1:
        match = partial(matching_dims, few - sample.shift, few_weights, n_dims=n_dims, centred=centred)
        starts = [(name, match(labels=labels)[labels]) for name, labels in starts]
    models = [model_of_labels(sample, labels, form) for _, labels in starts]
    if len(models) > 1:
        best = leaders(sample, models, form, n_iter=_ITERATIONS, keep=2 if len(rows) <= MOST_ROWS else 1)
        models, starts = [model for _, model in best], [starts[place] for place, _ in best]
        if not told:
            sample, form, models = _with_own_dims(sample, form, models, few, few_weights, estimator, ws)
            n_dims = list(form.n_dims)
    names = [name for name, _ in starts]
    if len(rows) <= MOST_ROWS:
        return sample, form, models, names
    data = _data(rows, weights, estimator, n_dims, ws)
    return data, _form(data, estimator, n_dims), [model.moved(sample.shift - data.shift) for model in models], names


def _going_on(estimator, rows, weights, n_dims, ws, model, before):
    """Return what :func:`data_and_models` does, from a former model whose components have the dimensions `before`.

    What the estimator asks for now, it learns from the responsibilities of that model.
    """
    if n_dims is None:
        n_dims = _dims_now(estimator, rows, weights, ws, model, before)
    data = _data(rows, weights, estimator, n_dims, ws)
    form = _form(data, estimator, n_dims)
    model = model.moved(-data.shift)
    if n_dims != before or not (form.centred or bool((model.means == 0).all())):
        about = model.means * form.centred
        model = maximise(moments_by(data, partial(by_posterior, model), about, form)[0], form)
    return data, form, [model], ["warm start"]


def _dims_now(estimator, rows, weights, ws, model, before):
    """Return the dimensions that the components of a former model have in (at most 5000 of) the rows."""
    known = torch.ones(len(rows), dtype=torch.float64, device=ws.device) if weights is None else weights
    chosen = draw_rows(known, ws.generator)
    few, few_weights, _ = distinct(rows.take(chosen).double(), known[chosen])
    sample, form, (model,), _ = _going_on(estimator, Rows(few), few_weights, before, ws, model, before)
    return list(_with_own_dims(sample, form, [model], few, few_weights, estimator, ws)[1].n_dims)


def _with_own_dims(sample, form, models, few, few_weights, estimator, ws):
    """Give each component with enough rows the dimension of its cluster, where that has the lower BIC.

    Starts mix clusters, and so see too many dimensions; the clusters of the leading model do so less.
    """
    labels = [log_joint(few - sample.shift, model).argmax(1) for model in models]
    ranks = ranks_by_threshold(table_of(few, centred=form.centred), labels[0], len(form.n_dims))
    sizes = torch.bincount(labels[0], minlength=len(ranks)).tolist()
    n_dims = [
        possible_dimension(rank, few.shape[1]) if size >= _ENOUGH_ROWS else before
        for rank, size, before in zip(ranks, sizes, form.n_dims)
    ]
    if tuple(n_dims) == form.n_dims:
        return sample, form, models
    again = _data(Rows(few), few_weights, estimator, n_dims, ws)
    own = _form(again, estimator, n_dims)
    match = partial(matching_dims, few - again.shift, few_weights, n_dims=n_dims, centred=form.centred)
    starts = [model_of_labels(again, match(labels=parted)[parted], own) for parted in labels]
    ((_, starts[0]),) = leaders(again, starts[:1], own, n_iter=_ITERATIONS, keep=1)
    if _bic(again, starts[0], own) < _bic(sample, models[0], form):
        return again, own, starts
    return sample, form, models


def _bic(data, model, form):
    kind = {"centred": form.centred, "isotropic": form.isotropic, "shared": form.shared, "uniform": form.uniform}
    free = n_parameters(model, form.n_dims, **kind)
    return free * math.log(data.total) - 2 * data.total * mean_log_likelihood(data, model)


def _data(rows, weights, estimator, n_dims, ws):
    normal = partial(_normal, ws.generator, ws.device)
    width = len(n_dims) * max(n_dims)
    return data_of(rows, weights, centred=estimator.mean == "free", width=width, randn=normal, device=ws.device)


def _normal(generator, device, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64, device="cpu").to(device)


def _form(data, estimator, n_dims):
    """Return what the model may learn; the noise has a floor that is not below the rounding of the largest entry."""
    centred, limits = estimator.mean == "free", torch.finfo(torch.float64)
    rounding = limits.eps * largest_magnitude(data.rows, data.weights)
    floor = max(estimator.reg * mean_variance(data, centred=centred), rounding**2, limits.tiny**0.5)
    return Form(
        tuple(n_dims),
        centred=centred,
        isotropic=estimator.spectrum == "isotropic",
        shared=estimator.noise == "shared",
        uniform=estimator.weights == "uniform",
        floor=floor,
    )


def given_labels(estimator, rows, ws):
    """Return the labels (n,) of an array or a callable, as 0, 1, ...; None where `init` is a name."""
    init, K = estimator.init, estimator.n_components
    if isinstance(init, str):
        return None
    labels = np.asarray(init(ws.store(rows.take(slice(None))), K, ws.random_state) if callable(init) else init)
    if labels.shape != (len(rows),):
        raise ValueError(
            f"init has shape {labels.shape}, but X has n_samples={len(rows)}. Pass one label for each row."
        )
    values, labels = np.unique(labels, return_inverse=True)
    if len(values) > K:
        raise ValueError(f"init has {len(values)} different labels for n_components={K}. Pass at most {K}.")
    return torch.from_numpy(labels).to(ws.device)


def starting_labels(X, weights, init: str, n_components: int, n_dims, *, centred: bool, n_init: int, generator):
    """Return (name, labels (n,)) of the starts that `init` names, and the dimensions of the components.

    Rows X (n, D) are float64. `n_dims` is a list with one dimension for each component, or None: then one for all is
    found, the median of what the starts suggest.
    """
    if len(X) <= n_components:
        return [(init, torch.arange(len(X), device=X.device))], n_dims or [1] * n_components
    if n_components == 1:
        labels = torch.zeros(len(X), dtype=torch.long, device=X.device)
        return [(init, labels)], n_dims or [dims_by_threshold(table_of(X, centred=centred), labels, 1)]

    def seed():
        return int(torch.randint(2**31 - 1, (1,), generator=generator, dtype=torch.long, device="cpu"))

    names = {
        "auto": ["tsc", "wide tsc", "omp", "lsr"] + ["kmeans"] * (centred and n_init),
        "tsc": ["tsc", "wide tsc"],
        "kmeans": ["kmeans"] * n_init,
        "random": ["random"] * n_init,
        "k-subspaces": ["tsc"] if n_dims is None else [],
    }.get(init, [init])
    unit = torch.nn.functional.normalize(X, dim=1, eps=torch.finfo(X.dtype).tiny)
    first, place, _ = distinct_directions(unit)
    starts: list[tuple[str, torch.Tensor]] = []
    for name in names:
        if name == "kmeans":
            labels = (
                KMeans(n_components, n_init=1, random_state=seed())
                .fit(X.cpu().numpy(), sample_weight=weights.cpu().numpy())
                .labels_
            )
        elif name == "random":
            labels = torch.randint(n_components, (len(X),), generator=generator, dtype=torch.long, device="cpu")
        else:
            labels = _spectral(name, unit[first], n_components, seed)[place]
        starts.append((name.removeprefix("wide "), torch.as_tensor(labels, dtype=torch.long, device=X.device)))
    if n_dims is None:
        table = table_of(X, centred=centred)
        found = sorted(dims_by_threshold(table, labels, n_components) for _, labels in starts)
        n_dims = [found[len(found) // 2]] * n_components
    if init in ("auto", "k-subspaces"):
        restarts = _RESTARTS[init == "k-subspaces" or 2 * sum(n_dims) > X.shape[1]]
        labels = random_starts(
            X, weights, n_components, n_dims, restarts, centred=centred, generator=generator, max_iter=50
        )
        starts = [*(starts if init == "auto" else []), ("k-subspaces", labels)]
    return _distinct(starts), n_dims


def _spectral(name, unit, n_components, seed):
    """Return the spectral labels (n,) of the graph `name` of unit rows with different directions."""
    if len(unit) <= n_components + 1:
        return torch.arange(len(unit), device=unit.device) % n_components
    labels = spectral_labels(_GRAPHS[name](unit, seed()), n_components, random_state=seed(), n_init=_RUNS)
    return torch.from_numpy(labels).to(unit.device)


def _thresholded(unit, seed, wider=1):
    q = wider * max(3, int(np.ceil(2 * np.log(len(unit)) / 3)))
    return affinity(thresholded_codes(unit, min(len(unit) - 1, q)), "sum")


def _thresholded_wide(unit, seed):
    return _thresholded(unit, seed, wider=2)


def _pursuit(unit, seed):
    return affinity(matching_pursuit_codes(unit, min(5, len(unit) - 1), 1e-6, random_state=seed), "sum")


def _least_squares(unit, seed):
    codes = least_squares_codes(unit, 0.1, True)
    values, columns = codes.abs().topk(min(_STRONGEST, len(unit)), dim=1)
    return affinity(csr_from(columns, values, len(unit)), "max")


_GRAPHS: dict[str, Callable] = {
    "tsc": _thresholded,
    "wide tsc": _thresholded_wide,
    "omp": _pursuit,
    "lsr": _least_squares,
}


def _distinct(starts):
    """Leave out starts that part the rows as an earlier one does."""
    kept: list[tuple[str, torch.Tensor]] = []
    for name, labels in starts:
        labels = torch.unique(labels, return_inverse=True)[1]
        if not any(_same_partition(labels, other) for _, other in kept):
            kept.append((name, labels))
    return kept


def _same_partition(a, b):
    pairs = torch.unique(torch.stack([a, b]), dim=1).shape[1]
    return pairs == int(a.max()) + 1 == int(b.max()) + 1
