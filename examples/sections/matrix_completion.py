"""Filling the holes of real tables, with scikit-learn's imputers beside ours."""

import sys
import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.callback import ProgressBar
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from sklowrank.impute import MatrixCompletionImputer

from .report import INK, MUTED, OURS, Picture, Row, Section

NAME = "MatrixCompletionImputer"
TABLES = {
    "breast_cancer": load_breast_cancer,
    "wine": load_wine,
    "diabetes": load_diabetes,
    "digits": load_digits,
}
IMPUTERS = {  # each with two settings to choose from
    "SimpleImputer": (SimpleImputer(), {"strategy": ["mean", "median"]}),
    "KNNImputer": (KNNImputer(), {"n_neighbors": [5, 15]}),
    "IterativeImputer": (IterativeImputer(random_state=0), {"n_nearest_features": [None, 8]}),
    NAME: (MatrixCompletionImputer(random_state=0), {"n_components": [5, "auto"]}),
}
COLOURS = dict(zip(IMPUTERS, [*MUTED[:3], OURS]))


def search(pipeline, grid, X, y, cv, bar):
    """Tune a pipeline; return the search and its seconds."""
    tuned = GridSearchCV(pipeline, grid, cv=cv)
    if bar and sys.stdout.isatty():
        tuned.set_callbacks(ProgressBar(max_propagation_depth=0))
    start = time.perf_counter()
    with warnings.catch_warnings():
        # IterativeImputer runs a set number of rounds here, as the page says; this one message of its is expected.
        warnings.filterwarnings("ignore", r"\[IterativeImputer\]", ConvergenceWarning)
        tuned.fit(X, y)
    return tuned, time.perf_counter() - start


def standardised_error(filled, X, hole):
    scale = X.std(0)
    return float(np.sqrt(np.mean(((filled - X) / np.where(scale > 0, scale, 1))[hole] ** 2)))


def load(name):
    """A table, its target, and the mask of the cells to hide."""
    X, y = TABLES[name](return_X_y=True)
    if name == "digits":
        X = X[:, (X > 0).mean(0) > 0.05]  # pixels that are nearly always empty have no scale to measure an error in
    return X, y, np.random.default_rng(0).random(X.shape) < 0.3


def real_tables():
    """Four bundled tables, 30 % of the cells hidden, four imputers tuned in a pipeline."""
    section = Section("Holes in real tables", REAL_TEXT, (NAME,))
    fills = {}
    for data in TABLES:
        X, y, hole = load(data)
        table = np.where(hole, np.nan, X)
        last, last_grid, cv = (LogisticRegression(max_iter=2000), {"model__C": [0.1, 1]}, StratifiedKFold(3))
        if data == "diabetes":
            last, last_grid, cv = Ridge(), {"model__alpha": [1, 10]}, KFold(3)
        print(f"{data}: {X.shape[0]} rows, {X.shape[1]} columns, 30 % of the cells hidden", flush=True)
        for method, (imputer, settings) in IMPUTERS.items():
            pipeline = Pipeline([("imputer", imputer), ("scale", StandardScaler()), ("model", last)])
            if data == "digits" and method == "IterativeImputer":
                pipeline.set_params(imputer__max_iter=4)  # as the page says
            grid = {f"imputer__{key}": values for key, values in settings.items()} | last_grid
            tuned, seconds = search(pipeline, grid, table, y, cv, bar=method == NAME)
            fills[data, method] = filled = tuned.best_estimator_["imputer"].transform(table)
            error = standardised_error(filled, X, hole)
            section.rows.append(Row(data, method, error, float(tuned.best_score_), seconds))
        whole = cross_val_score(Pipeline([("scale", StandardScaler()), ("model", last)]), X, y, cv=cv).mean()
        section.rows.append(Row(data, "(nothing hidden)", None, float(whole), None))
    section.pictures = [
        picture_errors(section),
        picture_digits(fills, section),
        picture_intervals(),
        picture_components(),
    ]
    return section


def picture_errors(section):
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True, layout="constrained")
    for place, data in enumerate(TABLES):
        *rows, whole = (row for row in section.rows if row.data == data)
        for row in rows:
            style = {
                "s": 100 if row.method == NAME else 55,
                "color": COLOURS[row.method],
                "zorder": 3,
                "edgecolor": "white",
            }
            left.scatter(row.error, place, label=row.method if place == 0 else None, **style)
            right.scatter(row.score - whole.score, place, **style)
    left.set(
        xlabel="error on hidden cells", yticks=range(len(TABLES)), yticklabels=TABLES, ylim=(len(TABLES) - 0.5, -0.5)
    )
    left.axvline(1, color=INK, lw=1, ls=":")
    right.axvline(0, color=INK, lw=1, ls=":")
    right.set(xlabel="score, less the score with nothing hidden")
    for axes in (left, right):
        axes.grid(axis="x", color="#e4e7eb")
        axes.set_axisbelow(True)
    figure.legend(loc="outside upper left", ncols=4)
    caption = (
        "Left: further left is better; the dotted line is what the column mean reaches. Right: further right is "
        "better; the dotted line is the same model on the table without holes."
    )
    return Picture("errors", "How well are the holes filled, and does it matter?", caption, figure)


def picture_digits(fills, section):
    X, _, hole = load("digits")
    pixels = load_digits().data
    kept = (pixels > 0).mean(0) > 0.05
    rows = {"original": X, "30 % hidden": np.where(hole, np.nan, X)} | {m: fills["digits", m] for m in IMPUTERS}
    figure, axes = plt.subplots(len(rows), 10, figsize=(9.5, 6), layout="constrained")
    colours = plt.get_cmap("gray_r").with_extremes(bad="#f0b9a8")
    for line, (label, values) in zip(axes, rows.items()):
        for panel, i in zip(line, range(10, 20)):
            image = np.zeros(64)
            image[kept] = values[i]
            panel.imshow(
                np.clip(image, 0, 16).reshape(8, 8) if label != "30 % hidden" else image.reshape(8, 8),
                cmap=colours,
                vmin=0,
                vmax=16,
            )
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
        line[0].set_ylabel(
            label,
            rotation=0,
            ha="right",
            va="center",
            color=OURS if label == NAME else INK,
            weight="bold" if label == NAME else "normal",
        )
    ranking = sorted(
        (row.error, row.method) for row in section.rows if row.data == "digits" and row.seconds is not None
    )
    caption = (
        "Hidden pixels are pink. The column mean leaves grey stains; the others draw the strokes on. From lowest error "
        f"to highest: {', '.join(f'{method} {error:.2f}' for error, method in ranking)}."
    )
    return Picture("digits", "Ten digits with holes, filled four ways", caption, figure)


def picture_intervals():
    X, _, hole = load("breast_cancer")
    table = np.where(hole, np.nan, X)
    model = MatrixCompletionImputer(15, random_state=0).fit(table)
    scale = X.std(0)
    guess, truth, std = (((a - X.mean(0)) / scale)[hole] for a in (model.transform(table), X, X))
    std = (model.transform_std(table) / scale)[hole]
    inside = np.abs(guess - truth) <= 1.645 * std
    chosen = np.random.default_rng(1).choice(len(guess), 90, replace=False)
    chosen = chosen[np.argsort(guess[chosen])]
    figure, axes = plt.subplots(figsize=(9.5, 3.4), layout="constrained")
    place = np.arange(len(chosen))
    axes.vlines(place, (guess - 1.645 * std)[chosen], (guess + 1.645 * std)[chosen], color=OURS, alpha=0.35, lw=4)
    axes.plot(place, guess[chosen], "_", color=OURS, ms=6, label="filled, with its 90 % interval")
    for kind, colour, label in ((inside, INK, "true value, inside"), (~inside, "#c2410c", "true value, outside")):
        axes.plot(place[kind[chosen]], truth[chosen][kind[chosen]], "o", color=colour, ms=3.5, label=label)
    axes.set(xlabel="90 of the hidden cells of breast_cancer, by filled value", ylabel="standard deviations", xticks=[])
    axes.legend(loc="upper left")
    caption = (
        f"The bars are 90 % intervals from transform_std. Over all {len(guess)} hidden cells, {inside.mean():.0%} of "
        "the true values lie inside. Bars are short where the rest of the row pins the value down."
    )
    return Picture("intervals", "Each filled value comes with its uncertainty", caption, figure)


def picture_components():
    X, _, hole = load("breast_cancer")
    table = np.where(hole, np.nan, X)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.2), layout="constrained")
    wide = MatrixCompletionImputer(25, random_state=0).fit(table)
    share = np.sort(wide.component_variance_)[::-1] / wide.component_variance_.max()
    left.bar(np.arange(1, 26), np.maximum(share, 2e-4), color=np.where(share > 1e-3, OURS, MUTED[0]))
    left.set(yscale="log", ylim=(1e-4, 2), xlabel="component, of 25 allowed", ylabel="variance over the largest")
    widths = [1, 2, 4, 6, 8, 12, 16, 20, 25]
    for label, colour, settings in (
        ("default", OURS, {}),
        ("plain least squares, alpha=1", MUTED[1], {"inference": "map", "alpha": 1.0}),
        ("plain least squares, alpha=0.1", MUTED[2], {"inference": "map", "alpha": 0.1}),
    ):
        models = [MatrixCompletionImputer(k, random_state=0, **settings) for k in widths]
        errors = [standardised_error(model.fit_transform(table), X, hole) for model in models]
        right.plot(widths, errors, "o-", color=colour, ms=4, label=label)
    right.set(xlabel="components allowed (n_components)", ylabel="error on hidden cells", ylim=(0, None))
    right.legend()
    caption = (
        f"Left: allowed 25 components, the fit keeps {int(wide.n_components_effective_)} and switches the others off "
        "(grey). Right: plain alternating least squares depends on its penalty and on the number of components; the "
        "default has no penalty to choose, and switches surplus components off."
    )
    return Picture("components", "No rank and no penalty to guess", caption, figure)


REAL_TEXT = """<p>From each table 30 % of the cells are hidden. Four imputers fill them inside a pipeline: imputer,
<code>StandardScaler</code>, then <code>LogisticRegression</code> (<code>Ridge</code> for diabetes). The pipeline is
tuned as one by <code>GridSearchCV</code>: two settings of the imputer times two penalties, three folds.
<code>IterativeImputer</code> runs its default ten rounds, on digits four; <code>MatrixCompletionImputer</code> runs
until it has converged.</p>
<pre>search = GridSearchCV(
    make_pipeline(MatrixCompletionImputer(), StandardScaler(), LogisticRegression()),
    {"matrixcompletionimputer__n_components": [5, "auto"], "logisticregression__C": [0.1, 1]},
).fit(X_with_holes, y)</pre>"""
