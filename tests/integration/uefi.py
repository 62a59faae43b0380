"""OVMF starts a Debian kernel given to it, with a copy of the variables that lasts. Usage: uefi.py"""
import tempfile
from guest import *

if not os.path.exists('/usr/share/OVMF/OVMF_CODE_4M.fd'):
    skip('the package ovmf is not installed')
with tempfile.TemporaryDirectory() as d:
    nvram = d + '/vars.fd'
    args = ['--engine', 'soft', '--memory', '512M', '--boot', 'uefi,nvram=' + nvram]
    for start in range(2):
        r = boot('ls -d /sys/firmware/efi; dmesg | grep -c "ACPI: DSDT"; grep -c LOC /proc/interrupts', args)
        r = Result(r.status, re.sub(r'\x1b\[[0-9;?=]*[A-Za-z]', '', r.console), r.stderr) # the firmware's screen
        expect_output(r, r'^/sys/firmware/efi$', r'^1\n1$')
        kept = open(nvram, 'rb').read()
        template = open('/usr/share/OVMF/OVMF_VARS_4M.fd', 'rb').read()
        expect(len(kept) == len(template) and kept != template, 'the firmware has stored its variables in the copy')
    # Secure Boot's build stops without SMM: say so instead.
    p = subprocess.run(command('true', ['--boot', 'uefi,loader=/usr/share/OVMF/OVMF_CODE_4M.secboot.fd']), stdin=subprocess.DEVNULL,
                       capture_output=True, timeout=60)
    expect(p.returncode == 1 and b'system management mode' in p.stderr, 'Secure Boot is refused: ' + p.stderr.decode())
    p = subprocess.run(command('true', ['--boot', 'uefi,loader=/usr/share/OVMF/none.fd']), stdin=subprocess.DEVNULL,
                       capture_output=True, timeout=60)
    expect(p.returncode == 1 and b'install the package ovmf' in p.stderr, 'a missing firmware names its package: ' + p.stderr.decode())
