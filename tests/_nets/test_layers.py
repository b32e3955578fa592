"""Layers of our own networks: how they are drawn, and those of low rank."""

import numpy as np
import pytest
import torch
from torch import nn

from sklowrank._nets.layers import (
    Standardized,
    ThinLinear,
    dropout_layer,
    kind_and_shape,
    layer_of,
    layer_sizes,
    linear,
    low_rank_start,
    mlp,
)
from sklowrank._nets.randomness import Randomness


def seeded(seed=0):
    return torch.Generator("cpu").manual_seed(seed)


def test_layers_of_ours_draw_from_the_generator_of_the_fit_alone():
    before = torch.get_rng_state()
    first, second = linear(300, 5, seeded()), linear(300, 5, seeded())
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(before, torch.get_rng_state())
    assert first.weight.std().item() == pytest.approx(300**-0.5 / 3**0.5, rel=0.05)  # as torch initialises
    assert first.weight.abs().max() <= 300**-0.5
    assert all(p.requires_grad for p in first.parameters())
    own = Randomness(seeded(), torch.device("cpu"), seeds_global=False)
    with own.scope():
        torch.rand(1)
    assert not torch.equal(before, torch.get_rng_state())  # nothing was borrowed, so nothing was given back


def test_the_default_network_is_float32_whatever_the_default_is():
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert {p.dtype for p in mlp((3,), None, seeded(), hidden_layer_sizes=[5, 4]).parameters()} == {torch.float32}
    finally:
        torch.set_default_dtype(previous)


def test_the_default_network_is_made_of_layers_of_torch():
    net = mlp((3,), 2, None, hidden_layer_sizes=[5, 4], activation="tanh", dropout=0.5, batch_norm=True)
    kinds = [nn.Linear, nn.BatchNorm1d, nn.Tanh, nn.Dropout, nn.Linear, nn.Tanh, nn.Dropout, nn.Linear]
    assert [type(layer) for layer in net] == kinds
    for wrong in ({"hidden_layer_sizes": [5, 0]}, {"activation": "sine"}, {"dropout": 1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            mlp((3,), 2, None, **{"hidden_layer_sizes": [5], **wrong})


def test_dropout_draws_from_the_generator_and_keeps_the_mean():
    x, before = torch.ones(1000, 20), torch.get_rng_state()
    one, other = (dropout_layer(0.25, seeded())(x) for _ in range(2))
    assert torch.equal(one, other)
    assert one.unique().tolist() == pytest.approx([0, 4 / 3])
    assert one.mean().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(dropout_layer(0.25, seeded()).eval()(x), x)
    assert torch.equal(before, torch.get_rng_state())


def test_a_thin_layer_is_the_nearest_of_its_rank():
    layer, x = linear(7, 5, seeded()), torch.randn(4, 7, generator=seeded(1))
    full, two = ThinLinear.nearest_to(layer, 5), ThinLinear.nearest_to(layer, 2)
    torch.testing.assert_close(full(x), layer(x))
    s = torch.linalg.svdvals(layer.weight)
    error = torch.linalg.svdvals(layer.weight - two.up @ two.down)
    torch.testing.assert_close(error[:3], s[2:])
    torch.testing.assert_close(two.multiplied_out()(x), two(x))
    again = ThinLinear.nearest_to(two, 1)
    torch.testing.assert_close(torch.linalg.svdvals(again.up @ again.down)[0], s[0])


def test_the_weight_of_a_thin_layer_is_its_product_with_a_gradient():
    layer = ThinLinear.nearest_to(linear(7, 5, seeded()), 3)
    x = torch.randn(4, 7, generator=seeded(1))
    assert torch.allclose(nn.functional.linear(x, layer.weight, layer.bias), layer(x), rtol=0, atol=1e-6)
    layer.weight.sum().backward()
    assert (layer.up.grad != 0).all()
    assert "weight" not in layer.state_dict()


def test_a_thin_layer_takes_the_rank_of_weights_that_are_loaded():
    net, other = (nn.Sequential(ThinLinear.nearest_to(linear(7, 5, seeded()), rank)) for rank in (4, 2))
    net.load_state_dict(other.state_dict())
    assert net[0].down.shape == (2, 7)
    assert torch.equal(net[0].up, other[0].up)


@pytest.mark.parametrize(
    "layer", [nn.Linear(4, 3), nn.Linear(4, 3, bias=False), ThinLinear(4, 3, 2), ThinLinear(4, 3, 2, False)]
)
def test_layers_are_made_again_from_kind_and_shape(layer):
    again = layer_of(*kind_and_shape(layer))
    again.load_state_dict(layer.state_dict())
    assert type(again) is type(layer)
    with pytest.raises(TypeError, match="A ReLU cannot replace a layer"):
        kind_and_shape(nn.ReLU())


@pytest.mark.parametrize("shape", [(9, 9), (5, 12), (12, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_start_of_low_rank_keeps_the_norm_and_the_leading_directions(shape, dtype):
    W = torch.randn(*shape, generator=seeded(), device="cpu", dtype=dtype)
    before = W.clone()
    eps = torch.finfo(dtype).eps
    for rank in (1, 3):
        low = low_rank_start(W, rank)
        assert (low.dtype, low.shape) == (dtype, W.shape)
        U, s, Vh = torch.linalg.svd(W.double(), full_matrices=False)
        expected = U[:, :rank] @ torch.diag(s[:rank]) @ Vh[:rank] * s.norm() / s[:rank].norm()
        torch.testing.assert_close(low.double(), expected, atol=10 * eps, rtol=10 * eps)
        assert low.double().norm().item() == pytest.approx(W.double().norm().item(), rel=10 * eps)
        assert torch.linalg.svdvals(low.double())[rank:].max() < 100 * eps
    assert torch.equal(W, before)
    assert torch.equal(low_rank_start(W, min(shape)), W)  # bit for bit
    assert torch.equal(low_rank_start(torch.zeros(shape, dtype=dtype), 1), torch.zeros(shape, dtype=dtype))


def test_sizes_of_layers_are_ints():
    assert layer_sizes((np.int64(3), 4.0)) == layer_sizes(np.array([3, 4])) == [3, 4]
    assert layer_sizes(()) == []
    for given in ((8.5,), ("a",), ("8",), [[3], [4]], (None,), (float("nan"),), (float("inf"),)):
        with pytest.raises(ValueError, match=r"hidden_layer_sizes=.*no sequence of ints. Pass widths"):
            layer_sizes(given)


def test_standardized_networks_refuse_rows_of_another_width():
    net = Standardized(linear(3, 2, seeded()), torch.zeros(3), torch.ones(3))
    with pytest.raises(ValueError, match="rows of 3 columns, and these have 1"):
        net(torch.zeros(5, 1))
