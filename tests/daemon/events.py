"""Events by python3-libvirt, several calls at once on one connection, and guests that go with their connection."""
import os, sys, threading, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import *

libvirt = libvirt_module()
libvirt.virEventRegisterDefaultImpl()
threading.Thread(target=lambda: [libvirt.virEventRunDefaultImpl() for _ in iter(int, 1)], daemon=True).start()

with Daemon() as d:
    kernel = kernel_of_few_instructions(d.root + "/halt", HALT)
    watcher, c = libvirt.open(d.uri), libvirt.open(d.uri)
    seen = []
    watcher.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lambda con, dom, ev, detail, o: seen.append((dom.name(), ev, detail)), None)
    assert watcher.setKeepAlive(5, 3) == 0
    one = c.defineXML(domain_xml("one", kernel))
    one.create()
    one.suspend()
    one.resume()
    one.destroy()
    one.undefine()
    want = [("one", 0, 0), ("one", 2, 0), ("one", 3, 0), ("one", 4, 0), ("one", 5, 1), ("one", 1, 0)]
    wait("all events", lambda: len(seen) >= len(want), 20)
    assert seen == want, seen

    # Only of one guest.
    a, b = c.defineXML(domain_xml("a", kernel)), c.defineXML(domain_xml("b", kernel))
    only = []
    cb = watcher.domainEventRegisterAny(watcher.lookupByName("b"), libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lambda con, dom, ev, detail, o: only.append(dom.name()), None)
    a.create()
    b.create()
    wait("b's start", lambda: only == ["b"], 20)
    watcher.domainEventDeregisterAny(cb)

    # A guest that is killed from outside has crashed.
    seen.clear()
    for pid in d.guests():
        os.kill(pid, 9)
    wait("both ends", lambda: sorted(e for e in seen if e[1] == 5) == [("a", 5, 2), ("b", 5, 2)], 20)
    assert a.state() == [5, 3], a.state()

    # Autodestroy.
    passing = libvirt.open(d.uri)
    passing.createXML(domain_xml("with", kernel), libvirt.VIR_DOMAIN_START_AUTODESTROY)
    assert c.lookupByName("with").isActive()
    passing.close()
    wait("its end", lambda: "with" not in [g.name() for g in c.listAllDomains()], 20)

    # Ten at once, over one connection.
    names = ["n%d" % i for i in range(10)]
    doms = [c.defineXML(domain_xml(n, kernel)) for n in names]
    threads = [threading.Thread(target=g.create) for g in doms]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert all(g.isActive() for g in doms)
    assert sorted(g.name() for g in c.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)) == sorted(names)
    threads = [threading.Thread(target=g.destroy) for g in doms]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not any(g.isActive() for g in doms)

    # Codes that clients branch on.
    for call, code in ((lambda: c.lookupByName("nobody"), libvirt.VIR_ERR_NO_DOMAIN), (lambda: doms[0].destroy(), libvirt.VIR_ERR_OPERATION_INVALID),
                       (lambda: c.storagePoolLookupByName("nobody"), libvirt.VIR_ERR_NO_STORAGE_POOL),
                       (lambda: doms[0].metadata(libvirt.VIR_DOMAIN_METADATA_TITLE, None), libvirt.VIR_ERR_NO_DOMAIN_METADATA),
                       (lambda: c.defineXML("<domain"), libvirt.VIR_ERR_XML_ERROR),
                       (lambda: doms[0].migrate(c, 0, None, None, 0), None)):
        try:
            call()
            raise SystemExit("no error")
        except libvirt.libvirtError as e:
            assert code is None or e.get_error_code() == code, (e.get_error_code(), code)
    watcher.close()
    c.close()
print("ok")
