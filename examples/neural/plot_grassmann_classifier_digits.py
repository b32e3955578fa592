"""
Digits as subspaces
===================

:class:`~sklowrank.neural.GrassmannClassifier` gives each class a subspace of the unit images, and an image goes to the
class in whose subspace its projection is longest. Here subspaces of one to eight dimensions are trained on handwritten
digits, and compared with those of the leading singular vectors of each class, where the training starts.
"""

# %%
# Handwritten digits of eight by eight pixels: half of them to train on. They are not standardised: the direction of an
# image in the space of pixels tells its class.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

from sklowrank.neural import GrassmannClassifier

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X / 16, y, train_size=0.5, stratify=y, random_state=0)
model = GrassmannClassifier(2, random_state=0).fit(X, y)
print(f"two dimensions a class: accuracy {model.score(X_test, y_test):.3f}")

# %%
# A basis of each subspace, rotated so that the first vector is the direction that the images of the class share most,
# which changes no score. The second one is how they vary: blue pixels are lighter where red ones are darker.

fig, axes = plt.subplots(2, 10, figsize=(9, 2.2))
for c, S in enumerate(model.subspaces_):
    rotation = np.linalg.svd(X[y == c] @ S, full_matrices=False)[2].T
    basis = S @ rotation
    basis = basis * np.sign((X[y == c] @ basis).mean(0))
    for ax, image in zip(axes[:, c], basis.T):
        limit = np.abs(image).max()
        ax.imshow(image.reshape(8, 8), cmap="RdBu_r", vmin=-limit, vmax=limit)
        ax.set(xticks=[], yticks=[])
axes[0, 0].set_ylabel("first")
axes[1, 0].set_ylabel("second")
plt.tight_layout()
plt.show()

# %%
# Subspaces of more dimensions, trained, and untrained: the leading right singular vectors of the unit images of each
# class.


def untrained(k):
    """Return the accuracy of the subspaces where training starts."""
    units = X / np.linalg.norm(X, axis=1, keepdims=True)
    bases = [np.linalg.svd(units[y == c], full_matrices=False)[2][:k].T for c in range(10)]
    return np.mean(np.argmax([np.linalg.norm(X_test @ S, axis=1) for S in bases], axis=0) == y_test)


dims = [1, 2, 3, 4, 6, 8]
trained = [GrassmannClassifier(k, random_state=0).fit(X, y).score(X_test, y_test) for k in dims]
logistic = LogisticRegression(max_iter=1000).fit(X, y).score(X_test, y_test)
nearest = KNeighborsClassifier(1).fit(X, y).score(X_test, y_test)

fig, ax = plt.subplots(figsize=(6, 4))
ax.plot(dims, trained, "o-", label="trained subspaces")
ax.plot(dims, [untrained(k) for k in dims], "s--", label="leading singular vectors")
ax.axhline(logistic, color="C2", ls=":", label="logistic regression")
ax.axhline(nearest, color="C3", ls=":", label="nearest neighbour")
ax.set(xlabel="dimensions of each subspace", ylabel="accuracy", title="Handwritten digits")
ax.legend()
plt.tight_layout()
plt.show()

# %%
# What to see: with one or two dimensions a class, training gains several hundredths; two that are trained are nearly as
# accurate as eight that are not. With eight, training adds nothing, and the nearest neighbour is at least as good, but
# keeps all images. Logistic regression has one vector a class, as one-dimensional subspaces have, and their accuracy.
