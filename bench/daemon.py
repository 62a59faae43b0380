#!/usr/bin/python3
"""lodged beside libvirtd: the same client, the same guests, one run. Medians of RUNS; prints a table with ratios.
bench/daemon.py [BUILD-DIR] [--runs N] [--only NAME]. Needs libvirtd, virsh and python3-libvirt; both daemons have their own
directories and sockets. libvirtd's guests are QEMU's (TCG), ours lodge-vm's, with the same kernel of a few instructions."""
import os, shutil, signal, socket, statistics, subprocess, sys, tempfile, threading, time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tests/daemon"))
from harness import HALT, kernel_of_few_instructions, libvirt_module
libvirt = libvirt_module()

build = next((a for a in sys.argv[1:] if not a.startswith("-") and os.path.isdir(a)), "build")
runs = int(sys.argv[sys.argv.index("--runs") + 1]) if "--runs" in sys.argv else 5
only = sys.argv[sys.argv.index("--only") + 1] if "--only" in sys.argv else ""
tmp = tempfile.mkdtemp(prefix="bench-daemon-", dir=os.environ.get("TMPDIR", "/var/tmp"))
kernel = kernel_of_few_instructions(tmp + "/kernel", HALT)


class Lodged:
    name = "lodged"

    def __init__(self):
        self.root = tmp + "/lodged"
        os.makedirs(self.root, exist_ok=True)
        self.socket = self.root + "/run/lodge/lodge-sock"
        self.uri = "qemu:///system?socket=" + self.socket

    def start(self):
        self.p = subprocess.Popen([build + "/src/main/lodged", "--system", "--root", self.root], stdin=subprocess.DEVNULL)

    def xml(self, name):
        return domain(name, "micro", "")

    def clean(self):
        pass


class Libvirtd:
    """A system libvirtd keeps everything in fixed places, so it gets a mount namespace with its own."""
    name = "libvirtd"

    def __init__(self):
        self.root = tmp + "/libvirtd"
        self.socket = self.root + "/sock/libvirt-sock"
        self.uri = "qemu:///system?socket=" + self.socket
        for d in ("etc", "lib", "run", "log", "cache", "sock"):
            os.makedirs(self.root + "/" + d, exist_ok=True)
        with open(self.root + "/libvirtd.conf", "w") as f:
            f.write('unix_sock_dir = "%s/sock"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\n' % self.root)
        with open(self.root + "/etc/qemu.conf", "w") as f:
            f.write('security_driver = "none"\nuser = "root"\ngroup = "root"\nremember_owner = 0\ncgroup_controllers = []\nnamespaces = []\nstdio_handler = "file"\n')

    def start(self):
        binds = "".join("mkdir -p %s; mount --bind %s/%s %s; " % (to, self.root, d, to) for d, to in (
            ("etc", "/etc/libvirt"), ("lib", "/var/lib/libvirt"), ("run", "/run/libvirt"), ("log", "/var/log/libvirt"),
            ("cache", "/var/cache/libvirt")))
        self.p = subprocess.Popen(["unshare", "-m", "sh", "-c", binds + "exec libvirtd -f %s/libvirtd.conf -p %s/pid" % (self.root, self.root)],
                                  stdin=subprocess.DEVNULL, stderr=open(self.root + "/err", "ab"))

    def xml(self, name):
        return domain(name, "microvm", "<emulator>/usr/bin/qemu-system-x86_64</emulator><controller type='usb' model='none'/>")


def domain(name, machine, devices):
    if machine == "microvm":
        machine = "q35"
    return """<domain type='qemu'><name>%s</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='%s'>hvm</type><kernel>%s</kernel></os><features><acpi/></features>
<devices>%s<serial type='pty'/><memballoon model='none'/></devices></domain>""" % (name, machine, kernel, devices)


def wait_socket(path, p, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.socket(socket.AF_UNIX) as s:
            try:
                s.connect(path)
                return
            except OSError:
                if p.poll() is not None:
                    raise SystemExit("the daemon has ended")
                time.sleep(0.001)
    raise SystemExit("no daemon at " + path)


def timed(fn):
    t = time.perf_counter()
    fn()
    return time.perf_counter() - t


def median(fn, n=None):
    return statistics.median(fn() for _ in range(n or runs))


def rss(pid):
    """Private and shared resident MiB of the daemon (the first process below unshare's shell is the daemon itself: exec)."""
    return int([l for l in open("/proc/%d/status" % pid) if l.startswith("VmRSS")][0].split()[1]) / 1024


def virsh(d, *args):
    subprocess.run(["virsh", "-q", "-c", d.uri] + list(args), stdout=subprocess.DEVNULL, check=True)


def stop(d):
    d.p.terminate()
    d.p.wait()
    try:
        os.unlink(d.socket)
    except OSError:
        pass


def start_to_list(d):
    def go():
        d.start()
        wait_socket(d.socket, d.p)
        c = libvirt.open(d.uri)
        c.listAllDomains()
        c.close()
    t = timed(go)
    return t


def measure(d):
    r = {}
    d.start()
    wait_socket(d.socket, d.p)
    c = libvirt.open(d.uri)
    if not only or only == "caps":
        r["first capabilities, ms"] = timed(c.getCapabilities) * 1e3
    time.sleep(0.5)
    r["memory, fresh, MiB"] = rss(d.p.pid)
    if not only or only == "life":
        g = c.defineXML(d.xml("one"))

        def cycle():
            s = timed(g.create)
            return s, timed(g.destroy)
        cycle()
        both = [cycle() for _ in range(runs)]
        r["start, ms"] = statistics.median(b[0] for b in both) * 1e3
        r["destroy, ms"] = statistics.median(b[1] for b in both) * 1e3

        def ten():
            gs = [c.defineXML(d.xml("t%d" % i)) for i in range(10)]
            ts = [threading.Thread(target=g.create) for g in gs]
            t = timed(lambda: ([x.start() for x in ts], [x.join() for x in ts]))
            for g in gs:
                g.destroy()
                g.undefine()
            return t
        r["ten starts at once, ms"] = median(ten, 3) * 1e3
        virsh_start = []
        for _ in range(runs):
            virsh_start.append(timed(lambda: virsh(d, "start", "one")))
            virsh(d, "destroy", "one")
        r["virsh start, ms"] = statistics.median(virsh_start) * 1e3
        g.undefine()
    if not only or only == "define":
        n = 300
        docs = [d.xml("d%d" % i) for i in range(n)]

        def define_all():
            return [c.defineXML(x) for x in docs]
        times = []
        for _ in range(runs):
            gs = []
            t = timed(lambda: gs.extend(define_all()))
            u = timed(lambda: [g.undefine() for g in gs])
            times.append((n / t, n / u))
        r["define, per second"] = statistics.median(t[0] for t in times)
        r["undefine, per second"] = statistics.median(t[1] for t in times)

        def cycles():
            for x in docs:
                c.defineXML(x).undefine()
        r["define+undefine cycles, per second"] = n / median(lambda: timed(cycles))
    if not only or only == "list":
        for i in range(1000):
            c.defineXML(d.xml("l%04d" % i))
        r["virsh list --all of 1,000, ms"] = median(lambda: timed(lambda: virsh(d, "list", "--all"))) * 1e3
        r["virsh list --all --name of 1,000, ms"] = median(lambda: timed(lambda: virsh(d, "list", "--all", "--name"))) * 1e3
        ours = [os.environ.get("LODGE", os.path.join(os.path.dirname(__file__), "../build/src/main/lodge")), "-c", d.uri, "list", "--all"]
        r["lodge list --all of 1,000, ms"] = median(lambda: timed(lambda: subprocess.run(ours, stdout=subprocess.DEVNULL, check=True))) * 1e3
        r["memory with 1,000, MiB"] = rss(d.p.pid)
        c.close()
        stop(d)
        ts = []
        for _ in range(runs):
            ts.append(start_to_list(d))
            stop(d)
        r["daemon start to list of 1,000, ms"] = statistics.median(ts) * 1e3
        d.start()
        wait_socket(d.socket, d.p)
        c = libvirt.open(d.uri)
        for g in c.listAllDomains():
            g.undefine()
    c.close()
    stop(d)
    ts = []
    for _ in range(runs):
        ts.append(start_to_list(d))
        stop(d)
    r["daemon start to first list, ms"] = statistics.median(ts) * 1e3
    return r


try:
    sides = [Lodged()] + ([Libvirtd()] if shutil.which("libvirtd") and os.geteuid() == 0 else [])
    got = [measure(d) for d in sides]
    floor = median(lambda: timed(lambda: subprocess.run(["virsh", "--version"], stdout=subprocess.DEVNULL))) * 1e3
    print("virsh alone (--version): %.1f ms" % floor)
    print("%-40s" % "", *("%10s" % d.name for d in sides), "     ratio")
    for k in got[0]:
        row = [g.get(k) for g in got]
        ratio = "" if len(row) < 2 or not row[0] or row[1] is None else "%9.2fx" % (row[0] / row[1] if "per second" in k else row[1] / row[0])
        print("%-40s" % k, *("%10.1f" % x if x is not None else "%10s" % "-" for x in row), ratio)
finally:
    for d in sides:
        if d.p.poll() is None:
            d.p.kill()
    shutil.rmtree(tmp, ignore_errors=True)
