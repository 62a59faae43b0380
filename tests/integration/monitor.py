"""The monitor over a running Debian: queries, stop and cont, the balloon, and a shutdown by the power button."""
import json, shutil, socket, time
from guest import *


class Monitor:
    def __init__(self, path):
        for _ in range(200):
            try:
                self.s = socket.socket(socket.AF_UNIX)
                self.s.connect(path)
                break
            except OSError:
                time.sleep(0.05)
        self.f = self.s.makefile('rw')
        self.events = []
        expect('QMP' in json.loads(self.f.readline()), 'the monitor greets')
        self.call('qmp_capabilities')

    def read(self):
        line = self.f.readline()
        return json.loads(line) if line else None

    def call(self, command, **arguments):
        self.f.write(json.dumps({'execute': command, 'arguments': arguments}) + '\n')
        self.f.flush()
        while True:
            m = self.read()
            expect(m is not None, '%s is answered' % command)
            if 'event' in m:
                self.events.append(m['event'])
                continue
            expect('return' in m, '%s: %s' % (command, m))
            return m['return']


def wait_for(log, word, seconds):
    for _ in range(seconds * 10):
        with open(log, errors='replace') as f:
            if word in f.read():
                return
        time.sleep(0.1)
    with open(log, errors='replace') as f:
        expect(False, 'the console shows %r: %s' % (word, f.read()[-3000:]))


with tempfile.TemporaryDirectory() as tmp:
    disk, log, path = tmp + '/disk.ext4', tmp + '/console', tmp + '/monitor'
    shutil.copy(artifact('ROOTFS'), disk)
    p = subprocess.Popen(command(None, ['--disk', 'path=%s,format=raw' % disk, '--net', 'none', '--memory', '512M', '--cpus', '2',
                                        '--serial', 'file=' + log, '--monitor', 'unix=' + path], 'root=/dev/vda'),
                         stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        m = Monitor(path)
        wait_for(log, 'root@lodge', 400)
        expect(m.call('query-status')['status'] == 'running', 'the guest runs')
        expect(len(m.call('query-cpus-fast')) == 2, 'two vCPUs')
        expect(m.call('query-block')[0]['inserted']['file'] == disk, 'the disk is listed')
        m.call('stop')
        expect(m.call('query-status')['status'] == 'paused', 'stop pauses')
        expect('RIP=' in m.call('human-monitor-command', **{'command-line': 'info registers'}), 'registers are shown')
        m.call('cont')
        m.call('balloon', value=300 << 20)
        for _ in range(300):
            if m.call('query-balloon')['actual'] == 300 << 20:
                break
            time.sleep(0.1)
        expect(m.call('query-balloon')['actual'] == 300 << 20, 'the guest gives memory back')
        m.call('system_powerdown')
        expect(p.wait(timeout=300) == 0, 'the power button shuts Debian down')
        while True:
            e = m.read()
            if e is None:
                break
            m.events.append(e['event'])
        for e in ('STOP', 'RESUME', 'POWERDOWN', 'SHUTDOWN'):
            expect(e in m.events, 'event %s: %s' % (e, m.events))
    finally:
        p.kill()
        p.wait()
