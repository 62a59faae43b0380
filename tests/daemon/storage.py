"""Storage pools and volumes with the real virsh: every pool-* and vol-* verb that a directory has."""
import hashlib, os, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import *

need("virsh")
with Daemon() as d:
    v, path = d.virsh, d.root + "/pool"
    assert v("pool-list", "--all") == ""
    v("pool-define-as", "p", "dir", "--target", path)
    assert "already exists with uuid" in v("pool-define-as", "p", "dir", "--target", path, ok=False)
    assert "conflict" in v("pool-define-as", "q", "dir", "--target", path, ok=False)
    for kind in (["logical", "--source-name", "vg"], ["netfs", "--source-host", "h", "--source-path", "/x"],
                 ["iscsi", "--source-host", "h", "--source-dev", "iqn"], ["disk", "--source-dev", "/dev/null"]):
        out = v("pool-define-as", "other", kind[0], *kind[1:], "--target", d.root + "/other", ok=False)
        assert "'%s' is not supported" % kind[0] in out, out
    assert "cannot open directory" in v("pool-start", "p", ok=False)
    v("pool-build", "p")
    v("pool-start", "p")
    v("pool-autostart", "p")
    assert v("pool-list", "--all").split() == ["p", "active", "yes"]
    info = dict(l.split(":", 1) for l in v("pool-info", "p").splitlines())
    assert info["State"].strip() == "running" and info["Persistent"].strip() == "yes", info
    assert "<path>%s</path>" % path in v("pool-dumpxml", "p")
    assert v("pool-name", v("pool-uuid", "p")) == "p"

    v("vol-create-as", "p", "a.img", "1M", "--allocation", "0")
    assert os.path.getsize(path + "/a.img") == 1 << 20 and os.stat(path + "/a.img").st_blocks == 0
    v("vol-create-as", "p", "full.img", "1M")
    assert os.stat(path + "/full.img").st_blocks * 512 >= 1 << 20
    assert "exists already" in v("vol-create-as", "p", "a.img", "1M", ok=False)
    assert "no storage vol" in v("vol-info", "--pool", "p", "b.img", ok=False)
    assert v("vol-path", "--pool", "p", "a.img") == path + "/a.img" == v("vol-key", "--pool", "p", "a.img")
    assert v("vol-name", path + "/a.img") == "a.img" and v("vol-pool", path + "/a.img") == "p"

    data = os.urandom(700001)
    open(d.root + "/data", "wb").write(data)
    v("vol-upload", "--pool", "p", "a.img", d.root + "/data", "--offset", "4096")
    v("vol-download", "--pool", "p", "a.img", d.root + "/back", "--offset", "4096", "--length", str(len(data)))
    assert open(d.root + "/back", "rb").read() == data
    v("vol-download", "--pool", "p", "a.img", d.root + "/sparse", "--sparse")
    assert hashlib.sha256(open(d.root + "/sparse", "rb").read()).digest() == hashlib.sha256(open(path + "/a.img", "rb").read()).digest()
    v("vol-upload", "--pool", "p", "full.img", d.root + "/sparse", "--sparse")
    assert open(path + "/full.img", "rb").read() == open(path + "/a.img", "rb").read()

    v("vol-clone", "--pool", "p", "a.img", "b.img")
    assert open(path + "/b.img", "rb").read() == open(path + "/a.img", "rb").read()
    v("vol-resize", "--pool", "p", "b.img", "3M")
    assert os.path.getsize(path + "/b.img") == 3 << 20
    assert "shrink" in v("vol-resize", "--pool", "p", "b.img", "2M", ok=False)
    v("vol-resize", "--pool", "p", "b.img", "2M", "--shrink")
    assert os.path.getsize(path + "/b.img") == 2 << 20
    v("vol-wipe", "--pool", "p", "b.img")
    assert not any(open(path + "/b.img", "rb").read())

    open(path + "/outside.img", "wb").write(b"\0" * 4096)
    assert "outside.img" not in v("vol-list", "p")
    v("pool-refresh", "p")
    assert "outside.img" in v("vol-list", "p")
    assert len(v("vol-list", "--details", "p").splitlines()) == 4
    for name in ("a.img", "b.img", "full.img", "outside.img"):
        v("vol-delete", "--pool", "p", name)
    assert os.listdir(path) == []
    for bad in ("../x", "a/b", ".."):
        v("vol-create-as", "p", bad, "1M", ok=False)
    assert "read only" in v("vol-create-as", "p", "r", "1M", ok=False, uri=d.uri_ro)

    # A new daemon knows the pool, and starts it because it is marked so.
    import signal
    d.kill(signal.SIGTERM)
    d.start()
    assert v("pool-list").split() == ["p", "active", "yes"]
    v("pool-destroy", "p")
    assert "not active" in v("vol-list", "p", ok=False)
    v("pool-delete", "p")
    v("pool-undefine", "p")
    assert v("pool-list", "--all") == "" and not os.path.exists(path)
print("ok")
