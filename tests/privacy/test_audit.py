"""An attacker who knows all but one row cannot prove more than is guaranteed, and proves more where noise is halved."""

import math
import warnings

import numpy as np
import pytest
from scipy.stats import norm

from benchmarks.private_kernel_density import _proved, audit
from sklowrank.privacy import _mechanism


@pytest.fixture(autouse=True)
def _device(monkeypatch):
    monkeypatch.setenv("SKLOWRANK_BENCH_DEVICE", "cpu")
    with warnings.catch_warnings():
        yield


def test_bounds_of_two_normal_distributions():
    """Of shift mu: the bound is below it, and by no more than 99 % confidence costs with 4,000 draws."""
    rng = np.random.default_rng(0)
    for mu in (0.0, 0.5, 2.0):
        present, absent = rng.normal(mu, size=8000), rng.normal(size=8000)
        found = _proved(present, absent, lambda hit, alarm: norm.ppf(hit) - norm.ppf(alarm))
        assert mu - 0.25 < found <= mu


@pytest.mark.parametrize("similarity", ["gaussian", "linear"])
def test_audit_on_mu_passes_the_right_gaussian_noise_and_fails_half_of_it(similarity):
    """An audit on epsilon does not see half of the noise: its bound stays below the epsilon that is guaranteed."""
    right, half = (audit(similarity, "gaussian", 1.0, 1e-6, share) for share in (1.0, 0.5))
    assert right["guaranteed"] == pytest.approx(1 / 4.531, rel=1e-3)
    assert right["mu"] <= right["guaranteed"] < half["mu"]
    assert right["epsilon"] < half["epsilon"] < 1.0


@pytest.mark.parametrize("similarity", ["gaussian", "linear"])
def test_audit_on_epsilon_passes_the_right_laplace_noise_and_fails_half_of_it(similarity):
    right, half = (audit(similarity, "laplace", 1.0, 0.0, share) for share in (1.0, 0.5))
    assert 0.6 < right["epsilon"] <= 1.0 < half["epsilon"]


def test_an_audit_leaves_the_noise_as_it_was():
    before = _mechanism.add_noise
    audit("linear", "laplace", 1.0, 0.0, 0.5, n=10)
    assert _mechanism.add_noise is before


def test_calibration_needs_no_allowance_for_the_sampler():
    """An exact sampler wastes nothing of delta: the scale is that of the whole delta, for any number of draws."""
    from sklowrank.privacy import PrivateKernelDensity
    from sklowrank.privacy._accountant import gaussian_scale

    rows = np.zeros((1, 1))
    for epsilon, delta, n in ((1.0, 1e-6, 2), (8.0, 1e-6, 4096), (30.0, 1e-9, 64), (0.5, 1e-15, 64)):
        params = {"epsilon": epsilon, "delta": delta, "n_components": n, "mechanism": "gaussian"}
        model = PrivateKernelDensity(noise_backend="builtin", **params).fit(rows)
        least = gaussian_scale(epsilon, delta) * math.hypot(1.0, 0.25)
        assert least <= model.noise_scale_ <= least * (1 + 1e-5)
