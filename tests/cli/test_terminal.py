#!/usr/bin/env python3
"""`lodge run` on a terminal: keys, the escape key, the exit status, and the terminal as it was before, however the guest ends.

The guest is a Multiboot kernel of a few bytes: it says "ready" and sends back what it gets; p panics, t triple-faults, o powers off.
Usage: test_terminal.py LODGE
"""
import fcntl
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest

LODGE = os.path.abspath(sys.argv[1])
BASE = 0x100000


def guest():
    """The kernel's bytes: a Multiboot header with load addresses, then 32-bit code."""
    magic, flags = 0x1BADB002, 0x10000
    code = b""
    for c in b"ready\r\n":
        code += bytes([0x66, 0xBA]) + struct.pack("<H", 0x3F8) + bytes([0xB0, c, 0xEE])  # mov dx, 0x3f8; mov al, c; out
    loop = len(code)
    code += b"\x66\xba\xfd\x03\xec\xa8\x01"  # mov dx, 0x3fd; in al, dx; test al, 1
    code += b"\x74" + struct.pack("b", loop - len(code) - 2)  # jz loop
    code += b"\x66\xba\xf8\x03\xec"  # mov dx, 0x3f8; in al, dx
    panic = b"\x66\xba\x05\x05\xb0\x01\xee\xeb\xfe"  # mov dx, 0x505; mov al, 1; out; jmp $
    fault = b"\x31\xc0\x50\x50\x0f\x01\x1c\x24\xcc"  # IDT of no entries; int3
    off = b"\xb8\x10\x00\xa0\xfe\xc6\x00\x34\xeb\xfe"  # mov eax, 0xfea00010 (sleep control); mov byte [eax], S5 | SLP_EN; jmp $
    for key, action in (b"p", panic), (b"t", fault), (b"o", off):
        code += b"\x3c" + key + b"\x75" + bytes([len(action)]) + action  # cmp al, key; jne over
    code += b"\xee"  # out
    code += b"\xe9" + struct.pack("<i", loop - len(code) - 5)
    header = struct.pack("<IIIIIIII", magic, flags, (-magic - flags) & 0xFFFFFFFF, BASE, BASE, 0, 0, BASE + 64)
    return header.ljust(64, b"\0") + b"\xbc" + struct.pack("<I", BASE + 0x8000) + code  # mov esp, …


class Terminal(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.kernel = os.path.join(self.dir.name, "kernel")
        with open(self.kernel, "wb") as f:
            f.write(guest())

    def tearDown(self):
        self.proc.kill()
        self.proc.wait()
        os.close(self.master)
        os.close(self.slave)
        self.dir.cleanup()

    def start(self, *args, machine="micro"):
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)

        def own_terminal():
            os.setsid()
            fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)

        self.proc = subprocess.Popen(
            [LODGE, "run", "--kernel", self.kernel, "--machine", machine, "--engine", "soft", "--memory", "32M", *args],
            stdin=self.slave, stdout=self.slave, stderr=self.slave, preexec_fn=own_terminal)
        self.seen = b""
        self.banner = self.expect(b"ready")
        self.expect(b"\n")

    def expect(self, what):
        end = time.monotonic() + 30
        while what not in self.seen:
            ready, _, _ = select.select([self.master], [], [], end - time.monotonic())
            self.assertTrue(ready, f"{what} does not come; there is {self.seen}")
            self.seen += os.read(self.master, 4096)
        before, self.seen = self.seen.split(what, 1)
        return before

    def keys(self, keys):
        os.write(self.master, keys)

    def ends_with(self, status):
        self.assertEqual(self.proc.wait(timeout=30), status)
        self.assertEqual(termios.tcgetattr(self.slave)[:4], self.before[:4], "the terminal is as it was")

    def vm_pid(self):
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/stat") as f:
                    fields = f.read().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if fields[1] == str(self.proc.pid):
                return int(pid)
        self.fail("there is no lodge-vm")

    def test_escape_key(self):
        self.start()
        self.assertFalse(termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG))
        self.keys(b"abc\x03\x1a")  # Ctrl-C and Ctrl-Z are keys like others
        self.expect(b"abc\x03\x1a")
        self.keys(b"\x01\x01")
        self.expect(b"\x01")
        self.keys(b"\x01?")
        self.expect(b"Ctrl-A x")
        self.keys(b"\x01x")
        self.ends_with(0)

    def test_power_off_is_status_0(self):
        self.start()
        self.keys(b"o")
        self.ends_with(0)

    def test_triple_fault_is_status_4(self):
        self.start()
        self.keys(b"t")
        self.expect(b"triple fault")
        self.ends_with(4)

    def test_panic_is_status_3(self):
        self.start(machine="q35")
        self.keys(b"p")
        self.expect(b"panic")
        self.ends_with(3)

    def test_signals_are_passed_on(self):
        self.start()
        self.proc.terminate()
        self.ends_with(128 + signal.SIGTERM)

    def test_a_killed_lodge_vm_leaves_the_terminal_as_it_was(self):
        self.start()
        os.kill(self.vm_pid(), signal.SIGKILL)
        self.expect(b"killed by signal 9")
        self.ends_with(128 + signal.SIGKILL)

    def test_a_crashed_lodge_vm_leaves_the_terminal_as_it_was(self):
        self.start()
        os.kill(self.vm_pid(), signal.SIGABRT)
        self.ends_with(128 + signal.SIGABRT)

    def test_the_guest_ends_with_a_killed_lodge(self):
        self.start()
        vm = self.vm_pid()
        self.proc.kill()
        self.proc.wait()
        for _ in range(100):
            try:
                with open(f"/proc/{vm}/stat") as f:
                    if f.read().rsplit(")", 1)[1].split()[0] == "Z":
                        break
            except OSError:
                break
            time.sleep(0.05)
        else:
            self.fail("lodge-vm lives on")
        self.assertEqual(termios.tcgetattr(self.slave)[:4], self.before[:4])

    def test_a_pty_is_named_and_leads_to_the_guest(self):
        self.start("--serial", "stdio", "--serial", "pty")
        self.assertRegex(self.banner, rb"lodge-vm: console on /dev/pts/[0-9]+\r\n")
        name = self.banner.split(b"console on ")[1].split()[0]
        os.close(os.open(name, os.O_RDWR | os.O_NOCTTY))
        self.keys(b"\x01x")
        self.ends_with(0)

    def test_the_monitor_rules_the_guest(self):
        path = os.path.join(self.dir.name, "monitor")
        self.start("--monitor", "unix=" + path)
        s = socket.socket(socket.AF_UNIX)
        s.connect(path)
        f = s.makefile("rw")
        self.addCleanup(s.close)
        self.addCleanup(f.close)
        self.assertIn("QMP", json.loads(f.readline()))
        events = []

        def command(name, **arguments):
            f.write(json.dumps({"execute": name, "arguments": arguments}))
            f.flush()
            while True:
                reply = json.loads(f.readline())
                if "event" not in reply:
                    return reply.get("return", reply)
                events.append(reply["event"])

        def human(line):
            return command("human-monitor-command", **{"command-line": line})

        self.assertEqual(command("qmp_capabilities"), {})
        self.assertEqual(command("query-status")["status"], "running")
        cpu, = command("query-cpus-fast")
        self.assertTrue(os.path.exists(f"/proc/{cpu['thread-id']}"))
        self.assertEqual(command("query-block"), [])
        self.assertEqual(command("stop"), {})
        self.assertEqual(command("query-status")["status"], "paused")
        self.keys(b"x")
        time.sleep(0.2)
        self.assertFalse(select.select([self.master], [], [], 0)[0], "a stopped guest does not answer")
        self.assertRegex(human("info registers"), r"(?i)rip=0*10[0-9a-f]{4}\b|eip=")
        self.assertEqual(human("info mem"), "PG disabled\r\n")
        self.assertEqual(human("xp /1xw 0x100000"), "0000000000100000: 0x1badb002\r\n")
        self.assertEqual(command("cont"), {})
        self.expect(b"x")
        self.assertEqual(command("system_reset"), {})
        self.expect(b"ready")
        self.assertEqual(command("system_powerdown"), {})
        self.assertEqual(events, ["STOP", "RESUME", "RESET", "POWERDOWN"])
        self.assertEqual(command("quit"), {})
        self.assertEqual(events[-1], "SHUTDOWN")
        self.ends_with(0)
        self.assertFalse(os.path.exists(path))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
