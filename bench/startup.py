#!/usr/bin/env python3
"""Start-up beside QEMU, in one run: exec to the first guest instruction (a byte on COM1), memory beyond guest RAM, exec to init.

usage: bench/startup.py [--lodge PROGRAM] [--runs N] [--boot-runs N] [--kernel F --initrd F]
The kernel and initramfs (tools/guest kernel, tools/guest initramfs) are for the boot; without them only the first two are measured.
Medians; the ratio is QEMU / Lodge, so higher is better for Lodge.
"""
import argparse, os, re, select, statistics, subprocess, sys, tempfile, time

ap = argparse.ArgumentParser()
ap.add_argument('--lodge', default='build/src/main/lodge')
ap.add_argument('--runs', type=int, default=11)
ap.add_argument('--boot-runs', type=int, default=5)
ap.add_argument('--kernel')
ap.add_argument('--initrd')
args = ap.parse_args()
here = os.path.dirname(os.path.abspath(__file__))
tmp = tempfile.TemporaryDirectory()
hello = tmp.name + '/hello'
subprocess.run(['gcc', '-m32', '-nostdlib', '-static', '-Wl,-Ttext=0x101000,--build-id=none', '-o', hello, here + '/hello.S'],
               check=True)
QEMU = ['qemu-system-x86_64', '-nodefaults', '-display', 'none', '-accel', 'tcg', '-serial', 'stdio', '-no-reboot', '-m', '128']
RAM_KIB = 128 * 1024


def first_byte(cmd, marker, timeout=120):
    """The process, and seconds from exec until `marker` was on its standard output."""
    start = time.monotonic()
    p = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0)
    seen = b''
    while marker not in seen:
        ready, _, _ = select.select([p.stdout], [], [], timeout)
        chunk = os.read(p.stdout.fileno(), 65536) if ready else b''
        if not chunk:
            p.kill()
            sys.exit('%s: no %r; got %r' % (cmd[0], marker, seen[-200:]))
        seen += chunk
    return p, time.monotonic() - start


def processes(pid):
    """The process and its children: lodge may be a parent that waits for lodge-vm."""
    found = [pid]
    for task in os.listdir('/proc/%d/task' % pid):
        with open('/proc/%d/task/%s/children' % (pid, task)) as f:
            for child in f.read().split():
                found += processes(int(child))
    return found


def private_kib(pid):
    """Private memory of all its processes that is not guest RAM."""
    total = 0
    for p in processes(pid):
        with open('/proc/%d/smaps' % p) as f:
            maps = f.read()
        for m in re.finditer(r'^[0-9a-f]+-[0-9a-f]+ .*?(?=^[0-9a-f]+-[0-9a-f]+ |\Z)', maps, re.S | re.M):
            text = m.group(0)
            size = int(re.search(r'^Size:\s+(\d+)', text, re.M).group(1))
            if size != RAM_KIB and 'lodge-ram' not in text.split('\n')[0]:
                total += sum(int(x) for x in re.findall(r'^Private_(?:Clean|Dirty):\s+(\d+)', text, re.M))
    return total


def measure(cmd, marker, runs):
    """Median milliseconds to the marker, and median MiB of memory then."""
    times, kib = [], []
    for i in range(runs + 1):
        p, t = first_byte(cmd, marker)
        kib.append(private_kib(p.pid))
        for victim in reversed(processes(p.pid)):
            os.kill(victim, 9)
        p.stdout.close()
        p.wait()
        if i:
            times.append(t * 1000)
    return statistics.median(times), statistics.median(kib) / 1024


def row(what, unit, lodge, qemu):
    print('%-44s %9.1f %9.1f %-4s ratio %.1f' % (what, lodge, qemu, unit, qemu / lodge), flush=True)


print('%-44s %9s %9s' % ('', 'Lodge', 'QEMU'))
lodge = [args.lodge, 'run', '--engine', 'soft', '--memory', '128M', '--net', 'none', '--serial', 'stdio']
q, qm = measure(QEMU + ['-machine', 'q35', '-kernel', hello], b'!', args.runs)
l, lm = measure(lodge + ['--kernel', hello], b'!', args.runs)
row('exec to first guest byte, q35 board', 'ms', l, q)
row('memory beyond guest RAM at that time', 'MiB', lm, qm)
l, lm = measure(lodge + ['--machine', 'micro', '--kernel', hello], b'!', args.runs)
row('exec to first guest byte, micro board', 'ms', l, q)
if args.kernel and args.initrd:
    words = 'console=ttyS0 quiet lodge.exec=' + 'dHJ1ZQ=='
    boot = ['-kernel', args.kernel, '-initrd', args.initrd, '-append', words]
    q, qm = measure(QEMU + ['-machine', 'q35', '-cpu', 'qemu64'] + boot, b'lodge: begin', args.boot_runs)
    for board in 'q35', 'micro':
        l, lm = measure(lodge + ['--machine', board] + ['-' + w if w in ('-kernel', '-initrd', '-append') else w for w in boot],
                        b'lodge: begin', args.boot_runs)
        row('exec to init, Debian cloud kernel, %s board' % board, 'ms', l, q)
        row('memory beyond guest RAM at that time', 'MiB', lm, qm)
