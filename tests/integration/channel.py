"""A named channel (<channel>) between a real guest and a UNIX socket on the host, both ways; and a serial port on a UNIX socket
(--serial unix=FILE): a login shell through it."""
import shutil, socket, time
from guest import *


def connect(path, p):
    for _ in range(600):
        try:
            s = socket.socket(socket.AF_UNIX)
            s.connect(path)
            s.settimeout(120)
            return s
        except OSError:
            expect(p.poll() is None, 'the guest runs')
            time.sleep(0.05)
    expect(False, '%s can be connected to' % path)


def read_until(s, want):
    data = b''
    while want not in data:
        try:
            got = s.recv(4096)
        except socket.timeout:
            got = b''
        expect(got, '%r comes: there is %r' % (want, data[-2000:]))
        data += got
    return data


with tempfile.TemporaryDirectory() as tmp:
    serial, channel, xml = tmp + '/serial', tmp + '/channel', tmp + '/domain.xml'
    disk = tmp + '/disk.ext4'
    shutil.copy(artifact('ROOTFS'), disk)
    cmd = command(None, ['--engine', 'soft', '--memory', '512M', '--net', 'none', '--serial', 'unix=' + serial,
                         '--disk', 'path=%s,format=raw' % disk], 'root=/dev/vda')
    r = subprocess.run(cmd + ['--print-xml'], stdout=subprocess.PIPE, timeout=30)
    expect(r.returncode == 0, '--print-xml')
    with open(xml, 'wb') as f:
        f.write(r.stdout.replace(b'</devices>', b"<channel type='unix'><source mode='bind' path='%s'/><target type='virtio' "
                                 b"name='org.test.0'/></channel><channel type='unix'><target type='virtio' name='org.test.1'/></channel>"
                                 b'</devices>' % channel.encode()))
    p = subprocess.Popen([LODGE, 'run', '--xml', xml], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        s = connect(serial, p)
        c = connect(channel, p)
        read_until(s, b'root@lodge')
        s.sendall(b'ls /dev/virtio-ports/; printf "to the host\\n" >/dev/virtio-ports/org.test.0; echo sent $?\n')
        text = read_until(s, b'sent 0')
        expect(b'org.test.0' in text and b'org.test.1' in text, 'both channels have their names in the guest: %r' % text)
        read_until(c, b'to the host\n')
        s.sendall(b'head -n 1 /dev/virtio-ports/org.test.0 | sed s/host/HOST/; echo got $?\n')
        c.sendall(b'from the host\n')
        text = read_until(s, b'got 0')
        expect(b'from the HOST' in text, 'the guest reads what the host sent: %r' % text)
        # The other end of the serial port may go and come back.
        s.close()
        s = connect(serial, p)
        s.sendall(b'\necho again $((40 + 2))\n')
        read_until(s, b'again 42')
        s.sendall(b'poweroff\n')
        expect(p.wait(120) == 0, 'the guest powers off')
    finally:
        if p.poll() is None:
            p.terminate()
            p.wait()
