"""Saving and going on: to a file, managed, with another document, and what a broken file does."""
import os, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import *

need("virsh")
# Counts in EBX for ever, and says the low byte on COM1 when asked: what was counted before survives the save.
COUNT = [0x31, 0xdb,                                              # xor ebx, ebx
         0x66, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xf7,    # wait for a byte
         0x66, 0xba, 0xf8, 0x03, 0xec, 0x43,                      # read it; inc ebx
         0x89, 0xd8, 0x04, 0x30, 0xee, 0xeb, 0xea]                # al = bl + '0'; out; again

with Daemon() as d:
    v, tmp = d.virsh, d.root
    kernel = kernel_of_few_instructions(tmp + "/count", COUNT)
    xml = tmp + "/g.xml"
    open(xml, "w").write(domain_xml("g", kernel))
    v("define", xml)

    def ask():
        import select, time
        fd = os.open(v("ttyconsole", "g"), os.O_RDWR | os.O_NOCTTY)
        os.write(fd, b"?")
        assert select.select([fd], [], [], 20)[0], "the guest does not answer"
        got = os.read(fd, 1)
        os.close(fd)
        return int(got)

    v("start", "g")
    assert [ask(), ask()] == [1, 2]
    v("save", "g", tmp + "/file")
    assert v("domstate", "--reason", "g") == "shut off (saved)"
    assert "<name>g</name>" in v("save-image-dumpxml", tmp + "/file")
    v("restore", tmp + "/file")
    assert v("domstate", "--reason", "g") == "running (restored)"
    assert ask() == 3

    v("managedsave", "g")
    assert "Managed save:   yes" in v("dominfo", "g")
    assert v("list", "--all", "--with-managed-save", "--name") == "g"
    assert "managed save" in v("undefine", "g", ok=False)
    v("start", "g")
    assert ask() == 4
    assert "Managed save:   no" in v("dominfo", "g")

    v("suspend", "g")
    v("save", "g", tmp + "/paused")
    v("restore", tmp + "/paused")
    assert v("domstate", "g") == "paused"
    v("resume", "g")
    assert ask() == 5
    v("managedsave", "g", "--paused")
    v("start", "g", "--force-boot")
    assert ask() == 1
    v("managedsave", "g")
    v("managedsave-remove", "g")
    v("start", "g")
    assert ask() == 1
    v("destroy", "g")

    # A file that cannot be written, one that is no saved guest, one that is cut short: errors, and nothing has changed.
    v("start", "g")
    v("save", "g", tmp + "/no/such/dir/file", ok=False)
    wait("it goes on", lambda: v("domstate", "g") == "running")
    v("destroy", "g")
    open(tmp + "/nonsense", "wb").write(os.urandom(5000))
    assert "not a saved guest" in v("restore", tmp + "/nonsense", ok=False)
    data = open(tmp + "/file", "rb").read()
    open(tmp + "/cut", "wb").write(data[:40] + data[-3000:])
    v("restore", tmp + "/cut", ok=False)
    assert v("domstate", "g") == "shut off"
    v("undefine", "g")
    v("restore", tmp + "/file")
    assert v("list", "--transient", "--name") == "g" and ask() == 3
    v("destroy", "g")
    assert v("list", "--all") == ""
print("ok")
