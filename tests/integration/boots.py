"""Debian with systemd, started and shut down again and again: 1, 2 and 4 vCPUs in turn. Every boot must run its command and power off.

usage: boots.py [--count N] [--engine ENGINE] [--cpus 1,2,4] [--arg WORD]...
$LODGE_BOOTS is the count when none is given, 3 without it: one boot of each kind.
"""
import argparse, time
from guest import *

ap = argparse.ArgumentParser()
ap.add_argument('--count', type=int, default=int(os.environ.get('LODGE_BOOTS', '3')))
ap.add_argument('--engine', default='soft')
ap.add_argument('--cpus', default='1,2,4')
ap.add_argument('--arg', action='append', default=[])
args = ap.parse_args()
kinds = [int(n) for n in args.cpus.split(',')]
rootfs = artifact('ROOTFS')
took = {n: [] for n in kinds}
with tempfile.TemporaryDirectory() as tmp:
    disk = tmp + '/disk.ext4'
    for k in range(args.count):
        cpus = kinds[k % len(kinds)]
        subprocess.run(['cp', '--sparse=always', rootfs, disk], check=True)
        start = time.monotonic()
        r = boot('nproc; systemctl --failed --no-legend; echo end',
                 ['--engine', args.engine, '--cpus', str(cpus), '--memory', '1G', '--net', 'none', '--disk',
                  'path=%s,format=raw' % disk] + args.arg, 'root=/dev/vda', timeout=600)
        took[cpus].append(time.monotonic() - start)
        expect(r.output is not None, 'boot %d (%d vCPUs) ran its command' % (k + 1, cpus), r)
        expect(r.output.split()[:1] == [str(cpus)], 'boot %d: the guest has %d CPUs' % (k + 1, cpus), r)
        expect(not re.search(r'BUG|Oops|soft lockup|rcu_\w+ (detected|self-detected)|Call Trace|general protection|segfault at', r.console),
               'boot %d (%d vCPUs): the kernel complains' % (k + 1, cpus), r)
        expect(r.status == 0, 'boot %d (%d vCPUs) powered off' % (k + 1, cpus), r)
for cpus, t in took.items():
    if t:
        print('%d vCPUs: %d boots, %.1f to %.1f s' % (cpus, len(t), min(t), max(t)))
