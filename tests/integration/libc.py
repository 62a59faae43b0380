"""Programs with a real libc give the same output in the guest as on the host: one script, one root file system, run in both."""
import shutil
from guest import *

script = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'libc.sh')
rootfs = artifact('ROOTFS')
tar = os.path.splitext(rootfs)[0] + '.tar'
if os.geteuid() != 0:
    skip('needs root for chroot')
with tempfile.TemporaryDirectory() as tmp:
    os.mkdir(tmp + '/root')
    subprocess.run(['tar', '-C', tmp + '/root', '-xf', tar], check=True)
    shutil.copy(script, tmp + '/root/libc.sh')
    for node, minor in (('null', 3), ('zero', 5), ('urandom', 9)):
        path = tmp + '/root/dev/' + node
        if not os.path.exists(path):
            os.mknod(path, 0o20666, os.makedev(1, minor))
    host = subprocess.run(['chroot', tmp + '/root', '/bin/sh', '/libc.sh'], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=300).stdout.decode()
    expect(host.count('\n') > 60, 'the host runs the programs: %s' % host[-2000:])
    disk = tmp + '/disk.ext4'
    subprocess.run(['cp', '--sparse=always', rootfs, disk], check=True)
    payload = tmp + '/payload'
    with open(script, 'rb') as f:
        data = f.read()
    with open(payload, 'wb') as f:
        f.write(data + b'\n' * (-len(data) % 512))
    r = boot('sh /dev/vdb 2>&1', ['--disk', 'path=%s,format=raw' % disk, '--disk', 'path=%s,format=raw,readonly=on' % payload,
                                  '--net', 'none', '--memory', '1G', '--cpus', '2'], 'root=/dev/vda', timeout=900)
    expect(r.output is not None and r.status == 0, 'the guest ran the programs', r)
    if r.output != host:
        import difflib
        print('\n'.join(difflib.unified_diff(host.split('\n'), r.output.split('\n'), 'host', 'guest', lineterm='')))
        expect(False, 'the output is the same')
