"""Keys of identifiers: 64-bit integers that stand for the values of a column, and random numbers drawn by key.

A key depends on the value and on the column alone: not on the type in which the value came, on other rows, on the
process. Integers of one column never share a key, as each step of the mixing can be undone; of n texts two share one
with odds of about n²/2⁶⁵. Numbers are the same identifier where their values are equal (1, 1.0 and True); values of
different kinds (1, "1" and b"1") never are. Missing values (None, NaN, NA) are one identifier.
"""

import decimal
import numbers
from functools import lru_cache

import numpy as np

from ._identifiers import values_of

_MASK = 2**64 - 1
_INTEGER, _UNSIGNED, _FLOAT, _HUGE, _TEXT, _BYTES, _MISSING = range(7)  # kinds of values that never share a key
_COLUMN, _KIND = 0x9E3779B97F4A7C15, 0xD1B54A32D192ED03  # odd: multiples of them spread over 64 bits
_MURMUR, _MURMUR_SHIFT = np.uint64(0xC6A4A7935BD1E995), np.uint64(47)
_PIECE = 64  # words
_STEPS = (  # shifts and odd multipliers of a full-avalanche mixer (Stafford's thirteenth variant)
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)
_LAST_SHIFT = np.uint64(31)
_REFUSAL = "argument must be a string or a real number: identifiers of X are numbers, text or missing, not {}."


def keys_of(values, column):
    """Return the keys (n,), int64, of the values of one column of X.

    `values` is a one-dimensional array of any type, a series of pandas or polars, or a list; `column` the number of the
    column.
    """
    if hasattr(getattr(values, "dtype", None), "categories") and hasattr(
        getattr(values, "cat", None), "codes"
    ):  # pandas
        return _category_keys(values.cat.codes.to_numpy(), values.cat.categories, column)
    plain = isinstance(getattr(values, "dtype", None), np.dtype)
    values = np.asarray(values) if plain else values_of(values)
    kind = values.dtype.kind
    if kind in "biu":
        return _integer_keys(values, column)
    if kind == "f":
        return _float_keys(values.astype(np.float64), column)
    if kind in "US":
        return _text_keys(values, None, column)
    if kind in "OT":
        return _object_keys(values.tolist(), column)
    raise TypeError(_REFUSAL.format(values.dtype))


def _category_keys(codes, categories, column):
    """Keys of a categorical column; a code of -1 is a missing value. Each category that occurs is looked at once."""
    if len(codes) < len(categories):
        used, places = np.unique(np.append(codes, -1), return_inverse=True)  # of which the first is -1
        categories, codes = categories[used[1:]], places[:-1] - 1
    keys = np.append(keys_of(categories, column), missing_key(column))
    return keys[codes]


def keys_of_integers(table, columns):
    """Return the keys (n, n_columns) of a table of signed integers, as :func:`keys_of` of each of its columns.

    `columns` are the numbers of the columns that are in the table.
    """
    offsets = np.array([_offset(_INTEGER, column) for column in columns], dtype=np.uint64)
    return mix(table.astype(np.int64).view(np.uint64) + offsets).view(np.int64)


def missing_key(column):
    """Return the key of a missing value."""
    return _mixed(np.zeros(1, np.uint64), _MISSING, column)[0]


def normal_values(keys, seed, n):
    """Return standard normal numbers (len(keys), n), each row a function of its key and the seed alone.

    Counter-based: number j of a key is a hash of (key, seed, j), so that it depends neither on the order in which keys
    come nor on what was drawn before.
    """
    pairs = (n + 1) // 2
    counters = np.array([_offset(j, seed) for j in range(2 * pairs)], dtype=np.uint64)
    bits = mix(mix(keys.view(np.uint64))[:, None] + counters)
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    radius, angle = np.sqrt(-2 * np.log(uniform[:, :pairs])), 2 * np.pi * uniform[:, pairs:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :n]


# Mixing


def mix(bits):
    """Return uint64 numbers mixed: a bijection, of which each bit of the result depends on each bit given."""
    for shift, multiplier in _STEPS:
        bits = (bits ^ (bits >> shift)) * multiplier
    return bits ^ (bits >> _LAST_SHIFT)


@lru_cache(maxsize=4096)
def _offset(kind, column):
    """A 64-bit number for a kind of values in a column."""
    return int(mix(np.array([(kind * _KIND + (column + 1) * _COLUMN) & _MASK], dtype=np.uint64))[0])


def _mixed(bits, kind, column):
    return mix(bits + np.uint64(_offset(kind, column))).view(np.int64)


# Numbers


def _integer_keys(values, column):
    keys = _mixed(values.astype(np.int64).view(np.uint64), _INTEGER, column)
    if values.dtype.kind == "u" and values.dtype.itemsize == 8:
        above = values > np.uint64(2**63 - 1)
        if above.any():  # the bits are those of negative numbers
            keys[above] = _mixed(values[above].astype(np.uint64), _UNSIGNED, column)
    return keys


def _float_keys(values, column):
    keys = _mixed(values.view(np.uint64), _FLOAT, column)
    whole = values == np.floor(values)
    signed = whole & (values >= -(2.0**63)) & (values < 2.0**63)
    unsigned = whole & (values >= 2.0**63) & (values < 2.0**64)
    keys[signed] = _integer_keys(values[signed].astype(np.int64), column)
    keys[unsigned] = _integer_keys(values[unsigned].astype(np.uint64), column)
    keys[np.isnan(values)] = missing_key(column)
    return keys


def _number_keys(values, column):
    """Keys of a list of numbers of any class, one by one: integers beyond 64 bits, decimals, fractions."""
    keys = np.empty(len(values), np.int64)
    for i, value in enumerate(values):
        if value != value:
            keys[i] = missing_key(column)
        elif abs(value) < 2**64 and value == int(value):
            value = int(value)
            keys[i] = _integer_keys(np.array([value], np.int64 if value < 2**63 else np.uint64), column)[0]
        elif (abs(value) < 2**1023 and float(value) == value) or abs(value) == np.inf:
            keys[i] = _float_keys(np.array([float(value)]), column)[0]
        else:
            text = hex(value) if isinstance(value, int) else str(value)  # decimal digits of integers are limited
            keys[i] = _text_keys(np.array([text]), None, column, _HUGE)[0]
    return keys


# Text


def _text_keys(values, lengths, column, kind=None):
    """Keys of a fixed-width array of text or bytes, a murmur hash of 64 bits over all of them at once.

    `lengths` in characters are those of the values before numpy cut what is zero at their ends; None is those without
    such ends.
    """
    wide = values.dtype.kind == "U"
    size = max(1, values.dtype.itemsize // (4 if wide else 1))
    units = np.ascontiguousarray(values, dtype=f"<U{size}" if wide else f"S{size}")
    units = units.view(np.dtype("<u4") if wide else np.uint8).reshape(len(values), size)
    if lengths is None:
        filled = units != 0
        lengths = np.where(filled.any(axis=1), size - filled[:, ::-1].argmax(axis=1), 0)
    per_word = 2 if wide else 8
    n_words = -(-size // per_word)
    padded = np.zeros((len(values), n_words * per_word), units.dtype)
    padded[:, :size] = units
    kind = (_TEXT if wide else _BYTES) if kind is None else kind
    state = np.uint64(_offset(kind, column)) ^ (lengths.astype(np.uint64) * _MURMUR)
    return mix(_murmur(padded.view(np.dtype("<u8")), -(-lengths // per_word), state)).view(np.int64)


def _murmur(words, lengths, state):
    """Hashes of rows of 64-bit words, of which the first `lengths` count; long rows by hashes of their pieces."""
    n, width = words.shape
    if width > _PIECE:
        long = lengths > _PIECE
        hashes = np.empty(n, np.uint64)
        hashes[~long] = _murmur(words[~long, :_PIECE], lengths[~long], state[~long])
        n_long, n_pieces = int(long.sum()), -(-width // _PIECE)
        padded = np.zeros((n_long, n_pieces * _PIECE), np.uint64)
        padded[:, :width] = words[long]
        pieces = padded.reshape(n_long * n_pieces, _PIECE)
        each = _murmur(pieces, np.full(len(pieces), _PIECE), np.zeros(len(pieces), np.uint64))
        hashes[long] = _murmur(each.reshape(n_long, n_pieces), -(-lengths[long] // _PIECE), state[long])
        return hashes
    for j, word in enumerate(words.T):
        word = word * _MURMUR
        word = (word ^ (word >> _MURMUR_SHIFT)) * _MURMUR
        state = np.where(lengths > j, (state ^ word) * _MURMUR, state)  # not what pads the value
    return state


def _list_keys(values, column, kind):
    """Keys of a list of text or of bytes: by width, so that one long value does not swell all others."""
    lengths = np.fromiter(map(len, values), np.int64, len(values))
    widths = 2 ** np.ceil(np.log2(np.maximum(lengths, 8))).astype(np.int64)
    keys = np.empty(len(values), np.int64)
    for width in np.unique(widths):
        places = np.flatnonzero(widths == width)
        group = values if len(places) == len(values) else [values[i] for i in places]
        keys[places] = _text_keys(np.array(group, dtype=f"{kind}{width}"), lengths[places], column)
    return keys


# Objects


def _object_keys(values, column):
    """Keys of a list of objects: those of its distinct values, taken by each row."""
    makers = {kind: _maker_of(kind) for kind in set(map(type, values))}
    place = {value: i for i, value in enumerate(dict.fromkeys(values))}
    distinct = list(place)
    keys = np.empty(len(distinct), np.int64)
    parts = {}
    for i, value in enumerate(distinct):
        parts.setdefault(makers[type(value)], []).append(i)
    for maker, places in parts.items():
        keys[places] = maker([distinct[i] for i in places], column)
    return keys[np.fromiter(map(place.__getitem__, values), np.int64, len(values))]


def _maker_of(kind):
    """The function that makes keys of a list of values of a class."""
    if issubclass(kind, str):
        return _list_of_text
    if issubclass(kind, bytes):
        return _list_of_bytes
    if issubclass(kind, int | np.bool_ | np.integer) and not issubclass(kind, np.timedelta64):
        return _list_of_integers
    if issubclass(kind, float | np.floating):
        return _list_of_floats
    if issubclass(kind, numbers.Real | decimal.Decimal) and not issubclass(kind, np.generic):
        return _number_keys
    if kind.__name__ in ("NoneType", "NAType", "NaTType"):
        return _list_of_missing
    raise TypeError(_REFUSAL.format(kind.__name__))


def _list_of_text(values, column):
    return _list_keys(values, column, "U")


def _list_of_bytes(values, column):
    return _list_keys(values, column, "S")


def _list_of_integers(values, column):
    try:
        return _integer_keys(np.array(list(map(int, values)), dtype=np.int64), column)
    except OverflowError:
        return _number_keys(list(map(int, values)), column)


def _list_of_floats(values, column):
    return _float_keys(np.array(values, dtype=np.float64), column)


def _list_of_missing(values, column):
    return np.full(len(values), missing_key(column))
