"""Debian's programs with tests of their own, in a guest: stress-ng --verify, Python's test suite, OpenSSL, gcc, and programs that generate code
(LuaJIT, node, OpenJDK) or step others (gdb). Long, so only with a list of what to run:

usage: programs.py [--engine-arg WORD]... all | NAME...        ($LODGE_PROGRAMS is the list when none is given; without both: skipped)

Packages come from the Debian mirror that apt knows; they are unpacked into a copy of the guest's root file system.
"""
import argparse, time
from guest import *

# name: packages that the root file system lacks, seconds, the command. It must print "OK NAME" at the end of its work and nothing like it before.
PROGRAMS = {
    'stress-ng': (['stress-ng'], 400,
                  'stress-ng --verify --cpu 2 --cpu-ops 300 --matrix 1 --matrix-ops 200 --vm 1 --vm-bytes 32M --vm-ops 2000 --futex 1 '
                  '--futex-ops 20000 --timeout 200 2>&1 | tee /tmp/r; stress-ng --verify --cpu 1 --cpu-method all --cpu-ops 80 --timeout 120 2>&1 | '
                  'tee -a /tmp/r; [ "$(grep -c "successful run completed" /tmp/r)" = 2 ] && ! grep -q fail: /tmp/r && echo OK stress-ng'),
    'python': (['libpython3.11-testsuite'], 900,
               'cd /tmp && python3 -m test -j0 test_math test_cmath test_float test_struct test_hashlib test_zlib test_json test_re test_long '
               'test_complex test_array test_bisect test_set test_dict test_sort test_random test_statistics test_fractions test_pow test_strtod '
               'test_threading test_signal test_generators test_decimal 2>&1 | tail -12 | tee /tmp/r; grep -qi "result: SUCCESS" /tmp/r && echo OK python'),
    'openssl': ([], 300,
                'cd /tmp; head -c 300000 /dev/urandom >a; ok=1; for c in aes-128-cbc aes-256-ctr chacha20 camellia-128-cbc aria-128-ctr; do '
                'openssl enc -$c -pbkdf2 -k x -in a -out b && openssl enc -d -$c -pbkdf2 -k x -in b | cmp - a || ok=; done; '
                'for d in md5 sha1 sha256 sha512 sha3-256 blake2b512; do [ "$(openssl dgst -$d -r a | cut -d" " -f1)" = '
                '"$(python3 -c "import hashlib,sys; n=sys.argv[1].replace(\'-\',\'_\').replace(\'blake2b512\',\'blake2b\'); '
                'print(hashlib.new(n.replace(\'_\',\'_\'), open(\'a\',\'rb\').read()).hexdigest())" $d)" ] || ok=; done; '
                'openssl genrsa -out k 2048 2>/dev/null && openssl dgst -sha256 -sign k -out s a && openssl rsa -in k -pubout -out p 2>/dev/null && '
                'openssl dgst -sha256 -verify p -signature s a || ok=; openssl ecparam -name prime256v1 -genkey -noout -out e && '
                'openssl dgst -sha256 -sign e -out s a && openssl dgst -sha256 -prverify e -signature s a || ok=; '
                'openssl speed -seconds 1 -bytes 8192 -evp aes-128-gcm 2>/dev/null | tail -1; [ "$ok" ] && echo OK openssl'),
    'gcc': ([], 400,
            'mkdir -p /tmp/p && cd /tmp/p && python3 -c "\nfor i in range(30):\n open(f\'f{i}.c\',\'w\').write(\'#include <stdio.h>\\n#include <string.h>\\n\' + '
            '\'\'.join(f\'unsigned f{i}_{k}(unsigned x) {{ char b[64]; snprintf(b, sizeof b, \\"%u-%d\\", x, {k}); return x * {i * 40 + k + 1}u ^ (unsigned)strlen(b) << {k % 8}; }}\\n\' '
            'for k in range(40)))\nopen(\'main.c\',\'w\').write(\'#include <stdio.h>\\n\' + \'\'.join(f\'unsigned f{i}_{k}(unsigned);\\n\' for i in range(30) for k in range(40)) + '
            '\'int main(void) { unsigned x = 1;\\n\' + \'\'.join(f\'x = f{i}_{k}(x);\\n\' for i in range(30) for k in range(40)) + \'printf(\\"%u\\\\\\\\n\\", x); }\\n\')\n" && '
            'for o in 0 2 3; do for f in *.c; do gcc -O$o -march=x86-64-v3 -c $f || exit 1; done; gcc -o p$o *.o && ./p$o; done | sort | uniq -c | tee /tmp/r; '
            '[ "$(wc -l </tmp/r)" = 1 ] && grep -q "^ *3 " /tmp/r && echo OK gcc'),
    'luajit': (['luajit'], 200,
               'cat >/tmp/l.lua <<"END"\nlocal ffi = require "ffi"\nffi.cdef "double sqrt(double);"\nlocal s, t = 0, {}\nfor i = 1, 3000000 do s = s + ffi.C.sqrt(i) % 7 '
               'end\nfor i = 1, 200000 do t[i % 1000 + 1] = (t[i % 1000 + 1] or 0) + i end\nlocal m = 0\nfor k, v in ipairs(t) do m = (m + v * k) % 1000003 end\n'
               'print(string.format("%.6f %d", s, m))\nEND\nL=$(ls /usr/bin/luajit* | head -1); a=$($L /tmp/l.lua); b=$($L -joff /tmp/l.lua); echo "$a"; [ "$a" = "$b" ] && [ "$a" ] && echo OK luajit'),
    'node': (['nodejs'], 400,
             'cat >/tmp/n.js <<"END"\nconst crypto = require("crypto");\nlet h = 0; const m = new Map();\nfor (let i = 0; i < 2000000; i++) { h = (Math.imul(h, 31) + (i ^ h >>> 3)) | 0; '
             'if (i % 100 == 0) m.set("k" + i, h); }\nlet f = 0; for (let i = 1; i < 1000000; i++) f += Math.sin(i) / i;\n'
             'console.log(h, m.size, f.toFixed(9), crypto.createHash("sha256").update(String(h)).digest("hex"));\nEND\n'
             'a=$(node /tmp/n.js); b=$(node --jitless /tmp/n.js); echo "$a"; [ "$a" = "$b" ] && [ "$a" ] && echo OK node'),
    'java': (['openjdk-17-jre-headless'], 600,
             'cat >/tmp/T.java <<"END"\npublic class T { public static void main(String[] a) throws Exception { long h = 7; double f = 0; java.util.HashMap<String, Integer> m = '
             'new java.util.HashMap<>(); for (int i = 1; i < 3000000; i++) { h = h * 31 + (i ^ h >>> 5); if (i % 50 == 0) m.merge("k" + h % 999, i, Integer::sum); f += Math.sqrt(i) '
             '/ (i + 1.5); } System.out.println(h + " " + m.size() + " " + String.format("%.9f", f)); } }\nEND\n'
             'J=$(ls -d /usr/lib/jvm/java-*/bin/java | head -1); a=$($J /tmp/T.java); b=$($J -XX:TieredStopAtLevel=1 /tmp/T.java); echo "$a"; [ "$a" = "$b" ] && [ "$a" ] && echo OK java'),
    'gdb': (['gdb'], 200,
            'cd /tmp; printf "#include <stdio.h>\\nint g;\\nint f(int x) { g = x * 2; return g + 1; }\\nint main(void) { int s = 0; for (int i = 0; i < 5; i++) s += f(i); '
            'printf(\\"%%d\\\\\\\\n\\", s); return 0; }\\n" >d.c && gcc -g -O0 -o d d.c && gdb -q -batch -ex "break f if x == 3" -ex run -ex "watch g" -ex continue '
            '-ex "print g" -ex finish -ex "stepi" -ex "stepi" -ex delete -ex continue ./d 2>&1 | tee /tmp/r; grep -q "New value = 6" /tmp/r && grep -q "exited normally" /tmp/r && echo OK gdb'),
}

ap = argparse.ArgumentParser()
ap.add_argument('--engine-arg', action='append', default=[])
ap.add_argument('--keep', help='a directory for the root file system, kept for the next time')
ap.add_argument('names', nargs='*')
args = ap.parse_args()
names = args.names or os.environ.get('LODGE_PROGRAMS', '').split()
if not names:
    skip('long: name programs, or all, or set LODGE_PROGRAMS')
if names == ['all']:
    names = list(PROGRAMS)
rootfs = artifact('ROOTFS')
if os.geteuid() != 0:
    skip('needs root to make a root file system')


def make_root(tmp, disk):
    root = tmp + '/root'
    os.mkdir(root)
    subprocess.run(['tar', '-C', root, '-xf', os.path.splitext(rootfs)[0] + '.tar'], check=True)
    packages = sorted({p for n in names for p in PROGRAMS[n][0]})
    if packages:
        # What is missing, by the guest's own list of what it has; what this machine has downloaded before counts as missing, too.
        os.makedirs(tmp + '/archives/partial')
        r = subprocess.run(['apt-get', '-o', 'Dir::State::status=%s/var/lib/dpkg/status' % root, '-o', 'Dir::Cache::archives=%s/archives' % tmp,
                            '--no-install-recommends', '--print-uris', '-y', 'install'] + packages, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        uris = re.findall(r"^'([^']+)' (\S+)", r.stdout, re.M)
        if not uris:
            skip('apt does not know where the packages are: %s' % r.stdout[-300:])
        wanted = [re.sub(r'_[^_]*$', '', f).replace('%3a', ':').split('_')[0] + '=' + re.search(r'_([^_]*)_', f).group(1).replace('%3a', ':')
                  for _, f in uris]
        os.mkdir(tmp + '/debs')
        subprocess.run(['apt-get', '-q', '-o', 'APT::Sandbox::User=root', 'download'] + wanted, cwd=tmp + '/debs', check=True,
                       stdout=subprocess.DEVNULL)
        for f in sorted(os.listdir(tmp + '/debs')):
            data = subprocess.run(['dpkg-deb', '--fsys-tarfile', f], cwd=tmp + '/debs', check=True, stdout=subprocess.PIPE).stdout
            subprocess.run(['tar', '-x', '--keep-directory-symlink', '-C', root], input=data, check=True)
    subprocess.run(['truncate', '-s', '4G', disk], check=True)
    subprocess.run(['mke2fs', '-q', '-t', 'ext4', '-L', 'root', '-d', root, disk], check=True)


with tempfile.TemporaryDirectory() as tmp:
    disk = tmp + '/disk.ext4'
    kept = args.keep and args.keep + '/programs-%s.ext4' % '-'.join(names)
    if kept and os.path.exists(kept):
        subprocess.run(['cp', '--sparse=always', kept, disk], check=True)
    else:
        make_root(tmp, disk)
        if kept:
            subprocess.run(['cp', '--sparse=always', disk, kept], check=True)
    bad = []
    for name in names:
        start = time.monotonic()
        with open(tmp + '/run', 'wb') as f: # the command, as a disk
            text = PROGRAMS[name][2].encode() + b'\n'
            f.write(text + b'\n' * (-len(text) % 512))
        r = boot('ldconfig; export HOME=/root LANG=C.UTF-8; cat /dev/vdb >/run/command; timeout %d sh /run/command' % PROGRAMS[name][1],
                 ['--engine', 'soft', '--cpus', '2', '--memory', '2G', '--net', 'none', '--disk', 'path=%s,format=raw,cache=unsafe' % disk,
                  '--disk', 'path=%s/run,format=raw,readonly=on' % tmp] + args.engine_arg, 'root=/dev/vda', timeout=PROGRAMS[name][1] + 120)
        ok = r.output is not None and re.search(r'^OK %s$' % re.escape(name), r.output, re.M)
        print('%s: %s, %.0f s' % (name, 'passed' if ok else 'FAILED', time.monotonic() - start), flush=True)
        if not ok:
            print(r.console[-3000:])
            bad.append(name)
    expect(not bad, 'programs that work: not %s' % ' '.join(bad))
