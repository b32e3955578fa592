"""A mixed table: categories and numbers in a DataFrame with missing values, in one tuned pipeline."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from .matrix_completion import IMPUTERS, NAME, fold_range, search, standardised_error
from .report import MUTED, OURS, Picture, Row, Section


def generate(n=2000):
    """Machines: two categories and twelve readings driven by three hidden causes, and whether the machine fails."""
    rng = np.random.default_rng(0)
    site, model = rng.choice(["north", "south", "east", "west"], n), rng.choice(["A", "B", "C"], n, p=[0.5, 0.3, 0.2])
    causes = rng.normal(size=(n, 3))
    causes[:, 0] += 0.8 * (site == "north")
    causes[:, 1] -= 0.8 * (model == "C")
    names = [f"reading_{i:02d}" for i in range(1, 13)]
    readings = causes @ rng.normal(size=(3, len(names))) + 0.5 * rng.normal(size=(n, len(names)))
    readings = 20 + readings * np.geomspace(0.1, 50, len(names))
    risk = 1.5 * causes[:, 0] - 1.5 * causes[:, 1] * causes[:, 2] + 0.8 * (model == "B") - 0.5
    fails = rng.random(n) < 1 / (1 + np.exp(-1.5 * risk))
    whole = pd.DataFrame(readings, columns=names)
    hidden = rng.random(readings.shape) < 0.3
    table = whole.mask(hidden).assign(site=site, model=model)
    for column in ("site", "model"):
        table.loc[rng.random(n) < 0.1, column] = np.nan
    return table, fails, whole, hidden


def mixed_table():
    """Missing values in a mixed table: a ColumnTransformer and gradient boosting, tuned as one."""
    section = Section("Missing values in a mixed table", MIXED_TEXT, (NAME,))
    table, fails, whole, hidden = generate()
    numbers, categories = list(whole.columns), ["site", "model"]
    data = "mixed (generated)"
    print(
        f"{data}: {len(table)} rows, {len(numbers)} numbers and {len(categories)} categories, with missing values",
        flush=True,
    )
    methods = {"(boosting alone)": ("passthrough", {})} | IMPUTERS
    for method, (imputer, settings) in methods.items():
        encoder = OneHotEncoder(sparse_output=False, handle_unknown="ignore")
        columns = ColumnTransformer([("numbers", imputer, numbers), ("categories", encoder, categories)])
        model = HistGradientBoostingClassifier(max_iter=60, random_state=0)
        pipeline = Pipeline([("columns", columns), ("model", model)])
        grid = {f"columns__numbers__{key}": values for key, values in settings.items()}
        grid["model__max_leaf_nodes"] = [7, 15]
        tuned, seconds = search(pipeline, grid, table, fails, StratifiedKFold(3), bar=method == NAME)
        error = None
        if settings:
            fitted = tuned.best_estimator_["columns"].named_transformers_["numbers"]
            error = standardised_error(fitted.transform(table[numbers]), whole.to_numpy(), hidden)
        score = float(tuned.best_score_)
        section.rows.append(Row(data, method, error, score, seconds, score_range=fold_range(tuned)))
    section.pictures = [picture_mixed(section)]
    return section


def picture_mixed(section):
    figure, panels = plt.subplots(1, 2, figsize=(9.5, 2.8), sharey=True, layout="constrained")
    names = [row.method for row in section.rows]
    for axes, column, label in zip(panels, ("error", "score"), ("error on hidden cells", "cross-validated accuracy")):
        for place, row in enumerate(section.rows):
            value = getattr(row, column)
            if value is not None:
                axes.scatter(value, place, s=80, color=OURS if row.method == NAME else MUTED[0])
                axes.annotate(f"{value:.3f}", (value, place), (9, -3), textcoords="offset points")
        axes.set(xlabel=label, yticks=range(len(names)), yticklabels=names)
        axes.margins(x=0.2, y=0.15)
        axes.grid(axis="x", color="#e4e7eb")
        axes.set_axisbelow(True)
    panels[0].invert_yaxis()
    caption = (
        "Left: further left is better. Right: further right is better. Gradient boosting accepts missing values "
        "(first line); imputation pays only where its dot is to the right of that line's."
    )
    return Picture("mixed", "The mixed table", caption, figure)


MIXED_TEXT = """<p>scikit-learn bundles no table of this kind, so this one is generated with a seed: machines with a
site, a model and twelve readings that depend on three latent factors; 30 % of the readings and 10 % of the categories
are missing. A <code>ColumnTransformer</code> encodes the categories and imputes the numbers, a
<code>HistGradientBoostingClassifier</code> predicts which machine fails, and <code>GridSearchCV</code> tunes all of
it as one. «Boosting alone» passes missing values to the classifier, which accepts them.</p>
<pre>columns = make_column_transformer(
    (MatrixCompletionImputer(), numbers), (OneHotEncoder(sparse_output=False), categories)
)
search = GridSearchCV(
    make_pipeline(columns, HistGradientBoostingClassifier()),
    {"columntransformer__matrixcompletionimputer__n_components": [5, "auto"]},
).fit(table, fails)</pre>"""
