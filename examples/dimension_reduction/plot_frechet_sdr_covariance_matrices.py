"""
Covariance matrices as responses: half digits
=============================================

A response may be a positive definite matrix, such as the connectivity of a brain or the covariance of returns. Here it
is the 2 x 2 covariance matrix of the ink of a handwritten digit, and X are the pixels of its left half.
:class:`~sklowrank.dimension_reduction.FrechetSDR` finds two features of these 32 pixels that predict the matrix.
"""

# %%
# The digits bundled with scikit-learn. Matrices are compared by the distance of their logarithms.

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Ellipse
from sklearn.cross_decomposition import PLSRegression
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsRegressor

from sklowrank.dimension_reduction import FrechetSDR

images = load_digits().images
rows, columns = np.mgrid[:8, :8]
place = np.column_stack([columns.ravel(), -rows.ravel()]).astype(float)
share = images.reshape(len(images), 64)
share = share / share.sum(axis=1, keepdims=True)
centred = place - (share @ place)[:, None]
S = np.einsum("ni,nij,nik->njk", share, centred, centred) + 0.05 * np.eye(2)
X = images[:, :, :4].reshape(len(images), 32)
X, X_new, S, S_new = train_test_split(X, S, test_size=0.4, random_state=0)
print("X", X.shape, "y", S.shape)

# %%
# Splits, cross-validation and grid search accept responses of any shape whose first axis counts rows.

sdr = FrechetSDR(2, metric="spd_log", random_state=0).fit(X, S)
print(f"score on new responses: {sdr.score(X_new, S_new):.2f}")

# %%
# Distance between new matrices and the mean of those of the 15 nearest rows, by logarithms.


def logarithms(S):
    e, V = np.linalg.eigh(S)
    return ((V * np.log(e)[:, None]) @ V.transpose(0, 2, 1)).reshape(len(S), 4)


T, T_new = logarithms(S), logarithms(S_new)
pca, pls = PCA(2).fit(X), PLSRegression(2).fit(X, T)
three = FrechetSDR(3, metric="spd_log", random_state=0).fit(X, S)
features = {
    "all 32 pixels": lambda rows: rows,
    "two PCA features": pca.transform,
    "two PLS features": pls.transform,
    "two FrechetSDR features": sdr.transform,
    "three FrechetSDR features": three.transform,
}
for name, of in features.items():
    predicted = KNeighborsRegressor(15).fit(of(X), T).predict(of(X_new))
    print(f"{name:25} {np.linalg.norm(predicted - T_new, axis=1).mean():.3f}")

# %%
# New half digits in the plane of both features, each drawn as the ellipse of its matrix.

Z = sdr.transform(X_new)
figure, axis = plt.subplots(figsize=(9, 5.5), layout="constrained")
slant = S_new[:, 0, 1] / np.sqrt(S_new[:, 0, 0] * S_new[:, 1, 1])
for z, matrix, colour in zip(Z, S_new, plt.cm.coolwarm(0.5 + slant)):
    e, V = np.linalg.eigh(matrix)
    angle = np.degrees(np.arctan2(V[1, 1], V[0, 1]))
    width, height = 0.05 * np.sqrt(e[::-1])
    axis.add_patch(Ellipse(z, width, height, angle=angle, facecolor=colour, edgecolor="none", alpha=0.8))
axis.set(xlabel="first feature", ylabel="second feature", aspect="equal")
axis.autoscale_view()
plt.show()

# %%
# What to see: neighbours have ellipses of similar shape and slant. Three features are as good as all pixels for
# finding rows with similar matrices; two can be plotted.
