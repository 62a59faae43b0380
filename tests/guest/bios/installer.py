"""Debian's installer from a CD, by SeaBIOS and isolinux or by OVMF and GRUB, to its first screen, which takes keys.
Usage: installer.py bios|uefi"""
from qmp import *

firmware = sys.argv[1]
iso = os.environ.get('LODGE_INSTALLER')
if not iso or not os.path.exists(iso):
    skip('LODGE_INSTALLER is not set: run ./check, or export it to what tools/guest installer prints')
need('/usr/share/OVMF/OVMF_CODE_4M.fd' if firmware == 'uefi' else '/usr/share/seabios/bios-256k.bin', 'ovmf' if firmware == 'uefi' else 'seabios')
BLUE, GREY, RED = (0, 0, 170), (170, 170, 170), (170, 0, 0)


def dialog(p):
    """A grey box with a red button or line, on blue."""
    mid = p.lines[p.height // 2]
    return (p.width, p.height) == (1280, 800) and p.pixel(3, 100) == BLUE and bytes(GREY) in mid and bytes(RED) in b''.join(p.lines)


with Guest('--memory', '1G', '--cdrom', iso, '--boot', 'cdrom,' + firmware, timeout=240) as g:
    if firmware == 'uefi':
        g.wait('menu of GRUB', lambda p: (p.width, p.height) == (1280, 800) and p.lines[190].count(bytes((152, 152, 152))) > 500)
        # Down to the second entry and up again: the bar moves.
        g.keys('down')
        g.wait('second line of the menu', lambda p: p.lines[190].count(bytes((152, 152, 152))) < 500)
        g.keys('up', 'ret')
    else:
        g.wait('prompt of isolinux', lambda p: p.width == 720 and any(p.lines[16 * 6 + 5]))
        g.keys('ret')
    first = g.wait('first screen of the installer', dialog)
    g.keys('down', 'down')
    g.wait('another choice', lambda p: p.lines != first.lines)
