"""
An image as a stream of pixels
==============================

:class:`~sklowrank.recommend.OnlineEmbeddingRegressor` predicts a number for rows of identifiers, of any number of
columns. Here an image that scikit-learn bundles comes pixel by pixel, and each row, column and block has a vector.
"""

# %%
# The photograph of a temple in grey, 213 x 320 pixels in random order. A pixel is named by its row, its column, and the
# block of 12 x 12 and that of 5 x 5 pixels that it is in, as text. These are names alone: nothing says that row 10 is
# beside row 11.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_sample_image
from sklearn.neighbors import KNeighborsRegressor

from sklowrank.recommend import MatrixFactorizationRegressor, OnlineEmbeddingRegressor

image = load_sample_image("china.jpg").mean(axis=2)[:426].reshape(213, 2, 320, 2).mean(axis=(1, 3))
row, column = np.divmod(np.random.default_rng(0).permutation(image.size), 320)
pixels = pd.DataFrame({"row": row, "column": column})
pixels["block of 12"] = [f"{r // 12}, {c // 12}" for r, c in zip(row, column)]
pixels["block of 5"] = [f"{r // 5}, {c // 5}" for r, c in zip(row, column)]
value = image[row, column]
pixels.head()

# %%
# Learn 30,000 of the 68,160 pixels in one pass, in parts of 1,000, each predicted before it is learned.

model = OnlineEmbeddingRegressor(8, learning_rate=0.1, init_scale=0.1, random_state=0)
error, found = [], {}
for start in range(0, 30_000, 1_000):
    X, y = pixels[start : start + 1_000], value[start : start + 1_000]
    if start:
        error.append(np.sqrt(np.mean((model.predict(X) - y) ** 2)))
    model.partial_fit(X, y)
    if start + 1_000 in (2_000, 10_000, 30_000):
        found[start + 1_000] = np.empty(image.shape)
        found[start + 1_000][row, column] = model.predict(pixels)
print(f"{model.n_ids_} identifiers; levels of grey have a standard deviation of {value.std():.0f}")

# %%
# The error on the other 38,160 pixels, beside those of two estimators that see the same 30,000 at once: a matrix
# factorisation of rows and columns, and the mean of the five nearest pixels, for which positions are numbers.

known, other = slice(0, 30_000), slice(30_000, None)
pairs, places = pixels[["row", "column"]], np.column_stack([row, column])
predictions = {
    "OnlineEmbeddingRegressor": model.predict(pixels[other]),
    "MatrixFactorizationRegressor": MatrixFactorizationRegressor(8, random_state=0, clip=None)
    .fit(pairs[known], value[known])
    .predict(pairs[other]),
    "KNeighborsRegressor": KNeighborsRegressor(5).fit(places[known], value[known]).predict(places[other]),
}
for name, predicted in predictions.items():
    print(f"{name}: root mean square error {np.sqrt(np.mean((predicted - value[other]) ** 2)):.1f}")

# %%
# The image after 2,000, 10,000 and 30,000 pixels, and the error on each thousand of pixels before they are learned.

figure, axes = plt.subplots(1, 5, figsize=(13, 2.4), layout="constrained", width_ratios=[1, 1, 1, 1, 1.2])
for axis, (title, picture) in zip(axes, {**found, "the image": image}.items()):
    axis.imshow(picture, cmap="gray", vmin=0, vmax=255)
    axis.set_title(title if isinstance(title, str) else f"{title:,} pixels", fontsize=10)
    axis.axis("off")
axes[-1].plot(np.arange(1_000, 30_000, 1_000), error, color="#0f766e")
axes[-1].set(xlabel="pixels learned", ylabel="error (RMSE)", ylim=(0, None))
plt.show()

# %%
# What to see: effects of rows and columns are learned first, and appear as bands; with more pixels blocks appear. The
# error is below that of the factorisation, which has rows and columns alone, and above that of neighbouring pixels:
# where identifiers are positions, an estimator that uses distances is the better choice.
