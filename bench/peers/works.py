"""What the peers of bench/training.mjs share: sizes and batches as bench/works.mjs has them (it passes the work as JSON), and the talk with the bench."""

import json
import os
import sys
import time

import numpy as np

from common import resident

work, dtype, threads, folder = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
kind, batch, context, vocab = work["kind"], work["batch"], work.get("context"), work.get("vocab")
BATCHES = work["batches"]


def since_start():
    """Seconds since the process began."""
    begun = int(open("/proc/self/stat").read().rsplit(") ", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
    return float(open("/proc/uptime").read().split()[0]) - begun


def mixed(i):
    x = np.asarray(i, dtype=np.uint32) * np.uint32(0x9E3779B1)
    x ^= x >> np.uint32(15)
    x = x * np.uint32(0x85EBCA77)
    return (x ^ (x >> np.uint32(13))) >> np.uint32(16)


def tokens(seed, rows, length):
    kinds = min(vocab, 997)
    n = rows * length
    draws = mixed(seed + np.arange(2 * n)).astype(np.int64).reshape(n, 2)
    out = np.zeros(n, np.int32)
    for i in range(n):
        out[i] = draws[i, 1] % kinds if i % length == 0 or draws[i, 0] % 4 == 0 else (out[i - 1] * 31 + 7) % kinds
    return out.reshape(rows, length)


def batch_of(n):
    seed = 10_000_019 * (n + 1)
    if kind in ("gpt", "llama"):
        rows = tokens(seed, batch, context + 1)
        return rows[:, :-1].copy(), rows[:, 1:].copy()
    if kind == "bert":
        rows = tokens(seed, batch, context)
        return rows, rows[:, 0] % 2
    shape = (batch, 3, 32, 32) if kind == "cnn" else (batch, work["widths"][0])
    x = (mixed(seed + np.arange(int(np.prod(shape)))).astype(np.float32) / 32768 - 1).reshape(shape)
    flat = x.reshape(batch, -1).astype(np.float64)
    return x, np.floor(2.5 * (flat[:, 0] + flat[:, 1] + 2)).astype(np.int32)


def serve(version, before, make):
    """Makes the step with `make()`, does one, and then as many as each line says; a step gives its loss, `finish` waits for what is under way."""
    step = make()
    start = since_start()
    losses = [float(step())]
    print("ready " + json.dumps(dict(version=version, start=start, first=since_start(), losses=losses)), flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        losses = [float(step()) for _ in range(int(line))]
        seconds = time.perf_counter() - began
        print(json.dumps(dict(seconds=seconds, losses=losses, peak=resident("VmHWM") - before)), flush=True)
