"""Few features that say what a matrix or a distribution will be: half digits, and generated distributions."""

import time

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Ellipse
from sklearn.base import clone
from sklearn.cross_decomposition import PLSRegression
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import KFold
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import FunctionTransformer, scale

from sklowrank.datasets import make_frechet_regression
from sklowrank.dimension_reduction import FrechetSDR, LinearFrechetSDR

from .report import Picture, Row, Section

NAME, LINEAR = "FrechetSDR", "LinearFrechetSDR"
FOLDS = KFold(3, shuffle=True, random_state=0)


def frechet_sdr():
    """Responses predicted by the mean of 15 neighbours in few features, against all columns, PCA and PLS."""
    section = Section(TITLE, TEXT, (NAME, LINEAR), NOTE, "distance", "explained")
    X, S = half_digits()
    section.rows += rows("half digits, 3 features", X, S, logarithms(S), 3, "spd_log", "wire")
    X_made, y, _ = make_frechet_regression(1000, response="location_scale", random_state=0)
    section.rows += rows("distributions, 2 features", X_made, y, y / y.shape[1] ** 0.5, 2, "wasserstein", "second")
    section.pictures = [picture(X, S)]
    return section


def half_digits():
    """The left halves of the digits, and the covariance matrix of the place of the ink of the whole."""
    images = load_digits().images
    rows, columns = np.mgrid[:8, :8]
    place = np.column_stack([columns.ravel(), -rows.ravel()]).astype(float)
    share = images.reshape(len(images), 64)
    share = share / share.sum(axis=1, keepdims=True)
    centred = place - (share @ place)[:, None]
    S = np.einsum("ni,nij,nik->njk", share, centred, centred) + 0.05 * np.eye(2)
    return scale(images[:, :, :4].reshape(len(images), 32)), S


def logarithms(S):
    e, V = np.linalg.eigh(S)
    return ((V * np.log(e)[:, None]) @ V.transpose(0, 2, 1)).reshape(len(S), -1)


def rows(data, X, y, vectors, d, metric, method):
    """Cross-validated predictions; `vectors` are responses whose Euclidean distances are those of the metric."""
    print(f"{data}: {X.shape[0]} rows, {X.shape[1]} columns, responses of shape {y.shape[1:]}", flush=True)
    methods = {
        "all columns": FunctionTransformer(),
        "PCA": PCA(d),
        "PLSRegression": PLSRegression(d),
        LINEAR: LinearFrechetSDR(d, method=method, metric=metric),
        NAME: FrechetSDR(d, metric=metric, random_state=0),
    }
    for name, reduction in methods.items():
        start, wrong, around = time.perf_counter(), [], []
        for fit, new in FOLDS.split(X):
            target = y if name in (NAME, LINEAR) else vectors
            features = clone(reduction).fit(X[fit], target[fit])
            model = KNeighborsRegressor(15).fit(features.transform(X[fit]), vectors[fit])
            wrong.append(np.linalg.norm(model.predict(features.transform(X[new])) - vectors[new], axis=1))
            around.append(np.linalg.norm(vectors[fit].mean(0) - vectors[new], axis=1))
        wrong, around = np.concatenate(wrong), np.concatenate(around)
        seconds = time.perf_counter() - start
        yield Row(data, name, float(wrong.mean()), 1 - float((wrong**2).sum() / (around**2).sum()), seconds)


def picture(X, S):
    """Half digits in the plane of two features, each drawn as the ellipse that is its matrix."""
    new = np.arange(len(X)) % 3 == 0
    Z, S_new = FrechetSDR(2, metric="spd_log", random_state=0).fit(X[~new], S[~new]).transform(X[new]), S[new]
    figure, axis = plt.subplots(figsize=(8, 5), layout="constrained")
    slant = S_new[:, 0, 1] / np.sqrt(S_new[:, 0, 0] * S_new[:, 1, 1])
    for z, matrix, colour in zip(Z, S_new, plt.cm.coolwarm(0.5 + slant)):
        e, V = np.linalg.eigh(matrix)
        angle = np.degrees(np.arctan2(V[1, 1], V[0, 1]))
        axis.add_patch(Ellipse(z, *(0.05 * np.sqrt(e[::-1])), angle=angle, facecolor=colour, edgecolor="none"))
    axis.set(xlabel="first feature", ylabel="second feature", aspect="equal")
    axis.autoscale_view()
    caption = (
        "Digits that were not fitted, in the plane of two features of their left half. Each is drawn as the ellipse "
        "of its ink; neighbours have ellipses of like shape and slant."
    )
    return Picture("ellipses", "Half digits by the shape of the whole", caption, figure)


TITLE = "Few features that say what a matrix or a distribution will be"
NOTE = (
    "Distance: mean distance between new responses and the mean of those of 15 neighbours. Explained: share of the "
    "squared distances from the mean of all that this explains. Seconds: three folds."
)
TEXT = """<p>A response can be more than a number: a covariance matrix, a distribution, a direction. Here the left half
of a digit has to say how the ink of the whole spreads, a 2 × 2 matrix, and in the second table ten columns decide where
a distribution lies and how wide it is. PCA does not know the response, and PLS looks for linear relations; the networks
need neither, and see the order of distances between responses alone. Where neighbours in all columns do as well, the
features are for looking at, and for tables too wide for neighbours.</p>
<pre>sdr = FrechetSDR(2, metric="spd_log").fit(X, S)    # S has the shape (n_samples, k, k)
sdr.transform(X_new), sdr.score(X_new, S_new)</pre>"""
