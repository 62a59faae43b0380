"""Clients that send nonsense, too much, or nothing: they are refused or dropped, and nobody else notices."""
import os, random, socket, struct, sys, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import *

need("virsh")
REMOTE = 0x20008086


def packet(proc, payload=b"", prog=REMOTE, vers=1, kind=0, serial=0, status=0, length=None):
    body = struct.pack(">IIiiIi", prog, vers, proc, kind, serial, status) + payload
    return struct.pack(">I", length if length is not None else len(body) + 4) + body


class Client:
    def __init__(self, path, auth=True):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(20)
        self.s.connect(path)
        if auth:
            self.call(66)
            self.call(1, struct.pack(">II", 0, 0))

    def send(self, data):
        try:
            self.s.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # dropped before all was sent; reading shows it

    def read(self):
        head = b""
        while len(head) < 4:
            part = self.s.recv(4 - len(head))
            if not part:
                return None
            head += part
        want, body = struct.unpack(">I", head)[0] - 4, b""
        while len(body) < want:
            part = self.s.recv(want - len(body))
            if not part:
                return None
            body += part
        return struct.unpack(">IIiiIi", body[:24]) + (body[24:],)

    def call(self, *a, **k):
        self.send(packet(*a, **k))
        return self.read()

    def dropped(self):
        try:
            while self.s.recv(65536):
                pass
            return True
        except ConnectionError:
            return True
        except socket.timeout:
            return False


def error_code(reply):
    assert reply and reply[5] == 1, reply
    return struct.unpack(">i", reply[6][:4])[0]


with Daemon(config="max_clients = 300\n") as d:
    witness = Client(d.socket)

    def alive():
        assert witness.call(59)[5] == 0

    c = Client(d.socket, auth=False)
    assert error_code(c.call(59)) == 39                      # before authentication
    assert error_code(c.call(10, struct.pack(">I", 0))) == 39
    c = Client(d.socket)
    assert error_code(c.call(99999)) == 39 and error_code(c.call(-5)) == 39 and error_code(c.call(318)) == 39
    assert error_code(c.call(1, prog=77)) == 39 and error_code(c.call(1, vers=9)) == 39
    assert error_code(c.call(302, b"\0" * 200)) in (3, 39)   # known, not served
    assert error_code(c.call(23, b"")) == 39                 # no arguments
    assert error_code(c.call(23, struct.pack(">I", 0x7fffffff))) == 39
    assert error_code(c.call(344, struct.pack(">I", 0xffffffff) + b"\0" * 64)) == 39   # a list of 4 milliards
    assert error_code(c.call(198, b"\0" * 4)) == 39
    assert error_code(c.call(23, struct.pack(">I", 5) + b"a\0b\xff\n\0\0\0")) in (39, 42)
    c.send(packet(12, kind=2))                               # an event from a client: ignored
    c.send(packet(201, b"x" * 100, kind=3, status=2))        # data for no stream: ignored
    c.send(packet(201, kind=6, status=2))
    c.send(packet(1, prog=0x6b656570, kind=2))
    assert c.read()[2] == 2                                  # PONG
    assert c.call(59)[5] == 0
    alive()

    for length in (0, 3, 27, 33554437, 0xffffffff):
        c = Client(d.socket)
        c.send(packet(59, length=length))
        assert c.dropped(), length
    c = Client(d.socket, auth=False)
    c.send(packet(66, b"\0" * 100000))                       # large, before authentication
    assert c.dropped()
    c = Client(d.socket)
    c.send(packet(23, b"", kind=4))                          # descriptors that are not there
    assert c.dropped()
    c = Client(d.socket)
    c.send(packet(23, struct.pack(">I", 5000), kind=4))
    assert c.dropped()
    alive()

    # Descriptors that nobody asked for are closed.
    before = len(os.listdir("/proc/%d/fd" % d.process.pid))
    c = Client(d.socket)
    for _ in range(50):
        fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(8)]
        socket.send_fds(c.s, [packet(59)], fds)
        assert c.read()[5] == 0
        [os.close(f) for f in fds]
    assert len(os.listdir("/proc/%d/fd" % d.process.pid)) < before + 20

    # A client that asks and does not read: it waits, nobody else does, and memory stays bounded.
    def rss():
        return int([l for l in open("/proc/%d/status" % d.process.pid) if l.startswith("VmRSS")][0].split()[1])
    deaf = Client(d.socket)
    deaf.s.setblocking(False)
    sent = 0
    try:
        while sent < 200000:
            deaf.s.send(packet(7, serial=sent & 0xffff))
            sent += 1
    except BlockingIOError:
        pass
    alive()
    # (ASan's quarantine is not the daemon's memory)
    assert rss() < 120000 or "asan" in open("/proc/%d/maps" % d.process.pid).read(), rss()

    # Half packets, and clients that vanish in the middle.
    for n in (1, 4, 27, 28, 40):
        c = Client(d.socket)
        c.send(packet(23, struct.pack(">I", 100) + b"x" * 100)[:n])
        c.s.close()
    slow = Client(d.socket)
    whole = packet(59)
    for b in whole:
        slow.send(bytes([b]))
    assert slow.read()[5] == 0
    alive()

    # More clients than allowed: the rest is turned away, and when they are gone there is room again.
    crowd = []
    for _ in range(400):
        s = socket.socket(socket.AF_UNIX)
        try:
            s.connect(d.socket)
        except OSError:
            break
        crowd.append(s)
    alive()
    [s.close() for s in crowd]
    wait("room", lambda: d.virsh("list", ok=None) == "", 20)

    # Random packets: arguments of any bytes for any procedure.
    rnd = random.Random(int(os.environ.get("SEED", "1")))
    destructive = {2}
    for _ in range(int(os.environ.get("ROUNDS", "3000"))):
        c = c if c.s.fileno() >= 0 else Client(d.socket)
        proc = rnd.choice([p for p in (rnd.randrange(1, 460),) if p not in destructive] or [59])
        payload = bytes(rnd.choice((0, 0, 0, 1, 4, 255, rnd.randrange(256))) for _ in range(rnd.randrange(0, 120)))
        try:
            c.s.settimeout(5)
            c.s.sendall(packet(proc, payload, serial=rnd.randrange(1000)))
            if rnd.random() < 0.05:
                c.s.close()
        except OSError:
            c.s.close()
        if rnd.random() < 0.3 and c.s.fileno() >= 0:
            try:
                c.s.setblocking(False)
                while c.s.recv(65536):
                    pass
                c.s.close()
            except BlockingIOError:
                c.s.setblocking(True)
            except OSError:
                c.s.close()
    alive()
    assert d.virsh("list", "--all") == ""
print("ok")
