"""
Pressure in a porous medium
===========================

:class:`~sklowrank.neural.LatentSpectralRegressor` learns the map from one field to another from solved cases. Here
a fluid flows through a medium of two permeabilities: given where it is permeable, what is the pressure? After the
training, a new case takes milliseconds and no solver.
"""

# %%
# Random permeabilities of 3 and 12 on 16 x 16 points, and the pressure :math:`u` that solves
# :math:`-\nabla \cdot (a \nabla u) = 1` and is zero at the boundary.

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_matrix, csc_matrix, diags
from scipy.sparse.linalg import spsolve
from sklearn.linear_model import RidgeCV

from sklowrank.neural import LatentSpectralRegressor

size, rng = 16, np.random.default_rng(0)
node = np.arange(size**2).reshape(size, size)


def between(a, b):
    """Return the permeability of the face between two cells."""
    return 2 * a * b / (a + b)


def pressure(a):
    """Return the solution for one permeability."""
    around = np.pad(a, 1, mode="edge")
    north, south = between(a, around[:-2, 1:-1]), between(a, around[2:, 1:-1])
    west, east = between(a, around[1:-1, :-2]), between(a, around[1:-1, 2:])
    shape = (size**2, size**2)
    rows = coo_matrix((north[1:].ravel(), (node[1:].ravel(), node[:-1].ravel())), shape)
    columns = coo_matrix((west[:, 1:].ravel(), (node[:, 1:].ravel(), node[:, :-1].ravel())), shape)
    A = diags((north + south + west + east).ravel()) - rows - rows.T - columns - columns.T
    return spsolve(csc_matrix(A), np.full(size**2, 1 / (size + 1) ** 2)).reshape(size, size)


X = np.where(gaussian_filter(rng.normal(size=(320, size, size)), (0, 2, 2), mode="reflect") > 0, 12.0, 3.0)
y = np.array([pressure(a) for a in X])

# %%
# The network gets the fields as they are, three axes each. Ridge regression gets them as rows.

train, test = slice(0, 256), slice(256, 320)
model = LatentSpectralRegressor(width=16, max_iter=12, batch_size=16, learning_rate=4e-3, random_state=0)
model.fit(X[train], y[train])
ridge = RidgeCV(np.logspace(0, 7, 15)).fit(X[train].reshape(256, -1), y[train].reshape(256, -1))
guesses = {"network": model.predict(X[test]), "ridge": ridge.predict(X[test].reshape(64, -1)).reshape(64, size, size)}


def relative_error(guess):
    """Return the norm of the error of each field divided by that of the field."""
    return np.linalg.norm(guess - y[test], axis=(1, 2)) / np.linalg.norm(y[test], axis=(1, 2))


errors = {name: relative_error(guess) for name, guess in guesses.items()}
for name, values in errors.items():
    print(f"{name}: relative error {values.mean():.3f} on new fields")

# %%
# A new case whose error is the median one: the pressure, what both predict, and where they are wrong.

i = np.argsort(errors["network"])[32]
truth = y[test][i]
limit = max(np.abs(guess[i] - truth).max() for guess in guesses.values())
fig, axes = plt.subplots(2, 3, figsize=(8, 5), layout="constrained")
axes[0, 0].imshow(X[test][i], cmap="Greys")
axes[0, 0].set_title("permeability")
axes[1, 0].imshow(truth, vmin=0, vmax=truth.max())
axes[1, 0].set_title("pressure")
for column, (name, guess) in zip(axes.T[1:], guesses.items()):
    column[0].imshow(guess[i], vmin=0, vmax=truth.max())
    column[0].set_title(f"predicted by {name}")
    picture = column[1].imshow(guess[i] - truth, cmap="RdBu_r", vmin=-limit, vmax=limit)
    column[1].set_title(f"error of {name}")
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
fig.colorbar(picture, ax=axes, shrink=0.6, label="error")
plt.show()

# %%
# All new cases.

fig, ax = plt.subplots(figsize=(5, 4))
ax.plot(errors["ridge"], errors["network"], "o", ms=4)
ax.plot([0, 0.2], [0, 0.2], "k:", lw=1)
ax.set(xlabel="relative error of ridge regression", ylabel="of the network", xlim=(0, 0.17), ylim=(0, 0.17))
plt.tight_layout()
plt.show()

# %%
# What to see: the network is ahead on nearly every case, and its error is half of that of ridge regression. Pressure is
# not linear in permeability: it is high in a region that lets little through, and the more so the larger the region is.
# Ridge regression guesses it too low there; the remaining error of the network is at the border of both media.
