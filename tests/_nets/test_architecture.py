"""How networks are built, edited, stored as plain data and built again."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

from sklowrank._nets.architecture import (
    Architecture,
    Edit,
    architecture_of,
    as_numpy,
    build,
    edited,
    load_weights,
    replay,
    restore,
    split_params,
    width_of,
)
from sklowrank._nets.layers import ThinLinear, mlp
from sklowrank._nets.training import current_edits

CPU = torch.device("cpu")


def seeded(seed=0):
    return torch.Generator("cpu").manual_seed(seed)


@pytest.mark.parametrize("name", ["batch_size", "lr", "device", "iterator_train__shuffle", "criterion", "max_epochs"])
def test_what_the_estimator_decides_is_refused(name):
    with pytest.raises(ValueError, match=f"'{name}'.*cannot be set"):
        split_params({name: 1})


def test_arguments_of_the_module_are_told_from_those_of_skorch():
    module, rest = split_params({"module__dropout": 0.1, "optimizer__betas": (0.8, 0.9)})
    assert module == {"dropout": 0.1}
    assert rest == {"optimizer__betas": (0.8, 0.9)}
    assert split_params(None) == ({}, {})


class Own(nn.Module):
    """A network of the user's own."""

    def __init__(self, n_features, width=7):
        super().__init__()
        self.layer = nn.Linear(n_features, width)

    def forward(self, x):
        return self.layer(x)


def test_networks_of_ones_own():
    assert width_of(build(Architecture(Own, {}, (3,)), seeded()), (3,)) == 7
    assert width_of(build(Architecture(Own, {"width": 4}, (3,)), seeded()), (3,)) == 4
    assert width_of(build(Architecture(lambda: nn.Linear(3, 2), {}, (3,)), seeded()), (3,)) == 2
    instance = Own(3)
    trunk = build(Architecture(instance, {}, (3,)), seeded())
    assert trunk is not instance
    assert torch.equal(trunk.layer.weight, instance.layer.weight)
    with pytest.raises(ValueError, match="module is an instance"):
        architecture_of(instance, {"module__width": 4}, (3,))
    with pytest.raises(ValueError, match=r"has to map \(n, 3\) to \(n, width\); one row gave \(1, 1, 2\)"):
        width_of(nn.Sequential(nn.Linear(3, 2), nn.Unflatten(1, (1, 2))), (3,))
    for wrong in (nn.Linear(7, 2), nn.Conv2d(1, 2, 3), nn.Module(), nn.Embedding(9, 2)):
        with pytest.raises(ValueError, match=r"module has to map rows of n_features_in_=3 columns to .* 3 inputs"):
            width_of(wrong, (3,))


def test_weights_survive_as_arrays():
    net, other = (
        mlp((3,), None, seeded(), hidden_layer_sizes=[5, 4], batch_norm=True),
        mlp((3,), None, seeded(), hidden_layer_sizes=[5, 4], batch_norm=True),
    )
    X = torch.randn(6, 3, generator=seeded())
    net(X)  # batch normalisation remembers
    stored = as_numpy(net.state_dict())
    assert all(type(value) is np.ndarray for value in stored.values())
    there = load_weights(other, stored, CPU)
    assert not there.training
    assert torch.equal(there(X), net.eval()(X))
    stored["0.weight"][:] = 0
    assert there[0].weight.abs().sum() > 0


def test_arguments_of_the_default_network():
    default = {"hidden_layer_sizes": [4], "activation": "relu", "dropout": 0.0}
    found = architecture_of(None, {"module__dropout": 0.3, "optimizer": torch.optim.SGD}, (3,), 2, **default)
    assert found == Architecture(None, {**default, "dropout": 0.3}, (3,), 2)
    with pytest.raises(ValueError, match=r"'module__width'.* unknown .*: module__activation, module__dropout"):
        architecture_of(None, {"module__width": 3}, (3,), 2, **default)
    whole = architecture_of(lambda n_features, n_outputs: nn.Linear(n_features, n_outputs), None, (3,), 2, **default)
    assert build(whole, None).out_features == 2
    with pytest.raises(ValueError, match=r"module has to map \(n, 3\) to \(n, 2\); one row gave \(1, 5\)"):
        build(architecture_of(nn.Linear(3, 5), None, (3,), 2), None)


def test_edits_are_replayed_where_a_network_is_built_again():
    architecture = Architecture(None, {"hidden_layer_sizes": [8, 6]}, (5,), 2)
    net = build(architecture, seeded())
    edits = [edited(net, "2", ThinLinear.nearest_to(net[2], 3)), edited(net, "0", ThinLinear.nearest_to(net[0], 2))]
    assert edits == [Edit("2", "thin", (8, 6, 3, 1)), Edit("0", "thin", (5, 8, 2, 1))]
    edits.append(edited(net, "2", net[2].multiplied_out()))
    net[0].down, net[0].up = nn.Parameter(net[0].down[:1]), nn.Parameter(net[0].up[:, :1])  # truncated since
    edits = current_edits(net, edits)
    assert edits == (Edit("2", "linear", (8, 6, 1)), Edit("0", "thin", (5, 8, 1, 1)))
    stored = pickle.loads(pickle.dumps((architecture._replace(edits=edits), as_numpy(net.state_dict()))))
    again, X = restore(*stored), torch.randn(4, 5, generator=seeded(1))
    assert torch.equal(again(X), net(X))
    former = dict(again.named_modules())
    replay(again, edits)
    assert dict(again.named_modules()) == former  # nothing had to be replaced
