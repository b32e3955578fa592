"""
Distributions as responses: mean and spread
===========================================

Each response is a probability distribution, such as the blood sugar of a patient over a month.
:class:`~sklowrank.dimension_reduction.FrechetSDR` compares whole distributions and reduces X to a few features that
predict them.
"""

# %%
# Generated data: of ten columns the first two determine the mean, the next two the spread, both nonlinearly. A response
# is 50 quantiles; samples in any order are accepted too.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline

from sklowrank.datasets import make_frechet_regression
from sklowrank.dimension_reduction import FrechetSDR

X, y, S = make_frechet_regression(2000, response="location_scale", random_state=0)
X, X_new, y, y_new, S, S_new = X[:1000], X[1000:], y[:1000], y[1000:], S[:1000], S[1000:]
print("X", X.shape, "y", y.shape)

# %%
# The dependence explained by each feature on new rows. Noise in y keeps the sum far below one.

sdr = FrechetSDR(2, metric="wasserstein", random_state=0).fit(X, y)
print("explained, by feature:", sdr.explained_dependence(X_new, y_new).round(3))

# %%
# A prediction is the mean of the quantiles of the 15 nearest rows, the mean in Wasserstein distance; the features
# define which rows are near.


def error(model):
    """Mean Wasserstein distance between distributions of new rows and their prediction."""
    return np.sqrt(np.square(model.fit(X, y).predict(X_new) - y_new).mean(1)).mean()


neighbours = KNeighborsRegressor(15)
pls = PLSRegression(2).fit(X, y)
print(f"all ten columns     {error(neighbours):.3f}")
print(f"two PCA features    {error(make_pipeline(PCA(2), neighbours)):.3f}")
predicted = KNeighborsRegressor(15).fit(pls.transform(X), y).predict(pls.transform(X_new))
print(f"two PLS features    {np.sqrt(np.square(predicted - y_new).mean(1)).mean():.3f}")
print(f"two FrechetSDR      {error(make_pipeline(sdr, neighbours)):.3f}")

# %%
# New rows in the plane of both features, and four distributions against their prediction.

Z, predicted = sdr.transform(X_new), KNeighborsRegressor(15).fit(sdr.transform(X), y).predict(sdr.transform(X_new))
figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
for axis, truth, title in zip(axes, S_new.T, ("mean", "spread")):
    points = axis.scatter(*Z.T, c=truth, s=8, cmap="viridis")
    axis.set(title=f"coloured by the true {title}", xlabel="first feature", ylabel="second feature")
    figure.colorbar(points, ax=axis)
order = np.argsort(predicted.mean(1))
levels = (np.arange(50) + 0.5) / 50
for row, colour in zip(order[[50, 350, 650, 950]], plt.cm.viridis([0.1, 0.4, 0.65, 0.9])):
    axes[2].plot(y_new[row], levels, color=colour, linewidth=1)
    axes[2].plot(predicted[row], levels, color=colour, linestyle="--")
axes[2].set(title="four new ones, dashed: predicted", xlabel="value", ylabel="share below")
plt.show()

# %%
# What to see: along one direction of the plane the mean changes, along the other the spread, although neither depends
# on a column linearly and six columns are noise. The dashed curves follow the location and width of new
# distributions.
