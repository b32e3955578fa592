"""Learn from a log while it grows, and answer in another process.

``python stream_server.py learn LOG FOLDER`` reads lines "user,item,label" from a log, learns them in order, and writes
to FOLDER what has changed: a delta for every block of 256 lines, a snapshot for every 2,560. With ``--follow`` it waits
for further lines. Where it was stopped, even by SIGKILL in the midst of a write, the same command goes on from the last
snapshot, to the same answers as if it had never been stopped: a block is learned once all of its lines are there.

``python stream_server.py serve FOLDER`` reads lines "user,item" from standard input and prints the probability of a
label of 1 for each. It starts from the snapshot and takes over each delta that has come since.
"""

import argparse
import contextlib
import itertools
import os
import sys
import time
from pathlib import Path

import numpy as np

from sklowrank.recommend import OnlineEmbeddingClassifier

LINES, DELTAS, KEPT = 256, 10, 40  # lines of a delta, deltas of a snapshot, deltas that are kept for slow servers


def learn(log, folder, follow=False):
    """Learn the lines of a log, and write snapshots and deltas to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    model = load(folder) or OnlineEmbeddingClassifier(random_state=0, min_count=2, max_rows=100_000)
    learned = getattr(model, "n_seen_", 0)  # how many lines the snapshot has learned
    for number, X, y in batches(log, learned, follow):
        since = getattr(model, "version_", 0)
        model.partial_fit(X, y, classes=[0, 1])
        if since:
            write_delta(folder, model.get_delta(since))
        if number % DELTAS == 0 or not since:
            save(model, folder)
    if hasattr(model, "n_seen_"):
        save(model, folder)


def serve(folder, questions, answers):
    """Answer one line after the other, with all that was learned until then."""
    model = None
    for line in questions:
        model = refreshed(model, folder)
        X = np.array([line.strip().split(",")])
        print(f"{model.predict_proba(X)[0, 1]:.9f}", file=answers, flush=True)


def batches(log, skipped, follow):
    """Give the number, the identifiers and the labels of each full block of lines after the first `skipped`."""
    with open(log) as file:
        lines = itertools.islice(whole_lines(file, follow), skipped, None)
        for number in itertools.count(skipped // LINES + 1):
            rows = [line.split(",") for line in itertools.islice(lines, LINES)]
            if len(rows) < LINES:
                return
            table = np.array(rows)
            yield number, table[:, :2], table[:, 2].astype(int)


def whole_lines(file, follow):
    """Give the lines of a file, and where it is followed wait for more; the last one may still be being written."""
    part = ""
    while True:
        part += file.readline()
        if part.endswith("\n"):
            yield part.rstrip("\n")
            part = ""
        elif follow:
            time.sleep(0.05)
        else:
            return


def save(model, folder):
    """Replace the snapshot by that of a model."""
    model.save_snapshot(folder / "snapshot")
    print(f"{model.n_seen_} lines, {model.n_ids_} identifiers", flush=True)


def load(folder):
    """Return the model of the last snapshot that was completed, or None before the first."""
    path = folder / "snapshot"
    return OnlineEmbeddingClassifier.load_snapshot(path) if path.exists() else None


def write_delta(folder, delta):
    """Write what has changed to a file that has its name only once it is complete, and forget old ones."""
    version = int(delta["version"])
    path = folder / f"delta-{version:012d}.npz"
    with open(folder / "unfinished", "wb") as file:
        np.savez(file, **delta)
        file.flush()
        os.fsync(file.fileno())
    os.replace(folder / "unfinished", path)
    for old in sorted(folder.glob("delta-*.npz"))[:-KEPT]:
        old.unlink()


def refreshed(model, folder):
    """Return a model that has all deltas in the folder."""
    while model is None:
        model = load(folder)
        time.sleep(0 if model else 0.05)
    for path in sorted(folder.glob("delta-*.npz")):
        if int(path.stem.split("-")[1]) <= model.version_:
            continue
        with contextlib.suppress(FileNotFoundError):  # the learner has just removed it
            with np.load(path, allow_pickle=False) as file:
                delta = dict(file)
            if int(delta["since"]) != model.version_:  # too far behind: some in between are gone
                return refreshed(load(folder), folder)
            model.apply_delta(delta)
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("task", choices=["learn", "serve"])
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="LOG FOLDER to learn, FOLDER to serve")
    parser.add_argument("--follow", action="store_true", help="wait for further lines of the log")
    options = parser.parse_args()
    if options.task == "learn":
        learn(*options.paths, follow=options.follow)
    else:
        serve(*options.paths, sys.stdin, sys.stdout)
