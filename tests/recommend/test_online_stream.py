"""Streams as they are run: processes that are killed, readers beside a writer, hostile and endless identifiers."""

import importlib.util
import io
import itertools
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from sklowrank.recommend import OnlineEmbeddingClassifier

PROGRAM = Path(__file__).parents[2] / "examples" / "recommend" / "stream_server.py"
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="the writer is a fork of this process")


def stream(n, n_users=400, n_items=100, seed=0):
    g = np.random.default_rng(seed)
    X = np.column_stack([(g.pareto(1.0, n) * 20).astype(int) % n_users, g.integers(0, n_items, n)])
    y = (g.random(n) < 1 / (1 + np.exp(np.sin(X[:, 0]) * 2 - np.cos(X[:, 1])))).astype(int)
    return X, y


def online(**params):
    return OnlineEmbeddingClassifier(**{"random_state": 0, **params})


def program():
    """The example, as a module."""
    spec = importlib.util.spec_from_file_location("stream_server", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Snapshots


def rows_by_count(X, y, n_saves, **params):
    """Answers after each of the batches that a writer of snapshots may have reached."""
    model, answers = online(**params), {}
    for start in range(0, n_saves * 50, 50):
        model.partial_fit(X[start : start + 50], y[start : start + 50], classes=[0, 1])
        answers[model.n_seen_] = model.decision_function(X[:200])
    return answers


def write_snapshots(path, X, y, params):
    """Learn and save without an end: what is killed."""
    model = online(**params)
    for start in itertools.cycle(range(0, len(X), 50)):
        if start == 0:
            model = online(**params)
        model.partial_fit(X[start : start + 50], y[start : start + 50], classes=[0, 1])
        model.save_snapshot(path)


def wait_for(path, n_saves):
    """Wait until a snapshot was replaced so many times, and a little longer: into the midst of the next one."""
    manifest, seen = path / "manifest.json", set()
    while len(seen) <= n_saves:
        seen.add(manifest.stat().st_mtime_ns)
        time.sleep(0.0005)


@forks
def test_a_writer_that_is_killed_leaves_the_last_snapshot_or_the_new_one(tmp_path):
    X, y = stream(1500)
    params = {"min_count": 2, "expire_after": 300, "evict_every": 100, "sync_interval": 70}
    answers = rows_by_count(X, y, 30, **params)
    path, found, g = tmp_path / "model", [], np.random.default_rng(0)
    online(**params).partial_fit(X[:50], y[:50], classes=[0, 1]).save_snapshot(path)
    for _ in range(5):
        writer = multiprocessing.get_context("fork").Process(target=write_snapshots, args=(path, X, y, params))
        writer.start()
        wait_for(path, g.integers(1, 6))
        time.sleep(g.uniform(0, 0.01))
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        model = OnlineEmbeddingClassifier.load_snapshot(path)
        assert np.array_equal(model.decision_function(X[:200]), answers[model.n_seen_])
        found.append(model.n_seen_)
        rest = slice(model.n_seen_, 1500)  # it goes on as if it had not been killed
        if rest.start < 1500:
            for start in range(rest.start, 1500, 50):
                model.partial_fit(X[start : start + 50], y[start : start + 50])
        assert np.array_equal(model.decision_function(X[:200]), answers[1500])
    assert len(set(found)) > 2
    model.save_snapshot(path)  # nothing that was left behind is in the way
    assert OnlineEmbeddingClassifier.load_snapshot(path).n_seen_ == 1500


@forks
def test_a_snapshot_can_be_read_while_it_is_replaced(tmp_path):
    X, y = stream(1500)
    path, answers = tmp_path / "model", rows_by_count(X, y, 30)
    online().partial_fit(X[:50], y[:50], classes=[0, 1]).save_snapshot(path)
    writer = multiprocessing.get_context("fork").Process(target=write_snapshots, args=(path, X, y, {}))
    writer.start()
    try:
        found = [OnlineEmbeddingClassifier.load_snapshot(path) for _ in range(60)]
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    assert len({model.n_seen_ for model in found}) > 2
    assert all(np.array_equal(model.decision_function(X[:200]), answers[model.n_seen_]) for model in found)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A snapshot, and its model."""
    X, y = stream(800)
    params = {"interaction": "deepfm", "hidden_layer_sizes": (8,), "min_count": 2, "sync_interval": 300}
    model = online(**params).partial_fit(X, y)
    path = tmp_path_factory.mktemp("whole") / "model"
    model.save_snapshot(path)
    return path, model


def files_of(path):
    return sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file())


@pytest.mark.parametrize("damage", ["half", "empty", "gone", "one bit", "longer", "text"])
def test_a_damaged_snapshot_is_refused(tmp_path, whole, damage):
    path, _ = whole
    for name in files_of(path):
        shutil.rmtree(tmp_path / "hurt", ignore_errors=True)
        shutil.copytree(path, tmp_path / "hurt")
        file = tmp_path / "hurt" / name
        content = file.read_bytes()
        middle = len(content) // 2
        changed = {
            "half": content[:middle],
            "empty": b"",
            "one bit": content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :],
            "longer": content + b"\0" * 10,
            "text": b"{}",
        }
        if damage == "gone":
            file.unlink()
        else:
            file.write_bytes(changed[damage])
        with pytest.raises(ValueError, match=r"hurt|snapshot"):
            OnlineEmbeddingClassifier.load_snapshot(tmp_path / "hurt")


def test_what_is_no_snapshot_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "nothing", Path(__file__)):
        with pytest.raises((ValueError, FileNotFoundError), match=r"snapshot|nothing|test_online_stream"):
            OnlineEmbeddingClassifier.load_snapshot(path)


def test_a_snapshot_is_not_one_of_another_class(whole):
    from sklowrank.recommend import OnlineEmbeddingRegressor

    with pytest.raises(ValueError, match="OnlineEmbeddingClassifier"):
        OnlineEmbeddingRegressor.load_snapshot(whole[0])


def test_a_snapshot_goes_on_with_all_that_it_needs(tmp_path, whole):
    X, y = stream(800, seed=1)
    path, _ = whole
    model = OnlineEmbeddingClassifier.load_snapshot(path)
    other = OnlineEmbeddingClassifier.load_snapshot(path)
    model.partial_fit(X, y)
    other.partial_fit(X[:416], y[:416])
    other.save_snapshot(tmp_path / "half")
    other = OnlineEmbeddingClassifier.load_snapshot(tmp_path / "half").partial_fit(X[416:], y[416:])
    assert np.array_equal(model.decision_function(X), other.decision_function(X))
    assert np.array_equal(model.rows_of(X), other.rows_of(X))
    assert (model.n_ids_, model.n_filtered_, model.n_seen_) == (other.n_ids_, other.n_filtered_, other.n_seen_)


# Readers beside a writer


def test_a_reader_sees_one_state_or_the_next_and_never_a_mixture():
    X, y = stream(6_000)
    model = online(sync_interval=100, batch_size=25).partial_fit(X[:100], y[:100], classes=[0, 1])
    asked, seen, done, errors = X[:300], [], threading.Event(), []

    def read():
        try:
            while not done.is_set():
                seen.append(model.decision_function(asked))
        except Exception as error:  # of a thread nobody would hear
            errors.append(error)

    states = [model.decision_function(asked)]
    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for start in range(100, 6_000, 100):
        model.partial_fit(X[start : start + 100], y[start : start + 100])
        states.append(model.decision_function(asked))
    done.set()
    for reader in readers:
        reader.join()
    assert not errors
    known = {state.tobytes() for state in states}
    assert len(known) > 30
    assert {answers.tobytes() for answers in seen} <= known
    assert len({answers.tobytes() for answers in seen}) > 2


@forks
def test_a_thread_that_reads_beside_one_that_saves_and_is_killed(tmp_path):
    X, y = stream(1500)
    path = tmp_path / "model"
    answers = rows_by_count(X, y, 30)
    online().partial_fit(X[:50], y[:50], classes=[0, 1]).save_snapshot(path)

    def both():
        model = OnlineEmbeddingClassifier.load_snapshot(path).set_params(sync_interval=64)
        threading.Thread(target=lambda: [model.predict_proba(X[:100]) for _ in itertools.count()], daemon=True).start()
        write_snapshots(path, X, y, {})

    for n_saves in (1, 3, 5):
        process = multiprocessing.get_context("fork").Process(target=both)
        process.start()
        wait_for(path, n_saves)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        model = OnlineEmbeddingClassifier.load_snapshot(path)
        assert np.array_equal(model.decision_function(X[:200]), answers[model.n_seen_])


# Identifiers


def hostile():
    numbers = [0, 1, -1, 2**31, -(2**31), 2**53, 2**53 + 1, 2**62, 2**63 - 1, -(2**63), 2**63, 2**64 - 1, 2**64, 10**40]
    texts = ["", "0", "1", "-1", "a", "a\0", "a\0\0", "b", "é", "e\u0301", "x" * 1000, "x" * 999 + "y", "None", "nan"]
    values = [*numbers, *texts, *(t.encode() for t in texts), None, 0.5, np.inf]
    column = np.empty(len(values), object)
    column[:] = values
    return column


def test_hostile_identifiers_have_a_row_each_wherever_they_go(tmp_path):
    column = hostile()
    X = np.column_stack([column, column])
    y = np.arange(len(X)) % 2
    model = online(batch_size=7).partial_fit(X, y)
    rows = model.rows_of(X)
    assert len(np.unique(rows)) == 2 * len(X) == model.n_ids_
    assert (rows >= 0).all()
    model.save_snapshot(tmp_path / "model")
    for other in (OnlineEmbeddingClassifier.load_snapshot(tmp_path / "model"), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(other.rows_of(X[::-1]), rows[::-1])
        other.partial_fit(X, y)
        assert other.n_ids_ == model.n_ids_
    again = online(batch_size=3).partial_fit(X[::-1], y[::-1])
    assert len(np.unique(again.rows_of(X))) == 2 * len(X)


def test_identifiers_congruent_modulo_the_size_of_tables_cost_no_more_rows():
    ids = np.arange(20_000)[:, None] * 2**32
    model = online(batch_size=1000, n_components=2).partial_fit(ids, ids[:, 0] >> 32 & 1)
    assert len(np.unique(model.rows_of(ids))) == 20_000


def test_two_million_identifiers_of_which_none_comes_twice():
    ids = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, (2_000_000, 1))
    model = online(n_components=0, batch_size=50_000, max_rows=20_000)
    for start in range(0, len(ids), 200_000):
        part = ids[start : start + 200_000]
        model.partial_fit(part, part[:, 0] & 1)
    assert model.n_ids_ <= 20_000
    assert model.n_evicted_ == 2_000_000 - model.n_ids_
    assert (model.rows_of(ids[-10_000:]) >= 0).all()
    assert len(model.embeddings_) <= 20_000 + 50_000
    assert len(pickle.dumps(model)) < 20e6  # 2 million rows would be 64 MB, keys and weights alone


# The program


def test_the_program_in_one_process(tmp_path):
    example = program()
    X, y = stream(6_000)
    log, folder = tmp_path / "log", tmp_path / "folder"
    lines = [f"{u},{i},{label}" for (u, i), label in zip(X, y)]
    log.write_text("")
    example.learn(log, folder)
    assert not list(folder.iterdir())  # nothing to learn yet
    log.write_text("\n".join(lines[:2_560]) + "\n")
    example.learn(log, folder)
    asked = [f"{u},{i}" for u, i in X[:5]]
    early = io.StringIO()
    example.serve(folder, asked, early)
    with open(log, "a") as file:
        file.write("\n".join(lines[2_560:5_000]) + "\n" + lines[5_000][:3])  # the last line is not complete
    example.learn(log, folder)
    late, whole = io.StringIO(), io.StringIO()
    model = example.load(folder)
    assert model.n_seen_ == 4_864  # whole blocks
    example.serve(folder, asked, late)
    assert early.getvalue() != late.getvalue()
    assert [float(line) for line in late.getvalue().split()] == pytest.approx(
        model.predict_proba(np.array([question.split(",") for question in asked]))[:, 1].tolist(), abs=1e-9
    )
    example.learn(log, tmp_path / "other")  # never stopped
    example.serve(tmp_path / "other", asked, whole)
    assert whole.getvalue() == late.getvalue()


@pytest.mark.slow
def test_the_program_killed_while_it_saves(tmp_path):
    X, y = stream(25_000, 3_000, 800)
    log, folder = tmp_path / "log", tmp_path / "folder"
    lines = [f"u{u},i{i},{label}\n" for (u, i), label in zip(X, y)]
    log.write_text("".join(lines[:10_000]))

    def start(*arguments, **pipes):
        return subprocess.Popen([sys.executable, PROGRAM, *map(str, arguments)], text=True, **pipes)

    server = start("serve", folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(row):
        server.stdin.write(f"u{X[row, 0]},i{X[row, 1]}\n")
        server.stdin.flush()
        return float(server.stdout.readline())

    try:
        g, answers = np.random.default_rng(0), []
        for part in range(3):
            learner = start("learn", log, folder, "--follow", stdout=subprocess.PIPE)
            learner.stdout.readline()  # a snapshot was written or, where nothing new was in the log, read
            answers.append(ask(0))
            with open(log, "a") as file:
                file.writelines(lines[10_000 + 5_000 * part : 15_000 + 5_000 * part])
            time.sleep(g.uniform(0, 0.5))
            learner.kill()
            learner.wait()
        subprocess.run([sys.executable, PROGRAM, "learn", log, folder], check=True, stdout=subprocess.DEVNULL)
        answers.append(ask(0))
        found = [ask(row) for row in range(50)]
    finally:
        server.stdin.close()
        assert server.wait(60) == 0
    assert len(set(answers)) > 1
    model = program().load(folder)
    assert model.n_seen_ == 24_832  # whole blocks
    reference = online(min_count=2, max_rows=100_000)
    for first in range(0, 24_832, 256):
        rows = slice(first, first + 256)
        table = np.array([line.strip().split(",") for line in lines[rows]])
        reference.partial_fit(table[:, :2], table[:, 2].astype(int), classes=[0, 1])
    table = np.array([line.strip().split(",")[:2] for line in lines[:50]])
    assert np.array_equal(model.predict_proba(table), reference.predict_proba(table))
    assert found == pytest.approx(reference.predict_proba(table)[:, 1].tolist(), abs=1e-9)
