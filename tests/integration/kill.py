"""Disks under load, then a VM that dies: two vCPUs copy in parallel between disks of all kinds (read-only and direct, on an I/O
thread, on the main loop); what the guest had flushed is in the files after lodge-vm was killed in the middle of writing."""
import hashlib, signal, time
from guest import *


def vm_of(parent):
    """The lodge-vm below process `parent` (or that process, when it became it)."""
    try:
        with open('/proc/%d/task/%d/children' % (parent, parent)) as f:
            children = f.read().split()
    except OSError:
        children = []
    return int(children[0]) if children else parent


with tempfile.TemporaryDirectory() as tmp:
    source, fast, plain, log = (tmp + '/' + n for n in ('source.img', 'fast.img', 'plain.img', 'console'))
    data = os.urandom(12 << 20)
    with open(source, 'wb') as f:
        f.write(data)
    for path in fast, plain:
        with open(path, 'wb') as f:
            f.truncate(16 << 20)
    copy = 'dd if=/dev/vda of=/dev/%s bs=%s skip=%d seek=%d count=%d %s 2>/dev/null &'
    script = ''.join([copy % ('vdb', '256k', 0, 0, 24, 'oflag=direct'), copy % ('vdb', '64k', 96, 96, 96, ''),
                      copy % ('vdc', '4k', 0, 0, 512, 'iflag=direct oflag=direct'), copy % ('vdc', '512k', 4, 4, 20, ''),
                      'wait; sync; echo FLUSHED; while true; do dd if=/dev/urandom of=/dev/vdb bs=64k seek=200 count=50 2>/dev/null;'
                      'dd if=/dev/urandom of=/dev/vdc bs=64k seek=200 count=50 conv=fsync 2>/dev/null; done'])
    p = subprocess.Popen(command(script, ['--disk', 'path=%s,readonly=on,cache=none' % source, '--disk', 'path=%s,iothread=1' % fast,
                                          '--disk', 'path=%s' % plain, '--net', 'none', '--cpus', '2', '--memory', '256M',
                                          '--engine', 'soft', '--serial', 'file=' + log]),
                         stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        console = ''
        for i in range(2200):
            if p.poll() is not None or 'FLUSHED' in console:
                break
            time.sleep(0.1)
            if os.path.exists(log):
                with open(log, errors='replace') as f:
                    console = f.read()
        expect('FLUSHED' in console, 'the guest copied and flushed: ' + console[-2000:])
        time.sleep(0.5)
        os.kill(vm_of(p.pid), signal.SIGKILL)
        p.wait(timeout=30)
        expect(p.returncode != 0, 'lodge run says that it did not end well')
    finally:
        if p.poll() is None:
            p.kill()
            p.wait()
    for path in fast, plain:
        with open(path, 'rb') as f:
            got = f.read(len(data))
        expect(hashlib.sha256(got).digest() == hashlib.sha256(data).digest(), '%s has what was flushed' % path)
    with open(source, 'rb') as f:
        expect(f.read() == data, 'the read-only disk is unchanged')
