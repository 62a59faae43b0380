"""libvirt's own domain documents (its test data, in the folder LIBVIRT_SOURCE): each is parsed and
written back to something equal, or refused with a message that names the element. Prints the counts; --list names all."""
import collections, glob, os, subprocess, sys, tempfile
import xml.etree.ElementTree as ET
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import skip

program = sys.argv[1]
source = os.environ.get("LIBVIRT_SOURCE") or ""
if not os.path.isdir(source):
    skip("LIBVIRT_SOURCE is not the folder of libvirt's source (tools/libvirt-source gets it)")
files = []
for folder in ("qemuxml2argvdata", "qemuxml2xmloutdata", "genericxml2xmlindata", "genericxml2xmloutdata"):
    files += sorted(glob.glob(os.path.join(source, "tests", folder, "*.xml")))


def is_domain(path):
    try:
        return ET.parse(path).getroot().tag == "domain"
    except ET.ParseError:
        return True


files = [f for f in files if is_domain(f)]
if not files:
    skip("no documents in " + source)
UNITS = {"b": 1, "bytes": 1, "KB": 1000, "k": 1 << 10, "KiB": 1 << 10, "MB": 10**6, "M": 1 << 20, "MiB": 1 << 20, "GB": 10**9, "G": 1 << 30,
         "GiB": 1 << 30, "TB": 10**12, "T": 1 << 40, "TiB": 1 << 40}


def canonical(n, depth=0):
    """What an element says: sizes in bytes, attributes and children in any order."""
    attrs, text = dict(n.attrib), (n.text or "").strip()
    if n.tag in ("memory", "currentMemory") and depth == 1 and text.isdigit():
        text = str(int(text) * {k.lower(): x for k, x in UNITS.items()}[attrs.pop("unit", "KiB").lower()])
    if n.tag == "uuid":
        text = text.replace("-", "").lower()
    if n.tag == "mac" and "address" in attrs:
        attrs["address"] = ":".join("%02x" % int(x, 16) for x in attrs["address"].split(":"))
    if text.isdigit():
        text = str(int(text))
    attrs = {k: str(int(v)) if v.isdigit() and k not in ("serial",) else v for k, v in attrs.items()}
    # What libvirt itself fills in where nothing is said, and elements that say nothing.
    if n.tag == "cpu" and "mode" not in attrs and n.find("model") is not None and n.find("model").text:
        attrs["mode"] = "custom"
    if n.tag == "disk" and depth == 2:
        attrs.setdefault("device", "disk")
        attrs.setdefault("type", "file")
    if n.tag == "filesystem" and depth == 2:
        attrs.setdefault("type", "mount")
    children = sorted(canonical(c, depth + 1) for c in n if isinstance(c.tag, str) and not
                      (c.tag in ("cpu", "devices") and not c.attrib and not len(c)))
    return (n.tag, tuple(sorted(attrs.items())), text, tuple(children))


def difference(a, b, path=""):
    """Where two canonical elements differ first."""
    here = path + "/" + a[0]
    if a[1] != b[1]:
        return here + " attributes %s %s" % (set(a[1]) - set(b[1]), set(b[1]) - set(a[1]))
    if a[2] != b[2]:
        return here + " text"
    left, right = collections.Counter(a[3]), collections.Counter(b[3])
    lost, more = list((left - right).elements()), list((right - left).elements())
    for x in lost:
        for y in more:
            if x[0] == y[0]:
                return difference(x, y, here)
    return here + " lost %s more %s" % ([x[0] for x in lost], [x[0] for x in more])


with tempfile.TemporaryDirectory() as tmp:
    # Long lists of arguments in pieces; every document has its number.
    lines = []
    for start in range(0, len(files), 500):
        os.makedirs("%s/%d" % (tmp, start))
        out = subprocess.run([program, "%s/%d" % (tmp, start)] + files[start:start + 500], stdout=subprocess.PIPE, text=True, check=True).stdout
        lines += [(start, l) for l in out.splitlines()]
    assert len(lines) == len(files), (len(lines), len(files))
    count, named = collections.Counter(), []
    for start, line in lines:
        word, number, message = (line + "  ").split(" ", 2)
        path = files[start + int(number)]
        if word == "ok":
            try:
                a = ET.parse(path).getroot()
            except ET.ParseError as e:
                word, message = "differs", "our parser takes what is not well-formed: %s" % e
            else:
                b = ET.parse("%s/%d/%s.xml" % (tmp, start, number)).getroot()
                if canonical(a) != canonical(b):
                    word, message = "differs", difference(canonical(a), canonical(b))
        count[word] += 1
        if word != "ok":
            named.append("%s %s: %s" % (word, os.path.relpath(path, source), message.strip()))
    for n in named if "--list" in sys.argv else [n for n in named if not n.startswith("refused")]:
        print(n)
    print("libvirt's documents: %d, equal %d, refused by name %d, different %d, unstable %d" % (
        len(files), count["ok"], count["refused"], count["differs"], count["unstable"]))
    # A refusal says where and what.
    for n in named:
        if n.startswith("refused"):
            assert "<" in n or "'" in n or "domain" in n, n
    sys.exit(1 if count["differs"] + count["unstable"] else 0)
