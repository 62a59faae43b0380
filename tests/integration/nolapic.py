"""Linux without APICs, on the 8259 pair and the PIT: a disk's PCI interrupt arrives by the route that the LPC bridge gives it."""
from guest import *

with tempfile.NamedTemporaryFile() as disk:
    disk.write(b'first line of the disk\n')
    disk.truncate(4 << 20)
    disk.flush()
    r = boot('head -n 1 /dev/vda; dd if=/dev/vda of=/dev/null bs=64k 2>&1 | tail -n 1; cat /proc/interrupts',
             ['--disk', 'path=%s,format=raw' % disk.name, '--net', 'none', '--memory', '256M', '--engine', 'soft'], 'nolapic noapic')
    expect_output(r, r'first line of the disk', r'64\+0 records', r'^\s*1[01]:\s+[1-9]\d*\s+XT-PIC\s.*virtio')
