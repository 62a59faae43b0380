"""Rootless networking: DHCP, and TCP both ways between guest and the host's loopback through passt."""
import http.server, threading
from guest import *


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'hello from the host\n' + b'x' * 2000000
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
port = server.server_address[1]
r = boot('ip -4 addr show eth0 | grep inet; ip route | grep default; gw=$(ip route | sed -n "s/default via \\([^ ]*\\).*/\\1/p");'
         'wget -q -O /tmp/f http://$gw:%d/; head -n 1 /tmp/f; wc -c </tmp/f; cat /etc/resolv.conf' % port,
         ['--net', 'user', '--memory', '256M'], 'lodge.net')
expect_output(r, r'inet \d+\.', r'default via', r'hello from the host', r'2000020')
