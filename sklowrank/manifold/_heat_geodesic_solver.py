"""From rows to their places: the graph, the distances by heat, the scaling of landmarks, and all other rows."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch

from .._core.blocks import join_blocks
from .._core.iterate import Step
from .._core.validation import on_host
from .._core.warn import warn
from .._core.workspace import Workspace
from ._heat_graph import (
    GraphOptions,
    RowGraph,
    choose_landmarks,
    given_graph,
    new_row_weights,
    row_graph,
    scaled,
)
from ._heat_kernel import (
    HeatDistances,
    HeatOptions,
    averages,
    heat_distances,
    knee_time,
    landmark_heat,
    laplacian_of,
    new_distances,
    new_heat,
    time_shares,
)
from ._metric_scaling import classical_scaling, place, place_classical, principal_axes, smacof_steps, stress

_NEW_ROWS = 4096  # placed at once
_MOST_CURVES = 200  # rows whose heat is followed to choose the diffusion time


class ScalingOptions(NamedTuple):
    """What says how places are found."""

    n_components: int
    mds: str
    mds_weights: str | None
    n_landmarks: int


class HeatProblem(NamedTuple):
    """Distances between landmarks, and from them to all rows."""

    rows: Any  # a tensor or CSR; None where their affinity was given
    graph: RowGraph
    landmarks: torch.Tensor
    times: list[float]
    heat: HeatDistances
    graph_options: GraphOptions
    options: HeatOptions
    scaling: ScalingOptions


class HeatModel(NamedTuple):
    """What new rows are placed by."""

    rows: Any
    affinity_matrix: Any
    graph_options: GraphOptions
    options: HeatOptions
    scaling: ScalingOptions
    times: list[float]
    diagonals: torch.Tensor
    landmark_indices: torch.Tensor
    dist_matrix: torch.Tensor
    embedding: torch.Tensor


def heat_problem(
    X: Any,
    times: list[float] | None,
    of_graph: GraphOptions,
    options: HeatOptions,
    scaling: ScalingOptions,
    ws: Workspace,
) -> HeatProblem:
    """Return the distances by heat of validated rows; without times the knee of the entropy is taken."""
    given = of_graph.graph == "precomputed"
    rows = None if given else on_device(X, ws)
    points = None if given else scaled(rows)
    graph = given_graph(on_host(X)) if given else row_graph(points, of_graph, ws.device)
    landmarks = choose_landmarks(points, graph, scaling.n_landmarks)
    laplacian = laplacian_of(graph.affinity, options.laplacian)
    if times is None:
        few = choose_landmarks(points, graph, min(len(landmarks), _MOST_CURVES))
        times = [knee_time(laplacian, few, options, ws.device)]
    weighted = scaling.mds_weights == "heat"
    found = heat_distances(laplacian, landmarks, times, options, ws.device, with_kernel=weighted)
    if all_equal(points):
        found.distances.zero_()
    return HeatProblem(rows, graph, landmarks, times, found, of_graph, options, scaling)


def on_device(X: Any, ws: Workspace) -> Any:
    """Return rows as a tensor on the device, or as the CSR matrix that they are."""
    return sp.csr_array(X) if sp.issparse(X) else ws.load(X)


def all_equal(points: Any) -> bool:
    """Return whether points, a tensor or a CSR matrix, are one and the same."""
    if points is None:
        return False
    if sp.issparse(points):
        return abs(points - points[[0] * points.shape[0]]).max() == 0
    return bool((points == points[0]).all())


def embedding_steps(problem: HeatProblem, noise: torch.Tensor) -> Iterator[Step]:
    """Yield places of the landmarks: of classical scaling once, or after each Guttman transform that follows on it."""
    between, scaling = _between(problem.heat.distances, problem), problem.scaling
    start = classical_scaling(between, scaling.n_components, noise)
    if scaling.mds == "classic":
        yield Step(start, 0.0, stress(start, between))
        return
    weights = None if problem.heat.kernel is None else _between(problem.heat.kernel, problem)
    yield from smacof_steps(between, start, weights)


def _between(values, problem):
    return values[:, problem.landmarks.to(values.device)]


def model_of(places: torch.Tensor, problem: HeatProblem) -> HeatModel:
    """Return the model of a problem, with all rows placed, from the places of its landmarks."""
    distances, kernel, marks = problem.heat.distances, problem.heat.kernel, problem.landmarks.to(places.device)
    between = _between(distances, problem)
    places = places if problem.scaling.mds == "classic" else principal_axes(places)
    embedding = places.new_empty(distances.shape[1], places.shape[1])
    embedding[marks] = places
    others = torch.ones(len(embedding), dtype=torch.bool, device=places.device)
    others[marks] = False
    if others.any():
        weights = None if kernel is None else kernel[:, others].mT
        embedding[others] = _placed(distances[:, others].mT, places, between, weights, problem.scaling)
    return HeatModel(
        problem.rows,
        problem.graph.affinity,
        problem.graph_options,
        problem.options,
        problem.scaling,
        problem.times,
        problem.heat.diagonals,
        marks,
        between,
        embedding,
    )


def _placed(distances, places, between, weights, scaling):
    if scaling.mds == "classic":
        return place_classical(distances, places, between)
    return place(distances, places, weights)


def described(model: HeatModel, problem: HeatProblem, dtype: torch.dtype) -> dict[str, Any]:
    """Return the public attributes."""
    shares = time_shares(problem.times)
    return {
        "embedding_": model.embedding.to(dtype),
        "dist_matrix_": model.dist_matrix.to(dtype),
        "landmark_indices_": model.landmark_indices,
        "t_": float(np.dot(shares, problem.times)),
        "stress_": stress(model.embedding[model.landmark_indices], model.dist_matrix),
        "n_clipped_": problem.heat.n_clipped,
        "n_connected_components_": problem.graph.n_connected,
    }


def _in_form_of(fitted, rows):
    """Return rows as CSR where the rows of the fit are, else as a tensor."""
    if sp.issparse(fitted):
        return rows if sp.issparse(rows) else sp.csr_array(rows.cpu().numpy())
    return torch.from_numpy(rows.toarray()).to(fitted.device) if sp.issparse(rows) else rows


def new_places(X: Any, model: HeatModel) -> torch.Tensor:
    """Return the places of new rows, a tensor or CSR.

    Heat is symmetric: it begins at the new rows, or at the landmarks where these are fewer.
    """
    options, marks, device = model.options, model.landmark_indices, model.embedding.device
    laplacian = laplacian_of(model.affinity_matrix, options.laplacian)
    points, many = scaled(model.rows), X.shape[0] > len(marks)
    everywhere = landmark_heat(laplacian, marks, model.times, options, device) if many else []

    def of(rows):
        queries = scaled(_in_form_of(model.rows, X[rows]), like=model.rows)
        weights = new_row_weights(points, queries, model.graph_options, device)
        heat = [averages(weights, h) for h in everywhere]
        heat = heat or new_heat(laplacian, weights, marks, model.times, options, device)
        own = averages(weights, model.diagonals.mT.contiguous()).mT
        distances, kernel = new_distances(heat, own, model.diagonals[:, marks], model.times, options)
        kernel = kernel if model.scaling.mds_weights == "heat" else None
        return _placed(distances, model.embedding[marks], model.dist_matrix, kernel, model.scaling)

    size = 48 * len(marks)
    block = min(X.shape[0], _NEW_ROWS)
    return join_blocks(of, X.shape[0], block, bytes_per_row=size)


def warn_of_problem(problem: HeatProblem) -> None:
    """Warn where an embedding is other than what was asked for, or carries no information."""
    _warn_of_graph(problem)
    _warn_of_heat(problem)


def _warn_of_graph(problem):
    """Say what makes an embedding other than what was asked for."""
    k = problem.graph_options.n_neighbors
    if all_equal(problem.rows):
        warn("All rows of X are equal: the embedding is zero.", UserWarning)
    elif problem.graph.n_connected > 1:
        count = problem.graph.n_connected
        warn(
            f"The graph of n_neighbors={k} has {count} connected components. They are joined by the shortest "
            "edges between them, across which distances are large and uncertain. Raise n_neighbors for a graph that is "
            "connected.",
            UserWarning,
        )
    if problem.graph.cut_ties and not all_equal(problem.rows):
        warn(
            f"Some rows have more than {k + 100} neighbours that are as near as the one of rank n_neighbors={k}: which "
            "of them count depends on the order of rows. X has many copies or few distinct values. Fit distinct rows, "
            "as numpy.unique(X, axis=0) gives them, and place the others by transform.",
            UserWarning,
        )


def _warn_of_heat(problem):
    """Say where distances are those of rounding, or one constant."""
    heat, options = problem.heat, problem.options
    n_pairs = len(problem.landmarks) * (len(problem.landmarks) - 1) * len(problem.times)
    t = ", ".join(f"{time:.3g}" for time in problem.times)
    if all_equal(problem.rows):
        return
    if heat.even:
        warn(
            f"Heat is spread evenly over all rows at diffusion time t={t}: distances are rounding errors. Pass a "
            "smaller t or times, or smaller affinities for graph='precomputed'.",
            UserWarning,
        )
    elif heat.n_vanished and options.heat_solver == "euler":
        warn(
            f"At diffusion time t={t} no heat arrives at {heat.n_vanished / n_pairs:.1%} of the pairs of rows, in "
            "float64: their distances are one constant. Pass a larger t or times, or a larger n_neighbors.",
            UserWarning,
        )
    if heat.n_clipped > n_pairs / 2 and not heat.even:
        warn(
            f"{heat.n_clipped / n_pairs:.1%} of the squared distances were negative and are 0. Pass a smaller "
            f"volume_weight, which is {options.volume_weight:g}.",
            UserWarning,
        )
