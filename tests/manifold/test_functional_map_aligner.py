"""Alignment of bent shapes: against slow references, on sheets that are rolled up, and the traps of the method."""

import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial import Delaunay
from scipy.spatial.distance import cdist
from sklearn import config_context

from sklowrank.manifold import FunctionalMapAligner
from sklowrank.manifold._functional_maps import nearest_codes, posed, refined_map
from sklowrank.manifold._laplacians import (
    Spectrum,
    delaunay_stars,
    graph_edges,
    is_surface,
    mesh_edges,
    spectrum_of,
    surface_edges,
)


def sheet(n, seed):
    """Points of a sheet 2 x 1 with a corner cut off: no symmetry."""
    uv = np.random.RandomState(seed).rand(4 * n, 2) * [2, 1]
    return uv[(uv[:, 1] < 1 - uv[:, 0] / 4) | (uv[:, 0] < 0.5)][:n]


def flat(uv):
    return np.c_[uv, np.zeros(len(uv))]


def rolled(uv, radius):
    u, v = uv.T
    r = radius + 0.03 * np.sin(9 * u + 2 * v)
    return np.c_[r * np.sin(u / radius), v, radius - r * np.cos(u / radius)]


def tensor(array):
    return torch.from_numpy(np.ascontiguousarray(array))


SOURCE, GOAL = sheet(350, 0), sheet(300, 1)
SMALL = {"n_components": 30, "random_state": 0}


def error(model, source=SOURCE, goal=GOAL):
    """Mean distance on the sheet between target rows and their partners."""
    return np.linalg.norm(source[model.correspondence_] - goal, axis=1).mean()


# Laplacians


def test_stars_are_those_of_delaunay_triangulations():
    points = np.random.RandomState(0).randn(30, 2)
    points[0] = 0
    _, i, j = delaunay_stars(tensor(points[None, 1:]), tensor(np.array([1e6])))
    found = {frozenset((a + 1, b + 1)) for a, b in zip(i.tolist(), j.tolist())}
    expected = {frozenset(set(t) - {0}) for t in Delaunay(points).simplices.tolist() if 0 in t}
    assert found == expected


def test_the_stars_of_a_grid_cover_each_square_once():
    """Four points on a circle have two triangulations."""
    around = np.array([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)], dtype=float)
    _, i, j = delaunay_stars(tensor(around[None]), tensor(np.array([10.0])))
    a, b = around[i.numpy()], around[j.numpy()]
    assert np.isclose((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / 2, 4)


def test_triangles_do_not_bridge_holes():
    angle = np.linspace(0, 2 * np.pi, 8, endpoint=False)[1:]
    ring = np.c_[np.cos(angle), np.sin(angle)] - [1, 0]  # all on a circle through the origin
    assert len(delaunay_stars(tensor(ring[None]), tensor(np.array([0.5])))[0]) == 0


def test_cotangent_weights_against_a_loop():
    points = np.random.RandomState(0).randn(20, 3)
    triangles = np.random.RandomState(1).permutation(20)[:18].reshape(6, 3)
    edges = mesh_edges(tensor(points), tensor(triangles))
    W, mass = np.zeros((20, 20)), np.zeros(20)
    for t in triangles:
        for a, b, c in (t, np.roll(t, 1), np.roll(t, 2)):
            x, y = points[b] - points[a], points[c] - points[a]
            W[b, c] = W[c, b] = x @ y / np.linalg.norm(np.cross(x, y)) / 2
            mass[a] += np.linalg.norm(np.cross(x, y)) / 6
    found = np.zeros((20, 20))
    np.add.at(found, (edges.first.numpy(), edges.second.numpy()), edges.weights.numpy())
    in_triangles = np.ix_(triangles.ravel(), triangles.ravel())
    np.testing.assert_allclose((found + found.T)[in_triangles], W[in_triangles], rtol=1e-10)
    np.testing.assert_allclose(edges.mass.numpy()[triangles.ravel()], mass[triangles.ravel()])
    assert (edges.mass > 0).all()  # also of the two vertices in no triangle


def test_spectrum_solves_the_generalised_problem():
    X = tensor(flat(sheet(400, 3)))
    edges = surface_edges(X, 12)
    found = spectrum_of(edges, 15, torch.ones(400, dtype=torch.float64))
    W = np.zeros((400, 400))
    np.add.at(W, (edges.first.numpy(), edges.second.numpy()), edges.weights.numpy())
    W, M, V = W + W.T, found.mass.numpy(), found.functions.numpy()
    np.testing.assert_allclose((np.diag(W.sum(1)) - W) @ V, M[:, None] * V * found.values.numpy(), atol=1e-8)
    np.testing.assert_allclose(V.T @ (M[:, None] * V), np.eye(15), atol=1e-9)


def test_a_cloud_has_the_spectrum_of_its_surface():
    """Of a square: pi² (p² + q²)."""
    points = flat(np.random.RandomState(0).rand(2000, 2))
    values = spectrum_of(surface_edges(tensor(points), 20), 6, torch.ones(2000, dtype=torch.float64)).values.numpy()
    np.testing.assert_allclose(values[1:] / np.pi**2, [1, 1, 2, 4, 4], rtol=0.1)


def test_surfaces_are_told_from_volumes():
    r = np.random.RandomState(0)
    assert is_surface(tensor(rolled(SOURCE, 0.6)), 20)
    assert not is_surface(tensor(r.rand(500, 3)), 20)
    assert not is_surface(tensor(r.rand(500, 1)), 20)


def test_graph_weights_do_not_follow_the_density():
    """The mean of normalised weights of a sparse and of a dense half differ less than those of the plain ones."""
    r = np.random.RandomState(0)
    points = np.r_[r.rand(400, 2), r.rand(100, 2) + np.array([1, 0])]
    edges = graph_edges(tensor(points), 10)
    values = spectrum_of(edges, 3, torch.ones(500, dtype=torch.float64))
    smooth = values.functions[:, 1]
    assert abs(np.corrcoef(smooth.numpy(), points[:, 0])[0, 1]) > 0.95


# Maps


def test_refinement_against_numpy():
    r = np.random.RandomState(0)
    n, m = 60, 50
    shapes = []
    for size in (n, m):
        mass = r.rand(size) + 0.5
        mass /= mass.sum()
        Q = np.linalg.qr(r.randn(size, 12))[0]
        shapes.append((Q / np.sqrt(mass)[:, None], mass))
    (Phi, M_s), (Psi, M_t) = shapes
    C = np.diag(np.sign(r.randn(4)))
    source, target = (Spectrum(torch.arange(12.0), tensor(V), tensor(M)) for V, M in shapes)
    for symmetric in (False, True):
        expected = C
        for k in (6, 9, 12):
            codes, goal = Phi[:, : len(expected)] @ expected.T, Psi[:, : len(expected)]
            p, q = cdist(goal, codes).argmin(1), cdist(codes, goal).argmin(1)
            expected = Psi[:, :k].T @ (M_t[:, None] * Phi[p, :k])
            if symmetric:
                expected = (expected + (Phi[:, :k].T @ (M_s[:, None] * Psi[q, :k])).T) / 2
        found = refined_map(source, target, tensor(C), [6, 9, 12], symmetric=symmetric)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


def test_nearest_codes_in_blocks(monkeypatch):
    r = np.random.RandomState(0)
    A, B = r.randn(40, 7), r.randn(30, 7)
    monkeypatch.setattr("sklowrank._core.blocks._AUTO_BYTES", 1000)
    np.testing.assert_array_equal(nearest_codes(tensor(A), tensor(B)).numpy(), cdist(B, A).argmin(1))


def test_a_rigid_motion_is_found_and_none_is_made_of_bent_shapes():
    X = rolled(SOURCE, 0.6)
    Q = np.linalg.qr(np.random.RandomState(4).randn(3, 3))[0]
    moved = posed(tensor(X), tensor(X @ Q + 2)).numpy()
    np.testing.assert_allclose(moved, X @ Q + 2, atol=1e-8)
    np.testing.assert_array_equal(posed(tensor(flat(SOURCE)), tensor(rolled(GOAL, 0.6))).numpy(), flat(SOURCE))


# Alignment


@pytest.mark.parametrize("radius", [0.9, 0.45])
def test_bent_sheets_are_aligned_where_nearest_points_fail(radius):
    T = rolled(GOAL, radius)
    model = FunctionalMapAligner(**SMALL).fit(flat(SOURCE), X_target=T)
    plain = np.linalg.norm(SOURCE[cdist(T, flat(SOURCE)).argmin(1)] - GOAL, axis=1).mean()
    floor = cdist(GOAL, SOURCE).min(1).mean()
    assert error(model) < 2 * floor < 0.3 * plain
    assert np.linalg.norm(model.deformed_ - rolled(SOURCE, radius), axis=1).mean() < 2 * floor


def test_a_wrong_start_is_replaced_by_signs_of_eigenfunctions():
    """The target is turned by half a turn: all nearest points are wrong."""
    T = rolled(GOAL, 0.6) * [-1, -1, 1] + [2, 1, 0]
    assert error(FunctionalMapAligner(**SMALL, rigid_prealign=False).fit(flat(SOURCE), X_target=T)) < 0.06


def test_a_symmetric_shape_is_not_turned_over():
    r = np.random.RandomState(2)
    A, B = r.rand(400, 2) * [2, 1], r.rand(400, 2) * [2, 1]
    model = FunctionalMapAligner(**SMALL).fit(flat(A), X_target=np.c_[B[:, 0], B[:, 1], 0.2 * B[:, 0] ** 2])
    assert error(model, A, B) < 0.1


def test_a_moved_copy_is_matched_exactly_and_new_rows_follow():
    r = np.random.RandomState(5)
    X, Q, order = rolled(SOURCE, 0.6), np.linalg.qr(r.randn(3, 3))[0], r.permutation(350)
    T = (X @ Q + [3, 1, -2])[order]
    model = FunctionalMapAligner(**SMALL).fit(X, X_target=T)
    place = np.argsort(order)
    assert np.array_equal(model.correspondence_, order)
    assert np.array_equal(model.predict(X), place)
    assert model.cycle_error_ == 0
    assert model.score(X, place) > -1e-6
    new = rolled(sheet(100, 7), 0.6)
    assert np.linalg.norm(model.transform(new) - (new @ Q + [3, 1, -2]), axis=1).mean() < 0.04
    with pytest.raises(ValueError, match="y has"):
        model.score(X, place[:3])


def test_landmarks_and_given_partners_need_no_common_space():
    T = rolled(GOAL, 0.45)
    marks = np.arange(0, 300, 20)
    known = cdist(GOAL[marks], SOURCE).argmin(1)
    model = FunctionalMapAligner(init="landmarks", landmarks=(known, marks), **SMALL).fit(SOURCE, X_target=T)
    assert error(model) < 0.06
    assert model.transform(SOURCE[:3]).shape == (3, 3)
    given = FunctionalMapAligner(init=cdist(GOAL, SOURCE).argmin(1), **SMALL).fit(SOURCE, X_target=T)
    assert error(given) < 0.06
    with pytest.raises(ValueError, match="columns"):
        FunctionalMapAligner().fit(SOURCE, X_target=T)


def test_meshes():
    def triangles(uv):
        F = Delaunay(uv).simplices
        return F[[max(np.linalg.norm(uv[t] - uv[np.roll(t, 1)], axis=1)) < 0.3 for t in F]]

    faces = {"faces": triangles(SOURCE), "target_faces": triangles(GOAL)}
    assert error(FunctionalMapAligner(**faces, **SMALL).fit(flat(SOURCE), X_target=rolled(GOAL, 0.6))) < 0.06


def test_more_rows_than_the_sample(monkeypatch):
    """A map that is refined on a part of the rows gives nearly the same partners of all."""
    T = rolled(GOAL, 0.6)
    whole = FunctionalMapAligner(**SMALL).fit(flat(SOURCE), X_target=T)
    monkeypatch.setattr("sklowrank.manifold._functional_map_solver._SAMPLE", 200)
    part = FunctionalMapAligner(**SMALL).fit(flat(SOURCE), X_target=T)
    assert error(part) < 1.1 * error(whole)


def test_the_order_of_rows_and_equal_rows_do_not_matter():
    T, order = rolled(GOAL, 0.6), np.random.RandomState(0).permutation(350)
    X = flat(SOURCE)
    model = FunctionalMapAligner(**SMALL).fit(X, X_target=T)
    again = FunctionalMapAligner(**SMALL).fit(X[order], X_target=T)
    assert np.array_equal(order[again.correspondence_], model.correspondence_)
    np.testing.assert_allclose(again.deformed_, model.deformed_[order], rtol=1e-9, atol=1e-12)
    twice = FunctionalMapAligner(**SMALL).fit(np.r_[X, X[:40]], X_target=np.r_[T, T[:9]])
    assert np.array_equal(twice.correspondence_, np.r_[model.correspondence_, model.correspondence_[:9]])
    assert np.array_equal(twice.deformed_[350:], twice.deformed_[:40])


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_units_do_not_matter(scale):
    X, T = flat(SOURCE), rolled(GOAL, 0.6)
    model = FunctionalMapAligner(**SMALL).fit(X, X_target=T)
    other = FunctionalMapAligner(**SMALL).fit(scale * X, X_target=scale * T)
    assert np.mean(other.correspondence_ == model.correspondence_) > 0.99
    assert np.abs(other.deformed_ / scale - model.deformed_).mean() < 1e-3


def test_float32_is_kept_and_gives_nearly_the_same():
    X, T = flat(SOURCE), rolled(GOAL, 0.6)
    model = FunctionalMapAligner(**SMALL).fit(X, X_target=T)
    single = FunctionalMapAligner(**SMALL).fit(X.astype(np.float32), X_target=T.astype(np.float32))
    assert single.deformed_.dtype == single.transform(X.astype(np.float32)).dtype == np.float32
    assert np.mean(single.correspondence_ == model.correspondence_) > 0.95


def test_fields_deform_and_are_repeatable():
    T = rolled(GOAL, 0.9)
    settings = {"init": "field", "refine": "none", "field_steps": 60, **SMALL}
    model = FunctionalMapAligner(**settings).fit(flat(SOURCE), X_target=T)
    near = FunctionalMapAligner(refine="none", **SMALL).fit(flat(SOURCE), X_target=T)
    assert error(model) < 0.5 * error(near)
    assert np.array_equal(model.deformed_, FunctionalMapAligner(**settings).fit(flat(SOURCE), X_target=T).deformed_)


def test_the_field_in_the_spectrum_keeps_what_is_aligned():
    T = rolled(GOAL, 0.9)
    refined = FunctionalMapAligner(refine="spectral_field", field_steps=30, **SMALL).fit(flat(SOURCE), X_target=T)
    assert error(refined) < 1.2 * error(FunctionalMapAligner(**SMALL).fit(flat(SOURCE), X_target=T))


def test_cpd_names_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycpd", None)
    with pytest.raises(ImportError, match="pycpd"):
        FunctionalMapAligner(init="cpd", **SMALL).fit(flat(SOURCE), X_target=rolled(GOAL, 0.9))


def test_cpd_start():
    pytest.importorskip("pycpd")
    model = FunctionalMapAligner(init="cpd", refine="none", **SMALL).fit(flat(SOURCE)[:150], X_target=flat(GOAL)[:150])
    assert error(model, SOURCE, GOAL[:150]) < 0.15


def test_few_rows_and_pieces():
    X, T = flat(SOURCE)[:100], rolled(GOAL, 0.9)[:90]
    with pytest.warns(UserWarning, match="8"):
        assert FunctionalMapAligner().fit(X[:2], X_target=T[:5]).deformed_.shape == (2, 3)
    with pytest.raises(ValueError, match="8"):
        FunctionalMapAligner(init="landmarks", landmarks=([0, 1], [0, 1])).fit(X[:5, :2], X_target=T)
    marks = np.arange(0, 100, 20)
    itself = FunctionalMapAligner(20, init="landmarks", landmarks=(marks, marks)).fit(X)
    assert np.array_equal(itself.correspondence_, np.arange(100))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pieces = FunctionalMapAligner(20).fit(np.r_[X, X + np.array([50, 0, 0])])
    assert np.isfinite(pieces.deformed_).all()
    assert FunctionalMapAligner(500).fit(X[:40], X_target=T[:30]).functional_map_.shape == (28, 28)


@pytest.mark.parametrize("unit", [1e-300, 1e-25, 1e-3, 1e25, 1e300])
def test_the_target_may_have_other_units(unit):
    X, T = flat(SOURCE), rolled(GOAL, 0.9)
    model = FunctionalMapAligner(**SMALL).fit(X, X_target=T * unit)
    assert error(model) < 0.1
    assert abs(model.score(X, model.inverse_correspondence_)) < 0.1


def test_rows_far_from_the_source():
    X, T = flat(SOURCE), rolled(GOAL, 0.9)
    model = FunctionalMapAligner(**SMALL).fit(X, X_target=T)
    far = np.array([[1e6, 0, 0], [1e200, -1e200, 0], [1e308, -1e308, 1e308]])
    assert np.isfinite(model.transform(far)).all()
    assert model.predict(far).shape == (3,)


def test_curves_in_space():
    s, t = (np.sort(np.random.RandomState(k).rand(n)) for k, n in ((0, 200), (1, 180)))
    straight = [np.c_[u, 2 * u, 3 * u] for u in (s, t)]
    helix = np.c_[np.cos(4 * t), np.sin(4 * t), t]
    assert not is_surface(tensor(straight[0]), 20)
    assert not is_surface(tensor(helix), 10)
    for source, target in ((straight[0], straight[1]), (straight[0], helix)):
        model = FunctionalMapAligner(20, n_neighbors=10, random_state=0).fit(source, X_target=target)
        wrong = np.abs(s[model.correspondence_] - t).mean()
        mirrored = np.abs(1 - s[model.correspondence_] - t).mean()
        assert min(wrong, mirrored) < 0.05


def test_parts_are_named():
    X, T = flat(SOURCE), rolled(GOAL, 0.9)
    apart = np.array([0, 0, 50])
    with pytest.warns(UserWarning, match="X_target falls into 2 parts.*n_neighbors"):
        FunctionalMapAligner(**SMALL).fit(X, X_target=np.r_[T, T + apart])
    with pytest.warns(UserWarning, match="X falls into 2 parts"):
        FunctionalMapAligner(**SMALL).fit(np.r_[X, X + apart], X_target=T)


@pytest.mark.parametrize("shape", [(1, 3), (50, 3)])
def test_one_distinct_row(shape):
    X = flat(SOURCE)
    for source, target in ((X, np.ones(shape)), (np.ones(shape), X), (np.ones(shape), np.zeros(shape))):
        with pytest.warns(UserWarning, match="1 distinct rows"):
            model = FunctionalMapAligner().fit(source, X_target=target)
        assert np.isfinite(model.deformed_).all()
        assert np.isfinite(model.transform(source)).all()


@pytest.mark.parametrize("n_features", [65, 300])
def test_wide_tables_that_are_turned_and_moved(n_features):
    r = np.random.RandomState(0)
    X = r.randn(120, 6) @ r.randn(6, n_features)
    Q, order = np.linalg.qr(r.randn(n_features, n_features))[0], r.permutation(120)
    moved = posed(tensor(X), tensor(X @ Q + 3)).numpy()
    np.testing.assert_allclose(moved, X @ Q + 3, atol=1e-6)
    model = FunctionalMapAligner(**SMALL).fit(X, X_target=X[order] @ Q + 3)
    assert np.array_equal(model.correspondence_, order)


def test_source_and_target_may_be_of_different_libraries():
    X, T = flat(SOURCE), rolled(GOAL, 0.9)
    expected = FunctionalMapAligner(**SMALL).fit(X, X_target=T).correspondence_
    with config_context(array_api_dispatch=True):
        for source, target in ((tensor(X), T), (X, tensor(T)), (tensor(X), T.tolist()), (tensor(X), pd.DataFrame(T))):
            model = FunctionalMapAligner(**SMALL).fit(source, X_target=target)
            assert type(model.correspondence_) is type(source)
            assert np.array_equal(np.asarray(model.correspondence_), expected)


def test_targets_that_are_none_are_named():
    X, T = flat(SOURCE), rolled(GOAL, 0.9)
    frame = pd.DataFrame(X, columns=list("xyz"))
    refused = {
        "X_target has text": np.full((20, 3), "a"),
        "Complex data not supported: X_target": T + 1j,
        "X_target is no table": T[:, 0],
        "X_target contains NaN": np.full((20, 3), np.nan),
        "X_target has the columns of X in another order": pd.DataFrame(T, columns=list("zyx")),
    }
    for said, target in refused.items():
        with pytest.raises(ValueError, match=said) as caught:
            FunctionalMapAligner(**SMALL).fit(frame, X_target=target)
        assert "array=" not in str(caught.value)
    with pytest.raises(ValueError, match="target_faces"):
        FunctionalMapAligner(target_faces=[[0, 1, 2]]).fit(X)
    for sizes in ((64.5,), (0,), (True,)):
        with pytest.raises(ValueError, match=r"hidden_layer_sizes=.*Pass widths >= 1"):
            FunctionalMapAligner(init="field", hidden_layer_sizes=sizes, **SMALL).fit(X)
    with pytest.warns(UserWarning, match="init='landmarks'"):
        FunctionalMapAligner(landmarks=([0], [0]), **SMALL).fit(X, X_target=T)
    tracked = torch.from_numpy(T).requires_grad_()
    assert error(FunctionalMapAligner(**SMALL).fit(X, X_target=tracked)) < 0.1


@pytest.mark.cuda
def test_the_gpu_finds_the_same_partners():
    X, T = flat(SOURCE), rolled(GOAL, 0.6)
    here = FunctionalMapAligner(device="cpu", **SMALL).fit(X, X_target=T)
    there = FunctionalMapAligner(device="cuda", **SMALL).fit(X, X_target=T)
    assert np.mean(here.correspondence_ == there.correspondence_) > 0.99
