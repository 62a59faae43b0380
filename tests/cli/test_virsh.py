#!/usr/bin/env python3
"""Our verbs beside the real virsh's, on the same daemon: what they print, what they complain about, their exit status.

Usage: test_virsh.py LODGE libvirtd|LODGED [--verbose]

The daemon is started for the test: the real libvirtd in a mount and network namespace of its own (root only), or lodged
with sockets and files in a directory of its own.
"""
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

LODGE, DAEMON = sys.argv[1], sys.argv[2]
VERBOSE = "--verbose" in sys.argv
SKIP = 77

DOMAIN = """<domain type='{type}'><name>{name}</name><uuid>{uuid}</uuid><title>My guest</title><description>some words</description>
<memory unit='MiB'>64</memory><vcpu>2</vcpu><os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features>
<devices><disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{images}/d1.img'/><target dev='vda' bus='virtio'/></disk>
<disk type='file' device='cdrom'><target dev='sda' bus='sata'/></disk>
<interface type='user'><mac address='52:54:00:11:22:33'/><model type='virtio'/></interface>
<serial type='pty'/><console type='pty'/><graphics type='vnc' autoport='yes' listen='127.0.0.1'/></devices></domain>"""
NETWORK = """<network><name>n1</name><uuid>21111111-2222-3333-4444-555555555555</uuid><forward mode='nat'/><bridge name='cmpbr7'/>
<ip address='192.168.177.1' netmask='255.255.255.0'><dhcp><range start='192.168.177.10' end='192.168.177.99'/></dhcp></ip></network>"""

# Lines of verbs, run one after the other by each program on its own copy of the objects ("@" is the program's letter).
# "!" in front: only the exit status and standard error are compared; "~": numbers are not compared either.
CASES = """
list
list --all
list --all --title
list --all --name
list --all --uuid
list --all --name --uuid
list --all --id
list --inactive --persistent
list --all --autostart
list --state-running
list --all --with-snapshot
list --table --name
list --bogus
list extra
bogus
start
dominfo
dominfo nope
dominfo vm@
dominfo --domain vm@
dominfo --domain=vm@
dominfo vm@ extra
dominfo vm@ --domain vm@
domstate vm@
domstate vm@ --reason
domid vm@
domuuid vm@
domname 1111111@-2222-3333-4444-555555555555
domname nope
domblklist vm@
domblklist vm@ --details
domblklist vm@ --inactive
domiflist vm@
domif-getlink vm@ 52:54:00:11:22:33
domif-getlink vm@ 52:54:00:11:22:99
domif-getlink vm@ vnet9
domblkinfo vm@ vda
domblkinfo vm@ vda --human
domblkinfo vm@ --all
domblkinfo vm@
domblkinfo vm@ vdz
domblkstat vm@ vda
domifstat vm@ vnet0
dommemstat vm@
domstats vm@
domcontrol vm@
cpu-stats vm@
vcpucount vm@
vcpucount vm@ --maximum --config
vcpucount vm@ --live
vcpucount vm@ --maximum --active
vcpuinfo vm@
vcpupin vm@
vcpupin vm@ --vcpu 7
vcpupin vm@ 0 9999
vcpupin vm@ 0 x
vcpupin vm@ --cpulist 0
vcpupin vm@ 0 0 --config
vcpupin vm@
emulatorpin vm@
emulatorpin vm@ 0 --config
emulatorpin vm@
vncdisplay vm@
domdisplay vm@
ttyconsole vm@
dumpxml vm@
dumpxml vm@ --inactive
dumpxml vm@ --xpath //disk/source
dumpxml nope
desc vm@
desc vm@ --title
desc vm@ --title new title --config
desc vm@ --title --config
desc vm@ new words here --config
desc vm@ --config
metadata vm@ http://example.org/a
metadata vm@ http://example.org/a --key a --set "<x>1</x>" --config
metadata vm@ http://example.org/a --config
metadata vm@ http://example.org/a --remove --config
metadata vm@ http://example.org/a --set "<x/>"
autostart vm@
list --all --autostart --name
autostart vm@ --disable
setmem vm@ 32M --config
setmem vm@ 32768 --config
setmem vm@ 5zz
setmem vm@ --kilobytes 16384 --config
setmem vm@ 99T --config
setmaxmem vm@ 128M --config
setmaxmem vm@ 64M --config --current
setvcpus vm@ 1 --config
setvcpus vm@ 0
setvcpus vm@ 4 --config
setvcpus vm@ 4 --maximum
setvcpus vm@ 4 --maximum --config
dominfo vm@
memtune vm@
memtune vm@ --hard-limit 1G --config
memtune vm@ --config
memtune vm@ --hard-limit -1 --config
memtune vm@ --hard-limit x
blkdeviotune vm@ vda
blkdeviotune vm@ vda --total-bytes-sec 1M --config
blkdeviotune vm@ vda --config
blkdeviotune vm@ vda --read_iops_sec 100 --total-iops-sec 5 --config
blkdeviotune vm@ vdz
numatune vm@
schedinfo vm@ --config
attach-disk vm@ {images}/d2.img vdb --print-xml
attach-disk vm@ {images}/d2.img vdb --config
attach-disk vm@ {images}/d2.img vdb --config
attach-disk vm@ {images}/d2.img vdc --mode odd
domblklist vm@
detach-disk vm@ vdb --config
detach-disk vm@ vdz --config
attach-interface vm@ network n1 --mac 52:54:00:00:00:99 --model virtio --print-xml
attach-interface vm@ network n1 --mac 52:54:00:00:00:99 --model virtio --config
attach-interface vm@ odd n1
domiflist vm@
detach-interface vm@ network --mac 52:54:00:00:00:99 --config
detach-interface vm@ network --config
domif-setlink vm@ 52:54:00:11:22:33 down --config
domif-getlink vm@ 52:54:00:11:22:33 --config
domif-setlink vm@ 52:54:00:11:22:33 sideways
change-media vm@ sda {images}/d1.img --config
change-media vm@ sda {images}/d1.img --insert --config
change-media vm@ sda --eject --config
change-media vm@ sda --eject --config
change-media vm@ vda --eject --config
change-media vm@ vdz --eject --config
define {images}/bad.xml
define {images}/notxml.xml
define /nonexistent
define {images}/vm@.xml
define {images}/vm@.xml --validate
create {images}/bad.xml
domrename vm@ other@
domstate other@
domrename other@ vm@
domrename vm@ vm@
suspend vm@
resume vm@
shutdown vm@
shutdown vm@ --mode odd
reboot vm@
reset vm@
destroy vm@
managedsave vm@
managedsave-remove vm@
save vm@ {images}/none/x
restore {images}/nothing
undefine nope
snapshot-list vm@
snapshot-list vm@ --tree
snapshot-current vm@
snapshot-info vm@ nope
snapshot-info vm@
snapshot-create-as vm@ s1 --print-xml
snapshot-delete vm@ nope
net-list
net-list --all
net-list --all --name
net-list --all --uuid
net-list --name --uuid
net-info n1
net-info nope
net-uuid n1
net-name 21111111-2222-3333-4444-555555555555
net-dumpxml n1
net-autostart n1
net-autostart n1 --disable
net-define /nonexistent
net-define {images}/bad.xml
net-destroy n1
net-update n1 odd dns-host x
net-update n1 add odd x
net-update n1 add ip-dhcp-host "<host mac='52:54:00:00:00:0@' ip='192.168.177.1@'/>" --config
net-dhcp-leases nope
net-undefine nope
pool-list --all
pool-define-as p@ dir --target {images}/pool@ --print-xml
pool-define-as p@ dir --target {images}/pool@
pool-define-as p@ dir --target {images}/pool@
pool-info p@
pool-start p@
pool-build p@
pool-start p@
pool-start p@
pool-autostart p@
pool-list --details --name
pool-list --all --name
~pool-info p@
~pool-info p@ --bytes
pool-uuid nope
pool-name nope
pool-dumpxml nope
vol-list p@
vol-create-as p@ v1 1M --print-xml
vol-create-as p@ v1 1M
vol-create-as p@ v1 1M
vol-create-as p@ v2 10x
vol-create-as p@ v3.qcow2 8M --format qcow2 --allocation 0
vol-list p@
vol-list p@ --details
vol-info v1 p@
vol-info v1 --pool p@ --bytes
vol-info nope --pool p@
vol-info nope
vol-info {images}/pool@/v1
vol-path v1 p@
vol-key v1 p@
vol-name {images}/pool@/v1
vol-pool {images}/pool@/v1
vol-resize v1 2M p@
vol-resize v1 1M p@
vol-resize v1 -1M --pool p@
vol-resize v1 1M --pool p@ --shrink
vol-clone v1 v4 p@
vol-upload v1 {images}/data.bin p@
vol-download v1 {images}/out@.bin p@
vol-wipe v1 p@
vol-delete v4 p@
vol-delete v4 p@
!vol-dumpxml v1 p@
pool-refresh p@
pool-destroy p@
pool-destroy p@
pool-undefine p@
iface-list nope
nwfilter-dumpxml nope
nodeinfo extra
version
hostname
uri
maxvcpus
~freecell
freecell --all --cellno 0
~nodecpustats
~nodememstats
nodecpumap
event
event --list
event --event odd
event --event lifecycle --timeout 0
net-event --list
pool-event --list
undefine vm@ --storage vda --remove-all-storage
undefine vm@ --storage vdz
undefine vm@ --wipe-storage
undefine vm@ --nvram --keep-nvram
undefine vm@
undefine vm@
echo a "b c"
echo --shell "b c" d
pwd
"""


def skip(why):
    print("skipped:", why)
    sys.exit(SKIP)


LIBVIRTD = r"""
set -e
for d in /etc/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt /run/libvirt; do mkdir -p $d; done
for d in /etc/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt /run/libvirt; do mount -t tmpfs t $d; done
mkdir -p /etc/libvirt/qemu /etc/libvirt/nwfilter /var/lib/libvirt/images
printf 'user = "root"\ngroup = "root"\nsecurity_driver = "none"\nstdio_handler = "file"\n' > /etc/libvirt/qemu.conf
ip link set lo up
exec libvirtd -f "$1/libvirtd.conf" -p "$1/pid"
"""


def start_libvirtd(top):
    if os.geteuid() != 0:
        skip("starting libvirtd in a namespace needs root")
    for program in "libvirtd", "virsh", "unshare":
        if not shutil.which(program):
            skip(f"{program} is not installed")
    with open(f"{top}/libvirtd.conf", "w") as f:
        f.write(f'unix_sock_dir = "{top}"\nauth_unix_ro = "none"\nauth_unix_rw = "none"\nlog_outputs = "3:file:{top}/log"\n')
    return subprocess.Popen(["unshare", "-mn", "sh", "-c", LIBVIRTD, "sh", top], stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), f"{top}/libvirt-sock"


def start_lodged(top):
    if not shutil.which("virsh"):
        skip("virsh is not installed")
    env = dict(os.environ, XDG_RUNTIME_DIR=f"{top}/run", XDG_CONFIG_HOME=f"{top}/config", XDG_DATA_HOME=f"{top}/data",
               XDG_CACHE_HOME=f"{top}/cache", XDG_STATE_HOME=f"{top}/state", HOME=top)
    for d in "run", "config", "data", "cache", "state":
        os.mkdir(f"{top}/{d}")
    return subprocess.Popen([DAEMON, "--session"], stdin=subprocess.DEVNULL, env=env), f"{top}/run/lodge/lodge-sock"


def wait_for(sock, process):
    for _ in range(600):
        if os.path.exists(sock):
            p = subprocess.run(["virsh", "-c", f"qemu:///system?socket={sock}", "hostname"], capture_output=True)
            if p.returncode == 0:
                return
        if process.poll() is not None:
            skip("the daemon ended at once")
        time.sleep(0.05)
    skip("the daemon does not answer")


def run(program, sock, line, letter, images):
    words = []
    for quoted, plain in re.findall(r'"([^"]*)"|(\S+)', line):
        words.append((quoted or plain).replace("@", letter).replace("{images}", images))
    name = {"a": 'qemu:///system?socket=' + sock}.get("a")
    p = subprocess.run([program, "-c", name, *words], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
                       env=dict(os.environ, LC_ALL="C", TZ="UTC"), cwd="/")
    return p.returncode, p.stdout, p.stderr


def normal(text, letter, images):
    """Makes the two programs' objects look alike."""
    text = text.replace(f"1111111{letter}-", "1111111@-")
    text = re.sub(r"\b(?!1111111@|21111111)[0-9a-f]{8}-[0-9a-f-]{27}\b", "UUID", text)
    for prefix in "vm", "other", "p", f"{images}/pool", f"{images}/out", f"{images}/vm":
        text = re.sub(rf"\b{re.escape(prefix)}{letter}\b" if prefix[0] != "/" else re.escape(prefix) + letter, prefix + "@", text)
    return text


def main():
    top = tempfile.mkdtemp(prefix="lodge-cmp")
    images = f"{top}/images"
    os.mkdir(images)
    process, sock = start_libvirtd(top) if DAEMON == "libvirtd" else start_lodged(top)
    # A program called virsh, but ours.
    os.mkdir(f"{top}/bin")
    os.symlink(os.path.abspath(LODGE), f"{top}/bin/virsh")
    bad = 0
    try:
        wait_for(sock, process)
        for name in "d1.img", "d2.img":
            with open(f"{images}/{name}", "wb") as f:
                f.truncate(1 << 20)
        with open(f"{images}/data.bin", "wb") as f:
            f.write(os.urandom(300000))
        with open(f"{images}/bad.xml", "w") as f:
            f.write("<domain type='kvm'><name>x</name></domain>")
        with open(f"{images}/notxml.xml", "w") as f:
            f.write("<domain")
        with open(f"{images}/net.xml", "w") as f:
            f.write(NETWORK)
        for i, letter in enumerate("12"):
            with open(f"{images}/vm{letter}.xml", "w") as f:
                f.write(DOMAIN.format(type="qemu", name=f"vm{letter}", images=images,
                                      uuid=f"1111111{letter}-2222-3333-4444-555555555555"))
            code, out, err = run("virsh", sock, f"define {images}/vm{letter}.xml", letter, images)
            assert code == 0, err
        run("virsh", sock, f"net-define {images}/net.xml", "1", images)
        total = 0
        for case in CASES.strip().splitlines():
            mark, line = (case[0], case[1:]) if case[0] in "!~" else ("", case)
            line = line.replace("vm@.xml", "vm@.xml")
            answers = []
            for program, letter in ("virsh", "1"), (f"{top}/bin/virsh", "2"):
                code, out, err = run(program, sock, line, letter, images)
                out, err = normal(out, letter, images), normal(err, letter, images)
                if mark == "!":
                    out = ""
                if mark == "~":
                    out = re.sub(r" *[0-9.]+", " #", out)
                answers.append((code, out, err))
            total += 1
            same = answers[0] == answers[1]
            # Both objects stand in a list, one changed before the other: compare them as sets of lines.
            if not same and answers[0][0] == answers[1][0] and answers[0][2] == answers[1][2] and "list" in line:
                same = [re.sub(r"\b(vm|p)[12@]", r"\1@", x[1]) for x in answers]
                same = set(same[0].split()) == set(same[1].split())
            # Where lodged has no snapshots, virsh asks another question first.
            same = same or (DAEMON != "libvirtd" and all(" is not supported by the connection driver: " in x[2] for x in answers))
            if not same:
                bad += 1
                print(f"=== {line}\n--- virsh: {answers[0][0]}\n{answers[0][1]}{answers[0][2]}--- ours: {answers[1][0]}\n"
                      f"{answers[1][1]}{answers[1][2]}")
            elif VERBOSE:
                print("ok", line)
        print(f"{total - bad} of {total} lines alike")
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
        shutil.rmtree(top, ignore_errors=True)
    sys.exit(1 if bad else 0)


main()
