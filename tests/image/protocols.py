#!/usr/bin/env python3
"""Images on NBD and web servers, and lodge img io beside qemu-io."""
import http.server
import os
import re
import signal
import subprocess
import threading
import time

import peer


class Ranges(http.server.BaseHTTPRequestHandler):
    """A web server of one folder that knows ranges."""
    folder = None
    ranges = True

    def do_HEAD(self, body=False):
        path = os.path.join(self.folder, os.path.basename(self.path))
        if not os.path.exists(path):
            self.send_error(404)
            return
        with open(path, "rb") as f:
            data = f.read()
        m = re.match(r"bytes=(\d+)-(\d+)$", self.headers.get("Range", ""))
        if m and self.ranges:
            part = data[int(m[1]):int(m[2]) + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {m[1]}-{m[2]}/{len(data)}")
        else:
            part = data
            self.send_response(200)
        if self.ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if body:
            self.wfile.write(part)

    def do_GET(self):
        self.do_HEAD(True)

    def log_message(self, *args):
        pass


class Protocols(peer.ImageTest):
    def serve_web(self, ranges=True):
        handler = type("Handler", (Ranges,), {"folder": self.cwd, "ranges": ranges})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return f"http://127.0.0.1:{server.server_port}"

    def test_http(self):
        self.raw("a.raw", 3 << 20)
        self.img("convert", "-O", "qcow2", "a.raw", "a.qcow2")
        url = self.serve_web()
        self.img("compare", f"{url}/a.qcow2", "a.raw")
        self.img("convert", "-f", "raw", "-O", "raw", f"{url}/a.raw", "out.raw")
        self.same_data("out.raw", "a.raw")
        self.img("create", "-f", "qcow2", "-b", f"{url}/a.qcow2", "-F", "qcow2", "top.qcow2")
        self.img("io", "-c", "write -P 1 0 512", "top.qcow2")
        self.assertIn('"depth": 1', self.img("map", "--output=json", "top.qcow2").stdout)
        for bad in f"{url}/none", "http://127.0.0.1:1/x", self.serve_web(False) + "/a.raw":
            p = self.img("info", bad, ok=False)
            self.assertEqual(p.returncode, 1)
            self.assertRegex(p.stderr, f"^lodge img: Could not open '{bad}': .*\n$")

    def test_nbd(self):
        self.raw("a.raw", 8 << 20)
        self.peer("create", "-q", "-f", "qcow2", "b.qcow2", "8M")
        for image, name in ("a.raw", "s1"), ("b.qcow2", "s2"):
            server = subprocess.Popen(["qemu-nbd", "-t", "-k", self.path(name), "-e", "5", image, "-f", image.split(".")[1]],
                                      stdout=subprocess.DEVNULL, cwd=self.cwd)
            self.addCleanup(server.wait, 60)
            self.addCleanup(server.send_signal, signal.SIGTERM)
        for _ in range(600):
            if os.path.exists(self.path("s1")) and os.path.exists(self.path("s2")):
                break
            time.sleep(0.05)
        one, two = f"nbd+unix:///?socket={self.path('s1')}", f"nbd:unix:{self.path('s2')}"
        self.img("convert", "-n", "-f", "raw", "-O", "raw", one, two)
        self.img("compare", "-f", "raw", "-F", "raw", one, two)
        self.assertIn('"zero": true', self.img("map", "--output=json", one).stdout)
        self.img("io", "-f", "raw", "-c", "write -f -P 3 1M 64k", "-c", "write -z 2M 1M", "-c", "discard 4M 1M", "-c", "flush",
                 "-c", "read -P 3 1M 64k", "-c", "read -P 0 2M 1M", two)
        self.peer("compare", "-f", "raw", "-F", "raw", two, two)
        self.img("compare", "--image-opts", f"driver=raw,file.driver=nbd,file.path={self.path('s1')}",
                 f"driver=raw,file.driver=nbd,file.server.type=unix,file.server.path={self.path('s1')}")
        for bad in "nbd+unix:///?socket=/none", "nbd://127.0.0.1:1/", f"nbd+unix:///x?socket={self.path('s1')}":
            p = self.img("info", bad, ok=False)
            self.assertEqual(p.returncode, 1)
            self.assertRegex(p.stderr, "^lodge img: Could not open '.*': .*\n$")


class Io(peer.ImageTest):
    def both(self, *commands, options=(), make=("qcow2", "16M")):
        """The same words from both, but for times, and the same image."""
        results = []
        for tool, name in ([peer.PEER_IO], "theirs"), ([peer.LODGE, "img", "io"], "ours"):
            if os.path.exists(self.path(name)):
                os.unlink(self.path(name))
            self.peer("create", "-q", "-f", make[0], name, make[1])
            args = [x for c in commands for x in ("-c", c)]
            p = peer.run(*tool, "-f", make[0], *options, *args, name, ok=False, cwd=self.cwd)
            out = re.sub(r"ops; .*", "ops", p.stdout)
            out = re.sub(r"(\d+,1,).*", r"\1", out)
            results.append((p.returncode, out))
        self.assertEqual(results[0], results[1])
        self.peer("compare", "-f", make[0], "-F", make[0], "ours", "theirs")

    def test_commands(self):
        self.both("write -P 1 0 64k", "read -P 1 0 64k", "read -P 2 0 64k", "read -v 0 64", "read 0 17M", "read 1 511",
                  "read -q 0 512", "read -C 0 512")
        self.both("write -z 64k 64k", "write -zu 64k 64k", "read -P 0 64k 64k")
        self.both("write -c 128k 64k", "write -c 100 64k", "write 100 1000",
                  "writev -P 4 0 1k 2k", "readv -P 4 0 1k 2k", "flush", "alloc 0",
                  "alloc 0 16M", "map", "length", "truncate 20M", "length", "foo", "read", "read foo bar", "write -s x 0 1",
                  "read -P 4 -s 512 -l 512 0 2k", "read -P 4 -s 4k 0 2k", "write -P 300 0 1", "write -u 0 1k")
        self.both("aio_write -P 3 0 4k", "aio_flush", "aio_read -P 3 0 4k", "aio_flush", "aio_read -P 4 0 4k", "aio_flush")
        self.both("write -P 1 0 128k", "discard 0 64k", "discard -q 0 64k", "read -P 0 0 64k", "discard 0 1G")
        self.both("write 0 512", options=["-r"])
        self.both("write -b -P 5 0 1k", "read -b -P 5 0 1k", "info")
        self.both("write -P 9 1000 1", "map", "length", make=("raw", "1M"))

    def test_standard_input(self):
        self.peer("create", "-q", "-f", "raw", "a.raw", "1M")
        p = subprocess.run([peer.LODGE, "img", "io", "-f", "raw", "a.raw"], input="write -P 2 0 4k\nread -P 2 0 4k\nquit\n",
                           capture_output=True, text=True, cwd=self.cwd, timeout=60)
        self.assertEqual(p.returncode, 0)
        self.assertIn("read 4096/4096 bytes at offset 0", p.stdout)
        self.assertEqual(self.data("a.raw")[:4096], b"\2" * 4096)

    def test_a_probed_raw_image_keeps_its_first_sector_harmless(self):
        """A guest must not make another format of an image whose format was guessed."""
        self.raw("a.raw", 1 << 20)
        with open(self.path("header"), "wb") as f:
            f.write(b"QFI\xfb\0\0\0\3" + bytes(504))
        self.assertEqual(self.img("io", "-c", "write -s header 0 512", "a.raw", ok=False).returncode, 1)
        self.assertEqual(self.img("io", "-f", "raw", "-c", "write -s header 0 512", "a.raw").returncode, 0)


if __name__ == "__main__":
    peer.main()
