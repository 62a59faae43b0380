"""Programs of ours in the guest, against their output on real hardware. Usage: faults.py FAULTS-PROGRAM EXPECTED"""
import shutil
from guest import *

program, expected = sys.argv[1:3]
initramfs = artifact('INITRAMFS')
with tempfile.TemporaryDirectory() as d:
    shutil.copy(program, d + '/faults')
    extra = subprocess.run(['cpio', '-o', '-H', 'newc', '-R', '0:0', '--quiet'], input=b'faults\n', cwd=d, stdout=subprocess.PIPE,
                           check=True).stdout
    with open(d + '/initrd', 'wb') as f:
        f.write(open(initramfs, 'rb').read() + extra)
    os.environ['LODGE_INITRAMFS'] = d + '/initrd'
    r = boot('/faults', ['--engine', 'soft', '--cpus', '2', '--machine', 'micro', '--net', 'none'])
expect_output(r)
want = open(expected).read()
expect(r.output == want, 'the guest sees what a program sees on hardware', r)
