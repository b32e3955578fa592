"""
Interpretable components with a covariate: breast cancer
========================================================

Which two components of a table separate two classes? Columns that are known to matter, such as age or site, enter the
classifier as covariates and cost no component.
"""

# %%
# Thirty measurements of breast tissue. Texture is the covariate; the other columns make the components.

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
# Cross-validated accuracy of a classifier on two principal components, and of two supervised ones.

scaler = StandardScaler().set_output(transform="pandas")
ours = cross_val_score(make_pipeline(scaler, supervised), X, y).mean()
plain = cross_val_score(make_pipeline(StandardScaler(), PCA(2), LogisticRegression()), X, y).mean()
print(f"two principal components  {plain:.3f}")
print(f"two supervised components {ours:.3f}")

# %%
# The components, fitted to all rows.

model = make_pipeline(scaler, supervised).fit(X, y)
print(f"weight of the covariate: {model[-1].covariate_coef_[0, 0]:+.2f}")
DictionaryDisplay.from_estimator(model, n_top=10)
plt.show()

# %%
# What to see: each panel is a component: its columns with the largest coefficients, and in the title its coefficient
# in the score of class 1, benign. Green and brown bars have opposite signs.
