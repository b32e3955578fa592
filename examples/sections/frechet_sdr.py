"""Features for matrices and distributions as responses: half digits, and generated distributions."""

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
    """Dimension reduction for matrices and distributions as responses, against all columns, PCA and PLS."""
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
        seconds = time.perf_counter() - start
        distances = [float(fold.mean()) for fold in wrong]
        shares = [1 - float((fold**2).sum() / (mean**2).sum()) for fold, mean in zip(wrong, around)]
        values = float(np.mean(distances)), float(np.mean(shares))
        yield Row(data, name, *values, seconds, (min(distances), max(distances)), (min(shares), max(shares)))


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
        "Held-out digits in the plane of two features of their left half, each drawn as the ellipse of its response. "
        "Neighbours have ellipses of similar shape and slant."
    )
    return Picture("ellipses", "Half digits and the covariance matrices of whole ones", caption, figure)


TITLE = "Dimension reduction for matrices and distributions as responses"
NOTE = (
    "Distance: mean distance between new responses and the mean of those of 15 nearest neighbours. Explained: share "
    "of the squared distances from the overall mean. Means and ranges over three folds. Seconds: all folds."
)
TEXT = """<p>A response can be a covariance matrix, a distribution or a direction. Here the left half of a digit
predicts the 2 × 2 covariance matrix of the ink of the whole, and in the second data set ten columns determine the
location and width of a distribution. PCA does not use the response, and PLS finds linear relations; FrechetSDR needs
the order of distances between responses alone. Where nearest neighbours in all columns are as good, features are for
plots, and for tables with too many columns for neighbours.</p>
<pre>sdr = FrechetSDR(2, metric="spd_log").fit(X, S)    # S has the shape (n_samples, k, k)
sdr.transform(X_new), sdr.score(X_new, S_new)</pre>"""
