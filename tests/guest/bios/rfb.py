"""A small VNC client for the tests: RFB 3.8, raw, hextile and ZRLE, password, WebSocket."""
import base64, os, socket, struct, zlib


def vnc_des(password, challenge):
    """By OpenSSL's command where it has DES, so that the server's own is checked by another; None: it cannot."""
    import subprocess
    key = bytes(int('{:08b}'.format(b)[::-1], 2) for b in password.encode()[:8].ljust(8, b'\0'))
    r = subprocess.run(['openssl', 'enc', '-des-ede3-ecb', '-nopad', '-K', (key * 3).hex()], input=challenge, capture_output=True)
    return r.stdout if r.returncode == 0 and len(r.stdout) == 16 else None


class Rfb:
    def __init__(self, address, password=None, encodings=(0,), websocket=False, shared=True):
        self.s = socket.socket(socket.AF_UNIX) if isinstance(address, str) else socket.create_connection(address, 10)
        if isinstance(address, str):
            self.s.connect(address)
        self.s.settimeout(20)
        self.ws, self.data = websocket, b''
        if websocket:
            key = base64.b64encode(os.urandom(16)).decode()
            self.s.sendall(('GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n'
                            'Sec-WebSocket-Protocol: binary\r\nSec-WebSocket-Key: %s\r\n\r\n' % key).encode())
            head = b''
            while b'\r\n\r\n' not in head:
                head += self.s.recv(1)
            assert b' 101 ' in head and b'Sec-WebSocket-Accept' in head, head
        assert self.read(12) == b'RFB 003.008\n'
        self.send(b'RFB 003.008\n')
        types = self.read(self.read(1)[0])
        kind = 2 if password is not None else 1
        assert kind in types, types
        self.send(bytes([kind]))
        if kind == 2:
            answer = vnc_des(password, self.read(16))
            self.send(answer if answer is not None else bytes(16))
        result, = struct.unpack('>I', self.read(4))
        if result:
            n, = struct.unpack('>I', self.read(4))
            raise PermissionError(self.read(n).decode())
        self.send(bytes([shared]))
        self.width, self.height = struct.unpack('>HH', self.read(4))
        self.format = self.read(16)
        self.name = self.read(struct.unpack('>I', self.read(4))[0]).decode()
        self.inflate = zlib.decompressobj()
        self.pixels = bytearray(self.width * self.height * 4)
        self.rects = 0
        self.set_encodings(*encodings)

    def set_encodings(self, *encodings):
        self.send(struct.pack('>BxH', 2, len(encodings)) + b''.join(struct.pack('>i', e) for e in encodings))

    def send(self, data):
        if self.ws:
            head = struct.pack('>BB', 0x82, 0x80 | len(data)) if len(data) < 126 else struct.pack('>BBH', 0x82, 0xfe, len(data))
            data = head + b'\x01\x02\x03\x04' + bytes(b ^ (i % 4 + 1) for i, b in enumerate(data))
        self.s.sendall(data)

    def recv_exactly(self, n):
        out = b''
        while len(out) < n:
            more = self.s.recv(n - len(out))
            if not more:
                raise EOFError('the server has closed the connection')
            out += more
        return out

    def read(self, n):
        if not self.ws:
            return self.recv_exactly(n)
        while len(self.data) < n:
            head = self.recv_exactly(2)
            assert head[0] == 0x82 and head[1] < 128
            size = head[1]
            if size == 126:
                size, = struct.unpack('>H', self.recv_exactly(2))
            elif size == 127:
                size, = struct.unpack('>Q', self.recv_exactly(8))
            self.data += self.recv_exactly(size)
        out, self.data = self.data[:n], self.data[n:]
        return out

    def put(self, x, y, w, rows):
        for i, row in enumerate(rows):
            at = ((y + i) * self.width + x) * 4
            self.pixels[at:at + w * 4] = row

    def hextile(self, x, y, w, h):
        bg = fg = bytes(4)
        for ty in range(y, y + h, 16):
            for tx in range(x, x + w, 16):
                tw, th = min(16, x + w - tx), min(16, y + h - ty)
                mask = self.read(1)[0]
                if mask & 1:
                    data = self.read(tw * th * 4)
                    self.put(tx, ty, tw, [data[i * tw * 4:(i + 1) * tw * 4] for i in range(th)])
                    continue
                if mask & 2:
                    bg = self.read(4)
                if mask & 4:
                    fg = self.read(4)
                rows = [bytearray(bg * tw) for _ in range(th)]
                for _ in range(self.read(1)[0] if mask & 8 else 0):
                    xy, wh = self.read(2)
                    for j in range((wh & 15) + 1):
                        sx, sw = xy >> 4, (wh >> 4) + 1
                        rows[(xy & 15) + j][sx * 4:(sx + sw) * 4] = fg * sw
                self.put(tx, ty, tw, rows)

    def zrle(self, x, y, w, h):
        n, = struct.unpack('>I', self.read(4))
        data, at = self.inflate.decompress(self.read(n)), 0

        def pixel():
            nonlocal at
            at += 3
            return data[at - 3:at] + b'\0'
        for ty in range(y, y + h, 64):
            for tx in range(x, x + w, 64):
                tw, th = min(64, x + w - tx), min(64, y + h - ty)
                kind, at = data[at], at + 1
                if kind == 0:
                    rows = [b''.join(pixel() for _ in range(tw)) for _ in range(th)]
                elif kind == 1:
                    rows = [pixel() * tw] * th
                else:
                    palette = [pixel() for _ in range(kind)]
                    bits = 1 if kind == 2 else 2 if kind <= 4 else 4
                    rows = []
                    for _ in range(th):
                        line = data[at:at + (tw * bits + 7) // 8]
                        at += len(line)
                        rows.append(b''.join(palette[line[i * bits // 8] >> (8 - bits - i * bits % 8) & ((1 << bits) - 1)] for i in range(tw)))
                self.put(tx, ty, tw, rows)
        assert at == len(data), 'ZRLE data is left over'

    def update(self, incremental=False):
        self.send(struct.pack('>BBHHHH', 3, incremental, 0, 0, self.width, self.height))
        while True:
            kind = self.read(1)[0]
            if kind == 0:
                break
            assert kind == 2, kind
        n = struct.unpack('>xH', self.read(3))[0]
        for _ in range(n):
            x, y, w, h, enc = struct.unpack('>HHHHi', self.read(12))
            self.rects += 1
            if enc == 0:
                data = self.read(w * h * 4)
                self.put(x, y, w, [data[i * w * 4:(i + 1) * w * 4] for i in range(h)])
            elif enc == 5:
                self.hextile(x, y, w, h)
            elif enc == 16:
                self.zrle(x, y, w, h)
            elif enc == -223:
                self.width, self.height = w, h
                self.pixels = bytearray(w * h * 4)
            elif enc == -308:
                screens = self.read(4)[0]
                self.read(16 * screens)
                if (w, h) != (self.width, self.height):
                    self.width, self.height = w, h
                    self.pixels = bytearray(w * h * 4)
            elif enc == -239:
                self.read(w * h * 4 + (w + 7) // 8 * h)
            else:
                assert enc == -258, enc

    def rgb(self):
        """Lines of RGB bytes, as Picture has them."""
        out = []
        for y in range(self.height):
            row = self.pixels[y * self.width * 4:(y + 1) * self.width * 4]
            line = bytearray(self.width * 3)
            line[0::3], line[1::3], line[2::3] = row[2::4], row[1::4], row[0::4]
            out.append(bytes(line))
        return out

    def key(self, keysym):
        for down in (1, 0):
            self.send(struct.pack('>BBxxI', 4, down, keysym))
