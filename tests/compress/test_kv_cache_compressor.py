"""Narrower keys and values: closed forms, ranks by budget, the answers of the layer, the cache token by token."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from skorch import NeuralNetClassifier
from torch import nn

from sklowrank._nets.recording import moments_of
from sklowrank.compress import KVCacheCompressor
from sklowrank.compress._compact_attention import CompactAttention, heads_of
from sklowrank.compress._kv_cache_compressor_solver import (
    CacheOptions,
    Head,
    Seen,
    bilinear_heads,
    cut,
    principal_heads,
    ranks_of,
)

RNG = np.random.default_rng(0)
X = (np.cumsum(RNG.normal(size=(60, 10, 24)), 1) @ np.diag(np.geomspace(1, 0.02, 24)) + 1.0).astype(np.float64)
ROWS = torch.from_numpy(X)
CAUSAL = torch.triu(torch.ones(10, 10, dtype=torch.bool), 1)


def seeded(function, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return function()


def attention(**params):
    made = seeded(lambda: nn.MultiheadAttention(24, 3, **{"batch_first": True, **params}).double())
    if made.in_proj_bias is not None:
        nn.init.normal_(made.in_proj_bias, generator=torch.Generator().manual_seed(1))
    return made


class Self(nn.Module):
    """Attention of rows to themselves."""

    def __init__(self, block, **call):
        super().__init__()
        self.attention, self.call = block, {"need_weights": False, **call}

    def forward(self, x):
        return self.attention(x, x, x, **self.call)[0]


def compact(block, **params):
    return KVCacheCompressor(Self(block), **params).fit(X).network().attention


class Reader(nn.Module):
    """Digits as eight tokens, one a row of the image."""

    def __init__(self):
        super().__init__()
        self.read, self.place = nn.Linear(8, 32), nn.Parameter(torch.randn(8, 32) / 4)
        block = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.output = nn.Linear(32, 10)

    def forward(self, x):
        return self.output(self.encoder(self.read(x.reshape(-1, 8, 8)) + self.place).mean(1))


@pytest.fixture(scope="module")
def digits():
    rows, y = load_digits(return_X_y=True)
    A, B, a, b = train_test_split((rows / 16).astype(np.float32), y, test_size=0.4, random_state=0, stratify=y)
    params = {"criterion": nn.CrossEntropyLoss, "optimizer": torch.optim.Adam, "lr": 3e-3, "max_epochs": 8}
    net = NeuralNetClassifier(Reader, **params, batch_size=64, train_split=None, verbose=0)
    return A, B, a, b, seeded(lambda: net.fit(A, a))


# Closed forms


def scores_and_outputs(maps, block):
    """What a head's maps make of scores, less what all keys share, and of outputs, per query and key."""
    q, k, v = ([W @ ROWS.reshape(-1, 24).T + b[:, None] for W, b in zip(*part)] for part in heads_of(block))
    found = []
    for head, Q, K, V, O in zip(maps, q, k, v, block.out_proj.weight.double().chunk(3, 1)):
        scores = (head.query @ Q).T @ (head.key @ K)
        values = head.out @ head.value @ (V - head.mean[:, None]) + head.mean[:, None]
        found.append((scores - scores.mean(1, keepdim=True), O @ values))
    return found


@torch.no_grad()
def test_each_rank_is_the_best_bilinear_form_and_the_best_map_of_values():
    block, rows = attention(), ROWS.reshape(-1, 24)
    seen = Seen(*[moments_of(rows)] * 3)
    full = [cut(head, 8, 8) for head in bilinear_heads(block, seen)]
    exact = scores_and_outputs(full, block)
    for rank in (1, 3, 8):
        ours = scores_and_outputs([cut(h, rank, rank) for h in bilinear_heads(block, seen)], block)
        pca = scores_and_outputs([cut(h, rank, rank) for h in principal_heads(block, seen)], block)
        for (scores, outputs), (near, out), (other, less) in zip(exact, ours, pca):
            s = torch.linalg.svdvals(scores)  # of a matrix of queries and keys, of rank 8
            np.testing.assert_allclose((near - scores).square().sum(), s[rank:].square().sum(), rtol=1e-6, atol=1e-6)
            assert (near - scores).square().sum() <= (other - scores).square().sum() + 1e-6
            t = torch.linalg.svdvals(outputs - outputs.mean(1, keepdim=True))
            np.testing.assert_allclose((out - outputs).square().sum(), t[rank:].square().sum(), rtol=1e-6, atol=1e-6)
            assert (out - outputs).square().sum() <= (less - outputs).square().sum() + 1e-6


def test_ranks_keep_the_largest_shares():
    heads = [
        Head(None, torch.tensor(k), torch.tensor(v))
        for k, v in (([8.0, 1, 0], [9.0, 8, 1]), ([1.0, 0, 0], [1.0, 1, 0]))
    ]
    options = CacheOptions(0.5, "adaptive", "auto", 8, None, None)
    assert ranks_of(heads, options, "x") == ([2, 1], [2, 1])
    assert ranks_of(heads, options._replace(n_components=2), "x") == ([2, 1], [3, 2])
    assert ranks_of(heads, options._replace(n_components=0.01), "x") == ([1, 1], [1, 1])
    for given, each in ((0.7, 2), (3, 3), (1.0, 3)):
        uniform = options._replace(n_components=given, group_ranks="uniform")
        assert ranks_of(heads, uniform, "x") == ([each] * 2, [each] * 2)


# The layer


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"attn_mask": CAUSAL},
        {"attn_mask": torch.randn(10, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))},
        {"attn_mask": CAUSAL.expand(15, 10, 10)},
        {"key_padding_mask": torch.arange(10).expand(5, 10) > 6},
        {"average_attn_weights": False},
        {"need_weights": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("params", [{}, {"bias": False}, {"batch_first": False}], ids=str)
def test_full_width_answers_as_torch_does(how, params):
    block = attention(**params)
    slim = CompactAttention(block, [cut(h, 8, 8) for h in bilinear_heads(block, Seen(*[moments_of(ROWS[0])] * 3))])
    x = ROWS[:5] if block.batch_first else ROWS[:5].transpose(0, 1)
    for one, two in zip(block(x, x, x, **how), slim(x, x, x, **how)):
        assert (one is None) == (two is None)
        if one is not None:
            torch.testing.assert_close(one, two)
    if "attn_mask" not in how and "key_padding_mask" not in how:
        for one, two in zip(block(*[ROWS[0]] * 3, **how), slim(*[ROWS[0]] * 3, **how)):
            torch.testing.assert_close(one, two)


@pytest.mark.parametrize("batch_first", [True, False])
@torch.no_grad()
def test_tokens_from_the_cache_one_by_one_are_the_causal_pass(batch_first):
    slim = compact(attention(), n_components=0.4)
    slim.batch_first = batch_first
    assert len({*slim.key_ranks, *slim.value_ranks}) > 1
    x = ROWS[:5] if batch_first else ROWS[:5].transpose(0, 1)
    K, V = slim.cache(x, x)
    assert (K.shape, V.shape) == ((5, 10, sum(slim.key_ranks)), (5, 10, sum(slim.value_ranks)))
    whole = slim(x, x, x, attn_mask=CAUSAL)[0]
    at = 1 if batch_first else 0
    for t in range(10):
        out, weights = slim.attend(x.narrow(at, t, 1), (K[:, : t + 1], V[:, : t + 1]))
        torch.testing.assert_close(out, whole.narrow(at, t, 1))
        assert weights.shape == (5, 3, 1, t + 1)
        torch.testing.assert_close(weights.sum(3), torch.ones(5, 3, 1, dtype=torch.float64))


@torch.no_grad()
def test_padding_does_not_count():
    far = X.copy()
    padding = torch.arange(10).expand(60, 10) > 6
    far[:, 7:] = 1000 * RNG.normal(size=(60, 3, 24))

    class Padded(Self):
        def forward(self, x):
            return self.attention(x, x, x, key_padding_mask=self.call["mask"][: len(x)])[0]

    def fitted(mask):
        model = KVCacheCompressor(Padded(attention(), mask=mask), n_components=3).fit(far)
        return model.network().attention.key.weight

    class First(Self):
        def forward(self, x):
            return self.attention(x, x[:, :7], x[:, :7])[0]

    expected = KVCacheCompressor(First(attention()), n_components=3).fit(far).network().attention.key.weight
    torch.testing.assert_close(fitted(padding), expected)
    added = torch.zeros(60, 10, dtype=torch.float64).masked_fill(padding, -torch.inf)
    torch.testing.assert_close(fitted(added), expected)


# The estimator


def test_a_quarter_of_the_numbers_keeps_what_pca_loses(digits):
    A, B, _, b, net = digits
    before = copy.deepcopy(net.module_.state_dict())
    ours = KVCacheCompressor(FrozenEstimator(net), n_components=0.25).fit(A)
    pca = KVCacheCompressor(FrozenEstimator(net), n_components=0.25, init="pca", group_ranks="uniform").fit(A)
    truth = net.forward(B).numpy()

    def error(model):
        return np.square(model.predict_raw(B) - truth).sum() / np.square(truth - truth.mean(0)).sum()

    assert ours.cache_ratio_ <= 0.25
    assert pca.cache_ratio_ <= 0.25
    assert error(ours) < 0.5 * error(pca)
    assert net.score(B, b) - ours.score(B, b) < 0.02
    assert all(torch.equal(value, before[name]) for name, value in net.module_.state_dict().items())
    row = ours.layer_report_[1]
    assert row["name"] == "encoder.layers.1.self_attn"
    assert row["numbers_per_token"] == sum(row["key_ranks"]) + sum(row["value_ranks"]) <= 16
    assert row["numbers_per_token_before"] == 64
    with torch.inference_mode():
        np.testing.assert_allclose(ours.network()(torch.from_numpy(B)).numpy(), ours.predict_raw(B), atol=1e-5)


def test_it_is_stored_as_numbers_and_trains_on(digits):
    A, B, a, _, net = digits
    model = KVCacheCompressor(FrozenEstimator(net), n_components=0.5, random_state=0).fit(A)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_raw(B), model.predict_raw(B))
    assert "encoder.layers.0.self_attn.in_proj_weight" not in model.weights_
    inner = model.estimator_
    before = inner.module_.encoder.layers[0].self_attn.key.weight.detach().clone()
    inner.partial_fit(A[:64], a[:64])
    assert not torch.equal(before, inner.module_.encoder.layers[0].self_attn.key.weight)
    np.testing.assert_array_equal(again.predict_raw(B), model.predict_raw(B))


def test_which_layers_are_taken(digits):
    A, *_, net = digits
    one = KVCacheCompressor(FrozenEstimator(net), modules="*.1.self_attn").fit(A)
    assert [row["name"] for row in one.layer_report_] == ["encoder.layers.1.self_attn"]
    assert one.cache_ratio_ == 0.5
    other = KVCacheCompressor(FrozenEstimator(net), exclude="*.1.*").fit(A)
    assert [row["name"] for row in other.layer_report_] == ["encoder.layers.0.self_attn"]
    with pytest.raises(ValueError, match="modules='decoder"):
        KVCacheCompressor(FrozenEstimator(net), modules="decoder*").fit(A)
    with pytest.raises(ValueError, match="MultiheadAttention"):
        KVCacheCompressor(nn.Linear(24, 2).double()).fit(X[:, 0])
    for params in ({"add_bias_kv": True}, {"add_zero_attn": True}):
        with pytest.raises(ValueError, match="MultiheadAttention"):
            KVCacheCompressor(Self(attention(**params))).fit(X)
    with pytest.raises(ValueError, match="n_components=9"):
        KVCacheCompressor(Self(attention()), n_components=9).fit(X)
    with pytest.raises(ValueError, match="NaN"):
        KVCacheCompressor(Self(attention())).fit(np.where(X > 2, np.nan, X))


def test_blocks_of_rows_and_directions_that_no_row_shows_change_nothing():
    small, large = (KVCacheCompressor(Self(attention()), n_components=3, batch_size=b).fit(X) for b in (7, 60))
    for name, value in small.weights_.items():
        np.testing.assert_allclose(np.abs(value), np.abs(large.weights_[name]), atol=1e-8)
    flat = X.copy()
    flat[..., 5:] = 0
    model = KVCacheCompressor(Self(attention()), n_components=5).fit(flat)
    assert model.output_relative_error_ < 1e-10
    assert np.isfinite(model.predict_raw(X)).all()


@pytest.mark.cuda
def test_a_gpu_finds_the_same():
    here, there = (KVCacheCompressor(Self(attention()), n_components=3, device=d).fit(X) for d in ("cpu", "cuda"))
    np.testing.assert_allclose(here.predict_raw(X), there.predict_raw(X), atol=1e-8)


@pytest.mark.parametrize("option", [{"kdim": 8, "vdim": 8}, {"add_bias_kv": True}, {"add_zero_attn": True}], ids=str)
def test_attention_that_is_not_taken_is_named_with_its_option(option):
    attention = nn.MultiheadAttention(16, 2, batch_first=True, **option)

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.read = attention

        def forward(self, x):
            key = x[..., : attention.kdim]
            return self.read(x, key, key)[0]

    with pytest.raises(ValueError, match=next(f"{name}={value}" for name, value in option.items())):
        KVCacheCompressor(Reader()).fit(np.zeros((4, 3, 16), dtype=np.float32))


def test_a_causal_hint_needs_the_mask():
    encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    rows = torch.ones(4, 3, 16, device="cpu")
    attention = KVCacheCompressor(encoder).fit(rows).network().self_attn
    with pytest.raises(ValueError, match="is_causal=True needs attn_mask"):
        attention(rows, rows, rows, is_causal=True)
