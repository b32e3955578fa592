"""Spoilt rows made clean by rounded codes of an autoencoder: `LatentQuantizationFilter`.

Attacks are made on the classifier alone, with a size in the largest change of a pixel, and the classifier, a network
that was fitted to clean rows, stays as it is; "through" is an attack on the filter and the classifier together. "Left"
is the squared error to the clean row over that of the spoilt one. The nearest rows are those of the training table, of
which the mean is taken. The denoising network is scikit-learn's `MLPRegressor` with one hidden layer of 256 units,
fitted to copies of the training rows with the same noise as ours. The mixture is `LowRankGaussianMixture`, given
the standard deviation 0.2 of the noise. Ours has `input_noise=0.2`, otherwise its defaults, unless a line says so.
Seconds are those of the processor, of one fit.
"""

import os
import time
from functools import partial

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.model_selection import train_test_split

from benchmarks.harness import quietly

TITLE = "Latent quantization filter"
PLAIN = {"step": 0.0, "latent_noise": 0.0, "input_noise": 0.0, "prior_weight": 0.0, "lipschitz": None}


def ours(A, seed=0, **settings):
    """Our filter, fitted."""
    from sklowrank.neural import LatentQuantizationFilter

    device = os.environ["SKLOWRANK_BENCH_DEVICE"]
    settings = {"input_noise": 0.2, "device": device, "random_state": seed, **settings}
    return LatentQuantizationFilter(**settings).fit(A)


def filter_by(name, A, value, settings):
    """A fitted filter, as a function of rows in units of the columns' ranges."""
    from sklearn.decomposition import PCA
    from sklearn.neighbors import NearestNeighbors
    from sklearn.neural_network import MLPRegressor

    if name == "PCA":
        pca = PCA(value, random_state=0).fit(A)
        return lambda Z: pca.inverse_transform(pca.transform(Z))
    if name == "nearest rows":
        near = NearestNeighbors(n_neighbors=value).fit(A)
        return lambda Z: A[near.kneighbors(Z, return_distance=False)].mean(1)
    if name == "mixture":
        from sklowrank.mixture import LowRankGaussianMixture

        density = LowRankGaussianMixture(5, n_dims=value, random_state=0).fit(A)
        return lambda Z: density.denoise(Z, 0.2)
    if name == "denoising network":
        g, copies = np.random.default_rng(0), np.vstack([A] * 10)
        net = MLPRegressor(hidden_layer_sizes=(256,), max_iter=20, batch_size=128, random_state=0)
        return net.fit(copies + value * g.normal(size=copies.shape), copies).predict
    if name == "ours":
        return ours(A, seed=value, **settings).transform
    return {"none": lambda Z: Z, "rounded": lambda Z: np.round(Z * value) / value}[name]


def timed(name, A, value, settings):
    start = time.process_time()
    found = quietly(filter_by, name, A, value, settings)
    return found, time.process_time() - start


# Digits


def victim(A, a):
    """A network 64-128-128-10 that maps rows to logits, fitted to clean rows."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer, rows, labels = torch.optim.Adam(net.parameters(), 1e-3), torch.tensor(A), torch.tensor(a)
    for _ in range(60):
        for batch in torch.randperm(len(A)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(rows[batch]), labels[batch]).backward()
            optimizer.step()
    return net.requires_grad_(False)


def attack(logits, X, y, size, steps=1):
    """Projected gradient steps within `size` of each pixel; one step is the fast gradient sign."""
    import torch

    start, y = torch.tensor(X), torch.tensor(y)
    x, length = start.clone(), size if steps == 1 else size / 10
    for _ in range(steps):
        x.requires_grad_(True)
        (slope,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits(x), y), x)
        x = (start + (x.detach() + length * slope.sign() - start).clamp(-size, size)).clamp(0, 1)
    return x.detach().numpy()


def on_digits(name, value=0, settings={}):  # noqa: B006  (never written)
    import torch
    from sklearn.metrics import roc_auc_score

    X, y = load_digits(return_X_y=True)
    split = {"test_size": 0.4, "random_state": 0, "stratify": y}
    A, B, a, b = train_test_split((X / 16).astype(np.float32), y, **split)
    net = victim(A, a)
    clean, seconds = timed(name, A, value, settings)
    found = {"seconds": seconds}

    def accuracy(rows):
        with torch.no_grad():
            return float(np.mean(net(torch.tensor(np.asarray(rows, np.float32))).argmax(1).numpy() == b))

    attacks = {"clean": B, "FGSM 0.1": attack(net, B, b, 0.1), "FGSM 0.2": attack(net, B, b, 0.2)}
    attacks["PGD 0.2"] = attack(net, B, b, 0.2, 20)
    found |= {test: accuracy(clean(Z)) for test, Z in attacks.items()}
    g = np.random.default_rng(0)
    dead = np.where(g.random(B.shape) < 0.25, 0, B).astype(np.float32)
    noisy = {s: np.clip(B + s * g.normal(size=B.shape), 0, 1).astype(np.float32) for s in (0.4, 0.2)}
    for test, Z in {"dead": dead, "noise 0.4": noisy[0.4], "noise 0.2": noisy[0.2]}.items():
        found[f"left, {test}"] = np.sum((clean(Z) - B) ** 2) / np.sum((Z - B) ** 2)
    if name == "ours":
        module = clean.__self__.network()
        found["through"] = accuracy(clean(attack(lambda x: net(module(x)), B, b, 0.2, 20)))
        score, turned = clean.__self__.score_samples, B.reshape(-1, 8, 8).transpose(0, 2, 1).reshape(-1, 64)
        strange = g.uniform(size=B.shape).astype(np.float32)
        for test, Z in {"noise": strange, "transposed": turned}.items():
            found[f"AUC {test}"] = roc_auc_score(np.repeat([1, 0], len(B)), np.r_[score(B), score(Z)])
        spread = clean.__self__.encode(B).std(0)
        found |= {"narrowest": spread.min(), "widest": spread.max()}
        found["R2"] = 1 - np.sum((clean(B) - B) ** 2) / np.sum((B - A.mean(0)) ** 2)
    remark = ", ".join(f"{k} {v:.3f}" for k, v in found.items() if k not in ("seconds", "narrowest", "widest"))
    return {**found, "remark": remark}


def digits(bench):
    """digits: accuracy behind filters under attack, error that filters leave in spoilt rows.

    The best plain filter is that of PCA with 8, 12 or 16 components and pixels rounded to quarters, chosen per column.
    """
    bench.measure("no filter", on_digits, "none")
    plain = [bench.measure(f"PCA {k}", on_digits, "PCA", k) for k in (8, 12, 16)]
    rounded = bench.measure("pixels rounded to quarters", on_digits, "rounded", 4)
    near = [bench.measure(f"mean of the {k} nearest rows", on_digits, "nearest rows", k) for k in (1, 5)]
    denoiser = bench.measure("denoising network, noise 0.2", on_digits, "denoising network", 0.2)
    bench.measure("plain autoencoder", on_digits, "ours", 0, PLAIN)
    form = bench.measure("the paper's form: input_noise=0", on_digits, "ours", 0, {"input_noise": 0.0})
    bench.measure("input_noise=0.1, the default", on_digits, "ours", 0, {"input_noise": 0.1})
    smooth = bench.measure("step=0", on_digits, "ours", 0, {"step": 0.0})
    bench.measure("24 components", on_digits, "ours", 0, {"n_components": 24})
    seeds = [bench.measure(f"ours, seed {seed}", on_digits, "ours", seed) for seed in range(3)]

    def worst(test, of=min):
        return of(found[test] for found in seeds)

    for test, need, above in (("FGSM 0.1", 0.78, 0.04), ("PGD 0.2", 0.40, 0.12)):
        bench.claim(f"{test}: accuracy, worst seed", worst(test), at_least=need)
        best = max(found[test] for found in (*plain, rounded))
        bench.claim(f"{test}: above the best plain filter", worst(test) - best, at_least=above)
    bench.claim("clean accuracy, worst seed", worst("clean"), at_least=0.945)
    for test, need, share in (("dead", 0.52, 0.82), ("noise 0.4", 0.42, 0.95), ("noise 0.2", 0.80, 1.03)):
        here, best = worst(f"left, {test}", max), min(found[f"left, {test}"] for found in plain)
        bench.claim(f"error left, {test}, worst seed", here, at_most=need)
        bench.claim(f"error left, {test}, over the best PCA's", here, best, at_most=share)
    bench.claim("AUC against noise, worst seed", worst("AUC noise"), at_least=0.99)
    bench.claim("AUC against transposed digits, worst seed", worst("AUC transposed"), at_least=0.97)
    bench.claim("R2 of clean rows, worst seed", worst("R2"), at_least=0.7)
    bench.claim("latent standard deviations, smallest", worst("narrowest"), at_least=0.5)
    bench.claim("latent standard deviations, largest", worst("widest", max), at_most=2.0)
    bench.claim("an attack through the filter leaves, at most", worst("through", max), at_most=0.30)
    bench.claim("the noise of rows adds to PGD 0.2", worst("PGD 0.2") - form["PGD 0.2"], at_least=0.1)
    bench.claim("seconds of a fit", worst("seconds", max), at_most=30)
    for test in ("clean", "FGSM 0.1", "PGD 0.2"):
        bench.note(f"the nearest row less ours, {test}", f"{near[0][test] - seeds[0][test]:+.3f}")
    for test in ("left, dead", "left, noise 0.4", "left, noise 0.2"):
        ratios = [f"{seeds[0][test] / peer[test]:.2f}" for peer in (near[1], denoiser)]
        bench.note(f"ours over five nearest rows, over the denoising network, {test}", ", ".join(ratios))
    bench.note("what rounding adds to PGD 0.2", f"{seeds[0]['PGD 0.2'] - smooth['PGD 0.2']:+.3f}")


# Tables


def sensors(n, seed, n_factors=6, n_sensors=30):
    """Sensors that follow a few factors, each by a curve that saturates, and test rows."""
    g = np.random.default_rng(seed)
    W, b = 1.5 * g.normal(size=(n_factors, n_sensors)) / n_factors**0.5, g.uniform(-1, 1, n_sensors)
    X = np.tanh(g.normal(size=(n + 500, n_factors)) @ W + b) + 0.02 * g.normal(size=(n + 500, n_sensors))
    return X[:n], X[n:]


def medical(seed):
    """Logarithms of the columns of the breast cancer table, in two parts."""
    return train_test_split(np.log1p(load_breast_cancer().data), test_size=0.4, random_state=seed)


def on_tables(make, name, value=0, settings={}):  # noqa: B006
    lists, times = {"noise 0.2": [], "dead": []}, []
    for seed in range(2):
        A, B = make(seed)
        scale, g = np.ptp(A, axis=0), np.random.default_rng(100 + seed)
        A, B = A / scale, B / scale
        clean, seconds = timed(name, A, value, settings)
        times.append(seconds)
        noisy, dead = B + 0.2 * g.normal(size=B.shape), np.where(g.random(B.shape) < 0.2, A.min(0), B)
        for test, Z in {"noise 0.2": noisy, "dead": dead}.items():
            lists[test].append(np.sum((clean(Z) - B) ** 2) / np.sum((Z - B) ** 2))
    found = {test: float(np.mean(values)) for test, values in lists.items()}
    remark = ", ".join(f"left, {test} {value:.3f}" for test, value in found.items())
    return {**found, "error": found["noise 0.2"], "seconds": float(np.mean(times)), "remark": remark}


def all_filters(bench, make, ks):
    plain = [bench.measure(f"PCA {k}", on_tables, make, "PCA", k) for k in ks]
    near = [bench.measure(f"mean of the {k} nearest rows", on_tables, make, "nearest rows", k) for k in (5, 10)]
    denoiser = bench.measure("denoising network, noise 0.2", on_tables, make, "denoising network", 0.2)
    bench.measure("mixture of 5 Gaussians of 6 dimensions", on_tables, make, "mixture", 6)
    here = bench.measure("ours", on_tables, make, "ours")
    settings = {"step": 0.25, "latent_noise": 0.25}
    fine = bench.measure("ours, step=0.25, latent_noise=0.25", on_tables, make, "ours", 0, settings)
    return plain, near, denoiser, here, fine


def table_of_sensors(bench):
    """sensors: 30 sensors that follow six factors, 2000 rows; noise, a fifth of the cells at the lowest value."""
    plain, near, denoiser, here, fine = all_filters(bench, partial(sensors, 2000), (6, 10, 14))
    for test in ("noise 0.2", "dead"):
        best = min(found[test] for found in plain)
        bench.claim(f"error left, {test}, over the best PCA's", here[test], best, at_most=0.9)
        best = min(found[test] for found in near)
        bench.claim(f"error left, {test}, step=0.25, over nearest rows", fine[test], best, at_most=1.0)
        bench.note(f"step=0.25 over the denoising network, {test}", f"{fine[test] / denoiser[test]:.2f}")


def table_of_cells(bench):
    """breast cancer: 341 rows of 30 measurements; noise, a fifth of the cells at the lowest value."""
    plain, near, denoiser, here, _ = all_filters(bench, medical, (2, 4, 6, 8))
    best = min(found["noise 0.2"] for found in plain)
    bench.claim("error left, noise 0.2, over the best PCA's", here["noise 0.2"], best, at_most=1.0)
    for test in ("noise 0.2", "dead"):
        ratios = [f"{here[test] / min(f[test] for f in peers):.2f}" for peers in (plain, near, [denoiser])]
        bench.note(f"ours over PCA, the nearest rows, the denoising network, {test}", ", ".join(ratios))


# Size


def of_size(n):
    A, B = sensors(n, 0)
    model, epochs = {}, max(1, 3 * 10**4 // n)
    start = time.process_time()
    model["ours"] = ours(A, max_iter=epochs)
    fit = (time.process_time() - start) / epochs
    model["near"] = filter_by("nearest rows", A, 5, {})
    times = {}
    for name, call in (("ours", model["ours"].transform), ("near", model["near"])):
        call(B)
        start = time.process_time()
        call(B)
        times[name] = time.process_time() - start
    remark = f"an epoch; 500 rows filtered in {times['ours']:.4f} s, by the nearest rows in {times['near']:.4f} s"
    return {"seconds": fit, **times, "remark": remark}


def size(bench):
    """size: seconds of an epoch and of 500 filtered rows, by the rows that were learned from."""
    found = {n: bench.measure(f"{n} rows", of_size, n) for n in (10**3, 10**4, 10**5)}
    bench.claim(
        "100 times the rows, times the seconds of an epoch", found[10**5].seconds / found[10**3].seconds, at_most=150
    )
    bench.claim("1e5 rows: as fast as the nearest rows", found[10**5]["ours"], found[10**5]["near"], at_least=3)


def on_device(device):
    A, B = sensors(10**4, 0)
    model, start = ours(A, device=device, max_iter=10), time.perf_counter()
    model = ours(A, device=device, max_iter=10)
    return {"seconds": time.perf_counter() - start, "answers": model.transform(B).tolist()}


def devices(bench):
    """devices: 10,000 rows, 10 epochs, on a GPU and on the CPU."""
    import torch

    if not torch.cuda.is_available():
        bench.skip("torch sees no CUDA device")
        return
    here, there = (bench.measure(device, on_device, device) for device in ("cpu", "cuda"))
    off = np.abs(np.subtract(here["answers"], there["answers"])).max(1)
    bench.claim("share of rows with one answer, to 0.05", np.mean(off < 0.05), at_least=0.8)
    bench.note("seconds on the CPU over those on the GPU", f"{here.seconds / there.seconds:.2f}")


CASES = [digits, table_of_sensors, table_of_cells, size, devices]
