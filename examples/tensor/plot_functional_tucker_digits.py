"""
Digits as functions of place
============================

A table of three columns, row and column of a pixel and the number of its image, has a grey value for each of 64 pixels
of 200 images. :class:`~sklowrank.tensor.FunctionalTuckerRegressor` takes the first two as coordinates and the third as
a label, is fitted to half of the pixels, and predicts the others, as well as places between the pixels.
"""

# %%
# Half of the pixels are kept for the fit. Boosting gets the same table, and
# :class:`~sklowrank.impute.MatrixCompletionImputer` the same pixels as a table with missing values.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split

from sklowrank.impute import MatrixCompletionImputer
from sklowrank.tensor import FunctionalTuckerRegressor

images = load_digits().images[:200]
number, row, column = (index.ravel() for index in np.indices(images.shape))
X, y = np.column_stack([row, column, number]).astype(float), images.ravel()
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.5, random_state=0)

model = FunctionalTuckerRegressor(
    (5, 5, 10), kernel="matern52", categorical_features=[2], fit_intercept=False, max_iter=40, tol=1e-4, random_state=0
)
model.fit(X_train, y_train)
print(f"functional Tucker: R2 of new pixels {model.score(X_test, y_test):.3f}")

boosting = HistGradientBoostingRegressor(max_iter=300, categorical_features=[2], random_state=0).fit(X_train, y_train)
print(f"boosting: {boosting.score(X_test, y_test):.3f}")

table = np.full(images.shape, np.nan)
table[tuple(X_train[:, [2, 0, 1]].astype(int).T)] = y_train
filled = MatrixCompletionImputer(random_state=0).fit_transform(table.reshape(len(images), -1)).reshape(images.shape)
print(f"imputer: {r2_score(y_test, filled[tuple(X_test[:, [2, 0, 1]].astype(int).T)]):.3f}")

# %%
# The standard errors that include the noise say how far off predictions are.

mean, std = model.predict(X_test, return_std=True)
print(f"intervals of 90 % cover {np.mean(np.abs(mean - y_test) < 1.645 * std):.3f}")

# %%
# The functions of rows and columns are defined between the pixels: the fitted images at four times the resolution.

fine = np.linspace(0, 7, 32)
shown = [0, 3, 12, 25]
figure, axes = plt.subplots(3, len(shown), figsize=(8, 6.2), layout="constrained")
for (known, small, large), image in zip(axes.T, shown):
    a, b = np.meshgrid(fine, fine, indexing="ij")
    query = np.column_stack([a.ravel(), b.ravel(), np.full(a.size, image)])
    for axis, picture in ((known, table[image]), (small, images[image]), (large, model.predict(query).reshape(32, 32))):
        axis.imshow(picture, cmap="Greys", vmin=0, vmax=16)
        axis.set(xticks=[], yticks=[], facecolor="tab:olive")
for axis, text in zip(axes[:, 0], ("fitted pixels", "all pixels", "predictions")):
    axis.set_ylabel(text)
plt.show()

# %%
# What to see: from half of the pixels the strokes come back, between the pixels as well. What all images share, how ink
# is distributed over rows and columns, is learned from all of them; what is special to one image has ten numbers, so
# small details are lost. At the pixels alone the imputer is as good; it has no coordinates, and nothing between them.
