"""LatentQuantizationFilter: its parts against slow formulas, rows it cleans better than PCA, gradients, the bound."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split

from sklowrank._core import blocks
from sklowrank.neural import LatentQuantizationFilter
from sklowrank.neural import _latent_quantization_network as network
from sklowrank.neural import _latent_quantization_solver as solver

X, y = load_digits(return_X_y=True)
A, B = train_test_split(X / 16, test_size=0.4, random_state=0, stratify=y)
g = np.random.default_rng(0)
T = np.tanh(g.normal(size=(150, 2)) @ g.normal(size=(2, 5))) + 0.1 * g.normal(size=(150, 5))


def fast(*args, **settings):
    quick = {"hidden_layer_sizes": (16,), "max_iter": 5, "batch_size": 50, "random_state": 0}
    return LatentQuantizationFilter(*args, **{**quick, **settings})


def on_digits(**settings):
    return LatentQuantizationFilter(max_iter=30, random_state=0, **settings).fit(A)


@pytest.fixture(scope="module")
def digits():
    return on_digits(input_noise=0.2)


def left(filtered, spoilt):
    """Share of the squared error that is left."""
    return np.sum((filtered - B) ** 2) / np.sum((spoilt - B) ** 2)


# Parts


def test_the_discrepancy_is_that_of_loops():
    Z, P = g.normal(size=(2, 7, 3))
    total, widths = 0.0, [6 * c for c in (0.1, 0.5, 1, 2, 5)]

    def kernel(a, b):
        return sum(w / (w + np.sum((a - b) ** 2)) for w in widths)

    for i in range(7):
        for j in range(7):
            total -= 2 * kernel(Z[i], P[j]) / 49
            total += (kernel(Z[i], Z[j]) + kernel(P[i], P[j])) / 42 if i != j else 0
    found = solver.discrepancy(torch.tensor(Z), torch.tensor(P), solver.kernel_widths(3, torch.tensor(Z)))
    assert float(found) == pytest.approx(total, abs=1e-12)


def test_the_discrepancy_of_one_row_is_finite_and_has_a_gradient():
    Z = torch.zeros(1, 2, requires_grad=True)
    solver.discrepancy(Z, torch.ones(1, 2), solver.kernel_widths(2, Z)).backward()
    assert bool(Z.grad.isfinite().all())


def test_rounding_gives_exact_multiples_and_passes_the_gradient():
    z = torch.linspace(-3, 3, 101, requires_grad=True)
    codes = network.rounded(z, 0.3)
    assert torch.equal(codes, 0.3 * torch.round(z.detach() / 0.3))
    codes.sum().backward()
    assert torch.equal(z.grad, torch.ones(101))
    assert network.rounded(z, 0.0) is z


def test_the_power_iteration_finds_the_spectral_norm():
    layer = network.SpectralLinear(9, 6, torch.Generator().manual_seed(0))
    x = torch.randn(4, 9, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        layer.weight.mul_(3.0).add_(0.1 * torch.randn(6, 9, generator=torch.Generator().manual_seed(2)))
        for _ in range(60):
            layer(x)
    expected = layer.weight.detach().double() / np.linalg.norm(layer.weight.detach().double(), 2)
    torch.testing.assert_close(layer.plain_weight(), expected)
    torch.testing.assert_close(layer(x), (x.double() @ expected.T).float() + layer.bias, rtol=1e-4, atol=1e-5)


def test_the_kept_encoder_is_the_trained_one():
    net = network.Autoencoder(torch.Generator().manual_seed(0), widths=[5, 7, 2], step=0.5, lipschitz=3.0).eval()
    kept = network.Encoder([5, 7, 2], 0.0, torch.zeros(5), torch.ones(5))
    kept.load_state_dict({k.removeprefix("encoder."): v for k, v in net.plain().items() if k.startswith("encoder")})
    x = torch.tensor(T, dtype=torch.float32)
    torch.testing.assert_close(kept(x), net.encoder(x), rtol=1e-4, atol=1e-5)
    for name in ("layers.0", "layers.2"):
        norm = np.linalg.norm(kept.state_dict()[f"{name}.weight"], 2)
        assert norm == pytest.approx(3.0 if name == "layers.2" else 1.0, rel=1e-5)


def test_transform_is_its_formula():
    model = fast(2, hidden_layer_sizes=(6, 4), step=0.4, output_range=None).fit(T)
    W = {name: value.astype(np.float64) for name, value in model.weights_.items()}
    h = (T - model.mean_) / model.scale_
    for i in (0, 2, 4):
        h = h @ W[f"encoder.layers.{i}.weight"].T + W[f"encoder.layers.{i}.bias"]
        h = np.where(h > 0, h, 0.2 * h) if i < 4 else h
    h = codes = 0.4 * np.round(h / 0.4)
    for i in (0, 2, 4):
        h = h @ W[f"decoder.layers.{i}.weight"].T + W[f"decoder.layers.{i}.bias"]
        h = np.maximum(h, 0) if i < 4 else h
    np.testing.assert_allclose(model.encode(T), codes, atol=1e-12)
    np.testing.assert_allclose(model.transform(T), model.mean_ + model.scale_ * h, atol=1e-12)
    np.testing.assert_allclose(((T - model.mean_) / model.scale_).var(0).sum(), 2)
    np.testing.assert_allclose(model.scale_ / np.ptp(T, axis=0), model.scale_[0] / np.ptp(T[:, 0]))


# What it is for


def test_spoilt_digits_are_cleaned_better_than_by_pca(digits):
    r = np.random.default_rng(1)
    dead, noisy = np.where(r.random(B.shape) < 0.25, 0, B), np.clip(B + 0.4 * r.normal(size=B.shape), 0, 1)
    for spoilt, need in ((dead, 0.85), (noisy, 1.05)):
        by_pca = []
        for k in (8, 12, 16):
            pca = PCA(k, random_state=0).fit(A)
            by_pca.append(left(pca.inverse_transform(pca.transform(spoilt)), spoilt))
        assert left(digits.transform(spoilt), spoilt) < need * min(by_pca)


def test_codes_are_spread_as_normal_ones_and_keep_the_rows(digits):
    spread = digits.encode(B).std(0)
    assert spread.min() > 0.5
    assert spread.max() < 2
    assert 1 - np.sum((digits.transform(B) - B) ** 2) / np.sum((B - A.mean(0)) ** 2) > 0.7


def test_without_the_noise_of_rows_it_removes_less(digits):
    spoilt = B + 0.3 * np.random.default_rng(2).normal(size=B.shape)
    plain = on_digits(input_noise=0.0)
    assert left(digits.transform(spoilt), spoilt) < 0.8 * left(plain.transform(spoilt), spoilt)


def test_strange_rows_have_low_scores(digits):
    turned = B.reshape(-1, 8, 8).transpose(0, 2, 1).reshape(-1, 64)
    assert np.mean(digits.score_samples(turned) < np.quantile(digits.score_samples(B), 0.05)) > 0.95
    assert digits.score(B) == pytest.approx(digits.score_samples(B).mean())


@pytest.mark.parametrize("bound", [0.5, 2.0])
def test_the_encoder_keeps_its_bound(bound):
    model = fast(step=0.0, lipschitz=bound, max_iter=30).fit(T)
    moved = T + np.random.default_rng(3).normal(size=T.shape) * np.logspace(-3, 1, len(T))[:, None]
    ratio = np.linalg.norm(model.encode(moved) - model.encode(T), axis=1)
    ratio /= np.linalg.norm((moved - T) / model.scale_, axis=1)
    assert ratio.max() <= bound * (1 + 1e-5)
    assert ratio.max() > 0.3 * bound


def test_a_loose_bound_keeps_the_codes_at_unit_width():
    loose = fast(lipschitz=1e4, max_iter=60).fit(T)
    assert loose.encode(T).std(0).max() < 2
    assert loose.score(T) > -0.3 * np.mean(((T - T.mean(0)) / np.ptp(T, axis=0)) ** 2)


@pytest.mark.parametrize("settings", [{"step": 100.0}, {"lipschitz": 0.01}])
def test_one_code_for_all_rows_is_warned_of(settings):
    with pytest.warns(UserWarning, match=r"All rows have one code.*Lower step, raise lipschitz="):
        model = fast(**settings).fit(T)
    assert np.ptp(model.transform(T), axis=0).max() == 0
    with pytest.warns(UserWarning, match="Lower step, or train for longer"):
        fast(step=100.0, lipschitz=None).fit(T)


def test_none_sets_no_bound():
    free, bounded = (fast(step=0.0, lipschitz=value, max_iter=30).fit(T).encode(T).std() for value in (None, 0.1))
    assert bounded < 0.2 < free


# The filter as a module


def test_the_module_is_the_filter_and_its_gradient_passes_the_rounding(digits):
    module, rows = digits.network(), torch.tensor(B, dtype=torch.float32, requires_grad=True)
    purified = module(rows)
    off = np.abs(purified.detach().numpy() - digits.transform(B)).max(1)
    assert np.mean(off < 1e-5) > 0.99  # a latent value next to the wall of a cell may be rounded the other way
    assert purified.dtype == torch.float32
    (slope,) = torch.autograd.grad(purified.sum(), rows)
    assert bool((slope.abs().sum(1) > 0).all())
    assert not module.training
    assert digits.network() is not module
    assert {k: v.shape for k, v in module.state_dict().items()} == {k: v.shape for k, v in digits.weights_.items()}


def test_the_module_of_inference_mode_has_gradients_and_takes_no_other_width():
    model, rows = fast().fit(T), torch.tensor(T, dtype=torch.float32, requires_grad=True)
    with torch.inference_mode():
        module = model.network()
    module(rows).sum().backward()
    assert bool(rows.grad.isfinite().all())
    with pytest.raises(ValueError, match="rows of 5 columns, and these have 1"):
        module(rows[:, :1])


# Bits


def test_answers_do_not_depend_on_other_rows_blocks_or_calls(digits, monkeypatch):
    whole, codes = digits.transform(B), digits.encode(B)
    np.testing.assert_array_equal(whole, digits.transform(B))
    np.testing.assert_array_equal(whole, digits.decode(codes))
    np.testing.assert_allclose(whole[::-1], digits.transform(B[::-1]), atol=1e-12)
    monkeypatch.setattr(blocks, "_AUTO_BYTES", 1 << 14)
    np.testing.assert_allclose(whole, digits.transform(B), atol=1e-12)
    np.testing.assert_allclose(digits.score_samples(B[:9]), digits.score_samples(B)[:9], atol=1e-12)


def test_codes_that_are_no_binary_fractions_decode_to_the_bit():
    for rows in (T, T.astype(np.float32)):
        model = fast(step=0.3).fit(rows)
        np.testing.assert_array_equal(model.transform(rows), model.decode(model.encode(rows)))
        assert model.encode(rows).dtype == model.decode(model.encode(rows)).dtype == rows.dtype


def test_float32_and_units_give_the_same_filter():
    model, unit = fast().fit(T), np.array([1024.0, 1, 0.25, 2, 2.0**-20])
    np.testing.assert_array_equal(fast().fit(T * unit).transform(T * unit) / unit, model.transform(T))
    single = fast().fit(T.astype(np.float32))
    assert np.mean(np.abs(single.transform(T.astype(np.float32)) - model.transform(T)).max(1) < 1e-3) > 0.95


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_scales_of_physics(scale):
    found = fast().fit(T * scale).transform(T * scale) / scale
    assert np.mean(np.abs(found - fast().fit(T).transform(T)).max(1) < 1e-3) > 0.95


# Odd tables and parameters


def test_constant_columns_come_back_as_learned_and_are_not_read():
    flat = np.c_[T, np.full(len(T), 0.1), np.full(len(T), 7.0)]
    changed = flat + np.r_[np.zeros(5), 3.0, -1.0]
    for output_range in ("data", None):
        model = fast(output_range=output_range).fit(flat)
        np.testing.assert_array_equal(model.transform(changed), model.transform(flat))
        np.testing.assert_array_equal(model.transform(flat)[:, 5:], flat[:, 5:])
        np.testing.assert_array_equal(model.score_samples(changed), model.score_samples(flat))
    assert fast().fit(flat[:, 5:]).score(flat[:, 5:]) == 0


def test_output_ranges():
    far = 100 * T
    inside = fast().fit(T).transform(far)
    assert (inside >= T.min(0)).all()
    assert (inside <= T.max(0)).all()
    half = fast(output_range=(0, np.inf)).fit(T).transform(far)
    assert half.min() == 0
    assert half.max() > T.max()
    assert np.isfinite(fast(output_range=None).fit(T).transform(far)).all()


@pytest.mark.parametrize("rows", [T[:2], T[:1].repeat(4, 0), np.random.default_rng(4).normal(size=(6, 40))])
def test_two_rows_equal_rows_wide_tables(rows):
    for settings in ({}, {"batch_size": 1}, {"hidden_layer_sizes": ()}, {"prior_weight": 0.0}, {"lipschitz": None}):
        model = fast(**settings).fit(rows)
        assert np.isfinite(model.transform(rows)).all()
        assert model.encode(rows).shape == (len(rows), min(12, rows.shape[1]))


@pytest.mark.parametrize("given", [(1, 0), (0, 0), (0, 1, 2), (0, np.nan), [3], (None, 1), ("a", "b"), [[0, 1], [2]]])
def test_ranges_that_are_none_are_refused(given):
    with pytest.raises(ValueError, match=r"output_range=.*Pass one, such as \(0, 1\)"):
        fast(output_range=given).fit(T)


def test_codes_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"Z has 9 columns, but codes have n_components_=5\. Pass codes"):
        fast().fit(T).decode(np.zeros((3, 9)))


def test_an_empty_layer_is_refused():
    with pytest.raises(ValueError, match="empty layer"):
        fast(hidden_layer_sizes=(0,)).fit(T)


@pytest.mark.cuda
def test_cuda_gives_the_filter_of_the_cpu():
    here, there = (fast(device=device).fit(T) for device in ("cpu", "cuda"))
    assert np.mean(np.abs(here.transform(T) - there.transform(T)).max(1) < 1e-2) > 0.9
    assert next(there.network("cuda").parameters()).is_cuda
