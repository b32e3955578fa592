"""Networks of every width from one fit: `MorphableMLPClassifier` and `MorphableMLPRegressor`.

Accuracies and R² are those on test rows, means over seeds of the training. Networks have two hidden layers of one
width. No parameter is tuned on the test rows. Seconds are those of the processor, of one fit; where networks are
separate, of all of them. Separate networks are `NetworkClassifier` and `NetworkRegressor`, one fit for each width, with
the epochs, the batches and the rate of the one fit, at which the rate stays; those of scikit-learn have larger batches.
Slices are the first units of a plain network of scikit-learn that was trained at its full width.
"""

import os
import pickle
import time
from functools import partial

import numpy as np
from sklearn.datasets import load_digits, make_friedman1
from sklearn.linear_model import Ridge
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.harness import quietly

TITLE = "Neural metamorphosis"
SEEN, BETWEEN = (24, 32, 40, 48, 56, 64), (20, 28, 36, 44, 52, 60)
WIDTHS, FEW = (16, *sorted((*SEEN, *BETWEEN))), (16, 20, 33, 64)
EPOCHS, RATE = 100, 3e-3


def device():
    return os.environ["SKLOWRANK_BENCH_DEVICE"]


def digits_split():
    X, y = load_digits(return_X_y=True)
    return train_test_split(X / 16 - 0.3, y, test_size=0.3, random_state=0, stratify=y)


def friedman_split(seed=0):
    X, y = make_friedman1(1000, noise=0.5, random_state=seed)
    return train_test_split(X, y, test_size=0.3, random_state=0)


def morphable(kind, seed=0, **settings):
    from sklowrank.neural import MorphableMLPClassifier, MorphableMLPRegressor

    cls = {"classifier": MorphableMLPClassifier, "regressor": MorphableMLPRegressor}[kind]
    return cls(**{"learning_rate": RATE, "max_iter": EPOCHS, "device": device(), "random_state": seed, **settings})


def separate(kind, width, seed, **settings):
    """A network of one width, trained as the one fit is: with its epochs, its batches and its first rate."""
    from sklowrank.neural import NetworkClassifier, NetworkRegressor

    cls = {"classifier": NetworkClassifier, "regressor": NetworkRegressor}[kind]
    given = {"learning_rate": RATE, "max_iter": EPOCHS, "tol": 0, "device": device(), "random_state": seed, **settings}
    return cls((width, width), **given)


def of_sklearn(kind, width, seed=0):
    """A multilayer perceptron of scikit-learn, of one width, on standardised targets."""
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    settings = {"hidden_layer_sizes": (width, width), "max_iter": EPOCHS, "learning_rate_init": RATE}
    settings["random_state"] = seed
    if kind == "classifier":
        return MLPClassifier(**settings)
    network = make_pipeline(StandardScaler(), MLPRegressor(**settings))
    return TransformedTargetRegressor(network, transformer=StandardScaler())


def apart(make, widths, A, B, a, b, seeds):
    """Scores of networks of these widths, each of a fit of its own."""
    scores, seconds = [], []
    for seed in range(seeds):
        models = {width: make(width, seed) for width in widths}
        seconds.append(sum(fit_seconds(model, A, a) for model in models.values()))
        scores.append({width: model.score(B, b) for width, model in models.items()})
    return curve(scores, seconds)


def fit_seconds(model, X, y):
    start = time.process_time()
    quietly(model.fit, X, y)
    return time.process_time() - start


def curve(scores, seconds):
    """Figures by width: mean scores of several seeds."""
    mean = {width: float(np.mean([found[width] for found in scores])) for width in scores[0]}
    remark = ", ".join(f"{width}: {value:.3f}" for width, value in mean.items())
    return {"mean": mean, "error": 1 - max(mean.values()), "seconds": float(np.mean(seconds)), "remark": remark}


# Digits


def digits_morphable(weight_function, widths=WIDTHS, seeds=2):
    A, B, a, b = digits_split()
    scores, seconds = [], []
    for seed in range(seeds):
        model = morphable("classifier", seed, weight_function=weight_function, standardize=False)
        seconds.append(fit_seconds(model, A, a))
        scores.append({width: np.mean(quietly(model.predict, B, width) == b) for width in widths})
    return curve(scores, seconds)


def digits_separate(seeds=2):
    return apart(partial(separate, "classifier", standardize=False), FEW, *digits_split(), seeds)


def digits_sklearn(seeds=2):
    return apart(partial(of_sklearn, "classifier"), FEW, *digits_split(), seeds)


def digits_slices(widths, seeds=2):
    A, B, a, b = digits_split()
    scores, seconds = [], []
    for seed in range(seeds):
        plain = of_sklearn("classifier", 64, seed)
        seconds.append(fit_seconds(plain, A, a))
        W, c, found = plain.coefs_, plain.intercepts_, {}
        for h in widths:
            z = np.maximum(B @ W[0][:, :h] + c[0][:h], 0)
            z = np.maximum(z @ W[1][:h, :h] + c[1][:h], 0)
            found[h] = np.mean((z @ W[2][:h] + c[2]).argmax(1) == b)
        scores.append(found)
    return curve(scores, seconds)


def digits_ordered(widths, seeds=2):
    """A network of 64 units cut to ranks, with as many parameters as the networks of these widths have at most."""
    from sklowrank.neural import NetworkClassifier, OrderedRank

    A, B, a, b = digits_split()
    scores, seconds = [], []
    for seed in range(seeds):
        settings = {"learning_rate": RATE, "max_iter": EPOCHS, "tol": 0, "standardize": False, "device": device()}
        model = NetworkClassifier((64, 64), training=OrderedRank(), random_state=seed, **settings)
        seconds.append(fit_seconds(model, A, a))
        shares = {h: (65 * h + h * (h + 1) + 10 * (h + 1)) / model.n_dense_parameters_ for h in widths}
        scores.append({h: model.resized(min(share, 1.0)).score(B, b) for h, share in shares.items()})
    return curve(scores, seconds)


def digits(bench):
    """digits: 70 % of the images of 8 by 8 pixels for the training, widths 16 to 64, two seeds.

    "nested" draws all widths in training, "spectral" 16, 24, 32, 40, 48, 56 and 64.
    """
    nested = bench.measure("nested", digits_morphable, "nested").get("mean", {})
    spectral = bench.measure("spectral", digits_morphable, "spectral", (*WIDTHS, 96, 128)).get("mean", {})
    separate = bench.measure("separate networks", digits_separate).get("mean", {})
    sklearn = bench.measure("separate networks of scikit-learn", digits_sklearn).get("mean", {})
    slices = bench.measure("slices of a plain network", digits_slices, (16, 32, 48, 64)).get("mean", {})
    ordered = bench.measure("OrderedRank, as many parameters", digits_ordered, (16, 20, 32, 48, 64)).get("mean", {})
    bench.claim("nested: least accuracy, widths 20 to 64", min(nested[h] for h in WIDTHS[1:]), at_least=0.945)
    bench.claim("nested: width 16", nested[16], at_least=0.94)
    bench.claim("nested: width 64 below a plain network of it", sklearn[64] - nested[64], at_most=0.012)
    bench.claim("nested: width 64 above width 20", nested[64] - nested[20], at_least=0.005)
    bench.claim("spectral: least accuracy, widths 20 to 64", min(spectral[h] for h in WIDTHS[1:]), at_least=0.955)
    below = np.mean([spectral[h] for h in SEEN]) - min(spectral[h] for h in BETWEEN)
    bench.claim("spectral: widths that were not trained below the mean of the others", below, at_most=0.012)
    bench.claim("spectral: width 96, outside of the range", spectral[96], at_least=0.955)
    for h, need in ((16, 0.3), (32, 0.1), (48, 0.02)):
        bench.claim(f"nested: width {h} above slices", nested[h] - slices[h], at_least=need)
    bench.claim("nested: width 20 above OrderedRank", nested[20] - ordered[20], at_least=0.1)
    for h in (16, 20, 64):
        bench.note(f"a separate network less nested, width {h}", f"{separate[h] - nested[h]:+.4f}")


# Friedman's function


def friedman_morphable(weight_function, seeds=3):
    A, B, a, b = friedman_split()
    scores, seconds = [], []
    for seed in range(seeds):
        model = morphable("regressor", seed, weight_function=weight_function, max_iter=200)
        seconds.append(fit_seconds(model, A, a))
        scores.append(dict(zip(FEW, model.size_curve(B, b, FEW)[1])))
    return curve(scores, seconds)


def friedman_separate(seeds=3):
    return apart(partial(separate, "regressor", max_iter=200), FEW, *friedman_split(), seeds)


def friedman_sklearn(seeds=3):
    return apart(partial(of_sklearn, "regressor"), FEW, *friedman_split(), seeds)


def friedman_linear():
    A, B, a, b = friedman_split()
    model = Ridge()
    seconds = fit_seconds(model, A, a)
    return {"score": model.score(B, b), "error": 1 - model.score(B, b), "seconds": seconds}


def friedman(bench):
    """regression: the first function of Friedman with noise of 0.5, 700 rows to train on, 200 epochs, three seeds.

    Separate networks of scikit-learn are trained on standardised columns and targets for 100 epochs, with batches of
    200 rows.
    """
    nested = bench.measure("nested", friedman_morphable, "nested").get("mean", {})
    spectral = bench.measure("spectral", friedman_morphable, "spectral").get("mean", {})
    separate = bench.measure("separate networks", friedman_separate).get("mean", {})
    bench.measure("separate networks of scikit-learn", friedman_sklearn)
    line = bench.measure("ridge regression", friedman_linear)
    bench.claim("nested: R² at width 33", nested[33], at_least=0.88)
    bench.claim("nested: width 64 above ridge regression", nested[64] - line.score, at_least=0.10)
    bench.claim("nested: R² at width 16", nested[16], at_least=0.94)
    bench.claim("nested: R² at width 64", nested[64], at_least=0.96)
    bench.claim("spectral: least R²", min(spectral.values()), at_least=0.93)
    bench.note("nested: width 64 above width 16", f"{nested[64] - nested[16]:+.4f}")
    bench.claim("nested: width 64 below a separate network", separate[64] - nested[64], at_most=0.01)
    for h in FEW:
        bench.note(f"a separate network less nested, width {h}", f"{separate[h] - nested[h]:+.4f}")


# What is stored and answered


def agreement(weight_function, widths):
    """Answers against numpy on the stored weights, against `resized`, and at other scales of X."""
    A, B, a, _ = digits_split()
    model = morphable("classifier", max_iter=10, weight_function=weight_function).fit(A, a)
    stored = len(pickle.dumps(model))
    off, resized = [], []
    for h in widths:
        found, w = quietly(model.predict_proba, B, h), model.weights_
        if weight_function == "nested":
            P, share = np.eye(h, len(w["first"])), np.sqrt(h)
        else:
            angles = np.pi * (np.arange(h)[:, None] + 0.5) / h * np.arange(1, 17)
            P, share = np.c_[np.ones(h), np.sqrt(2) * np.sin(angles), np.sqrt(2) * np.cos(angles)] / np.sqrt(33), h
        first = P @ w["first"]
        z = np.maximum((B - model.mean_) / model.scale_ @ first[:, :-1].T + first[:, -1], 0)
        z = np.maximum(z @ (P @ w["hidden0"] @ P.T / share).T + P @ w["hidden0_bias"], 0)
        z = np.exp(z @ (P @ w["last"] / share) + w["last_bias"])
        off.append(np.abs(found - z / z.sum(1, keepdims=True)).max())
        resized.append(np.abs(found - quietly(model.resized, h).predict_proba(B)).max())
    other = []
    for scale in (1e-25, 1e25):
        moved = morphable("classifier", max_iter=10, weight_function=weight_function).fit(A * scale, a)
        other.append(np.mean(moved.predict(B * scale) != model.predict(B)))
    grown = len(pickle.dumps(model)) - stored
    return {"error": max(off), "resized": max(resized), "other": max(other), "grown": grown, "stored": stored}


def answers(bench):
    """answers: digits, 10 epochs; networks of any width are those of the stored weights, and nothing else is stored."""
    for weight_function, widths in (("nested", (1, 16, 37, 64)), ("spectral", (16, 37, 64, 100))):
        found = bench.measure(weight_function, agreement, weight_function, widths)
        bench.claim(f"{weight_function}: against numpy", found.error, at_most=1e-4)
        bench.claim(f"{weight_function}: resized against predict", found.resized, at_most=1e-6)
        bench.claim(f"{weight_function}: bytes that predictions add to the file", found.grown, at_most=0)
        bench.claim(
            f"{weight_function}: predictions that differ at scales of 1e25 and 1e-25", found.other, at_most=0.01
        )


# Cost


def cost(name, n, n_epochs=4, width=64):
    """Seconds of a fit to rows of ten classes, and of a prediction."""
    from sklowrank.neural import NetworkClassifier

    rng = np.random.default_rng(0)
    y = np.arange(n) % 10
    X = (rng.normal(size=(10, 50))[y] + rng.normal(size=(n, 50))).astype(np.float32)
    if name == "one network":
        settings = {"learning_rate": RATE, "max_iter": n_epochs, "tol": 0, "device": device()}
        model = NetworkClassifier((width, width), random_state=0, **settings)
    else:
        limits = {"width_range": (width // 4, width), "max_iter": n_epochs}
        model = morphable("classifier", weight_function=name, **limits)
    quietly(model.fit, X[:200], y[:200])
    start = time.perf_counter()
    seconds = fit_seconds(model, X, y)
    waited = time.perf_counter() - start
    return {"seconds": waited if device() == "cuda" else seconds, "error": 1 - model.score(X[:1000], y[:1000])}


def speed(bench):
    """speed: 50 columns in float32, four epochs, widths 16 to 64, against one network of 64 units."""
    found = {n: bench.measure(f"nested, {n} rows", cost, "nested", n) for n in (1_000, 10_000, 100_000)}
    spectral = bench.measure("spectral, 10000 rows", cost, "spectral", 10_000)
    one = bench.measure("NetworkClassifier, 10000 rows", cost, "one network", 10_000)
    bench.claim("nested: time for ten times the rows", found[100_000].seconds / found[10_000].seconds, at_most=12)
    bench.claim("nested: times one network", found[10_000].seconds / one.seconds, at_most=3)
    bench.claim("spectral: times one network", spectral.seconds / one.seconds, at_most=3)


def on_devices(weight_function):
    """Largest difference of probabilities of one model on the CPU and on the GPU, at several widths."""
    A, B, a, b = digits_split()
    model = morphable("classifier", weight_function=weight_function, max_iter=20).fit(A, a)
    there = [model.predict_proba(B, width) for width in FEW]
    here = [model.set_params(device="cpu").predict_proba(B, width) for width in FEW]
    return {"error": max(np.abs(x - y).max() for x, y in zip(there, here)), "accuracy": model.score(B, b)}


def gpu(bench):
    """GPU: answers as on the CPU, and seconds of a fit of widths 512 to 2048."""
    if bench.device != "cuda":
        return bench.skip("it needs --device cuda")
    for weight_function in ("nested", "spectral"):
        found = bench.measure(weight_function, on_devices, weight_function)
        bench.claim(f"{weight_function}: probabilities on the GPU and on the CPU", found.error, at_most=1e-6)
        bench.claim(f"{weight_function}: accuracy of a fit on the GPU", found.accuracy, at_least=0.94)
    found = bench.measure("nested, 100000 rows, widths 512 to 2048", cost, "nested", 100_000, 4, 2048)
    one = bench.measure("NetworkClassifier, 100000 rows, width 2048", cost, "one network", 100_000, 4, 2048)
    bench.claim("nested: times one network", found.seconds / one.seconds, at_most=3)


CASES = [digits, friedman, answers, speed, gpu]
