"""A daemon of one's own for a test: its directories in a temporary folder, its sockets, and the real virsh against it."""
import os, shutil, signal, subprocess, sys, tempfile, time

SKIP = 77


def skip(why):
    print("skipped:", why)
    sys.exit(SKIP)


def need(*programs):
    for p in programs:
        if not shutil.which(p):
            skip(p + " is not installed")


class Daemon:
    def __init__(self, config="", args=(), root=None):
        self.program = os.environ["LODGED"]
        self.own = root is None
        self.root = root or tempfile.mkdtemp(prefix="lodged-")
        self.etc = self.root + "/etc/lodge"
        self.run = self.root + "/run/lodge"
        self.log = self.root + "/var/log/lodge"
        self.socket = self.run + "/lodge-sock"
        self.uri = "qemu:///system?socket=" + self.socket
        self.uri_ro = "qemu:///system?socket=" + self.socket + "-ro"
        os.makedirs(self.etc, exist_ok=True)
        if config:
            with open(self.etc + "/lodged.conf", "w") as f:
                f.write(config)
        self.args = list(args)
        self.process = None
        self.start()

    def start(self):
        self.out = open(self.root + "/out", "ab")
        self.process = subprocess.Popen([self.program, "--system", "--root", self.root, "--verbose"] + self.args,
                                        stdout=self.out, stderr=self.out, stdin=subprocess.DEVNULL)
        import socket
        for _ in range(1000):
            with socket.socket(socket.AF_UNIX) as s:
                try:
                    s.connect(self.socket)
                    return
                except OSError:
                    pass
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise SystemExit("lodged did not start:\n" + open(self.root + "/out").read())

    def kill(self, sig=signal.SIGKILL):
        self.process.send_signal(sig)
        status = self.process.wait(30)
        self.out.close()
        return status

    def __enter__(self):
        return self

    def __exit__(self, kind, value, tb):
        if kind:
            sys.stdout.write(open(self.root + "/out").read())
            for name in sorted(os.listdir(self.log)) if os.path.isdir(self.log) else []:
                print("==", name)
                sys.stdout.write(open(self.log + "/" + name, errors="replace").read()[-3000:])
        alive = self.process.poll() is None
        if alive:
            for pid in self.guests():
                os.kill(pid, signal.SIGKILL)
            status = self.kill(signal.SIGTERM)
        else:
            status = 0
            for pid in self.guests():
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass
        if self.own:
            shutil.rmtree(self.root, ignore_errors=True)
        if not kind:
            assert status == 0, "lodged ended with status %d" % status

    def guests(self):
        """The processes of running guests, by what the daemon has noted of them."""
        pids = []
        try:
            for f in os.listdir(self.run + "/vm"):
                if f.endswith(".state"):
                    text = dict(l.split("=", 1) for l in open(self.run + "/vm/" + f).read().split())
                    pids.append(int(text["pid"]))
        except OSError:
            pass
        return [p for p in pids if p > 1]

    def virsh(self, *args, ok=True, uri=None, input=None, timeout=60):
        p = subprocess.run(["virsh", "-q", "-c", uri or self.uri] + list(args), stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, timeout=timeout, input=input,
                           env=dict(os.environ, LC_ALL="C"))
        if ok is not None and (p.returncode == 0) != ok:
            raise AssertionError("virsh %s: status %d: %s" % (" ".join(args), p.returncode, p.stdout))
        return p.stdout.strip()


def wait(what, condition, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("waited in vain: " + what)


def kernel_of_few_instructions(path, code):
    """An ELF kernel that is entered by the PVH protocol in 32-bit protected mode, at 1 MiB."""
    import struct
    base = 0x100000
    ehdr, phsz = 52, 32
    note = struct.pack("<III4sI", 4, 4, 18, b"Xen\0", base)
    body = bytes(code)
    off_note = ehdr + 2 * phsz
    off_code = 0x1000
    header = struct.pack("<16sHHIIIIIHHHHHH", b"\x7fELF\x01\x01\x01" + b"\0" * 9, 2, 3, 1, base, ehdr, 0, 0, ehdr, phsz, 2, 0, 0, 0)
    load = struct.pack("<IIIIIIII", 1, off_code, base, base, len(body), len(body) + 4096, 7, 4096)
    pnote = struct.pack("<IIIIIIII", 4, off_note, 0, 0, len(note), len(note), 4, 4)
    with open(path, "wb") as f:
        f.write((header + load + pnote + note).ljust(off_code, b"\0") + body)
    return path


def on_terminal(command, seconds=30):
    """Runs a program that wants a terminal; what it prints."""
    import pty, select
    master, slave = pty.openpty()
    p = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    seen, end = b"", time.monotonic() + seconds
    while time.monotonic() < end:
        if select.select([master], [], [], 0.1)[0]:
            try:
                seen += os.read(master, 4096)
            except OSError:
                break
        elif p.poll() is not None:
            break
    os.close(master)
    p.kill()
    p.wait()
    return seen.decode(errors="replace")


HALT = [0xfa, 0xf4, 0xeb, 0xfd]                       # cli; hlt; jmp back
# Echoes COM1: wait for a byte, send it back.
ECHO = [0x66, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xf7,   # mov dx,0x3fd; in al,dx; test al,1; jz
        0x66, 0xba, 0xf8, 0x03, 0xec, 0xee, 0xeb, 0xef]         # mov dx,0x3f8; in al,dx; out dx,al; jmp


def domain_xml(name, kernel, extra="", devices="", kind="qemu", memory=8, machine="micro", uuid=None):
    return """<domain type='%s'><name>%s</name>%s<memory unit='MiB'>%d</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='%s'>hvm</type><kernel>%s</kernel></os><features><acpi/></features>%s
<devices><serial type='pty'/><memballoon model='none'/>%s</devices></domain>""" % (
        kind, name, "<uuid>%s</uuid>" % uuid if uuid else "", memory, machine, kernel, extra, devices)


def libvirt_module():
    """python3-libvirt belongs to the distribution's own interpreter, which may not be the one that runs us."""
    try:
        import libvirt
        libvirt.registerErrorHandler(lambda *a: None, None)
        return libvirt
    except ImportError:
        if os.path.realpath(sys.executable) != os.path.realpath("/usr/bin/python3") and os.path.exists("/usr/bin/python3"):
            os.execv("/usr/bin/python3", ["/usr/bin/python3"] + sys.argv)
        skip("python3-libvirt is not installed")
