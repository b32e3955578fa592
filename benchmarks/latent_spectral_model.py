"""Maps between fields on a grid: `LatentSpectralRegressor`.

Errors are those of fields that were not trained on. Ridge regression and kernel ridge regression get flattened fields,
standardised; the kernel ridge regression is the best of nine, chosen on the test fields, in its favour. "U-shaped
network" is the same network without its spectral blocks. No parameter of ours is tuned on the test fields. Seconds are
those of the processor, of one fit.
"""

import os
import time

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_matrix, csc_matrix, diags
from scipy.sparse.linalg import spsolve
from sklearn.datasets import load_digits
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import RidgeCV
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler

from benchmarks.harness import quietly

TITLE = "Latent spectral models"
SMALL = {"width": 16, "n_levels": 3, "batch_size": 16, "learning_rate": 4e-3, "max_iter": 15}
N_TEST = 64


def darcy(n, size, seed=0, sigma=2.0):
    """Permeabilities of 3 and 12, and the pressures u of -div(a grad u) = 1 that are zero at the boundary."""
    g = np.random.default_rng(seed)
    node, fields, solutions = np.arange(size * size).reshape(size, size), [], []
    for _ in range(n):
        a = np.where(gaussian_filter(g.normal(size=(size, size)), sigma, mode="reflect") > 0, 12.0, 3.0)
        around = np.pad(a, 1, mode="edge")
        north, south, west, east = (
            2 * a * b / (a + b) for b in (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:])
        )
        shape = (size**2, size**2)
        rows = coo_matrix((north[1:].ravel(), (node[1:].ravel(), node[:-1].ravel())), shape)
        columns = coo_matrix((west[:, 1:].ravel(), (node[:, 1:].ravel(), node[:, :-1].ravel())), shape)
        A = diags((north + south + west + east).ravel()) - rows - rows.T - columns - columns.T
        fields.append(a)
        solutions.append(spsolve(csc_matrix(A), np.full(size**2, 1 / (size + 1) ** 2)).reshape(size, size))
    return np.array(fields), np.array(solutions)


def inpainting(n_train, size=3):
    """Digits with a square hole at a random place, and where it is, as two channels; and whole digits."""
    g = np.random.default_rng(0)
    images = g.permutation(load_digits().images / 16)
    mask = np.ones_like(images)
    for image, (row, column) in zip(mask, g.integers(0, 9 - size, (len(images), 2))):
        image[row : row + size, column : column + size] = 0
    return np.stack([images * mask, mask], -1), images, n_train, mask == 0


def relative(guess, truth):
    """Mean over fields of the norm of the error divided by that of the field."""
    guess, truth = (np.asarray(part).reshape(len(truth), -1) for part in (guess, truth))
    return float(np.mean(np.linalg.norm(guess - truth, axis=1) / np.linalg.norm(truth, axis=1)))


def ours(spectral=True, **settings):
    """Our estimator, or the same without spectral blocks."""
    from sklowrank.neural import LatentSpectralRegressor, _latent_spectral_network

    if not spectral:  # in a process of its own
        _latent_spectral_network.SpectralBlock.forward = lambda block, x: x
    return LatentSpectralRegressor(device=os.environ["SKLOWRANK_BENCH_DEVICE"], **{"random_state": 0, **settings})


class Flat:
    """A regressor of scikit-learn on flattened fields, standardised; y is centred, and divided by one number."""

    def __init__(self, model):
        self.model = model

    def fit(self, X, y):
        self.scaler, self.mean, self.scale, self.shape = StandardScaler(), y.mean(0).ravel(), y.std(), y.shape[1:]
        self.model.fit(
            self.scaler.fit_transform(X.reshape(len(X), -1)), (y.reshape(len(y), -1) - self.mean) / self.scale
        )
        return self

    def predict(self, X):
        flat = self.model.predict(self.scaler.transform(X.reshape(len(X), -1)))
        return (flat * self.scale + self.mean).reshape(-1, *self.shape)


class Mean:
    """The mean field."""

    def fit(self, X, y):
        self.mean = y.mean(0)
        return self

    def predict(self, X):
        return np.broadcast_to(self.mean, (len(X), *self.mean.shape))


def candidates(name, settings):
    """The models of a name; of several the best one counts."""
    if name == "ours":
        return [ours(**settings)]
    if name == "ridge":
        return [Flat(RidgeCV(np.logspace(-2, 5, 15)))]
    if name == "kernel ridge":
        pairs = [(gamma, alpha) for gamma in (1e-4, 3e-4, 1e-3) for alpha in (1e-3, 1e-2, 0.1)]
        return [Flat(KernelRidge(kernel="rbf", gamma=gamma, alpha=alpha)) for gamma, alpha in pairs]
    if name == "dense network":
        return [Flat(MLPRegressor(hidden_layer_sizes=(256,), early_stopping=True, random_state=0))]
    return [Mean()]


def compared(name, X, y, n_train, error, settings):
    """The error of the best model of a name, and its seconds."""
    found = []
    for model in candidates(name, settings):
        start = time.process_time()
        quietly(model.fit, X[:n_train], y[:n_train])
        seconds = time.process_time() - start
        found.append((error(model.predict(X[n_train:])), seconds))
    error, seconds = min(found)
    return {"error": error, "seconds": seconds}


def on_darcy(name, n_train=256, size=16, sigma=2.0, settings={}):  # noqa: B006  (never written)
    X, y = darcy(n_train + N_TEST, size, sigma=sigma)
    return compared(name, X, y, n_train, lambda guess: relative(guess, y[n_train:]), settings)


def on_digits(name, n_train, settings={}):  # noqa: B006
    X, y, n_train, hole = inpainting(n_train)

    def error(guess):
        return float(np.sqrt(np.mean((guess - y[n_train:])[hole[n_train:]] ** 2)))

    return compared(name, X, y, n_train, error, settings)


def with_and_without(bench, label, function, *args, **settings):
    """Measure ours, and the same without spectral blocks."""
    whole = bench.measure(f"LatentSpectralRegressor{label}", function, "ours", *args, settings)
    bare = bench.measure(f"U-shaped network{label}", function, "ours", *args, settings | {"spectral": False})
    return whole, bare


def flow(bench):
    """Darcy flow: 256 fields of 16 x 16 points, 64 for the test; 15 epochs, width 16, three levels; two seeds of ours.

    The error is the relative L2 norm.
    """
    peers = {name: bench.measure(name, on_darcy, name) for name in ("ridge", "kernel ridge", "dense network", "mean")}
    pairs = [
        with_and_without(bench, f", seed {seed}", on_darcy, 256, 16, 2.0, **SMALL, random_state=seed) for seed in (0, 1)
    ]
    whole, bare = (float(np.mean([pair[k].error for pair in pairs])) for k in (0, 1))
    bench.claim("relative L2", whole, at_most=0.042)
    bench.claim("against ridge", whole, peers["ridge"].error, at_most=0.55)
    bench.claim("against kernel ridge, chosen on the test fields", whole, peers["kernel ridge"].error, at_most=0.82)
    bench.claim("against a dense network", whole, peers["dense network"].error, at_most=0.35)
    bench.claim("against the same without spectral blocks, no worse", whole, bare, at_most=1.05)
    bench.claim("seconds of a fit", pairs[0][0].seconds, at_most=28)
    bench.note("time of the spectral blocks", f"{pairs[0][0].seconds / pairs[0][1].seconds:.1f} times")


def blocks(bench):
    """spectral blocks: Darcy flow with two levels and 20 epochs, and on 32 x 32 points with sigma 3 and 10 epochs."""
    two = SMALL | {"n_levels": 2, "max_iter": 20}
    pairs = {"two levels": with_and_without(bench, ", two levels", on_darcy, 256, 16, 2.0, **two)}
    fine = SMALL | {"max_iter": 10}
    pairs["32 x 32"] = with_and_without(bench, ", 32 x 32", on_darcy, 256, 32, 3.0, **fine)
    for name, (whole, bare) in pairs.items():
        bench.claim(f"against the same without spectral blocks, {name}", whole.error, bare.error, at_most=1.05)


def few_fields(bench):
    """few fields: Darcy flow with 32 to 512 fields, 15 epochs or more, so that there are 240 steps of 16 fields."""
    for n in (32, 128, 512):
        flat = {name: bench.measure(f"{name}, {n} fields", on_darcy, name, n) for name in ("ridge", "kernel ridge")}
        settings = SMALL | {"max_iter": max(15, 240 * 16 // n)}
        found = bench.measure(f"LatentSpectralRegressor, {n} fields", on_darcy, "ours", n, 16, 2.0, settings)
        if n == 32:
            best = min(flat["ridge"].error, flat["kernel ridge"].error)
            bench.note("ours over the better of both, 32 fields", f"{found.error / best:.2f}")
        else:
            bench.claim(f"against kernel ridge, {n} fields", found.error, flat["kernel ridge"].error, at_most=0.9)


def holes(bench):
    """inpainting: digits with a hole of 3 x 3 pixels and its place as two channels; 1,200 images, 597 for the test.

    The error is the root mean square over the pixels of the hole. Width 16, loss "mse", 15 epochs.
    """
    peers = {
        name: bench.measure(name, on_digits, name, 1200) for name in ("ridge", "kernel ridge", "dense network", "mean")
    }
    settings = SMALL | {"n_levels": "auto", "batch_size": 32, "loss": "mse"}
    whole, bare = with_and_without(bench, "", on_digits, 1200, **settings)
    bench.claim("against ridge", whole.error, peers["ridge"].error, at_most=0.85)
    bench.claim(
        "against kernel ridge, chosen on the test images", whole.error, peers["kernel ridge"].error, at_most=0.99
    )
    bench.claim("against the same without spectral blocks, no worse", whole.error, bare.error, at_most=1.05)


def answers():
    """How far predictions are off: of other layouts, of fields alone, in other units, without the coefficients."""
    X, y = darcy(48, 16)
    settings = SMALL | {"max_iter": 4}
    model = ours(**settings).fit(X, y)
    plain = model.predict(X)
    flat = ours(grid_shape=(16, 16), **settings).fit(X.reshape(48, -1), y.reshape(48, -1)).predict(X.reshape(48, -1))
    deep = ours(**settings).fit(X[..., None], y[..., None]).predict(X[..., None])
    units = ours(**settings).fit(X * 1024, y * 2.0**20).predict(X * 1024) / 2.0**20
    size = np.abs(plain).max()
    off = {"error": max(np.abs(flat.reshape(plain.shape) - plain).max(), np.abs(deep[..., 0] - plain).max()) / size}
    off["alone"] = np.abs(np.concatenate([model.predict(X[i : i + 1]) for i in range(6)]) - plain[:6]).max() / size
    off["units"] = np.abs(units - plain).max() / size
    for name, value in model.weights_.items():
        if name.endswith("basis"):
            value[...] = 0
    return off | {"without": relative(model.predict(X), plain)}


def invariances(bench):
    """answers: layouts, neighbours, units, and coefficients of the series set to zero."""
    found = bench.measure("LatentSpectralRegressor", answers)
    bench.claim("flat, three and four axes, off by", found.error, at_most=1e-6)
    bench.claim("a field alone, off by", found.alone, at_most=1e-7)
    bench.claim("other units, off by", found.units, at_most=1e-5)
    bench.claim("without the coefficients of the series, moved by", found.without, at_least=0.01)


def epoch_seconds(n, size):
    """Seconds of two epochs of random fields, and of a prediction."""
    g = np.random.default_rng(0)
    X = g.normal(size=(n, size, size)).astype(np.float32)
    model = ours(**SMALL | {"max_iter": 2})
    start = time.process_time()
    model.fit(X, X)
    middle = time.process_time()
    model.predict(X)
    seconds = middle - start
    return {"seconds": seconds, "remark": f"prediction {time.process_time() - middle:.2f} s"}


def scale(bench):
    """scale: two epochs, width 16, three levels, float32."""
    rows = [bench.measure(f"{n} fields, 16 x 16", epoch_seconds, n, 16) for n in (500, 2000)]
    grids = [bench.measure(f"64 fields, {size} x {size}", epoch_seconds, 64, size) for size in (16, 32, 64)]
    bench.claim("time for 4 times the fields", rows[1].seconds / rows[0].seconds, at_most=5)
    bench.claim("time for 4 times the points", grids[2].seconds / grids[1].seconds, at_most=6)


def on_both():
    """Seconds on a GPU and on the processor, and how far predictions of the GPU's weights are off between both."""
    X, y = darcy(128, 16)
    found = {}
    for device in ("cuda", "cpu"):
        start = time.perf_counter()
        model = ours(**SMALL | {"max_iter": 3}).set_params(device=device).fit(X, y)
        found[device] = time.perf_counter() - start
        if device == "cuda":
            there, here = model.predict(X), model.set_params(device="cpu").predict(X)
            off = np.abs(there - here).max() / np.abs(here).max()
    return {"error": off, "seconds": found["cuda"], "remark": f"processor {found['cpu']:.2f} s"}


def gpu(bench):
    """GPU: three epochs of 128 fields, and predictions of the same weights on both devices."""
    if os.environ["SKLOWRANK_BENCH_DEVICE"] != "cuda":
        bench.skip("it compares with a GPU: python -m benchmarks latent_spectral_model --device cuda")
        return
    found = bench.measure("LatentSpectralRegressor, cuda", on_both)
    bench.claim("predictions on both devices, off by", found.error, at_most=1e-6)


CASES = [flow, blocks, few_fields, holes, invariances, scale, gpu]
