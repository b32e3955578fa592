"""Loci of Fréchet means: the labels that some probabilities lead to."""

import numpy as np
from scipy.optimize import nnls

from ._label_spaces import LabelSpace, nodes_between, observed_distances

_MOST_EXACT = 2000  # labels for each of which a problem is solved
_DRAWS = 4096  # of probabilities per concentration
_CONCENTRATIONS = (0.1, 0.3, 1.0)
_ROWS = 256  # of distances that are looked at together
_MARGIN = 1e-9  # up to which a gap counts as none, relative to the largest power of a distance


def locus(space: LabelSpace, method: str, power: float) -> np.ndarray:
    """Return whether each label is in the locus."""
    n_labels, observed = len(space.labels), space.observed
    inside = np.zeros(n_labels, dtype=bool)
    if method not in ("auto", "exact", "sample"):
        raise ValueError(f"method={method!r} is none of 'auto', 'exact' and 'sample'.")
    if method != "sample" and power >= 1 and space.is_whole_tree:  # functionals are convex along paths
        inside[nodes_between(space)] = True
        return inside
    if method != "sample" and power >= 1 and space.points is not None and space.points.shape[1] == 1:
        values = space.points[:, 0]
        return (values >= values[observed].min()) & (values <= values[observed].max())
    D = observed_distances(space)
    exact = method == "exact" or (method == "auto" and n_labels <= _MOST_EXACT)
    return (exact_locus if exact else sampled_locus)((D / (D.max(initial=0.0) or 1.0)) ** power, observed)


def sampled_locus(A: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Return whether each label (m,) has the least functional for some of the probabilities that are drawn.

    A (k, m) are powers of distances. Observed labels at distance 0 of themselves are always in.
    """
    inside = np.zeros(A.shape[1], dtype=bool)
    inside[observed] = True
    rng = np.random.default_rng(0)
    block = max(1, (1 << 22) // A.shape[1])
    for concentration in _CONCENTRATIONS:
        P = rng.dirichlet(np.full(len(A), concentration), _DRAWS)
        for start in range(0, _DRAWS, block):
            inside[np.argmin(P[start : start + block] @ A, axis=1)] = True
    return inside


def exact_locus(A: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Return whether each label (m,) has the least functional for some probabilities: by a small problem for each.

    Labels that win for probabilities that are drawn, or met on the way, need no problem of their own.
    """
    inside = sampled_locus(A, observed)
    A = A / (A.max(initial=0.0) or 1.0)
    for label in np.flatnonzero(~inside):
        if not inside[label]:
            inside[label], winners = _is_least_somewhere(A, label)
            inside[winners] = True
    return inside


def _is_least_somewhere(A, label):
    """Return whether some probabilities p have p (A[:, label] - A[:, u]) <= 0 for all labels u, and which labels won.

    Either they exist or weights y >= 0 of labels with (A[:, label] - A) y >= 1 do. Non-negative least squares for
    these weights leave a residual of 0, or one of 1 at least, which then is a multiple of such p. They are solved for a
    few labels u, to which each round adds the one that wins at p.
    """
    gaps = A[:, [label]] - A  # (k, m)
    k, winners = len(A), [int(np.argmax(gaps.mean(0)))]
    while True:
        weights, residual = nnls(np.column_stack([gaps[:, winners], -np.eye(k)]), np.ones(k))
        if residual < 0.5:
            return False, winners
        p = np.maximum(1 - gaps[:, winners] @ weights[:-k] + weights[-k:], 0)
        violations = p @ gaps / p.sum()
        winner = int(np.argmax(violations))
        if violations[winner] <= _MARGIN or winner in winners:
            return True, winners
        winners.append(winner)


def farthest_labels(distances, inside: np.ndarray, n_labels: int, allowed: np.ndarray) -> list[int]:
    """Return the allowed labels that are farthest from those inside and from those taken before.

    `distances` gives those of some labels to all.
    """
    near = np.full(len(inside), np.inf)
    for rows in np.split(np.flatnonzero(inside), range(_ROWS, inside.sum(), _ROWS)):
        near = np.minimum(near, distances(rows).min(0))
    near[inside] = 0
    taken = []
    while len(taken) < n_labels and (near[allowed] > 0).any():
        label = int(allowed[np.argmax(near[allowed])])
        taken.append(label)
        near = np.minimum(near, distances(np.array([label]))[0])
        near[label] = 0
    return taken
