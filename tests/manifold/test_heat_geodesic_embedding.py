"""Heat geodesic embedding: kernels and distances against slow numpy, geodesics that plain methods miss, odd data."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.spatial.distance import cdist
from scipy.stats import rankdata
from sklearn.datasets import load_digits
from sklearn.manifold import Isomap

from sklowrank.manifold import HeatGeodesicEmbedding, _heat_kernel
from sklowrank.manifold._heat_graph import GraphOptions, choose_landmarks, given_graph, row_graph, scaled
from sklowrank.manifold._heat_kernel import HeatOptions, heat_rows, identity_rows, laplacian_of

CPU = torch.device("cpu")
GRAPH = GraphOptions("alpha_decay", 8, 40.0)
OPTIONS = HeatOptions("combinatorial", "euler", 30, 1.0)


def roll(noise, n=400, seed=42):
    """A strip that is rolled up in ten dimensions, and its true geodesic distances."""
    r = np.random.RandomState(seed)
    t, h = 1.5 * np.pi * (1 + 2 * r.rand(n)), 5 * r.rand(n)
    frame = np.linalg.qr(r.randn(10, 3))[0].T
    X = np.c_[t * np.cos(t), h, t * np.sin(t)] @ frame + noise * r.randn(n, 10)
    flat = np.c_[0.5 * (t * np.sqrt(t * t + 1) + np.arcsinh(t)), h]
    return X, cdist(flat, flat)


def row_spearman(D, G):
    return np.mean([np.corrcoef(rankdata(a), rankdata(b))[0, 1] for a, b in zip(D, G)])


def points_of(X):
    return scaled(torch.from_numpy(X))


def slow_affinity(X, k, decay):
    D = cdist(X, X)
    order = np.argsort(D, axis=1)[:, 1 : k + 1]
    K = np.zeros_like(D)
    for i, near in enumerate(order):
        K[i, near] = np.exp(-((D[i, near] / D[i, near[-1]]) ** decay))
    return (K + K.T) / 2


def slow_distances(X, k, t, sigma, normalized=False):
    W = slow_affinity(X, k, 40.0)
    d = W.sum(1)
    L = np.eye(len(X)) - W / np.sqrt(np.outer(d, d)) if normalized else np.diag(d) - W
    H = np.linalg.matrix_power(np.linalg.inv(np.eye(len(X)) + t / 30 * L), 30)
    h = np.diag(H)
    square = -4 * t * np.log(H) + 4 * t * sigma * np.log((h[:, None] + h) / 2)
    np.fill_diagonal(square, 0)
    return np.sqrt(np.maximum(square, 0)), int((square < 0).sum())


def fit(X, **params):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return HeatGeodesicEmbedding(**{"mds": "classic", "random_state": 0, **params}).fit(X)


# The kernel


@pytest.mark.parametrize("kind", ["combinatorial", "normalized"])
def test_series_and_dense_kernel_agree_with_numpy_down_to_the_smallest_entries(kind, monkeypatch):
    s = np.sort(np.random.RandomState(0).rand(150) * 2 * np.pi)
    X = np.c_[np.cos(4 * s), np.sin(4 * s), s]
    L = laplacian_of(row_graph(points_of(X), GRAPH, CPU).affinity, kind)
    t = 1.0
    expected = np.linalg.matrix_power(np.linalg.inv(np.eye(150) + t / 30 * L.toarray()), 30)
    assert expected.min() < 1e-20
    dense = heat_rows(L, identity_rows(torch.arange(150), 150), t, OPTIONS, CPU).numpy()
    np.testing.assert_allclose(dense, expected, rtol=1e-10)
    few = torch.tensor([0, 70])
    monkeypatch.setattr(_heat_kernel, "_dense_is_faster", lambda *args: False)
    series = heat_rows(L, identity_rows(few, 150), t, OPTIONS, CPU).numpy()
    np.testing.assert_allclose(series, expected[few], rtol=1e-5)
    np.testing.assert_allclose(heat_rows(L, identity_rows(few, 150), t, OPTIONS, CPU, few).numpy(), series[:, few])


def test_blocks_of_columns_change_nothing(monkeypatch):
    L = laplacian_of(row_graph(points_of(roll(0.5)[0]), GRAPH, CPU).affinity, "combinatorial")
    rows = identity_rows(torch.tensor([0, 90, 200, 310, 399]), 400)
    monkeypatch.setattr(_heat_kernel, "_dense_is_faster", lambda *args: False)
    whole = heat_rows(L, rows, 10.0, OPTIONS, CPU)
    monkeypatch.setattr(_heat_kernel, "_COLUMNS", {"cpu": 3})
    torch.testing.assert_close(heat_rows(L, rows, 10.0, OPTIONS, CPU), whole, rtol=1e-6, atol=0)


def test_exact_and_chebyshev_kernels_agree_where_entries_are_large():
    L = laplacian_of(row_graph(points_of(roll(0.5)[0]), GRAPH, CPU).affinity, "combinatorial")
    rows = identity_rows(torch.arange(400), 400)
    exact = heat_rows(L, rows, 10.0, OPTIONS._replace(heat_solver="exact"), CPU)
    series = heat_rows(L, rows, 10.0, OPTIONS._replace(heat_solver="chebyshev", n_steps=200), CPU)
    torch.testing.assert_close(series, exact, rtol=0, atol=1e-12)
    steps = heat_rows(L, rows, 10.0, OPTIONS._replace(n_steps=2000), CPU)
    torch.testing.assert_close(steps, exact, rtol=0, atol=1e-3 * float(exact.max()))  # of first order in the step


@pytest.mark.parametrize(("sigma", "normalized"), [(1.0, False), (0.0, False), (1.0, True), (1.02, False)])
def test_distances_are_those_of_the_formula(sigma, normalized):
    X = np.random.RandomState(3).randn(60, 3)
    expected, clipped = slow_distances(X, 8, 5.0, sigma, normalized)
    kind = "normalized" if normalized else "combinatorial"
    model = fit(X, n_neighbors=8, t=5.0, volume_weight=sigma, laplacian=kind)
    np.testing.assert_allclose(model.dist_matrix_, expected, rtol=1e-8, atol=1e-6)
    assert model.n_clipped_ == clipped
    assert (clipped > 0) == (sigma > 1)
    np.testing.assert_allclose(model.affinity_matrix_.toarray(), slow_affinity(X, 8, 40.0), atol=1e-12)


def test_several_times_are_averaged():
    X = np.random.RandomState(3).randn(60, 3)
    parts = [slow_distances(X, 8, t, 1.0)[0] for t in (2.0, 5.0, 9.0)]
    model = fit(X, n_neighbors=8, times=[2, 5, 9])
    np.testing.assert_allclose(model.dist_matrix_, np.average(parts, axis=0, weights=[14, 11, 7]), atol=1e-6)
    np.testing.assert_allclose(model.t_, np.average([2, 5, 9], weights=[14, 11, 7]))
    np.testing.assert_allclose(fit(X, n_neighbors=8, times=[5.0]).dist_matrix_, parts[1], atol=1e-6)


def test_automatic_time_is_the_knee_of_the_entropy():
    X, _ = roll(0.5, 150)
    W = slow_affinity(X, 10, 40.0)
    L = np.diag(W.sum(1)) - W
    times, curve = np.linspace(0.05, 50, 20), []
    for t in times:
        H = np.linalg.matrix_power(np.linalg.inv(np.eye(150) + t / 30 * L), 30)
        curve.append(-(H * np.log(H)).sum())
    chord = np.linspace(curve[0], curve[-1], 20)
    assert fit(X, t="auto").t_ == pytest.approx(times[np.abs(curve - chord).argmax()])


# What the distances are for


def test_a_roll_is_unrolled():
    X, G = roll(0.5)
    model = fit(X, mds="smacof")
    assert row_spearman(cdist(X, X), G) < 0.5
    assert row_spearman(model.dist_matrix_, G) > 0.98
    assert row_spearman(cdist(model.embedding_, model.embedding_), G) > 0.97
    far = model.dist_matrix_[np.triu_indices(400, 1)]
    far = far[far >= np.median(far)]
    assert len(np.unique(far.round(9))) > 0.99 * len(far)  # no plateau, which a clipped kernel makes


def test_noise_that_connects_turns_misleads_heat_less_than_shortest_paths():
    gains = []
    for seed in (42, 0):
        X, G = roll(1.0, 500, seed)
        gains.append(row_spearman(fit(X).dist_matrix_, G) - row_spearman(Isomap(n_neighbors=10).fit(X).dist_matrix_, G))
    assert np.mean(gains) > 0.08


@pytest.mark.parametrize(("t", "sigma", "least"), [(10.0, 0.0, 0.985), (10.0, 1.0, 0.985), (1.0, 1.0, 0.97)])
def test_distances_along_a_helix_are_lengths_of_arcs(t, sigma, least):
    s = np.sort(np.random.RandomState(0).rand(300) * 2 * np.pi)
    D = fit(np.c_[np.cos(4 * s), np.sin(4 * s), s], t=t, volume_weight=sigma).dist_matrix_
    pairs = np.triu_indices(300, 1)
    assert np.corrcoef(D[pairs], np.abs(s[:, None] - s)[pairs])[0, 1] > least


# Landmarks and new rows


def test_new_rows_are_placed_among_those_of_the_fit():
    X, G = roll(0.5, 500)
    for mds in ("classic", "smacof"):
        model = fit(X[:400], mds=mds)
        diameter = np.ptp(model.embedding_, axis=0).max()
        assert np.abs(model.transform(X[:400]) - model.embedding_).max() < 0.02 * diameter
        both = np.vstack([model.embedding_, model.transform(X[400:])])
        assert row_spearman(cdist(both[400:], both), G[400:]) > 0.97


def test_places_are_continuous_at_rows_of_the_fit():
    X, _ = roll(0.5, 200)
    model = fit(X)
    gap = np.abs(model.transform(X + 1e-4 * np.random.RandomState(0).randn(*X.shape)) - model.embedding_).max()
    assert gap < 0.01 * np.ptp(model.embedding_, axis=0).max()


@pytest.mark.parametrize("params", [{}, {"mds": "smacof"}, {"mds": "smacof", "mds_weights": "heat"}])
def test_landmarks_stand_for_all_rows(params, monkeypatch):
    monkeypatch.setattr(_heat_kernel, "_MOST_DENSE", 0)
    X, G = roll(0.5, 500)
    model = fit(X, n_landmarks=60, **params)
    assert model.dist_matrix_.shape == (60, 60)
    assert np.all(np.diff(model.landmark_indices_) > 0)
    if "mds_weights" not in params:
        assert row_spearman(cdist(model.embedding_, model.embedding_), G) > 0.98
    diameter = np.ptp(model.embedding_, axis=0).max()
    assert np.abs(model.transform(X[:40]) - model.embedding_[:40]).max() < 0.03 * diameter


@pytest.mark.parametrize("kind", ["dense", "sparse", "precomputed"])
def test_landmarks_cover_the_rows_and_do_not_depend_on_their_order(kind):
    X, G = roll(0.3, 300)
    order = np.random.RandomState(0).permutation(300)
    found = []
    for rows in (np.arange(300), order):
        graph = row_graph(points_of(X[rows]), GRAPH, CPU)
        points = {"dense": points_of(X[rows]), "sparse": sp.csr_array(X[rows]), "precomputed": None}[kind]
        marks = choose_landmarks(points, graph, 40).numpy()
        assert len(np.unique(marks)) == 40
        assert G[np.ix_(rows, rows)][:, marks].min(1).max() < 0.25 * G.max()
        found.append(set(rows[marks].tolist()))
    assert found[0] == found[1]


# Odd data


def test_order_of_rows_scale_and_place_do_not_matter():
    X = np.round(2 * roll(0.5, 200)[0])  # whole numbers: many neighbours are equally far
    model = fit(X)
    order = np.random.RandomState(1).permutation(200)
    mixed = fit(X[order])
    np.testing.assert_allclose(mixed.dist_matrix_, model.dist_matrix_[np.ix_(order, order)], atol=1e-6)
    np.testing.assert_allclose(mixed.embedding_, model.embedding_[order], atol=1e-5)
    for other in (X * 1e25, X * 1e-25, X * 3 + 1e4, X[:, ::-1], sp.csr_array(X)):
        np.testing.assert_allclose(fit(other).dist_matrix_, model.dist_matrix_, atol=1e-5)


def test_float32_is_computed_in_float64():
    X = roll(0.5, 200)[0].astype(np.float32)
    single, double = fit(X, t=1.0), fit(X.astype(float), t=1.0)
    assert single.embedding_.dtype == single.dist_matrix_.dtype == single.transform(X[:3]).dtype == np.float32
    np.testing.assert_allclose(single.dist_matrix_, double.dist_matrix_, rtol=1e-6, atol=1e-5)


def test_components_are_joined_by_their_shortest_edges():
    r = np.random.RandomState(0)
    X = np.vstack([r.randn(40, 2), r.randn(40, 2) + np.array([20, 0]), r.randn(40, 2) + np.array([60, 0])])
    with pytest.warns(UserWarning, match="n_neighbors=10 has 3 connected components"):
        model = HeatGeodesicEmbedding(random_state=0).fit(X)
    assert model.n_connected_components_ == 3
    blocks = [[model.affinity_matrix_[40 * i : 40 * i + 40, 40 * j : 40 * j + 40] for j in range(3)] for i in range(3)]
    assert blocks[0][1].nnz == blocks[1][2].nnz == 1
    assert blocks[0][2].nnz == 0
    D = cdist(X[:40], X[40:80])
    assert D[blocks[0][1].nonzero()][0] == D.min()
    between = model.dist_matrix_
    assert between[:40, 40:80].mean() < between[40:80, 80:].mean() < between[:40, 80:].mean()
    assert between[:40, 40:80].min() > between[:40, :40].max()


def test_precomputed_affinities():
    X, _ = roll(0.5, 150)
    model = fit(X)
    W = model.affinity_matrix_
    for given in (W, W.toarray(), W + sp.identity(150)):  # the diagonal is ignored
        np.testing.assert_allclose(fit(given, graph="precomputed").dist_matrix_, model.dist_matrix_, atol=1e-8)
    assert not hasattr(HeatGeodesicEmbedding(graph="precomputed"), "transform")
    off = W.toarray()
    off[0, 1] += 1
    apart = sp.block_diag([W, W]).tocsr()
    for bad, text in [
        (off, "not symmetric"),
        (-W, "negative"),
        (W[:, :50], "square"),
        (apart, "2 connected components"),
    ]:
        with pytest.raises(ValueError, match=text):
            fit(bad, graph="precomputed")
    with pytest.raises(ValueError, match="not symmetric"):
        given_graph(np.triu(np.ones((4, 4))))


def test_graph_of_unit_weights():
    X, _ = roll(0.5, 150)
    D = cdist(X, X) + np.diag([np.inf] * 150)
    last = np.sort(D, axis=1)[:, 6:7]
    E = (last >= D).astype(float)
    assert np.array_equal(fit(X, graph="knn", n_neighbors=7).affinity_matrix_.toarray(), np.maximum(E, E.T))


@pytest.mark.parametrize("mds", ["classic", "smacof"])
def test_few_equal_and_wide_rows(mds):
    two = fit([[0.0, 1.0], [3.0, 5.0]], mds=mds)
    assert np.isclose(np.linalg.norm(two.embedding_[0] - two.embedding_[1]), two.dist_matrix_[0, 1])
    assert two.dist_matrix_[0, 1] > 0
    with pytest.warns(UserWarning, match="All rows of X are equal"):
        flat = HeatGeodesicEmbedding(mds=mds).fit(np.ones((30, 3)))
    assert not flat.embedding_.any()
    assert not flat.transform(np.ones((2, 3))).any()
    wide = fit(np.random.RandomState(0).randn(15, 400), mds=mds)
    assert np.isfinite(wide.embedding_).all()
    X = roll(0.5, 60)[0]
    copies = fit(np.vstack([X, np.repeat(X[:1], 100, axis=0)]), mds=mds)  # more copies than neighbours
    assert np.isfinite(copies.embedding_).all()
    assert np.isfinite(copies.transform(X)).all()


def test_what_cannot_be_is_refused_with_the_cure():
    X, _ = roll(0.5, 60)
    with pytest.warns(UserWarning, match="n_neighbors=60 is not below n_samples=60: 59 neighbours"):
        HeatGeodesicEmbedding(n_neighbors=60).fit(X)
    for params, text in [
        ({"n_components": 61}, "n_components=61 is too large for n_samples=60. Pass at most 60"),
        ({"n_components": 6, "n_landmarks": 5}, "n_components=6 is too large for n_landmarks=5"),
        ({"times": []}, r"times=\[\]"),
        ({"times": [1.0, -1.0]}, "above 0"),
        ({"times": ["soon"]}, "finite numbers"),
    ]:
        with pytest.raises(ValueError, match=text):
            fit(X, **params)
    with pytest.raises(ValueError, match=r"n_landmarks=2 is too small for n_components=2.*at least 3"):
        fit(X, n_landmarks=2)
    with pytest.raises(ValueError, match=r"times=\[\[1.0\], \[2.0, 3.0\]\]"):
        fit(X, times=[[1.0], [2.0, 3.0]])
    with pytest.raises(ValueError, match="heat_solver='exact' takes at most 3000 rows"):
        fit(np.random.RandomState(0).randn(3001, 2), heat_solver="exact")


@pytest.mark.parametrize("shuffled", [False, True])
def test_copies_of_every_row(shuffled):
    """All bandwidths are 0: components of copies are joined by edges that have a weight nevertheless."""
    X = np.repeat(np.random.RandomState(0).randint(3, size=(25, 3)).astype(float), 16, axis=0)
    X = np.random.RandomState(1).permutation(X) if shuffled else X
    with pytest.warns(UserWarning, match="connected components"):
        model = HeatGeodesicEmbedding(5 if shuffled else 2).fit(X)
    assert np.isfinite(model.embedding_).all()
    same = (X[:, None] == X).all(2)
    D = cdist(model.embedding_, model.embedding_)
    assert D[same].mean() < 0.1 * D[~same].mean()


def test_order_of_rows_with_few_distinct_values_does_not_matter():
    X = np.random.RandomState(0).randint(3, size=(200, 4))
    order = np.random.RandomState(1).permutation(len(X))
    one, other = fit(X).embedding_, fit(X[order]).embedding_
    D = cdist(one, one)[np.ix_(order, order)]
    assert np.allclose(cdist(other, other), D, atol=1e-6 * D.max())
    with pytest.warns(UserWarning, match=r"more than 110 neighbours.*order of rows.*numpy.unique"):
        HeatGeodesicEmbedding().fit(np.repeat(X[:3], 150, axis=0))


def test_new_rows_may_be_sparse_where_rows_of_the_fit_are_dense_and_the_other_way_round():
    X, _ = roll(0.5, 100)
    dense, sparse = fit(X), fit(sp.csr_array(X))
    places = dense.transform(X[:5] + 0.1)
    assert np.allclose(dense.transform(sp.csr_array(X[:5] + 0.1)), places)
    assert np.allclose(sparse.transform(X[:5] + 0.1), places, atol=1e-6)


def test_rows_of_which_most_have_copies():
    X, _ = roll(0.5, 60)
    with pytest.warns(UserWarning, match="connected components"):
        model = HeatGeodesicEmbedding(n_neighbors=3).fit(np.vstack([X, np.repeat(X[:20], 20, axis=0)]))
    assert np.isfinite(model.embedding_).all()


@pytest.mark.parametrize(
    ("params", "scale", "text"),
    [
        ({"t": 1e6}, 1.0, "spread evenly.*smaller t"),
        ({"t": 1e6, "laplacian": "normalized"}, 1.0, "spread evenly"),
        ({}, 1e4, "spread evenly.*smaller affinities"),
        ({"t": 1e-250}, 1.0, "one constant.*larger t"),
        ({"volume_weight": 10.0}, 1.0, "negative.*volume_weight, which is 10"),
    ],
)
def test_distances_without_information_are_warned_of(params, scale, text):
    affinity = fit(roll(0.5, 100)[0]).affinity_matrix_
    with pytest.warns(UserWarning, match=text):
        HeatGeodesicEmbedding(graph="precomputed", **params).fit(affinity * scale)


@pytest.mark.parametrize("t", [10.0, "auto"])
def test_affinities_without_a_kernel_are_refused(t):
    affinity = fit(roll(0.5, 100)[0]).affinity_matrix_
    with pytest.raises(ValueError, match=r"largest degree of the graph.*smaller affinities"):
        fit(affinity * 1e25, graph="precomputed", t=t)


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("scale", [1.0, 1e-200])
def test_new_rows_that_are_very_far_have_places(form, scale):
    model = fit(form(scale * roll(0.5, 100)[0]))
    assert np.isfinite(model.transform(form(np.full((2, 10), 1e200)))).all()


def test_classes_of_digits_stay_together():
    X, y = load_digits(return_X_y=True)
    E = fit(X[:500], mds="smacof").embedding_
    near = np.argsort(cdist(E, E), axis=1)[:, 1]
    assert np.mean(y[:500][near] == y[:500]) > 0.85


@pytest.mark.parametrize(
    "params",
    [
        {"n_landmarks": 20, "mds": "smacof", "mds_weights": "heat"},
        {"n_landmarks": 20, "heat_solver": "chebyshev", "t": "auto"},
        {"heat_solver": "exact", "times": [2.0, 5.0]},
    ],
)
def test_every_tensor_has_its_device_and_precision(params, monkeypatch):
    monkeypatch.setattr(_heat_kernel, "_MOST_DENSE", 0)
    X, _ = roll(0.5, 90)
    X = np.vstack([X, X[:30] + 100])  # two components
    expected = fit(X, **params)
    with torch.device("meta"):  # where what is not told its device has no values
        found = fit(X, **params)
        there = found.transform(X[:25])
    np.testing.assert_allclose(found.embedding_, expected.embedding_, atol=1e-5)
    np.testing.assert_allclose(there, expected.transform(X[:25]), atol=1e-5)
    for given in (sp.csr_array(X), expected.affinity_matrix_):
        graph = "alpha_decay" if given.shape == X.shape else "precomputed"
        with torch.device("meta"):
            found = fit(given, graph=graph, **params)
        np.testing.assert_allclose(found.dist_matrix_, fit(given, graph=graph, **params).dist_matrix_, atol=1e-5)


@pytest.mark.cuda
def test_cuda_gives_the_answers_of_the_cpu():
    X, _ = roll(0.5, 900)
    for params in ({}, {"n_landmarks": 60, "mds": "smacof"}, {"n_landmarks": 60, "heat_solver": "chebyshev"}):
        here, there = fit(X, device="cpu", **params), fit(X, device="cuda", **params)
        np.testing.assert_allclose(there.dist_matrix_, here.dist_matrix_, rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(there.transform(X[:20]), here.transform(X[:20]), atol=1e-3)
