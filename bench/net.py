#!/usr/bin/env python3
"""TCP between a guest and the host through passt, beside QEMU in the same run.

usage: bench/net.py --kernel F --initrd F [--lodge PROGRAM] [--runs N] [--megabytes N]
Kernel and initramfs as from tools/guest. The guest downloads from, and uploads to, a server on the host's loopback; downloads are
timed in the guest, uploads on the host (the guest reads its file first). Medians of MB/s; the ratio is Lodge / QEMU, higher is better
for Lodge. QEMU runs with TCG and the same passt over -netdev stream.
"""
import argparse, base64, os, re, socket, statistics, subprocess, sys, threading, time

ap = argparse.ArgumentParser()
ap.add_argument('--kernel', required=True)
ap.add_argument('--initrd', required=True)
ap.add_argument('--lodge', default='build/src/main/lodge')
ap.add_argument('--runs', type=int, default=3)
ap.add_argument('--megabytes', type=int, default=100)
args = ap.parse_args()
data = os.urandom(1 << 20) * args.megabytes
UPLOAD = 64  # MiB
uploads = []


def serve(conn):
    """HTTP, as much as busybox needs."""
    with conn:
        head = b''
        while b'\r\n\r\n' not in head:
            chunk = conn.recv(65536)
            if not chunk:
                return
            head += chunk
        head, body = head.split(b'\r\n\r\n', 1)
        length = int((re.search(rb'Content-Length: (\d+)', head, re.I) or [0, 0])[1])
        left, start = length - len(body), time.monotonic()
        while left > 0:
            left -= len(conn.recv(1 << 20))
        uploads.append((length - len(body)) / 1e6 / (time.monotonic() - start))
        reply = data if head.startswith(b'GET') else b'thanks' if length == UPLOAD << 20 else b'short'
        conn.sendall(b'HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n' % len(reply) + reply)


server = socket.create_server(('127.0.0.1', 0))
port = server.getsockname()[1]


def accept():
    while True:
        threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()


threading.Thread(target=accept, daemon=True).start()
command = '''gw=$(ip route | sed -n "s/default via \\([^ ]*\\).*/\\1/p")
now() { awk '{print $1}' /proc/uptime; }
a=$(now); wget -q -O /dev/null http://$gw:%d/ && n=whole; b=$(now); echo down $a $b $n
dd if=/dev/zero bs=1M count=%d 2>/dev/null | busybox tr '\\0' x >/tmp/f
echo up $(wget -q -O - --post-file=/tmp/f http://$gw:%d/)
''' % (port, UPLOAD, port)
append = 'console=ttyS0 quiet lodge.net lodge.exec=' + base64.b64encode(command.encode()).decode()


def finish(p):
    try:
        out = p.communicate(timeout=600)[0].decode(errors='replace')
    finally:
        p.kill()
    down = re.search(r'^down ([\d.]+) ([\d.]+) whole', out, re.M)
    up = re.search(r'^up thanks', out, re.M)
    if not down or not up:
        sys.exit('the guest did not say what was expected:\n' + out[-2000:])
    return len(data) / 1e6 / (float(down.group(2)) - float(down.group(1))), uploads[-1]


def lodge():
    return finish(subprocess.Popen(
        [args.lodge, 'run', '--engine', 'soft', '--memory', '512M', '--net', 'user', '--kernel', args.kernel, '--initrd', args.initrd,
         '--append', append], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))


def qemu():
    a, b = socket.socketpair()
    passt = subprocess.Popen(['passt', '-f', '-q', '-F', str(b.fileno())], pass_fds=[b.fileno()], stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    b.close()
    try:
        return finish(subprocess.Popen(
            ['qemu-system-x86_64', '-nodefaults', '-display', 'none', '-accel', 'tcg', '-machine', 'q35', '-m', '512', '-no-reboot',
             '-serial', 'stdio', '-netdev', 'stream,id=n,server=off,addr.type=fd,addr.str=%d' % a.fileno(),
             '-device', 'virtio-net-pci,netdev=n,host_mtu=65520', '-kernel', args.kernel, '-initrd', args.initrd, '-append', append],
            pass_fds=[a.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    finally:
        a.close()
        passt.kill()
        passt.wait()


l, q = [], []
for i in range(args.runs):
    l.append(lodge())
    q.append(qemu())
print('%-28s %9s %9s' % ('', 'Lodge', 'QEMU'))
for i, what in enumerate(('TCP to the guest', 'TCP from the guest')):
    a, b = statistics.median(x[i] for x in l), statistics.median(x[i] for x in q)
    print('%-28s %9.1f %9.1f MB/s ratio %.2f' % (what, a, b, a / b))
