"""Modes of torch around a call do not reach into it."""

import inspect

import numpy as np
import pytest
import torch

from sklowrank._core.modes import in_plain_modes, plain_modes
from sklowrank.datasets import make_union_of_subspaces
from sklowrank.mixture import LowRankGaussianMixture


@pytest.mark.parametrize(
    "mode",
    [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)],
    ids=["no_grad", "inference_mode", "autocast"],
)
def test_plain_modes(mode):
    weight = torch.ones(2, 2, requires_grad=True)
    with mode(), plain_modes():
        assert torch.is_grad_enabled()
        out = (weight @ torch.full((2, 2), 1.001)).sum()
        out.backward()
        assert out.item() == pytest.approx(8.008, rel=1e-6)  # 8.0 in bfloat16
    assert weight.grad is not None


@in_plain_modes
def product(a, b=2):
    """Of two numbers."""
    return a * b, torch.is_grad_enabled()


def test_decorated_functions_stay_what_they_were():
    assert str(inspect.signature(product)) == "(a, b=2)"
    assert product.__doc__ == "Of two numbers."
    with torch.no_grad():
        assert product(3) == (6, True)
        assert not torch.is_grad_enabled()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_every_fit_may_use_gradients(mode):
    X, _, _ = make_union_of_subspaces(60, 5, n_dims=1, n_clusters=2, noise=0.1, random_state=0)
    model = LowRankGaussianMixture(2, n_dims=1, solver="diffusion", solver_params={"max_steps": 20}, random_state=0)
    expected = model.fit(X).means_
    with mode():
        assert np.array_equal(model.fit(X).means_, expected)
