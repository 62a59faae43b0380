"""Runs `lodge run` on real kernels for the integration tests. $LODGE is the program, $LODGE_KERNEL, $LODGE_INITRAMFS and
$LODGE_ROOTFS what tools/guest made, $LODGE_KERNEL_GENERIC and $LODGE_INITRAMFS_GENERIC the same for the other kernel; a test that lacks one of them skips with the reason."""
import base64, os, re, subprocess, sys, tempfile

LODGE = os.environ.get('LODGE', 'lodge')


def skip(why):
    print('SKIP:', why)
    sys.exit(77)


def artifact(name):
    path = os.environ.get('LODGE_' + name)
    if not path or not os.path.exists(path):
        skip('LODGE_%s is not set: run ./check, or export it to what tools/guest %s prints' % (name, name.lower().replace('_', '-')))
    return path


class Result:
    def __init__(self, status, console, stderr):
        self.status, self.console, self.stderr = status, console, stderr
        m = re.search(r'^=== lodge: begin\n(.*?)^=== lodge: end (\d+)', console, re.S | re.M)
        self.output = m.group(1) if m else None
        self.exec_status = int(m.group(2)) if m else None


def command(exec=None, args=(), append='', initrd=True, kernel=''):
    """The words of `lodge run` for a kernel boot that runs `exec` in the guest. kernel='_GENERIC': the kernel with 9P."""
    cmd = [LODGE, 'run', '--kernel', artifact('KERNEL' + kernel)]
    if initrd:
        cmd += ['--initrd', artifact('INITRAMFS' + kernel)]
    words = 'console=ttyS0 quiet panic=-1 ' + append
    if exec is not None:
        words += ' lodge.exec=' + base64.b64encode(exec.encode()).decode()
    return cmd + ['--append', words] + list(args)


def boot(exec=None, args=(), append='', timeout=240, kernel=''):
    """Boots, waits for the end, returns a Result."""
    with tempfile.NamedTemporaryFile() as log:
        p = subprocess.run(command(exec, args, append, kernel=kernel) + ['--serial', 'file=' + log.name], stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout)
        console = log.read().decode(errors='replace').replace('\r', '')
    return Result(p.returncode, console, p.stderr.decode(errors='replace'))


def expect(condition, what, result=None):
    if not condition:
        print('FAILED:', what)
        if result is not None:
            print('status %d\nstderr: %s\nconsole:\n%s' % (result.status, result.stderr, result.console[-4000:]))
        sys.exit(1)


def expect_output(result, *words):
    expect(result.output is not None, 'the guest did not run the command', result)
    for w in words:
        expect(re.search(w, result.output, re.M), 'output has %r' % w, result)
    expect(result.exec_status == 0, 'the command succeeded', result)
    expect(result.status == 0, 'lodge run says the guest powered off', result)
