"""A stock Debian kernel, from power-on to a shell. Usage: boot.py ENGINE CPUS MEMORY [MACHINE [generic]]"""
import sys
from guest import *

engine, cpus, memory = sys.argv[1:4]
machine = sys.argv[4] if len(sys.argv) > 4 else 'q35'
generic = '_GENERIC' if sys.argv[5:] == ['generic'] else ''
if engine == 'kvm' and not os.access('/dev/kvm', os.R_OK | os.W_OK):
    skip('no usable /dev/kvm')
append = 'console=ttyS0'
r = boot('grep -c ^processor /proc/cpuinfo; free -m | grep Mem; uname -r; echo interrupts; grep -c LOC /proc/interrupts',
         ['--engine', engine, '--cpus', cpus, '--memory', memory, '--machine', machine, '--net', 'none'], append,
         timeout=1500 if engine == 'kvm' else 280, kernel=generic)
expect_output(r, r'^%s\n' % cpus, r'Mem:', r'^6\.\S*\d-amd64\n' if generic else r'cloud-amd64')
total = int(re.search(r'Mem:\s+(\d+)', r.output).group(1))
want = int(memory[:-1]) * {'M': 1, 'G': 1024}[memory[-1]]
expect(want * 0.6 < total <= want, 'the guest sees its memory (%d of %d MiB)' % (total, want), r)
