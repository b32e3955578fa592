"""
Recommend from ratings
======================

:class:`~sklowrank.recommend.MatrixFactorizationRegressor` learns from (row, column, value) triples: who rated what,
which sensor read what, which shop sold what. Ids may be strings.
"""

# %%
# Ratings of 400 readers for 250 books, one to five stars, generated with a seed; a reader has rated about 30 books.
# Books mix four kinds, and a reader likes some kinds better than others.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from sklowrank.recommend import MatrixFactorizationRegressor

rng = np.random.default_rng(0)
taste = rng.normal(size=(400, 4))
kind = rng.dirichlet(np.full(4, 0.3), size=250)
quality = rng.normal(0, 0.4, 250)
cell = rng.choice(400 * 250, size=12_000, replace=False)
reader, book = np.divmod(cell, 250)
stars = 3.4 + (taste[reader] * kind[book]).sum(1) + quality[book] + rng.normal(0, 0.5, cell.size)
ratings = pd.DataFrame(
    {
        "reader": [f"reader-{i:03d}" for i in reader],
        "book": [f"book-{i:03d}" for i in book],
        "stars": np.clip(np.round(stars), 1, 5),
    }
)
train, test = ratings[:10_000], ratings[10_000:]
train.head()

# %%
# Fit on the two id columns; predict unseen pairs, each with its standard deviation.

model = MatrixFactorizationRegressor(n_components=8, random_state=0).fit(train[["reader", "book"]], train["stars"])
predicted, std = model.predict(test[["reader", "book"]], return_std=True)
by_book = train.groupby("book")["stars"].mean()
plain = test["book"].map(by_book).fillna(train["stars"].mean())
rmse = np.sqrt(np.mean((predicted - test["stars"]) ** 2))
rmse_plain = np.sqrt(np.mean((plain - test["stars"]) ** 2))
print(f"RMSE on {len(test)} unseen ratings: {rmse:.3f}; the mean of each book: {rmse_plain:.3f}")

# %%
# Books that a reader has not rated yet, best first.

books, scores = model.recommend(["reader-007", "reader-042"], n=5)
pd.DataFrame(books, index=["reader-007", "reader-042"])

# %%
# A reader whom the model has never met gets the books' averages; ``fold_in`` adds a new reader from a few ratings,
# without fitting again. This one loves two books and hates a third.

new = pd.DataFrame({"reader": "new", "book": ["book-001", "book-002", "book-003"]})
grown = model.fold_in(new, [5, 5, 1])
print(
    "before:", model.predict([["new", "book-010"]]).round(2), " after:", grown.predict([["new", "book-010"]]).round(2)
)

# %%
# Is the standard deviation worth its name? Sort the unseen ratings by it, and look at the errors that were made.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
whole = np.array([predicted[test["stars"] == s].mean() for s in range(1, 6)])
left.violinplot([predicted[test["stars"] == s] for s in range(1, 6)], positions=range(1, 6), showextrema=False)
left.plot(range(1, 6), whole, "o", color="#0f766e", label="mean")
left.axline((3, 3), slope=1, color="k", lw=0.8)
left.set(xlabel="stars given", ylabel="stars predicted")
left.legend(frameon=False)
groups = np.array_split(np.argsort(std), 8)
promised = [np.sqrt(np.mean(std[g] ** 2)) for g in groups]
made = [np.sqrt(np.mean((predicted - test["stars"].to_numpy())[g] ** 2)) for g in groups]
right.plot(promised, made, "o", color="#0f766e")
right.axline((promised[0], promised[0]), slope=1, color="k", lw=0.8)
right.set(xlabel="predicted standard deviation, eight groups", ylabel="error made (RMSE)")
plt.show()

# %%
# What to see: to the left, predictions rise with the stars that were given. To the right, the groups in which the model
# expects larger errors are those in which it makes them.
