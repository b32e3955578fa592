"""Alignment of two shapes: their spectra, a start, its refinement, and what new rows are mapped by."""

from typing import NamedTuple

import torch

from .._core.blocks import join_blocks, rows_per_block
from .._core.warn import warn
from .._math.neighbors import nearest_neighbors
from ._deformation_fields import deformed_by_cpd, deformed_in_space, refined_in_spectrum
from ._functional_map_inputs import Inputs, Shape
from ._functional_maps import (
    aligned_codes,
    chosen_map,
    landmark_codes,
    nearest_codes,
    posed,
    refined_map,
    sample_of,
    sizes_between,
    spectral_map,
    spread_rows,
)
from ._laplacians import Spectrum, graph_edges, is_surface, mesh_edges, n_parts, spectrum_of, surface_edges

LEAST_ROWS = 8  # distinct rows of either shape that eigenfunctions are computed of
_SAMPLE = 2000  # rows on which the map is refined until its last step
_SCOUTS = 500  # rows on which starts are compared
_SURE = 20  # eigenfunctions from which on both directions are used
_CORNERS = 3  # partners between which a row is placed
_FAR = 1e100  # from the source, in units of its size: rows farther away are as far, so that squares stay finite
_RIDGE = 1e-3  # as of locally linear embedding


class AlignmentOptions(NamedTuple):
    """Parameters of the estimator."""

    n_components: int
    n_components_init: int
    step: int
    init: str
    refine: str
    n_neighbors: int
    symmetric: bool
    rigid_prealign: bool
    hidden_layer_sizes: tuple[int, ...]
    field_steps: int
    learning_rate: float
    lambda_iso: float


class Pairing(NamedTuple):
    """Codes of the rows of both shapes, of which the nearest ones are partners, and the partners of target rows."""

    codes: torch.Tensor
    target_codes: torch.Tensor
    partners: torch.Tensor  # (m,), source rows


class AlignmentModel(NamedTuple):
    """What rows are mapped by."""

    points: torch.Tensor  # (n, D), distinct rows of the source, centred and scaled
    centre: torch.Tensor
    scale: torch.Tensor
    codes: torch.Tensor  # (n, k)
    target_codes: torch.Tensor  # (m, k)
    target_points: torch.Tensor  # (m, E), distinct rows of the target
    target_rows: torch.Tensor  # (m,), where they are among the rows that were given
    target_place: torch.Tensor  # for each row that was given which distinct one it equals
    n_neighbors: int


class Alignment(NamedTuple):
    """The result of a fit."""

    model: AlignmentModel
    functional_map: torch.Tensor
    values: torch.Tensor  # eigenvalues of the source
    target_values: torch.Tensor
    correspondence: torch.Tensor
    inverse: torch.Tensor
    deformed: torch.Tensor
    cycle_error: float


def align(source: Shape, target: Shape, inputs: Inputs, opts: AlignmentOptions, generator) -> Alignment:
    """Return partners, map and model of two shapes."""
    fewest = min(len(source.points), len(target.points))
    if fewest < LEAST_ROWS:
        if source.points.shape[1] != target.points.shape[1]:
            raise ValueError(
                f"The smaller of X and X_target has {fewest} distinct rows: too few for eigenfunctions, and without as "
                f"many columns rows cannot be compared. Pass at least {LEAST_ROWS} distinct rows of both."
            )
        warn(
            f"The smaller of X and X_target has {fewest} distinct rows; below {LEAST_ROWS} there are no eigenfunctions "
            "to align, and partners are nearest rows. Pass more rows.",
            UserWarning,
        )
        start = nearest_start(source, target, None, opts, generator)
        return described(source, target, start, start.codes.new_zeros(0, 0), None, None, opts)
    spectra = spectra_of(source, target, opts, generator)
    start = coarse_pairing(source, target, spectra, inputs, opts, generator)
    if opts.refine == "none":
        k = len(spectra[0].values)
        return described(source, target, start, spectral_map(*spectra, start.partners, k), *spectra, opts)
    C = full_map(source, target, spectra, start, opts)
    codes, target_codes = aligned_codes(*spectra, C)
    if opts.refine == "spectral_field":
        codes, target_codes = refined_in_spectrum(codes, target_codes, spectra[1].values, opts, generator)
    found = Pairing(codes, target_codes, nearest_codes(codes, target_codes))
    return described(source, target, found, C, *spectra, opts)


def spectra_of(source, target, opts, generator) -> tuple[Spectrum, Spectrum]:
    """Return the eigenfunctions of both shapes, as many of each."""
    fewest = min(len(source.points), len(target.points))
    q, k = min(opts.n_neighbors, fewest - 1), min(opts.n_components, fewest - 2)
    meshes = any(shape.triangles is not None for shape in (source, target))
    surfaces = meshes or all(is_surface(shape.points, q) for shape in (source, target))

    def spectrum(shape, name):
        if shape.triangles is not None:
            edges = mesh_edges(shape.points, shape.triangles)
        else:
            flat = surfaces and shape.points.shape[1] > 1
            edges = surface_edges(shape.points, q) if flat else graph_edges(shape.points, q)
        if target is not source and n_parts(edges) > 1:
            warn(
                f"{name} falls into {n_parts(edges)} parts without edges between them: partners can be in the wrong "
                "part. Raise n_neighbors, or align the parts one by one.",
                UserWarning,
            )
        start = torch.randn(len(shape.points), generator=generator, dtype=torch.float64, device="cpu")
        return spectrum_of(edges, k, start)

    first = spectrum(source, "X")
    return first, first if target is source else spectrum(target, "X_target")


def coarse_pairing(source, target, spectra, inputs, opts, generator) -> Pairing:
    """Return the partners that the refinement starts from."""
    k = min(opts.n_components_init, len(spectra[0].values))
    if opts.init == "indices":
        C = spectral_map(*spectra, inputs.partners, k)
        return Pairing(*aligned_codes(*spectra, C), inputs.partners)
    if opts.init == "landmarks":
        shared = (spectra[0].values + spectra[1].values) / 2
        rows = zip(spectra, inputs.landmarks)
        codes, target_codes = (landmark_codes(spectrum, marks, shared) for spectrum, marks in rows)
        return Pairing(codes, target_codes, nearest_codes(codes, target_codes))
    return nearest_start(source, target, spectra[0], opts, generator)


def nearest_start(source, target, spectrum, opts, generator) -> Pairing:
    """Return the pairs of nearest points, after a rigid motion of the source and its deformation."""
    goal = target.points
    points = posed(source.points, goal) if opts.rigid_prealign and target is not source else source.points
    if spectrum is not None and opts.init == "cpd":
        points = deformed_by_cpd(points, goal)
    if spectrum is not None and opts.init == "field":
        points = deformed_in_space(points, goal, spectrum, opts, generator)
    return Pairing(points, goal, nearest_neighbors(points, 1, goal)[1][:, 0])


def full_map(source, target, spectra, start, opts) -> torch.Tensor:
    """Return the map of all eigenfunctions, refined from the start."""
    k, last = opts.n_components_init, len(spectra[0].values)
    C = spectral_map(*spectra, start.partners, min(k, last))
    sure = max(len(C), min(_SURE, last))
    if opts.init in ("nearest", "cpd", "field"):
        rows = [spread_rows(shape.points, _SCOUTS) for shape in (source, target)]
        scouts = [sample_of(spectrum, some) for spectrum, some in zip(spectra, rows)]
        near = nearest_codes(start.codes[rows[0]], start.target_codes[rows[1]])
        C = chosen_map(*scouts, near, start.codes[rows[0]], C, sure, opts.step)
    size = max(_SAMPLE, 4 * last)
    samples = [
        sample_of(spectrum, spread_rows(shape.points, size)) for spectrum, shape in zip(spectra, (source, target))
    ]
    C = refined_map(*samples, C, sizes_between(len(C), sure, opts.step), symmetric=False)
    C = refined_map(*samples, C, sizes_between(len(C), last, opts.step), symmetric=opts.symmetric)
    return refined_map(*spectra, C, [last], symmetric=opts.symmetric)


# What is made of the pairs


def described(source, target, found: Pairing, C, spectrum, target_spectrum, opts) -> Alignment:
    """Return the result of a fit, for the rows that were given."""
    model = AlignmentModel(
        source.points,
        source.centre,
        source.scale,
        found.codes,
        found.target_codes,
        target.points * target.scale + target.centre,
        target.first,
        target.place,
        min(opts.n_neighbors, len(source.points)),
    )
    inverse = nearest_codes(found.target_codes, found.codes)
    back = source.points[found.partners[inverse]] - source.points
    size = spread(source.points[source.place])
    cycle = back.square().sum(1).sqrt()[source.place].mean() / size if size > 0 else size
    none = C.new_zeros(0)
    return Alignment(
        model,
        C,
        none if spectrum is None else spectrum.values,
        none if target_spectrum is None else target_spectrum.values,
        source.first[found.partners][target.place],
        target.first[inverse][source.place],
        positions(model, found.codes)[source.place],
        float(cycle),
    )


def spread(points: torch.Tensor) -> torch.Tensor:
    """Return the root mean square distance of points from their mean."""
    return (points - points.mean(0)).square().sum(1).mean().sqrt()


def codes_of(model: AlignmentModel, X: torch.Tensor) -> torch.Tensor:
    """Return the codes of new rows: those of their neighbours in the source, with the weights that rebuild a row."""
    rows = ((X - model.centre) / model.scale).clamp(-_FAR, _FAR)
    distances, indices = nearest_neighbors(model.points, model.n_neighbors, rows)

    def of_block(block):
        near = indices[block]
        offsets = model.points[near] - rows[block, None]
        gram = offsets @ offsets.mT
        ridge = _RIDGE * gram.diagonal(dim1=1, dim2=2).sum(1).clamp_min(torch.finfo(gram.dtype).tiny)
        gram = gram + torch.diag_embed(ridge[:, None].expand(near.shape))
        weights = torch.linalg.solve(gram, torch.ones_like(gram[:, :, 0]))
        weights = weights / weights.sum(1, keepdim=True)
        known = distances[block, :1] <= 1e-12
        weights = torch.where(known, torch.nn.functional.one_hot(torch.zeros_like(near[:, 0]), near.shape[1]), weights)
        return (weights[:, None] @ model.codes[near])[:, 0]

    size = 8 * model.n_neighbors * (model.n_neighbors + model.points.shape[1] + model.codes.shape[1])
    return join_blocks(of_block, len(rows), rows_per_block("auto", len(rows), size), bytes_per_row=size)


def positions(model: AlignmentModel, codes: torch.Tensor) -> torch.Tensor:
    """Return where rows with these codes are in target space: between the target rows with the nearest codes."""
    squares, indices = _nearest_few(model.target_codes, codes, min(_CORNERS, len(model.target_codes)))
    weights = 1 / (squares + 1e-12 * squares[:, -1:] + torch.finfo(squares.dtype).tiny)
    weights = weights / weights.sum(1, keepdim=True)
    return (weights[:, None] @ model.target_points[indices])[:, 0]


def _nearest_few(codes, queries, n):
    """Return squared distances and indices of the `n` nearest codes of each query."""
    size = 3 * codes.element_size() * len(codes)

    def of_block(rows):
        indices = torch.cdist(queries[rows], codes).topk(n, largest=False).indices
        return (queries[rows, None] - codes[indices]).square().sum(2), indices

    return join_blocks(of_block, len(queries), rows_per_block("auto", len(queries), size), bytes_per_row=size)


def partners_of(model: AlignmentModel, X: torch.Tensor) -> torch.Tensor:
    """Return which row of the target is the partner of each new row."""
    return model.target_rows[nearest_codes(model.target_codes, codes_of(model, X))]


def mean_error(model: AlignmentModel, X: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return the mean distance of mapped rows from their true partners, over the size of the target."""
    places = model.target_points[model.target_place]
    scale = (places - places.mean(0)).abs().amax().clamp_min(torch.finfo(places.dtype).tiny)
    gaps = (positions(model, codes_of(model, X)) - places[truth]) / scale
    size = spread(places / scale)
    return gaps.square().sum(1).sqrt().mean() / size if size > 0 else size
