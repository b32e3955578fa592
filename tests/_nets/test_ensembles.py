"""Networks of one architecture: those computed at once are those computed one by one."""

import numpy as np
import torch

from sklowrank._nets.architecture import Architecture
from sklowrank._nets.ensembles import OneByOne, build_ensemble, ensemble_outputs, restore_ensemble
from sklowrank._nets.layers import SideBySide
from sklowrank._nets.randomness import fixed_randomness


def test_networks_side_by_side_are_those_one_by_one():
    generator = torch.Generator().manual_seed(0)
    nets = SideBySide(3, 4, 2, generator, hidden_layer_sizes=(8, 5), activation="tanh", dropout=0.5)
    parts, single = nets.parts(), []
    for part in parts:
        layers = [torch.nn.Linear(a, b) for a, b in ((4, 8), (8, 5), (5, 2))]
        for i, layer in enumerate(layers):
            layer.weight.data, layer.bias.data = part[f"weights.{i}"].T, part[f"biases.{i}"][0]
        single.append(torch.nn.Sequential(layers[0], torch.nn.Tanh(), layers[1], torch.nn.Tanh(), layers[2]))
    X = torch.randn(7, 4, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = torch.cat([net(X) + X @ part["straight"] for net, part in zip(single, parts)], 1)
    assert torch.allclose(ensemble_outputs(nets, X).float(), expected, atol=1e-5)
    twin = OneByOne([torch.nn.Sequential(net[:4], net[4]) for net in single])
    with torch.inference_mode():
        assert torch.allclose(ensemble_outputs(twin, X).float(), torch.cat([net(X) for net in single], 1), atol=1e-5)


def test_the_users_networks_get_a_linear_layer_and_come_back_with_their_weights():
    architecture = Architecture(torch.nn.Linear, {"in_features": 4, "out_features": 3}, (4,), 2)
    randomness = fixed_randomness()
    with randomness.scope():
        nets = build_ensemble(architecture, 2, randomness.layers)
    parts = nets.parts()
    assert [tuple(part["1.weight"].shape) for part in parts] == [(2, 3)] * 2
    assert not torch.equal(parts[0]["0.weight"], parts[1]["0.weight"])
    X = torch.randn(9, 4, generator=torch.Generator().manual_seed(1))
    again = restore_ensemble(
        architecture, [{name: value.numpy() for name, value in part.items()} for part in parts], "cpu"
    )
    assert np.array_equal(ensemble_outputs(nets, X), ensemble_outputs(again, X))
