#!/usr/bin/env python3
"""A daemon that lies: lodge says what is wrong and ends with 1, whatever comes.

Usage: test_hostile.py LODGE
"""
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import unittest

LODGE = sys.argv[1]
PROGRAM = 0x20008086


def packet(proc, serial, payload=b"", type=1, status=0, program=PROGRAM):
    return struct.pack(">IIIiiIi", 28 + len(payload), program, 1, proc, type, serial, status) + payload


def honest(proc):
    """What opening needs: no authentication, and no more."""
    return struct.pack(">I", 0) if proc == 66 else b""


def serve(answer):
    """Runs `lodge list --all` against answer(connection, proc, serial, payload) for each call; returns the process."""
    with tempfile.TemporaryDirectory() as dir:
        path = f"{dir}/sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(1)

        def run():
            try:
                c, _ = listener.accept()
                with c:
                    c.settimeout(20)
                    while True:
                        head = c.recv(28, socket.MSG_WAITALL)
                        if len(head) < 28:
                            return
                        length, _, _, proc, _, serial, _ = struct.unpack(">IIIiiIi", head)
                        payload = c.recv(length - 28, socket.MSG_WAITALL) if length > 28 else b""
                        if proc in (1, 2, 66):
                            c.sendall(packet(proc, serial, honest(proc)))
                        elif answer(c, proc, serial, payload) is False:
                            return
            except OSError:
                pass

        thread = threading.Thread(target=run)
        thread.start()
        p = subprocess.run([LODGE, "-c", f"qemu:///system?socket={path}", "list", "--all"], capture_output=True, text=True,
                           errors="replace", timeout=60, stdin=subprocess.DEVNULL)
        listener.close()
        thread.join()
        return p


class Hostile(unittest.TestCase):
    def check(self, answer, message):
        p = serve(answer)
        self.assertEqual(p.returncode, 1, p.stderr)
        self.assertRegex(p.stderr, message)

    def test_hangs_up(self):
        self.check(lambda c, *a: False, "End of file while reading data")

    def test_impossible_lengths(self):
        for length in 0, 27, 0x02000005, 0xffffffff:
            self.check(lambda c, *a: c.sendall(struct.pack(">I", length) + bytes(24)), "a packet says that it is")

    def test_unknown_types(self):
        self.check(lambda c, proc, serial, p: c.sendall(packet(proc, serial, type=9)), "unknown type 9")
        self.check(lambda c, proc, serial, p: c.sendall(packet(proc, serial, status=9)), "unknown status 9")

    def test_cut_off(self):
        def answer(c, proc, serial, payload):
            c.sendall(packet(proc, serial, bytes(1000))[:500])
            return False
        self.check(answer, "End of file while reading data")

    def test_lists_that_are_not_there(self):
        for n in 1, 16384, 16385, 0xffffffff:
            self.check(lambda c, proc, serial, p: c.sendall(packet(proc, serial, struct.pack(">I", n))),
                       "Unable to decode message payload")

    def test_errors_that_are_none(self):
        self.check(lambda c, proc, serial, p: c.sendall(packet(proc, serial, b"\0\0\0", status=1)), "cannot be understood")

    def test_control_characters_in_errors(self):
        text = b"a\x1b[2Jb"
        error = struct.pack(">iiII", 1, 10, 1, len(text)) + text + bytes(-len(text) % 4) + struct.pack(">iIIIIiiI", 2, 0, 0, 0, 0, -1, -1, 0)
        self.check(lambda c, proc, serial, p: c.sendall(packet(proc, serial, error, status=1)), r"error: a\?\[2Jb\n")

    def test_packets_for_nobody(self):
        def answer(c, proc, serial, payload):
            for i in range(2000):
                c.sendall(packet(proc, serial + 1 + i, bytes(400)) + packet(318, 1, bytes(40), type=2) +
                          packet(201, i, bytes(400), type=3, status=2) + packet(1, 0, type=2, program=0x6b656570))
            return False
        self.check(answer, "End of file while reading data|Cannot (write|recv) data")

    def test_noise(self):
        rng = random.Random(7)
        for _ in range(20):
            def answer(c, proc, serial, payload):
                c.sendall(packet(proc, serial, rng.randbytes(rng.randrange(400)), status=rng.randrange(2)))
                return False
            p = serve(answer)
            self.assertEqual(p.returncode, 1, p.stderr)

    def test_control_characters_in_names(self):
        def answer(c, proc, serial, payload):
            if proc == 273:
                name = b"a\x1b[2Jb\n"
                c.sendall(packet(proc, serial, struct.pack(">II", 1, len(name)) + name + bytes(-len(name) % 4) + bytes(16) +
                                 struct.pack(">iI", -1, 1)))
            else:
                c.sendall(packet(proc, serial, struct.pack(">ii", 5, 1)))
        p = serve(answer)
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertIn(r"a\x1b[2Jb\x0a", p.stdout)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
