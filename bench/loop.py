#!/usr/bin/env python3
"""Guest instructions a second on an integer loop (400 million instructions with a load and a store in eight), beside QEMU's TCG.

usage: bench/loop.py [--lodge PROGRAM] [--runs N]
Medians of millions of instructions a second, in one run; the ratio is Lodge / QEMU.
"""
import argparse, os, statistics, subprocess, sys, tempfile, time

ap = argparse.ArgumentParser()
ap.add_argument('--lodge', default='build/src/main/lodge')
ap.add_argument('--runs', type=int, default=5)
args = ap.parse_args()
here = os.path.dirname(os.path.abspath(__file__))
tmp = tempfile.TemporaryDirectory()
kernel = tmp.name + '/loop'
subprocess.run(['gcc', '-m32', '-nostdlib', '-static', '-Wl,-Ttext=0x110000,--build-id=none', '-o', kernel, here + '/loop.S'],
               check=True)


def seconds(cmd):
    """From '<' to '>' on standard output."""
    p = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0)
    start = None
    while True:
        c = p.stdout.read(1)
        if not c:
            sys.exit('%s ended early' % cmd[0])
        if c == b'<':
            start = time.monotonic()
        if c == b'>':
            took = time.monotonic() - start
            p.terminate()
            p.wait()
            return took


commands = {
    'Lodge soft': [args.lodge, 'run', '--engine', 'soft', '--memory', '64M', '--net', 'none', '--serial', 'stdio', '--kernel', kernel],
    'QEMU TCG': ['qemu-system-x86_64', '-nodefaults', '-display', 'none', '-accel', 'tcg', '-serial', 'stdio', '-m', '64',
                 '-kernel', kernel],
}
times = {name: [] for name in commands}
for i in range(args.runs):
    for name, cmd in commands.items():
        times[name].append(seconds(cmd))
mips = {name: 400 / statistics.median(t) for name, t in times.items()}
for name, value in mips.items():
    print('%-12s %7.0f million instructions a second' % (name, value))
print('ratio %.2f' % (mips['Lodge soft'] / mips['QEMU TCG']))
