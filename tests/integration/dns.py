"""Rootless networking with a resolver: the guest's DNS questions go through passt to a dnsmasq on the host's loopback, and a name found so leads
to a server there. All in namespaces of their own, with an interface that leads nowhere."""
import http.server, shutil, signal, threading, time
from guest import *

if os.environ.get('LODGE_DNS_INSIDE') is None:
    artifact('KERNEL')
    for tool in ('unshare', 'dnsmasq', 'passt', 'ip'):
        if not shutil.which(tool, path=os.environ.get('PATH', '') + ':/usr/sbin:/sbin'):
            skip(tool + ' is not installed')
    inside = ['unshare', '--user', '--map-root-user', '--mount', '--net', '--']
    if subprocess.run(inside + ['true'], stderr=subprocess.DEVNULL).returncode:
        skip('no user namespaces here')
    os.environ['LODGE_DNS_INSIDE'] = '1'
    os.execvp('unshare', inside + [sys.executable] + sys.argv)

os.environ['PATH'] += ':/usr/sbin:/sbin'
with tempfile.TemporaryDirectory() as tmp:
    with open(tmp + '/resolv.conf', 'w') as f:
        f.write('nameserver 127.0.0.1\n')
    for words in ('ip link set lo up', 'ip tuntap add wan0 mode tap', 'ip addr add 10.99.0.2/24 dev wan0', 'ip link set wan0 up',
                  'ip route add default via 10.99.0.1', 'mount --bind %s/resolv.conf /etc/resolv.conf' % tmp):
        r = subprocess.run(words.split(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if r.returncode:
            skip('%s: %s' % (words, r.stdout.decode().strip()))
    names = subprocess.Popen(['dnsmasq', '--keep-in-foreground', '--no-resolv', '--no-hosts', '--conf-file=/dev/null', '--user=', '--group=',
                              '--pid-file=', '--listen-address=127.0.0.1', '--bind-interfaces', '--log-facility=-',
                              '--address=/files.test/10.99.0.1', '--address=/far.test/192.0.2.77', '--txt-record=words.test,some words'],
                             stderr=subprocess.PIPE)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = b'found by name\n'
            self.send_response(200)
            self.send_header('Content-Length', str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 8099), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        time.sleep(0.5)
        expect(names.poll() is None, 'dnsmasq runs: %s' % (names.stderr.read().decode() if names.poll() is not None else ''))
        r = boot('cat /etc/resolv.conf; ip route; nslookup far.test; nslookup nowhere.invalid; wget -q -O - http://files.test:8099/',
                 ['--net', 'user', '--memory', '256M', '--engine', 'soft'], 'lodge.net')
        expect_output(r, r'^nameserver 10\.99\.0\.1', r'default via 10\.99\.0\.1', r'192\.0\.2\.77', r"can't find nowhere|NXDOMAIN|REFUSED",
                      r'found by name')
    finally:
        names.send_signal(signal.SIGTERM)
        names.wait()
