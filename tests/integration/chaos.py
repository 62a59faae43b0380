"""Interpreter and translator meet: with changes between them at random the guest boots and computes what it computes without.

usage: chaos.py [SEED...]     (default: one seed that differs from run to run, and is printed)
"""
import random
from guest import *

seeds = [int(s) for s in sys.argv[1:]] or [random.randrange(1, 1 << 40)]
work = ('seq 1 20000 | sort | sha256sum; seq 1 3000 | awk \'{ s += sqrt($1) * sin($1) } END { print s }\'; '
        'dd if=/dev/zero bs=64k count=16 2>/dev/null | md5sum; for i in 1 2 3 4 5 6 7 8; do echo $i | sed s/./x$i/; done; '
        '(sleep 1; echo slept) & wait; nproc')
for cpus in '1', '2':
    args = ['--engine', 'soft', '--cpus', cpus, '--memory', '256M', '--net', 'none']
    plain = boot(work, args)
    expect_output(plain, 'slept')
    for seed in seeds:
        print('seed', seed, flush=True)
        r = boot(work, args + ['--engine-chaos', str(seed)])
        expect_output(r, 'slept')
        expect(r.output == plain.output, 'the same output with --engine-chaos %d' % seed, r)
