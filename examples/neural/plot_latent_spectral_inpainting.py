"""
Digits with holes
=================

Fields need not come from a simulation: an image is a field, too. A square hole is cut into each handwritten digit, at a
random place, and :class:`~sklowrank.neural.LatentSpectralRegressor` learns what was in it. Images and holes are two
channels of its input.
"""

# %%
# The second channel says where the hole is: 0 in it, 1 elsewhere.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import RidgeCV

from sklowrank.neural import LatentSpectralRegressor

rng = np.random.default_rng(0)
images = rng.permutation(load_digits().images / 16)
mask = np.ones_like(images)
for hole, (row, column) in zip(mask, rng.integers(0, 6, (len(images), 2))):
    hole[row : row + 3, column : column + 3] = 0
fields = np.stack([images * mask, mask], axis=-1)
print(fields.shape, images.shape)

# %%
# The squared error is the one that counts here, and not the relative one of each image: ``loss="mse"``. The peers get
# flattened images and holes.

train, test = slice(0, 1200), slice(1200, None)
model = LatentSpectralRegressor(
    width=16, loss="mse", batch_size=32, max_iter=12, learning_rate=4e-3, random_state=0
).fit(fields[train], images[train])
rows, pixels = fields.reshape(len(fields), -1), images.reshape(len(images), -1)
guesses = {"network": model.predict(fields[test])}
for name, peer in (("ridge", RidgeCV(np.logspace(-2, 4, 13))), ("kernel ridge", KernelRidge(kernel="rbf", gamma=0.06))):
    guesses[name] = peer.fit(rows[train], pixels[train]).predict(rows[test]).reshape(-1, 8, 8)
missing = mask[test] == 0
errors = {name: np.sqrt(np.mean((guess - images[test])[missing] ** 2)) for name, guess in guesses.items()}
errors["mean image"] = np.sqrt(np.mean((images[train].mean(0) - images[test])[missing] ** 2))
for name, error in errors.items():
    print(f"{name}: root mean square error in the holes {error:.3f}")

# %%
# Some test images: with the hole, as they were, and filled by the network and by ridge regression.

fig, axes = plt.subplots(4, 9, figsize=(9, 4.3))
filled = [np.where(missing, guesses[name], images[test]) for name in ("network", "ridge")]
shown = [np.where(missing, np.nan, images[test]), images[test], *filled]
for line, name, pictures in zip(axes, ("with a hole", "whole", "network", "ridge"), shown):
    for ax, picture in zip(line, pictures[:9]):
        ax.imshow(picture, cmap="Greys", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[], facecolor="C3")
    line[0].set_ylabel(name)
plt.tight_layout()
plt.show()

# %%
# The errors of all test images.

fig, ax = plt.subplots(figsize=(6, 2.6))
ax.barh(list(errors)[::-1], list(errors.values())[::-1], color=["0.6", "0.6", "0.6", "C0"])
ax.set(xlabel="root mean square error in the holes")
plt.tight_layout()
plt.show()

# %%
# What to see: ridge regression fills holes with a grey average, since what a pixel says depends on where the hole is:
# that is a product, and not a sum, of image and hole. The network continues strokes. Kernel ridge regression, which is
# not linear either, is not far behind it.
