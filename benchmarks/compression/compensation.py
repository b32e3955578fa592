"""Paths of low rank beside compressed weights: errors, accuracies, bytes, adapters of tasks, and times."""

import os
import pickle
import time

import numpy as np

from benchmarks.compression.low_rank import (
    BUILDS,
    SEEDS,
    digits,
    networks,
    raw,
    relative_error,
    trained,
)

KINDS = {
    "2 bit": {"bits": 2},
    "3 bit": {"bits": 3},
    "2:4": {"compression": "prune_n_m", "importance": "magnitude"},
}


def compensator(net, **params):
    """A compensator around a fitted network."""
    from sklearn.frozen import FrozenEstimator

    from sklowrank.compress import LowRankCompensator

    params = {"modules": "wide*", "n_calibration": None} | params
    return LowRankCompensator(FrozenEstimator(net), device=os.environ["SKLOWRANK_BENCH_DEVICE"], **params)


# Errors and accuracies


def by_kind(rank, params):
    """Accuracy and relative error of the outputs on test rows, for each way to compress; seconds of a fit."""
    right, errors, times = (np.zeros((SEEDS, len(KINDS))) for _ in range(3))
    for i, (net, X, X_test, _, y_test) in enumerate(networks()):
        for j, how in enumerate(KINDS.values()):
            start = time.perf_counter()
            model = compensator(net, rank=rank, **how, **params).fit(X[:300])
            times[i, j] = time.perf_counter() - start
            right[i, j] = model.score(X_test, y_test)
            errors[i, j] = relative_error(model.predict_raw(X_test), raw(net, X_test))
    parts = list(zip(KINDS, right.mean(0), errors.mean(0)))
    found = {f"{name} accuracy": a for name, a, _ in parts} | {f"{name} error": e for name, _, e in parts}
    remark = "; ".join(f"{name}: accuracy {a:.3f}, error {e:.5f}" for name, a, e in parts)
    return {**found, "seconds": float(np.median(times)), "remark": remark}


def dense():
    """Accuracy of the networks."""
    right = [net.score(X_test, y_test) for net, _, X_test, _, y_test in networks()]
    return {"accuracy": float(np.mean(right)), "remark": f"accuracy {np.mean(right):.3f}"}


def methods(bench):
    """compensation, methods: digits, three networks 64-256-256-256-10, the wide layers, fitted to 300 training rows.

    The errors of outputs are relative to their variance, on test rows. Weights are rounded to 2 or 3 bits, or the two
    largest of each four are kept; "svd" is the truncated SVD of what the weights lack, "activation_scale" that of the
    same times the mean magnitudes of the inputs. Biases are corrected unless it says otherwise.
    """
    unshifted = {"correct_bias": False}
    before = bench.measure("not compressed", dense)
    none = bench.measure("no path, biases as they are", by_kind, 0, unshifted)
    bench.measure("no path", by_kind, 0, {})
    plain = bench.measure("svd, rank 8, biases as they are", by_kind, 8, {"method": "svd", **unshifted})
    bench.measure("eigenspace, rank 8, biases as they are", by_kind, 8, unshifted)
    others = [bench.measure(f"{name}, rank 8", by_kind, 8, {"method": name}) for name in ("svd", "activation_scale")]
    ours = bench.measure("eigenspace, rank 8", by_kind, 8, {})
    bench.measure("eigenspace, rank 8, adapter_bits=8", by_kind, 8, {"adapter_bits": 8})
    bench.measure("svd, rank 32", by_kind, 32, {"method": "svd"})
    more = bench.measure("eigenspace, rank 32", by_kind, 32, {})
    for kind, need, unfair, fair in (("2 bit", 0.010, 4, 1.5), ("3 bit", 0.0012, 4, 1.5), ("2:4", 0.006, 8, 3)):
        error, best = f"{kind} error", min(row[f"{kind} error"] for row in others)
        bench.claim(f"{kind}: error at rank 8", ours[error], at_most=need)
        bench.claim(f"{kind}: error at rank 32", more[error], at_most=need / 4)
        bench.claim(
            f"{kind}: error of svd with biases as they are over ours", plain[error] / ours[error], at_least=unfair
        )
        bench.claim(f"{kind}: error of the better baseline over ours", best / ours[error], at_least=fair)
        lost = before.accuracy - ours[f"{kind} accuracy"]
        bench.claim(f"{kind}: accuracy lost at rank 8", lost, at_most=0.008)
    won = ours["2 bit accuracy"] - none["2 bit accuracy"]
    bench.claim("2 bit: accuracy won back at rank 8", won, at_least=0.02)


def spread(budget):
    """Relative errors on test rows with ranks by a budget, and with one rank that costs as much."""
    errors, ranks = np.zeros((SEEDS, 2)), []
    for i, (net, X, X_test, _, _) in enumerate(networks()):
        rank = int(budget * (64 * 256 + 2 * 256**2) / (64 + 256 + 4 * 256))
        for j, how in enumerate(({"rank": "auto", "budget": budget}, {"rank": rank})):
            model = compensator(net, bits=2, **how).fit(X[:300])
            errors[i, j] = relative_error(model.predict_raw(X_test), raw(net, X_test))
            ranks += ["-".join(str(row["rank"]) for row in model.layer_report_)] * (j == 0)
    auto, one = errors.mean(0)
    remark = f"auto {auto:.4f} (ranks {', '.join(ranks)}), rank {rank} everywhere {one:.4f}"
    return {"auto": auto, "one": one, "remark": remark}


def ranks(bench):
    """compensation, ranks: the same networks at 2 bit; ranks by a share of the entries, and one rank for all layers.

    Errors are on test rows, and relative.
    """
    for budget in (0.05, 0.1, 0.2):
        found = bench.measure(f"budget {budget:.0%}", spread, budget)
        bench.claim(f"error of rank='auto' against one rank, {budget:.0%}", found.auto, found.one, at_most=0.9)


# Tasks


def of_tasks(rank):
    """Relative errors on the halves of the test rows, of adapters of both halves, of all digits, and of none."""
    found, size = {}, 0
    for net, X, X_test, y, y_test in networks():
        halves = {"0-4": (X[y < 5], X_test[y_test < 5]), "5-9": (X[y >= 5], X_test[y_test >= 5])}
        fits = {name: compensator(net, bits=2, rank=rank).fit(rows) for name, (rows, _) in halves.items()}
        fits["all"] = compensator(net, bits=2, rank=rank).fit(X)
        fits["none"] = compensator(net, bits=2, rank=0, correct_bias=False).fit(X)
        size = fits["0-4"].nbytes_ - fits["none"].nbytes_
        for name, model in fits.items():
            for half, (_, rows) in halves.items():
                errors = found.setdefault(f"{name} on {half}", [])
                errors.append(relative_error(model.predict_raw(rows), raw(net, rows)))
    found = {name: float(np.mean(errors)) for name, errors in found.items()}
    remark = "; ".join(f"{name} {error:.4f}" for name, error in found.items())
    return {**found, "remark": f"{remark}; {size / 1000:.1f} kB an adapter"}


def tasks(bench):
    """compensation, tasks: the same networks at 2 bit; adapters of digits 0 to 4, of 5 to 9, of all, and none.

    Errors are on test rows of either half, and relative to the variance there.
    """
    found = bench.measure("rank 4", of_tasks, 4)
    bench.measure("rank 8", of_tasks, 8)
    for own, other, need in (("0-4", "5-9", 0.5), ("5-9", "0-4", 0.9)):
        what = f"error on digits {own} of their own adapter against the other's"
        bench.claim(what, found[f"{own} on {own}"], found[f"{other} on {own}"], at_most=need)
        what = f"error on digits {own} of their own adapter against that of all"
        bench.note(what, f"{found[f'{own} on {own}'] / found[f'all on {own}']:.2f}")


# Bytes


def bytes_and_errors(kind, cases):
    """Bytes of the network as a share of those before, relative error and accuracy on test rows."""
    X, X_test, y, y_test = digits(0)
    build, epochs = BUILDS[kind]
    net = trained(lambda: build(1.0), X, y, epochs=epochs)
    truth, found, parts = raw(net, X_test), {}, []
    for name, params in cases.items():
        model = compensator(net, **params).fit(X)
        error, right = relative_error(model.predict_raw(X_test), truth), model.score(X_test, y_test)
        found |= {f"{name} error": error, f"{name} share": model.compression_}
        parts.append(f"{name}: {model.compression_:.1%}, error {error:.5f}, accuracy {right:.3f}")
    return {**found, "remark": f"dense {net.score(X_test, y_test):.3f}; {'; '.join(parts)}"}


def bits_or_ranks(bench):
    """compensation, bytes: one network of digits with three layers of 256 or 1,024 units; more bits, or a path.

    Shares are of the bytes of the network in single precision; all weights but those of the last layer are compressed.
    Paths are in single precision, or in 8 bits. Fitted to all training rows; biases are corrected without a path, too.
    """
    plain = {"rank": 0}
    cases = {
        "2 bit": {"bits": 2, **plain},
        "2 bit, groups of 32": {"bits": 2, "group_size": 32, **plain},
        "2 bit, rank 4 in 8 bit": {"bits": 2, "rank": 4, "adapter_bits": 8},
        "2 bit, rank 8 in 8 bit": {"bits": 2, "rank": 8, "adapter_bits": 8},
        "2 bit, rank 16 in 8 bit": {"bits": 2, "rank": 16, "adapter_bits": 8},
        "2 bit, rank 8": {"bits": 2, "rank": 8},
        "3 bit": {"bits": 3, **plain},
        "3 bit, rank 4 in 8 bit": {"bits": 3, "rank": 4, "adapter_bits": 8},
        "4 bit": {"bits": 4, **plain},
        "8 bit": {"bits": 8, **plain},
    }
    small, wide = (bench.measure(name, bytes_and_errors, name, cases) for name in ("width 256", "width 1,024"))
    path, (low, high) = "2 bit, rank 16 in 8 bit", (wide["2 bit share"], wide["3 bit share"])
    part = (wide[f"{path} share"] - low) / (high - low)  # of the way from two to three bits, in bytes
    line = wide["2 bit error"] ** (1 - part) * wide["3 bit error"] ** part
    what = "width 1,024: error at 2 bit and rank 16 in 8 bit, against the line from 2 to 3 bit at its bytes"
    bench.claim(what, wide[f"{path} error"], line, at_most=0.25)
    against = f"{wide[f'{path} error'] / wide['3 bit error']:.1f} times the error"
    bench.note("width 1,024: the same against 3 bit", f"{against}, {wide[f'{path} share'] / high:.2f} times the bytes")
    against = small["2 bit, rank 8 error"] / small["4 bit error"]
    shares = f"{small['2 bit, rank 8 share']:.1%} against {small['4 bit share']:.1%} of the bytes"
    bench.note("width 256: 2 bit and rank 8 against 4 bit", f"{against:.1f} times the error, {shares}")


# What predictions cost


def torch_int8(net):
    """The module with linear layers of torch in 8 bits, whose products are of integers."""
    import torch

    return torch.ao.quantization.quantize_dynamic(net.module_.eval(), {torch.nn.Linear}, dtype=torch.qint8)


def processor_milliseconds(module, X):
    """Median processor time of a pass of 1,000 rows in one batch, and of a single row, on one thread."""
    import torch

    torch.set_num_threads(1)
    rows, medians = torch.from_numpy(np.resize(X, (1000, X.shape[1]))), []
    with torch.inference_mode():
        for n in (1000, 1):
            times = []
            for _ in range(30):
                start = time.process_time()
                module(rows[:n])
                times.append(1000 * (time.process_time() - start))
            medians.append(float(np.median(times[5:])))
    return medians


def latency(kind, ways):
    """Milliseconds of a pass, relative errors on test rows, bytes, and bytes of pickled modules."""
    import torch

    build, epochs = BUILDS[kind]
    X, X_test, y, y_test = digits(0)
    net = trained(lambda: build(1.0), X, y, epochs=epochs)
    truth, found, remarks = raw(net, X_test), {}, {}

    def note(name, module, remark=""):
        many, one = processor_milliseconds(module, X_test)
        with torch.inference_mode():
            outputs = module(torch.from_numpy(X_test)).numpy()
        error, right = relative_error(outputs, truth), float(np.mean(outputs.argmax(1) == y_test))
        found.update({f"{name}, many": many, f"{name}, one": one})
        remarks[name] = f"{many:.2f} ms, row {one:.3f} ms, error {error:.5f}, accuracy {right:.3f}{remark}"

    note("dense", net.module_.eval(), f", pickled {len(pickle.dumps(net.module_)) / 1e3:.0f} kB")
    for name, params in ways.items():
        start = time.process_time()
        model = compensator(net, modules=None, **params).fit(X[:300])
        seconds, module = time.process_time() - start, model.network()
        size = f"pickled {len(pickle.dumps(module)) / 1e3:.0f} kB, {model.compression_:.1%} of the bytes"
        note(name, module, f", {size}, fit {seconds:.2f} s")
    if kind != "convolutions":
        note("torch, 8 bit", torch_int8(net))
    return {**found, "remarks": remarks}


def latencies(bench):
    """compensation, latency: milliseconds of 1,000 rows of digits and of a single row, CPU, one thread.

    The networks are those of "low rank, latency"; times are those of the processor. Compressed weights are made dense
    in each call, merged ones once. Peer: torch's dynamic quantisation of linear layers to 8 bits, which multiplies
    integers.
    """
    ways = {
        "2 bit, rank 16": {"bits": 2},
        "3 bit, rank 16": {"bits": 3},
        "half the weights, rank 16": {"compression": "prune"},
        "2 bit, rank 16, merged": {"bits": 2, "merge": True},
    }
    for kind in BUILDS:
        row = bench.measure(kind, latency, kind, ways)
        for name, remark in row.get("remarks", {}).items():
            bench.note(f"{kind}, {name}", remark)
        slower = (
            f"{name} {row[f'{name}, many'] / row['dense, many']:.2f} and {row[f'{name}, one'] / row['dense, one']:.1f}"
            for name in ways
        )
        bench.note(f"{kind}: times the dense network's, 1,000 rows and one row", "; ".join(slower))
        merged = row["2 bit, rank 16, merged, many"] / row["dense, many"]
        bench.claim(f"{kind}: time of merged layers over the dense network's", merged, at_most=1.3)


CASES = [methods, ranks, tasks, bits_or_ranks, latencies]
