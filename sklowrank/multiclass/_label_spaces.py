"""Labels with a metric: sorted and checked, and the distances between them."""

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils import check_array

from .._core.validation import on_host
from .._core.warn import warn
from ._frechet_means import Labels
from ._trees import Tree, pair_distances, rooted_tree, tree_distances, tree_edges, tree_locus

_SYMMETRIC = 1e-8  # how far distances may be from symmetric, relative to the largest
_ROWS = 1024  # of a matrix that are looked at together
_READ_BY = {"precomputed": "distances", "embedding": "label_embeddings", "tree": "label_tree"}


class SpaceOptions(NamedTuple):
    """The parameters of an estimator that say which labels there are, and how far apart."""

    metric: str | Callable[[Any, Any], float]
    label_space: Any
    distances: Any
    label_embeddings: Any
    label_tree: Sequence[tuple] | None
    tree_nodes: str


class LabelSpace(NamedTuple):
    """Labels 0, ..., m - 1, sorted; without points, table and tree all distances between different ones are 1."""

    labels: np.ndarray  # (m,)
    order: np.ndarray  # (m,) their positions in the user's order
    observed: np.ndarray  # (k,) those of them that the base model knows
    points: np.ndarray | None = None  # (m, e) whose Euclidean distances are those of the labels
    table: np.ndarray | None = None  # (k, m) distances of observed labels to all
    tree: Tree | None = None  # whose nodes are the labels, and others

    @property
    def is_whole_tree(self) -> bool:
        """Whether each node of a tree is a label."""
        return self.tree is not None and len(self.tree.parent) == len(self.labels)


def label_space(observed: np.ndarray, asked: SpaceOptions) -> LabelSpace:
    """Return the labels that may be predicted where `observed` (k,) are those of the base model."""
    _warn_of_what_is_not_read(asked)
    edges = tree_edges(asked.label_tree) if asked.metric == "tree" else None
    labels = observed if edges is None else _labels_of_tree(observed, edges, asked.tree_nodes)
    classes, order = _sorted_labels(labels if asked.label_space is None else asked.label_space)
    space = LabelSpace(classes, order, _positions(observed, classes, "label_space"))
    match asked.metric:
        case "ordinal":
            return space._replace(points=_ranks(classes, order, asked.label_space is not None)[:, None])
        case "numeric":
            return space._replace(points=_numbers(classes)[:, None])
        case "embedding":
            return space._replace(points=_embeddings(asked.label_embeddings, order))
        case "precomputed":
            D = _distances(asked.distances, len(order))
            return space._replace(table=D[np.ix_(order[space.observed], order)])
        case "tree":
            nodes, ends, weights = edges
            at = _positions(classes, nodes, "label_tree")
            root = at[space.observed[0]] if len(observed) else 0
            return space._replace(tree=rooted_tree(ends, weights, at, root))
        case "discrete":
            return space
    return space._replace(table=_called(asked.metric, classes[space.observed], classes))


def _warn_of_what_is_not_read(asked):
    """Warn of distances, points or edges that another metric would read."""
    for metric, name in _READ_BY.items():
        if getattr(asked, name) is not None and asked.metric != metric:
            warn(
                f"{name} is not read with metric={asked.metric!r}. Set metric={metric!r}, or {name}=None.", UserWarning
            )


# Labels


def _sorted_labels(labels):
    """Return the labels sorted, and the positions that they had."""
    labels = np.asarray(on_host(labels))
    if labels.ndim != 1:
        raise ValueError(f"label_space has the shape {labels.shape}. Pass a list of labels.")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError("label_space has NaN or infinity in it. Pass finite labels.")
    try:
        classes, order = np.unique(labels, return_index=True)
    except TypeError as error:
        raise ValueError(f"label_space has labels that cannot be sorted: {error}. Pass labels of one type.") from None
    if len(classes) < len(labels):
        twice = np.setdiff1d(np.arange(len(labels)), order)
        raise ValueError(f"label_space has {labels.tolist()[twice[0]]!r} more than once. Pass each label once.")
    return classes, order


def _positions(labels, known, name):
    """Return the positions of labels among the known ones; a ValueError names those that are not."""
    at = {label: i for i, label in enumerate(known.tolist())}
    unknown = [label for label in labels.tolist() if label not in at]
    if unknown:
        raise ValueError(
            f"The labels {unknown[:10]!r}{' and others' if len(unknown) > 10 else ''} are not in {name}, which has "
            f"{len(known)} labels of type {known.dtype}. Add them to {name}, or leave out their rows."
        )
    return np.array([at[label] for label in labels.tolist()], dtype=np.int64)


def positions(labels, classes):
    """Return the positions of labels of the user among the classes."""
    labels = np.asarray(on_host(labels))
    if labels.ndim != 1:
        raise ValueError(f"Labels of shape {labels.shape} are no list. Pass a list of labels, all of classes_.")
    return _positions(labels, classes, "classes_")


def _labels_of_tree(observed, edges, tree_nodes):
    """Return the nodes of a tree, or its leaves and the observed labels."""
    nodes, ends, _ = edges
    at = _positions(observed, nodes, "label_tree")
    if tree_nodes == "all":
        return nodes
    leaves = np.bincount(ends.ravel(), minlength=len(nodes)) == 1
    leaves[at] = True
    return nodes[leaves]


# Distances


def _ranks(classes, order, given):
    """Return the ranks of labels: text has the order in which the user gives it, everything else that of its values."""
    ranks = np.arange(len(classes), dtype=float)
    if not (len(classes) and isinstance(classes.tolist()[0], str | bytes)):
        return ranks
    if given:
        return order.astype(float)
    if len(classes) > 2:
        first = ", ".join(map(repr, classes.tolist()[:3])) + (", ..." if len(classes) > 3 else "")
        warn(
            f"metric='ordinal' takes text labels in alphabetical order: {first}. Pass label_space in the order "
            "of the grades, or another metric.",
            UserWarning,
        )
    return ranks


def _numbers(classes):
    if not all(isinstance(label, Real) for label in classes[:1].tolist()):  # sorted, hence all are
        raise ValueError(
            f"metric='numeric' needs labels that are numbers, but there is {classes.tolist()[0]!r}. Use "
            "metric='ordinal'."
        )
    return classes.astype(float)


def _embeddings(points, order):
    if points is None:
        raise ValueError("metric='embedding' needs label_embeddings: a row of numbers for each label of label_space.")
    points = check_array(on_host(points), dtype=np.float64, ensure_2d=False, input_name="label_embeddings")
    if points.ndim != 2 or len(points) != len(order):
        raise ValueError(
            f"label_embeddings has the shape {points.shape}, but there are {len(order)} labels. Pass a row for each, "
            "in the order of label_space."
        )
    return points[order]


def _distances(distances, n_labels):
    """Return the matrix of distances that the user gives, checked, in the user's order."""
    if distances is None:
        raise ValueError("metric='precomputed' needs distances: a square matrix, in the order of label_space.")
    D = check_array(on_host(distances), dtype=np.float64, ensure_2d=False, input_name="distances")
    if D.shape != (n_labels, n_labels):
        raise ValueError(f"distances has the shape {D.shape}, but there are {n_labels} labels. Pass a square matrix.")
    largest = D.max(initial=0.0)
    if D.min(initial=0.0) < 0:
        raise ValueError(f"distances has the negative value {D.min():g}. Distances are at least 0.")
    if np.diagonal(D).any():
        raise ValueError(f"distances has {np.diagonal(D).max():g} on its diagonal, which has to be 0.")
    for start in range(0, n_labels, _ROWS):
        rows = slice(start, start + _ROWS)
        off = np.abs(D[rows] - D[:, rows].T).max()
        if off > _SYMMETRIC * largest:
            raise ValueError(f"distances is not symmetric: two values differ by {off:g}. Pass (D + D.T) / 2.")
    return D


def _called(metric, rows, columns):
    """Return the distances that a function of two labels gives."""
    found = [[metric(a, b) for b in columns.tolist()] for a in rows.tolist()]
    try:
        D = np.array(found, dtype=float).reshape(len(rows), len(columns))
    except (TypeError, ValueError):
        raise ValueError(
            "metric returned a value that is no number. Distances are finite numbers, at least 0."
        ) from None
    if not (np.isfinite(D).all() and (D >= 0).all()):
        raise ValueError("metric returned a value that is negative, infinite or NaN. Distances are finite, at least 0.")
    itself = D[rows[:, None] == columns]
    if itself.any():
        raise ValueError(f"metric returned {itself.max():g} for a label and itself, which has to be 0.")
    return D


def observed_distances(space: LabelSpace, columns: np.ndarray | None = None) -> np.ndarray:
    """Return the distances (k, m) of observed labels to all, or to those of some `columns`."""
    if space.table is not None:
        return space.table if columns is None else space.table[:, columns]
    columns = np.arange(len(space.labels)) if columns is None else columns
    if space.tree is not None:
        return tree_distances(space.tree, space.tree.node[space.observed], space.tree.node[columns])
    if space.points is not None:
        return _euclidean(space.points[space.observed], space.points[columns])
    return (space.observed[:, None] != columns).astype(float)


def distances_from(space: LabelSpace, rows: np.ndarray, asked: SpaceOptions) -> np.ndarray:
    """Return the distances (len(rows), m) of any labels to all."""
    if space.table is None:
        return observed_distances(space._replace(observed=rows))
    if asked.metric == "precomputed":
        return np.asarray(on_host(asked.distances), dtype=float)[np.ix_(space.order[rows], space.order)]
    _check_callable(asked.metric)
    return _called(asked.metric, space.labels[rows], space.labels)


def distances_of_pairs(space: LabelSpace, a: np.ndarray, b: np.ndarray, asked: SpaceOptions) -> np.ndarray:
    """Return the distances (n,) of labels `a` (n,) to labels `b` (n,)."""
    if space.points is not None:
        return np.linalg.norm(space.points[a] - space.points[b], axis=1)
    if space.tree is not None:
        return pair_distances(space.tree, space.tree.node[a], space.tree.node[b])
    if space.table is None:
        return (a != b).astype(float)
    if asked.metric == "precomputed":
        return np.asarray(on_host(asked.distances), dtype=float)[space.order[a], space.order[b]]
    _check_callable(asked.metric)
    pairs, at = np.unique(np.stack([a, b]), axis=1, return_inverse=True)
    labels = zip(space.labels[pairs[0]].tolist(), space.labels[pairs[1]].tolist())
    return np.array([float(asked.metric(u, v)) for u, v in labels])[at.ravel()]


def _check_callable(metric):
    """Raise a ValueError where another metric was set after a fit to a table of distances."""
    if not callable(metric):
        raise ValueError(f"metric={metric!r} was set after the fit to other distances. Fit again.")


def _euclidean(A, B):
    A, B = torch.from_numpy(A), torch.from_numpy(np.ascontiguousarray(B))
    return torch.cdist(A, B, compute_mode="donot_use_mm_for_euclid_dist").numpy()


# What predictions are made with


class Prepared(NamedTuple):
    """What predictions are made with."""

    columns: np.ndarray | None  # the labels that can be means, where they are not all looked at
    labels: Labels


def prepared(space: LabelSpace, ws, *, reachable=False) -> Prepared:
    """Return the labels with points, or a table of distances, and a power of two as unit: no power overflows."""
    columns = None
    if reachable and space.is_whole_tree:
        columns = nodes_between(space)
    elif reachable and space.points is None and space.table is None and space.tree is None:
        columns = space.observed
    observed = space.observed if columns is None else np.searchsorted(columns, space.observed)
    size = len(space.labels) if columns is None else len(columns)
    load = ws.exact().load
    labels = Labels(load(observed), size)
    if space.points is not None:
        points = space.points - space.points.mean(0)
        unit = _power_of_two(2 * np.abs(points).max(initial=0.0) * points.shape[1] ** 0.5)  # distances are at most 1
        points /= unit
        labels = labels._replace(points=load(points), unit=unit)
    elif space.table is not None or space.tree is not None:
        table = observed_distances(space, columns)
        labels = labels._replace(table=load(table), unit=_power_of_two(table.max(initial=0.0)))
    return Prepared(columns, labels)


def _power_of_two(x):
    return float(np.exp2(np.ceil(np.log2(x)))) if x > 0 else 1.0


def nodes_between(space: LabelSpace) -> np.ndarray:
    """Return the labels that are nodes on paths between observed ones."""
    return np.flatnonzero(tree_locus(space.tree, space.tree.node[space.observed])[space.tree.node])
