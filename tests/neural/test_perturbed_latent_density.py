"""Latent densities of perturbed rows: the bound by its definition, closed forms, the choice, and the method's traps."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm, wasserstein_distance
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture

from sklowrank._core.fitted import recall
from sklowrank._core.workspace import open_workspace
from sklowrank.neural import PerturbedLatentDensity
from sklowrank.neural import _perturbed_latent_density_solver as solver
from sklowrank.neural._perturbed_latent_density_network import LatentDensity

QUICK = {"n_components": 2, "n_importance": 3, "hidden_layer_sizes": (8,), "max_iter": 5, "random_state": 0}


def ring(n=400, seed=0):
    a = np.random.default_rng(seed).uniform(0, 2 * np.pi, n)
    return np.c_[np.cos(a), np.sin(a)]


def fitted(X=None, perturbation=0.1, **params):
    return PerturbedLatentDensity(perturbation=perturbation, **{**QUICK, **params}).fit(ring(90) if X is None else X)


@pytest.fixture(scope="module")
def circle():
    """A density of a circle, trained in earnest."""
    return fitted(ring(), 0.2, hidden_layer_sizes=(32, 32), max_iter=150, batch_size=64, learning_rate=1e-2)


# The bound


def density(**params):
    shape = {"n_features": 3, "n_components": 2, "hidden_layer_sizes": [5, 4], "activation": "tanh"}
    shape |= {"noise": None, "min_noise": 1e-3, **params}
    return LatentDensity(torch.Generator("cpu").manual_seed(0), **shape).double()


def test_the_bound_is_its_definition():
    net, g = density(), torch.Generator("cpu").manual_seed(1)
    x = torch.randn(4, 3, generator=g, dtype=torch.float64)
    draws = torch.randn(4, 6, 2, generator=g, dtype=torch.float64)
    noise = float(net.noise().detach())
    assert noise == pytest.approx(math.exp(-1) + 1e-3)
    for row, e, found in zip(x, draws, net(x, draws).detach().numpy()):
        mean, log_variance = net.encoder(row).detach().numpy().reshape(2, 2)
        sd, weights = np.exp(log_variance / 2), []
        for k in range(6):
            z = mean + sd * e[k].numpy()
            f = net.decoder(torch.from_numpy(z)).detach().numpy()
            weights.append(
                norm.logpdf(row.numpy(), f, noise).sum() + norm.logpdf(z).sum() - norm.logpdf(z, mean, sd).sum()
            )
        assert found == pytest.approx(logsumexp(weights) - math.log(6), abs=1e-10)


def test_layers_are_mirrored_and_fixed_noise_is_no_weight():
    net = density(noise=0.25)
    assert [m.out_features for m in net.encoder if hasattr(m, "out_features")] == [5, 4, 4]
    assert [m.out_features for m in net.decoder if hasattr(m, "out_features")] == [4, 5, 3]
    assert net.noise() == 0.25
    assert "log_noise" not in net.state_dict()
    assert "log_noise" in density().state_dict()


def test_a_batch_has_new_noise_of_the_size_asked_for():
    problem = solver.density_problem(
        torch.from_numpy(ring(2000) * [1.0, 100.0]),
        solver.Options(2, 0.3, 4, "learn", 1e-3, (8,), "gelu"),
        solver.Training(1, 100, 1e-3),
        torch.Generator("cpu").manual_seed(0),
    )
    batches = solver.perturbed_batches(problem, torch.Generator("cpu").manual_seed(0))
    first, second = (batches.make(torch.arange(2000))[0] for _ in range(2))
    assert first["draws"].shape == (2000, 4, 2)
    assert not torch.equal(first["x"], second["x"])
    for inputs in (first, second):
        moved = inputs["x"] - problem.rows
        torch.testing.assert_close(moved.std(0), torch.full((2,), 0.3), rtol=0.05, atol=0)  # of both columns


# What is fitted


def test_samples_lie_on_the_set_and_noise_is_added_where_asked(circle):
    unit = 0.2 * circle.scale_.mean()
    off = np.abs(np.linalg.norm(circle.sample(1000, random_state=1), axis=1) - 1)
    on = np.abs(np.linalg.norm(circle.sample(1000, random_state=1, noise=True), axis=1) - 1)
    assert off.mean() < 0.5 * unit
    assert on.mean() > 0.7 * unit
    assert 0.2 < circle.noise_ < 0.3  # that of the rows, and what the decoder misses
    assert circle.perturbation_ == 0.2


def test_the_density_is_above_that_of_one_gaussian_and_integrates_to_one(circle):
    T = ring(500, 1) + 0.2 * circle.scale_ * np.random.default_rng(0).normal(size=(500, 2))
    plain = GaussianMixture(1).fit(ring()).score(T)
    assert circle.score(T) > plain + 0.3
    grid = np.stack(np.meshgrid(*[np.linspace(-2.5, 2.5, 40)] * 2), -1).reshape(-1, 2)
    mass = np.exp(circle.score_samples(grid)).sum() * (5 / 39) ** 2
    assert 0.9 < mass < 1.05  # the draws bound it from below


def test_scores_are_those_of_the_prior_and_the_decoder(circle):
    Z = np.random.default_rng(0).normal(size=(50_000, 2))
    rows, width = ring(20, 3), circle.noise_ * circle.scale_
    means = circle.inverse_transform(Z)
    slow = [logsumexp(norm.logpdf(x, means, width).sum(1)) - math.log(len(Z)) for x in rows]
    np.testing.assert_allclose(circle.score_samples(rows).mean(), np.mean(slow), atol=0.05)


def test_a_gaussian_has_its_closed_form():
    g, C = np.random.default_rng(0), np.array([[1, 0.6], [0.6, 2.0]])
    X, T = (g.multivariate_normal([0, 1], C, size=1000) for _ in range(2))
    model = fitted(X, 0.2, hidden_layer_sizes=(32,), max_iter=40, learning_rate=1e-2, n_eval_samples=200)
    truth = multivariate_normal([0, 1], C + 0.04 * np.diag(model.scale_**2)).logpdf(T)
    assert model.score(T) == pytest.approx(truth.mean(), abs=0.1)
    assert model.score(T) == pytest.approx(model.score_samples(T).mean(), rel=1e-12)


def test_the_decoder_undoes_the_encoder(circle):
    T = ring(200, 5)
    assert np.square(circle.inverse_transform(circle.transform(T)) - T).mean() < 0.02


def test_a_row_is_scored_without_its_neighbours(circle):
    T = ring(30, 2)
    together = circle.score_samples(T)
    np.testing.assert_allclose([circle.score_samples(x[None])[0] for x in T], together, rtol=0, atol=1e-10)
    np.testing.assert_array_equal(circle.score_samples(T[::-1])[::-1], together)


def test_units_are_followed_exactly():
    X, a = ring(200), np.array([1024.0, 0.25])
    one, two = fitted(X), fitted(X * a)
    np.testing.assert_allclose(two.sample(50), one.sample(50) * a, rtol=1e-6)
    np.testing.assert_allclose(two.score_samples(X * a), one.score_samples(X) - np.log(a).sum(), atol=1e-6)


def test_the_network_has_the_units_of_the_rows():
    X = ring(60) * [5.0, 1e-3] + 7
    model = fitted(X)
    net = model.network()
    rows = torch.from_numpy(X).float()
    with torch.inference_mode():
        Z = net.encoder(rows)[:, :2]
        np.testing.assert_allclose(Z, model.transform(X), atol=1e-2)
        np.testing.assert_allclose(net.decoder(Z), model.inverse_transform(Z.double().numpy()), rtol=1e-4)
        np.testing.assert_allclose(net(rows), net.decoder(Z))
    assert not net.training


# Samples


def test_samples_are_seeded():
    model = fitted()
    np.testing.assert_array_equal(model.sample(7), model.sample(7))
    np.testing.assert_array_equal(model.sample(7, random_state=3), model.sample(7, random_state=3))
    assert not np.array_equal(model.sample(7, random_state=3), model.sample(7, random_state=4))
    assert model.sample().shape == (1, 2)
    for n_samples in (0, 1.5, True):
        with pytest.raises(ValueError, match="'n_samples' parameter of sample must be"):
            model.sample(n_samples)
    with pytest.raises(NotFittedError):
        PerturbedLatentDensity().sample()


def test_samples_have_the_precision_of_the_rows():
    X = ring(60).astype(np.float32)
    model = fitted(X)
    assert model.sample(3).dtype == model.transform(X).dtype == model.inverse_transform(X).dtype == np.float32
    assert fitted(np.arange(40).reshape(20, 2)).sample(3).dtype == np.float64


# The choice of the perturbation


def test_sliced_distances_are_means_of_those_of_scipy():
    g = torch.Generator("cpu").manual_seed(0)
    A, B, directions = (torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((30, 3), (30, 3), (3, 5)))
    units = (directions / directions.norm(dim=0)).numpy()
    expected = np.mean([wasserstein_distance(A.numpy() @ u, B.numpy() @ u) for u in units.T])
    assert float(solver.sliced_distance(A, directions)(B)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("excess", "expected"),
    [((0.0, 0.2, 0.2, 0.3, 0.4), 0.0), ((0.5, 0.2, 0.05, 0.0, 0.3), 0.1), ((0.4, 0.3, 0.2, 0.15, 0.0), 0.3)],
)
def test_the_least_perturbation_as_good_as_the_best_is_taken(monkeypatch, excess, expected):
    """Errors that all candidates share decide nothing; the others have a standard error of 0.094."""
    common, own = torch.linspace(1, 5, 8, dtype=torch.float64), 0.25 * torch.tensor([1.0, -1.0] * 4)
    found = {s: common + e + (own if e else 0) for s, e in zip(solver.CANDIDATES, excess)}
    monkeypatch.setattr(solver, "validation_distances", lambda problem: found)
    chosen, public = solver.with_perturbation(solver.Problem(*[None] * 4, "auto", *[None] * 4))
    assert chosen.perturbation == expected
    assert public["validation_distances_"] == {s: pytest.approx(float(d.mean())) for s, d in found.items()}


def test_the_automatic_fit_is_that_with_the_chosen_perturbation():
    auto = fitted(perturbation="auto", max_iter=3)
    assert set(auto.validation_distances_) == set(solver.CANDIDATES)
    same = fitted(perturbation=auto.perturbation_, max_iter=3)
    np.testing.assert_array_equal(auto.sample(20), same.sample(20))
    assert not hasattr(same, "validation_distances_")
    assert not hasattr(auto.set_params(perturbation=0.1).fit(ring(60)), "validation_distances_")


@pytest.mark.parametrize("n", [2, 3, 9])
def test_few_rows_have_one_batch(n):
    model = fitted(ring(n), "auto", max_iter=2)
    assert np.isfinite(model.score_samples(ring(n))).all()
    assert model.n_iter_ == len(model.loss_curve_) == 2


# Traps


def test_without_a_perturbation_repeated_rows_stay_finite():
    model = fitted(np.repeat(ring(20), 5, axis=0), 0.0, min_noise=1e-4, max_iter=100, learning_rate=1e-2)
    assert np.isfinite(model.loss_curve_).all()
    assert np.isfinite(model.score_samples(ring(20))).all()
    assert model.noise_ >= 1e-4


def test_constant_columns_come_back():
    X = np.c_[ring(200), np.full(200, 7.0)]
    model = fitted(X, max_iter=60, learning_rate=1e-2)
    assert model.scale_[2] == 1
    assert np.abs(model.sample(100)[:, 2] - 7).max() < 0.5


def test_a_given_noise_stays_and_more_components_than_features_are_taken():
    model = fitted(noise=0.3, n_components=4)
    assert model.noise_ == 0.3
    assert "log_noise" not in model.weights_
    assert model.transform(ring(5)).shape == (5, 4)
    wide = np.random.default_rng(0).normal(size=(30, 25))
    assert fitted(wide, n_components=None).transform(wide).shape == (30, 10)
    assert fitted(n_components=None).transform(ring(5)).shape == (5, 2)


def test_number_of_draws_brings_the_bound_up(circle):
    rows = ring(40, 6) * 1.3
    few, many = (np.mean([_rescored(circle, rows, n, seed) for seed in range(5)]) for n in (2, 200))
    assert many > few


def _rescored(model, rows, n_draws, seed):
    ws = open_workspace(rows, device="cpu").exact()
    value = recall(model, solver.Model, ws)._replace(seed=seed)
    X = torch.from_numpy((rows - model.mean_) / model.scale_)
    return float(solver.log_densities(solver.restored(value), X, solver.score_draws(value, n_draws, ws.device)).mean())


def test_refusals_name_what_is_wrong():
    with pytest.raises(ValueError, match="1 sample"):
        fitted(ring(1))
    model = fitted()
    with pytest.raises(ValueError, match=r"X has 5 columns.*n_components=2"):
        model.inverse_transform(np.zeros((3, 5)))
    for name, value in {"perturbation": -0.1, "noise": 0.0, "min_noise": 0.0, "learning_rate": 0.0}.items():
        with pytest.raises(ValueError, match=name):
            fitted(**{name: value})
    for n_draws in (0, "many"):  # set after the fit
        with pytest.raises(ValueError, match="n_eval_samples"):
            model.set_params(n_eval_samples=n_draws).score_samples(ring(5))
    with pytest.raises(ValueError, match="empty layer"):
        fitted(hidden_layer_sizes=(0,))


def test_a_fit_warns_of_nothing_and_is_silent(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted(perturbation="auto", max_iter=2)
    assert capsys.readouterr().out == ""
    fitted(perturbation="auto", max_iter=2, verbose=1)
    assert capsys.readouterr().out.count("step") == 2  # the candidates are not watched


@pytest.mark.cuda
def test_a_gpu_gives_the_scores_of_the_cpu():
    X = ring(200)
    here, there = (fitted(X, device=device).score_samples(X) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(there, here, atol=0.02)
