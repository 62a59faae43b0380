"""Debian's gdb debugs a little 64-bit kernel on two vCPUs under `lodge run --gdb`, from its start to its power-off.
Usage: gdb.py ENGINE KERNEL"""
import os, re, shutil, subprocess, sys, tempfile

engine, kernel = sys.argv[1:3]
if not shutil.which('gdb'):
    print('SKIP: gdb is not installed')
    sys.exit(77)
if engine == 'kvm' and not os.access('/dev/kvm', os.R_OK | os.W_OK):
    print('SKIP: no usable /dev/kvm')
    sys.exit(77)

TIMEOUT = 60  # seconds, for a machine that hangs
HIGH = 0xffffffff80000000
MAIN, WORK, STORE, COUNT, STOP = [HIGH + a for a in (0x100600, 0x100700, 0x100710, 0x100800, 0x100808)]

# One command and what gdb must print before the next one.
SCRIPT = [
    ('target remote %(socket)s', None),
    ('hbreak *%d' % WORK, 'Hardware assisted breakpoint'),
    ('continue', r'Breakpoint 1, 0x%x in' % WORK),
    ('info threads', r'(?s)Thread 1 .*Thread 2 '),
    ('print/x $rip', '0x%x' % WORK),
    ('print/x $cs', '= 0x8'),
    ('print/x $cr0 & 0x80000001', '= 0x80000001'),
    ('print/x $efer & 0x500', '= 0x500'),
    ('stepi', r'0x%x' % (WORK + 7)),
    ('stepi', r'0x%x' % (WORK + 11)),
    ('set $rax = 0x4711', None),
    ('thbreak *%d' % (STORE + 7), 'Hardware assisted breakpoint'),
    ('continue', 'Temporary breakpoint .*0x%x' % (STORE + 7)),
    ('print/x $xmm1.v2_int64[0]', '= 0x4711'),
    ('x/gx %d' % COUNT, '0x0*4711'),
    ('x/gx 0x100800', '0x0*4711'),
    ('set $xmm3.v2_int64[1] = 0x99', None),
    ('print/x $xmm3.v2_int64[1]', '= 0x99'),
    ('stepi', '0x%x' % (MAIN + 5)),
    ('set {long}%d = 0x1000' % COUNT, None),
    ('delete', None),
    ('break *%d' % STORE, r'Breakpoint \d'),
    ('continue', r'Breakpoint \d, 0x%x' % STORE),
    ('print/x $rax', '= 0x1001'),
    ('continue', r'Breakpoint \d, 0x%x' % STORE),
    ('print/x $rax', '= 0x1002'),
    ('delete', None),
    ('watch *(long *)%d' % COUNT, 'ardware watchpoint'),
    ('continue', r'(?s)ardware watchpoint .*Old value = 4097\nNew value = 4098'),
    ('print/x $rip', '0x%x' % (STORE + 7)),
    ('continue', 'New value = 4099'),
    ('delete', None),
    ('rwatch *(long *)%d' % COUNT, 'ardware read watchpoint'),
    ('continue', r'(?s)ardware (read|access.*) watchpoint .*0x%x' % (WORK + 7)),
    ('delete', None),
    ('thread 2', 'Switching to thread 2'),
    ('x/hx 0x9000', '0x9000'),
    ('print/x $rip < 0x8100', '= 0x1'),
    ('thread 1', 'Switching to thread 1'),
    # Ctrl-C: gdb sends itself SIGINT a second after it has let the guest go.
    ('python import os, threading; threading.Timer(1, lambda: os.kill(os.getpid(), 2)).start()', None),
    ('continue', 'received signal SIGINT'),
    ('print *(long *)%d > 0x1002' % COUNT, '= 1'),
    ('print *(short *)0x9000 != 0', '= 1'),
    ('set {char}%d = 1' % STOP, None),
    ('break *%d' % (MAIN + 14), r'Breakpoint \d'),
    ('continue', r'Breakpoint \d, 0x%x' % (MAIN + 14)),
    ('delete', None),
    ('detach', 'detached'),
]
# Nested KVM may lose data breakpoints without a word, whoever sets them, and the first step after a change of registers: only
# our own engine is held to them.
if engine == 'kvm':
    SCRIPT.remove(('stepi', '0x%x' % (MAIN + 5)))
    words = [command.split()[0] for command, _ in SCRIPT]
    del SCRIPT[words.index('watch'):words.index('thread')]


def fail(what, *texts):
    print('FAILED:', what)
    for t in texts:
        print(t)
    sys.exit(1)


with tempfile.TemporaryDirectory() as tmp:
    socket = tmp + '/gdb'
    p = subprocess.Popen([os.environ['LODGE'], 'run', '--engine', engine, '--kernel', kernel, '--memory', '32M', '--cpus', '2',
                          '--serial', 'null', '--gdb', 'unix=' + socket], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        for _ in range(500):
            if os.path.exists(socket) or p.poll() is not None:
                break
            try:
                p.wait(0.02)
            except subprocess.TimeoutExpired:
                pass
        script = ['set pagination off', 'set confirm off', 'set tcp connect-timeout 20']
        for i, (command, _) in enumerate(SCRIPT):
            script += ['echo \\n=== %d\\n' % i, command % {'socket': socket} if 'socket' in command else command]
        with open(tmp + '/script', 'w') as f:
            f.write('\n'.join(script) + '\n')
        try:
            g = subprocess.run(['gdb', '-nx', '-q', '-batch', '-x', tmp + '/script'], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT)
        except subprocess.TimeoutExpired as e:
            fail('gdb does not end', (e.stdout or b'').decode(errors='replace'))
        out = g.stdout.decode(errors='replace')
        parts = dict((int(n), t) for n, t in re.findall(r'^=== (\d+)\n(.*?)(?=^=== |\Z)', out, re.M | re.S))
        for i, (command, want) in enumerate(SCRIPT):
            if i not in parts:
                fail('gdb did not come to: ' + command, out)
            if want and not re.search(want, parts[i]):
                fail('%s: gdb does not say %s' % (command, want), out)
        try:
            status = p.wait(20)
        except subprocess.TimeoutExpired:
            fail('the guest did not power off after detach', out)
        if status != 0:
            fail('exit status %d' % status, out, p.stderr.read().decode())
        print(out)
    finally:
        if p.poll() is None:
            p.terminate()
            p.wait()
