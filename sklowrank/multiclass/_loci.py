"""Loci of Fréchet means: the labels that some probabilities lead to."""

import numpy as np
from scipy.optimize import linprog

_DRAWS = 4096  # of probabilities per concentration
_CONCENTRATIONS = (0.1, 0.3, 1.0)
_MOST_CUTS = 500


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
    """Return whether each label (m,) has the least functional for some probabilities, by linear programs.

    Those that are drawn settle most labels; one program each settles the others.
    """
    inside = sampled_locus(A, observed)
    scale = A.max(initial=0.0) or 1.0
    for label in np.flatnonzero(~inside):
        inside[label] = _is_least_somewhere(A / scale, label)
    return inside


def _is_least_somewhere(A, label):
    """Return whether probabilities p with p (A[:, label] - A[:, other]) <= 0 for all others exist.

    The largest margin is found over a growing set of others: each round adds the one that is violated most.
    """
    gaps = A[:, [label]] - A  # (k, m)
    others = [int(np.argmax(gaps.mean(0)))]
    k = len(A)
    for _ in range(_MOST_CUTS):
        found = linprog(
            np.append(np.zeros(k), 1.0),
            A_ub=np.column_stack([gaps[:, others].T, -np.ones(len(others))]),
            b_ub=np.zeros(len(others)),
            A_eq=np.append(np.ones(k), 0.0)[None],
            b_eq=[1.0],
            bounds=[(0, None)] * k + [(-1, None)],
            method="highs",
        )
        if found.x[-1] > 1e-9:
            return False
        violations = found.x[:-1] @ gaps
        worst = int(np.argmax(violations))
        if violations[worst] <= 1e-9 or worst in others:
            return True
        others.append(worst)
    return True


def farthest_labels(distances, inside: np.ndarray, n_labels: int, allowed: np.ndarray) -> list[int]:
    """Return the allowed labels that are farthest from those inside and from those taken before.

    `distances` gives those of some labels to all.
    """
    near = distances(np.flatnonzero(inside)).min(0)
    near[inside] = 0
    taken = []
    while len(taken) < n_labels and (near[allowed] > 0).any():
        label = int(allowed[np.argmax(near[allowed])])
        taken.append(label)
        near = np.minimum(near, distances(np.array([label]))[0])
        near[label] = 0
    return taken
