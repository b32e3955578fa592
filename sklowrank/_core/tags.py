"""What an estimator says of itself beyond scikit-learn's tags."""

from dataclasses import dataclass, fields
from typing import Literal

from sklearn.utils import Tags


@dataclass
class PartitionTags(Tags):
    """Scikit-learn's tags, and by what a table on a cluster has to be partitioned so that its statistics add up."""

    partitions: Literal["rows", "pairs"] | None = None
    keep_integers: bool = False  # integers are not floats to it: networks look them up


def partitioned(tags: Tags, by: Literal["rows", "pairs"] = "rows", *, keep_integers: bool = False) -> PartitionTags:
    """Return the tags of an estimator that :func:`sklowrank.distributed.fit` can fit.

    With "rows" its statistics are sums over rows; with "pairs" X lists identifiers of rows and columns, and a partition
    has all pairs of its rows. With `keep_integers` rows of integers come as such.
    """
    known = {field.name: getattr(tags, field.name) for field in fields(Tags)}
    return PartitionTags(**known, partitions=by, keep_integers=keep_integers)


def partitions_of_tags(estimator) -> Literal["rows", "pairs"] | None:
    """Return by what a table has to be partitioned for an estimator; None where it cannot be."""
    return getattr(estimator.__sklearn_tags__(), "partitions", None)
