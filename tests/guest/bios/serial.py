"""SeaBIOS starts a boot sector from a virtio disk. Usage: serial.py ENGINE SECTOR"""
import os, subprocess, sys, tempfile

engine, sector = sys.argv[1:3]
if engine == 'kvm' and not os.access('/dev/kvm', os.R_OK | os.W_OK):
    print('SKIP: no usable /dev/kvm')
    sys.exit(77)
if not os.path.exists('/usr/share/seabios/bios-256k.bin'):
    print('SKIP: the package seabios is not installed')
    sys.exit(77)


def run(*disks):
    words = [os.environ['LODGE'], 'run', '--engine', engine, '--memory', '64M', '--net', 'none', '--serial', 'stdio']
    for d in disks:
        words += ['--disk', d]
    r = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=100)
    out = r.stdout.decode(errors='replace')
    print(out)
    return r.returncode, out


def disk(data):
    f = tempfile.NamedTemporaryFile(suffix='.img')
    f.write(data)
    f.truncate(1 << 20)
    f.flush()
    return f


boot = open(sector, 'rb').read()
good, empty = disk(boot), disk(b'')
status, out = run(good.name)
# The first port is the BIOS's screen where there is no display.
if status or 'SeaBIOS' not in out or 'Booting from Hard Disk' not in out:
    sys.exit('the boot sector did not run and power off (status %d)' % status)
if 'sector: a memory map' not in out:
    sys.exit('INT 15h gave no memory map')
# The second disk comes first.
status, out = run(empty.name + ',boot_order=2', good.name + ',boot_order=1')
if status or 'a memory map' not in out:
    sys.exit('the disk that is first in order was not booted (status %d)' % status)
