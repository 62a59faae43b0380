"""Bad input: one clear line that names the file and what is wrong, and the right exit status."""
from guest import *

kernel = artifact('KERNEL')
with tempfile.TemporaryDirectory() as tmp:
    def write(name, data):
        with open(tmp + '/' + name, 'wb') as f:
            f.write(data)
        return tmp + '/' + name

    with open(kernel, 'rb') as f:
        image = f.read()
    cases = [
        (['--kernel', tmp + '/none'], 1, [tmp + '/none', 'No such file']),
        (['--kernel', write('short', image[:300])], 1, ['short']),
        (['--kernel', write('cut', image[:1000000])], 1, ['cut']),
        (['--kernel', write('text', b'hello world\n' * 1000)], 1, ['text']),
        (['--kernel', write('empty', b'')], 1, ['empty']),
        (['--kernel', kernel, '--initrd', tmp + '/none'], 1, [tmp + '/none']),
        (['--kernel', kernel, '--disk', 'path=' + tmp + '/none'], 1, [tmp + '/none']),
        (['--kernel', kernel, '--disk', 'path=' + tmp], 1, [tmp]),
        (['--kernel', kernel, '--disk', 'format=raw'], 2, ['path']),
        (['--kernel', kernel, '--memory', 'lots'], 2, ['lots']),
        (['--kernel', kernel, '--cpus', '0'], 2, ['cpus']),
        (['--kernel', kernel, '--cpu', 'i8086'], 1, ['i8086']),
        (['--kernel', kernel, '--engine', 'warp'], 2, ['warp']),
        (['--kernel', kernel, '--wrong'], 2, ['--wrong']),
        (['--kernel', kernel, '--net', 'tap=nosuchtap0'], 1, ['nosuchtap0']),
        (['--xml', write('bad.xml', b'<domain type="kvm"><name>x</name>')], 1, ['bad.xml']),
        (['--xml', tmp + '/none.xml'], 1, ['none.xml']),
        ([], 2, ['kernel']),
    ]
    for args, status, words in cases:
        serial = [] if args[:1] == ['--xml'] else ['--serial', 'file=/dev/null']
        p = subprocess.run([LODGE, 'run'] + serial + args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, timeout=60)
        text = p.stderr.decode()
        expect(p.returncode == status, '%s: status %d, not %d: %s' % (args, p.returncode, status, text))
        for w in words:
            expect(w in text, '%s: says %r: %r' % (args, w, text))
        expect(status == 2 or text.count('\n') == 1, '%s: one line: %r' % (args, text))
