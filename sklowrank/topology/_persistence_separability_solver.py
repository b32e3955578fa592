"""Bars of the components of a table, their statistics, and the same of a table without groups."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csc_array, csr_array, issparse
from sklearn.metrics import pairwise_distances
from sklearn.metrics.pairwise import PAIRWISE_BOOLEAN_FUNCTIONS
from sklearn.neighbors import VALID_METRICS_SPARSE

from .._core.compat import single_linkage_label
from .._core.workspace import Workspace
from .._math.spanning_tree import Tree, euclidean_tree, tree_of_distances

N_DROPS = 20  # among which the largest is looked for
_TINY_ROW = 1e-14  # of the largest row: what centring leaves of a row that is the mean
_OF_CELLS = {*PAIRWISE_BOOLEAN_FUNCTIONS, "hamming", "haversine"}  # metrics of cells that centring would change
_ASYMMETRY = 1e-8  # of the largest distance: what rounding may make of a symmetric matrix


class SeparabilityOptions(NamedTuple):
    """The parameters that the computation reads."""

    statistic: str
    normalize: bool
    metric: str | Callable[..., Any]
    max_samples: int | None
    n_repeats: int
    calibrate: bool


class Separability(NamedTuple):
    """What is found of a table: the mean score, and the rest of the first draw."""

    score: float
    persistence: torch.Tensor  # in descending order
    n_components: int | None
    threshold: float
    baseline: float


def check_distances(D, calibrate: bool) -> None:
    """Refuse a matrix that has no distances, and calibration by columns that there are not."""
    if calibrate:
        raise ValueError(
            "calibrate=True permutes the columns of a table, but metric='precomputed' gives distances. Pass "
            "calibrate='auto' or False, or the table itself."
        )
    if D.shape[0] != D.shape[1]:
        raise ValueError(
            f"With metric='precomputed' X has to be a square matrix of distances, but it has shape {tuple(D.shape)}. "
            "Cross-validation passes distances from new rows to those of the fit: use the table itself there."
        )
    least, most = float(D.min()), float(D.max())
    if least < 0:
        raise ValueError(f"With metric='precomputed' X has to have distances, but the least entry is {least:.3g}.")
    diagonal = float(D.diagonal().max())
    if diagonal > _ASYMMETRY * most:
        raise ValueError(
            "With metric='precomputed' X has to have distances, but the distance of a row to itself is up to "
            f"{diagonal:.3g}. Pass distances, such as 1 - X for similarities up to 1."
        )
    off = float(abs(D - D.T).max())
    if off > _ASYMMETRY * most:
        raise ValueError(
            f"With metric='precomputed' X has to be symmetric, but entries (i, j) and (j, i) differ by {off:.3g}. Pass "
            "(X + X.T) / 2."
        )


def check_metric(X, metric, normalize: bool) -> None:
    """Refuse metrics that do not suit the table, or not after it is centred."""
    if not isinstance(metric, str):
        return
    if normalize and metric in _OF_CELLS:
        raise ValueError(
            f"metric={metric!r} compares cells as they are, but normalize=True centres the columns and scales the "
            "rows. Pass normalize=False."
        )
    if metric == "haversine" and X.shape[1] != 2:
        raise ValueError(f"metric='haversine' needs two columns, latitude and longitude, but X has {X.shape[1]}.")
    if not issparse(X) or metric in ("euclidean", "l2"):
        return
    if normalize:
        raise ValueError(
            f"metric={metric!r} of centred rows needs dense X. Pass normalize=False, metric='euclidean', "
            "or X.toarray() if it fits into memory."
        )
    if metric not in VALID_METRICS_SPARSE["brute"]:
        raise ValueError(
            f"metric={metric!r} needs dense X. Pass metric='euclidean', 'manhattan' or 'cosine', or X.toarray() if it "
            "fits into memory."
        )


def separability(X, options: SeparabilityOptions, ws: Workspace) -> Separability:
    """Return the score of a table, an array or a CSR matrix, and what is found of the first of the draws."""
    n = X.shape[0]
    n_rows = min(n, options.max_samples or n)
    varies = n_rows < n or options.calibrate
    found = [_of_one_draw(X, n_rows, options, ws) for _ in range(options.n_repeats if varies else 1)]
    return found[0]._replace(score=float(np.mean([one.score for one in found])))


def _of_one_draw(X, n_rows, options, ws):
    """Return the score of rows that are drawn."""
    rows = _drawn(X, n_rows, options.metric == "precomputed", ws)
    bars, n_components, threshold, score = _described(rows, options)
    baseline = 0.0
    if options.calibrate:
        baseline = _described(_permuted(rows, ws), options)[3]
        score = max(0.0, (score - baseline) / (1 - baseline)) if baseline < 1 else 0.0
    return Separability(score, bars, n_components, threshold, baseline)


def _drawn(X, n_rows, square, ws):
    """Return rows as a tensor or a CSR matrix in float64."""
    if n_rows < X.shape[0]:
        chosen = torch.randperm(X.shape[0], generator=ws.generator, device="cpu")[:n_rows].sort().values
        chosen = chosen.to(X.device) if isinstance(X, torch.Tensor) else chosen.numpy()
        X = X[chosen][:, chosen] if square else X[chosen]
    return csr_array(X, dtype=np.float64) if issparse(X) else ws.load(X).double()


def _described(rows, options):
    """Return the bars of rows, the number of groups, where to cut, and the statistic."""
    tree = _tree(rows, options)
    bars = tree.lengths.flip(0)
    if not float(bars[0]):
        return bars, None, 0.0, 0.0
    sequence = _bars_of_large_parts(tree) if options.statistic == "components" else bars
    n_components, threshold, drop = largest_drop(sequence)
    score = 1 - float((bars / bars[0]).mean()) if options.statistic == "mean" else drop
    return bars, n_components, threshold, max(0.0, score)


# Statistics of bars


def largest_drop(bars: torch.Tensor) -> tuple[int | None, float, float]:
    """Return the number of groups, the middle of the largest of the first drops, and that drop over the longest bar.

    With the largest drop behind the k-th bar there are k + 1 groups, if it exceeds three times the median of the drops
    and a tenth of the longest bar; else the number is None.
    """
    head = bars[: N_DROPS + 1]
    drops = head[:-1] - head[1:]
    if not len(drops):
        return None, float(head[0]), 0.0
    k = int(drops.argmax())
    largest, longest = float(drops[k]), float(head[0])
    stands_out = largest > 3 * float(drops.quantile(0.5)) and largest > 0.1 * longest
    return k + 2 if stands_out else None, float(head[k : k + 2].mean()), largest / longest


def _bars_of_large_parts(tree: Tree) -> torch.Tensor:
    """Return the bars that join two parts of at least 1 % of the rows each, and the 90 % quantile of all behind them.

    Bars below the quantile are raised to it.
    """
    n = len(tree.lengths) + 1
    links = single_linkage_label(np.column_stack([tree.edges.numpy(), tree.lengths.numpy()]).astype(np.float64))
    sizes = np.concatenate([np.ones(n), links[:, 3]])
    smaller = sizes[links[:, :2].astype(int)].min(1)
    kept = tree.lengths[torch.from_numpy(smaller >= max(2, math.ceil(0.01 * n)))].flip(0)
    floor = float(np.quantile(tree.lengths.numpy(), 0.9))
    return torch.cat([kept.clamp(min=floor), torch.full_like(tree.lengths[:1], floor).expand(N_DROPS)])


# Trees


def _tree(rows, options):
    """Return the spanning tree of rows."""
    n, euclidean = rows.shape[0], options.metric in ("euclidean", "l2")
    if options.metric == "precomputed":
        return tree_of_distances(lambda asked: rows[asked], n, rows.device)
    if issparse(rows):
        return _sparse_tree(rows, options.normalize) if euclidean else _tree_by_sklearn(rows, options.metric)
    rows = _directions(rows) if options.normalize else rows
    return euclidean_tree(rows) if euclidean else _tree_by_sklearn(rows.cpu().numpy(), options.metric)


def _directions(X):
    """Return centred rows of unit norm; a row that is the mean stays zero."""
    unit = 2.0 ** math.frexp(float(X.abs().max()))[1]
    Z = X / unit
    Z = Z - Z.mean(0)
    norms = torch.linalg.vector_norm(Z, dim=1, keepdim=True)
    return torch.where(norms > _TINY_ROW, Z / norms.clamp(min=_TINY_ROW), 0.0)


def _sparse_tree(X, directions):
    """Return the tree of sparse rows, or of their directions, by products of rows; its lengths are from differences.

    Directions are those of centred rows: they have unit norm.
    """
    unit = 2.0 ** math.frexp(abs(X.data).max(initial=0.0))[1]
    X = X.copy()
    X.data /= unit
    mean = np.asarray(X.mean(0)).ravel() if directions else np.zeros(X.shape[1])
    along = X @ mean
    square = np.asarray(X.multiply(X).sum(1)).ravel() - 2 * along + mean @ mean
    norms = np.sqrt(square.clip(min=0)) if directions else np.ones(len(square))
    norms = np.where(norms > 1e-7, norms, np.inf)
    own = square / norms**2

    def distances(asked):
        asked = asked.numpy()
        inner = (X[asked] @ X.T).toarray() - along[asked, None] - along + mean @ mean
        square = own[asked, None] + own - 2 * inner / (norms[asked, None] * norms)
        return torch.from_numpy(np.sqrt(square.clip(min=0)))

    edges = tree_of_distances(distances, X.shape[0], torch.device("cpu")).edges
    a, b = edges.T.numpy()
    scaled = csr_array(X.multiply(1 / norms[:, None]))
    difference, shift = scaled[a] - scaled[b], 1 / norms[a] - 1 / norms[b]
    square = np.asarray(difference.multiply(difference).sum(1)).ravel() - 2 * shift * (difference @ mean)
    lengths = np.sqrt((square + shift**2 * (mean @ mean)).clip(min=0)) * (1.0 if directions else unit)
    order = np.argsort(lengths, kind="stable")
    return Tree(edges[torch.from_numpy(order)], torch.from_numpy(lengths[order]))


def _tree_by_sklearn(rows, metric):
    """Return the tree by any metric of scikit-learn, or a function of two rows."""
    if isinstance(metric, str) and metric in PAIRWISE_BOOLEAN_FUNCTIONS and np.isin(rows, (0, 1)).all():
        rows = rows.astype(bool)

    def distances(asked):
        D = pairwise_distances(rows[asked.numpy()], rows, metric=metric)
        if not np.isfinite(D).all():
            raise ValueError(
                f"metric={metric!r} gives distances that are not finite for some rows, such as rows of zeros or of "
                "equal values. Leave these out, or pass metric='euclidean'."
            )
        if callable(metric):
            _check_function(D, asked.numpy(), metric)
        return torch.from_numpy(D)

    return tree_of_distances(distances, rows.shape[0], torch.device("cpu"))


def _check_function(D, asked, metric):
    """Refuse values of a function that are no distances."""
    if D.min() < 0:
        raise ValueError(
            f"metric={metric!r} has to give distances, but it gives {D.min():.3g}. Pass a function that is never "
            "negative."
        )
    own = D[:, asked]
    off = abs(own - own.T).max()
    if off > _ASYMMETRY * D.max():
        raise ValueError(
            f"metric={metric!r} has to be symmetric, but for some rows a and b the distances from a to b and from b to "
            f"a differ by {off:.3g}. Pass a symmetric function, such as the mean of both."
        )


# Tables without groups


def _permuted(rows, ws):
    """Return rows with the entries of each column permuted at random; the order of the rows does not matter."""
    if issparse(rows):
        return _permuted_sparse(rows, ws)
    ordered = rows.sort(0).values
    orders = [torch.randperm(len(rows), generator=ws.generator, device="cpu") for _ in range(rows.shape[1])]
    return ordered.gather(0, torch.stack(orders, 1).to(rows.device))


def _permuted_sparse(X, ws):
    """Return the same as of the dense table."""
    X, n = csc_array(X), X.shape[0]
    columns = []
    for j in range(X.shape[1]):
        values = np.sort(X.data[X.indptr[j] : X.indptr[j + 1]])
        order = torch.randperm(n, generator=ws.generator, device="cpu").numpy()
        negative = np.searchsorted(values, 0.0)
        rank = np.arange(len(values))
        rank[negative:] += n - len(values)  # zeros that are not stored come between
        where = np.empty(n, dtype=np.int64)
        where[order] = np.arange(n)
        columns.append(where[rank])
        X.data[X.indptr[j] : X.indptr[j + 1]] = values
    return csr_array(csc_array((X.data, np.concatenate(columns).astype(X.indices.dtype), X.indptr), shape=X.shape))
