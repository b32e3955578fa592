"""Networks of their own kind: thin sets, spoilt rows, fields, widths, turned images, attention."""

import numpy as np
import scipy.sparse as sp
from scipy.ndimage import gaussian_filter, rotate, zoom
from scipy.sparse.linalg import spsolve
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neighbors import KernelDensity, KNeighborsClassifier, NearestNeighbors, NeighborhoodComponentsAnalysis
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from benchmarks.data import bundled
from benchmarks.scoreboard.entries import Clock, Contender, Entry

WIDTHS = (16, 20, 32, 64)

# Protocols


def curve(rng, n=600):
    """Rows on a closed curve in ten columns."""
    t = rng.random(n)
    parts = [np.cos(2 * np.pi * t), np.sin(2 * np.pi * t), np.cos(4 * np.pi * t), np.sin(4 * np.pi * t), t, t**2]
    return np.column_stack(parts) @ (np.random.default_rng(99).normal(size=(6, 10)) / 2)


def near_a_curve(make, seed):
    """New rows with noise of 0.2: e to the minus log density, per column; the flow is fitted to rows with noise."""
    rng = np.random.default_rng(seed)
    X, X_new = curve(rng), curve(rng)
    scaler = StandardScaler().fit(X)
    X, X_new = scaler.transform(X), scaler.transform(X_new) + 0.2 * rng.normal(size=X_new.shape)
    noisy = X + 0.2 * rng.normal(size=X.shape)
    model = make(seed)
    with Clock() as clock:
        model.fit(X if hasattr(model, "perturbation") or isinstance(model, KernelDensity) else noisy)
        nats = model.score(X_new)
    nats = nats / len(X_new) if isinstance(model, KernelDensity) else nats  # a kernel density gives the sum
    return np.exp(-nats / 10), clock.seconds


def dead_pixels(make, seed):
    """Squared error to the clean rows over that of the spoilt ones, a quarter of the pixels set to zero."""
    X, y = bundled("digits")
    X, X_new = train_test_split(X / 16, test_size=0.4, stratify=y, random_state=seed)
    spoilt = np.where(np.random.default_rng(seed).random(X_new.shape) < 0.25, 0, X_new)
    model = make(seed)
    with Clock() as clock:
        clean = model.fit(X).transform(spoilt)
    return np.square(clean - X_new).sum() / np.square(spoilt - X_new).sum(), clock.seconds


def flows(n=320, size=16):
    """Permeabilities of two values, and the pressures that they give, zero on the boundary."""
    rng, h = np.random.default_rng(0), 1 / (size + 1)
    A = np.where(gaussian_filter(rng.normal(size=(n, size, size)), (0, 2, 2), mode="reflect") > 0, 12.0, 3.0)
    at, fields = np.arange(size * size).reshape(size, size), []
    for a in A:
        wide = np.pad(a, 1, mode="edge")
        rows, cols, values, diagonal = [], [], [], np.zeros(size * size)
        for axis in (0, 1):
            for step in (-1, 1):
                near = np.roll(wide, -step, axis)[1:-1, 1:-1]
                face = 2 * a * near / (a + near) / h**2
                diagonal += face.ravel()
                inner = [slice(None)] * 2
                inner[axis] = slice(1, None) if step < 0 else slice(None, -1)
                here, there = at[tuple(inner)], np.roll(at, -step, axis)[tuple(inner)]
                rows.append(here.ravel()), cols.append(there.ravel()), values.append(-face[tuple(inner)].ravel())
        whole = sp.csc_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(cols))))
        fields.append(spsolve(whole + sp.diags(diagonal, format="csc"), np.ones(size * size)))
    return A, np.reshape(fields, A.shape)


def pressures(make, seed):
    A, U = flows()
    model = make(seed)
    with Clock() as clock:
        guess = model.fit(A[:256], U[:256]).predict(A[256:])
    gap = np.linalg.norm((guess - U[256:]).reshape(64, -1), axis=1)
    return np.mean(gap / np.linalg.norm(U[256:].reshape(64, -1), axis=1)), clock.seconds


def all_widths(make, seed):
    X, y = bundled("digits")
    X, X_new, y, y_new = train_test_split(X / 16 - 0.3, y, test_size=0.3, stratify=y, random_state=0)
    with Clock() as clock:
        predict = make(seed)(X, y)
        labels = [predict(X_new, width) for width in WIDTHS]
    return np.mean([np.mean(found != y_new) for found in labels]), clock.seconds


def turned_images(make, seed):
    """Upright images of 15 x 15 pixels to fit, and all angles to predict."""
    X, y = bundled("digits")
    X = np.array([zoom(row.reshape(8, 8), 15 / 8, order=1).ravel() for row in X / 16])
    X, X_new, y, y_new = train_test_split(X, y, test_size=0.5, stratify=y, random_state=0)
    angles = np.random.default_rng(seed).uniform(-180, 180, len(X_new))
    X_new = np.array([turned(row, angle) for row, angle in zip(X_new, angles)])
    model = make(seed)
    with Clock() as clock:
        labels = model.fit(X, y).predict(X_new)
    return np.mean(labels != y_new), clock.seconds


def turned(row, angle):
    return rotate(row.reshape(15, 15), angle, reshape=False, order=1).ravel()


def neighbours(make, seed):
    X, y = bundled("digits")
    X, X_new, y, y_new = train_test_split(X, y, test_size=0.3, stratify=y, random_state=seed)
    scaler = StandardScaler().fit(X)
    model = make(seed)
    with Clock() as clock:
        labels = model.fit(scaler.transform(X), y).predict(scaler.transform(X_new))
    return np.mean(labels != y_new), clock.seconds


# Ours


def ours(kind, *args, **params):
    def make(seed):
        from sklowrank import neural

        return getattr(neural, kind)(*args, random_state=seed, **params)

    return make


def morphable(seed):
    model = ours("MorphableMLPClassifier", (16, 64), standardize=False)(seed)
    return lambda X, y: model.fit(X, y).predict


# Plain baselines and peers


def reference(kind, **params):
    def make(seed):
        from benchmarks.scoreboard import references_torch

        return getattr(references_torch, kind)(seed, **params)

    return make


def kernel_density(seed):
    return KernelDensity(bandwidth=0.2)


class NearestRows:
    """The mean of the five training rows that are nearest."""

    def fit(self, X):
        self.rows, self.index = X, NearestNeighbors(n_neighbors=5).fit(X)
        return self

    def transform(self, X):
        return self.rows[self.index.kneighbors(X, return_distance=False)].mean(1)


class RidgeOfFields:
    """Kernel ridge regression of flattened fields, with its settings by cross-validation."""

    def fit(self, X, y):
        grid = {"gamma": np.geomspace(1e-4, 1e-2, 5), "alpha": np.geomspace(1e-6, 1e-1, 6)}
        self.scaler = StandardScaler().fit(X.reshape(len(X), -1))
        self.model = GridSearchCV(KernelRidge(kernel="rbf"), grid, cv=4, scoring="neg_mean_squared_error")
        self.mean, self.scale, self.shape = y.mean(), y.std(), y.shape[1:]
        rows = self.scaler.transform(X.reshape(len(X), -1))
        self.model.fit(rows, (y.reshape(len(y), -1) - self.mean) / self.scale)
        return self

    def predict(self, X):
        rows = self.scaler.transform(X.reshape(len(X), -1))
        return self.model.predict(rows).reshape(-1, *self.shape) * self.scale + self.mean


def separate_networks(seed):
    """One network for each width."""

    def fit(X, y):
        options = {"batch_size": 64, "max_iter": 60, "tol": 0, "n_iter_no_change": 99, "alpha": 0}
        nets = {w: MLPClassifier((w, w), random_state=seed, **options).fit(X, y) for w in WIDTHS}
        return lambda X_new, width: nets[width].predict(X_new)

    return fit


def slimmable(seed):
    model = reference("Slimmable")(seed)
    return lambda X, y: model.fit(X, y).predict


class TurnedCopies(SVC):
    """Upright images and eight copies of each, turned at random."""

    def fit(self, X, y):
        angles = np.random.RandomState(1).uniform(-180, 180, (8, len(X)))
        copies = [np.array([turned(*pair) for pair in zip(X, part)]) for part in angles]
        return super().fit(np.vstack([X, *copies]), np.tile(y, 9))


ENTRIES = [
    Entry(
        "PerturbedLatentDensity",
        "600 rows on a curve in ten columns; new rows with noise of 0.2",
        "e to the minus log density of new rows, per column",
        near_a_curve,
        Contender("noise of 0.2", ours("PerturbedLatentDensity", 2, perturbation=0.2, n_importance=5)),
        Contender("KernelDensity, bandwidth 0.2", kernel_density),
        Contender("affine coupling flow in torch", reference("CouplingFlow")),
    ),
    Entry(
        "LatentQuantizationFilter",
        "digits with a quarter of the pixels dead",
        "squared error left, over that of the spoilt rows",
        dead_pixels,
        Contender("input_noise=0.2", ours("LatentQuantizationFilter", input_noise=0.2)),
        Contender("mean of the five nearest rows", lambda seed: NearestRows()),
        Contender("denoising autoencoder in torch", reference("DenoisingAutoencoder")),
    ),
    Entry(
        "LatentSpectralRegressor",
        "pressure from permeability, 256 fields of 16 x 16 points to fit, 64 new ones",
        "relative l2 error",
        pressures,
        Contender(
            "three levels, 15 epochs",
            ours("LatentSpectralRegressor", width=16, n_levels=3, learning_rate=4e-3, batch_size=16, max_iter=15),
        ),
        Contender("KernelRidge, by cross-validation", lambda seed: RidgeOfFields()),
        Contender("Fourier neural operator in torch, 15 epochs", reference("FourierOperator")),
        1,
    ),
    Entry(
        "MorphableMLPClassifier, MorphableMLPRegressor",
        "digits, two hidden layers of 16, 20, 32 and 64 units",
        "1 - accuracy, mean of the four",
        all_widths,
        Contender("one fit", morphable),
        Contender("MLPClassifier, four fits", separate_networks),
        Contender("slimmable network of these widths in torch", slimmable),
    ),
    Entry(
        "LieGroupConvClassifier",
        "upright digits of 15 x 15 pixels to fit, digits turned by any angle to predict",
        "1 - accuracy",
        turned_images,
        Contender("rotations", ours("LieGroupConvClassifier", (15, 15))),
        Contender("SVC on eight turned copies", lambda seed: TurnedCopies(C=10)),
        Contender("convolutions on turned images in torch", reference("TurnedConvolutions")),
        1,
    ),
    Entry(
        "PolynomialAttentionClassifier, PolynomialAttentionRegressor",
        "digits, standardised",
        "1 - accuracy",
        neighbours,
        Contender("degree 4", ours("PolynomialAttentionClassifier", 6, degree=4)),
        Contender(
            "NeighborhoodComponentsAnalysis to 6, five neighbours",
            lambda seed: make_pipeline(NeighborhoodComponentsAnalysis(6, random_state=seed), KNeighborsClassifier()),
        ),
        Contender("exact attention in torch", reference("ExactAttention")),
    ),
]
