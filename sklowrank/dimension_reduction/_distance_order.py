"""Responses in an order in which near ones are neighbours, made of distances alone.

Neither coordinates nor the order of the rows decide: what a metric does not see changes nothing. Only where distances
leave a choice, as between the two ends of a law that is its own mirror image, the bytes of the points make it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from .._math.distinct import distinct_rows
from ._metric_spaces import TIE, distances, distances_from_mean

_CELLS = 64
_ALL_PAIRS = 400  # points, up to which a function of the user is called for all pairs
_LEVELS = (0.5, 0.25, 0.75, 0.1, 0.9, 1.0)  # of the distances by which columns of given ones are put in order
_KEYS = 4  # distances by which the rows of a cell are put in order
_COLUMNS = 8  # of given distances, by which rows are put in order


class Law(NamedTuple):
    """The weighted law of responses: each point that occurs, once."""

    rows: np.ndarray  # (d,) the first row of each point that has weight, ascending
    mass: np.ndarray  # (d,) weight of all rows at the point
    order: np.ndarray  # (d,) positions in `rows`, near points next to one another
    place: np.ndarray  # (n,) position of each row in `rows`; -1 for points without weight

    def evenly(self, count: int) -> np.ndarray:
        """Return `count` positions in `rows` at even levels of the mass, in order; heavy points come repeatedly."""
        cumulated = np.cumsum(self.mass[self.order])
        levels = (np.arange(count) + 0.5) / count * cumulated[-1]
        return self.order[np.searchsorted(cumulated, levels * (1 - TIE))]

    def rank(self) -> np.ndarray:
        """Return the rank (n,) of each row in the order of its point."""
        ranks = np.empty(len(self.order) + 1, dtype=np.int64)
        ranks[self.order], ranks[-1] = np.arange(len(self.order)), -1
        return ranks[self.place]


def law_of(points, weight: np.ndarray, metric) -> Law:
    """Return the law of points (n, ...), of which each has a weight."""
    kind = distinct_rows(points)[1]
    kind = kind.cpu().numpy() if isinstance(kind, torch.Tensor) else kind
    weighted = np.flatnonzero(weight > 0)
    mass = np.bincount(kind, weight)
    first = np.full(len(mass), len(kind))
    np.minimum.at(first, kind[weighted], weighted)
    by_row = np.argsort(first, kind="stable")[: int((mass > 0).sum())]
    place = np.full(len(mass), -1)
    place[by_row] = np.arange(len(by_row))
    rows, mass = first[by_row], mass[by_row]
    return Law(rows, mass, _ordered(points[rows], mass, metric, by_row), place[kind])


def order_of_columns(D, weight: np.ndarray) -> np.ndarray:
    """Return the columns of given distances (n, r), those first that are near to most rows."""
    if np.ptp(weight) > 0:
        quantiles = np.array([_quantiles(column, weight) for column in D.T])
    else:
        at = np.searchsorted(np.arange(1, len(D) + 1), np.array(_LEVELS) * len(D) * (1 - TIE))
        quantiles = np.partition(D, at, axis=0)[at].T
    return _sorted([*quantiles.T, np.arange(D.shape[1])])


def _quantiles(column, weight):
    order = np.argsort(column, kind="stable")
    cumulated = np.cumsum(weight[order])
    return column[order][np.searchsorted(cumulated, np.array(_LEVELS) * cumulated[-1] * (1 - TIE))]


def _ordered(points, mass, metric, tie_break):
    n = len(mass)
    if n < 2 or metric == "discrete":
        return np.argsort(tie_break)
    if metric == "precomputed":
        D = points.cpu().numpy()
        return _sorted([*D[:, order_of_columns(D, mass)[:_COLUMNS]].T, tie_break])
    start, distance = _start(points, mass, metric, tie_break)
    return np.concatenate(list(_cells(np.arange(n), [start], _CELLS, mass, distance, tie_break)))


def _start(points, mass, metric, tie_break) -> tuple[np.ndarray, Callable]:
    """Return the distances of all points from the middle, and the function from rows and a row to distances.

    The middle is the mean where the space has one. A function of the user has none: of few points the middle is that
    with the least median distance, of many the first one.
    """

    def distance(rows, row):
        return distances(points[rows], points[[row]], metric)[:, 0].cpu().numpy()

    if not callable(metric):
        return distances_from_mean(points, mass, metric).cpu().numpy(), distance
    everything = np.arange(len(mass))
    if len(mass) > _ALL_PAIRS:
        return distance(everything, int(np.argmin(tie_break))), distance
    D = distances(points, points, metric).numpy()
    return D[:, order_of_columns(D, mass)[0]], lambda rows, row: D[rows, row]


def _cells(rows, keys: list[np.ndarray], count: int, mass, distance, tie_break):
    """Yield rows in cells of equal mass, halved again and again along their longest extent.

    One end of a cell is the row farthest from the row that is farthest by the last of the distances in `keys`. Ties are
    broken by the distances before, by the mass of a row, at last by `tie_break`.
    """
    if len(rows) < 2 or count < 2:
        yield rows
        return
    last = [mass[rows], tie_break[rows]]
    from_far = distance(rows, rows[_sorted([*keys, *last])[-1]])
    keys = [from_far, *keys]
    from_end = distance(rows, rows[_sorted([*keys, *last])[-1]])
    keys = [from_end, *keys][:_KEYS]
    order = _sorted([*keys, *last])
    cumulated = np.cumsum(mass[rows[order]])
    cut = int(np.searchsorted(cumulated, cumulated[-1] / 2 * (1 + TIE), side="right"))
    cut = min(max(cut, 1), len(rows) - 1)
    for part in (order[:cut], order[cut:]):
        yield from _cells(rows[part], [key[part] for key in keys], count // 2, mass, distance, tie_break)


def _sorted(keys: list[Any]) -> np.ndarray:
    """Return the order by the first key, where it is tied up to rounding by the next one, and so on."""
    ranks = []
    for key in keys:
        order = np.argsort(key, kind="stable")
        steps = np.diff(key[order]) > TIE * np.abs(key).max(initial=0)
        rank = np.empty(len(key), dtype=np.int64)
        rank[order] = np.r_[0, np.cumsum(steps)]
        ranks.append(rank)
        if steps.all():
            break
    return np.lexsort(ranks[::-1])
