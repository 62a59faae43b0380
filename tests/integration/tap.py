"""A tap device, in a network namespace of its own: the guest, with a static address, downloads 20 MB from the host and uploads them again;
with one pair of queues and with two. Usage: tap.py QUEUES"""
import hashlib, http.server, threading
from guest import *

queues = int(sys.argv[1])
if os.geteuid() != 0:
    skip('needs root for a network namespace')
if 'LODGE_TEST_NETNS' not in os.environ:
    probe = subprocess.run(['unshare', '-n', 'ip', 'tuntap', 'add', 'dev', 'lodge0', 'mode', 'tap'], stderr=subprocess.PIPE)
    if probe.returncode:
        skip('no tap device in a network namespace: ' + probe.stderr.decode().strip())
    os.execvpe('unshare', ['unshare', '-n', sys.executable] + sys.argv, dict(os.environ, LODGE_TEST_NETNS='1'))

for line in (['tuntap', 'add', 'dev', 'lodge0', 'mode', 'tap'] + (['multi_queue'] if queues > 1 else []),
             ['address', 'add', '10.9.8.1/24', 'dev', 'lodge0'], ['link', 'set', 'lodge0', 'up'], ['link', 'set', 'lo', 'up']):
    subprocess.run(['ip'] + line, check=True)
data = os.urandom(20 << 20)
received = []


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self):
        received.append(self.rfile.read(int(self.headers['Content-Length'])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(('10.9.8.1', 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
port = server.server_address[1]
r = boot('ip link set eth0 up; ip address add 10.9.8.2/24 dev eth0; ls -d /sys/class/net/eth0/queues/[rt]x-* | wc -l;'
         'ping -c 2 -s 1400 10.9.8.1 | grep received; for i in 1 2; do wget -q -O /tmp/f$i http://10.9.8.1:%d/ & done; wait;'
         'md5sum </tmp/f1; md5sum </tmp/f2; (printf "POST / HTTP/1.0\\r\\nContent-Length: %d\\r\\n\\r\\n"; cat /tmp/f1) | nc 10.9.8.1 %d | head -n 1;'
         'cat /sys/class/net/eth0/address' % (port, len(data), port),
         ['--net', 'tap=lodge0,queues=%d,mac=52:54:00:12:34:56' % queues, '--cpus', '2', '--memory', '256M'])
md5 = hashlib.md5(data).hexdigest()
expect_output(r, r'^%d\n2 packets transmitted, 2 packets received' % (2 * queues), r'^%s  -\n%s  -\nHTTP/1.0 200 OK\r?\n52:54:00:12:34:56' % (md5, md5))
expect(received == [data], 'the host got what the guest sent')
