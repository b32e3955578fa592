"""Networks of a method's own: images, generated weights, schedules, and the life of a training."""

import inspect
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin
from torch import nn

from sklowrank._core.workspace import open_workspace
from sklowrank._nets.batches import Batches, Walk
from sklowrank._nets.designs import Design, fit_design, own_randomness, scheduled, trained_weights
from sklowrank._nets.estimating import distinct_outputs
from sklowrank._nets.generated import as_perceptron, perceptron
from sklowrank._nets.images import as_images, as_rows, convolution, field_shape, flat_rows, image_shape_of
from sklowrank._nets.layers import Standardized, linear, mlp
from sklowrank._nets.schedules import cosine, one_cycle
from sklowrank._nets.training import Training


class Line(nn.Module):
    """A linear map to one output."""

    def __init__(self, generator, *, width):
        super().__init__()
        self.layer = linear(width, 1, generator)

    def forward(self, x):
        return self.layer(x)[:, 0]


class Fitting(CallbackSupportMixin, BaseEstimator):
    """An estimator as `drive` sees one."""

    def __init__(self, verbose=0):
        self.verbose = verbose


def rows(n=40, width=3):
    g = np.random.default_rng(0)
    X = g.normal(size=(n, width)).astype(np.float32)
    return X, (X @ np.arange(1.0, width + 1)).astype(np.float32)


def problem(n=40):
    X, y = (torch.from_numpy(part) for part in rows(n))
    return Batches(lambda at: (X[at], y[at]), n, whole=True), lambda out, y: (out - y).square().mean()


def fitted(y=None, *, estimator=None, **settings):
    batches, loss = problem()
    ws = open_workspace(rows()[0], device="cpu", random_state=0)
    plan = Training(max_iter=60, batch_size=16, learning_rate=0.1, **settings)
    described = lambda weights: (None, {"weights_": weights})  # noqa: E731
    return fit_design(
        estimator or Fitting(),
        Design(Line, {"width": 3}),
        batches,
        loss,
        plan,
        ws=ws,
        randomness=own_randomness(ws),
        described=described,
        schedule=cosine,
        X=rows()[0],
        y=y,
    )


def test_a_fit_says_what_is_kept_and_is_seeded():
    found, again = fitted().attributes, fitted().attributes
    assert set(found) == {"weights_", "loss_curve_", "n_iter_"}
    assert len(found["loss_curve_"]) == found["n_iter_"] == 60
    np.testing.assert_allclose(found["weights_"]["layer.weight"], [[1, 2, 3]], atol=0.02)
    for name, value in found["weights_"].items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, again["weights_"][name])


def test_callbacks_get_the_y_of_the_fit_and_estimators_cannot_forget_it():
    seen = []

    class Watch:
        def setup(self, estimator, context): ...
        def teardown(self, estimator, context): ...
        def on_fit_task_begin(self, estimator, context): ...
        def on_fit_task_end(self, estimator, context, *, X=None, y=None):
            seen.append(y)

    y = rows()[1]
    fitted(y, estimator=Fitting().set_callbacks(Watch()))
    assert seen
    assert all(given is y for given in seen)
    assert inspect.signature(fit_design).parameters["y"].default is inspect.Parameter.empty


def test_a_fit_leaves_global_generators_as_they_were():
    before = torch.get_rng_state()
    fitted()
    assert torch.equal(before, torch.get_rng_state())


def test_a_candidate_gets_the_weights_of_the_fit():
    batches, loss = problem()
    ws = open_workspace(rows()[0], device="cpu", random_state=0)
    found = trained_weights(
        Design(Line, {"width": 3}),
        batches,
        loss,
        Training(max_iter=60, batch_size=16, learning_rate=0.1),
        device=ws.device,
        randomness=own_randomness(ws),
        schedule=cosine,
    )
    for name, value in fitted().attributes["weights_"].items():
        np.testing.assert_array_equal(found[name], value)


def test_a_design_is_pickled_and_restored_in_float64():
    design = pickle.loads(pickle.dumps(Design(Line, {"width": 3})))
    weights = {
        name: value.numpy() for name, value in design.built(torch.Generator().manual_seed(0)).state_dict().items()
    }
    net = design.restored(weights, dtype=torch.float64)
    assert not net.training
    assert net.layer.weight.dtype == torch.float64
    np.testing.assert_array_equal(net.layer.weight.detach().numpy().astype(np.float32), weights["layer.weight"])


def test_the_number_of_batches_is_that_of_a_walk():
    batches, _ = problem(33)
    assert batches.per_epoch(16) == 2
    assert [len(x) for x, _ in Walk(torch.arange(33), 16, batches, torch.Generator())] == [16, 17]
    assert batches.per_epoch(64) == 1
    assert batches._replace(whole=False).per_epoch(10) == 3
    assert batches._replace(held_out=torch.arange(13)).per_epoch(10) == 2


class Rates(torch.optim.SGD):
    """SGD that notes its rates."""

    seen: list[float] = []

    def step(self, closure=None):
        self.seen.append(self.param_groups[0]["lr"])
        return super().step(closure)


@pytest.mark.parametrize(
    ("schedule", "first", "last"),
    [(cosine, 0.1, 0.0), (lambda n: cosine(n, last=0.5), 0.1, 0.05), (lambda n: one_cycle(n, peak=0.2), 0.008, 0.0)],
)
def test_schedules_run_over_all_batches(schedule, first, last):
    batches, loss = problem()
    ws = open_workspace(rows()[0], device="cpu", random_state=0)
    Rates.seen = []
    plan = Training(max_iter=20, batch_size=20, learning_rate=0.1, net_params={"optimizer": Rates})
    design = Design(Line, {"width": 3})
    trained_weights(design, batches, loss, plan, device=ws.device, randomness=own_randomness(ws), schedule=schedule)
    assert len(Rates.seen) == 40
    assert Rates.seen[0] == pytest.approx(first)
    assert Rates.seen[-1] == pytest.approx(last, abs=2e-3)


def test_a_schedule_joins_the_callbacks_of_the_user():
    batches, _ = problem()
    plan = Training(max_iter=2, batch_size=20, learning_rate=0.1, net_params={"callbacks": ["theirs"]})
    assert [str(c)[:7] for c in scheduled(plan, batches, cosine).net_params["callbacks"]] == ["theirs", "('cosin"]
    assert plan.net_params["callbacks"] == ["theirs"]


def test_generated_weights_make_the_map_of_the_module_and_get_gradients():
    g = torch.Generator().manual_seed(0)
    net = mlp((3,), 2, g, hidden_layer_sizes=(5, 4), activation="tanh").eval()
    layers = [(m.weight, m.bias) for m in net if isinstance(m, nn.Linear)]
    x = torch.randn(7, 3, generator=g)
    out = perceptron(x, layers, "tanh")
    torch.testing.assert_close(out, net(x), rtol=0, atol=0)
    same = as_perceptron(layers, "tanh")
    torch.testing.assert_close(same(x), out, rtol=0, atol=0)
    assert list(same.state_dict()) == list(net.state_dict())
    assert not same.training
    seed = torch.ones((), requires_grad=True)
    perceptron(x, [(seed * W.detach(), b.detach()) for W, b in layers], "tanh").sum().backward()
    assert seed.grad is not None
    assert seed.grad != 0


def test_images_are_rows_with_channels_last():
    row = np.arange(12.0).reshape(1, 2, 3, 2)
    images = as_images(torch.from_numpy(row.reshape(1, -1)), (2, 3, 2))
    assert images.shape == (1, 2, 2, 3)
    np.testing.assert_array_equal(images[0, 1].numpy(), row[0, :, :, 1])
    np.testing.assert_array_equal(as_rows(images).numpy(), row.reshape(1, -1))


def test_image_shapes():
    assert image_shape_of((2, 3), 6) == (2, 3, 1)
    assert image_shape_of([np.int64(2), 3, 2], 12) == (2, 3, 2)
    for shape in ((6,), (2, 3.0), (0, 6), (1, 2, 3, 1), (True, 6)):
        with pytest.raises(ValueError, match=r"grid_shape=.*ints >= 1"):
            image_shape_of(shape, 6, name="grid_shape")
    with pytest.raises(ValueError, match=r"image_shape=.*4 pixels, and X has n_features=6"):
        image_shape_of((2, 2), 6)


def test_a_convolution_keeps_the_size_and_draws_from_its_generator():
    layers = [convolution(2, 3, torch.Generator().manual_seed(0), size=5, bias=False) for _ in range(2)]
    assert torch.equal(layers[0].weight, layers[1].weight)
    assert layers[0].bias is None
    assert layers[0].weight.abs().max() <= 50**-0.5
    assert layers[0](torch.zeros(1, 2, 4, 7)).shape == (1, 3, 4, 7)


def test_a_convolution_may_be_along_one_axis():
    layer = convolution(2, 3, torch.Generator().manual_seed(0), size=(3, 1))
    assert layer.weight.shape == (3, 2, 3, 1)
    assert layer.weight.abs().max() <= 6**-0.5
    assert layer(torch.zeros(1, 2, 4, 7)).shape == (1, 3, 4, 7)


def test_fields_with_axes_become_rows():
    fields = np.arange(24.0).reshape(2, 3, 4)
    for given in (fields, fields.tolist(), torch.from_numpy(fields)):
        flat, shape = flat_rows(given)
        assert shape == (3, 4)
        np.testing.assert_array_equal(flat, fields.reshape(2, 12))
    assert flat_rows(np.zeros((0, 3, 4)))[0].shape == (0, 12)
    for table in (fields[0], fields[0].tolist(), [1, 2], None, "text", [[1, 2], ["a", "b"]]):
        assert flat_rows(table) == (table, None) or flat_rows(table)[0] is table


def test_grids_of_fields():
    assert field_shape("X", (3, 4), 12, (3, 4)) == (3, 4, 1)
    assert field_shape("X", (3, 4, 2), 24, (3, 4)) == (3, 4, 2)
    assert field_shape("X", None, 24, (3, 4)) == (3, 4, 2)
    assert field_shape("X", None, 24, (6,)) == (6, 1, 4)
    assert field_shape("X", (6, 4), 24, (6,)) == (6, 1, 4)
    with pytest.raises(ValueError, match=r"grid_shape=\(5,\) has 5 points, and y has 24 columns"):
        field_shape("y", None, 24, (5,))
    for shape in ((4, 3), (3, 4, 1, 2), (3,)):
        with pytest.raises(ValueError, match=r"grid_shape=\(3, 4\) is not the grid of X"):
            field_shape("X", shape, 12, (3, 4))


def test_standardized_networks_take_rows_in_their_units():
    net = linear(2, 1, torch.Generator().manual_seed(0))
    mean, scale = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    x = torch.tensor([[5.0, 6.0]])
    torch.testing.assert_close(Standardized(net, mean, scale)(x), net((x - mean) / scale))


def test_answers_in_blocks_are_those_of_all_rows():
    X = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    net = linear(3, 2, torch.Generator().manual_seed(0)).train()
    (found,) = distinct_outputs(net, torch.cat([X, X]), size=1 << 24)  # two rows fill a block
    torch.testing.assert_close(found, net(torch.cat([X, X])).detach())
    assert torch.equal(found[:9], found[9:])
    assert net.training
