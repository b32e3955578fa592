"""Attention in linear time: `PolynomialAttentionClassifier`, its regressor, `linear_attention`, `attention_report`.

Errors of classifiers are shares of wrong classes, those of regressors one minus R²; both on rows that were not fitted.
Ours has six components, degree 4 and defaults but for the seed; exact attention is `method="exact"`. Peers are k-NN and
NeighborhoodComponentsAnalysis of as many components before it, on standardised columns but for moons, whose columns
have one unit. Seconds are those of the processor. No parameter was chosen on rows that are not fitted.
"""

import os
import pickle
import time
from functools import partial

import numpy as np
from sklearn.datasets import load_diabetes, make_moons
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, NeighborhoodComponentsAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.data import bundled
from benchmarks.harness import peak, quietly, seconds_of_steps

TITLE = "Attention in linear time"
BOUNDS, DEGREES = (0.5, 1, 2, 3), (2, 4, 6, 8)
NEEDS = {  # three to five times what an implementation in numpy had: errors of outputs, and of the gradient
    0.5: ((3e-4, 5e-2), (3e-6, 3e-4), (1e-8, 1e-6), (4e-11, 5e-9)),
    1: ((3e-3, 0.2), (5e-5, 4e-3), (1e-6, 5e-5), (2e-8, 1.5e-6)),
    2: ((2e-2, 0.6), (2e-3, 6e-2), (1e-4, 3e-3), (1e-5, 2.5e-4)),
    3: ((5e-2, 1.0), (1e-2, 0.2), (2e-3, 3e-2), (2.5e-4, 4.5e-3)),
}


def ours(kind="Classifier", n_components=6, **params):
    from sklowrank import neural

    make = getattr(neural, f"PolynomialAttention{kind}")
    shared = {"degree": 4, "method": "polynomial", "random_state": 0, "device": os.environ["SKLOWRANK_BENCH_DEVICE"]}
    return make(n_components, **{**shared, **params})


def make(name):
    """A classifier by its name."""
    if name in ("polynomial", "exact"):
        return ours(method=name)
    scaled, nearest = StandardScaler(), KNeighborsClassifier(5)
    if name == "5-NN":
        return make_pipeline(scaled, nearest)
    return make_pipeline(scaled, NeighborhoodComponentsAnalysis(6, random_state=0), nearest)


def moons(n, seed):
    """Two moons, turned into ten columns of which eight are noise."""
    rng = np.random.default_rng(seed)
    X, y = make_moons(n, noise=0.15, random_state=seed)
    turn = np.linalg.qr(np.random.default_rng(9).normal(size=(10, 10)))[0]
    return np.c_[X, rng.normal(size=(n, 8))] @ turn, y


def timed(call, *args):
    start = time.process_time()
    result = quietly(call, *args)
    return result, time.process_time() - start


# Measured functions: each runs in a fresh process


def errors_of_degrees(largest):
    """Errors of outputs and of an adapter's gradient on Gaussian rows, and the guaranteed bound, by degree."""
    import torch

    from sklowrank._math.attention import largest_shift
    from sklowrank.neural import linear_attention

    rng, n = np.random.default_rng(0), 1500
    X, WQ, WK, V = (rng.normal(size=size) for size in ((n, 6), (6, 4), (6, 4), (n, 3)))
    K = X @ WK
    unit = np.sqrt(largest / np.abs(X @ WQ @ (K - K.mean(0)).T).max())
    X, WQ, WK, V = (torch.from_numpy(part) for part in (X, unit * WQ, unit * WK, V))
    A = torch.from_numpy(rng.normal(size=(2, 4)))

    def adapted(attention):
        B = torch.zeros(6, 2, dtype=torch.float64, requires_grad=True)
        outputs = attention(X @ (WQ + B @ A), X @ WK, V)
        loss = (outputs - V.roll(1, 0)).square().sum() / 2
        return outputs.detach(), torch.autograd.grad(loss, B)[0]

    exact, gradient = adapted(lambda Q, K, V: torch.softmax(Q @ K.T, 1) @ V)
    K, spread, found = X @ WK, float((V.amax(0) - V.amin(0)).max()), {}
    bound = float((X @ WQ).norm(dim=1).max() * (K - K.mean(0)).norm(dim=1).max())
    for degree in DEGREES:
        outputs, other = adapted(partial(linear_attention, degree=degree))
        found[degree] = (
            float((outputs - exact).abs().max()),
            float((other - gradient).norm() / gradient.norm()),
            spread * largest_shift(bound, degree),
        )
    words = "; ".join(f"g={g}: {e:.0e}, gradient {d:.0e}, bound {b:.0e}" for g, (e, d, b) in found.items())
    return {"error": found[4][0], "found": found, "remark": words}


def draws(n_draws=200):
    """How often a reported bound does not hold, and how loose bounds are."""
    import torch

    from sklowrank.inspection import attention_report
    from sklowrank.neural import linear_attention

    broken, loose = 0, []
    for seed in range(n_draws):
        rng = np.random.default_rng(1000 + seed)
        n, h = int(rng.integers(20, 120)), int(rng.integers(1, 5))
        Q, K, V = (rng.normal(size=(n, width)) for width in (h, h, 2))
        Q, K = Q * rng.uniform(0.1, 0.6), K * rng.uniform(0.1, 0.6) + rng.normal(size=h)
        report = attention_report(Q, K, V, tol=10.0 ** -rng.integers(1, 5))
        w = np.exp(Q @ (K - K.mean(0)).T)
        found = linear_attention(*map(torch.from_numpy, (Q, K, V)), degree=report["degree"]).numpy()
        true = np.abs(found - w @ V / w.sum(1, keepdims=True)).max()
        broken += bool(true > report["output_bound"] + 1e-12)
        loose.append(report["output_bound"] / max(true, 1e-300))
    median = float(np.median(loose))
    return {"error": broken, "loose": median, "remark": f"bounds are {median:.0f} times the error, in the median"}


def classified(data, name, seeds=2):
    """Mean error, log loss and seconds over splits."""
    X, y = bundled(data)
    right, loss, seconds, remark = [], [], [], ""
    for seed in range(seeds):
        A, B, a, b = train_test_split(X, y, test_size=0.3, random_state=seed, stratify=y)
        model, spent = timed(make(name).fit, A, a)
        right.append(model.score(B, b))
        loss.append(log_loss(b, model.predict_proba(B)))
        seconds.append(spent)
        if name == "polynomial":
            start = log_loss(b, quietly(ours(max_iter=0).fit, A, a).predict_proba(B))
            remark = f", at the start {start:.3f}; {model.n_iter_} steps"
    return {
        "error": 1 - float(np.mean(right)),
        "loss": float(np.mean(loss)),
        "seconds": float(np.mean(seconds)),
        "remark": f"log loss {np.mean(loss):.3f}{remark}",
    }


def regressed(name, seeds=3):
    """Mean of 1 - R² over splits of diabetes."""
    X, y = load_diabetes(return_X_y=True)
    lost, seconds = [], []
    for seed in range(seeds):
        A, B, a, b = train_test_split(X, y, test_size=0.3, random_state=seed)
        nearest = make_pipeline(StandardScaler(), KNeighborsRegressor(10))
        model, spent = timed((nearest if name == "10-NN" else ours("Regressor", method=name)).fit, A, a)
        lost.append(1 - model.score(B, b))
        seconds.append(spent)
    return {"error": float(np.mean(lost)), "seconds": float(np.mean(seconds))}


def many_rows(name, n, steps=20):
    """Moons: seconds of a fit and of 3000 predictions, memory, bytes of the pickle."""
    X, y = moons(n, 1)
    X_new, y_new = moons(3000, 3)
    model = {
        "ours": lambda: ours(n_components=4, max_iter=steps),
        "5-NN": lambda: KNeighborsClassifier(5),
        "NCA": lambda: make_pipeline(NeighborhoodComponentsAnalysis(4, random_state=0), KNeighborsClassifier(5)),
    }[name]()
    if name == "ours":
        quietly(ours(n_components=4, max_iter=1).fit, X[:500], y[:500])  # torch is loaded
    before = peak()
    model, fit = timed(model.fit, X, y)
    labels, predict = timed(model.predict, X_new)
    grown, size = peak() - before, len(pickle.dumps(model))
    return {
        "error": float(np.mean(labels != y_new)),
        "seconds": fit,
        "predict": predict,
        "grown": grown,
        "bytes": size,
        "remark": f"3000 predictions {predict:.3f} s; pickle {size / 1000:.0f} kB; {grown:.0f} MB more while fitting",
    }


def step(method, n=8000, steps=3):
    """Seconds of a step of the training."""
    X, y = moons(n, 1)
    found = seconds_of_steps(ours(n_components=4, max_iter=steps, method=method), X, y)
    return {"seconds": float(np.min(found))}


def on_device(device, n=50_000, steps=20):
    """Probabilities and seconds of a fit on a device."""
    X, y = moons(n, 1)
    model = ours(n_components=4, max_iter=steps, device=device)
    quietly(model.fit, X[:1000], y[:1000])
    start = time.perf_counter()
    quietly(model.fit, X, y)
    return {"seconds": time.perf_counter() - start, "answers": model.predict_proba(X[:3000])}


# Cases


def errors_by_degree(bench):
    """errors by degree: 1500 Gaussian rows, four components, three values, an adapter of rank 2 at zero."""
    for largest in BOUNDS:
        found = bench.measure(f"largest logit {largest}", errors_of_degrees, largest)
        for degree, (need, need_of_gradient) in zip(DEGREES, NEEDS[largest]):
            output, gradient, _ = found["found"][degree] if found else (np.nan,) * 3
            bench.claim(f"logit {largest}, degree {degree}: error of outputs", output, at_most=need)
            bench.claim(f"logit {largest}, degree {degree}: error of the gradient", gradient, at_most=need_of_gradient)


def guaranteed_bounds(bench):
    """guaranteed bounds: 200 random sets of queries, keys and values; the error is the number of broken bounds."""
    bench.claim("bounds that did not hold", bench.measure("attention_report", draws).error, at_most=0)


def small_tables(bench):
    """small tables: means over two splits, for diabetes three, 30 % of the rows to test; on digits the peers win."""
    names = ("polynomial", "exact", "5-NN", "NCA")
    for data in ("wine", "breast_cancer", "digits"):
        found = {name: bench.measure(f"{data}: {name}", classified, data, name) for name in names}
        behind = found["polynomial"].error - found["exact"].error
        bench.claim(f"{data}: accuracy below exact attention", behind, at_most=0.02)
        best = min(found["5-NN"].error, found["NCA"].error)
        bench.note(f"{data}: ours less the best peer", f"accuracy {best - found['polynomial'].error:+.3f}")
        if data == "breast_cancer":
            bench.claim("breast cancer: log loss", found["polynomial"].loss, found["5-NN"].loss, at_most=0.8)
    found = {name: bench.measure(f"diabetes: {name}", regressed, name) for name in ("polynomial", "exact", "10-NN")}
    for name, need in (("exact", 0.06), ("10-NN", 0.05)):
        bench.claim(f"diabetes: R² below {name}", found["polynomial"].error - found[name].error, at_most=need)


def scale_in_rows(bench):
    """rows: two moons in ten columns, four components, 20 steps; the error is that of 3000 new rows."""
    sizes = (2000, 20_000, 80_000, 100_000)
    found = {n: bench.measure(f"ours, {n:,}", many_rows, "ours", n) for n in sizes}
    nearest = {n: bench.measure(f"5-NN, {n:,}", many_rows, "5-NN", n) for n in (2000, 20_000, 100_000)}
    components = {n: bench.measure(f"NCA and 5-NN, {n:,}", many_rows, "NCA", n) for n in (1000, 2000)}
    bench.claim("80,000 over 20,000 rows, seconds", found[80_000].seconds / found[20_000].seconds, at_most=5.5)
    bench.claim("100,000 rows: MB more while fitting", found[100_000].grown, at_most=1200)
    bench.claim("pickle, 100,000 over 2,000 rows", found[100_000].bytes / found[2000].bytes, at_most=1.2)
    faster = nearest[100_000].predict
    bench.claim("3000 predictions, 100,000 rows, faster than 5-NN", found[100_000].predict, faster, at_least=8)
    bench.claim("100,000 rows: accuracy below 5-NN", found[100_000].error - nearest[100_000].error, at_most=0.05)
    doubled = components[2000].seconds / components[1000].seconds
    bench.note("NCA, 2000 over 1000 rows", f"{doubled:.1f} times the seconds")


def steps_against_exact(bench):
    """a step at 8000 rows: the same attention by polynomials and exactly, in blocks of rows."""
    found = {method: bench.measure(method, step, method) for method in ("polynomial", "exact")}
    bench.claim("faster than exact", found["polynomial"].seconds, found["exact"].seconds, at_least=20)


def gpu(bench):
    """GPU: 50,000 rows, 20 steps, on both devices."""
    if bench.device != "cuda":
        return bench.skip("asked for the CPU alone")
    cpu, cuda = (bench.measure(device, on_device, device) for device in ("cpu", "cuda"))
    bench.claim("largest difference of probabilities", float(np.abs(cpu.answers - cuda.answers).max()), at_most=1e-6)
    bench.claim("faster than the CPU", cuda.seconds, cpu.seconds, at_least=1)


CASES = [errors_by_degree, guaranteed_bounds, small_tables, scale_in_rows, steps_against_exact, gpu]
