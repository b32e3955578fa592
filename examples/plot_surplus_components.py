"""
No rank to guess: surplus components switch themselves off
==========================================================

Plain alternating least squares needs the right number of components: too many, and it fits the noise. The default
inference of :class:`~sklowrank.impute.MatrixCompletionImputer` learns the variance of each component together with the
noise, and a component that nobody needs fades away.
"""

# %%
# The chemical analyses of 178 wines, with 30 % of the cells hidden.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_wine

from sklowrank.impute import MatrixCompletionImputer

whole = load_wine().data
hidden = np.random.default_rng(0).random(whole.shape) < 0.3
table = np.where(hidden, np.nan, whole)


def error(filled):
    """Root mean squared error on the hidden cells, each column in units of its standard deviation."""
    return np.sqrt(np.mean(((filled - whole) / whole.std(0))[hidden] ** 2))


# %%
# Both ways of fitting, for every number of components that the table allows.

widths = range(1, 13)
errors = {
    inference: [
        error(MatrixCompletionImputer(k, inference=inference, max_iter=1000, random_state=0).fit_transform(table))
        for k in widths
    ]
    for inference in ("variational", "map")
}

# %%
# A fit that may use twelve components says how many it did use.

imputer = MatrixCompletionImputer(12, max_iter=1000, random_state=0).fit(table)
variance = np.sort(imputer.component_variance_)[::-1]
print(f"{imputer.n_components_effective_} of 12 components are in use")

# %%

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
alive = variance > 1e-3 * variance[0]
left.bar(range(1, 13), variance / variance[0], color=np.where(alive, "#0f766e", "0.75"))
left.set(yscale="log", xlabel="component, of 12 allowed", ylabel="component_variance_ over the largest")
right.plot(widths, errors["variational"], "o-", color="#0f766e", label="inference='variational' (default)")
right.plot(widths, errors["map"], "s-", color="#c08a3e", label="inference='map': plain least squares")
right.axhline(1, color="k", lw=0.8, ls=":", label="column mean")
right.set(xlabel="n_components", ylabel="error on hidden cells")
right.legend(frameon=False)
plt.show()

# %%
# What to see: to the left, the variances of components without use (grey) drop by orders of magnitude. To the right,
# plain least squares gets worse with every component too many, while the default stays where it is.
