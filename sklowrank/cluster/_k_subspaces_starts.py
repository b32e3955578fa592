"""What K-subspaces fits, and where it starts: from a graph of similar directions, k-means, at random, an ensemble."""

from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from .._core.blocks import join_blocks, rows_per_block
from .._core.rows import largest_magnitude
from .._core.validation import is_integer
from .._core.warn import warn
from .._math.distinct import distinct_weighted
from .._math.graphs import affinity, csr_from, drawn_seed, spectral_labels, spread
from .._math.linalg import power_of_two
from .._math.subspaces import dims_by_threshold, table_of
from ._directions import distinct_directions
from ._k_subspaces_solver import ScaledRows, assign, fit_starts, random_labels
from ._thresholded import thresholded_codes

MOST_ROWS = 5000  # of which starts are made; more rows are drawn from
_RUNS_AT_ONCE = 16


class KSubspacesOptions(NamedTuple):
    """The parameters of the estimator that determine what is fitted, and from where."""

    n_clusters: int
    n_dims: Any
    affine: bool
    init: str
    n_init: int
    max_iter: int
    ensemble: int | None
    ensemble_iter: int
    ensemble_neighbors: int | str
    batch_size: int | str


class SubspacesProblem(NamedTuple):
    """What is fitted: all rows, the rows and labels to start from, the dimensions of the subspaces."""

    rows: ScaledRows
    sample: torch.Tensor  # (m, D), the distinct rows of positive weight, or of at most 5000 of them
    sample_weights: torch.Tensor  # (m,)
    labels: torch.Tensor  # (T, m), of T starts
    n_dims: list[int]
    graph: sp.csr_array | None  # (n, n), of an ensemble
    sampled: bool  # whether the starts are made of some of the rows
    options: KSubspacesOptions


def subspaces_problem(source, weights: torch.Tensor | None, options: KSubspacesOptions, ws) -> SubspacesProblem:
    """Check relations between parameters and rows, and return what to fit, with the labels of all starts."""
    K, affine, generator = options.n_clusters, options.affine, ws.generator
    n_dims = check_dims(options.n_dims, K, source.shape[1])
    known = torch.ones(len(source), dtype=torch.float64, device=ws.device) if weights is None else weights
    check_enough(int((known > 0).sum()), len(source), K)
    origin = torch.zeros(source.shape[1], dtype=torch.float64, device=ws.device)
    rows = ScaledRows(source, weights, power_of_two(largest_magnitude(source)), origin)
    chosen = slice(None) if options.ensemble else draw_rows(known, generator)
    X, w, place = distinct_weighted(rows.take(chosen), known[chosen])
    if affine:
        rows = rows._replace(centre=w @ X / w.sum())
        X = X - rows.centre
    spectral = graph = None
    if n_dims is None or (options.init == "auto" and not options.ensemble):
        spectral = spectral_start(X, K, generator)
    if n_dims is None:
        n_dims = [dims_by_threshold(table_of(X, centred=affine), spectral, K)] * K
    if options.ensemble:
        q = 10 if options.ensemble_neighbors == "auto" else options.ensemble_neighbors
        several = {"n_iter": options.ensemble_iter, "n_neighbors": q, "centred": affine, "generator": generator}
        labels, graph = ensemble_labels(X, w, n_dims, options.ensemble, **several)
        graph = spread(graph, place.cpu().numpy())
    else:
        init = {"init": options.init, "spectral": spectral, "centred": affine, "generator": generator}
        labels = starting_labels(X, w, n_dims, options.n_init, **init)
    return SubspacesProblem(rows, X, w, labels, n_dims, graph, isinstance(chosen, torch.Tensor), options)


def check_dims(n_dims, n_clusters, n_features, *, name="n_clusters"):
    """Return the dimension of each subspace, None where it is estimated from the data."""
    if isinstance(n_dims, str):
        return None
    dims = [n_dims] * n_clusters if isinstance(n_dims, Integral) else list(n_dims)
    if len(dims) != n_clusters:
        raise ValueError(
            f"n_dims={n_dims} names {len(dims)} dimensions for {name}={n_clusters}. Pass one for each, or an int."
        )
    if not all(is_integer(d) for d in dims):
        raise ValueError(f"n_dims={n_dims} must hold ints above 0.")
    if max(dims) >= n_features:
        raise ValueError(
            f"n_dims={n_dims} is too large for X with n_features={n_features}. "
            f"Pass at most {n_features - 1}, or 'auto'."
        )
    return [int(d) for d in dims]


def check_enough(n_samples, n_given, n_clusters, *, name="n_clusters"):
    """Refuse fewer rows than clusters; `n_samples` of the `n_given` rows have a positive weight."""
    if n_samples < n_clusters:
        kind = "" if n_samples == n_given else " of positive weight"
        raise ValueError(f"n_samples={n_samples}{kind} should be >= {name}={n_clusters}. Lower {name} or add data.")


def warn_of_fewer(labels, n_clusters, name, *, starved=False):
    """Warn if some clusters, `n_clusters` of them asked for by the parameter `name`, have no row, or too few rows."""
    n_found = len(labels.unique())
    if starved:
        warn(
            f"Some of the clusters asked for by {name}={n_clusters} have fewer rows than determine a subspace of "
            f"n_dims dimensions, even after re-seeding. Lower {name} or n_dims, or add data.",
            ConvergenceWarning,
        )
    elif n_found < n_clusters:
        warn(
            f"The number of clusters found, {n_found}, is smaller than {name}={n_clusters}: the others are nearest to "
            f"no row. Either X has few distinct rows, or n_dims is so large that one subspace fits the rows of several "
            f"clusters. Lower {name} or n_dims.",
            ConvergenceWarning,
        )


def draw_rows(weights, generator):
    """Return the positions of all rows, or of `MOST_ROWS` rows of positive weight drawn at random."""
    if len(weights) <= MOST_ROWS:
        return slice(None)
    kept = (weights > 0).nonzero()[:, 0]
    return kept[torch.randperm(len(kept), generator=generator, device="cpu")[:MOST_ROWS].sort()[0].to(kept.device)]


def starting_labels(X, weights, n_dims, n_starts, *, init, centred, spectral, generator):
    """Return labels (T, n) of all starts: the spectral one, a third from k-means if `centred`, the others random."""
    K, starts = len(n_dims), []
    if init == "auto":
        starts.append(spectral)
        n_means = min(n_starts // 3, n_starts - 1) if centred else 0
        starts += [k_means_labels(X, weights, K, generator) for _ in range(n_means)]
    left = n_starts - len(starts)
    if left:
        starts += random_labels(X, weights, n_dims, left, centred=centred, generator=generator)
    return torch.stack(starts)


def spectral_start(X, n_clusters, generator):
    """Return the labels (n,) of thresholded subspace clustering: each row's neighbours are those at small angles."""
    length, seed = torch.linalg.vector_norm(X, dim=1, keepdim=True), drawn_seed(generator)
    unit = X / length.clamp(min=torch.finfo(X.dtype).tiny)
    first, place, _ = distinct_directions(unit)
    n = len(first)
    if n <= n_clusters + 1:
        return place % n_clusters
    codes = thresholded_codes(unit[first], min(n - 1, max(3, int(np.ceil(2 * np.log(n) / 3)))))
    return on_graph(affinity(codes, "sum"), n_clusters, seed, X.device)[place]


def k_means_labels(X, weights, n_clusters, generator):
    """Return the labels (n,) of one run of k-means."""
    seed = drawn_seed(generator)
    if len(X) <= n_clusters:
        return torch.arange(len(X), device=X.device)
    model = KMeans(n_clusters, n_init=1, random_state=seed).fit(X.cpu().numpy(), sample_weight=weights.cpu().numpy())
    return torch.from_numpy(model.labels_).long().to(X.device)


def on_graph(graph, n_clusters, seed, device):
    """Return the spectral labels (n,) of a sparse affinity matrix."""
    return torch.from_numpy(np.asarray(spectral_labels(graph, n_clusters, random_state=seed))).long().to(device)


def ensemble_labels(X, weights, n_dims, n_runs, *, n_iter, n_neighbors, centred, generator):
    """Return the spectral labels (1, n) of the graph of rows that share clusters in short runs, and the graph."""
    runs = []
    for first in range(0, n_runs, _RUNS_AT_ONCE):
        at_once = min(_RUNS_AT_ONCE, n_runs - first)
        labels = random_labels(X, weights, n_dims, at_once, centred=centred, generator=generator)
        for _ in range(n_iter):
            means, bases, *_ = fit_starts(X, weights, labels, n_dims, centred=centred)
            labels = assign(X, weights, means, bases, labels)[0]
        runs += labels.to(torch.int32)
    graph = co_association(runs, min(n_neighbors, len(X) - 1), generator)
    return on_graph(graph, len(n_dims), drawn_seed(generator), X.device)[None], graph


def co_association(runs, n_neighbors, generator):
    """Return in what share of the runs, labels (n,) each, two rows have one label: a sparse affinity matrix (n, n).

    Each row keeps its `n_neighbors` largest shares; ties are broken by an order of the rows that is random and
    differs from row to row.
    """
    n, device = len(runs[0]), runs[0].device
    order = torch.randperm(n, generator=generator, device="cpu").to(device, torch.float32) / n
    places = torch.arange(n, device=device)

    def compute(rows):
        shared = torch.zeros(rows.stop - rows.start, n, dtype=torch.float32, device=device)
        for labels in runs:
            shared += labels[rows, None] == labels
        key = shared + order[(places[rows, None] + places) % n]
        key[places[: len(key)], places[rows]] = -1
        nearest = key.topk(n_neighbors, dim=1).indices
        return nearest.cpu(), shared.gather(1, nearest).cpu() / len(runs)

    block = rows_per_block("auto", n, 32 * n)
    nearest, share = join_blocks(compute, n, block, bytes_per_row=32 * n)
    return affinity(csr_from(nearest, share.double(), n), "sum")
