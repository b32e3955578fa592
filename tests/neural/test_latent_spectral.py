"""LatentSpectralRegressor: its blocks against loops over points, grids and layouts, units, what it refuses."""

import math
import pickle

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sklearn import config_context
from sklearn.callback import ScoringMonitor
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from torch import nn

from sklowrank.neural import LatentSpectralRegressor
from sklowrank.neural import _latent_spectral_solver as solver
from sklowrank.neural._latent_spectral_network import BatchNorm, LatentSpectralNet, SpectralBlock, level_channels

g = np.random.default_rng(0)
X, Y = g.normal(size=(24, 8, 12)), g.normal(size=(24, 8, 12))
TINY = {"width": 8, "n_levels": 2, "n_heads": 4, "n_basis": 3, "max_iter": 2, "batch_size": 12, "learning_rate": 1e-2}


def tiny(**settings):
    return LatentSpectralRegressor(**{**TINY, "random_state": 0, **settings})


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# Spectral blocks


def slow_block(block, x):
    """The formulas for one field (C, H, W), by loops over patches, heads and tokens."""
    p, heads = block.patch_size, block.n_heads
    W = {name: value.detach().numpy() for name, value in block.named_parameters()}
    C, height, width = x.shape
    n_basis, d = W["basis"].shape[2], C // heads
    softmax = lambda s: np.exp(s - s.max()) / np.exp(s - s.max()).sum()  # noqa: E731
    out = x.copy()
    for top in range(0, height, p):
        for left in range(0, width, p):
            points = [(i, j) for i in range(top, min(top + p, height)) for j in range(left, min(left + p, width))]
            V = np.array([x[:, i, j] for i, j in points])
            both = V @ W["keys_values.weight"][:, :, 0, 0].T + W["keys_values.bias"]
            Q = V @ W["point_queries.weight"][:, :, 0, 0].T + W["point_queries.bias"]
            for head in range(heads):
                at = slice(head * d, (head + 1) * d)
                keys, values = both[:, at], both[:, C + head * d : C + (head + 1) * d]
                tokens = np.array([t + softmax(keys @ t) @ values for t in W["queries"][head]])
                for t in range(len(tokens)):
                    for k, z in enumerate(tokens[t].copy()):
                        a, b = W["basis"][:, head * d + k]
                        series = (m * math.pi * z / n_basis for m in range(n_basis))
                        tokens[t, k] = z + sum(a[m] * math.sin(u) + b[m] * math.cos(u) for m, u in enumerate(series))
                for (i, j), q in zip(points, Q[:, at]):
                    out[at, i, j] += softmax(tokens @ q) @ tokens
    return out


@pytest.mark.parametrize("grid", [(4, 4), (8, 6), (5, 7), (9, 1), (1, 1), (2, 3)])
def test_a_block_is_its_formulas_point_by_point(grid):
    block = SpectralBlock(6, seeded(), n_basis=4, n_tokens=3, n_heads=2, patch_size=4).double()
    x = torch.randn(2, 6, *grid, generator=seeded(1), dtype=torch.float64)
    expected = np.stack([slow_block(block, field) for field in x.numpy()])
    np.testing.assert_allclose(block(x).detach().numpy(), expected, atol=1e-12)


def test_a_series_is_of_values_and_not_of_places():
    block = SpectralBlock(4, seeded(), n_basis=5, n_tokens=2, n_heads=2, patch_size=4).double()
    tokens = torch.randn(2, 2, 2, 7, generator=seeded(1), dtype=torch.float64)
    order = torch.tensor([3, 1, 0, 6, 5, 2, 4])
    torch.testing.assert_close(block.series(tokens)[..., order], block.series(tokens[..., order]))
    with torch.no_grad():
        block.basis.zero_()
    torch.testing.assert_close(block.series(tokens), tokens)


def test_gradients_of_a_block():
    block = SpectralBlock(4, seeded(), n_basis=3, n_tokens=2, n_heads=2, patch_size=2).double()
    x = torch.randn(1, 4, 3, 2, generator=seeded(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, x)


# The network


def network(grid=(8, 8), **settings):
    given = {"width": 8, "n_levels": 3, "n_basis": 3, "n_tokens": 2, "n_heads": 4, "patch_size": 4}
    return LatentSpectralNet(seeded(), grid=grid, channels_in=2, channels_out=3, **{**given, **settings})


def n_parameters(net):
    return sum(part.numel() for part in net.parameters())


def test_channels_of_levels():
    assert [level_channels(16, n) for n in (1, 2, 4)] == [[16], [16, 16], [16, 32, 64, 64]]


def test_a_basis_function_is_two_parameters_per_channel_and_level():
    more = n_parameters(network(n_basis=4)) - n_parameters(network())
    assert more == 2 * (8 + 16 + 16)


@pytest.mark.parametrize("grid", [(8, 8), (13, 18), (3, 2), (7, 1), (1, 1)])
@pytest.mark.parametrize("n_levels", [1, 3, 5])
def test_a_field_keeps_its_size(grid, n_levels):
    net = network(grid, n_levels=n_levels).eval()
    assert net(torch.randn(2, 2, *grid, generator=seeded())).shape == (2, 3, *grid)


def test_an_axis_of_one_point_is_not_convolved_over():
    assert network((9, 1)).down[0][0].weight.shape == (8, 8, 3, 1)
    assert network((1, 1)).down[0][0].weight.shape == (8, 8, 1, 1)


def test_levels_of_auto():
    found = {grid: solver.auto_levels(grid) for grid in [(1, 1), (4, 4), (7, 9), (8, 8), (16, 100), (16,), (16, 1)]}
    assert list(found.values()) == [1, 1, 1, 2, 3, 3, 3]
    assert solver.auto_levels((1000, 1000)) == 5
    assert tiny(n_levels="auto").fit(X, Y).n_levels_ == 2


def test_batch_normalisation_trains_on_a_single_point():
    norm, plain = BatchNorm(3), nn.BatchNorm2d(3)
    x = torch.randn(1, 3, 1, 1, generator=seeded())
    torch.testing.assert_close(norm(x), plain.eval()(x))
    more = torch.randn(4, 3, 2, 2, generator=seeded())
    torch.testing.assert_close(norm(more), plain.train()(more))


# The loss and its units


@pytest.mark.parametrize("relative", [True, False])
def test_a_loss_is_that_of_fields_in_their_units(relative):
    problem = solver.field_problem(*tensors(), (8, 12), (8, 12), (8, 12), settings(relative))
    inputs, target = problem.batches.make(torch.arange(5))
    assert inputs.shape == (5, 1, 8, 12)
    guess = torch.randn(5, 1, 8, 12, generator=seeded())
    units = [part.numpy().reshape(8, 12) for part in problem.units]
    errors = guess.numpy()[:, 0] * units[3] + units[2] - 7 * Y[:5]
    lengths = np.linalg.norm(errors.reshape(5, -1), axis=1)
    expected = lengths / np.linalg.norm(7 * Y[:5].reshape(5, -1), axis=1)
    if not relative:
        expected = lengths**2 / np.square(7 * Y - 7 * Y.mean(0)).mean() / 96
    assert float(problem.loss(guess, target)) == pytest.approx(expected.mean(), rel=1e-5)


def tensors():
    return torch.from_numpy(X.reshape(24, -1)), torch.from_numpy(7 * Y.reshape(24, -1))


def settings(relative):
    given = tiny(loss="relative_l2" if relative else "mse").get_params()
    return solver.Options(**{name: given[name] for name in solver.Options._fields})


def test_norms_of_fields_of_zeros_are_typical():
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64)
    typical = math.sqrt(25 / 4) * math.sqrt(2)
    torch.testing.assert_close(solver.lengths(rows), torch.tensor([5.0, typical], dtype=torch.float64))
    assert solver.lengths(torch.zeros(2, 3)).tolist() == pytest.approx([3**0.5] * 2)
    huge = solver.lengths(rows * 1e250)
    torch.testing.assert_close(huge / 1e250, solver.lengths(rows))


@pytest.mark.parametrize("n_rows", [17, 33, 40, 1])
def test_sizes_of_batches_differ_by_one(n_rows):
    batches = solver.even_batches(None, n_rows, 16)
    drawn = list(batches.drawn(seeded()))
    sizes = [len(batch) for batch in drawn]
    assert len(sizes) == batches.per_epoch(16)
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= 17
    assert sorted(torch.cat(drawn).tolist()) == list(range(n_rows))


def test_fields_follow_units():
    plain = tiny().fit(X, Y).predict(X)
    scaled = tiny().fit(X * 1024, Y * 2.0**40).predict(X * 1024)
    np.testing.assert_allclose(scaled / 2.0**40, plain, atol=1e-12)


def test_fields_of_zeros_and_constant_points_do_no_harm():
    zero = Y.copy()
    zero[:3], zero[:, 0, 0] = 0, 0
    model = tiny(max_iter=4).fit(X, zero)
    assert np.isfinite(model.predict(X)).all()
    assert max(model.loss_curve_) < 3
    assert np.abs(model.predict(X)[:, 0, 0]).max() < 3


@pytest.mark.parametrize("factor", [1.0, 2.0**-80, 2.0**80])
def test_a_fixed_boundary_is_exact_and_changes_no_loss(factor):
    """A point at which y is constant takes no part in the loss, whatever the units of y are."""
    held = factor * Y
    held[:, 0] = 0.1 * factor
    model = tiny(loss="mse").fit(X, held)
    assert not model.y_scale_[:12].any()
    assert (model.predict(-X)[:, 0] == 0.1 * factor).all()
    assert model.score(X, held) > 1 / 8
    module = model.network()
    edge = module(torch.from_numpy(X[:, None]).float())[:, :, 0] / factor
    torch.testing.assert_close(edge, torch.full_like(edge, 0.1))
    plain = tiny(loss="mse").fit(X, np.where(np.arange(8)[:, None] == 0, 0.1, Y))
    np.testing.assert_allclose(model.predict(X) / factor, plain.predict(X), atol=1e-12)
    assert model.loss_curve_ == pytest.approx(plain.loss_curve_, rel=1e-6)
    assert max(model.loss_curve_) < 2


def test_a_single_field_is_predicted_as_it_is():
    model = tiny().fit(X[:1], Y[:1])
    np.testing.assert_array_equal(model.predict(X[:1]), Y[:1])
    assert model.loss_curve_ == [0.0, 0.0]


@pytest.mark.parametrize("factor", [2.0**-80, 2.0**80])
def test_a_point_that_was_constant_in_x_follows_units(factor):
    held = X.copy()
    held[:, 2, 3] = 1.0
    plain, scaled = tiny().fit(held, Y), tiny().fit(factor * held, Y)
    assert plain.scale_.reshape(8, 12)[2, 3] == pytest.approx(np.sqrt(held.var(0).mean()))
    np.testing.assert_allclose(scaled.predict(factor * X), plain.predict(X), atol=1e-12)


@pytest.mark.parametrize("n_rows", [1, 13])
def test_few_fields(n_rows):
    assert np.isfinite(tiny(n_levels=5).fit(X[:n_rows], Y[:n_rows]).predict(X)).all()


def test_a_single_row_of_a_table():
    assert tiny().fit(X[:1, 0], Y[:1, 0, 0]).predict(X[:, 0]).shape == (24,)


# Layouts


def test_layouts_are_one():
    plain = tiny().fit(X, Y).predict(X)
    flat = tiny(grid_shape=(8, 12)).fit(X.reshape(24, -1), Y.reshape(24, -1)).predict(X.reshape(24, -1))
    mixed = tiny().fit(X[..., None], Y.reshape(24, -1)).predict(X.reshape(24, -1))
    listed = tiny().fit(X.tolist(), Y.tolist()).predict(X.tolist())
    for other in (flat, mixed, listed):
        np.testing.assert_array_equal(other.reshape(plain.shape), plain)
    assert flat.shape == (24, 96)
    assert tiny().fit(X, Y[..., None]).predict(X).shape == (24, 8, 12, 1)


def test_channels_are_last():
    both = np.stack([X, Y], -1)
    three = np.stack([Y, X, X + Y], -1)
    deep = tiny().fit(both, three).predict(both)
    flat = tiny(grid_shape=(8, 12)).fit(both.reshape(24, -1), three.reshape(24, -1)).predict(both.reshape(24, -1))
    np.testing.assert_array_equal(flat.reshape(deep.shape), deep)
    module = tiny().fit(both, three).network()
    out = module(torch.from_numpy(np.moveaxis(both, -1, 1)).float())
    np.testing.assert_allclose(np.moveaxis(out.detach().numpy(), 1, -1), deep, atol=1e-4)


def test_a_corner_of_a_channel_arrives_at_its_place():
    fields, corner = np.zeros((100, 4, 6, 2)), np.zeros((100, 4, 6))
    fields[..., 1] = g.normal(size=(100, 4, 6))
    corner[:, 0, 5] = fields[:, 0, 5, 1]
    model = tiny(max_iter=25, loss="mse", batch_size=25).fit(fields, corner)
    found = model.predict(fields)
    assert np.corrcoef(found[:, 0, 5], corner[:, 0, 5])[0, 1] > 0.9
    found[:, 0, 5] = 0
    assert np.abs(found).max() < 0.5


def test_lines_and_tables():
    line = g.normal(size=(20, 24))
    assert tiny(grid_shape=(24,)).fit(line, line).predict(line).shape == (20, 24)
    deep = line.reshape(20, 12, 2)
    model = tiny(grid_shape=(12,)).fit(deep, line[:, ::2])
    np.testing.assert_array_equal(model.predict(deep), model.predict(line))
    assert model.predict(line).shape == (20, 12)
    assert tiny().fit(line, line[:, :2]).predict(line).shape == (20, 2)


class Named:
    """An array that numpy can read and that cannot be reshaped, as those with names of axes."""

    def __init__(self, values):
        self.values, self.shape, self.ndim, self.dtype = values, values.shape, values.ndim, values.dtype

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


def test_arrays_of_other_kinds():
    plain = tiny().fit(X, Y).predict(X)
    fixed = X.copy()
    fixed.flags.writeable = False
    for wrap in (Named, list, np.asfortranarray, torch.from_numpy, lambda values: values.astype(object)):
        np.testing.assert_array_equal(tiny().fit(wrap(X), wrap(Y)).predict(wrap(X)), plain)
    np.testing.assert_array_equal(tiny().fit(fixed, Y).predict(fixed), plain)


def test_sparse_targets_are_refused():
    with pytest.raises(TypeError, match=r"Pass y.toarray"):
        tiny(grid_shape=(8, 12)).fit(X.reshape(24, -1), csr_array(Y.reshape(24, -1)))


def test_tensors_with_axes_of_a_grid():
    plain = tiny().fit(X, Y)
    with config_context(array_api_dispatch=True):
        both = torch.from_numpy(X), torch.from_numpy(Y)
        model = tiny().fit(*both)
        found = model.predict(both[0])
        assert isinstance(found, torch.Tensor)
        np.testing.assert_array_equal(found, plain.predict(X))
        assert model.score(*both) == plain.score(X, Y)
        assert model.relative_l2(*both) == plain.relative_l2(X, Y)


def test_callbacks_score_fields_with_axes():
    monitor = ScoringMonitor(scoring={"error": lambda fitted, X, y: fitted.relative_l2(X, y)})
    model = tiny().set_callbacks(monitor).fit(X, Y)
    errors = monitor.get_logs().data_as_pandas["error"].dropna()
    assert len(errors) >= 2
    assert errors.iloc[-1] == model.relative_l2(X, Y)


# Answers


def test_an_answer_does_not_depend_on_other_fields():
    model = tiny().fit(X, Y)
    alone = np.concatenate([model.predict(X[i : i + 1]) for i in range(24)])
    np.testing.assert_allclose(alone, model.predict(X), atol=1e-12)
    np.testing.assert_allclose(model.predict(X[::-1])[::-1], alone, atol=1e-12)


def test_scores():
    model = tiny().fit(X, Y)
    guess = model.predict(X)
    weights = g.uniform(size=24)
    flat = [part.reshape(24, -1) for part in (Y, guess)]
    assert model.score(X, Y) == pytest.approx(r2_score(*flat))
    assert model.score(X, Y, sample_weight=weights) == pytest.approx(r2_score(*flat, sample_weight=weights))
    norms = [np.linalg.norm(part, axis=1) for part in (flat[1] - flat[0], flat[0])]
    assert model.relative_l2(X, Y) == pytest.approx((norms[0] / norms[1]).mean())
    with pytest.raises(ValueError, match="y has 8 numbers per field"):
        model.score(X, Y[:, :, 0])
    with pytest.raises(ValueError, match="inconsistent"):
        model.relative_l2(X, Y[:5])
    with pytest.raises(ValueError, match=r"y has fields of the shape \(12, 8\)"):
        model.score(X, Y.transpose(0, 2, 1))
    assert model.score(X.tolist(), Y.tolist()) == model.score(X, Y[..., None])


def test_coefficients_are_in_use_and_are_read_from_the_weights():
    model = pickle.loads(pickle.dumps(tiny().fit(X, Y)))
    before = model.predict(X)
    shapes = [value.shape for name, value in model.weights_.items() if name.endswith("basis")]
    assert shapes == [(2, 8, 3), (2, 8, 3)]
    for name, value in model.weights_.items():
        if name.endswith("basis"):
            value[...] = 0
    assert np.linalg.norm(model.predict(X) - before) > 0.01 * np.linalg.norm(before)
    assert model.n_parameters_ == n_parameters(model.network())


def test_float32_and_tensors():
    single = tiny().fit(X.astype(np.float32), Y.astype(np.float32))
    assert single.predict(X.astype(np.float32)).dtype == np.float32
    assert single.mean_.dtype == np.float64
    np.testing.assert_allclose(single.predict(X.astype(np.float32)), tiny().fit(X, Y).predict(X), atol=0.02)


def test_small_blocks_change_nothing(monkeypatch):
    model = tiny().fit(X, Y)
    before = model.predict(X)
    monkeypatch.setattr(solver, "_bytes_per_field", lambda model: 1 << 40)
    np.testing.assert_allclose(model.predict(X), before, atol=1e-12)


def test_inpainting_beats_ridge():
    """The map from holes at random places to what is in them is not linear."""
    images = np.random.default_rng(1).permutation(load_digits().images / 16)[:600]
    mask = np.ones_like(images)
    for hole, (row, column) in zip(mask, g.integers(0, 6, (600, 2))):
        hole[row : row + 3, column : column + 3] = 0
    both, train, test = np.stack([images * mask, mask], -1), slice(0, 500), slice(500, 600)
    model = tiny(max_iter=8, loss="mse", batch_size=25).fit(both[train], images[train])
    flat = both.reshape(600, -1)
    ridge = RidgeCV(np.logspace(-2, 4, 7)).fit(flat[train], images[train].reshape(500, -1))
    holes = mask[test] == 0
    found = [part.reshape(100, 8, 8)[holes] for part in (model.predict(both[test]), ridge.predict(flat[test]))]
    errors = [np.square(part - images[test][holes]).mean() for part in found]
    assert errors[0] < 0.9 * errors[1]


@pytest.mark.cuda
def test_a_gpu_answers_as_the_processor():
    there = tiny(device="cuda").fit(X, Y)
    found = there.predict(X)
    np.testing.assert_allclose(there.set_params(device="cpu").predict(X), found, atol=1e-8)
    np.testing.assert_allclose(tiny(device="cpu").fit(X, Y).predict(X), found, atol=0.05)


# Refusals


def with_one(fields, value):
    """Return fields of which one number is another one."""
    changed = fields.copy()
    changed[3, 2, 1] = value
    return changed


@pytest.mark.parametrize(
    ("params", "fields", "targets", "message"),
    [
        ({"width": 10}, X, Y, r"width=10 has to be a multiple of n_heads=4.*width=12"),
        ({"grid_shape": (8, 11)}, X.reshape(24, -1), Y.reshape(24, -1), r"grid_shape=\(8, 11\) has 88 points, and X"),
        ({"grid_shape": (8, 12)}, X.reshape(24, -1), Y[:, 0], r"grid_shape=\(8, 12\) has 96 points, and y has 12"),
        ({}, X, Y[:, 0, 0], r"y has 1 columns.*NetworkRegressor"),
        ({"grid_shape": (12, 8)}, X, Y, r"grid_shape=\(12, 8\) is not the grid of X"),
        ({}, X, Y[:, :4], r"grid_shape=\(8, 12\) is not the grid of y"),
        ({}, X[..., None, None], Y, r"is not the grid of X"),
        ({}, X.reshape(24, -1), Y, r"grid_shape is None.*Pass grid_shape=\(8, 12\)"),
        ({"grid_shape": (0, 4)}, X, Y, r"grid_shape=\(0, 4\) has to be"),
        ({"grid_shape": (True, 96)}, X, Y, r"grid_shape=\(True, 96\) has to be"),
        ({"grid_shape": (2, 2, 2)}, X, Y, r"grid_shape=\(2, 2, 2\) has to be"),
        ({"grid_shape": (8.0, 12)}, X, Y, r"grid_shape=\(8.0, 12\) has to be"),
        ({}, X, Y[:5], "inconsistent"),
        ({}, with_one(X, np.nan), Y, "X contains NaN"),
        ({}, X, with_one(Y, np.inf), "y contains infinity"),
    ],
)
def test_refusals(params, fields, targets, message):
    with pytest.raises(ValueError, match=message):
        tiny(**params).fit(fields, targets)


def test_another_grid_is_refused():
    model = tiny().fit(X, Y)
    for other in (X[:, :4], X.reshape(24, 12, 8), X.reshape(24, 4, 12, 2)):
        with pytest.raises(ValueError, match=r"fitted to height, width|features"):
            model.predict(other)
