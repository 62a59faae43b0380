"""kill -9 of the daemon: guests go on, the next daemon takes them over, and knows how those ended that ended meanwhile."""
import os, signal, sys, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import *

need("virsh")
# Powers off after a byte on COM1: the micro board's sleep register is found by ACPI; a reset that ends the guest is simpler.
RESET_ON_BYTE = [0x66, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xf7, 0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd]

with Daemon() as d:
    v = d.virsh
    echo = kernel_of_few_instructions(d.root + "/echo", ECHO)
    once = kernel_of_few_instructions(d.root + "/once", RESET_ON_BYTE)
    xml = d.root + "/x.xml"

    def define(name, kernel, extra="", machine="micro"):
        open(xml, "w").write(domain_xml(name, kernel, extra=extra, machine=machine))
        v("define", xml)

    define("stays", echo)
    define("paused", echo)
    define("killed", echo)
    define("ends", once, extra="<on_reboot>destroy</on_reboot>", machine="q35")
    for name in ("stays", "paused", "killed", "ends"):
        v("start", name)
    open(xml, "w").write(domain_xml("passing", echo))
    v("create", xml)
    v("suspend", "paused")
    ids = {n: v("domid", n) for n in ("stays", "paused", "passing")}
    tty = v("ttyconsole", "ends")
    state = {}
    for f in os.listdir(d.run + "/vm"):
        if f.endswith(".state"):
            name = [l for l in open(d.run + "/vm/" + f[:-6] + ".xml") if "<name>" in l][0].split(">")[1].split("<")[0]
            state[name] = int(dict(l.split("=", 1) for l in open(d.run + "/vm/" + f).read().split())["pid"])

    d.kill(signal.SIGKILL)
    time.sleep(0.3)
    for name, pid in state.items():
        os.kill(pid, 0)
    os.kill(state["killed"], signal.SIGKILL)
    with open(tty, "wb", buffering=0) as f:
        f.write(b"x")
    def gone(pid):
        try:
            return open("/proc/%d/stat" % pid).read().rsplit(")", 1)[1].split()[0] == "Z"
        except OSError:
            return True
    wait("the guest's own end", lambda: gone(state["ends"]))

    d.start()
    assert {n: v("domid", n) for n in ids} == ids
    wait("its state", lambda: v("domstate", "stays") == "running")
    wait("its state", lambda: v("domstate", "paused") == "paused")
    assert v("domstate", "passing") == "running" and v("list", "--transient", "--name") == "passing"
    assert v("domstate", "--reason", "killed") == "shut off (crashed)", v("domstate", "--reason", "killed")
    assert v("domstate", "--reason", "ends") == "shut off (shutdown)", v("domstate", "--reason", "ends")
    assert "guest-reset" in open(d.log + "/ends.log").read()
    v("resume", "paused")
    v("suspend", "stays")
    v("destroy", "stays")
    v("destroy", "passing")
    assert v("list", "--name") == "paused"

    # An orderly end leaves guests alone, too.
    assert d.kill(signal.SIGTERM) == 0
    assert not os.path.exists(d.socket)
    os.kill(state["paused"], 0)
    d.start()
    wait("its state", lambda: v("domstate", "paused") == "running")
    v("destroy", "paused")
    assert [f for f in os.listdir(d.run + "/vm")] == []

    # Killed while it starts: either it runs, or it does not; nothing is left half.
    import subprocess
    p = subprocess.Popen(["virsh", "-q", "-c", d.uri, "start", "stays"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(0.02)
    d.kill(signal.SIGKILL)
    p.wait(60)
    d.start()
    if v("domstate", "stays") != "shut off":
        v("destroy", "stays")
    v("start", "stays")
    v("destroy", "stays")

    # Autostart.
    v("autostart", "stays")
    d.kill(signal.SIGTERM)
    d.start()
    wait("autostart", lambda: v("domstate", "stays") == "running")
print("ok")
