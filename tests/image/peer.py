"""What the image tests share: our program, the peer's (Debian's qemu-utils), a folder for each test, pictures of data."""
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import unittest

LODGE = os.path.abspath(os.environ.get("LODGE") or sys.argv[1])
PEER = shutil.which("qemu-img")
PEER_IO = shutil.which("qemu-io")


def run(*args, ok=True, **kw):
    p = subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, **kw)
    if ok and p.returncode:
        raise AssertionError(f"{' '.join(map(str, args))}: status {p.returncode}\n{p.stdout}{p.stderr}")
    return p


class ImageTest(unittest.TestCase):
    """Each test runs in a folder of its own."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.cwd = os.path.realpath(self.folder.name)

    def tearDown(self):
        self.folder.cleanup()

    def path(self, name):
        return os.path.join(self.cwd, name)

    def img(self, *args, ok=True):
        return run(LODGE, "img", *args, ok=ok, cwd=self.cwd)

    def peer(self, *args, ok=True):
        return run(PEER, *args, ok=ok, cwd=self.cwd)

    def io(self, image, *commands, format=None):
        options = ["-f", format] if format else []
        for c in commands:
            options += ["-c", c]
        return run(PEER_IO, *options, image, cwd=self.cwd)

    def raw(self, name, size, pieces=30, seed=1, longest=200000):
        """A sparse file with pieces of random data at sector boundaries."""
        rng = random.Random(seed)
        with open(self.path(name), "wb") as f:
            f.truncate(size)
            for _ in range(pieces):
                n = min(size, rng.randrange(512, longest) // 512 * 512)
                f.seek(rng.randrange(0, size - n + 1) // 512 * 512)
                f.write(rng.randbytes(n))
        return name

    def data(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()

    def same_data(self, a, b, message=None):
        self.assertTrue(self.data(a) == self.data(b), message or f"{a} and {b} differ")

    def json(self, tool, *args):
        return json.loads(tool(*args).stdout)


def main(needs_peer=True):
    if needs_peer and not (PEER and PEER_IO):
        print("skipped: qemu-utils is not installed")
        sys.exit(77)
    unittest.main(argv=[sys.argv[0]])
