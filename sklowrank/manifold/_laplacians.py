"""Laplacians of point clouds and triangle meshes, and their smoothest eigenfunctions."""

import math
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import eigsh

from .._core.blocks import in_blocks, rows_per_block
from .._math.neighbors import nearest_neighbors

_DENSE = 300  # rows up to which all eigenvectors are computed
_SHIFT = -1e-2  # below the spectrum of a shape of unit area, whose first positive eigenvalue is near ten
_FLAT = 0.95  # share of the variance of neighbours in two directions above which a cloud is a surface
_THIN = 0.01  # share in the second of them below which it is a curve
_STRAIGHT = 1e-9  # angles below count as zero


class Spectrum(NamedTuple):
    """The lowest eigenfunctions of a shape of unit area."""

    values: torch.Tensor  # (k,), ascending
    functions: torch.Tensor  # (n, k), orthonormal with respect to the mass
    mass: torch.Tensor  # (n,), sums to one


class Edges(NamedTuple):
    """Weights of edges, each pair once or more often, and the mass of the vertices."""

    first: torch.Tensor
    second: torch.Tensor
    weights: torch.Tensor
    mass: torch.Tensor


def spectrum_of(edges: Edges, n_components: int, start: torch.Tensor) -> Spectrum:
    """Return the lowest solutions of L v = lambda M v, where M is the mass and L the Laplacian of the weights.

    They are computed on the CPU by Lanczos iterations with a sparse factorisation, from `start` of n entries.
    """
    mass = edges.mass / edges.mass.sum()
    n, root = len(mass), mass.sqrt().cpu().numpy()
    parts = (part.cpu().numpy() for part in edges[:3])
    i, j, weights = parts
    W = sp.coo_array((weights, (i, j)), shape=(n, n)).tocsr()
    W = W + W.T
    S = sp.diags_array(1 / root) @ (sp.diags_array(W.sum(1)) - W) @ sp.diags_array(1 / root)
    if n <= max(_DENSE, 3 * n_components):
        values, vectors = np.linalg.eigh(S.toarray())
    else:
        values, vectors = eigsh(S.tocsc(), n_components, sigma=_SHIFT, v0=start.cpu().numpy())
    order = np.argsort(values)[:n_components]
    values, functions = values[order].clip(0), vectors[:, order] / root[:, None]
    return Spectrum(torch.from_numpy(values).to(mass), torch.from_numpy(functions).to(mass), mass)


def n_parts(edges: Edges) -> int:
    """Return the number of parts of a shape between which there are no edges."""
    n = len(edges.mass)
    i, j = edges.first.cpu().numpy(), edges.second.cpu().numpy()
    return connected_components(sp.coo_array((np.ones(len(i)), (i, j)), shape=(n, n)), directed=False)[0]


# Meshes and surfaces


def mesh_edges(points: torch.Tensor, triangles: torch.Tensor, share: float = 1.0) -> Edges:
    """Return the cotangent weights of a triangle mesh; each triangle counts `share`.

    The weight of an edge is half the sum of the cotangents of the angles opposite to it, the mass of a vertex a third
    of the area of the triangles around. Vertices without an area are tied to the nearest one.
    """
    tiny, corners = torch.finfo(points.dtype).tiny, points[triangles]
    sides = corners.roll(-1, 1) - corners.roll(1, 1)  # opposite to each corner
    squares = sides.square().sum(2)
    dots = (squares.sum(1, keepdim=True) / 2) - squares  # of the two sides that meet in a corner
    area = (dots[:, 0] * dots[:, 1] + dots[:, 1] * dots[:, 2] + dots[:, 2] * dots[:, 0]).clamp_min(0).sqrt() / 2
    solid = area > _STRAIGHT * squares.amax(1)
    triangles, dots, area = triangles[solid], dots[solid], area[solid]
    weights = share * dots / (4 * area[:, None]).clamp_min(tiny)
    mass = points.new_zeros(len(points))
    mass.index_add_(0, triangles.reshape(-1), (share * area / 3).repeat_interleave(3))
    first, second = triangles.roll(-1, 1).reshape(-1), triangles.roll(1, 1).reshape(-1)
    edges = Edges(first, second, weights.reshape(-1), mass)
    bare = (mass <= 0).nonzero()[:, 0]
    return _tied(edges, bare, points) if len(bare) else edges


def _tied(edges, bare, points):
    """Tie vertices without an area to their nearest neighbours, with the weight of an edge of equilateral triangles."""
    nearest = nearest_neighbors(points, 1)[1][bare, 0]
    known = edges.mass[edges.mass > 0]
    mass = edges.mass.index_fill(0, bare, 0.1 * float(known.mean()) if len(known) else 1.0)
    weights = torch.cat([edges.weights, torch.full_like(mass[bare], 1 / math.sqrt(3))])
    return Edges(torch.cat([edges.first, bare]), torch.cat([edges.second, nearest]), weights, mass)


def surface_edges(points: torch.Tensor, n_neighbors: int) -> Edges:
    """Return the cotangent weights of a point cloud on a surface.

    Triangles are those of the Delaunay triangulations of each point with its neighbours, in the plane of their most
    variance, of which the point is a corner. As most are found from each of their corners, each counts a third.
    """
    distances, indices = nearest_neighbors(points, n_neighbors)

    def of_block(rows):
        flat, _ = tangent_coordinates(points[indices[rows]] - points[rows, None])
        row, i, j = delaunay_stars(flat, distances[rows, -1])
        near = indices[rows]
        return torch.stack([row + rows.start, near[row, i], near[row, j]], 1)

    size = 64 * n_neighbors**2
    blocks = in_blocks(of_block, len(points), rows_per_block("auto", len(points), size), bytes_per_row=size)
    return mesh_edges(points, torch.cat(list(blocks)), 1 / 3)


def is_surface(points: torch.Tensor, n_neighbors: int) -> bool:
    """Return whether the neighbours of most points lie in a plane, nearly, and not on a line."""
    if points.shape[1] < 2 or n_neighbors < 3:
        return False
    every = max(1, len(points) // 500)
    _, indices = nearest_neighbors(points, n_neighbors, points[::every])
    offsets = points[indices] - points[::every, None]
    shares = tangent_coordinates(offsets)[1]
    return bool(shares.sum(1).median() >= _FLAT and shares[:, 0].median() >= _THIN)


def tangent_coordinates(offsets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return offsets (b, k, D) in the planes of most variance, (b, k, 2), and shares of both axes in it, ascending."""
    centred = offsets - offsets.mean(1, keepdim=True)
    if offsets.shape[2] <= offsets.shape[1]:
        variances, axes = torch.linalg.eigh(centred.mT @ centred)
        plane = axes[:, :, -2:]
    else:
        variances, vectors = torch.linalg.eigh(centred @ centred.mT)
        plane = torch.nn.functional.normalize(centred.mT @ vectors[:, :, -2:], dim=1)
    total = variances.sum(1, keepdim=True).clamp_min(torch.finfo(offsets.dtype).tiny)
    return offsets @ plane, variances[:, -2:] / total


def delaunay_stars(flat: torch.Tensor, radius: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the Delaunay triangles of the origin with points (b, k, 2), anticlockwise, as rows and pairs of points.

    By the inversion x / |x|² a circle through the origin without points in it becomes a line with all of them on the
    side of the origin: the triangles are the edges of the convex hull of the origin and the inverted points. Triangles
    whose circumcircle has more than `radius` (b,) bridge holes and are left out.
    """
    tiny = torch.finfo(flat.dtype).tiny
    q = flat / flat.square().sum(2, keepdim=True).clamp_min(tiny) * radius[:, None, None]
    cross = q[:, :, None, 0] * q[:, None, :, 1] - q[:, :, None, 1] * q[:, None, :, 0]
    inner = q @ q.mT
    norms = inner.diagonal(dim1=1, dim2=2)
    angles = torch.atan2(-cross, norms[:, :, None] - inner)  # at i, from the direction of the origin to that of j
    itself = torch.eye(flat.shape[1], dtype=torch.bool, device=flat.device)
    least = angles.masked_fill(itself, torch.inf).amin(2)
    most = angles.masked_fill(itself, -torch.inf).amax(2).clamp_min(0)
    squares = norms[:, :, None] + norms[:, None] - 2 * inner
    straight = angles <= least[:, :, None] + _STRAIGHT
    length, j = squares.masked_fill(~straight | itself, torch.inf).min(2)
    area = cross.gather(2, j[:, :, None])[:, :, 0]
    on_hull = (most - least <= math.pi + _STRAIGHT) & (least < 0) & (area > 0)
    row, i = (on_hull & (2 * area >= length.clamp_min(0).sqrt())).nonzero().T
    return row, i, j[row, i]


# Graphs


def graph_edges(points: torch.Tensor, n_neighbors: int) -> Edges:
    """Return Gaussian weights of nearest neighbours, normalised so that they do not depend on the density of points.

    The bandwidth at a point is the distance of its last neighbour; the mass of a point is the sum of its weights.
    """
    distances, indices = nearest_neighbors(points, n_neighbors)
    width, tiny = distances[:, -1], torch.finfo(points.dtype).tiny
    weights = torch.exp(-distances.square() / (width[:, None] * width[indices]).clamp_min(tiny))
    first = torch.arange(len(points), device=points.device).repeat_interleave(n_neighbors)
    second, weights = indices.reshape(-1), weights.reshape(-1) / 2

    def degrees(weights):
        return torch.zeros_like(width).index_add_(0, first, weights).index_add_(0, second, weights)

    density = degrees(weights)
    weights = weights / (density[first] * density[second])
    return Edges(first, second, weights, degrees(weights))
