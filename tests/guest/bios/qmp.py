"""A guest with a screen, driven through the monitor: pictures, keys, events. For the tests of firmware and displays."""
import json, os, socket, struct, subprocess, sys, tempfile, time, zlib

LODGE = os.environ.get('LODGE', 'lodge')


def skip(why):
    print('SKIP:', why)
    sys.exit(77)


def need(path, package):
    if not os.path.exists(path):
        skip('%s is missing: install the package %s' % (path, package))
    return path


class Picture:
    """A PNG as we write them: 8 bits, RGB, one IDAT, filters none and up."""

    def __init__(self, path):
        data = open(path, 'rb').read()
        assert data[:8] == b'\x89PNG\r\n\x1a\n', 'not a PNG'
        at, packed = 8, b''
        while at < len(data):
            n, kind = struct.unpack('>I4s', data[at:at + 8])
            body = data[at + 8:at + 8 + n]
            assert zlib.crc32(kind + body) == struct.unpack('>I', data[at + 8 + n:at + 12 + n])[0], 'bad CRC'
            if kind == b'IHDR':
                self.width, self.height = struct.unpack('>II', body[:8])
            elif kind == b'IDAT':
                packed += body
            at += 12 + n
        raw, self.lines, above = zlib.decompress(packed), [], bytes(self.width * 3)
        for y in range(self.height):
            line = raw[y * (self.width * 3 + 1):(y + 1) * (self.width * 3 + 1)]
            above = bytes((a + b) & 255 for a, b in zip(line[1:], above)) if line[0] == 2 else line[1:]
            self.lines.append(above)

    def pixel(self, x, y):
        return tuple(self.lines[y][3 * x:3 * x + 3])

    def colours(self):
        return {l[i:i + 3] for l in self.lines for i in range(0, len(l), 3)}

    def glyphs(self, width=9, height=16):
        """The picture as text cells: the shape of each, as a hashable value."""
        rows = []
        for top in range(0, self.height - height + 1, height):
            rows.append([tuple(self.lines[top + y][3 * x:3 * (x + 8)] for y in range(height))
                         for x in range(0, self.width - width + 1, width)])
        return rows


class Guest:
    def __init__(self, *words, engine='soft', video='vga', timeout=100):
        self.dir = tempfile.TemporaryDirectory()
        self.path = self.dir.name + '/monitor'
        self.serial = self.dir.name + '/serial'
        cmd = [LODGE, 'run', '--engine', engine, '--net', 'none', '--video', video, '--monitor', 'unix=' + self.path]
        if '--serial' not in words:
            cmd += ['--serial', 'file=' + self.serial]
        self.process = subprocess.Popen(cmd + list(words), stdin=subprocess.DEVNULL)
        self.end = time.time() + timeout
        self.s = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self.s.connect(self.path)
                break
            except OSError:
                if self.process.poll() is not None or time.time() > self.end:
                    sys.exit('lodge run did not start')
                time.sleep(0.02)
        self.f = self.s.makefile('rw')
        self.f.readline()
        self.do('qmp_capabilities')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.s.close()
        self.dir.cleanup()

    def do(self, command, **arguments):
        self.f.write(json.dumps({'execute': command, 'arguments': arguments}) + '\n')
        self.f.flush()
        while True:
            reply = json.loads(self.f.readline())
            if 'return' in reply:
                return reply['return']
            if 'error' in reply:
                raise RuntimeError(reply['error']['desc'])

    def keys(self, *names):
        for n in names:
            self.do('send-key', keys=[{'type': 'qcode', 'data': k} for k in n.split('+')])

    def type(self, text):
        special = {' ': 'spc', '\n': 'ret', '-': 'minus', '.': 'dot', '/': 'slash', '=': 'equal', ',': 'comma', ';': 'semicolon',
                   '_': 'shift+minus', ':': 'shift+semicolon', '|': 'shift+backslash', '$': 'shift+4', '(': 'shift+9', ')': 'shift+0'}
        for c in text:
            self.keys(special.get(c) or ('shift+' + c.lower() if c.isupper() else c))
            time.sleep(0.01)

    def picture(self):
        path = self.dir.name + '/screen.png'
        self.do('screendump', filename=path, format='png')
        return Picture(path)

    def wait(self, what, condition):
        """Waits until condition(picture) holds, and returns the picture."""
        while True:
            p = self.picture()
            if condition(p):
                return p
            if self.process.poll() is not None:
                sys.exit('the guest ended before there was ' + what)
            if time.time() > self.end:
                import shutil
                shutil.copy(self.dir.name + '/screen.png', '/tmp/lodge-screen-%d.png' % os.getpid())
                sys.exit('no %s on the screen; see /tmp/lodge-screen-%d.png' % (what, os.getpid()))
            time.sleep(0.1)

    def console(self):
        try:
            return open(self.serial, 'rb').read().decode(errors='replace').replace('\r', '')
        except OSError:
            return ''

    def wait_console(self, text):
        while text not in self.console():
            if self.process.poll() is not None or time.time() > self.end:
                sys.exit('no %r on the console:\n%s' % (text, self.console()[-3000:]))
            time.sleep(0.1)
