"""
A lake's temperature over depth, day and year
=============================================

Made-up measurements of a lake at random depths and days: warm near the surface in summer, cold and constant at the
bottom, a slow trend over years. :class:`~sklowrank.tensor.FunctionalTuckerRegressor` is compared with boosting and with
a Gaussian process on some of the rows, and shows the functions of which it is made.
"""

# %%
# The formula is no sum of few products: the depth of the warm layer changes over the year.

import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from sklowrank.tensor import FunctionalTuckerRegressor

rng = np.random.default_rng(0)


def temperature(depth, day, year):
    summer = 0.5 - 0.5 * np.cos(2 * np.pi * (day - 30) / 365)
    layer = 4 + 8 * summer
    return 5 + (14 * summer + 0.08 * (year - 1990)) / (1 + np.exp((depth - layer) / 2))


X = np.column_stack([rng.integers(0, 61, 5000) / 2, rng.integers(1, 366, 5000), rng.integers(1990, 2021, 5000)])
X, X_test = X[:3000], X[3000:]
y, truth = temperature(*X.T) + 0.5 * rng.normal(size=3000), temperature(*X_test.T)

kernel = ConstantKernel() * Matern([0.3, 0.3, 1.0], nu=1.5) + WhiteKernel(0.1)
models = {
    "functional Tucker": FunctionalTuckerRegressor(3, max_iter=30, random_state=0),
    "boosting": HistGradientBoostingRegressor(random_state=0),
    "process, 600 rows": GaussianProcessRegressor(kernel, normalize_y=True, random_state=0),
}
low, span = X.min(0), np.ptp(X, axis=0)
for name, model in models.items():
    rows = slice(600) if "process" in name else slice(None)
    start = time.process_time()
    model.fit((X[rows] - low) / span, y[rows])
    error = np.sqrt(np.mean((model.predict((X_test - low) / span) - truth) ** 2))
    print(f"{name}: error {error:.3f}, {time.process_time() - start:.1f} s")

# %%
# Standard errors on new measurements, and the functions of the depth. Sign and scale of functions are traded with the
# core, so that shapes alone have a meaning.

model = models["functional Tucker"]
new = truth + 0.5 * rng.normal(size=2000)
mean, std = model.predict((X_test - low) / span, return_std=True)
print(
    f"intervals of 90 % cover {np.mean(np.abs(mean - new) < 1.645 * std):.3f}; noise {model.noise_variance_**0.5:.2f}"
)

days, depths = np.meshgrid(np.linspace(0, 365, 74), np.linspace(0, 30, 61))
query = np.column_stack([depths.ravel(), days.ravel(), np.full(days.size, 2005.0)])
guess = model.predict((query - low) / span).reshape(days.shape)
figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
for axis, picture, title in ((axes[0], temperature(*query.T).reshape(days.shape), "truth"), (axes[1], guess, "fit")):
    image = axis.pcolormesh(days, depths, picture, cmap="RdYlBu_r", vmin=4, vmax=20)
    axis.set(title=f"{title}, 2005", xlabel="day", ylabel="depth in m", ylim=(30, 0))
figure.colorbar(image, ax=axes[1], label="°C")
x = np.linspace(-0.2, 1.2, 200)
values, spread = model.factor_functions(0, x, return_std=True)
for mean_, std_ in zip(values.T, spread.T):
    (line,) = axes[2].plot(low[0] + span[0] * x, mean_)
    axes[2].fill_between(low[0] + span[0] * x, mean_ - 2 * std_, mean_ + 2 * std_, alpha=0.2, color=line.get_color())
axes[2].set(title="functions of the depth", xlabel="depth in m")
plt.show()

# %%
# What to see: three functions of each coordinate suffice for a layer that moves. The functions' bands open where there
# are no measurements, above the surface and below 30 m.
