"""LieGroupConvClassifier: kernels and samples of the group by their definitions, exact turns, turned digits."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import expm, logm
from scipy.ndimage import rotate
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from sklowrank._core import blocks
from sklowrank.neural import LieGroupConvClassifier
from sklowrank.neural._lie_group_conv_network import (
    GROUPS,
    InvariantFeatures,
    LiftedNet,
    Lifting,
    group_elements,
    kernel_weights,
    lift_shape,
)

X, y = load_digits(n_class=5, return_X_y=True)
QUICK = {"max_iter": 1, "n_channels": 4, "random_state": 0}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def elements(group="gl2", n=3, spd_scale=0.1, seed=0):
    return group_elements(generator(seed), group=group, n_samples=n, spd_scale=spd_scale)


def shape_of(image=(15, 15, 1), n_features=None, **sizes):
    sizes = {"n_channels": 2, "kernel_size": 11, "kernel_points": 5, "pad": 3, **sizes}
    return lift_shape(image, n_features or math.prod(image), 3, **sizes)


def quick(image_shape=(8, 8), **settings):
    return LieGroupConvClassifier(image_shape, **{**QUICK, **settings})


def turned(rows, quarters=1, image=(8, 8)):
    """Images turned by quarters, exactly."""
    images = np.rot90(rows.reshape(-1, *image), quarters, axes=(1, 2))
    return np.ascontiguousarray(images).reshape(len(rows), -1)


def spun(rows, seed=0):
    """Digits turned by any angle."""
    angles = np.random.default_rng(seed).uniform(-180, 180, len(rows))
    images = [rotate(image.reshape(8, 8), angle, reshape=False, order=1) for image, angle in zip(rows, angles)]
    return np.array(images).reshape(len(rows), -1)


# The group


@pytest.mark.parametrize("group", GROUPS)
def test_elements_are_strains_times_equidistant_rotations(group):
    g = elements(group, 500).numpy()
    logs = np.array([logm(m @ m.T) / 2 for m in g])
    turns = np.array([expm(-S) @ m for S, m in zip(logs, g)])
    np.testing.assert_allclose(turns @ np.swapaxes(turns, 1, 2), np.broadcast_to(np.eye(2), turns.shape), atol=1e-8)
    angles = np.sort(np.arctan2(turns[:, 1, 0], turns[:, 0, 0]))
    np.testing.assert_allclose(np.diff(angles), math.tau / 500, atol=1e-8)
    # the sum of squares of 0, 2 or 3 normal coordinates of variance 0.1, over 500 elements
    assert abs((logs**2).sum((1, 2)).mean() / 0.1 - GROUPS[group]) < 4 * (2 * GROUPS[group] / 500) ** 0.5 + 1e-9
    if group != "gl2":
        np.testing.assert_allclose(np.linalg.det(g), 1, atol=1e-10)


def test_sample_group_needs_no_fit_and_is_seeded():
    model = LieGroupConvClassifier(group="sl2", n_group_samples=6)
    g = model.sample_group(random_state=3)
    assert g.shape == (6, 2, 2)
    np.testing.assert_array_equal(g, model.sample_group(random_state=3))
    assert not np.array_equal(g, model.sample_group(random_state=4))
    assert model.sample_group(2).shape == (2, 2, 2)
    with pytest.raises(ValueError, match="n_samples"):
        model.sample_group(0)
    with pytest.raises(ValueError, match="group"):
        model.set_params(group="so3").sample_group()


# The lifting convolution


def value_at(values, z, points):
    """A table of values on [-1, 1]^2 at a place (x, y), bilinearly, zero outside of the unit disc."""
    if z @ z > 1 + 1e-6:
        return 0.0
    column, row = (z + 1) * (points - 1) / 2
    total = 0.0
    for i in range(points):
        for j in range(points):
            total += max(0, 1 - abs(row - i)) * max(0, 1 - abs(column - j)) * values[i, j]
    return total


@pytest.mark.parametrize(("size", "points"), [(5, 3), (4, 2), (11, 5)])
def test_moved_kernels_are_the_kernel_at_the_inverse(size, points):
    g, values = elements(), np.random.default_rng(0).normal(size=(points, points))
    moved = (kernel_weights(g, size, points).numpy() @ values.reshape(-1)).reshape(-1, size, size)
    for m, kernel in zip(g.numpy(), moved):
        inverse = np.linalg.inv(m)
        for row in range(size):
            for column in range(size):
                x = (np.array([column, row]) - (size - 1) / 2) / ((size - 1) / 2)
                expected = abs(np.linalg.det(inverse)) * value_at(values, inverse @ x, points)
                assert abs(kernel[row, column] - expected) < 1e-12


@pytest.mark.parametrize("size", [1, 2])
def test_the_smallest_kernels_see_their_pixels(size):
    weights = kernel_weights(elements("so2"), size, 3).sum(-1)
    np.testing.assert_allclose(weights, 1, atol=1e-12)


@pytest.mark.parametrize("image", [(15, 15, 1), (17, 16, 2)])
def test_lifting_is_a_convolution_with_each_moved_kernel(image):
    shape, g = shape_of(image, kernel_size=7, pad=1), elements()
    layer = Lifting(shape, generator()).double()
    x = torch.randn(2, math.prod(image), dtype=torch.float64, generator=generator(1))
    images = layer.enlarged(x)
    assert images.shape == (2, image[2], *(side + 2 for side in shape.sides))
    kernels = kernel_weights(g, 7, 5) @ layer.values.flatten(1)
    kernels = kernels.reshape(3, 7, 7, image[2], 2).permute(0, 4, 3, 1, 2)
    found = layer(x, g).reshape(2, -1, 3, 2)
    for i, kernel in enumerate(kernels):
        expected = torch.nn.functional.conv2d(images, kernel, stride=2)
        torch.testing.assert_close(found[:, :, i], expected.flatten(2).mT)
    assert found.shape[1] == shape.n_places


def test_images_are_enlarged_to_fifteen_pixels_and_to_symmetric_places():
    assert shape_of((8, 8, 1)).sides == [15, 15]
    assert shape_of((8, 16, 1)).sides == [15, 31]
    assert shape_of((28, 28, 1)).sides == [29, 29]
    assert shape_of((28, 28, 1), kernel_size=10).sides == [28, 28]
    rows = torch.arange(64.0)[None]
    images = Lifting(shape_of((8, 8, 1)), None).enlarged(rows)[0, 0]
    torch.testing.assert_close(images[3:-3:2, 3:-3:2], rows.reshape(8, 8))
    assert not images[:3].any()
    assert not images[:, -3:].any()


# Invariance


@pytest.mark.parametrize(("image", "quarters"), [((8, 8), 1), ((15, 15), 3), ((28, 28), 1), ((9, 20), 2)])
@pytest.mark.parametrize("n_samples", [4, 8])
def test_quarter_turns_change_nothing(image, quarters, n_samples):
    net = LiftedNet(generator(), shape=shape_of((*image, 1))).double()
    features = InvariantFeatures(net, torch.stack([elements("so2", n_samples)]), 1.0)
    rows = np.random.default_rng(0).normal(size=(5, math.prod(image)))
    with torch.inference_mode():
        here = features(torch.from_numpy(rows))
        there = features(torch.from_numpy(turned(rows, quarters, image)))
        mirrored = features(torch.from_numpy(rows.reshape(-1, *image)[:, ::-1].reshape(5, -1).copy()))
    torch.testing.assert_close(there, here, rtol=0, atol=1e-12)
    assert (mirrored - here).abs().max() > 0.01  # a mirror is no rotation


def test_digits_trained_upright_are_recognised_turned():
    A, B, a, b = X[::2], X[1::2], y[::2], y[1::2]
    model = quick(max_iter=12, n_channels=16, batch_size=32).fit(A, a)
    pixels, Z = SVC(C=10).fit(A, a), spun(B)
    assert model.score(B, b) > 0.9
    assert model.score(Z, b) > pixels.score(Z, b) + 0.3
    assert model.loss_curve_[-1] < model.loss_curve_[0] / 3


@pytest.mark.parametrize("group", ["sl2", "gl2"])
def test_larger_groups_train_and_answer_the_same_again(group):
    model = quick(group=group, max_iter=3).fit(X, y)
    assert model.loss_curve_[-1] < model.loss_curve_[0]
    np.testing.assert_array_equal(model.predict_proba(X[:9]), model.predict_proba(X[:9]))
    assert np.linalg.det(model.group_elements_).std() > (1e-3 if group == "gl2" else -1)


# Rows


def test_answers_do_not_depend_on_blocks_neighbours_or_precision(monkeypatch):
    model = quick().fit(X, y)
    features, proba = model.transform(X[:20]), model.predict_proba(X[:20])
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X[:20])), proba)
    assert features.shape == (20, 16)
    monkeypatch.setattr(blocks, "_AUTO_BYTES", 1)
    np.testing.assert_allclose(model.transform(X[:20]), features, atol=1e-12)
    np.testing.assert_allclose(model.transform(X[:20][::-1]), features[::-1], atol=1e-12)
    single = model.predict_proba(X[:20].astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, proba, atol=1e-6)


@pytest.mark.parametrize("unit", [1e-25, 1e25, -255.0])
def test_answers_do_not_depend_on_the_unit_of_brightness(unit):
    sign = np.sign(unit)
    here, there = quick().fit(sign * X, y), quick().fit(unit * X, y)
    np.testing.assert_allclose(there.transform(unit * X[:9]), here.transform(sign * X[:9]), rtol=1e-4, atol=1e-5)
    assert there.scale_ == abs(unit) * 16


@pytest.mark.parametrize("background", [100, -100])
def test_images_far_from_zero_warn(background, recwarn):
    quick().fit(X, y)
    quick().fit(16 - X, y)
    quick().fit(np.ones_like(X), y)  # nothing is there to be hidden
    assert not recwarn.list
    with pytest.warns(UserWarning, match="far from 0.*Subtract the value of the background"):
        quick().fit(X + background, y)


def test_the_largest_strains_are_computed():
    model = quick(group="gl2", spd_scale=1, max_iter=3).fit(X, y)
    assert np.isfinite(model.loss_curve_).all()
    assert np.isfinite(model.sample_group(10_000, random_state=0)).all()


def test_channels_come_last():
    rng = np.random.default_rng(0)
    colours = rng.uniform(size=(60, 9, 11, 3))
    kind = np.where(colours[..., 0].mean((1, 2)) > colours[..., 2].mean((1, 2)), "red", "blue")
    model = quick((9, 11, 3), kernel_size=7).fit(colours.reshape(60, -1), kind)
    assert model.image_shape_ == (9, 11, 3)
    assert model.predict_proba(colours.reshape(60, -1)).shape == (60, 2)
    half_turn = colours[:, ::-1, ::-1].reshape(60, -1)
    np.testing.assert_allclose(model.transform(half_turn), model.transform(colours.reshape(60, -1)), atol=1e-9)


def test_rows_without_a_shape_are_the_smallest_square():
    with pytest.warns(UserWarning, match="image_shape=None .*4 x 4"):
        model = quick(None).fit(X[:, 10:20], y)
    assert model.image_shape_ == (4, 4)
    padded = np.pad(X[:, 10:20], ((0, 0), (0, 6)))
    np.testing.assert_array_equal(model.transform(X[:, 10:20]), quick((4, 4)).fit(padded, y).transform(padded))


@pytest.mark.parametrize("rows", [np.zeros((6, 64)), np.ones((6, 64))])
def test_equal_images_are_fine(rows):
    proba = quick().fit(rows, [0, 1] * 3).predict_proba(rows)
    assert np.isfinite(proba).all()
    np.testing.assert_array_equal(proba, proba[:1].repeat(6, 0))


@pytest.mark.parametrize(
    "settings",
    [{"kernel_size": 1}, {"kernel_size": 2, "kernel_points": 2}, {"pad": 0}, {"n_group_samples": 1}, {"spd_scale": 0}],
)
def test_the_ends_of_the_ranges(settings):
    model = quick(group="gl2", n_test_samples=1, **settings).fit(X[:90], y[:90])
    assert model.transform(X[:9]).std(0).max() > 1e-3
    assert model.group_elements_.shape == (1, settings.get("n_group_samples", 8), 2, 2)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"image_shape": (8, 9)}, "image_shape=.*64"),
        ({"image_shape": (64,)}, "image_shape"),
        ({"kernel_size": 22}, "kernel_size=22 .* 15 pixels.* 21 with pad=3. Pass at most 21"),
        ({"spd_scale": 2.0}, "spd_scale"),
        ({"learning_rate": 0}, "learning_rate"),
    ],
)
def test_what_does_not_fit_is_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        quick(**settings).fit(X, y)


def test_a_single_class_is_refused():
    with pytest.raises(ValueError, match="one class"):
        quick().fit(X, np.zeros(len(X)))


def test_the_network_gives_scores_of_rows_in_their_own_units():
    model = quick().fit(X, y)
    net = model.network()
    assert not net.training
    with torch.inference_mode():
        scores = net(torch.from_numpy(X[:9]).float())
    np.testing.assert_allclose(scores.softmax(1), model.predict_proba(X[:9]), atol=1e-5)


def test_a_fit_draws_from_its_own_generators():
    before, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()
    weights = quick().fit(X, y).weights_
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(numpys, np.random.get_state()[1])
    for name, value in quick().fit(X, y).weights_.items():
        np.testing.assert_array_equal(value, weights[name])


@pytest.mark.cuda
@pytest.mark.parametrize("group", GROUPS)
def test_the_gpu_agrees_with_the_cpu(group):
    here, there = (quick(group=group, max_iter=3, device=device).fit(X, y) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(there.predict_proba(X), here.predict_proba(X), atol=2e-2)
    assert next(there.network("cuda").parameters()).device.type == "cuda"
