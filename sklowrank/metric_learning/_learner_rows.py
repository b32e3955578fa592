"""Which rows each of several learners trains on, in which batches, and when there is one learner more."""

import warnings

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning

_MANY = 10_000  # rows beyond which clusters are found in small batches of them


def has_plateau(losses: list[float], patience: int, tol: float) -> bool:
    """True where no late epoch is better by a share of `tol` than the best one before; never at a loss of zero."""
    if len(losses) <= patience:
        return False
    before, now = min(losses[:-patience]), min(losses[-patience:])
    return now > 0 and now > (1 - tol) * before


def clusters_of(Z: np.ndarray, n_clusters: int, generator: torch.Generator) -> np.ndarray:
    """Return the cluster of each row, by k-means."""
    seed = int(torch.randint(1 << 31, (), generator=generator, device="cpu", dtype=torch.int64))
    method = KMeans if len(Z) <= _MANY else MiniBatchKMeans
    with warnings.catch_warnings():
        # of fewer distinct points than clusters, about which a user can do nothing
        warnings.simplefilter("ignore", ConvergenceWarning)
        return method(min(n_clusters, len(Z)), n_init=1, random_state=seed).fit_predict(Z)


def matched_clusters(former: np.ndarray, found: np.ndarray, n_clusters: int) -> np.ndarray:
    """Return new clusters in the numbers of the former ones, so that as many rows as possible keep theirs."""
    shared = np.zeros((n_clusters, n_clusters), dtype=np.int64)
    np.add.at(shared, (found, former), 1)
    return linear_sum_assignment(shared, maximize=True)[1][found]


def rows_of_learners(
    clusters: np.ndarray, codes: torch.Tensor, n_learners: int, generator: torch.Generator
) -> list[torch.Tensor]:
    """Return the rows that each learner trains on: its cluster.

    A cluster of a single class has nothing to tell apart: as many rows of other classes, or all, are drawn to it.
    """
    found = []
    for k in range(n_learners):
        rows = torch.from_numpy(np.flatnonzero(clusters == k))
        if len(rows) and bool((codes[rows] == codes[rows[0]]).all()):
            others = (codes != codes[rows[0]]).nonzero()[:, 0]
            rows = torch.cat([rows, others[permutation(len(others), generator)[: len(rows)]]])
        found.append(rows)
    return found


def class_batches(
    codes: torch.Tensor, rows: torch.Tensor, batch_size: int, per_class: int, generator: torch.Generator
) -> list[torch.Tensor]:
    """Return random batches of some rows, made of groups of `per_class` rows of a class, smaller ones of the rest.

    Batches are of about equal size. One of less than two rows is left out.
    """
    rows = rows[permutation(len(rows), generator)]
    rows = rows[codes[rows].argsort(stable=True)]
    _, place, counts = codes[rows].unique_consecutive(return_inverse=True, return_counts=True)
    within = torch.arange(len(rows), device="cpu") - (counts.cumsum(0) - counts)[place]
    group = (within % per_class == 0).cumsum(0) - 1
    group = permutation(len(rows), generator)[group]
    batches = rows[group.argsort(stable=True)].tensor_split(max(1, round(len(rows) / batch_size)))
    return [batch for batch in batches if len(batch) > 1]


def permutation(n: int, generator: torch.Generator) -> torch.Tensor:
    """Return the numbers from 0 to n - 1 in random order."""
    return torch.randperm(n, generator=generator, device="cpu", dtype=torch.int64)
