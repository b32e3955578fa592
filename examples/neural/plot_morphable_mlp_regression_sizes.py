"""
R² against the size of a network
================================

How large a network does a problem need? :class:`~sklowrank.neural.MorphableMLPRegressor` answers with one fit: R² of
every width of the hidden layers, and the number of parameters that each has. The data is the first function of
Friedman, five useful and five useless columns with noise.
"""

# %%
# One fit of widths 8 to 64, and the scores of many widths.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_friedman1
from sklearn.linear_model import Ridge
from sklearn.model_selection import train_test_split

from sklowrank.neural import MorphableMLPRegressor, NetworkRegressor

X, y = make_friedman1(1000, noise=0.5, random_state=0)
X, X_test, y, y_test = train_test_split(X, y, test_size=0.3, random_state=0)
model = MorphableMLPRegressor((8, 64), random_state=0).fit(X, y)
widths, scores = model.size_curve(X_test, y_test, np.arange(8, 65, 4))
sizes = [model.n_parameters(width) for width in widths]

# %%
# The same by four separate networks of :class:`~sklowrank.neural.NetworkRegressor`, and without a network.

apart = [
    NetworkRegressor((width, width), learning_rate=3e-3, max_iter=100, tol=0, random_state=0).fit(X, y)
    for width in (8, 16, 32, 64)
]
line = Ridge().fit(X, y).score(X_test, y_test)

# %%
# The smallest width that is within a hundredth of the best one, as a model of its own.

chosen = int(widths[scores >= scores.max() - 0.01].min())
small = model.resized(chosen)
print(
    f"width {chosen}: R² {small.score(X_test, y_test):.3f}, {small.n_parameters_} of {model.n_parameters_} parameters"
)

# %%
# R² against the number of parameters.

fig, ax = plt.subplots(figsize=(6.5, 4), layout="constrained")
ax.plot(sizes, scores, "o-", label="one fit of all widths")
ax.plot(
    [network.n_parameters_ for network in apart],
    [network.score(X_test, y_test) for network in apart],
    "k*",
    ms=9,
    label="separate networks",
)
ax.axhline(line, color="C2", ls=":", label="ridge regression")
ax.axvline(small.n_parameters_, color="0.7", lw=1)
ax.set(xlabel="parameters", ylabel="R² on new rows", xscale="log", title="Friedman's first function")
ax.set_xticks([200, 500, 1000, 2000, 5000], ["200", "500", "1,000", "2,000", "5,000"])
ax.minorticks_off()
ax.legend(frameon=False)
plt.show()

# %%
# What to see: R² grows with the size, and a single fit shows how much a smaller network loses. From width 32 on the
# networks of this fit are as good as separate ones. Smaller ones are worse, by four hundredths at width 16 and more at
# width 8: a separate network is trained for its own width alone. Where a few small sizes are enough, train these.
