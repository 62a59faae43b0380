"""A tiny Multiboot kernel under `lodge run`, from power-on to power-off. Usage: tiny.py ENGINE KERNEL"""
import os
import subprocess
import sys

engine, kernel = sys.argv[1:3]
if engine == 'kvm' and not os.access('/dev/kvm', os.R_OK | os.W_OK):
    print('SKIP: no usable /dev/kvm')
    sys.exit(77)
r = subprocess.run([os.environ['LODGE'], 'run', '--engine', engine, '--kernel', kernel, '--append', 'a command line', '--memory', '32M',
                    '--net', 'none', '--serial', 'stdio'], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=50)
out = r.stdout.decode(errors='replace').replace('\r', '')
print(out)
if 'tiny guest: a command line\nthree ticks\n' not in out or r.returncode != 0:
    sys.exit('the guest did not print its two lines and power off (exit status %d)' % r.returncode)
