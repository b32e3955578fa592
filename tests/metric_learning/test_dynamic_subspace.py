"""Dynamic subspace learners: losses against their definition, who learns from what, growth, and the method's traps."""

import warnings
from functools import partial
from itertools import chain, pairwise

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits, load_wine
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import NotFittedError
from sklearn.metrics import normalized_mutual_info_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from sklowrank._nets.found import find_network
from sklowrank.metric_learning import DynamicSubspaceMetricLearner
from sklowrank.metric_learning._dynamic_subspace_solver import batch_loss
from sklowrank.metric_learning._learner_rows import class_batches, has_plateau, matched_clusters, rows_of_learners
from sklowrank.metric_learning._metric_losses import drawn, margin_loss, negative_shares, proxy_anchor_loss
from sklowrank.metric_learning._subspace_network import Embedding, Learners, Shape, cuts_of, pieces_of, slices_of

X, Y = load_wine(return_X_y=True)
X = StandardScaler().fit_transform(X)
QUICK = {"n_components": 6, "max_learners": 2, "max_iter": 8, "hidden_layer_sizes": (16,), "random_state": 0}


def learned(rows=X, y=Y, **params):
    return DynamicSubspaceMetricLearner(**{**QUICK, **params}).fit(rows, y)


def unit_rows(n, d, seed=0):
    Z = np.random.default_rng(seed).normal(size=(n, d))
    return torch.from_numpy(Z / np.linalg.norm(Z, axis=1, keepdims=True))


# Losses


def shares_by_definition(Z, codes, i):
    """In which proportion the rows are the negative of row i, one at a time."""
    d, shares = Z.shape[1], np.zeros(len(Z))
    for j in range(len(Z)):
        distance = max(np.linalg.norm(Z[i] - Z[j]), 0.5)
        if codes[j] != codes[i] and distance < 1.4:
            density = distance ** (d - 2) * (1 - distance**2 / 4) ** ((d - 3) / 2)
            shares[j] = 1 / density
    return shares


def test_margin_loss_is_its_definition():
    Z, codes = unit_rows(20, 3), torch.arange(20) % 4
    beta, draws = torch.tensor([1.0, 1.2, 1.1, 0.9], dtype=torch.float64), torch.rand(20, 2, dtype=torch.float64)
    z, y, terms = Z.numpy(), codes.numpy(), []
    for i in range(20):
        own = np.flatnonzero((y == y[i]) & (np.arange(20) != i))
        p = own[int(draws[i, 0] * len(own))]
        sums = shares_by_definition(z, y, i).cumsum()
        n = np.searchsorted(sums, float(draws[i, 1]) * sums[-1], side="right")
        terms.append(max(np.linalg.norm(z[i] - z[p]) - float(beta[y[i]]) + 0.2, 0))
        terms.append(max(float(beta[y[i]]) + 0.2 - np.linalg.norm(z[i] - z[n]), 0) if sums[-1] else 0)
    terms = np.array(terms)
    expected = terms.sum() / (terms > 0).sum()
    assert float(margin_loss(Z, codes, beta, 0.2, draws)) == pytest.approx(expected, rel=1e-9)


def test_proxy_anchor_loss_is_its_definition():
    Z, proxies, codes = unit_rows(15, 4), unit_rows(5, 4, seed=1), torch.arange(15) % 3  # two classes have no row
    S, y = (Z @ proxies.T).numpy(), codes.numpy()
    near = [np.log1p(np.exp(32 * (0.2 - S[y == c, c])).sum()) for c in range(3)]
    far = [np.log1p(np.exp(32 * (0.2 + S[y != c, c])).sum()) for c in range(5)]
    expected = np.mean(near) + np.mean(far)
    assert float(proxy_anchor_loss(Z, codes, proxies, 0.2)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("width", [1, 2, 3, 2000])
def test_shares_of_negatives_are_finite(width):
    Z = torch.cat([unit_rows(30, width).float(), torch.zeros(2, width)])
    others = torch.rand(32, 32) < 0.7
    others[0] = False
    shares = negative_shares(Z, others)
    assert shares.isfinite().all()
    assert (shares[~others] == 0).all()
    assert ((shares.sum(1) > 0) == (shares > 0).any(1)).all()


def test_draws_meet_allowed_rows_alone():
    shares = torch.tensor([[0.0, 1.0, 0.0, 3.0, 0.0]]).expand(1001, 5)
    found = drawn(shares, torch.linspace(0, 1, 1001))
    assert found.bincount(minlength=5).tolist() == [0, 250, 0, 751, 0]


def test_equal_rows_and_rows_without_pairs_have_finite_gradients():
    Z = torch.ones(6, 3, requires_grad=True)
    beta = torch.full((3,), 1.2, requires_grad=True)
    for codes in (torch.arange(6) % 2, torch.zeros(6, dtype=torch.int64), torch.tensor([0, 0, 0, 1, 1, 2])):
        Z.grad = None
        unit = torch.nn.functional.normalize(Z)
        margin_loss(unit, codes, beta, 0.2, torch.full((6, 2), 0.999999)).backward()
        assert Z.grad.isfinite().all()
        assert beta.grad.isfinite().all()


# Who learns from what


def test_slices_and_pieces():
    assert [s.stop - s.start for s in slices_of(7, 3)] == [2, 2, 3]
    cuts = cuts_of(12, range(1, 5))
    assert cuts == [0, 3, 4, 6, 8, 9, 12]
    for k in range(1, 5):
        at = [list(pieces_of(columns, cuts)) for columns in slices_of(12, k)]
        assert list(chain.from_iterable(at)) == list(range(6))


@pytest.mark.parametrize("loss", ["margin", "proxy_anchor"])
def test_a_step_of_one_learner_moves_no_column_of_another_one(loss):
    """Not even by the momentum of earlier steps."""
    generator = torch.Generator().manual_seed(0)
    cuts = cuts_of(8, range(1, 3))
    trunk = torch.nn.Linear(4, 5)
    shape = Shape(n_features=4, n_components=8, attention=True, image=None, convolutions=False)
    proxies = [torch.randn(3, b - a, generator=generator) for a, b in pairwise(cuts)]
    classes = [torch.full((3,), 1.2)] if loss == "margin" else proxies
    net = Learners(Embedding(trunk, 5, generator, shape=shape), cuts, classes)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1, weight_decay=0.1)
    rows, codes = torch.randn(30, 4, generator=generator), torch.arange(30) % 3

    def step(*learners):
        optimizer.zero_grad()
        pairs = torch.rand(30, 2, generator=generator)
        batch_loss(net(rows), (codes, pairs, learners), name=loss, margin=0.2).backward()
        optimizer.step()

    first, second = (pieces_of(columns, cuts) for columns in slices_of(8, 2))
    step(first, second)
    before = {name: value.clone() for name, value in net.named_parameters()}
    step(second)
    moved = {name for name, value in net.named_parameters() if not torch.equal(value, before[name])}
    assert "pieces.1" in moved
    assert "pieces.0" not in moved
    assert "classes.0" in moved or loss == "proxy_anchor"
    assert loss == "margin" or ("classes.1" in moved and "classes.0" not in moved)
    assert any(name.startswith("embedding.trunk") for name in moved)


def test_batches_are_of_groups_of_a_class_and_hold_each_row_once():
    codes = torch.arange(203) % 7
    batches = class_batches(codes, torch.arange(203), 40, 4, torch.Generator().manual_seed(0))
    assert len(batches) == 5
    assert torch.cat(batches).sort().values.tolist() == list(range(203))
    for batch in batches:
        runs = codes[batch].unique_consecutive(return_counts=True)[1]
        assert len(codes[batch].unique()) > 2
        assert (runs >= 2).sum() >= len(runs) - 9  # what is left of seven classes, and groups cut at both ends


def test_clusters_keep_their_numbers():
    former = np.repeat([0, 1, 2], 10)
    found = np.repeat([2, 0, 1], 10)
    found[3] = 1
    assert (matched_clusters(former, found, 3) == former).sum() == 29
    grown = matched_clusters(np.zeros(10, dtype=int), np.repeat([1, 0], [7, 3]), 2)
    assert grown.tolist() == [0] * 7 + [1] * 3


def test_a_cluster_of_one_class_gets_rows_of_others():
    clusters, codes = np.repeat([0, 1], [10, 20]), torch.tensor([0] * 10 + [1, 2] * 10)
    first, second = rows_of_learners(clusters, codes, 2, torch.Generator().manual_seed(0))
    assert len(first) == 20
    assert (codes[first] == 0).sum() == 10
    assert second.tolist() == list(range(10, 30))


def test_plateaus():
    assert not has_plateau([3, 2, 1], 3, 0.02)
    assert not has_plateau([3, 2, 1, 0.5], 2, 0.02)
    assert has_plateau([3, 1, 0.99, 1.2], 2, 0.02)
    assert not has_plateau([3, 1, 0.9, 1.2], 2, 0.02)
    assert not has_plateau([3, 0.0, 0.0, 0.0, 0.0], 2, 0.02)


# The estimator


def test_unit_slices_of_the_network_in_weights():
    model = learned(grow="fixed", n_components=7, max_learners=3)
    Z, raw = model.transform(X), model.network()(torch.from_numpy(X).float()).detach().numpy()
    for columns in model.learner_slices_:
        np.testing.assert_allclose(np.linalg.norm(Z[:, columns], axis=1), 1, atol=1e-9)
        expected = raw[:, columns] / np.linalg.norm(raw[:, columns], axis=1, keepdims=True)
        np.testing.assert_allclose(Z[:, columns], expected, atol=1e-4)
    assert model.n_learners_ == 3
    assert model.growth_epochs_ == []
    assert len(model.loss_curve_) == model.n_iter_ == 8
    found = find_network(model)
    np.testing.assert_allclose(found.module(found.prepare(X).float()).detach().numpy(), raw, atol=1e-6)


def test_it_separates_what_discriminant_analysis_does_not():
    """The exclusive or of two columns, a fifth of the labels wrong: means of classes are equal."""
    g = np.random.default_rng(0)
    factor = g.integers(0, 2, (1200, 2))
    y = factor[:, 0] ^ factor[:, 1]
    rows = np.c_[2.0 * factor - 1 + 0.3 * g.normal(size=(1200, 2)), g.normal(size=(1200, 10))]
    told = np.where(g.random(800) < 0.2, 1 - y[:800], y[:800])
    model = DynamicSubspaceMetricLearner(8, max_iter=40, random_state=0).fit(rows[:800], told)
    near = KNeighborsClassifier(15).fit(model.transform(rows[:800]), told)
    raw = KNeighborsClassifier(15).fit(rows[:800], told)
    assert LinearDiscriminantAnalysis().fit(rows[:800], told).score(rows[800:], y[800:]) < 0.6
    assert near.score(model.transform(rows[800:]), y[800:]) > raw.score(rows[800:], y[800:]) + 0.03
    assert model.n_learners_ == 1 + len(model.growth_epochs_) >= 2


def test_no_learner_is_added_at_a_loss_of_zero():
    rows = np.repeat(np.eye(3), 30, 0) + 0.01 * np.random.default_rng(0).normal(size=(90, 3))
    params = {"net_params": {"module__dropout": 0.0}, "hidden_layer_sizes": (64,), "learning_rate": 5e-3}
    model = learned(rows, np.repeat([0, 1, 2], 30), max_iter=40, patience=5, **params)
    assert model.loss_curve_[-1] == 0
    assert model.n_learners_ == 1


@pytest.mark.parametrize("loss", ["margin", "proxy_anchor"])
def test_unseen_rows_of_digits_cluster_better_than_after_a_linear_metric(loss):
    rows, y = load_digits(return_X_y=True)
    A, B, a, b = train_test_split(rows, y, train_size=400, test_size=400, stratify=y, random_state=0)
    model = DynamicSubspaceMetricLearner(16, 1, loss=loss, max_iter=25, random_state=0).fit(A, a)

    def judged(Z):
        Z = Z / np.linalg.norm(Z, axis=1, keepdims=True)
        return normalized_mutual_info_score(b, KMeans(10, n_init=2, random_state=0).fit_predict(Z))

    assert judged(model.transform(B)) > judged(LinearDiscriminantAnalysis().fit(A, a).transform(B)) + 0.02
    assert hasattr(model, "beta_") == (loss == "margin")
    assert hasattr(model, "proxies_") == (loss == "proxy_anchor")


def test_gate_starts_as_the_identity_and_depends_on_the_row():
    start = learned(max_iter=1, learning_rate=1e-9)
    np.testing.assert_allclose(start.attention_map(X), 1, atol=1e-6)
    gate = learned(max_iter=20).attention_map(X)
    assert gate.shape == X.shape
    assert (gate >= 0).all()
    assert (gate <= 2).all()
    assert gate.std(0).max() > 0.005
    assert not hasattr(learned(attention=False), "attention_map")
    assert not hasattr(learned(attention=False).set_params(attention=True), "attention_map")  # what was fitted decides
    assert learned().set_params(attention=False).attention_map(X).shape == X.shape


def test_growth_leaves_each_learner_two_columns():
    """With one, scaled to 1 or -1, there is no gradient."""
    eager = {"patience": 1, "tol": 0.9, "max_learners": 6}
    assert learned(**eager, max_iter=20).n_learners_ == 3
    model = learned(**eager, n_components=3, max_iter=40)
    assert model.n_learners_ == 1
    assert KNeighborsClassifier().fit(model.transform(X), Y).score(model.transform(X), Y) > 0.95
    with pytest.warns(UserWarning, match=r"n_components=3 for 2 learner\(s\).*Lower max_learners"):
        assert learned(n_components=3, grow="fixed").n_learners_ == 2
    with pytest.warns(UserWarning, match="n_components=1 .*learns nothing. Pass n_components >= 2"):
        learned(n_components=1)


def test_rows_without_a_pair_are_warned_of():
    with pytest.warns(UserWarning, match="y has no class of two rows"):
        learned(X[:20], np.arange(20))


def test_fewer_distinct_rows_than_learners():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = learned(
            np.repeat(X[[0, -1]], 20, 0), np.repeat([0, 1], 20), n_components=8, grow="fixed", max_learners=4
        )
    assert np.isfinite(model.transform(X)).all()


def test_images_with_channels():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 60)
    images = rng.normal(size=(60, 6, 5, 3))
    images[:, 1:3, 1:3, 2] += 4 * y[:, None, None]  # a square in the last channel
    rows = images.reshape(60, -1)
    model = learned(rows[:40], y[:40], image_shape=(6, 5, 3), max_iter=40)
    near = KNeighborsClassifier(3).fit(model.transform(rows[:40]), y[:40])
    assert near.score(model.transform(rows[40:]), y[40:]) > 0.9
    gate = model.attention_map(rows[:4]).reshape(4, 6, 5, 3)
    assert (gate == gate[..., :1]).all()
    assert gate.std() > 0
    own = learned(rows, y, image_shape=[6, 5, 3], module=partial(_channel_means, 3))
    assert own.transform(rows).shape == (60, 6)


def _channel_means(channels):
    return torch.nn.Sequential(torch.nn.Conv2d(channels, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())


def test_sparse_rows_are_the_dense_ones():
    rows = np.where(np.abs(X) > 0.7, X, 0)
    dense, sparse = learned(rows), learned(sp.csr_matrix(rows))
    np.testing.assert_allclose(dense.transform(rows), sparse.transform(sp.csr_array(rows)), atol=1e-4)
    np.testing.assert_allclose(dense.attention_map(rows), sparse.attention_map(sp.coo_array(rows)), atol=1e-4)


def test_blocks_change_nothing(monkeypatch):
    from sklowrank.metric_learning import _dynamic_subspace_solver as solver

    whole = learned(grow="fixed").transform(X)
    monkeypatch.setattr(solver, "rows_per_block", lambda batch_size, n, size: 7)
    np.testing.assert_allclose(learned(grow="fixed").transform(X), whole, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_units_of_the_table_do_not_matter(scale):
    np.testing.assert_allclose(learned(scale * X).transform(scale * X), learned().transform(X), atol=1e-3)


def test_one_class_is_projected():
    with pytest.warns(UserWarning, match="single class"):
        model = learned(X, np.zeros(178), n_components=20)
    Z = model.transform(X)
    scores = np.linalg.svd(X - X.mean(0), full_matrices=False)
    expected = scores[0] * scores[1]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(np.abs(Z[:, :13]), np.abs(expected), atol=1e-5)
    assert (Z[:, 13:] == 0).all()
    assert (model.attention_map(X) == 1).all()


def test_two_rows():
    model = learned(X[[0, -1]], ["a", "b"])
    assert np.isfinite(model.transform(X)).all()
    assert list(model.classes_) == ["a", "b"]
    assert np.isfinite(learned(X[[0, 1, -1]], [0, 0, 1], grow="fixed", max_learners=5).transform(X)).all()


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"batch_size": 7}, "batch_size=7 holds no two classes.*at least 8"),
        ({"image_shape": (4, 4)}, r"image_shape=\(4, 4\) has 16 pixels, and X has n_features=13"),
        ({"image_shape": (13,)}, "image_shape=.*has to be"),
        ({"image_shape": (13, 1, 0)}, "image_shape=.*has to be"),
        ({"module": torch.nn.Linear(5, 5)}, "module has to map rows of n_features_in_=13"),
        ({"net_params": {"module__depth": 3}}, "module__depth"),
        ({"net_params": {"lr": 3}}, "lr"),
        ({"learning_rate": 1e30}, "learning_rate"),
    ],
)
def test_refusals(params, match):
    with pytest.raises(ValueError, match=match):
        learned(**params)


def test_not_fitted():
    with pytest.raises(NotFittedError):
        DynamicSubspaceMetricLearner().network()


def test_callbacks_of_skorch_and_optimizers_of_the_user():
    from skorch.callbacks import EarlyStopping

    stop = [EarlyStopping("train_loss", patience=2, threshold=9.0, threshold_mode="abs")]
    assert learned(net_params={"callbacks": stop}, max_iter=20).n_iter_ == 3
    assert np.isfinite(learned(net_params={"optimizer": torch.optim.SGD}, learning_rate=0.05).transform(X)).all()


@pytest.mark.cuda
def test_cuda():
    here, there = learned(grow="fixed", device="cpu"), learned(grow="fixed", device="cuda")
    np.testing.assert_allclose(there.transform(X), here.transform(X), atol=0.02)
    assert there.network("cuda")(torch.from_numpy(X).float().cuda()).device.type == "cuda"
