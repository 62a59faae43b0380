"""A day with the real virsh: define, list, start, look, pause, console, change, stop, undefine."""
import os, pty, re, select, subprocess, sys, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import *

need("virsh")
with Daemon() as d:
    tmp = d.root
    kernel = kernel_of_few_instructions(tmp + "/echo", ECHO)
    xml = tmp + "/one.xml"
    open(xml, "w").write(domain_xml("one", kernel))

    assert d.virsh("list", "--all") == ""
    d.virsh("define", xml)
    assert d.virsh("domstate", "one") == "shut off"
    assert d.virsh("list", "--all").split() == ["-", "one", "shut", "off"]
    assert d.virsh("list") == ""
    assert os.path.exists(d.etc + "/domains/one.xml")
    info = dict(l.split(":", 1) for l in d.virsh("dominfo", "one").splitlines())
    assert info["Persistent"].strip() == "yes" and info["Max memory"].split() == ["8192", "KiB"], info
    assert info["Managed save"].strip() == "no", info

    d.virsh("start", "one")
    assert d.virsh("domstate", "--reason", "one") == "running (booted)"
    assert d.virsh("list").split() == ["1", "one", "running"]
    assert "already active" in d.virsh("start", "one", ok=False)
    assert re.match(r"/dev/pts/\d+$", d.virsh("ttyconsole", "one"))
    assert "<alias name='serial0'/>" in d.virsh("dumpxml", "one")
    assert "alias" not in d.virsh("dumpxml", "--inactive", "one")
    assert d.virsh("domid", "one") == "1"

    d.virsh("suspend", "one")
    d.virsh("suspend", "one")
    assert d.virsh("domstate", "--reason", "one") == "paused (user)"
    d.virsh("resume", "one")
    assert "already running" in d.virsh("resume", "one", ok=False)

    # The console: what is typed comes back from the guest.
    master, slave = pty.openpty()
    p = subprocess.Popen(["virsh", "-c", d.uri, "console", "one"], stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    seen = b""

    def read_until(what, seconds=30):
        global seen
        end = time.monotonic() + seconds
        while what not in seen and time.monotonic() < end:
            if select.select([master], [], [], 0.1)[0]:
                try:
                    seen += os.read(master, 4096)
                except OSError:
                    break
        assert what in seen, seen

    read_until(b"Escape character")
    os.write(master, b"hello")
    read_until(b"hello")
    assert "Active console session exists" in on_terminal(["virsh", "-c", d.uri, "console", "one"])
    os.write(master, b"\x1d")
    wait("the console's end", lambda: p.poll() is not None)
    os.close(master)

    d.virsh("autostart", "one")
    assert os.path.islink(d.etc + "/domains/autostart/one.xml")
    d.virsh("autostart", "--disable", "one")
    assert not os.path.lexists(d.etc + "/domains/autostart/one.xml")

    # While it runs: undefine makes it transient, define persistent again.
    d.virsh("undefine", "one")
    assert d.virsh("list", "--transient", "--name") == "one"
    d.virsh("define", xml.replace("one.xml", "one.xml"), ok=False)  # another UUID
    open(xml, "w").write(d.virsh("dumpxml", "one"))
    d.virsh("define", xml)
    assert d.virsh("list", "--persistent", "--name") == "one"
    assert "id=" not in open(d.etc + "/domains/one.xml").read()

    d.virsh("destroy", "one")
    assert d.virsh("domstate", "--reason", "one") == "shut off (destroyed)"
    assert "not running" in d.virsh("destroy", "one", ok=False)
    d.virsh("domrename", "one", "two")
    assert d.virsh("list", "--all", "--name") == "two"
    assert "failed to get domain" in d.virsh("dominfo", "one", ok=False)
    d.virsh("undefine", "two")
    assert os.listdir(d.etc + "/domains") in ([], ["autostart"])

    # A transient guest is gone when it ends.
    open(xml, "w").write(domain_xml("passing", kernel))
    d.virsh("create", xml, "--paused")
    assert d.virsh("domstate", "passing") == "paused"
    d.virsh("destroy", "passing")
    assert d.virsh("list", "--all") == ""

    # Bad documents: libvirt's errors, and nothing changes.
    for name in ("a/b", ".", "x" * 300):
        open(xml, "w").write(domain_xml(name, kernel))
        d.virsh("define", xml, ok=False)
    open(xml, "w").write(domain_xml("broken", kernel).replace("</domain>", ""))
    assert "domain:" in d.virsh("define", xml, ok=False)
    open(xml, "w").write(domain_xml("none", tmp + "/no-such-kernel"))
    d.virsh("define", xml)
    assert "no-such-kernel" in d.virsh("start", "none", ok=False)
    assert d.virsh("domstate", "--reason", "none") == "shut off (failed)"
    d.virsh("undefine", "none")

    # What a read-only connection may not do.
    open(xml, "w").write(domain_xml("ro", kernel))
    d.virsh("define", xml)
    for verb in (["start", "ro"], ["define", xml], ["undefine", "ro"], ["autostart", "ro"]):
        assert "read only" in d.virsh(*verb, ok=False, uri=d.uri_ro), verb
    assert d.virsh("list", "--all", "--name", uri=d.uri_ro) == "ro"
    assert "forbidden" in d.virsh("dumpxml", "--security-info", "ro", ok=False, uri=d.uri_ro)
print("ok")
