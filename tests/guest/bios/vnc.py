"""The VNC server: our boot sector's pictures by every encoding, keys, several viewers, passwords, WebSocket, nonsense.
Usage: vnc.py SECTOR"""
import random
from qmp import *
from rfb import *

sector = sys.argv[1]
need('/usr/share/seabios/vgabios-stdvga.bin', 'seabios')
disk = tempfile.NamedTemporaryFile(suffix='.img')
disk.write(open(sector, 'rb').read())
disk.truncate(1 << 20)
disk.flush()


def check(ok, what):
    if not ok:
        sys.exit('FAILED: ' + what)


def same(v, g, what):
    """The viewer comes to show what the monitor's screenshot shows."""
    for _ in range(100):
        v.update(incremental=v.rects > 0)
        if v.rgb() == g.picture().lines:
            return
    sys.exit('FAILED: %s shows the same picture' % what)


def stage(g, n):
    while g.console().count('.') < n:
        if time.time() > g.end or g.process.poll() is not None:
            sys.exit('the boot sector did not come to picture %d' % n)
        time.sleep(0.02)


with tempfile.TemporaryDirectory() as d:
    path = d + '/vnc'
    with Guest('--disk', disk.name, '--memory', '32M', '--graphics', 'vnc,socket=' + path) as g:
        stage(g, 1)
        for _ in range(50): # the first viewer may come before the screen was looked at for the first time
            if Rfb(path).width == 720:
                break
            time.sleep(0.1)
        raw, hextile, zrle = Rfb(path), Rfb(path, encodings=(5, -223)), Rfb(path, encodings=(16, -223, -308, -258, -239))
        check(raw.name == 'guest' and (raw.width, raw.height) == (720, 400), 'size and name')
        for v, what in ((raw, 'raw'), (hextile, 'hextile'), (zrle, 'ZRLE')):
            same(v, g, what)
        zrle.key(ord('x'))
        stage(g, 2)
        same(hextile, g, 'hextile in mode 13h')
        same(zrle, g, 'ZRLE in mode 13h')
        check((zrle.width, zrle.height) == (320, 200), 'viewers hear of another size')
        # By scan code: QEMU's extended key event.
        for down in (1, 0):
            zrle.send(struct.pack('>BBHII', 255, 0, down, 0xff0d, 0x1c))
        stage(g, 3)
        same(zrle, g, 'ZRLE in mode 12h')
        # A viewer that wants to be alone.
        alone = Rfb(path, encodings=(16, -223), shared=False)
        try:
            for _ in range(1000):
                raw.update()
            check(False, 'the others are sent away')
        except (EOFError, ConnectionError):
            pass
        # Nonsense at every stage hurts nobody but its sender.
        random.seed(1)
        for start in (b'', b'RFB 003.008\n', b'RFB 003.008\n\x01\x01', b'RFB 003.003\n\x01'):
            for _ in range(40):
                s = socket.socket(socket.AF_UNIX)
                s.connect(path)
                try:
                    s.sendall(start + random.randbytes(random.choice((1, 7, 100, 5000))))
                except OSError:
                    pass
                s.close()
        same(alone, g, 'the viewer that stayed')
        alone.key(0xff0d)
        stage(g, 4)
        same(alone, g, 'ZRLE in the VESA mode')
        try:
            alone.key(0xff0d)
        except OSError:
            pass # it may be off before the key is up again
        check(g.process.wait(30) == 0, 'the sector powers off')
    check(not os.path.exists(path), 'the socket goes with the guest')

# A port with a password, and WebSocket. Wrong passwords cost time.
s = socket.socket()
s.bind(('127.0.0.1', 0))
port = s.getsockname()[1]
s2 = socket.socket()
s2.bind(('127.0.0.1', 0))
ws = s2.getsockname()[1]
s.close()
s2.close()
with Guest('--disk', disk.name, '--memory', '32M', '--graphics', 'vnc,port=%d,websocket=%d,password=secret' % (port, ws)) as g:
    stage(g, 1)
    if vnc_des('x', bytes(16)) is not None:
        same(Rfb(('127.0.0.1', port), 'secret', encodings=(16,)), g, 'a viewer with the password')
        same(Rfb(('127.0.0.1', ws), 'secret', encodings=(16,), websocket=True), g, 'a viewer by WebSocket')
        why = ''
        for _ in range(6):
            try:
                Rfb(('127.0.0.1', port), 'wrong')
                check(False, 'a wrong password is refused')
            except PermissionError as e:
                why = str(e)
        check('wait' in why, 'many wrong passwords are told to wait, not %r' % why)
    # The same port again: a clear error.
    r = subprocess.run([LODGE, 'run', '--disk', disk.name + ',readonly', '--graphics', 'vnc,port=%d' % port], capture_output=True, timeout=60,
                       stdin=subprocess.DEVNULL)
    check(r.returncode == 1 and b'Address already in use' in r.stderr, 'a port in use: %r' % r.stderr)
r = subprocess.run([LODGE, 'run', '--disk', disk.name, '--graphics', 'vnc,listen=0.0.0.0'], capture_output=True, timeout=60,
                   stdin=subprocess.DEVNULL)
check(r.returncode == 1 and b'password' in r.stderr, 'no password for everybody: %r' % r.stderr)
