"""virtio-blk under a real kernel: what was written is there, read-only is read-only, a disk in use is refused."""
from guest import *

with tempfile.TemporaryDirectory() as tmp:
    disk, ro = tmp + '/disk.img', tmp + '/ro.img'
    with open(disk, 'wb') as f:
        f.truncate(16 << 20)
    with open(ro, 'wb') as f:
        f.write(b'lodge' * 200000)
        f.truncate(1 << 20)
    with open(ro, 'rb') as f:
        before = f.read()
    r = boot('head -c 3000000 /dev/zero | tr "\\0" x >/tmp/x; dd if=/tmp/x of=/dev/vda bs=4096 seek=100 conv=fsync 2>/dev/null;'
             'dd if=/dev/vda bs=4096 skip=100 count=733 2>/dev/null | head -c 3000000 | md5sum; md5sum </tmp/x; cat /sys/block/vda/serial; echo;'
             'head -c 10 /dev/vdb; echo; cat /sys/block/vdb/ro; (echo y >/dev/vdb) 2>&1; echo; cat /sys/block/vda/size',
             ['--disk', 'path=%s,format=raw,serial=SN42' % disk, '--disk', 'path=%s,format=raw,readonly=on' % ro,
              '--net', 'none', '--memory', '256M'])
    expect_output(r, r'SN42', r'lodgelodge\n1\n', r'32768')
    sums = re.findall(r'^([0-9a-f]{32})', r.output, re.M)
    expect(len(sums) == 2 and sums[0] == sums[1], 'what was written is read back', r)
    with open(disk, 'rb') as f:
        f.seek(409600)
        expect(f.read(3000000) == b'x' * 3000000, 'the host finds it in the file', r)
    with open(ro, 'rb') as f:
        expect(f.read() == before, 'a read-only disk is unchanged', r)

    # In use by another process.
    p = subprocess.Popen(command('sleep 1000', ['--disk', 'path=%s,format=raw' % disk, '--net', 'none', '--serial', 'file=/dev/null']),
                         stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        import time
        time.sleep(1)
        q = subprocess.run(command('true', ['--disk', 'path=%s,format=raw' % disk, '--net', 'none', '--serial', 'file=/dev/null']),
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
        message = q.stderr.decode()
        expect(q.returncode == 1 and disk in message and 'in use' in message, 'a disk in use is refused: %r' % message)
    finally:
        p.kill()
        p.wait()
