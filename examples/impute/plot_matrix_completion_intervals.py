"""
Missing values of breast cancer, imputed with 90 % intervals
============================================================

:class:`~sklowrank.impute.MatrixCompletionImputer` imputes the missing values of a table, like
:class:`~sklearn.impute.SimpleImputer`, and also gives the standard error of each imputed value.
"""

# %%
# Thirty per cent of the cells of a real table are hidden, so that the true values are known.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer

from sklowrank.impute import MatrixCompletionImputer

whole = load_breast_cancer(as_frame=True).data
hidden = np.random.default_rng(0).random(whole.shape) < 0.3
table = whole.mask(hidden)
table.iloc[:4, :5]

# %%
# Observed cells are returned unchanged.

imputer = MatrixCompletionImputer(n_components=15, random_state=0).set_output(transform="pandas")
filled = imputer.fit_transform(table)
filled.iloc[:4, :5]

# %%
# ``transform_std`` gives the standard error of each imputed cell, and zero for observed cells. A 90 % interval reaches
# 1.645 standard errors to either side.

half = 1.645 * imputer.transform_std(table)
inside = (np.abs(filled - whole) <= half).to_numpy()[hidden]
print(f"{inside.mean():.1%} of {inside.size} hidden values are inside their 90 % interval")

# %%
# Three columns, with observed values in grey. The closer a dot is to the diagonal, the smaller the error.

figure, panels = plt.subplots(1, 3, figsize=(10, 4), layout="constrained")
for panel, name in zip(panels, ["mean radius", "mean texture", "mean smoothness"]):
    rows = hidden[:, whole.columns.get_loc(name)]
    known = whole[name][~rows]
    panel.plot(known, known, ".", color="0.7", label="observed")
    style = {"fmt": ".", "color": "#0f766e", "ecolor": "#0f766e55", "label": "imputed, with 90 % interval"}
    panel.errorbar(whole[name][rows], filled[name][rows], yerr=half[name][rows], **style)
    panel.axline((known.mean(), known.mean()), slope=1, color="k", lw=0.8)
    panel.set(title=name, xlabel="true value")
panels[0].set_ylabel("imputed value")
figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False)
plt.show()

# %%
# What to see: the radius is correlated with the area and the perimeter, so that its intervals are short; the texture
# is correlated with few columns, and its intervals are long.
