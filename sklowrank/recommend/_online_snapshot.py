"""Snapshots of a stream: a folder with a manifest and files of arrays, of which the last completed one always loads.

Files of arrays have names of their own and are complete before the manifest that names them takes the place of the
former one. The manifest is JSON, arrays are numpy's without pickled objects; of each file it has size and checksum.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_FORMAT, _MANIFEST = {"format": "sklowrank online embedding", "format_version": 1}, "manifest.json"
_TEMPORARY = ".being-written-"


class Saved(NamedTuple):
    """A snapshot that this model has written or was read from, so that changes can be added to it."""

    path: str
    checksum: str  # of its manifest
    version: int


# Trees of dicts, arrays and plain values


def packed(tree, arrays: dict[str, np.ndarray]) -> Any:
    """Return a tree as JSON holds it; arrays are added to `arrays` and named."""
    if isinstance(tree, np.ndarray) and tree.dtype.kind != "O":
        name = f"a{len(arrays)}"
        arrays[name] = tree
        return {"array": name}
    if isinstance(tree, np.ndarray):
        return {"objects": [packed(value, arrays) for value in tree.tolist()]}
    if isinstance(tree, dict):
        return {"dict": [[packed(key, arrays), packed(value, arrays)] for key, value in tree.items()]}
    if isinstance(tree, list | tuple):
        return {"tuple" if isinstance(tree, tuple) else "list": [packed(value, arrays) for value in tree]}
    if isinstance(tree, np.generic):
        tree = tree.item()
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise TypeError(f"A snapshot cannot hold {tree!r} of type {type(tree).__name__}.")


def unpacked(tree, arrays) -> Any:
    """Return what :func:`packed` was given."""
    if not isinstance(tree, dict):
        return tree
    ((kind, value),) = tree.items()
    if kind == "array":
        return arrays[value]
    if kind == "dict":
        return {unpacked(key, arrays): unpacked(part, arrays) for key, part in value}
    values = [unpacked(part, arrays) for part in value]
    if kind == "objects":
        found = np.empty(len(values), dtype=object)
        found[:] = values
        return found
    return tuple(values) if kind == "tuple" else values


# Changes between two versions


def changes_of(plain, since: int) -> dict:
    """Return a plain state with those rows alone that have changed after a version."""
    rows = np.flatnonzero(plain["rows"]["versions"] > since)
    found = {**plain, "changed": rows, "n_places": len(plain["rows"]["versions"])}
    found["rows"] = {name: array[rows] for name, array in plain["rows"].items()}
    if plain["kept"]["table"] == "cuckoo":
        numbers = rows[rows > 0] - 1
        found["table"] = {**plain["table"], "row_keys": plain["table"]["row_keys"][numbers]}
    return found


def merged(plain, changes) -> dict:
    """Return a plain state with the changes of :func:`changes_of`."""
    rows, n = changes["changed"], changes["n_places"]
    found = {name: value for name, value in changes.items() if name not in ("changed", "n_places")}
    found["rows"] = {name: _with(array, changes["rows"][name], rows, n) for name, array in plain["rows"].items()}
    if plain["kept"]["table"] == "cuckoo":
        keys = _with(plain["table"]["row_keys"], changes["table"]["row_keys"], rows[rows > 0] - 1, n - 1)
        found["table"] = {**changes["table"], "row_keys": keys}
    return found


def _with(array, new, rows, n):
    found = np.zeros((n, *array.shape[1:]), array.dtype)
    found[: len(array)] = array
    found[rows] = new
    return found


# Folders


def write(path, header: dict, plain: dict, saved: Saved | None, *, incremental: bool) -> Saved:
    """Write a snapshot, and return what is remembered of it; with `incremental`, add changes to one that is there."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    if incremental and saved is not None and saved.path == str(folder.resolve()):
        parts = _parts_of(folder, saved)
    if sum(part["size"] for part in parts[1:]) > sum(part["size"] for part in parts[:1]):
        parts = []  # changes are no longer the smaller part: all is written anew
    tree = changes_of(plain, saved.version) if parts and saved is not None else plain
    arrays: dict[str, np.ndarray] = {}
    body = {**_FORMAT, "version": plain["clock"]["version"], "header": packed(header, arrays)}
    tree = packed(tree, arrays)
    file = _write_arrays(folder, arrays)
    body |= {"header_file": file["file"], "parts": [*parts, {**file, "tree": tree}]}
    digest = _checksum(body)
    with _replacing(folder, _MANIFEST) as (stream, _):
        stream.write(json.dumps({**body, "sha256": digest}, indent=1).encode())
    _tidy(folder, {part["file"] for part in body["parts"]})
    return Saved(str(folder.resolve()), digest, body["version"])


def read(path) -> tuple[dict, dict, Saved]:
    """Return the header and the plain state of a snapshot, and what is remembered of it."""
    folder = Path(path)
    body, digest = _manifest(folder)
    try:
        try:
            arrays = {part["file"]: _arrays(folder, part) for part in body["parts"]}
        except ValueError:  # of files that were removed, where the snapshot was replaced in the meantime
            if _manifest(folder)[1] == digest:
                raise
            return read(path)
        header = unpacked(body["header"], arrays[body["header_file"]])
        first, *others = (unpacked(part["tree"], arrays[part["file"]]) for part in body["parts"])
        for changes in others:
            first = merged(first, changes)
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"The snapshot {folder} is damaged: its manifest does not fit its files ({error!r})."
        ) from error
    return header, first, Saved(str(folder.resolve()), digest, body["version"])


def _manifest(folder: Path) -> tuple[dict, str]:
    """Return the body of a manifest, and its checksum."""
    try:
        data = (folder / _MANIFEST).read_bytes()
    except OSError as error:
        if not folder.exists():
            raise
        raise ValueError(f"{folder} is no snapshot: it has no {_MANIFEST} that can be read.") from error
    try:
        body = json.loads(data)
        digest = body.pop("sha256")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"The snapshot {folder} is damaged: its manifest cannot be read.") from error
    if _checksum(body) != digest:
        raise ValueError(f"The snapshot {folder} is damaged: its manifest is not the one that was written.")
    if {name: body.get(name) for name in _FORMAT} != _FORMAT:
        raise ValueError(f"{folder} is no snapshot that this version of sklowrank reads: it has to be {_FORMAT}.")
    return body, digest


def _parts_of(folder: Path, saved: Saved) -> list[dict]:
    """Return the parts of the snapshot that was saved; none where another one is there now, or it lacks a file."""
    try:
        body, digest = _manifest(folder)
    except (OSError, ValueError):
        return []
    there = all((folder / part["file"]).exists() for part in body["parts"])
    return body["parts"] if digest == saved.checksum and there else []


def _checksum(body) -> str:
    """Return the checksum of a manifest, which does not depend on how it is laid out."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _write_arrays(folder: Path, arrays) -> dict:
    """Write arrays to a file that is named by its checksum, and return its name, size and checksum."""
    with _replacing(folder, None) as (stream, name):
        np.savez(stream, allow_pickle=False, **arrays)
        stream.flush()
        stream.seek(0)
        checksum = hashlib.file_digest(stream, "sha256").hexdigest()
        name.append(f"part-{checksum[:24]}.npz")
        size = stream.seek(0, os.SEEK_END)
    return {"file": name[0], "size": size, "sha256": checksum}


def _arrays(folder: Path, part) -> dict[str, np.ndarray]:
    """Return the arrays of a file, of which each byte was written."""
    try:
        stream = (folder / part["file"]).open("rb")
    except OSError as error:
        raise ValueError(f"The snapshot {folder} is damaged: {part['file']} cannot be read.") from error
    with stream:  # which stays what it is where the file is removed in the meantime
        checksum = hashlib.file_digest(stream, "sha256").hexdigest()
        if checksum != part["sha256"]:
            raise ValueError(
                f"The snapshot {folder} is damaged: {part['file']} has {stream.seek(0, os.SEEK_END)} bytes, which are "
                f"not the {part['size']} that were written."
            )
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as stored:
            return dict(stored)


@contextlib.contextmanager
def _replacing(folder: Path, name: str | None):
    """Give a file to be written, which gets its name when all of it is on the disk; the name may come with it."""
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=_TEMPORARY)
    names = [] if name is None else [name]
    try:
        with os.fdopen(handle, "w+b") as stream:
            yield stream, names
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, folder / names[0])
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if os.name == "posix":  # the name is on the disk too
        directory = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _tidy(folder: Path, named) -> None:
    """Remove files that the manifest does not name: of former snapshots, and of writes that were broken off."""
    for file in (*folder.glob("part-*.npz"), *folder.glob(f"{_TEMPORARY}*")):
        if file.name not in named:
            file.unlink(missing_ok=True)
