"""Persistence vectors: the textbook reduction, what tells classes apart, what must not matter, and refusals."""

import itertools
import pickle
import sys

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from scipy.spatial.distance import cdist, pdist
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklowrank._core import blocks
from sklowrank.topology import MultiparameterPersistence, _multiparameter_persistence_solver


def columns_reduced(vertex, edges):
    """Bars (degree, birth, death) by the column reduction over all simplices; `edges` has values by pair."""
    value = {(i,): v for i, v in enumerate(vertex)} | edges
    for i, j, k in itertools.combinations(range(len(vertex)), 3):
        if (i, j) in edges and (i, k) in edges and (j, k) in edges:
            value[i, j, k] = max(edges[i, j], edges[i, k], edges[j, k])
    cells = sorted(value, key=lambda c: (value[c], len(c)))
    place = {c: k for k, c in enumerate(cells)}
    pivots, paired, bars = {}, set(), []
    for k, cell in enumerate(cells):
        column = {place[face] for face in itertools.combinations(cell, len(cell) - 1) if face}
        while column and max(column) in pivots:
            column ^= pivots[max(column)]
        if column:
            low = max(column)
            pivots[low] = column
            paired |= {low, k}
            bars.append((len(cell) - 2, value[cells[low]], value[cell]))
    bars += [(len(c) - 1, value[c], np.inf) for k, c in enumerate(cells) if k not in paired and len(c) < 3]
    return bars


def by_hand(model, lengths, second):
    """The vector of one object, from its matrix of lengths and its second values."""
    (_, reach), (low, high) = model.box_
    f, (n_lines, n_times) = (second - low) / (high - low), model.resolution
    t, V = np.linspace(0, 1, n_times), np.zeros((len(model.degrees), n_lines, n_times))
    pairs = [(i, j) for i, j in itertools.combinations(range(len(f)), 2) if lengths[i, j] <= reach]
    for line, c in enumerate(np.linspace(-0.9, 0.9, n_lines)):
        edges = {(i, j): max(lengths[i, j] / reach - c / 2, max(f[i], f[j]) + c / 2) for i, j in pairs}
        for q, b, d in columns_reduced(np.maximum(-c / 2, f + c / 2), edges):
            d = min(d, 1.5)
            if q in model.degrees and d > b:
                depth = np.clip(1 + np.minimum(t - b, d - t) / model.sigma, 0, 1)
                V[model.degrees.index(q), line] += (d - b) ** model.weight_power * depth
    return V.ravel()


def joint(n=40, points=50, seed=0):
    """Clouds with a measured value, a wave over the points, shuffled in class 1."""
    r, y, X = np.random.RandomState(seed), np.repeat([0, 1], n // 2), []
    for label in y:
        P, k = r.rand(points, 2), r.randn(2)
        f = np.cos(P @ (k * r.uniform(3, 5) / np.linalg.norm(k)) + 6.28 * r.rand()) + 0.3 * r.randn(points)
        f = f.argsort().argsort() / (points - 1)
        X.append(np.c_[P, r.permutation(f) if label else f])
    return X, y


SMALL, _ = joint(6, 18, seed=3)
SIZES = [cloud[: 3 + 3 * k] for k, cloud in enumerate(SMALL)]  # clouds of different sizes share a block


# Against the textbook


@pytest.mark.parametrize("backend", ["native", "gudhi"])
@pytest.mark.parametrize(("degrees", "power"), [((0, 1), 1.0), ((1,), 2.0), ((1, 0), 0.0)])
def test_vectors_are_those_of_the_reduction_of_all_simplices(degrees, power, backend):
    if backend == "gudhi":
        pytest.importorskip("gudhi", reason="gudhi is not installed: the extra topology has it")
    settings = {"resolution": (4, 6), "weight_power": power, "second": "column", "max_edge": 0.8}
    model = MultiparameterPersistence(degrees, backend=backend, **settings).fit(SIZES)
    expected = [by_hand(model, cdist(c[:, :2], c[:, :2]), c[:, 2]) for c in SIZES]
    assert np.allclose(model.transform(SIZES), expected, rtol=0, atol=1e-12)


def test_graphs_with_many_loops_at_once():
    """A complete bipartite graph has no triangle: with 10 + 10 vertices 81 loops are alive, more than a word has."""
    r = np.random.RandomState(0)
    graphs = [np.triu(r.rand(n, n) < share, 1) * r.uniform(0.2, 1, (n, n)) for n, share in ((16, 0.5), (12, 0.9))]
    graphs.append(np.block([[np.zeros((10, 10)), r.uniform(0.2, 1, (10, 10))], [np.zeros((10, 20))]]))
    graphs = [sp.csr_array(A + A.T) for A in graphs]
    model = MultiparameterPersistence(resolution=(3, 5)).fit(graphs)
    assert model.kind_ == "graph"
    assert model.max_edge_ == 2 * max(A.data.max() for A in graphs)
    lengths = [np.where(A.toarray() > 0, A.toarray(), np.inf) for A in graphs]
    expected = [by_hand(model, D, -A.toarray().sum(1)) for D, A in zip(lengths, graphs)]
    assert np.allclose(model.transform(graphs), expected, rtol=0, atol=1e-10)


def test_scales_are_those_of_the_documentation():
    clouds = [c[:, :2] for c in SIZES]
    model = MultiparameterPersistence().fit(clouds)
    assert np.isclose(model.bandwidth_, 0.25 * np.median([np.median(pdist(c)) for c in clouds]))
    assert np.isclose(model.max_edge_, np.quantile([cdist(c, c).max(1).min() for c in clouds], 0.9))
    values = [-np.log(np.exp(-0.5 * (cdist(c, c) / model.bandwidth_) ** 2).mean(1)) for c in clouds]
    assert np.allclose(model.box_, [[0, model.max_edge_], np.quantile(np.concatenate(values), [0.01, 0.99])])
    expected = [by_hand(model, cdist(c, c), f) for c, f in zip(clouds, values)]
    assert np.allclose(model.transform(clouds), expected, rtol=0, atol=1e-10)


def test_dense_places_enter_first():
    cloud = np.vstack([0.05 * np.random.RandomState(0).randn(30, 2), [[2.0, 2.0]]])
    low, high = MultiparameterPersistence(bandwidth=0.2).fit([cloud]).box_[1]
    assert low < 0.2  # minus the logarithm of a mean near 1
    assert high > 2  # of a lone point it is log 31, of which this is a quantile


# What it is for


def test_joint_structure_that_single_functions_do_not_show():
    """The two classes have equal distances and equal values, as sets: what looks at one of them is at chance."""
    X, y = joint(60)
    features = MultiparameterPersistence(second="column", max_edge=0.45, resolution=(9, 12)).fit_transform(X)
    plain = [np.r_[np.histogram(c[:, 2], 10)[0], np.histogram(pdist(c[:, :2]), 20, (0, 1.4))[0]] for c in X]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
    assert cross_val_score(model, features, y).mean() >= 0.8  # 0.9
    assert cross_val_score(model, plain, y).mean() <= 0.65


def test_clouds_with_equal_marginals_have_different_vectors():
    """No concatenation of two one-parameter vectors tells these apart."""
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    ring, value = np.c_[np.cos(angle), np.sin(angle)], np.cos(angle)
    shuffled = np.random.RandomState(0).permutation(value)
    V = MultiparameterPersistence(second="column").fit_transform([np.c_[ring, value], np.c_[ring, shuffled]])
    assert np.linalg.norm(V[0] - V[1]) > 0.2 * np.linalg.norm(V[0])


def test_cycles_have_loops_and_paths_have_none():
    cycle, path = np.roll(np.eye(9), 1, 0) + np.roll(np.eye(9), -1, 0), np.eye(9, k=1) + np.eye(9, k=-1)
    V = MultiparameterPersistence((1,)).fit_transform([sp.csr_matrix(cycle), sp.coo_array(path)])
    assert V[0].max() > 0
    assert not V[1].any()
    dense = MultiparameterPersistence((1,), kind="graph").fit_transform([cycle, path])
    assert np.array_equal(dense, V)


# What must not matter


def test_blocks_order_rotation_and_units_do_not_matter(monkeypatch):
    model = MultiparameterPersistence(second="column", resolution=(4, 6)).fit(SIZES)
    V, r = model.transform(SIZES), np.random.RandomState(0)
    monkeypatch.setattr(blocks, "_AUTO_BYTES", 1)  # one object at a time
    assert np.allclose(model.transform(SIZES), V, rtol=0, atol=1e-12)
    assert np.allclose(MultiparameterPersistence(**model.get_params()).fit(SIZES).box_, model.box_, rtol=1e-12)
    monkeypatch.undo()
    assert np.allclose(model.transform([r.permutation(c) for c in SIZES]), V, rtol=0, atol=1e-12)
    assert np.allclose(model.transform(SIZES[::-1])[::-1], V, rtol=0, atol=1e-12)
    Q = np.linalg.qr(r.randn(2, 2))[0]
    assert np.allclose(model.transform([np.c_[c[:, :2] @ Q + 4, c[:, 2]] for c in SIZES]), V, rtol=0, atol=1e-8)
    for unit in (1e-25, 50.0, 1e25):
        scaled = [np.c_[unit * c[:, :2], 3 / unit * c[:, 2]] for c in SIZES]
        found = MultiparameterPersistence(second="column", resolution=(4, 6)).fit_transform(scaled)
        assert np.allclose(found, V, rtol=0, atol=1e-8)


def test_small_changes_change_little():
    model = MultiparameterPersistence(second="column").fit(SMALL)
    V, r = model.transform(SMALL), np.random.RandomState(0)
    moved = model.transform([c + 1e-3 * r.uniform(-1, 1, c.shape) for c in SMALL])
    assert np.linalg.norm(moved - V) <= 0.05 * np.linalg.norm(V)


def test_transform_does_not_look_at_the_box_of_new_objects():
    model = MultiparameterPersistence(second="column").fit(SMALL)
    wide = [10 * c for c in SMALL]
    before = {name: np.copy(value) for name, value in vars(model).items() if name.endswith("_")}
    model.transform(wide)
    assert all(np.array_equal(getattr(model, name), value) for name, value in before.items())
    assert np.allclose(model.transform(SMALL + wide)[:6], model.transform(SMALL), rtol=0, atol=1e-12)


def test_larger_clouds_keep_points_that_are_far_from_one_another():
    """On a grid nearly all distances are ties; densities are those of all points."""
    grid = np.stack(np.meshgrid(np.arange(8.0), np.arange(8.0)), axis=-1).reshape(-1, 2)
    r = np.random.RandomState(0)
    model = MultiparameterPersistence(max_points=20).fit([grid])
    assert np.array_equal(model.transform([r.permutation(grid)]), model.transform([grid]))
    clouds = [r.randn(300, 2), r.randn(40, 2)]
    subset = MultiparameterPersistence(max_points=40, max_edge=2.0, bandwidth=0.5)
    V = subset.fit_transform(clouds)
    assert np.allclose(subset.transform([r.permutation(c) for c in clouds]), V, rtol=0, atol=1e-12)
    code = {300: lambda P: -np.log(np.exp(-0.5 * (cdist(P, P) / 0.5) ** 2).mean(1))}
    called = subset.set_params(second=lambda P: code[300](P)).fit_transform(clouds)
    assert np.allclose(called, V, rtol=0, atol=1e-9)


def test_equal_points_with_other_values_in_any_order():
    r = np.random.RandomState(0)
    clouds = [np.c_[np.repeat(c[:, :2], 2, axis=0), r.rand(2 * len(c))] for c in SMALL]
    mixed = [r.permutation(cloud) for cloud in clouds]
    for k in (6, 12, 100):
        model = MultiparameterPersistence(second="column", max_points=k).fit(clouds)
        assert np.allclose(model.transform(mixed), model.transform(clouds), rtol=0, atol=1e-12)


def test_equal_points_lone_points_and_constant_values():
    lone = MultiparameterPersistence(second="column").fit(SMALL).transform([SMALL[0][:1]])
    assert not lone[0, 240:].any()
    assert lone[0, :240].any()
    for clouds in ([np.ones((10, 2)), np.ones((12, 2))], [np.ones((1, 1))], [np.zeros((3, 1))] * 2):
        assert np.isfinite(MultiparameterPersistence().fit_transform(clouds)).all()
    constant = [np.c_[c[:, :2], np.full(len(c), 7.0)] for c in SMALL]
    assert np.isfinite(MultiparameterPersistence(second="column").fit_transform(constant)).all()
    polygon = np.c_[np.cos(np.arange(12) * np.pi / 6), np.sin(np.arange(12) * np.pi / 6)]
    model = MultiparameterPersistence().fit([polygon])  # all densities are equal, up to rounding
    assert model.box_[1, 1] - model.box_[1, 0] > 0.1
    assert not MultiparameterPersistence().fit_transform([sp.csr_matrix((4, 4))])[0, 240:].any()


# Series, containers


def test_series_are_embedded():
    rows = np.random.RandomState(0).randn(6, 20)
    model = MultiparameterPersistence(embedding_dim=2, delay=3).fit(rows)
    windows = [np.c_[row[:-3], row[3:]] for row in rows]
    clouds = MultiparameterPersistence().fit(windows)
    assert np.allclose(model.transform(rows), clouds.transform(windows), rtol=0, atol=1e-12)
    assert model.n_features_in_ == 20
    assert not hasattr(clouds, "n_features_in_")
    short = MultiparameterPersistence(embedding_dim=4, delay=7).fit_transform(rows)
    points = MultiparameterPersistence().fit_transform(list(rows[:, :, None]))
    assert np.allclose(short, points, rtol=0, atol=1e-12)


def test_a_fit_to_clouds_forgets_the_columns_of_a_table():
    model = MultiparameterPersistence().fit(pd.DataFrame(np.random.RandomState(0).randn(5, 4), columns=list("abcd")))
    assert model.feature_names_in_.tolist() == list("abcd")
    model.fit(SMALL)
    assert not hasattr(model, "n_features_in_")
    assert not hasattr(model, "feature_names_in_")


def test_lists_arrays_and_tensors_of_clouds_are_answered_alike():
    stacked = np.stack(SMALL)
    model = MultiparameterPersistence(second="column").fit(SMALL)
    V = model.transform(SMALL)
    objects = np.empty(len(SMALL), dtype=object)
    for k, cloud in enumerate(SMALL):
        objects[k] = cloud
    frames = [pd.DataFrame(c) for c in SMALL]
    for X in (stacked, tuple(SMALL), objects, frames, torch.from_numpy(stacked), [c.tolist() for c in SMALL]):
        assert np.allclose(np.asarray(model.transform(X)), V, rtol=0, atol=1e-12)
    with config_context(array_api_dispatch=True):
        answer = MultiparameterPersistence(second="column").fit_transform(torch.from_numpy(stacked).float())
    assert answer.dtype == torch.float32
    assert np.allclose(answer.numpy(), V, atol=1e-4)


def test_series_of_pandas_may_have_any_index():
    V = MultiparameterPersistence().fit_transform(SMALL)
    labelled = pd.Series(SMALL, index=[f"patient {k}" for k in range(6)])
    assert np.array_equal(MultiparameterPersistence().fit_transform(labelled), V)
    assert np.array_equal(MultiparameterPersistence().fit_transform(labelled.set_axis(range(5, 11))), V)


@pytest.mark.parametrize(
    "later",
    [{"resolution": (3, 4)}, {"degrees": (1,)}, {"sigma": 0.5}, {"second": "eccentricity"}, {"max_points": 5}],
)
def test_transform_is_that_of_the_fit(later):
    model = MultiparameterPersistence().fit(SMALL)
    V = model.transform(SMALL)
    assert np.array_equal(model.set_params(**later).transform(SMALL), V)


def test_embeddings_are_those_of_the_fit():
    rows = np.random.RandomState(0).randn(6, 20)
    model = MultiparameterPersistence(resolution=(3, 4)).fit(rows)
    V = model.transform(rows)
    assert np.array_equal(model.set_params(embedding_dim=5, delay=2).transform(rows), V)


@pytest.mark.cuda
def test_the_device_does_not_matter():
    here = MultiparameterPersistence(second="column", device="cpu").fit(SIZES)
    there = MultiparameterPersistence(second="column", device="cuda").fit(SIZES)
    assert np.allclose(there.transform(SIZES), here.transform(SIZES), rtol=0, atol=1e-10)
    assert np.allclose(there.box_, here.box_, rtol=1e-12)


def test_a_foreign_default_device_does_not_matter():
    model = MultiparameterPersistence().fit(SIZES)
    with torch.device("meta"):
        assert np.array_equal(MultiparameterPersistence().fit(SIZES).transform(SIZES), model.transform(SIZES))


def test_functions_of_the_user_are_pickled_with_the_estimator():
    model = MultiparameterPersistence(second=heights)
    V = model.fit_transform(SMALL)
    assert np.array_equal(pickle.loads(pickle.dumps(model)).transform(SMALL), V)


def heights(points):
    return points[:, 0]


# Refusals


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda X: [*X[:3], np.where(X[3] == X[3][0, 0], np.nan, X[3])], "Cloud 3 contains NaN"),
        (lambda X: [X[0], X[1][:0]], "Cloud 1 has shape"),
        (lambda X: [X[0], X[1][:, :2]], "Cloud 1 has 2 columns where 3"),
        (lambda X: [], "empty list"),
        (lambda X: [X[0], X[1][:, 0]], "Cloud 1 has shape"),
        (lambda X: [X[0], np.full((3, 3), "a")], "Cloud 1 has entries that are no numbers"),
        (lambda X: [X[0], sp.eye_array(3)], "Cloud 1"),
        (lambda X: [X[0], X[1] + 1j], "Complex data not supported: object 1"),
        (lambda X: [c[:, :1] for c in X], "at least 2"),
    ],
)
def test_clouds_that_are_none_are_named(change, said):
    with pytest.raises(ValueError, match=said):
        MultiparameterPersistence(second="column").fit(change(SMALL))


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        (sp.csr_array(np.eye(4, k=1)), "Graph 1 has an asymmetric"),
        (sp.csr_array(np.ones((3, 4))), "Graph 1 has an adjacency matrix of shape"),
        (sp.csr_array(-np.ones((3, 3))), "Graph 1 has lengths of edges that are negative"),
        (sp.csr_array(np.full((3, 3), np.nan)), "Graph 1 has lengths"),
        (sp.csr_array(np.ones((3, 3)) + 1j), "Complex data not supported: object 1"),
    ],
)
def test_graphs_that_are_none_are_named(graph, said):
    with pytest.raises(ValueError, match=said):
        MultiparameterPersistence().fit([sp.csr_array(np.ones((3, 3))), graph])


def test_other_objects_than_in_fit():
    model = MultiparameterPersistence(second="column").fit(SMALL)
    with pytest.raises(ValueError, match="Cloud 0 has 2 columns where 3"):
        model.transform([c[:, :2] for c in SMALL])
    with pytest.raises(ValueError, match="no list of clouds"):
        model.transform(np.zeros((3, 4)))
    with pytest.raises(TypeError, match="one sparse matrix"):
        MultiparameterPersistence().fit(sp.eye_array(4))
    with pytest.raises(ValueError, match="second='column' is not for kind='series'"):
        MultiparameterPersistence(second="column").fit(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="3 finite values"):
        MultiparameterPersistence(second=lambda A: [1.0]).fit([np.eye(3)])
    with pytest.raises(ValueError, match="It should return numbers"):
        MultiparameterPersistence(second=lambda A: ["high"] * 3).fit([np.eye(3)])
    with pytest.raises(ValueError, match="series of 2 to 3 steps"):
        MultiparameterPersistence().fit([[1.0, 2.0, 3.0], [1.0, 2.0]])
    with pytest.raises(TypeError, match="X is a dict"):
        MultiparameterPersistence().fit({"first": SMALL[0]})


@pytest.mark.parametrize("degrees", [(), (2,), (0, 0), (0.0,), ([0],), (True,)])
def test_degrees_are_zero_and_one(degrees):
    with pytest.raises(ValueError, match="degrees"):
        MultiparameterPersistence(degrees).fit(SMALL)


def test_loops_of_graphs_are_found_by_gudhi_where_it_is_installed(monkeypatch):
    pytest.importorskip("gudhi")
    graph = sp.random_array((60, 60), density=0.1, rng=0)
    graphs, used = [sp.csr_array(graph + graph.T)], []
    find = _multiparameter_persistence_solver.bars_by_gudhi
    model = MultiparameterPersistence(resolution=(3, 4)).fit(graphs)

    def noted(*args, **kwargs):
        used.append("gudhi")
        return find(*args, **kwargs)

    monkeypatch.setattr(_multiparameter_persistence_solver, "bars_by_gudhi", noted)
    V = model.transform(graphs)
    assert used == ["gudhi"]
    monkeypatch.setitem(sys.modules, "gudhi", None)
    assert np.allclose(model.transform(graphs), V, rtol=0, atol=1e-12)
    assert np.array_equal(model.set_params(backend="native").transform(graphs), model.transform(graphs))
    MultiparameterPersistence(resolution=(3, 4)).fit(SMALL).transform(SMALL)
    assert used == ["gudhi"]


def test_gudhi_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gudhi", None)
    with pytest.raises(ImportError, match="sklowrank\\[topology\\]"):
        MultiparameterPersistence(backend="gudhi").fit(SMALL).transform(SMALL)
