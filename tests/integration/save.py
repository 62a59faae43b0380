"""A running Debian kernel is saved by the monitor and goes on in another process: its shell's count, a file that it was writing, its
clock. A damaged file is refused. Usage: save.py MACHINE"""
import json, shutil, socket, sys, time
from guest import *

machine = sys.argv[1]


def monitor(path):
    for _ in range(400):
        try:
            s = socket.socket(socket.AF_UNIX)
            s.connect(path)
            break
        except OSError:
            time.sleep(0.05)
    f = s.makefile('rw')
    f.readline()

    def call(command, **arguments):
        f.write(json.dumps({'execute': command, 'arguments': arguments}) + '\n')
        f.flush()
        while True:
            line = f.readline()
            expect(line, '%s is answered' % command)
            m = json.loads(line)
            if 'event' not in m:
                expect('return' in m, '%s: %s' % (command, m))
                return m['return']
    call('qmp_capabilities')
    return call


def counts(log):
    with open(log, errors='replace') as f:
        return [int(n) for n in re.findall(r'^count (\d+)\r?$', f.read(), re.M)]


def wait_for_count(p, log, n):
    for _ in range(3000):
        c = counts(log)
        if c and c[-1] >= n:
            return
        if p.poll() is not None:
            break
        time.sleep(0.1)
    with open(log, errors='replace') as f:
        expect(False, 'the guest counts to %d: status %s, %s' % (n, p.poll(), f.read()[-2000:]))


with tempfile.TemporaryDirectory() as tmp:
    disk, log, mon, saved, xml = [tmp + '/' + n for n in ('disk', 'console', 'monitor', 'saved', 'domain.xml')]
    with open(disk, 'wb') as f:
        f.truncate(16 << 20)
    with open(log, 'w'):
        pass
    # Counts, and writes each number to the disk and reads it back.
    words = ('i=0; while true; do i=$((i + 1)); echo number $i | dd of=/dev/vda bs=4k conv=fsync,sync seek=$((i % 100)) 2>/dev/null; '
             'echo 3 >/proc/sys/vm/drop_caches; '
             '[ "$(dd if=/dev/vda bs=4k skip=$((i % 100)) count=1 2>/dev/null | head -n 1)" = "number $i" ] || break; '
             'echo count $i; sleep 0.05; done; echo the disk lost $i')
    cmd = command(words, ['--machine', machine, '--engine', 'soft', '--memory', '128M', '--cpus', '2', '--net', 'none',
                          '--disk', 'path=%s,format=raw' % disk, '--serial', 'file=' + log])
    r = subprocess.run(cmd + ['--print-xml'], stdout=subprocess.PIPE, timeout=30)
    expect(r.returncode == 0, '--print-xml')
    with open(xml, 'wb') as f:
        # The second process goes on with the same file.
        f.write(r.stdout.replace(b"<source path='%s'/>" % log.encode(), b"<source path='%s' append='on'/>" % log.encode()))
    lodge_vm = os.path.join(os.path.dirname(LODGE), 'lodge-vm')

    def start(*args):
        return subprocess.Popen([lodge_vm, '--domain', xml, '--monitor', 'unix=' + mon] + list(args), stdin=subprocess.DEVNULL,
                                stderr=subprocess.PIPE)
    p = start()
    try:
        wait_for_count(p, log, 30)
        call = monitor(mon)
        call('migrate', uri='file:' + saved)
        expect(call('query-migrate')['status'] == 'completed', 'query-migrate')
        expect(call('query-status')['status'] != 'running', 'the guest stands')
        at = counts(log)[-1]
        call('quit')
        p.wait(30)
        size = os.path.getsize(saved)
        expect((1 << 20) < size < (160 << 20), 'the file holds what the guest has used (%d bytes)' % size)

        with open(saved, 'rb') as f:
            data = f.read()
        for damaged in (data[:len(data) // 2], data[:-100], b'LODGEVM\n' + b'\xff' * 100, b''):
            with open(tmp + '/damaged', 'wb') as f:
                f.write(damaged)
            p = start('--incoming', 'file:' + tmp + '/damaged')
            err = p.communicate(timeout=60)[1].decode()
            expect(p.returncode == 1 and 'damaged: ' in err and err.count('\n') == 1, 'a damaged file is refused: %d, %s' % (p.returncode, err))

        p = start('--incoming', 'file:' + saved)
        wait_for_count(p, log, at + 30)
        call = monitor(mon)
        call('stop')
        call('cont')
        call('system_reset')
        call('quit')
        p.wait(30)
        seen = counts(log)
        expect(seen == list(range(1, len(seen) + 1)), 'the count goes on: %s' % seen)
    finally:
        p.kill()
        p.wait()
