"""Images in any direction, learned from upright ones: `LieGroupConvClassifier`.

Digits of 8 by 8 pixels are enlarged to 15 by 15, half of them to train on. Test images are warped about their centre by
the exponential of a random symmetric matrix, whose entries are normal with a given standard deviation, and a rotation
by up to a given angle. The plain network has two convolutions and is trained for as many seconds as ours. No parameter
is tuned on test images. Seconds are those of the processor, of one fit.
"""

import os
import time
from functools import cache

import numpy as np
import torch
from scipy.linalg import expm
from scipy.ndimage import affine_transform
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from benchmarks.harness import quietly

TITLE = "Lie-group equivariant images"
SIDE = 15
VIEWS = {  # degrees of rotation at most, strain
    "upright": (0, 0.0),
    "20 degrees": (20, 0.0),
    "20 degrees, strain 0.1": (20, 0.1),
    "45 degrees, strain 0.2": (45, 0.2),
    "any turn": (180, 0.0),
    "any turn, strain 0.2": (180, 0.2),
}


def warped(rows, rotation, strain, seed=0):
    """Copies of images under random linear maps."""
    rng, centre = np.random.default_rng(seed), np.full(2, (SIDE - 1) / 2)
    found = []
    for image in rows.reshape(-1, SIDE, SIDE):
        angle, S = np.deg2rad(rng.uniform(-rotation, rotation)), strain * rng.normal(size=(2, 2))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        M = expm((S + S.T) / 2) @ turn
        found.append(affine_transform(image, M, offset=centre - M @ centre, order=1))
    return np.array(found).reshape(len(rows), -1)


@cache
def digits_data(seed=0):
    """Training and test images with their classes."""
    X, y = load_digits(return_X_y=True)
    images = torch.from_numpy(X.reshape(-1, 1, 8, 8) / 16)
    larger = torch.nn.functional.interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=True)
    return train_test_split(larger.numpy().reshape(len(X), -1), y, test_size=0.5, random_state=seed, stratify=y)


def ours(seed=0, **settings):
    from sklowrank.neural import LieGroupConvClassifier

    device = os.environ["SKLOWRANK_BENCH_DEVICE"]
    return LieGroupConvClassifier((SIDE, SIDE), random_state=seed, **{"device": device, **settings})


class PlainNet:
    """A plain convolutional network, trained for some seconds; its batches are turned where it `augments`."""

    def __init__(self, seconds, augments=False, seed=0):
        self.seconds, self.augments, self.seed = seconds, augments, seed

    def fit(self, X, y):
        torch.manual_seed(self.seed)
        conv, relu, pool = torch.nn.Conv2d, torch.nn.ReLU, torch.nn.MaxPool2d
        self.features = torch.nn.Sequential(
            *(conv(1, 16, 3, padding=1), relu(), pool(2), conv(16, 32, 3, padding=1), relu(), pool(2)),
            *(torch.nn.Flatten(), torch.nn.Linear(288, 64)),
        )
        self.net = torch.nn.Sequential(self.features, relu(), torch.nn.Linear(64, int(y.max()) + 1))
        optimizer, start = torch.optim.Adam(self.net.parameters(), 2e-3), time.process_time()
        images, codes = _images(X), torch.from_numpy(y)
        while time.process_time() - start < self.seconds:
            for rows in torch.randperm(len(X)).split(64):
                optimizer.zero_grad()
                batch = _turned_at_random(images[rows]) if self.augments else images[rows]
                torch.nn.functional.cross_entropy(self.net(batch), codes[rows]).backward()
                optimizer.step()
        return self

    def transform(self, X):
        with torch.no_grad():
            return self.features(_images(X)).numpy()

    def score(self, X, y):
        with torch.no_grad():
            return float((self.net(_images(X)).argmax(1).numpy() == y).mean())


def _images(X):
    return torch.from_numpy(X.reshape(-1, 1, SIDE, SIDE)).float()


def _turned_at_random(images):
    angles = 2 * np.pi * torch.rand(len(images))
    c, s, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    maps = torch.stack([torch.stack([c, -s, zero], 1), torch.stack([s, c, zero], 1)], 1)
    grid = torch.nn.functional.affine_grid(maps, list(images.shape), align_corners=True)
    return torch.nn.functional.grid_sample(images, grid, align_corners=True)


def with_turned_copies(X, y, n=8):
    """Images and eight copies that are turned by any angle."""
    return np.concatenate([X] + [warped(X, 180, 0.0, 100 + seed) for seed in range(n)]), np.tile(y, n + 1)


def method(name, seconds, seed):
    if name.startswith("plain network"):
        return PlainNet(seconds, name.endswith("turned batches"), seed)
    return ours(seed) if name == "ours" else SVC(C=10)


def on_views(name, seconds=0.0, n_seeds=2):
    """Accuracies on all views; of ours means over seeds of the training."""
    A, B, a, b = digits_data()
    data = with_turned_copies(A, a) if name.endswith("turned copies") else (A, a)
    right, times = [], []
    for seed in range(n_seeds if name == "ours" else 1):
        model = method(name, seconds, seed)
        start = time.process_time()
        model.fit(*data)
        times.append(time.process_time() - start)
        right.append([model.score(warped(B, *view), b) for view in VIEWS.values()])
    found = dict(zip(VIEWS, np.mean(right, 0)))
    found["worst any turn"] = float(np.min(right, 0)[list(VIEWS).index("any turn")])
    found["seconds"] = float(np.median(times))
    return found | {"remark": ", ".join(f"{view} {found[view]:.3f}" for view in VIEWS)}


def digits(bench):
    """rotated digits: trained on 898 upright images, tested on warped ones; accuracies, of ours means over two seeds.

    The lines with turned copies and turned batches know the rotations that the test images have.
    """
    model = bench.measure("LieGroupConvClassifier", on_views, "ours")
    seconds = model.seconds
    plain = bench.measure("plain network", on_views, "plain network", seconds)
    pixels = bench.measure("SVC", on_views, "SVC")
    copies = bench.measure("SVC, eight turned copies", on_views, "SVC, turned copies")
    batches = bench.measure("plain network, turned batches", on_views, "plain network, turned batches", seconds)
    best = max(plain["any turn"], pixels["any turn"])
    bench.claim("accuracy upright", model["upright"], at_least=0.89)
    bench.claim("accuracy at any turn", model["any turn"], at_least=0.70)
    bench.claim("accuracy at any turn, worst seed", model["worst any turn"], at_least=0.70)
    bench.claim("any turn, above plain network and SVC", model["any turn"] - best, at_least=0.35)
    bench.claim("seconds of a fit", seconds, at_most=23)
    for name, peer in (("plain network", plain), ("SVC", pixels)):
        for view in ("upright", "20 degrees", "20 degrees, strain 0.1"):
            bench.note(f"{name} less ours, {view}", f"{peer[view] - model[view]:+.3f}")
    for name, peer in (("SVC, eight turned copies", copies), ("plain network, turned batches", batches)):
        bench.note(f"{name} less ours, any turn", f"{peer['any turn'] - model['any turn']:+.3f}")


def few_labels(known, classes, n_labelled=40, n_draws=5):
    """Accuracies from a few labelled images, turned as the test images are; the network has seen `known` digits.

    Features are standardised; pixels, which have one unit, are not.
    """
    A, B, a, b = digits_data()
    rows = np.isin(a, known)
    model = ours().fit(A[rows], a[rows])
    turned, right = warped(B, 180, 0.0), {}
    features = model.transform(turned)
    for draw in range(n_draws):
        rng = np.random.default_rng(draw)
        order = [rng.permutation(np.flatnonzero(b == c)) for c in classes]
        n = n_labelled // len(classes)
        few, test = np.concatenate([at[:n] for at in order]), np.concatenate([at[n:] for at in order])
        copies, labels = with_turned_copies(turned[few], b[few])
        sets = {
            "invariant features": (features[few], b[few], features[test]),
            "pixels": (turned[few], b[few], turned[test]),
            "pixels, turned copies": (copies, labels, turned[test]),
        }
        for name, (Z, targets, Z_test) in sets.items():
            scale = StandardScaler() if name == "invariant features" else "passthrough"
            for kind, classifier in {"logistic": LogisticRegression(max_iter=1000), "SVC": SVC(C=10)}.items():
                chain = quietly(make_pipeline(scale, classifier).fit, Z, targets)
                right.setdefault(f"{kind} on {name}", []).append(chain.score(Z_test, b[test]))
    found = {name: float(np.mean(scores)) for name, scores in right.items()}
    return found | {"remark": ", ".join(f"{name} {value:.3f}" for name, value in found.items())}


def labels(bench):
    """forty labels: digits at any turn, forty of them labelled, by simple classifiers; five draws.

    Features come from a network that was trained on upright images: of the same digits, or of 0 to 4 where the
    classifiers are for 5 to 9. Other classifiers see pixels, of the forty images and of eight turned copies of each.
    """
    for name, known, classes in (("known digits", range(10), range(10)), ("new digits", range(5), range(5, 10))):
        found = bench.measure(name, few_labels, list(known), list(classes))
        mine = found.get("logistic on invariant features", np.nan)
        for other, need in (("pixels", 0.1), ("pixels, turned copies", 0.0)):
            gain = mine - found.get(f"logistic on {other}", np.nan)
            bench.claim(f"{name}: logistic regression on features above {other}", gain, at_least=need)
        for other in ("pixels", "pixels, turned copies"):
            lead = found.get(f"SVC on {other}", np.nan) - mine
            bench.note(f"{name}: SVC on {other} less logistic regression on features", f"{lead:+.3f}")


def with_settings(settings):
    """Accuracies of one fit with some parameters on three views, and the mean loss of its last epoch."""
    A, B, a, b = digits_data()
    model = ours(**settings)
    start = time.process_time()
    model.fit(A, a)
    found = {"seconds": time.process_time() - start, "loss": model.loss_curve_[-1]}
    views = ("upright", "any turn", "any turn, strain 0.2")
    found |= {view: model.score(warped(B, *VIEWS[view]), b) for view in views}
    return found | {"remark": ", ".join(f"{name} {found[name]:.3f}" for name in ("loss", *views))}


def choices(bench):
    """groups and kernels: one fit with each group, and with other numbers of free values of a kernel."""
    found = {"so2": bench.measure("so2, 5 points", with_settings, {})}
    found |= {group: bench.measure(f"{group}, 5 points", with_settings, {"group": group}) for group in ("sl2", "gl2")}
    found |= {n: bench.measure(f"so2, {n} points", with_settings, {"kernel_points": n}) for n in (3, 11)}
    for name in ("sl2", "gl2"):
        for view in ("upright", "any turn, strain 0.2"):
            bench.note(f"{name} less so2, {view}", f"{found[name][view] - found['so2'][view]:+.3f}")
    for n in (3, 11):
        bench.note(f"{n} points less 5, any turn", f"{found[n]['any turn'] - found['so2']['any turn']:+.3f}")


def symmetries(n_samples, max_iter=30, n_rows=200):
    """By how much features move with an image: relative to the largest, and at any turn in units of their spread."""
    A, B, a, _ = digits_data()
    start = time.process_time()
    model = ours(n_group_samples=n_samples, max_iter=max_iter).fit(A, a)
    plain = PlainNet(time.process_time() - start).fit(A, a)
    images, T, found = B[:n_rows].reshape(-1, SIDE, SIDE), model.transform(B[:n_rows]), {}
    for name, moved in {"quarter turn": np.rot90(images, axes=(1, 2)), "mirror": images[:, :, ::-1]}.items():
        found[name] = float(np.abs(model.transform(moved.reshape(n_rows, -1)) - T).max() / np.abs(T).max())
    turned = warped(B[:n_rows], 180, 0.0, 3)
    for name, net in (("any turn", model), ("any turn, plain network", plain)):
        F = net.transform(B[:n_rows])
        found[name] = float(np.abs(net.transform(turned) - F).mean() / F.std(0).mean())
    return found | {"remark": ", ".join(f"{name} {value:.3g}" for name, value in found.items())}


def turns(bench):
    """symmetries: by how much features change with an image; any turn in units of their spread."""
    found = bench.measure("8 elements", symmetries, 8)
    few = {n: bench.measure(f"{n} elements, 3 epochs", symmetries, n, 3) for n in (3, 4)}
    for n, model in ((8, found), (4, few[4])):
        bench.claim(f"quarter turns move features, relative, {n} elements", model["quarter turn"], at_most=1e-4)
    bench.claim("a mirror moves features, relative, 8 elements", found["mirror"], at_least=0.05)
    ratio = found["any turn"] / found["any turn, plain network"]
    bench.claim("any turn moves features, over a plain network's, 8 elements", ratio, at_most=0.8)
    bench.note("quarter turns move features, relative, 3 elements", f"{few[3]['quarter turn']:.3f}")


def timed(n_rows):
    """Seconds of two epochs and of answers, for copies of the digits."""
    A, _, a, _ = digits_data()
    at = np.arange(n_rows) % len(A)
    model = ours(max_iter=2)
    start = time.process_time()
    model.fit(A[at], a[at])
    fitted = time.process_time()
    model.predict(A[at[:1000]])
    return {"seconds": fitted - start, "remark": f"1,000 answers {time.process_time() - fitted:.2f} s"}


def scale(bench):
    """scale: two epochs of images of 15 by 15 pixels; memory is that of a batch and of X."""
    found = {n: bench.measure(f"{n:,} images", timed, n) for n in (1000, 10_000)}
    bench.claim("time for ten times the rows", found[10_000].seconds / found[1000].seconds, at_most=13)


def gpu_fit(device):
    """Seconds of a fit on a device, and the accuracy at any turn."""
    A, B, a, b = digits_data()
    model = ours(device=device)
    start = time.perf_counter()
    model.fit(A, a)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "accuracy": model.score(warped(B, 180, 0.0), b)}


def gpu(bench):
    """GPU: the fit of the digits on both devices."""
    if not torch.cuda.is_available():
        bench.skip("torch sees no GPU")
        return
    here, there = (bench.measure(device, gpu_fit, device) for device in ("cpu", "cuda"))
    bench.claim("accuracy at any turn, CPU less GPU", abs(here.accuracy - there.accuracy), at_most=0.05)
    bench.note("times faster on the GPU", f"{here.seconds / there.seconds:.1f}")


CASES = [digits, labels, choices, turns, scale, gpu]
