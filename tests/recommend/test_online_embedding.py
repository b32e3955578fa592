"""Online embedding models: agreement with sums written out, streams in parts, what leaves and comes back, traps."""

import copy
import json
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import torch
from sklearn.callback import ProgressBar

from sklowrank.recommend import OnlineEmbeddingClassifier, OnlineEmbeddingRegressor, _online_state
from sklowrank.recommend._identifier_keys import keys_of, normal_values
from sklowrank.recommend._online_embedding_model import Batch, Shape, forward, gradients, losses, new_dense

CUDA = pytest.param("cuda", marks=pytest.mark.cuda)


def online(**params):
    return OnlineEmbeddingClassifier(**{"random_state": 0, "init_scale": 0.1, **params})


def clicks(n=2000, n_users=60, n_items=25, seed=0):
    """Rows of a user, an item and a number, and labels that depend on all three."""
    g = np.random.default_rng(seed)
    user, item, number = g.integers(0, n_users, n), g.integers(0, n_items, n), g.normal(3, 2, n)
    U, V = g.normal(size=(n_users, 3)), g.normal(size=(n_items, 3))
    z = (U[user] * V[item]).sum(1) + 0.5 * (number - 3)
    X = pd.DataFrame({"user": user + 10**12, "item": [f"i{v}" for v in item], "number": number})
    return X, (g.random(n) < 1 / (1 + np.exp(-2 * z))).astype(int)


def same_answers(a, b, X):
    return np.array_equal(a.predict_proba(X), b.predict_proba(X)) and np.array_equal(a.transform(X), b.transform(X))


# The model


def by_hand(X, y, weights, batch_size, k, rate=0.2, scale=0.1, seed=None):
    """A factorization machine by loops over rows and pairs of columns, with Adagrad on each touched entry."""
    start, w, v, b = seed, {}, {}, np.zeros(1)
    squares = {"b": np.full(1, 0.1)}
    for first in range(0, len(X), batch_size):
        rows = range(first, min(first + batch_size, len(X)))
        grads = {"b": np.zeros(1)}
        for i in rows:
            for column, value in enumerate(X[i]):
                if (column, value) not in w:
                    w[column, value] = np.zeros(1)
                    v[column, value] = scale * normal_values(keys_of(np.array([value]), column), start, k)[0]
                    squares["w", column, value], squares["v", column, value] = np.full(1, 0.1), np.full(k, 0.1)
        for i in rows:
            ids = list(enumerate(X[i]))
            z = b[0] + sum(w[f][0] for f in ids)
            z += sum(v[f] @ v[g] for at, f in enumerate(ids) for g in ids[at + 1 :])
            slope = weights[i] * (1 / (1 + np.exp(-z)) - y[i])
            grads["b"] = grads["b"] + slope
            for f in ids:
                others = sum(v[g] for g in ids if g != f)
                grads["w", *f] = grads.get(("w", *f), 0) + slope
                grads["v", *f] = grads.get(("v", *f), 0) + slope * others
        for name, grad in grads.items():
            squares[name] = squares[name] + np.square(grad)
            step = rate * grad / np.sqrt(squares[name])
            if name == "b":
                b = b - step
            else:
                (w if name[0] == "w" else v)[name[1:]] = (w if name[0] == "w" else v)[name[1:]] - step
    return b, w, v


def test_batches_are_those_of_loops_over_rows_and_pairs_of_columns():
    g = np.random.default_rng(1)
    X, y, weights = g.integers(-4, 5, (120, 3)), g.integers(0, 2, 120), g.integers(1, 4, 120).astype(float)
    model = online(n_components=3, batch_size=16).partial_fit(X, y, sample_weight=weights)
    b, w, v = by_hand(X, y, weights, 16, 3, seed=model._fitted["state"].seed)
    assert model.intercept_ == pytest.approx(b, abs=1e-12)
    expected = np.array([np.concatenate([v[f] for f in enumerate(row)]) for row in X])
    assert np.abs(model.transform(X) - expected).max() < 1e-12
    linear = np.array([sum(w[f][0] for f in enumerate(row)) for row in X])
    pairs = [sum(v[f] @ v[h] for f in enumerate(row) for h in enumerate(row) if f[0] < h[0]) for row in X]
    assert np.abs(model.decision_function(X) - (b + linear + pairs)).max() < 1e-12
    assert model.n_ids_ == len(w)


@pytest.mark.parametrize("interaction", ["fm", "linear", "deepfm"])
@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("sparse", [False, True])
def test_gradients_are_those_of_autograd(interaction, n_outputs, sparse):
    k, double = 0 if interaction == "linear" else 4, {"dtype": torch.float64, "device": "cpu"}
    shape = Shape(interaction, k, n_outputs, (5,) if interaction == "deepfm" else (), 2, 0 if sparse else 2, sparse)
    g = torch.Generator("cpu").manual_seed(0)

    class Draws:
        device, dtype = torch.device("cpu"), torch.float64

        def randn(self, *size):
            return torch.randn(*size, generator=g, **double)

    dense = new_dense(shape, Draws().randn(shape.n_numeric, k), Draws())
    dense = {name: (weights + Draws().randn(*weights.shape)).requires_grad_() for name, weights in dense.items()}
    distinct = Draws().randn(6, shape.width).requires_grad_()
    if sparse:
        samples = torch.arange(20, device="cpu") // 2
        slots = torch.randint(0, 6, (20,), generator=g, device="cpu")
        batch = Batch(slots, torch.zeros(10, 0, **double), Draws().randn(20, 1), samples)
    else:
        batch = Batch(torch.randint(0, 6, (10, 2), generator=g, device="cpu"), Draws().randn(10, 2))
    kind = "logistic" if n_outputs == 1 else "softmax"
    y = torch.randint(0, 2, (10,), generator=g, device="cpu")
    y = y if n_outputs > 1 else y[:, None].double()
    loss, slope = losses(kind, forward(distinct, batch, dense, shape).outputs, y)
    needed = {name: weights for name, weights in dense.items() if weights.numel()}
    expected = torch.autograd.grad(loss, [distinct, *needed.values()], allow_unused=True)
    plain = {name: weights.detach() for name, weights in dense.items()}
    with torch.no_grad():
        found = forward(distinct.detach(), batch, plain, shape)
        grad, by_name = gradients(slope.detach(), distinct.detach(), batch, found, plain, shape)
    assert torch.allclose(grad, expected[0], atol=1e-12)
    for name, want in zip(needed, expected[1:]):
        assert torch.allclose(by_name[name], want, atol=1e-12), name


def test_a_factorization_machine_finds_what_a_linear_model_cannot():
    g = np.random.default_rng(0)
    X = g.integers(0, 30, (6000, 2))
    y = (X[:, 0] % 2 == X[:, 1] % 2).astype(int)
    scores = {k: online(n_components=k).fit(X[:5000], y[:5000]).score(X[5000:], y[5000:]) for k in (0, 8)}
    assert scores[8] > 0.95
    assert scores[0] < 0.6


@pytest.mark.parametrize("interaction", ["fm", "deepfm", "linear"])
def test_several_classes_and_numbers(interaction):
    g = np.random.default_rng(0)
    X = g.integers(0, 12, (3000, 2))
    three = (X[:, 0] + X[:, 1]) % 3 if interaction != "linear" else X[:, 0] % 3
    model = online(interaction=interaction, learning_rate=(0.2, 0.01), max_iter=10).fit(X[:2500], three[:2500])
    assert model.score(X[2500:], three[2500:]) > 0.9
    assert model.predict_proba(X[:4]).sum(1) == pytest.approx(1)
    y = 50 + 10 * X[:, 0] + (X[:, 1] == 3)
    regressor = OnlineEmbeddingRegressor(interaction=interaction, random_state=0, max_iter=10).fit(X[:2500], y[:2500])
    assert regressor.score(X[2500:], y[2500:]) > 0.99
    unknown = regressor.predict([[99, 99]])
    if interaction != "deepfm":  # whose perceptron has biases
        assert unknown == pytest.approx(regressor.intercept_)


# Streams


def test_parts_of_a_stream_are_the_whole():
    X, y = clicks()
    whole = online(batch_size=40).partial_fit(X, y)
    parts = online(batch_size=40)
    for start in range(0, len(X), 200):
        parts.partial_fit(X[start : start + 200], y[start : start + 200], classes=[0, 1])
    assert same_answers(whole, parts, X)
    assert (whole.n_seen_, parts.n_seen_, whole.version_, parts.version_) == (2000, 2000, 1, 10)
    assert np.allclose([whole.numeric_mean_, whole.numeric_var_], [[X["number"].mean()], [X["number"].var(ddof=0)]])


def test_the_form_in_which_rows_come_does_not_matter():
    X, y = clicks(600)
    expected = online().partial_fit(X, y).predict_proba(X)
    sparse = X.astype({"number": pd.SparseDtype(float, 0.0)})
    for other in (
        sparse,
        pl.from_pandas(X),
        X.astype({"item": "category"}),
        X.astype({"user": object, "item": object}),
    ):
        assert np.array_equal(online().partial_fit(other, y).predict_proba(other), expected)
    array = X.to_numpy(dtype=object)
    assert np.array_equal(online().partial_fit(array, y).predict_proba(array), expected)
    assert np.array_equal(online().partial_fit(array.tolist(), y).predict_proba(array.tolist()), expected)


def test_order_within_a_batch_does_not_matter():
    X, y = clicks(300)
    order = np.random.default_rng(0).permutation(300)
    one = online(batch_size=300).partial_fit(X, y)
    other = online(batch_size=300).partial_fit(X.iloc[order], y[order])
    assert np.abs(one.decision_function(X) - other.decision_function(X)).max() < 1e-12


def test_sparse_rows_are_bags_of_identifiers():
    """One nonzero of 1 for each column of a dense table gives its model, and a cell of 2 is the identifier twice."""
    X, y = np.random.default_rng(0).integers(0, 20, (500, 2)), np.random.default_rng(1).integers(0, 2, 500)
    rows = np.repeat(np.arange(500), 2)
    bag = sp.csr_array((np.ones(1000), (rows, (X + np.array([0, 20])).ravel())), shape=(500, 40))
    dense, sparse = online(n_components=0).partial_fit(X, y), online(n_components=0).partial_fit(bag, y)
    assert np.abs(dense.decision_function(X) - sparse.decision_function(bag)).max() < 1e-12
    model = online(n_components=3).partial_fit(bag, y)
    one = sp.csr_array(([2.0], ([0], [7])), shape=(1, 40))
    assert np.allclose(model.transform(one), 2 * model.transform(one / 2))
    assert model.transform(bag).shape == (500, 3)
    twice = sp.coo_array((np.ones(3), ([0, 0, 0], [7, 7, 8])), shape=(1, 40))
    assert np.allclose(
        model.transform(twice), model.transform(sp.csr_array(([2.0, 1.0], ([0, 0], [7, 8])), shape=(1, 40)))
    )
    with pytest.raises(ValueError, match="X is dense, and was sparse"):
        model.predict(bag.toarray())
    with pytest.raises(ValueError, match="needs dense X"):
        model.rows_of(bag)


def test_a_missing_value_is_an_identifier_of_its_own():
    X = pd.DataFrame({"who": ["a", None, "a", np.nan], "n": pd.array([1, 2, None, 1], dtype="Int64")})
    model = online().partial_fit(X, [0, 1, 0, 1])
    assert model.n_ids_ == 5
    rows = model.rows_of(X)
    assert rows[1, 0] == rows[3, 0] != rows[0, 0]
    assert rows.min() == 0


def test_columns_are_identifiers_by_type_or_by_choice():
    X = np.column_stack([np.arange(40) % 4, np.random.default_rng(0).normal(size=40)])
    y = np.arange(40) % 2
    assert online().fit(X, y).n_ids_ == 0
    assert online(categorical_features=[0]).fit(X, y).n_ids_ == 4
    assert online(categorical_features=[True, False]).fit(X, y).n_ids_ == 4
    frame = pd.DataFrame(X, columns=["a", "b"])
    assert online(categorical_features=["a"]).fit(frame, y).n_ids_ == 4
    integers = (X * 100).astype(int)
    numbers = online(categorical_features=None).fit(integers, y)
    assert (numbers.n_ids_, numbers.rows_of(integers).shape) == (0, (40, 0))
    for wrong in (["c"], [7], [0.5]):
        with pytest.raises(ValueError, match=r"categorical_features names the column .* has 2 columns"):
            online(categorical_features=wrong).fit(frame, y)
    with pytest.raises(ValueError, match="'b' is numeric and holds something else"):
        online().fit(frame, y).predict(frame.assign(b="x"))


def test_blocks_of_rows_of_columns_are_in_the_order_of_columns():
    X, y = clicks(400)
    X = X[["number", "user", "item"]]
    model = online(n_components=2).partial_fit(X, y)
    found = model.transform(X)
    rows = model.rows_of(X)
    assert np.array_equal(found[:, 2:4], model.embeddings_[rows[:, 0]])
    assert np.array_equal(found[:, 4:], model.embeddings_[rows[:, 1]])
    z = (X["number"].to_numpy() - model.numeric_mean_) / model.numeric_var_**0.5
    assert np.allclose(found[:, :2] / z[:, None], found[0, :2] / z[0])
    assert [*model.get_feature_names_out()][-1] == "onlineembeddingclassifier5"


# Admission, expiry, bounds


def test_counts_go_on_after_an_identifier_has_left():
    model = online(min_count=2, expire_after=5, batch_size=1)
    model.partial_fit([[1], [1], [2]], [0, 1, 0])
    assert (model.rows_of([[1], [2]]) >= 0).ravel().tolist() == [True, False]
    assert model.n_filtered_ == 2
    assert model.evict(now=100) == 1
    model.partial_fit([[1]], [1])
    assert model.n_ids_ == 0
    model.partial_fit([[2], [1]], [1, 0])
    assert model.n_ids_ == 2


def test_predictions_and_later_epochs_do_not_count():
    X = np.arange(30)[:, None]
    model = online(min_count=2, max_iter=4).fit(X, np.arange(30) % 2)
    assert model.n_ids_ == 0
    model.predict(X)
    assert (model.partial_fit(X[:3], [0, 1, 0]).n_ids_, model.n_seen_) == (3, 33)


def test_limits_by_column_and_by_name():
    X = pd.DataFrame({"who": [1, 2, 1], "what": [5, 6, 7]})
    model = online(min_count={"who": 2}, expire_after={"what": 1}, batch_size=1).partial_fit(X, [0, 1, 0])
    assert (model.rows_of(X) >= 0).tolist() == [[True, True], [False, True], [True, True]]
    assert model.evict() == 2
    assert (model.rows_of(X) >= 0).tolist() == [[True, False], [False, False], [True, True]]
    for name, value in (("min_count", {"who": 0}), ("expire_after", {"who": -1}), ("min_count", {"whom": 2})):
        with pytest.raises(ValueError, match=name):
            online(**{name: value}).fit(X, [0, 1, 0])


def test_evict_every_is_evict_called_between_batches():
    X, y = clicks(1200, n_users=400)
    own = online(expire_after=150, evict_every=100, batch_size=50).partial_fit(X, y)
    by_user = online(expire_after=150, batch_size=50)
    for start in range(0, 1200, 100):
        by_user.partial_fit(X[start : start + 100], y[start : start + 100], classes=[0, 1]).evict()
    assert 0 < own.n_evicted_ == by_user.n_evicted_
    assert same_answers(own, by_user, X)


def test_the_least_recently_updated_leave_first():
    model = online(max_rows=64, batch_size=8)
    X = np.arange(300)[:, None]
    for start in range(0, 300, 8):
        rows = np.vstack([X[start : start + 8], [[0]]])  # which is updated all the time
        model.partial_fit(rows, np.arange(len(rows)) % 2, classes=[0, 1])
        assert model.n_ids_ <= 64
    assert (model.rows_of([[0]]) >= 0).all()
    assert (model.rows_of(X[-40:]) >= 0).all()
    assert len(model.embeddings_) < 100


def test_timestamps_are_given_in_all_calls_or_in_none():
    X, y = clicks(100)
    model = online(expire_after=60.0).partial_fit(X, y, timestamps=np.arange(100.0))
    with pytest.raises(ValueError, match="in all calls of partial_fit or in none: the former ones had timestamps"):
        model.partial_fit(X, y)
    for wrong, words in ((np.full(100, np.nan), "NaN"), (np.zeros(3), "inconsistent"), (np.zeros((100, 2)), "one-dim")):
        with pytest.raises(ValueError, match=words):
            model.partial_fit(X, y, timestamps=wrong)
    model.partial_fit(X[:10], y[:10], timestamps=np.full(10, 5.0))  # which are late
    assert (model.t_, model.n_seen_) == (99.0, 110)


# What fails


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": np.full(100, 3)}, r"\[3\]"),
        ({"y": np.full(100, np.nan)}, "NaN"),
        ({"y": np.zeros(99, int)}, "inconsistent"),
        ({"sample_weight": np.full(100, -1.0)}, "sample_weight|[Nn]egative"),
        ({"timestamps": np.arange(100.0)}, "timestamps"),
        ({"classes": [0, 1, 2]}, "classes"),
        ({"n_components": 3}, "n_components=3 was 8 when the model began"),
        ({"table": "modulo", "n_rows": 9}, "table="),
        ({"learning_rate": (0.1, -1)}, "learning_rate"),
        ({"X": pd.DataFrame({"user": [{}], "item": ["a"], "number": [1.0]})}, "argument must be a string"),
    ],
)
def test_a_call_that_is_refused_changes_nothing(change, words):
    X, y = clicks(100)
    model = online().partial_fit(X, y)
    before = pickle.dumps(model._fitted)
    params = {name: change.pop(name) for name in list(change) if name in model.get_params()}
    call = {"X": X, "y": y, **change}
    if len(call["X"]) == 1:
        call["y"] = y[:1]
    with pytest.raises((ValueError, TypeError), match=words):
        model.set_params(**params).partial_fit(**call)
    assert pickle.dumps(model._fitted) == before


def test_a_network_for_rows_without_room_is_refused():
    with pytest.raises(ValueError, match="hidden_layer_sizes"):
        online(interaction="deepfm", hidden_layer_sizes=(0,)).fit([[1], [2]], [0, 1])


# Copies, deltas, snapshots

STREAMS = [
    {},
    {"interaction": "deepfm"},
    {"table": "modulo", "n_rows": 30},
    {"sync_interval": 70},
    {"min_count": 2},
    {"min_count": 2, "filter_capacity": 100},
    {"min_count": 3, "admission": "probabilistic"},
    {"expire_after": 200, "evict_every": 90, "max_rows": 60},
]


@pytest.mark.parametrize("params", STREAMS, ids=lambda params: ", ".join(params) or "default")
@pytest.mark.parametrize("classes", [[0, 1], [0, 1, 2]])
def test_all_ways_to_go_on_are_the_same(params, classes, tmp_path):
    X, y = clicks(900)
    model = online(**params).partial_fit(X[:450], y[:450], classes=classes)
    pickled, copied = pickle.loads(pickle.dumps(model)), copy.deepcopy(model)
    model.save_snapshot(tmp_path)
    loaded = OnlineEmbeddingClassifier.load_snapshot(tmp_path)
    assert loaded.get_params() == model.get_params()
    model.partial_fit(X[450:], y[450:])
    model.save_snapshot(tmp_path, incremental=True)
    assert len(list(tmp_path.glob("part-*.npz"))) == 2
    added = OnlineEmbeddingClassifier.load_snapshot(tmp_path)
    for other in (pickled, copied, loaded):
        other.partial_fit(X[450:], y[450:])
    for other in (pickled, copied, loaded, added):
        assert same_answers(model, other, X)
        assert np.array_equal(model.rows_of(X), other.rows_of(X))
        assert model._fitted["state"] == other._fitted["state"]
    model.sync()
    assert all(same_answers(model, other.sync(), X) for other in (pickled, copied, loaded, added))


def test_a_snapshot_can_be_read_and_is_never_half_there(tmp_path, monkeypatch):
    X, y = clicks(300)
    X = X.assign(item=X["item"].astype("category"))
    model = online(min_count={"user": 2}, learning_rate=(0.1, 0.01)).partial_fit(
        X[:200], np.array(["no", "yes"])[y[:200]]
    )
    model.save_snapshot(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["version"] == 1
    before = OnlineEmbeddingClassifier.load_snapshot(tmp_path)
    assert before.min_count == {"user": 2}
    assert before.learning_rate == (0.1, 0.01)
    assert before.classes_.tolist() == ["no", "yes"]
    model.partial_fit(X[200:], np.array(["no", "yes"])[y[200:]])
    for broken in ("numpy.savez", "os.replace", "json.dumps"):
        with monkeypatch.context() as patch:
            patch.setattr(broken, lambda *args, **kwargs: (_ for _ in ()).throw(OSError("the disk is full")))
            with pytest.raises(OSError, match="the disk is full"):
                model.save_snapshot(tmp_path)
        assert same_answers(before, OnlineEmbeddingClassifier.load_snapshot(tmp_path), X)
    model.save_snapshot(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert same_answers(model, OnlineEmbeddingClassifier.load_snapshot(tmp_path), X)


def test_changes_that_have_grown_too_large_are_merged(tmp_path):
    X, y = clicks(2000)
    model, counts = online().partial_fit(X[:200], y[:200]).save_snapshot(tmp_path), []
    for start in range(200, 2000, 100):
        model.partial_fit(X[start : start + 100], y[start : start + 100]).save_snapshot(tmp_path, incremental=True)
        counts.append(len(list(tmp_path.glob("part-*.npz"))))
        assert same_answers(model, OnlineEmbeddingClassifier.load_snapshot(tmp_path), X)
    assert 2 <= max(counts) <= 6
    assert min(counts) == 1


def test_rows_without_weight_are_as_if_they_were_not_there():
    X, y = clicks(60)
    weights = np.r_[np.zeros(20), np.full(40, 0.01)]
    model = online().partial_fit(X, y, sample_weight=weights)
    other = online().partial_fit(X[20:], y[20:], sample_weight=weights[20:])
    assert same_answers(model, other, X)
    assert model.loss_curve_ == other.loss_curve_ == pytest.approx([np.log(2)], abs=0.1)
    nothing = online().partial_fit(X, y, sample_weight=np.zeros(60))
    assert (nothing.n_ids_, nothing.n_seen_, nothing.loss_curve_) == (0, 0, [0.0])
    assert np.all(nothing.predict_proba(X) == 0.5)


def test_an_incremental_snapshot_of_another_model_is_a_whole_one(tmp_path):
    X, y = clicks(300)
    model = online().partial_fit(X, y).save_snapshot(tmp_path)
    other = online(n_components=2).partial_fit(X, y).save_snapshot(tmp_path, incremental=True)
    assert len(list(tmp_path.glob("part-*.npz"))) == 1
    model.partial_fit(X, y).save_snapshot(tmp_path, incremental=True)
    assert len(list(tmp_path.glob("part-*.npz"))) == 1
    assert same_answers(model, OnlineEmbeddingClassifier.load_snapshot(tmp_path), X)
    assert other.n_components == 2


def test_a_replica_follows_by_deltas():
    X, y = clicks(1500, n_users=300)
    leader = online(expire_after=400, evict_every=100, batch_size=25).partial_fit(X[:500], y[:500])
    replica = copy.deepcopy(leader)
    deltas = []
    for start in range(500, 1500, 250):
        since = leader.version_
        leader.partial_fit(X[start : start + 250], y[start : start + 250])
        deltas.append(leader.get_delta(since))
    late = copy.deepcopy(replica)
    with pytest.raises(ValueError, match=r"follows version 2, and this model is of version 1"):
        late.apply_delta(deltas[1])
    for delta in (deltas[0], *deltas):
        replica.apply_delta(delta)
    assert replica.version_ == leader.version_
    assert (replica.n_ids_, replica.n_evicted_, replica.t_) == (leader.n_ids_, leader.n_evicted_, leader.t_)
    assert same_answers(leader, replica, X)
    assert same_answers(leader, late.apply_delta(leader.get_delta(1)), X)
    leader.partial_fit(X[:250], y[:250])
    replica.partial_fit(X[:250], y[:250])
    assert same_answers(leader, replica, X)
    assert len(leader.get_delta(leader.version_)["keys"]) == 0
    for since in (-1, leader.version_ + 1):
        with pytest.raises(ValueError, match=f"since={since} has to be a version"):
            leader.get_delta(since)
    with pytest.raises(ValueError, match="delta has to be what get_delta returned"):
        replica.apply_delta({"keys": []})
    other = online(n_components=2).partial_fit(X, y)
    with pytest.raises(ValueError, match="other parameters or columns"):
        other.apply_delta(leader.get_delta(0))


def test_identifiers_that_left_are_remembered_in_bounds(monkeypatch):
    monkeypatch.setattr("sklowrank.recommend._online_state._MOST_GONE", 20)
    model = online(max_rows=10, batch_size=10)
    for start in range(0, 300, 10):
        model.partial_fit(np.arange(start, start + 10)[:, None], np.arange(10) % 2)
    assert len(model._fitted["state"].gone["keys"]) <= 40
    with pytest.raises(ValueError, match="since=1 is too long ago"):
        model.get_delta(1)
    assert len(model.get_delta(model.version_ - 1)["evicted_keys"]) == 10


def test_the_copy_that_answers_is_exchanged_and_never_changed():
    X, y = clicks(1200, n_users=200)
    live = online(expire_after=200, evict_every=50)
    model = online(expire_after=200, evict_every=50, sync_interval=300)
    state = None
    for start in range(0, 1200, 100):
        for one in (live, model):
            one.partial_fit(X[start : start + 100], y[start : start + 100], classes=[0, 1])
        state = model._fitted["state"]
        if (start + 100) % 300 == 0:
            expected = live.predict_proba(X)
        if start >= 200:
            assert np.array_equal(model.predict_proba(X), expected)
    with state.reading(live=False) as now:
        kept = now.values.copy(), now.dense["intercept"].copy()
        for _ in range(3):
            model.partial_fit(X[:100], y[:100]).sync()
        assert np.array_equal(now.values, kept[0])
        assert np.array_equal(now.dense["intercept"], kept[1])
    model.partial_fit(X[:100], y[:100])
    behind = model.predict_proba(X)
    assert not np.array_equal(model.set_params(sync_interval=0).predict_proba(X), behind)


def test_fit_forgets_and_answers_at_once():
    X, y = clicks(500)
    model = online(sync_interval=10**6).partial_fit(X[:50], 1 - y[:50], classes=[0, 1])
    assert len(np.unique(model.predict_proba(X), axis=0)) == 1
    assert np.array_equal(model.fit(X, y).predict_proba(X), online().fit(X, y).predict_proba(X))
    assert (model.n_iter_, len(model.loss_curve_), model.n_seen_) == (5, 5, 500)


def test_callbacks_see_epochs(capsys):
    X, y = clicks(200)
    model = online(max_iter=3, verbose=1).set_callbacks(ProgressBar()).fit(X, y)
    assert capsys.readouterr().out.count("[OnlineEmbeddingClassifier] step") == model.n_iter_ == 3
    assert model.loss_curve_[-1] < model.loss_curve_[0]


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_a_stream_on_each_device(device):
    X, y = clicks(800)
    params = {"batch_size": 50, "expire_after": 300, "evict_every": 100, "sync_interval": 100, "max_rows": 70}
    here, there = (online(device=place, **params).partial_fit(X[:400], y[:400]) for place in ("cpu", device))
    moved = pickle.loads(pickle.dumps(there)).set_params(device="cpu")
    for model in (here, there, moved):
        model.partial_fit(X[400:], y[400:])
        assert np.abs(model.predict_proba(X) - here.predict_proba(X)).max() < 1e-6
        assert np.abs(model.transform(X) - here.transform(X)).max() < 1e-6
    back = there.set_params(device="cpu")
    assert np.abs(back.partial_fit(X, y).predict_proba(X) - here.partial_fit(X, y).predict_proba(X)).max() < 1e-6


def test_weights_that_stay_tensors_between_calls(monkeypatch, tmp_path):
    """As on a GPU: they are kept as tensors, looked up, grown, dropped, copied, sent and saved as those of numpy."""
    X, y = clicks(800)
    params = {"batch_size": 50, "expire_after": 300, "evict_every": 100, "sync_interval": 100, "max_rows": 70}
    params |= {"interaction": "deepfm", "init_scale": 0.1, "random_state": 0}
    expected = OnlineEmbeddingClassifier(device="cpu", **params).partial_fit(X[:400], y[:400])
    monkeypatch.setattr(_online_state, "_brought", lambda array, device: _online_state.tensor_of(array).clone())
    model = OnlineEmbeddingClassifier(device="cpu:0", **params)
    with torch.inference_mode():
        model.partial_fit(X[:400], y[:400]).sync()
        asked = pickle.loads(pickle.dumps(model))
        asked.predict(X)
    asked.partial_fit(X, y)
    expected.sync()
    replica = copy.deepcopy(model)
    assert isinstance(model._fitted["state"].rows["values"], torch.Tensor)
    expected.partial_fit(X[400:], y[400:])
    model.partial_fit(X[400:], y[400:])
    assert same_answers(expected, model, X)
    assert expected._fitted["state"] == model._fitted["state"]
    assert same_answers(model.sync(), replica.apply_delta(model.get_delta(1)), X)
    assert np.array_equal(expected.embeddings_, model.embeddings_)
    model.save_snapshot(tmp_path)
    assert same_answers(model, OnlineEmbeddingClassifier.load_snapshot(tmp_path), X)
    model.intercept_ = [3.0]
    assert model.intercept_ == 3.0


@pytest.mark.parametrize("place", ["write_rows", "_step", "reserve"])
def test_a_call_that_is_interrupted_has_learned_some_of_its_batches(place, monkeypatch):
    X, y = clicks(400, n_users=200)
    model = online(batch_size=20, expire_after=10**6).partial_fit(X[:100], y[:100])
    calls, whole = [], getattr(_online_state.OnlineState, place)

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return whole(*args)

    with monkeypatch.context() as patch:
        patch.setattr(_online_state.OnlineState, place, interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.partial_fit(X[100:], y[100:])
    assert 100 < model.n_seen_ < 400
    assert np.isfinite(model.predict_proba(X)).all()
    model.partial_fit(X, y)
    assert np.isfinite(model.predict_proba(X)).all()
    rows = model.rows_of(X)
    assert len(np.unique(rows)) == model.n_ids_ == X["user"].nunique() + X["item"].nunique()
    assert model.score(X, y) > 0.6


def test_a_stream_with_times_follows_a_fit_without():
    X = np.arange(20)[:, None]
    model = online(expire_after=60.0, batch_size=4).fit(X, np.arange(20) % 2)
    model.partial_fit(X[:5], np.arange(5) % 2, timestamps=1e9 + 30.0 * np.arange(5))
    assert (model.t_, model.evict(), model.n_ids_) == (1e9 + 120, 18, 2)
    assert (model.rows_of(X[3:5]) >= 0).all()
