"""One idea has one name, and one name one meaning: parameters that estimators share have equal words and ranges."""

import re
from collections import defaultdict
from pathlib import Path

import pytest
from numpydoc.docscrape import ClassDoc

from tests.common import public_estimators

CONTRIBUTING = Path(__file__).parent.parent / "CONTRIBUTING.md"
MOST_PARAMETERS = 20

# Names whose meaning is the field's and differs between methods: their descriptions do not start alike.
OTHER_WORDS = {
    "bandwidth": "of kernels between rows, chosen without looking at X, and between the points of each object",
    "categorical_features": "labels of a coordinate, and identifiers that each have a vector",
    "compression": "how small a network becomes, and by what its weights do",
    "estimator": "what is taken, and whether it is fitted, differs",
    "gamma": "the width of a kernel, as in scikit-learn, and the weight of the fit, as in papers on sparse codes",
    "kernel": "each method has kernels of its own",
    "layers": "those that are measured, and types of those that are adapted",
    "length_scale": "in units of coordinates, and of a graph",
    "loss": "each network has losses of its own",
    "max_samples": "rows of one table, and of either of two",
    "method": "each estimator has methods of its own",
    "metric": "distances between responses, and between rows",
    "module": "what follows the network differs",
    "n_frequencies": "of sums of distances, and of weights as functions of the place of a unit",
    "normalize": "lengths of rows, and units of points of fields",
    "noise": "of what is observed, and of a decoder",
    "power": "of distances between labels, and of affinities",
    "rank": "of layers, of updates of weights, a number of pivots or of functions of a coordinate",
    "refine": "of clusters, and of a map between shapes",
    "resolution": "a distance on an axis of a plot, and a number of lines and times",
    "similarity": "a kernel between rows, and how rows are compared with anchors",
    "step": "of a grid, and of components",
    "weights": "of the components of a mixture, and of the edges of a graph",
    "whiten": "components of the answer, and columns before rows are compared",
}
# Words of one estimator that cannot be those of the others
OTHER_WORDS_OF = {
    ("device", "MatrixFactorizationRegressor"): "it takes identifiers, so no tensor says where",
    ("tol", "DynamicSubspaceMetricLearner"): "it says when a learner is added, and ends nothing",
    ("n_iter_no_change", "LDUAdapter"): "it has no tol",
    ("n_iter_no_change", "TuckerAdapter"): "it has no tol",
    ("scale", "TuckerAdapter"): "a factor of updates has this name for all adapters of low rank",
}
# Names whose legal values differ between methods
OTHER_RANGES = {
    "alpha": "by cross-validation for one, and 0 where the problem has a solution without a penalty",
    "assign_labels": "rows that are embedded, and codes that a network has learned",
    "bandwidth": "one per column, where columns may have units of their own",
    "batch_size": "stochastic training needs some rows per cluster",
    "categorical_features": "by the types of columns, where identifiers are expected",
    "center": "automatic where sparse rows are not centred",
    "compression": "how small a network becomes, and by what its weights do",
    "estimator": "networks that are torch modules, where no target is predicted",
    "gamma": "by cross-validation for one",
    "init": "each method has starts of its own",
    "kernel": "each method has kernels of its own",
    "layers": "those that are measured, and types of those that are adapted",
    "learning_rate": "a pair for a training of two stages",
    "length_scale": "one per coordinate, where each has a function of its own",
    "loss": "each network has losses of its own",
    "max_iter": "0 where the answers are those of a network that is there already",
    "max_samples": "all rows, where no plan between all pairs is stored; a spanning tree needs two",
    "method": "each estimator has methods of its own",
    "metric": "distances between responses, and between rows",
    "n_clusters": "automatic for one",
    "n_components": "automatic, or a share of the variance, where the method can choose",
    "n_dims": "one per cluster, where clusters may differ",
    "n_frequencies": "sums of distances are stored for each frequency, and have a limit",
    "n_landmarks": "all rows, where distances are between rows of X",
    "n_neighbors": "by the number of rows, where codes are clustered",
    "n_nonzero_coefs": "a pursuit needs a number, a selection after the fit does not",
    "noise": "of what is observed, and of a decoder",
    "nonnegative": "one or both factors, for dictionaries",
    "power": "of distances, where any above 0 has a meaning, and of affinities",
    "rank": "of layers, of updates of weights, a number of pivots or of functions of a coordinate",
    "refine": "of clusters, and of a map between shapes",
    "resolution": "a distance on an axis of a plot, and a number of lines and times",
    "scale": "a factor of updates of weights",
    "similarity": "a kernel between rows, and how rows are compared with anchors",
    "solver": "each method has algorithms of its own",
    "standardize": "one common scale for pixels, where units of columns are equal",
    "step": "of a grid, and of components",
    "validation_fraction": "0 where nothing else switches early stopping off",
    "weights": "of the components of a mixture, and of the edges of a graph",
}


def sentences_of_the_table():
    """Return by name the first sentences that the table of CONTRIBUTING allows."""
    section = re.search(r"^## Names\n(.*?)^## ", CONTRIBUTING.read_text(), re.DOTALL | re.MULTILINE)[1]
    allowed = defaultdict(set)
    for name, sentence in re.findall(r"^\| `(\w+)`[^|]*\| (.+?) \|$", section, re.MULTILINE):
        allowed[name].add(sentence.replace("`", ""))
    return allowed


def legal_values(constraint):
    """Return a constraint in words, in an order of its own: sets of strings have none."""
    return sorted(" ".join(sorted(re.split(r"[ ,{}]+", str(option)))) for option in constraint)


def described():
    """Return by name of a parameter and of an estimator the first sentence of its description, and its legal values."""
    found = defaultdict(dict)
    for cls in map(type, public_estimators()):
        for parameter in ClassDoc(cls)["Parameters"]:
            sentence = re.match(r".*?\.(?=\s|$)|.*", " ".join(parameter.desc))[0].replace("`", "")
            for name in parameter.name.split(", "):
                found[name][cls.__name__] = sentence, legal_values(cls._parameter_constraints[name])
    return found


TABLE, PARAMETERS = sentences_of_the_table(), described()
SHARED = sorted(name for name, by_estimator in PARAMETERS.items() if len(by_estimator) > 1)


def test_the_table_has_names_that_are_in_use():
    assert len(TABLE) >= 20
    assert set(TABLE) <= set(PARAMETERS)


@pytest.mark.parametrize("name", sorted(TABLE))
def test_first_sentences_are_those_of_the_table(name):
    wrong = {
        estimator: sentence
        for estimator, (sentence, _) in PARAMETERS[name].items()
        if sentence not in TABLE[name] and (name, estimator) not in OTHER_WORDS_OF
    }
    assert not wrong


@pytest.mark.parametrize("name", [name for name in SHARED if name not in TABLE and name not in OTHER_WORDS])
def test_first_sentences_are_equal(name):
    by_sentence = defaultdict(list)
    for estimator, (sentence, _) in PARAMETERS[name].items():
        by_sentence[sentence].append(estimator)
    assert len(by_sentence) == 1, dict(by_sentence)


@pytest.mark.parametrize("name", [name for name in SHARED if name not in OTHER_RANGES])
def test_legal_values_are_equal(name):
    by_range = defaultdict(list)
    for estimator, (_, legal) in PARAMETERS[name].items():
        by_range[" or ".join(legal)].append(estimator)
    assert len(by_range) == 1, dict(by_range)


def test_exceptions_are_needed():
    """An exception that nothing needs any more is to be taken out."""
    words = {name: {sentence for sentence, _ in PARAMETERS[name].values()} for name in OTHER_WORDS}
    ranges = {name: {tuple(legal) for _, legal in PARAMETERS[name].values()} for name in OTHER_RANGES}
    assert not [name for name, found in [*words.items(), *ranges.items()] if len(found) < 2]
    assert not [(n, e) for n, e in OTHER_WORDS_OF if PARAMETERS[n][e][0] in TABLE[n]]


@pytest.mark.parametrize("estimator", public_estimators(), ids=lambda e: type(e).__name__)
def test_constructors_have_few_parameters(estimator):
    assert len(estimator.get_params(deep=False)) <= MOST_PARAMETERS
