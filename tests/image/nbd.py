#!/usr/bin/env python3
"""The NBD server as other programs' clients meet it: nbdinfo, nbdcopy, qemu-img, qemu-io; and clients that mean no good."""
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import time

import peer

GO = 7


def option(number, data=b""):
    return b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data


class Server:
    """lodge img serve on a UNIX socket."""

    def __init__(self, test, *args, wait=True):
        self.socket = test.path(f"s{id(self)}")
        self.uri = f"nbd+unix:///?socket={self.socket}"
        self.process = subprocess.Popen([peer.LODGE, "img", "serve", "-k", self.socket, *args], cwd=test.cwd,
                                        stderr=subprocess.PIPE, text=True)
        test.addCleanup(self.stop)
        for _ in range(600):
            if os.path.exists(self.socket) or self.process.poll() is not None:
                break
            time.sleep(0.05)

    def named(self, name):
        return f"nbd+unix:///{name}?socket={self.socket}"

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
        self.process.stderr.close()
        return self.process.returncode


class Nbd(peer.ImageTest):
    def run_tool(self, *args, ok=True):
        return peer.run(*args, ok=ok, cwd=self.cwd)

    def info(self, uri):
        return json.loads(self.run_tool("nbdinfo", "--no-content", "--json", uri).stdout)["exports"][0]

    def test_reading(self):
        self.raw("a.raw", 20 << 20)
        self.img("convert", "-O", "qcow2", "a.raw", "a.qcow2")
        self.img("convert", "-O", "vmdk", "a.raw", "a.vmdk")
        for image, fmt in ("a.raw", "raw"), ("a.qcow2", "qcow2"), ("a.vmdk", "vmdk"):
            with self.subTest(image=image):
                s = Server(self, "-t", "-f", fmt, image)
                info = self.info(s.uri)
                self.assertEqual((info["export-size"], info["is_read_only"], info["can_multi_conn"]), (20 << 20, False, True))
                self.assertIn("base:allocation", info["contexts"])
                self.peer("compare", "-f", "raw", "-F", "raw", s.uri, "a.raw")
                self.run_tool("nbdcopy", "--connections=2", s.uri, "out.raw")
                self.same_data("out.raw", "a.raw")
                extents = json.loads(self.run_tool("nbdinfo", "--map", "--json", s.uri).stdout)
                self.assertEqual(sum(e["length"] for e in extents), 20 << 20)
                self.assertIn(3, {e["type"] for e in extents})
                self.assertEqual(s.stop(), 0)
                self.assertFalse(os.path.exists(s.socket))

    def test_writing(self):
        self.raw("a.raw", 8 << 20)
        self.peer("create", "-q", "-f", "qcow2", "a.qcow2", "8M")
        s = Server(self, "-t", "-f", "qcow2", "--discard=unmap", "a.qcow2")
        self.run_tool("nbdcopy", "a.raw", s.uri)
        self.io(s.uri, "write -P 3 1M 64k", "write -f -P 4 1000 3000", "read -P 3 1M 64k", "read -P 4 1000 3000", "write -z 2M 1M",
                "write -zu 3M 1M", "discard 5M 1M", "flush", "read -P 0 2M 2M", format="raw")
        self.peer("convert", "-f", "raw", "-O", "raw", s.uri, "now.raw")
        self.assertEqual(s.stop(), 0)
        self.peer("check", "a.qcow2")
        self.peer("compare", "-F", "raw", "a.qcow2", "now.raw")

    def test_several_clients_write_at_once(self):
        self.raw("a.raw", 0x1000000, pieces=0)
        s = Server(self, "-t", "-f", "raw", "a.raw")
        work = [subprocess.Popen([peer.PEER_IO, "-f", "raw", *sum((["-c", f"aio_write -P {i + 1} {k * 256 + i * 64}k 64k"]
                                                                  for k in range(32)), []), "-c", "aio_flush", s.uri],
                                 stdout=subprocess.DEVNULL) for i in range(4)]
        for w in work:
            self.assertEqual(w.wait(60), 0)
        self.assertEqual(s.stop(), 0)
        want = b"".join(bytes([i % 4 + 1]) * 65536 for i in range(128))
        self.assertEqual(self.data("a.raw")[:len(want)], want)

    def test_read_only(self):
        self.raw("a.raw", 1 << 20)
        s = Server(self, "-t", "-r", "-f", "raw", "a.raw")
        self.assertTrue(self.info(s.uri)["is_read_only"])
        self.assertNotEqual(peer.run(peer.PEER_IO, "-f", "raw", "-c", "write 0 512", s.uri, ok=False).returncode, 0)

    def test_snapshot_offset_name_description(self):
        self.raw("a.raw", 4 << 20)
        self.img("convert", "-O", "qcow2", "a.raw", "a.qcow2")
        self.img("snapshot", "-c", "old", "a.qcow2")
        self.io("a.qcow2", "write -P 9 0 4M")
        s = Server(self, "-t", "-l", "old", "-x", "disk", "-D", "the old one", "a.qcow2")
        self.assertEqual(self.info(s.named("disk"))["description"], "the old one")
        self.peer("compare", "-f", "raw", "-F", "raw", s.named("disk"), "a.raw")
        self.assertNotEqual(self.run_tool("nbdinfo", s.named("other"), ok=False).returncode, 0)
        self.assertIn("disk", self.run_tool("nbdinfo", "--list", s.uri).stdout)
        s = Server(self, "-t", "-r", "-f", "raw", "-o", "1M", "a.raw")
        self.run_tool("nbdcopy", s.uri, "part.raw")
        self.assertEqual(self.data("part.raw"), self.data("a.raw")[1 << 20:])

    def test_bitmaps_and_depth(self):
        self.peer("create", "-q", "-f", "qcow2", "a.qcow2", "8M")
        self.peer("bitmap", "--add", "a.qcow2", "b")
        self.io("a.qcow2", "write 1M 64k", "write 4M 1M")
        self.img("bitmap", "--disable", "a.qcow2", "b")
        self.peer("create", "-q", "-f", "qcow2", "-b", "a.qcow2", "-F", "qcow2", "b.qcow2")
        s = Server(self, "-t", "-r", "-B", "b", "-A", "a.qcow2")
        got = json.loads(self.run_tool("nbdinfo", "--map=qemu:dirty-bitmap:b", "--json", s.uri).stdout)
        dirty = [(e["offset"], e["length"]) for e in got if e["type"] == 1]
        self.assertEqual(dirty, [(1 << 20, 65536), (4 << 20, 1 << 20)])
        got = json.loads(self.run_tool("nbdinfo", "--map=qemu:allocation-depth", "--json", s.uri).stdout)
        self.assertEqual([(e["offset"], e["length"]) for e in got if e["type"] == 1], dirty)
        s.stop()
        p = self.img("serve", "-k", self.path("x"), "-B", "none", "a.qcow2", ok=False)
        self.assertEqual((p.returncode, p.stderr), (1, "lodge img: Bitmap 'none' is not found\n"))

    def test_temporary(self):
        self.raw("a.raw", 1 << 20)
        before = self.data("a.raw")
        s = Server(self, "-t", "-s", "-f", "raw", "a.raw")
        self.io(s.uri, "write -P 1 0 1M", "read -P 1 0 1M", format="raw")
        s.stop()
        self.assertEqual(self.data("a.raw"), before)

    def test_lives_as_long_as_its_clients(self):
        self.raw("a.raw", 1 << 20)
        s = Server(self, "-f", "raw", "a.raw")
        self.run_tool("nbdcopy", s.uri, "out.raw")
        self.assertEqual(s.process.wait(60), 0)
        self.same_data("a.raw", "out.raw")

    def test_background_and_tcp(self):
        self.raw("a.raw", 1 << 20)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.img("serve", "--fork", "--pid-file", "pid", "-t", "-p", str(port), "-f", "raw", "a.raw")
        pid = int(self.data("pid"))
        try:
            self.run_tool("nbdcopy", f"nbd://localhost:{port}", "out.raw")
        finally:
            os.kill(pid, signal.SIGTERM)
        self.same_data("a.raw", "out.raw")
        p = self.img("serve", "--fork", "-k", "x", "none", ok=False)
        self.assertEqual((p.returncode, p.stderr), (1, "lodge img: Could not open 'none': No such file or directory\n"))

    def test_passed_socket(self):
        """nbdcopy starts the server itself and hands it the socket."""
        self.raw("a.raw", 1 << 20)
        self.run_tool("nbdcopy", "--", "[", peer.LODGE, "img", "serve", "-f", "raw", "a.raw", "]", "out.raw")
        self.same_data("a.raw", "out.raw")

    def test_the_image_is_locked(self):
        self.peer("create", "-q", "-f", "qcow2", "a.qcow2", "8M")
        Server(self, "-t", "a.qcow2")
        for tool in self.img, self.peer:
            self.assertEqual(tool("info", "a.qcow2", ok=False).returncode, 1)
            self.assertEqual(tool("info", "-U", "a.qcow2").returncode, 0)
            self.assertEqual(tool("resize", "a.qcow2", "1G", ok=False).returncode, 1)

    def hello(self, s):
        c = socket.socket(socket.AF_UNIX)
        c.settimeout(30)
        c.connect(s.socket)
        self.assertEqual(len(c.recv(18, socket.MSG_WAITALL)), 18)
        c.sendall(struct.pack(">I", 3))
        return c

    def transmission(self, s):
        c = self.hello(s)
        c.sendall(option(1))
        self.assertEqual(len(c.recv(10, socket.MSG_WAITALL)), 10)
        return c

    def test_hostile_clients(self):
        self.raw("a.raw", 1 << 20)
        s = Server(self, "-t", "-f", "raw", "a.raw")
        request = struct.Struct(">IHHQQI").pack
        for bad in (b"", b"\0" * 4, struct.pack(">I", 0xffffffff), struct.pack(">I", 3) + b"x" * 1000,
                    struct.pack(">I", 3) + option(1, b"nope"), struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 7, 1 << 30)):
            c = socket.socket(socket.AF_UNIX)
            c.settimeout(30)
            c.connect(s.socket)
            c.sendall(bad)
            c.shutdown(socket.SHUT_WR)
            while c.recv(65536):
                pass
            c.close()
        errors = [(request(0x25609513, 0, 0, 1, 1 << 40, 512), 22), (request(0x25609513, 0, 0, 1, 0, 64 << 20), 22),
                  (request(0x25609513, 0, 1, 1, 1 << 20, 512) + bytes(512), 28), (request(0x25609513, 0, 99, 1, 0, 0), 22),
                  (request(0x25609513, 0xffff, 0, 1, 0, 512), 22), (request(0x25609513, 0, 7, 1, 0, 512), 22),
                  (request(0x25609513, 0, 3, 1, 0, 0), 0)]
        c = self.transmission(s)
        for packet, want in errors:
            c.sendall(packet)
            magic, error, handle = struct.unpack(">IIQ", c.recv(16, socket.MSG_WAITALL))
            self.assertEqual((magic, error, handle), (0x67446698, want, 1), packet)
        # One that asks for much and takes nothing does not keep others from being served.
        greedy = self.transmission(s)
        greedy.setblocking(False)
        try:
            for i in range(20000):
                greedy.sendall(request(0x25609513, 0, 0, i, 0, 1 << 20))
        except BlockingIOError:
            pass
        waiting = [self.hello(s) for _ in range(20)]
        self.peer("compare", "-f", "raw", "-F", "raw", s.uri, "a.raw")
        with open(f"/proc/{s.process.pid}/status") as f:
            rss = int(next(line for line in f if line.startswith("VmHWM")).split()[1])
        self.assertLess(rss, 200 << 10)  # KiB
        for w in waiting + [greedy, c]:
            w.close()
        self.assertEqual(s.stop(), 0)

    def test_options(self):
        self.raw("a.raw", 1 << 20)
        for args in (["-e", "1000", "a.raw"], ["-o", "2M", "-f", "raw", "a.raw"], ["-B", "b", "-f", "raw", "a.raw"], ["--cache=x", "a.raw"],
                     ["-s", "-l", "x", "a.raw"], [], ["-k", "k", "-p", "1", "-f", "raw", "a.raw"]):
            p = self.img("serve", *args, ok=False)
            self.assertEqual(p.returncode, 1, args)
            self.assertRegex(p.stderr, "^lodge img: ")


if __name__ == "__main__":
    if not shutil.which("nbdinfo"):
        print("skipped: libnbd-bin is not installed")
        raise SystemExit(77)
    peer.main()
