"""
Outlier scores of columns that determine one another
====================================================

Cells of breast tissue have a radius, a perimeter and an area, each as a mean and for the largest cells. These six
columns lie near a set of two or three dimensions. :class:`~sklowrank.neural.PerturbedLatentDensity` gives each row a
log density, which is low off that set.
"""

# %%
# Half of the rows to fit. Of the other half a copy is spoilt: in each row one of the six values is exchanged for one
# that a third of the other rows lie within, so that no value is strange by itself.

import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklowrank.neural import PerturbedLatentDensity
