"""Supervised components: breast cancer with covariates, and digits."""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklowrank.decomposition import SupervisedDictionaryLearning
from sklowrank.inspection import DictionaryDisplay

from .matrix_completion import fold_range, search
from .report import Picture, Row, Section

NAME = "SupervisedDictionaryLearning"
WITH_COVARIATES = f"{NAME}, covariates"
NAMES = (NAME, WITH_COVARIATES)
COVARIATES = ["mean smoothness", "worst smoothness"]
FOLDS = StratifiedKFold(5, shuffle=True, random_state=0)


def supervised_dictionary_learning():
    """Supervised components: two of breast cancer, with and without covariates, and four of digits."""
    section = Section(
        "A classifier with interpretable components", TEXT, NAMES, NOTE, "reconstruction error", "accuracy"
    )
    X, y = load_breast_cancer(as_frame=True, return_X_y=True)
    section.rows += rows("breast_cancer, 2 components", table_methods(X, 2), X, y)
    X, y = load_digits(return_X_y=True)
    section.rows += rows("digits, 4 components", image_methods(4), X / 16, y)
    section.pictures = [picture(X / 16, y)]
    return section


def table_methods(X, r):
    others = [name for name in X if name not in COVARIATES]
    beside = ColumnTransformer([("directions", PCA(r), others), ("covariates", "passthrough", COVARIATES)])
    ours = SupervisedDictionaryLearning(r, random_state=0)
    return {
        "PCA + LogisticRegression": [PCA(r), LogisticRegression()],
        "PCA + LogisticRegression, covariates": [beside, LogisticRegression()],
        "LogisticRegression, all columns": [LogisticRegression(max_iter=1000)],
        NAME: [ours],
        WITH_COVARIATES: [clone(ours).set_params(covariate_columns=COVARIATES)],
    }


def image_methods(r):
    return {
        "PCA + LogisticRegression": [PCA(r), LogisticRegression(max_iter=1000)],
        "LogisticRegression, all columns": [LogisticRegression(max_iter=1000)],
        NAME: [SupervisedDictionaryLearning(r, tol=1e-5, random_state=0)],
    }


def rows(data, methods, X, y):
    """Tune C of every method by cross-validation, and measure the reconstruction error of its components."""
    print(f"{data}: {X.shape[0]} rows, {X.shape[1]} columns", flush=True)
    for method, steps in methods.items():
        scaler = [StandardScaler().set_output(transform="pandas")] if hasattr(X, "columns") else []
        pipeline = make_pipeline(*scaler, *steps)
        grid = {f"{pipeline.steps[-1][0]}__C": [0.1, 1.0, 10.0]}
        tuned, seconds = search(pipeline, grid, X, y, FOLDS, bar=method == NAME)
        lost = None if len(steps) == 1 and not method.startswith(NAME) else held_out_error(tuned.best_estimator_, X, y)
        yield Row(data, method, lost, float(tuned.best_score_), seconds, score_range=fold_range(tuned))


def held_out_error(model, X, y):
    """Reconstruction error of held-out rows, relative to their squares about the mean."""
    shares = []
    for fit, new in FOLDS.split(X, y):
        pick = X.iloc if hasattr(X, "iloc") else X
        fitted = clone(model).fit(pick[fit], y[fit])
        dictionary, rows = fitted[-1], pick[new]
        if hasattr(X, "columns"):
            rows = fitted[0].transform(rows)
        if not hasattr(dictionary, "components_"):  # a classifier after PCA, alone or beside covariates
            before = fitted[-2]
            dictionary = before if isinstance(before, PCA) else before.named_transformers_["directions"]
        if hasattr(rows, "columns") and dictionary.components_.shape[1] < rows.shape[1]:
            rows = rows.drop(columns=COVARIATES)
        centred = np.asarray(rows) - dictionary.mean_
        rebuilt = centred @ dictionary.components_.T @ dictionary.components_
        shares.append(((centred - rebuilt) ** 2).sum() / (centred**2).sum())
    return float(np.mean(shares))


def picture(X, y):
    figure, axes = plt.subplots(2, 4, figsize=(8, 4.2), layout="constrained")
    ours = SupervisedDictionaryLearning(4, random_state=0).fit(X, y)
    DictionaryDisplay.from_estimator(PCA(4).fit(X), image_shape=(8, 8), axes=axes[0])
    DictionaryDisplay.from_estimator(ours, image_shape=(8, 8), axes=axes[1])
    axes[0, 0].set_ylabel("PCA")
    axes[1, 0].set_ylabel("supervised")
    caption = (
        "Four components of the digits: above principal components, below supervised ones. The title names the class "
        "of the largest coefficient."
    )
    return Picture("dictionary", "Two dictionaries", caption, figure)


NOTE = (
    "Reconstruction error: squared residuals of held-out rows over their squares. Accuracy: cross-validated, C "
    "tuned, with the range over the folds. Seconds: the whole search."
)
TEXT = """<p>Principal components explain variance, and need not separate the classes. Supervised components do both,
so that few of them suffice, and covariates enter the classifier without using a component. For prediction alone
<code>LogisticRegression</code> on all columns is simpler and as accurate; components are for interpretation, plots
and later models.</p>
<pre>covariates = ["mean smoothness", "worst smoothness"]
model = SupervisedDictionaryLearning(2, covariate_columns=covariates).fit(X, y)
model.predict(X_new), model.transform(X_new), model.components_</pre>"""
