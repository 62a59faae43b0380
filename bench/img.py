#!/usr/bin/env python3
"""lodge img beside qemu-img and qemu-nbd in one run: the time of each work, median of some rounds, and the ratio.

Usage: img.py LODGE NBD-LOAD [--rounds N] [--dir DIR] [--size MIB]
"""
import argparse
import os
import random
import signal
import statistics
import subprocess
import tempfile
import time

parser = argparse.ArgumentParser()
parser.add_argument("lodge")
parser.add_argument("nbd_load")
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--dir")
parser.add_argument("--size", type=int, default=1024)
parser.add_argument("--nbd-only", action="store_true")
a = parser.parse_args()
LODGE, LOAD = os.path.abspath(a.lodge), os.path.abspath(a.nbd_load)


def timed(*args):
    """Wall and CPU seconds."""
    before, start = os.times(), time.perf_counter()
    subprocess.run(args, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, os.times()
    return wall, after.children_user + after.children_system - before.children_user - before.children_system


def remove(*names):
    for n in names:
        if os.path.exists(n):
            os.unlink(n)


def pair(what, ours, theirs, prepare=lambda: None):
    """Alternates, so that both see the same machine."""
    w, v = [], []
    for _ in range(a.rounds):
        prepare()
        w.append(timed(*ours))
        prepare()
        v.append(timed(*theirs))
    o, t = statistics.median(x[0] for x in w), statistics.median(x[0] for x in v)
    oc, tc = statistics.median(x[1] for x in w), statistics.median(x[1] for x in v)
    print(f"{what:44s} ours {o * 1e3:9.1f} ms ({oc * 1e3:8.1f} CPU)  peer {t * 1e3:9.1f} ms ({tc * 1e3:8.1f} CPU)  "
          f"ratio {o / t:.2f} ({oc / max(tc, 1e-3):.2f})", flush=True)


def nbd(what, rw, clients, depth):
    results = [[], []]
    for _ in range(a.rounds):
        for i, server in enumerate((["img", "serve", "-k", os.path.abspath("s0"), "-t", "-f", "raw", "n0"],
                                    ["-k", os.path.abspath("s1"), "-t", "-f", "raw", "-e", "16", "n1"])):
            remove(f"s{i}")
            p = subprocess.Popen([LODGE if i == 0 else "qemu-nbd", *server], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while not os.path.exists(f"s{i}"):
                time.sleep(0.01)
            time.sleep(0.05)
            results[i].append(float(subprocess.run([LOAD, f"s{i}", rw, str(clients), str(depth), "1"], check=True,
                                                   capture_output=True, text=True).stdout))
            p.send_signal(signal.SIGTERM)
            p.wait()
    o, t = (statistics.median(r) for r in results)
    print(f"{what:44s} ours {o / 1e3:9.1f} k IOPS  peer {t / 1e3:9.1f} k IOPS  ratio {o / t:.2f}", flush=True)


def files():
    img = [LODGE, "img"]
    pair("/bin/true, for comparison", ["/bin/true"], ["/bin/true"])
    pair("create qcow2 20G", [*img, "create", "-q", "-f", "qcow2", "x", "20G"], ["qemu-img", "create", "-q", "-f", "qcow2", "x", "20G"],
         lambda: remove("x"))
    pair("info qcow2 20G", [*img, "info", "x"], ["qemu-img", "info", "x"])
    pair("resize qcow2 +1G", [*img, "resize", "-q", "x", "+1G"], ["qemu-img", "resize", "-q", "x", "+1G"])
    with open("half", "wb") as f:
        f.truncate(a.size << 20)
        for i in range(0, a.size, 2):
            f.seek(i << 20)
            f.write(os.urandom(1 << 20))
    pair("half-zero raw: cp, for comparison", ["cp", "half", "o"], ["cp", "half", "o"], lambda: remove("o"))
    for fmt in "qcow2", "raw":
        pair(f"convert half-zero raw -> {fmt}", [*img, "convert", "-O", fmt, "half", "o"],
             ["qemu-img", "convert", "-O", fmt, "half", "o"], lambda: remove("o"))
    subprocess.run([*img, "convert", "-O", "qcow2", "half", "half.qcow2"], check=True)
    pair("convert qcow2 -> raw", [*img, "convert", "-O", "raw", "half.qcow2", "o"],
         ["qemu-img", "convert", "-O", "raw", "half.qcow2", "o"], lambda: remove("o"))
    pair("compare qcow2 with raw", [*img, "compare", "-q", "half.qcow2", "half"], ["qemu-img", "compare", "-q", "half.qcow2", "half"])
    pair("check", [*img, "check", "-q", "half.qcow2"], ["qemu-img", "check", "-q", "half.qcow2"])
    for what, options in ("snapshot -c", ["-c", "s"]), ("snapshot -a", ["-a", "s"]):
        def fresh(copy=options[0] == "-a"):
            remove("snap.qcow2")
            subprocess.run(["cp", "half.qcow2", "snap.qcow2"], check=True)
            if copy:
                subprocess.run(["qemu-img", "snapshot", "-c", "s", "snap.qcow2"], check=True)
            subprocess.run(["sync", "snap.qcow2"], check=True)
        pair(what, [*img, "snapshot", *options, "snap.qcow2"], ["qemu-img", "snapshot", *options, "snap.qcow2"], fresh)
    rng = random.Random(1)
    words = [bytes(rng.randrange(97, 123) for _ in range(rng.randrange(2, 10))) for _ in range(5000)]
    with open("mixed", "wb") as f:
        f.write(os.urandom(a.size // 8 << 20))
        while f.tell() < a.size // 4 << 20:
            f.write(b" ".join(rng.choices(words, k=20000)))
        f.truncate(a.size // 4 << 20)
    for kind in "zlib", "zstd":
        pair(f"convert -c {kind}, half noise, half text", [*img, "convert", "-c", "-O", "qcow2", "-o", f"compression_type={kind}", "mixed", "o"],
             ["qemu-img", "convert", "-c", "-O", "qcow2", "-o", f"compression_type={kind}", "mixed", "o"], lambda: remove("o"))


with tempfile.TemporaryDirectory(dir=a.dir) as folder:
    os.chdir(folder)
    load = os.getloadavg()[0]
    print(f"load average {load:.1f}" + (": a busy machine" if load > 0.5 else ""))
    if not a.nbd_only:
        files()
    for n in "n0", "n1":
        with open(n, "wb") as f:
            for _ in range(64):
                f.write(os.urandom(1 << 20))
    for clients, depth in (1, 1), (1, 32), (4, 32):
        nbd(f"NBD 4k random read, {clients} x {depth}", "read", clients, depth)
    nbd("NBD 4k random write, 1 x 32", "write", 1, 32)
