"""Debian's stock cloud kernel from power-on to a shell and power-off, executed by /dev/kvm. Where that is fast this takes seconds; where it
emulates, a quarter of an hour, so it runs only with LODGE_LONG=1. It prints how long it took, and how much of it was the interpreter's help."""
import json, socket, threading, time
from guest import *

if not os.access('/dev/kvm', os.R_OK | os.W_OK):
    skip('no usable /dev/kvm')
if not os.environ.get('LODGE_LONG'):
    skip('takes up to an hour where /dev/kvm emulates: LODGE_LONG=1 runs it')


def engine_info(path, lines):
    """The last answer to `info engine` before the guest ended."""
    while not os.path.exists(path):
        time.sleep(0.1)
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    f = s.makefile('rw')
    f.readline()
    for c in [{'execute': 'qmp_capabilities'}] + [{'execute': 'human-monitor-command', 'arguments': {'command-line': 'info engine'}}] * 5000:
        f.write(json.dumps(c) + '\n')
        f.flush()
        answer = f.readline()
        while answer and 'return' not in answer:
            answer = f.readline()
        if not answer:
            return
        lines[:] = [json.loads(answer)['return']]
        time.sleep(1)


with tempfile.TemporaryDirectory() as tmp:
    info = []
    threading.Thread(target=engine_info, args=(tmp + '/monitor', info), daemon=True).start()
    start = time.monotonic()
    r = boot('uname -r; cat /proc/uptime; exit 7', ['--engine', 'kvm', '--machine', 'micro', '--memory', '256M', '--net', 'none',
             '--monitor', 'unix=' + tmp + '/monitor'], 'nowatchdog mitigations=off cryptomgr.notests', timeout=3600)
    print('%.0f seconds from lodge run to power-off' % (time.monotonic() - start))
    print(*info)
    expect(r.output is not None, 'the guest reached its shell', r)
    expect('cloud-amd64' in r.output and r.exec_status == 7 and r.status == 0, 'it ran the commands and powered off', r)
