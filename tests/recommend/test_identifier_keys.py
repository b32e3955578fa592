"""Keys of identifiers: equal for equal values in whatever type they come, distinct for distinct ones."""

import datetime
import decimal
import fractions

import numpy as np
import pytest

from sklowrank.recommend._identifier_keys import keys_of, keys_of_integers, mix, normal_values

EXTREMES = [0, 1, -1, 2**31, -(2**31), 2**53, 2**53 + 1, 2**62, 2**63 - 1, -(2**63)]


def objects(*values):
    array = np.empty(len(values), object)
    array[:] = values
    return array


def test_integers_of_one_column_never_share_a_key():
    g = np.random.default_rng(0)
    ids = np.unique(np.r_[np.arange(-9_999, 9_999), np.arange(9_999) * 2**40, g.integers(-(2**63), 2**63 - 1, 9_999)])
    assert len(np.unique(keys_of(ids, 3))) == len(ids)
    assert len(np.unique(np.concatenate([keys_of(ids, column) for column in range(5)]))) == 5 * len(ids)


def test_tables_of_integers_have_the_keys_of_their_columns():
    table = np.random.default_rng(0).integers(-(2**62), 2**62, (50, 3))
    for dtype in (np.int64, np.int32, np.int8):
        part = table.astype(dtype)
        expected = np.column_stack([keys_of(part[:, i], j) for i, j in enumerate([0, 3, 4])])
        assert np.array_equal(keys_of_integers(np.asfortranarray(part), [0, 3, 4]), expected)


def test_half_of_the_bits_change_with_each_bit():
    ids = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 2_000)
    for bit in range(64):
        changed = keys_of(ids, 0) ^ keys_of(ids ^ np.int64(-(2**63) if bit == 63 else 1 << bit), 0)
        share = np.unpackbits(changed.view(np.uint8)).reshape(len(ids), 64).mean(axis=0)
        assert share.min() > 0.44  # five standard deviations of 2,000 fair coins are 0.056
        assert share.max() < 0.56


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64])
def test_equal_numbers_have_equal_keys_in_all_types(dtype):
    expected = keys_of(np.array([0, 1, 100]), 2)
    assert np.array_equal(keys_of(np.array([0, 1, 100], dtype), 2), expected)
    assert np.array_equal(keys_of(np.array([0, 1, 100], dtype).astype(object), 2), expected)
    assert np.array_equal(keys_of(np.array([0.0, 1.0, 100.0], np.float32), 2), expected)
    assert np.array_equal(keys_of(np.array([False, True]), 2), expected[:2])
    others = [decimal.Decimal(0), fractions.Fraction(1), decimal.Decimal("100.0")]
    assert np.array_equal(keys_of(objects(*others), 2), expected)


def test_extremes_are_distinct_and_the_same_in_objects_and_arrays():
    low, high = np.array(EXTREMES), np.array([2**63, 2**63 + 5, 2**64 - 1, 5], np.uint64)
    keys = np.r_[keys_of(low, 0), keys_of(high, 0)]
    assert len(np.unique(keys)) == len(keys)
    assert np.array_equal(keys_of(objects(*EXTREMES, *high.tolist()), 0), keys)
    assert np.array_equal(keys_of(objects(*low, *high), 0), keys)  # numpy's own scalars
    assert keys_of(np.array([2**63 + 5], np.uint64), 0) != keys_of(np.array([5 - 2**63]), 0)  # the same 64 bits
    huge = objects(2**64, 2**64 + 1, 2**70, -(2**64), 10**400, float(2**70), 0.5, decimal.Decimal("0.1"), 0.1)
    found = keys_of(huge, 0)
    assert found[2] == found[5]
    assert len(np.unique(found)) == len(huge) - 1
    assert len(np.unique(np.r_[found, keys])) == len(huge) - 1 + len(keys)


def test_floats_are_equal_to_what_they_equal():
    values = np.array([-0.0, 5.0, 2.0**53, -(2.0**63), 2.0**63, 0.5, np.inf, -np.inf])
    exact = objects(0, 5, 2**53, -(2**63), 2**63)
    assert np.array_equal(keys_of(values[:5], 1), keys_of(exact, 1))
    assert len(np.unique(keys_of(values, 1))) == len(values)


def test_text_that_differs_in_a_bit_or_in_what_numpy_cuts_off():
    base = "identifier-1234567"
    changed = [base[:i] + chr(ord(base[i]) ^ 1) + base[i + 1 :] for i in range(len(base))]
    ends = ["", "a", "a\0", "a\0\0", "\0a", "\0", "\0\0", " a", "a ", "A", "é", "e\u0301", "\U0001f600", "\ud800"]
    lengths = ["x" * n for n in range(1, 70)]
    values = [base, *changed, *ends, *lengths]
    keys = keys_of(objects(*values), 0)
    assert len(np.unique(keys)) == len(values)
    assert len(np.unique(np.r_[keys, keys_of(objects(*values), 1)])) == 2 * len(values)
    raw = keys_of(objects(*[v.encode("utf-8", "surrogatepass") for v in values]), 0)
    assert len(np.unique(np.r_[keys, raw])) == 2 * len(values)  # text is not bytes


@pytest.mark.parametrize("kind", ["U", "S"])
def test_text_has_one_key_in_every_width_and_order_of_bytes(kind):
    values = ["", "a", "ab", "abc", "abcdefgh", "abcdefghi", "x" * 40]
    if kind == "S":
        values = [v.encode() for v in values]
    expected = keys_of(objects(*values), 0)
    for width in (40, 41, 47, 64, 200):
        assert np.array_equal(keys_of(np.array(values, f"{kind}{width}"), 0), expected)
    assert np.array_equal(keys_of(np.array(values).astype(f">{kind}40"), 0), expected)
    assert np.array_equal(keys_of(np.array(values * 2)[::2], 0), keys_of(objects(*(values * 2)[::2]), 0))
    assert np.array_equal(keys_of(objects(*values, values[0] * 0 + values[-1] * 5000), 0)[:-1], expected)
    assert keys_of(np.array([], f"{kind}1"), 0).shape == (0,)
    assert np.array_equal(keys_of(np.array(values[:1]), 0), expected[:1])


@pytest.mark.parametrize("kind", ["U", "S"])
def test_long_text_differs_wherever_it_differs(kind):
    letters = np.random.default_rng(0).integers(97, 123, 70_000)
    lengths = [127, 128, 129, 255, 256, 257, 511, 512, 513, 8191, 8192, 8193, 65_535, 65_536, 65_537, 70_000]
    base = ["".join(map(chr, letters[:n])) for n in lengths]
    base += [base[-1][:at] + "!" + base[-1][at + 1 :] for at in (0, 63, 64, 127, 128, 8191, 8192, 65_536, 69_999)]
    values = base + [text + "\0" for text in base]
    values = values if kind == "U" else [text.encode() for text in values]
    keys = keys_of(objects(*values), 0)
    assert len(np.unique(keys)) == len(values)
    short = keys_of(np.array(values[:9]), 0)  # of one width
    assert np.array_equal(short, keys[:9])


def test_random_text_is_spread_over_64_bits():
    g = np.random.default_rng(0)
    values = np.unique(g.integers(0, 10**9, 200_000)).astype("U10")
    keys = keys_of(values, 0)
    assert len(np.unique(keys)) == len(values)
    for part in (keys.view(np.uint64) >> np.uint64(32), keys.view(np.uint64) & np.uint64(2**32 - 1)):
        pairs = len(values) - len(np.unique(part))  # 4.65 are expected of 32 bits
        assert pairs < 16


def test_missing_values_are_one_identifier_and_kinds_are_never_equal():
    pd = pytest.importorskip("pandas")
    missing = objects(None, np.nan, float("nan"), pd.NA, pd.NaT, np.float32("nan"), decimal.Decimal("nan"))
    keys = keys_of(missing, 0)
    assert len(np.unique(keys)) == 1
    assert keys_of(np.array([np.nan]), 0) == keys[0] != keys_of(objects(None), 1)
    kinds = keys_of(objects(1, "1", b"1", None, "", b"", 0, "None", "nan", 1.5, "1.5"), 0)
    assert len(np.unique(kinds)) == 11


def test_frames_of_pandas_and_polars():
    pd = pytest.importorskip("pandas")
    expected = keys_of(objects("u", "v", None, "u"), 4)
    for dtype in ("object", "category", "string"):
        assert np.array_equal(keys_of(pd.Series(["u", "v", None, "u"], dtype=dtype), 4), expected)
    numbers = keys_of(objects(7, 2**60 + 1, None), 4)
    for dtype in ("Int64", "object", "category"):
        assert np.array_equal(keys_of(pd.Series(pd.array([7, 2**60 + 1, None], "Int64")).astype(dtype), 4), numbers)
    assert np.array_equal(
        keys_of(pd.Series(pd.Categorical([3, 1, 3], categories=[9, 3, 1])), 4), keys_of(np.array([3, 1, 3]), 4)
    )
    few = pd.Series(pd.Categorical(["u", "v", None, "u"], categories=[*map(str, range(1000)), "v", "u", "w"]))
    for rows in (few, few[:2], few[2:3], few[:0]):  # of a batch, in which few categories occur
        assert np.array_equal(keys_of(rows, 4), expected[rows.index])
    pl = pytest.importorskip("polars")
    for dtype in (pl.String, pl.Categorical, pl.Enum(["u", "v"])):
        assert np.array_equal(keys_of(pl.Series(["u", "v", None, "u"], dtype=dtype), 4), expected)
    assert np.array_equal(keys_of(pl.Series([7, 2**60 + 1, None]), 4), numbers)
    assert np.array_equal(keys_of([7, 2**60 + 1, None], 4), numbers)


@pytest.mark.parametrize(
    "values",
    [
        objects([1], "a"),
        objects({}, 1),
        objects((1, 2)),
        objects("a", 1j),
        objects(datetime.datetime(2020, 1, 1)),
        objects(np.timedelta64(5, "s")),
        np.array(["2020-01-01"], "M8[D]"),
        np.array([1j]),
    ],
)
def test_what_is_neither_number_nor_text_is_refused(values):
    with pytest.raises(TypeError, match="argument must be a string or a real number"):
        keys_of(values, 0)


def test_keys_depend_neither_on_the_process_nor_on_the_version():
    keys = np.r_[keys_of(np.array([1, -5]), 0), keys_of(np.array(["a", "user 12"]), 1)]
    assert keys.tolist() == PINNED


PINNED = [-1547715641947990325, -5233069316186871543, 576636958559608355, 716579544683039581]


@pytest.mark.parametrize("n", [0, 1, 5, 8])
def test_normal_values_depend_on_key_and_seed_alone(n):
    keys = keys_of(np.arange(1000), 0)
    values = normal_values(keys, 3, n)
    assert values.shape == (1000, n)
    order = np.random.default_rng(0).permutation(1000)
    assert np.array_equal(normal_values(keys[order], 3, n), values[order])
    assert np.array_equal(normal_values(keys[:1], 3, n), values[:1])
    assert normal_values(keys[:0], 3, n).shape == (0, n)
    if n:
        assert not np.array_equal(normal_values(keys, 4, n), values)


def test_normal_values_are_standard_normal():
    values = normal_values(keys_of(np.arange(50_000), 0), 0, 8)
    assert np.abs(values.mean(axis=0)).max() < 0.025  # five standard errors
    assert np.abs(values.std(axis=0) - 1).max() < 0.02
    assert abs((values**4).mean() - 3) < 0.1
    assert np.abs(np.corrcoef(values.T) - np.eye(8)).max() < 0.025
    seeds = [normal_values(keys_of(np.arange(50_000), 0), seed, 1)[:, 0] for seed in range(4)]
    assert np.abs(np.corrcoef(seeds) - np.eye(4)).max() < 0.025


def test_mix_is_a_bijection_of_small_numbers():
    assert len(np.unique(mix(np.arange(100_000, dtype=np.uint64)))) == 100_000
