"""The real virt-install, virt-xml and virt-clone: import, new disks in pools, changed devices, copies."""
import os, subprocess, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import *

need("virsh", "virt-install", "virt-clone", "virt-xml")


def run(*args, ok=True):
    p = subprocess.run([args[0], "--connect", d.uri] + list(args[1:]), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                       stdin=subprocess.DEVNULL, timeout=120, env=dict(os.environ, LC_ALL="C", HOME=d.root))
    assert (p.returncode == 0) == ok, "%s: status %d\n%s" % (" ".join(args), p.returncode, p.stdout)
    return p.stdout


with Daemon() as d:
    v, pool = d.virsh, d.root + "/images"
    kernel = kernel_of_few_instructions(d.root + "/echo", ECHO)
    boot = "kernel=%s,initrd=,kernel_args=" % kernel
    v("pool-define-as", "default", "dir", "--target", pool)
    v("pool-build", "default")
    v("pool-start", "default")
    open(d.root + "/disk.raw", "wb").truncate(4 << 20)

    common = ["--memory", "64", "--vcpus", "1", "--osinfo", "linux2022", "--network", "none", "--graphics", "none",
              "--noautoconsole", "--boot", "kernel=" + kernel]
    out = run("virt-install", "--name", "imported", "--import", "--disk", "path=%s/disk.raw,format=raw,bus=virtio" % d.root, *common)
    assert "completed" in out, out
    assert v("domstate", "imported") == "running" and v("list", "--persistent", "--name") == "imported"
    xml = v("dumpxml", "--inactive", "imported")
    assert "libosinfo" in xml and "<source file='%s/disk.raw'/>" % d.root in xml
    # The directory has become a pool, as virt-install does it.
    assert "disk.raw" in v("vol-list", [p for p in v("pool-list", "--name").split() if p != "default"][0])
    v("destroy", "imported")

    run("virt-install", "--name", "sized", "--import", "--disk", "size=1,format=raw,bus=virtio,sparse=yes", *common)
    disk = v("domblklist", "sized").split()[1]
    assert disk == pool + "/sized.raw" or disk == pool + "/sized.img", disk
    assert os.path.getsize(disk) == 1 << 30
    v("destroy", "sized")
    assert "in use" in run("virt-install", "--name", "sized", "--import", "--disk", "none", *common, ok=False)

    v("vol-create-as", "default", "cow.qcow2", "1G", "--format", "qcow2")
    disk = pool + "/cow.qcow2"
    assert open(disk, "rb").read(4) == b"QFI\xfb" and "qcow2" in v("vol-dumpxml", "--pool", "default", "cow.qcow2")
    assert "1.00 GiB" in v("vol-info", "--pool", "default", "cow.qcow2")
    open(d.root + "/cow.xml", "w").write(domain_xml("cow", kernel, devices="<disk type='file'><driver name='qemu' type='qcow2'/><source file='%s'/><target dev='vda' bus='virtio'/></disk>" % disk))
    v("define", d.root + "/cow.xml")

    # virt-xml: a second disk, more memory.
    run("virt-xml", "sized", "--add-device", "--disk", "size=0.01,format=raw,bus=virtio,sparse=yes")
    assert [l.split()[0] for l in v("domblklist", "sized").splitlines()] == ["vda", "vdb"]
    run("virt-xml", "sized", "--edit", "--memory", "96,maxmemory=96")
    assert "98304" in v("dumpxml", "sized")
    run("virt-xml", "sized", "--remove-device", "--disk", "target=vdb")
    assert [l.split()[0] for l in v("domblklist", "sized").splitlines()] == ["vda"]

    open(d.root + "/disk.raw", "r+b").write(b"marked")
    run("virt-clone", "--original", "imported", "--name", "copy", "--auto-clone")
    copy = v("domblklist", "copy").split()[1]
    assert copy != d.root + "/disk.raw" and open(copy, "rb").read(6) == b"marked"
    assert v("domuuid", "copy") != v("domuuid", "imported")
    v("start", "copy")
    v("destroy", "copy")
    run("virt-clone", "--original", "cow", "--name", "cow2", "--auto-clone")
    assert open(v("domblklist", "cow2").split()[1], "rb").read(4) == b"QFI\xfb"

    for name in ("imported", "sized", "cow", "copy", "cow2"):
        v("undefine", name, "--remove-all-storage")
    assert v("list", "--all") == "" and not os.path.exists(copy)
print("ok")
