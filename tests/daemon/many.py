"""A thousand definitions, tens of running guests, and a disk that is full."""
import os, resource, subprocess, sys, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import *

libvirt = libvirt_module()
N, RUNNING = 1000, int(os.environ.get("RUNNING", "20"))
with Daemon() as d:
    kernel = kernel_of_few_instructions(d.root + "/halt", HALT)
    c = libvirt.open(d.uri)
    for i in range(N):
        c.defineXML(domain_xml("g%04d" % i, kernel, memory=2))
    assert len(c.listAllDomains()) == N
    for i in range(RUNNING):
        c.lookupByName("g%04d" % i).create()
    assert len(c.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_RUNNING)) == RUNNING
    assert len(c.getAllDomainStats()) == N
    c.close()
    d.kill()
    d.start()
    c = libvirt.open(d.uri)
    assert len(c.listAllDomains()) == N
    wait("all taken over", lambda: len(c.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_RUNNING)) == RUNNING)
    rows = [l.split() for l in d.virsh("list", "--all").splitlines()]
    assert len(rows) == N and sum(r[2] == "running" for r in rows) == RUNNING
    for g in c.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
        g.destroy()
    for g in c.listAllDomains():
        g.undefine()
    assert not [f for f in os.listdir(d.etc + "/domains") if f.endswith(".xml")]
    c.close()

# A full disk: the limit on file size stands in for it where we cannot mount, and shows the same to the daemon.
root = tempfile.mkdtemp(prefix="lodged-full-")
mounted = os.geteuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=2000", "lodged-full", root], stderr=subprocess.DEVNULL).returncode == 0
try:
    if mounted:
        with Daemon(root=root) as d:
            kernel = kernel_of_few_instructions(d.root + "/halt", HALT)
            c = libvirt.open(d.uri)
            g = c.defineXML(domain_xml("kept", kernel))
            old = open(d.etc + "/domains/kept.xml").read()
            filler = os.open(root + "/filler", os.O_WRONLY | os.O_CREAT)
            try:
                while True:
                    os.write(filler, b"x" * 4096)
            except OSError:
                pass
            os.close(filler)
            for xml in (g.XMLDesc().replace("<memory unit='KiB'>8192", "<memory unit='KiB'>16384"), domain_xml("new", kernel)):
                try:
                    c.defineXML(xml)
                    raise SystemExit("defined on a full disk")
                except libvirt.libvirtError as e:
                    assert "No space left" in str(e), e
            assert open(d.etc + "/domains/kept.xml").read() == old and "8192" in g.XMLDesc()
            assert [x.name() for x in c.listAllDomains()] == ["kept"]
            os.unlink(root + "/filler")
            g.setMetadata(libvirt.VIR_DOMAIN_METADATA_TITLE, "again", None, None)
            assert g.metadata(libvirt.VIR_DOMAIN_METADATA_TITLE, None) == "again"
            c.close()
    else:
        print("no right to mount: the full disk was not tried")
finally:
    if mounted:
        subprocess.run(["umount", "-l", root])
    shutil.rmtree(root, ignore_errors=True)
print("ok")
