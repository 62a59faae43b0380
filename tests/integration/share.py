"""--share (9p) under a real kernel: files go both ways, the host sees what the guest did, a read-only share stays as it is, and nothing
outside of the directory can be reached."""
import hashlib, stat
from guest import *

mount = 'mkdir /tmp/s /tmp/r /tmp/l && mount -t 9p -o trans=virtio,version=9p2000.L,msize=131072 share /tmp/s && sh /tmp/s/.script; umount /tmp/s && echo unmounted'
script = r'''
mount -t 9p -o trans=virtio,version=9p2000.L rom /tmp/r || exit 1
mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose again /tmp/l || exit 1
cd /tmp/s
cat greeting
md5sum <big; md5sum </tmp/l/big
cp big copy; dd if=big of=blocks bs=3000 2>/dev/null; cp /tmp/l/big /tmp/l/loose; sync
ls many | wc -l; ls many | md5sum
mkdir -p made/deep; n=0; while [ $n -lt 500 ]; do echo $n >made/deep/$n; n=$((n + 1)); done; ls made/deep | wc -l
echo one >old; mv old made/new; cat made/new; [ -e old ] || echo gone
echo text >file; echo more >>file; cat file; ln file hard; ln -s file link; readlink link; cat link; rm doomed && mv dir renamed
chmod 640 file; stat -c %a file; stat -c '%u:%g %s' greeting; truncate -s 5 short; cat short; echo
touch -d '2001-02-03 04:05:06' file; stat -c %Y file; id -u
touch .due; rmdir made 2>/dev/null || echo 'not empty'; rm .due; : >full/x; rm -r full; [ -e full ] || echo removed
echo == readonly
cat /tmp/r/greeting
for c in 'echo x >/tmp/r/greeting' 'echo x >/tmp/r/new' 'rm /tmp/r/greeting' 'mkdir /tmp/r/d' 'mv /tmp/r/greeting /tmp/r/x' 'chmod 777 /tmp/r/greeting'; do
    sh -c "$c" 2>/dev/null && echo "done: $c"
done
echo == outside
readlink passwd; echo guest-secret >/etc/passwd; cat passwd; cat up/etc/hostname 2>/dev/null; ls ../..//tmp/s/.. | grep -c '^s$'
ln -s /etc/shadow evil; cat evil 2>/dev/null; echo owned >/etc/owned; echo over >through; cat /etc/owned
mknod disk b 8 0 2>/dev/null; chmod 4755 file 2>/dev/null; cat disk 2>/dev/null
echo == end
umount /tmp/r; umount /tmp/l
'''


def md5(data):
    return hashlib.md5(data).hexdigest()


with tempfile.TemporaryDirectory() as tmp:
    share, rom = tmp + '/share', tmp + '/rom'
    big = os.urandom((8 << 20) + 12345)
    for d in share, rom, share + '/many', share + '/dir', share + '/full':
        os.mkdir(d)
    for name, data in (('.script', script.encode()), ('greeting', b'hello from the host\n'), ('big', big), ('doomed', b'x'), ('short', b'123456789')):
        with open(share + '/' + name, 'wb') as f:
            f.write(data)
    names = ['file-%03d-%s' % (i, 'n' * (i % 120)) for i in range(500)]
    for n in names:
        open(share + '/many/' + n, 'w').close()
    with open(rom + '/greeting', 'w') as f:
        f.write('read only\n')
    with open(tmp + '/target', 'w') as f:
        f.write('untouched\n')
    # In the guest these are the guest's own paths.
    os.symlink('/etc/passwd', share + '/passwd')
    os.symlink('../../../../../../..', share + '/up')
    os.symlink('/etc/owned', share + '/through')
    r = boot(mount, ['--share', share, '--share', share + ',tag=again', '--share', rom + ',tag=rom,readonly', '--net', 'none', '--memory', '256M'],
             timeout=280, kernel='_GENERIC')
    me = '%d:%d' % (os.geteuid(), os.getegid())
    made = '\n'.join(['hello from the host', md5(big) + '  -', md5(big) + '  -', '500', md5(('\n'.join(sorted(names)) + '\n').encode()) + '  -',
                      '500', 'one', 'gone', 'text', 'more', 'file', 'text', 'more', '640', me + ' 20', '12345', '981173106', '0',
                      'not empty', 'removed', '== readonly', 'read only', '== outside', '/etc/passwd', 'guest-secret'])
    expect_output(r, '^' + re.escape(made) + r'\n', r'^owned\n|^over\n', r'^unmounted\n')
    expect('done:' not in r.output, 'the read-only share refuses all changes', r)
    expect('root:' not in r.output, "the host's files cannot be read", r)

    def data(name):
        with open(share + '/' + name, 'rb') as f:
            return f.read()

    for name in 'copy', 'blocks', 'loose':
        expect(data(name) == big, 'the host sees the whole %s' % name)
    expect(sorted(os.listdir(share + '/made/deep'), key=int) == [str(i) for i in range(500)], 'the host sees 500 new files')
    expect(data('made/deep/123') == b'123\n' and data('made/new') == b'one\n' and data('file') == b'text\nmore\n', 'their content too')
    expect(os.readlink(share + '/link') == 'file' and os.readlink(share + '/evil') == '/etc/shadow', 'links are as they were made')
    st = os.lstat(share + '/file')
    expect(st.st_nlink == 2 and st.st_ino == os.stat(share + '/hard').st_ino, 'a hard link is one')
    expect(st.st_mtime == 981173106, 'the time is what the guest set')
    expect(st.st_uid == os.geteuid() and not st.st_mode & (stat.S_ISUID | stat.S_ISGID), 'owner and mode are harmless: %o' % st.st_mode)
    expect(sorted(os.listdir(share + '/renamed')) == [], 'a directory was renamed')
    for name in 'doomed', 'dir', 'full', 'old':
        expect(not os.path.lexists(share + '/' + name), '%s is gone' % name)
    expect(not os.path.lexists(share + '/disk') or not stat.S_ISBLK(os.lstat(share + '/disk').st_mode), 'no device node was made')
    expect(os.listdir(rom) == ['greeting'] and open(rom + '/greeting').read() == 'read only\n', 'the read-only share is unchanged')
    expect(not os.path.exists('/etc/owned') and open(tmp + '/target').read() == 'untouched\n', 'nothing outside was written')
