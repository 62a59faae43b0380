"""A CD drive's medium is taken out and another put in while the guest runs; it is told. Usage: media.py"""
from qmp import *

need('/usr/share/seabios/bios-256k.bin', 'seabios')
images = [tempfile.NamedTemporaryFile(suffix='.iso') for _ in range(2)]
for f in images:
    f.truncate(1 << 20)
with Guest('--cdrom', images[0].name, '--memory', '32M') as g:
    def drive():
        return [b for b in g.do('query-block') if b['device'] == 'sda'][0]
    assert drive()['inserted']['file'] == images[0].name, drive()
    g.do('eject', device='sda')
    g.do('blockdev-change-medium', device='sda', filename=images[1].name)
    for command, words in (('eject', {'device': 'sdb'}), ('blockdev-change-medium', {'device': 'sda', 'filename': '/none.iso'})):
        try:
            g.do(command, **words)
            sys.exit('FAILED: %s %s is refused' % (command, words))
        except RuntimeError:
            pass
