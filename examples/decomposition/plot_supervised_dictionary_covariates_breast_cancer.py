"""
Directions to be read, beside a column that is taken as it is
=============================================================

What of a table tells two classes apart, in two directions that a person can read? Columns that are known to matter, an
age, a site, enter as they are and cost no direction.
"""

# %%
# Thirty measurements of breast tissue. Texture is the covariate; the other columns make the directions.

import matplotlib.pyplot as plt
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklowrank.decomposition import SupervisedDictionaryLearning
from sklowrank.inspection import DictionaryDisplay

X, y = load_breast_cancer(return_X_y=True, as_frame=True)
supervised = SupervisedDictionaryLearning(2, covariate_columns=["mean texture"], random_state=0)

# %%
# Two directions of either kind before a classifier, on folds that were held out.

scaler = StandardScaler().set_output(transform="pandas")
ours = cross_val_score(make_pipeline(scaler, supervised), X, y).mean()
plain = cross_val_score(make_pipeline(StandardScaler(), PCA(2), LogisticRegression()), X, y).mean()
print(f"two principal components  {plain:.3f}")
print(f"two supervised directions {ours:.3f}")

# %%
# The directions, of all rows.

model = make_pipeline(scaler, supervised).fit(X, y)
print(f"weight of the covariate: {model[-1].covariate_coef_[0, 0]:+.2f}")
DictionaryDisplay.from_estimator(model, n_top=10)
plt.show()

# %%
# What to see: each panel is a direction: its leading columns, and in the title what a unit of it adds to the score
# of class 1, benign. Green and brown bars pull in opposite ways.
