"""Networks end to end, in a network namespace of the test's own, with a host "outside" in another: guests get leases and names, reach the
outside by NAT, are reached only where published, can't take others' addresses; a killed daemon changes nothing; nothing is left."""
import base64, ctypes, os, re, signal, socket, subprocess, sys, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import *

need("virsh", "nft", "dnsmasq", "ip")
KERNEL, INITRD = os.environ.get("LODGE_KERNEL"), os.environ.get("LODGE_INITRAMFS")
if not KERNEL or not INITRD:
    skip("LODGE_KERNEL and LODGE_INITRAMFS are not set: run ./check, or export what tools/guest prints")
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, CLONE_NEWNET = 0x20000, 0x40000000
if libc.unshare(CLONE_NEWNET | CLONE_NEWNS):
    skip("needs root to make a network namespace")


def sh(command, ok=True):
    p = subprocess.run(command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ok and p.returncode:
        raise AssertionError("%s: %s" % (command, p.stdout))
    return p.stdout


class Outside:
    """A process in a network namespace of its own, with a web server, and commands run there."""
    def __init__(self):
        self.p = subprocess.Popen([sys.executable, "-c", """
import ctypes, http.server, sys
ctypes.CDLL(None).unshare(0x40000000)
print("ready", flush=True)
sys.stdin.readline()
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = ("hello from outside to " + self.client_address[0]).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *a): pass
s = http.server.ThreadingHTTPServer(("203.0.113.2", 8000), H)
print("serving", flush=True)
s.serve_forever()
"""], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.p.stdout.readline()
        sh("ip link set lo up; ip link add out0 type veth peer name eth0 netns %d; ip addr add 203.0.113.1/24 dev out0; ip link set out0 up" % self.p.pid)
        self.sh("ip link set lo up; ip addr add 203.0.113.2/24 dev eth0; ip link set eth0 up")
        self.p.stdin.write("go\n")
        self.p.stdin.flush()
        assert self.p.stdout.readline() == "serving\n"

    def sh(self, command, ok=True):
        return sh("nsenter -n -t %d sh -c '%s'" % (self.p.pid, command), ok)


def read_from(address, port, source=None, seconds=30, tries=60):
    """What a server sends first; None: nobody answers."""
    for _ in range(tries):
        try:
            with socket.create_connection((address, port), timeout=2) as s:
                s.settimeout(seconds)
                got = s.recv(100).decode()
                if got:
                    return got.strip()
        except OSError:
            pass
        time.sleep(0.25)
    return None


def guest_xml(name, script, log, mac, network="lab"):
    exec64 = base64.b64encode(script.encode()).decode()
    return """<domain type='qemu'><name>%s</name><memory unit='MiB'>160</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='micro'>hvm</type><kernel>%s</kernel><initrd>%s</initrd>
<cmdline>console=ttyS0 quiet panic=-1 lodge.exec=%s</cmdline></os><features><acpi/></features>
<devices><serial type='file'><source path='%s'/></serial><memballoon model='none'/>
<interface type='network'><mac address='%s'/><source network='%s'/><model type='virtio'/></interface></devices></domain>""" % (
        name, KERNEL, INITRD, exec64, log, mac, network)


DHCP = "sed 's/ip addr flush/ip -4 addr flush/' /etc/udhcpc >/tmp/u; chmod 755 /tmp/u; ip link set eth0 up; udhcpc -q -n -t 20 -i eth0 -s /tmp/u -x hostname:%s >/dev/null 2>&1; "
ALPHA = DHCP % "alpha" + """
(while true; do echo served | nc -l -p 80; done) &
wget -q -O - http://203.0.113.2:8000/; echo
for i in $(seq 60); do busybox nslookup beta.lab.example 10.77.0.1 >/tmp/n 2>&1 && break; sleep 0.5; done
grep -A1 beta /tmp/n
beta=$(grep -A1 'Name:.*beta' /tmp/n | sed -n 's/^Address.*: *//p' | head -n 1)
busybox nslookup gate.lab.example 10.77.0.1 | grep 10.77.0.99
ping -c 1 -W 5 $beta | grep 'bytes from'
for i in $(seq 40); do ip -6 addr show dev eth0 | grep -q 'fd00:77' && break; sleep 0.5; done
busybox ping6 -c 1 -W 5 fd00:77::1 2>&1 | grep 'bytes from'
nc -l -p 81 </dev/null >/dev/null
mine=$(ip -4 addr show eth0 | sed -n 's/.*inet \\([0-9.]*\\).*/\\1/p')
try() { ping -c 2 -W 1 10.77.0.1 >/dev/null 2>&1 && echo "$1 passes" || echo "$1 is dropped"; }
try "my address"
ip addr flush dev eth0; ip addr add $beta/24 dev eth0; try "the address of beta"
ip addr flush dev eth0; ip addr add 10.99.0.5/24 dev eth0; ip route add 10.77.0.1 dev eth0; try "a foreign address"
ip addr flush dev eth0; ip link set eth0 down; ip link set eth0 address 52:54:00:00:00:99; ip link set eth0 up; ip addr add $mine/24 dev eth0; try "another MAC address"
"""
BETA = DHCP % "beta" + "nc -l -p 81 </dev/null >/dev/null"

LAB = """<network xmlns:lodge='https://lodge.dev/schemas/network/1.0'><name>lab</name><forward mode='nat'/><bridge name='virlab0'/>
<domain name='lab.example' localOnly='yes'/><dns><host ip='10.77.0.99'><hostname>gate</hostname></host></dns>
<ip address='10.77.0.1' prefix='24'><dhcp><range start='10.77.0.10' end='10.77.0.50'/><host mac='52:54:00:00:00:0a' ip='10.77.0.200'/></dhcp></ip>
<ip family='ipv6' address='fd00:77::1' prefix='64'/>
<lodge:publish protocol='tcp' port='8080' to='10.77.0.200' toPort='80'/></network>"""

outside = Outside()
with Daemon() as d:
    v, tmp = d.virsh, d.root
    os.chmod(tmp, 0o755)  # dnsmasq has a user of its own
    assert "default" in v("net-list", "--all", "--name")
    open(tmp + "/lab.xml", "w").write(LAB)
    v("net-define", tmp + "/lab.xml")
    open(tmp + "/twice.xml", "w").write(LAB.replace("<name>lab<", "<name>two<").replace("virlab0", "virlab1"))
    v("net-define", tmp + "/twice.xml")
    v("net-start", "lab")
    assert "overlap those of network 'lab'" in v("net-start", "two", ok=False)
    v("net-undefine", "two")
    logs = {}
    for name, script, mac in (("alpha", ALPHA, "52:54:00:00:00:0a"), ("beta", BETA, "52:54:00:00:00:0b")):
        logs[name] = tmp + "/" + name + ".log"
        open(tmp + "/g.xml", "w").write(guest_xml(name, script, logs[name], mac))
        v("define", tmp + "/g.xml")
        v("start", name)
    bridge_has = sh("ip -o link show master virlab0")
    assert "vnet0" in bridge_has and "vnet1" in bridge_has, bridge_has
    assert "connections='2'" in v("net-dumpxml", "lab")
    wait("leases", lambda: len(v("net-dhcp-leases", "lab").splitlines()) == 2, 120)
    leases = v("net-dhcp-leases", "lab")
    assert "10.77.0.200/24" in leases and "alpha" in leases and "beta" in leases, leases
    assert "10.77.0.200/24" in v("domifaddr", "alpha") and "52:54:00:00:00:0a" in v("domifaddr", "alpha")
    beta = re.search(r"(10\.77\.0\.\d+)/24", v("domifaddr", "beta")).group(1)

    # Published for everybody, loopback included; nothing else leads in.
    assert read_from("127.0.0.1", 8080) == "served"
    fetch = "import socket; s = socket.create_connection((\\\"%s\\\", %d), 3); print(s.recv(99))"
    assert "served" in outside.sh('%s -c "%s"' % (sys.executable, fetch % ("203.0.113.1", 8080)))
    outside.sh("ip route add 10.77.0.0/24 via 203.0.113.1")
    assert "served" not in outside.sh('%s -c "%s"' % (sys.executable, fetch % (beta, 81)), ok=False)
    assert "refused" in outside.sh('%s -c "%s"' % (sys.executable, fetch % ("10.77.0.200", 80)), ok=False).lower()

    # The daemon dies; its successor finds everything as it was.
    pid = open(d.run + "/network/lab.pid").read()
    d.kill()
    d.start()
    assert v("net-list").split()[:2] == ["lab", "active"], v("net-list")
    assert open(d.run + "/network/lab.pid").read() == pid, "dnsmasq was started anew"
    assert len(v("net-dhcp-leases", "lab").splitlines()) == 2
    assert read_from("127.0.0.1", 8080) == "served"

    # A static lease is taken over while it runs.
    v("net-update", "lab", "add", "ip-dhcp-host", "<host mac='52:54:00:00:00:0c' ip='10.77.0.60'/>", "--live", "--config")
    assert "there is an existing dhcp host entry" in v("net-update", "lab", "add", "ip-dhcp-host", "<host mac='52:54:00:00:00:0c' ip='10.77.0.61'/>", "--live", ok=False)
    assert open(d.run + "/network/lab.pid").read() == pid, "a signal is enough"
    assert "52:54:00:00:00:0c" in v("net-dumpxml", "lab") and "52:54:00:00:00:0c" in v("net-dumpxml", "lab", "--inactive")

    # Now alpha tries what it may not.
    wait("alpha's first part", lambda: read_from("10.77.0.200", 81, tries=1) is None and "fd00:77::1" in open(logs["alpha"], errors="replace").read() or
         "my address" in open(logs["alpha"], errors="replace").read(), 180)
    wait("alpha's end", lambda: "lodge: end" in open(logs["alpha"], errors="replace").read() or (read_from("10.77.0.200", 81, tries=1), False)[1], 180)
    said = open(logs["alpha"], errors="replace").read()
    for words in ("hello from outside to 203.0.113.1", "10.77.0.99", "bytes from " + beta, "bytes from fd00:77::1", "my address passes",
                  "the address of beta is dropped", "a foreign address is dropped", "another MAC address is dropped"):
        assert words in said, (words, said)
    read_from(beta, 81, tries=1)
    wait("the guests' end", lambda: not v("list", "--name"), 60)
    assert "vnet" not in sh("ip -o link")
    v("net-destroy", "lab")
    v("net-undefine", "lab")
    assert "virlab0" not in sh("ip -o link") and "lodge" not in sh("nft list tables")
outside.p.kill()
