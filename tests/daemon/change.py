"""Changing and measuring guests: memory, vCPUs, devices, metadata, statistics, pinning, the monitor."""
import json, os, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import *

need("virsh")
with Daemon() as d:
    v, tmp = d.virsh, d.root
    kernel = kernel_of_few_instructions(tmp + "/halt", ECHO)
    image = tmp + "/disk.img"
    open(image, "wb").truncate(8 << 20)
    open(tmp + "/other.img", "wb").truncate(1 << 20)
    xml = tmp + "/g.xml"
    open(xml, "w").write(domain_xml("g", kernel, devices="<disk type='file'><source file='%s'/><target dev='vda' bus='virtio'/></disk>" % image,
                                    machine="q35", memory=64).replace("<memballoon model='none'/>", "<memballoon model='virtio'/>"))
    v("define", xml)

    # The definition.
    v("setmaxmem", "g", "128M", "--config")
    v("setmem", "g", "96M", "--config")
    assert "<memory unit='KiB'>131072</memory>" in v("dumpxml", "g") and "<currentMemory unit='KiB'>98304</currentMemory>" in v("dumpxml", "g")
    assert "higher than max" in v("setmem", "g", "1G", "--config", ok=False)
    v("setvcpus", "g", "4", "--config", "--maximum")
    v("setvcpus", "g", "2", "--config")
    assert v("vcpucount", "g", "--config", "--maximum") == "4" and v("vcpucount", "g", "--config") == "2"
    assert "greater than max" in v("setvcpus", "g", "9", "--config", ok=False)
    v("setvcpus", "g", "1", "--config", "--maximum")
    v("setmaxmem", "g", "64M", "--config")

    v("desc", "g", "--title", "A guest", "--config")
    v("desc", "g", "--config", "Two words")
    assert v("desc", "g", "--title") == "A guest" and v("desc", "g") == "Two words"
    assert v("list", "--all", "--title").split()[-2:] == ["A", "guest"]
    v("metadata", "g", "http://a.org/x", "--key", "a", "--set", "<thing n='1'><part/></thing>")
    assert v("metadata", "g", "http://a.org/x") == "<thing n='1'>\n  <part/>\n</thing>", v("metadata", "g", "http://a.org/x")
    assert "<a:thing n='1' xmlns:a='http://a.org/x'>" in v("dumpxml", "g") or "<a:thing xmlns:a='http://a.org/x' n='1'>" in v("dumpxml", "g")
    v("metadata", "g", "http://a.org/x", "--remove")
    assert "not present" in v("metadata", "g", "http://a.org/x", ok=False)

    v("attach-disk", "g", tmp + "/other.img", "vdb", "--config")
    assert "already exists" in v("attach-disk", "g", tmp + "/other.img", "vdb", "--config", ok=False)
    assert [l.split() for l in v("domblklist", "g").splitlines()] == [["vda", image], ["vdb", tmp + "/other.img"]]
    assert v("domblklist", "--details", "g").split()[:4] == ["file", "disk", "vda", image]
    v("detach-disk", "g", "vdb", "--config")
    assert v("domblklist", "g").split() == ["vda", image]
    v("attach-interface", "g", "user", "--source", "x", "--mac", "52:54:00:00:00:01", "--config", "--model", "virtio", ok=None)
    nic = tmp + "/nic.xml"
    open(nic, "w").write("<interface type='user'><mac address='52:54:00:00:00:02'/><model type='virtio'/></interface>")
    v("attach-device", "g", nic, "--config")
    assert "52:54:00:00:00:02" in v("domiflist", "g")
    v("detach-device", "g", nic, "--config")
    assert "52:54:00:00:00:02" not in v("domiflist", "g")
    assert "not found" in v("detach-device", "g", nic, "--config", ok=False) or "no device" in v("detach-device", "g", nic, "--config", ok=False)
    for mac in [l.split()[-1] for l in v("domiflist", "g").splitlines()]:
        v("detach-interface", "g", "user", "--mac", mac, "--config")
    assert v("domblkinfo", "g", "vda").split()[1] == str(8 << 20)

    v("memtune", "g", "--hard-limit", "1G", "--config")
    assert "hard_limit     : 1048576" in v("memtune", "g") and "swap_hard_limit: unlimited" in v("memtune", "g"), v("memtune", "g")
    v("schedinfo", "g", "--config", "--set", "cpu_shares=512")
    assert "cpu_shares     : 512" in v("schedinfo", "g", "--config")
    v("blkdeviotune", "g", "vda", "--total-iops-sec", "100", "--config")
    assert "total_iops_sec : 100" in v("blkdeviotune", "g", "vda", "--config")
    assert "numa_mode" in v("numatune", "g") and "qemu64" in v("cpu-models", "x86_64").split()
    assert "--domain" in v("domxml-to-native", "lodge-argv", "--domain", "g")

    # While it runs.
    v("start", "g")
    assert "running" in v("vcpuinfo", "g")
    assert v("vcpucount", "g", "--live") == "1"
    assert "rss" in v("dommemstat", "g")
    stats = v("domstats", "g")
    for field in ("state.state=1", "cpu.time=", "balloon.maximum=65536", "vcpu.0.state=1", "block.count=1", "block.0.name=vda", "block.0.capacity=8388608"):
        assert field in stats, (field, stats)
    assert "rd_req" in v("domblkstat", "g", "vda") and "block.0.rd.reqs=" in stats, (v("domblkstat", "g", "vda"), stats)
    v("setmem", "g", "32M", "--live")
    assert "cpu_time" in v("cpu-stats", "g", "--total")
    v("vcpupin", "g", "0", "0")
    assert v("vcpupin", "g").split() == ["0", "0"], v("vcpupin", "g")
    assert "not found" not in v("emulatorpin", "g")
    assert v("domjobinfo", "g").split() == ["Job", "type:", "None"]
    assert v("domcontrol", "g") == "ok"
    assert json.loads(v("qemu-monitor-command", "g", '{"execute":"query-status"}'))["return"]["running"] is True
    assert "running" in v("qemu-monitor-command", "g", "--hmp", "info status")
    assert "error" in json.loads(v("qemu-monitor-command", "g", '{"execute":"no-such"}'))
    assert "in use by domain" in (open(xml, "w").write(domain_xml("h", kernel, devices="<disk type='file'><source file='%s'/><target dev='vda' bus='virtio'/></disk>" % image)) and v("create", xml, ok=False))
    v("attach-disk", "g", tmp + "/other.img", "vdb", ok=False)
    v("desc", "g", "--title", "Live", "--live")
    assert v("desc", "g", "--title", "--live") == "Live" and v("desc", "g", "--title", "--config") == "A guest"
    v("reset", "g")
    assert v("domstate", "g") == "running"
    v("destroy", "g")
    assert v("domstats", "g", "--state") == "Domain: 'g'\n  state.state=5\n  state.reason=2"
print("ok")
