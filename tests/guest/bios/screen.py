"""A boot sector of our own draws in text and graphics modes; its pictures are compared with what they must be, and it is led on by
keys. Usage: screen.py ENGINE SECTOR"""
from qmp import *

engine, sector = sys.argv[1:3]
if engine == 'kvm' and not os.access('/dev/kvm', os.R_OK | os.W_OK):
    skip('no usable /dev/kvm')
need('/usr/share/seabios/vgabios-stdvga.bin', 'seabios')
disk = tempfile.NamedTemporaryFile(suffix='.img')
disk.write(open(sector, 'rb').read())
disk.truncate(1 << 20)
disk.flush()

# The attribute controller's colours as the video BIOS sets them: 6 bits each, 0x2a and 0x15 of 0x3f.
EGA = [(0, 0, 0), (0, 0, 170), (0, 170, 0), (0, 170, 170), (170, 0, 0), (170, 0, 170), (170, 85, 0), (170, 170, 170),
       (85, 85, 85), (85, 85, 255), (85, 255, 85), (85, 255, 255), (255, 85, 85), (255, 85, 255), (255, 255, 85), (255, 255, 255)]


def check(ok, what):
    if not ok:
        sys.exit('FAILED: ' + what)


def stage(g, n):
    while g.console().count('.') < n:
        if time.time() > g.end or g.process.poll() is not None:
            sys.exit('the boot sector did not come to picture %d' % n)
        time.sleep(0.02)
    return g.picture()


with Guest('--disk', disk.name, '--memory', '32M', engine=engine) as g:
    p = stage(g, 1)
    check((p.width, p.height) == (720, 400), 'text is 720x400, not %dx%d' % (p.width, p.height))
    for ch in range(256):
        x, y = ch % 32 * 9, (4 + ch // 32) * 16
        inks = {p.pixel(x + i, y + j) for i in range(8) for j in range(16)}
        # Blinking is on after mode 3: seven background colours.
        check(inks <= {EGA[ch & 15], EGA[ch >> 4 & 7]}, 'character %d has the colours of its attribute: %s' % (ch, inks))
    cell = [[p.pixel(ord('A') % 32 * 9 + i, (4 + ord('A') // 32) * 16 + j) == EGA[1] for i in range(8)] for j in range(16)]
    check(sum(map(sum, cell)) > 20 and not any(cell[0]) and not any(cell[15]), 'A is a letter')
    full = 219
    check(p.pixel(full % 32 * 9 + 8, (4 + full // 32) * 16 + 3) == EGA[full & 15], 'a line graphics character joins the next one')
    g.keys('a')
    p = stage(g, 2)
    check((p.width, p.height) == (320, 200), 'mode 13h is 320x200')
    check(len(p.colours()) > 100, 'mode 13h has many colours')
    for x, y in ((0, 0), (5, 3), (200, 100), (319, 199), (64, 1)):
        check(p.pixel(x, y) == p.pixel(x ^ y, 0) if x ^ y < 256 else True, 'pixel %d,%d of mode 13h' % (x, y))
    check([p.pixel(i, 0) for i in range(16)] == EGA, 'the first colours of mode 13h are those of EGA')
    g.keys('b')
    p = stage(g, 3)
    check((p.width, p.height) == (640, 480), 'mode 12h is 640x480')
    for y in (0, 1, 7, 15, 16, 250, 479):
        check(p.pixel(0, y) == EGA[0] and p.pixel(1, y) == EGA[y & 15] and p.pixel(639, y) == EGA[y & 15], 'line %d of mode 12h' % y)
    g.keys('shift+c')
    p = stage(g, 4)
    check((p.width, p.height) == (800, 600), 'VESA mode 0x103 is 800x600')
    check([p.pixel(i, 0) for i in range(16)] == EGA, 'the first colours of the VESA mode')
    check(p.pixel(255, 0) == p.pixel(511, 0) and p.pixel(0, 1) == p.pixel(800 & 255, 0), 'lines of the VESA mode follow each other')
    check(p.pixel(0, 300) == EGA[0], 'the rest is black')
    g.keys('ret')
    check(g.process.wait(30) == 0, 'the sector powers off')
