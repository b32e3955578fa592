"""The two tables of a transport: source and target."""

from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.utils.validation import check_consistent_length, column_or_1d

from .._core.compat import safe_indexing
from .._core.validation import check_fit_data, on_host
from .._core.warn import warn
from .._core.workspace import Workspace
from ._sinkhorn_newton import checked_masses


class Tables(NamedTuple):
    """What the user has given of both tables, not yet validated; targets are None where the source is meant."""

    X: Any
    y: Any
    X_target: Any
    y_target: Any


class Sample(NamedTuple):
    """Rows with masses that sum to one, and labels."""

    rows: Any  # tensor in float64, or CSR matrix
    mass: torch.Tensor
    labels: np.ndarray | None


def two_tables(X, y, X_target, y_target, sample_domain) -> Tables:
    """Divide rows and labels by the sign of their domain, where there is one."""
    if sample_domain is None:
        if X_target is None and y_target is not None:
            raise ValueError("y_target has classes of the rows of X_target, which is None. Pass X_target too.")
        return Tables(X, y, X_target, y_target)
    if X_target is not None or y_target is not None:
        raise ValueError("sample_domain says which rows of X are the target: pass it, or X_target and y_target.")
    domain = _numbers(sample_domain, "sample_domain")
    check_consistent_length(X, domain)
    source, target = np.flatnonzero(domain > 0), np.flatnonzero(domain < 0)
    n_other = len(domain) - len(source) - len(target)
    if not (len(source) and len(target)) or n_other:
        raise ValueError(
            "sample_domain has to be positive for rows of the source and negative for those of the target; it is "
            f"positive for {len(source)} rows, negative for {len(target)}, and neither for {n_other}."
        )
    parts = [None if table is None else _taken(table, rows) for rows in (source, target) for table in (X, y)]
    return Tables(*parts)


def _numbers(values, name):
    """Return numbers, one for each row."""
    values = column_or_1d(on_host(values), input_name=name)
    if values.dtype.kind not in "biuf":
        try:
            return values.astype(np.float64)
        except (TypeError, ValueError):
            raise ValueError(
                f"{name} has values that are no numbers. Pass 1 for the source, -1 for the target."
            ) from None
    return values


def _taken(table, rows):
    """Return rows of a table or of labels, in the user's library."""
    if isinstance(table, torch.Tensor):
        return table[torch.from_numpy(rows).to(table.device)]
    return safe_indexing(table, rows)


def checked_target(estimator, X_target, sparse_formats) -> Any:
    """Return rows of the target, validated as those of the source were; errors name them."""
    try:
        return check_fit_data(estimator, X_target, accept_sparse=sparse_formats, reset=False)
    except ValueError as error:
        raise ValueError(f"X_target: {error}") from None


def known_labels(tables: Tables, class_reg: float) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the classes of both tables where they are asked for; with a warning where these are lacking."""
    given = tables.y, tables.y if tables.X_target is None else tables.y_target
    if class_reg == 0:
        return None, None
    if given[0] is None or given[1] is None:
        warn(f"class_reg={class_reg:g} has no effect without y and y_target. Pass both, or class_reg=0.", UserWarning)
        return None, None
    y, y_target = (column_or_1d(on_host(labels), input_name=name) for labels, name in zip(given, ("y", "y_target")))
    return y, y_target


def sample_of(rows, labels, weights, name: str, max_samples: int, ws: Workspace) -> Sample:
    """Return validated rows with masses and labels, of which at most `max_samples` are drawn."""
    mass = checked_masses(weights, rows.shape[0], name, ws)
    if labels is not None:
        check_consistent_length(rows, labels)
    rows = rows if issparse(rows) else ws.load(rows).double()
    if rows.shape[0] <= max_samples:
        return Sample(rows, mass, labels)
    drawn, mass = drawn_rows(mass, max_samples, ws)
    index = drawn.numpy() if issparse(rows) else drawn.to(rows.device)
    return Sample(rows[index], mass, None if labels is None else labels[drawn.numpy()])


def drawn_rows(mass: torch.Tensor, n_draws: int, ws: Workspace) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the numbers of rows, on the CPU, that are drawn in proportion to their masses, and new masses.

    Systematic sampling: the cumulated masses of the rows, in a random order, are read at equal distances. So a row of
    mass w is drawn ``n_draws * w`` times in the mean, rounded up or down; its new mass is its share of the draws.
    """
    shuffled = torch.randperm(len(mass), generator=ws.generator, device="cpu")
    first = torch.rand(1, generator=ws.generator, device="cpu", dtype=torch.float64)
    ends = mass.cpu()[shuffled].cumsum(0)
    ticks = (first + torch.arange(n_draws, dtype=torch.float64, device="cpu")) * (ends[-1] / n_draws)
    found = shuffled[torch.searchsorted(ends, ticks, right=True).clamp(max=len(mass) - 1)]
    drawn, counts = found.unique(return_counts=True)
    return drawn, (counts / n_draws).to(mass)
