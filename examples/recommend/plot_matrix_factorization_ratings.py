"""
Recommendation from ratings
===========================

:class:`~sklowrank.recommend.MatrixFactorizationRegressor` learns from (row id, column id, value) triples: ratings,
sensor readings, sales. Identifiers may be strings.
"""

# %%
# Ratings of 400 readers for 250 books on a scale of 1 to 10, generated with a seed. Some readers rate often, most of
# them rarely. Books mix four kinds, and a reader likes some kinds better than others.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from sklowrank.recommend import MatrixFactorizationRegressor

rng = np.random.default_rng(0)
taste = rng.normal(size=(400, 4))
kind = rng.dirichlet(np.full(4, 0.3), size=250)
quality = rng.normal(0, 0.5, 250)
eager = np.repeat(rng.lognormal(0, 1.2, 400), 250)
reader, book = np.divmod(rng.choice(400 * 250, size=16_000, replace=False, p=eager / eager.sum()), 250)
value = 5.5 + 1.5 * (taste[reader] * kind[book]).sum(1) + quality[book] + rng.normal(0, 0.7, reader.size)
ratings = pd.DataFrame({"reader": reader, "book": book, "rating": value.round().clip(1, 10)})
ratings["reader"] = ratings["reader"].map("reader-{:03d}".format)
ratings["book"] = ratings["book"].map("book-{:03d}".format)
train, test = ratings[:10_000], ratings[10_000:]
train.head()

# %%
# Fit on the two columns of identifiers; predict unseen pairs with standard deviations.

model = MatrixFactorizationRegressor(n_components=8, random_state=0).fit(train[["reader", "book"]], train["rating"])
predicted, std = model.predict(test[["reader", "book"]], return_std=True)
plain = test["book"].map(train.groupby("book")["rating"].mean()).fillna(train["rating"].mean())
error, error_plain = np.abs(predicted - test["rating"]), np.abs(plain - test["rating"])
print(f"Mean absolute error on {len(test)} unseen ratings: {error.mean():.2f}")
print(f"The mean of each book instead: {error_plain.mean():.2f}")

# %%
# Books that a reader has not rated yet, best first.

books, scores = model.recommend(["reader-007", "reader-042"], n=5)
pd.DataFrame(books, index=["reader-007", "reader-042"])

# %%
# An unknown reader gets the means of the books; ``fold_in`` adds a new reader from a few ratings, without a new fit.
# This one likes two books and dislikes a third.

new = pd.DataFrame({"reader": "new", "book": ["book-001", "book-002", "book-003"]})
grown = model.fold_in(new, [9, 9, 2])
pair = pd.DataFrame({"reader": ["new"], "book": ["book-010"]})
print(f"book-010, before: {model.predict(pair)[0]:.2f}, after: {grown.predict(pair)[0]:.2f}")

# %%
# Error against the number of known ratings of the reader, and against the predicted standard deviation, in six groups
# of equal size.


def by_group(key, values):
    """Mean of the key, and root mean square of the values, in six groups by the key."""
    groups = np.array_split(np.argsort(key, kind="stable"), 6)
    return [np.mean(key[g]) for g in groups], [np.sqrt(np.mean(np.square(values[g]))) for g in groups]


figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
known = test["reader"].map(train["reader"].value_counts()).fillna(0).to_numpy()
left.plot(*by_group(known, error_plain.to_numpy()), "s--", color="#c08a3e", label="mean of the book")
left.plot(*by_group(known, error.to_numpy()), "o-", color="#0f766e", label="MatrixFactorizationRegressor")
left.set(xscale="log", xlabel="ratings of the reader in the training data", ylabel="error (RMSE)", ylim=(0, None))
left.legend(frameon=False)
predicted_std, rmse = by_group(std, error.to_numpy())
right.plot(predicted_std, rmse, "o", color="#0f766e")
right.axline((predicted_std[0], predicted_std[0]), slope=1, color="k", lw=0.8)
right.set(xlabel="predicted standard deviation", ylabel="error (RMSE)", xlim=(0.5, None), ylim=(0.5, None))
plt.show()

# %%
# What to see: on the left, the error is below that of the means of the books even for readers with few ratings, and
# decreases with their number. On the right, the error follows the predicted standard deviation, which is slightly too
# small at its lower end.
