"""Disks on I/O threads under two vCPUs that write, flush and read in parallel: what each job reads back is what it wrote, and the host
finds it in the files."""
import hashlib
from guest import *

JOBS, SIZE = 2, 3 << 20
# Job n writes its own part of both disks in blocks of its own size, from a stream that the host can make as well.
script = r'''
job() { yes "$1-$2" | head -c %d >/tmp/$1$2; dd if=/tmp/$1$2 of=/dev/$1 bs=$3 seek=$4 conv=fsync,notrunc 2>/dev/null
dd if=/tmp/$1$2 of=/dev/$1 bs=$3 seek=$4 oflag=direct conv=fsync,notrunc 2>/dev/null; }
for d in vda vdb; do job $d 0 4096 0 & job $d 1 65536 64 & done; wait
echo 3 >/proc/sys/vm/drop_caches
for d in vda vdb; do for j in 0 1; do md5sum </tmp/$d$j; dd if=/dev/$d bs=4M skip=$j count=1 2>/dev/null | head -c %d | md5sum; done; done
''' % (SIZE, SIZE)

with tempfile.TemporaryDirectory() as tmp:
    disks = [tmp + '/a', tmp + '/b']
    for path in disks:
        with open(path, 'wb') as f:
            f.truncate(12 << 20)
    r = boot(script, ['--disk', 'path=%s,iothread=1' % disks[0], '--disk', 'path=%s,iothread=2' % disks[1], '--cpus', '2',
                      '--memory', '256M', '--net', 'none'])
    lines = []
    for name, path in zip(('vda', 'vdb'), disks):
        with open(path, 'rb') as f:
            got = f.read()
        for j in range(JOBS):
            word = ('%s-%d\n' % (name, j)).encode()
            want = (word * (SIZE // len(word) + 1))[:SIZE]
            lines += [hashlib.md5(want).hexdigest() + '  -\n'] * 2
            expect(got[j * (4 << 20):][:SIZE] == want, 'the host finds what job %d wrote to %s' % (j, name), r)
        expect(not any(got[SIZE:4 << 20]) and not any(got[(4 << 20) + SIZE:]), 'and nothing else', r)
    expect_output(r, '^' + ''.join(lines))
