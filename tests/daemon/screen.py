"""A guest's screen: where it is, a connection to it, a picture, keys; and the real virt-manager showing it, under Xvfb. The
picture of virt-manager's window is kept as virt-manager.png in the folder MESON_BUILD_ROOT."""
import os, shutil, subprocess, sys, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import *

libvirt = libvirt_module()


def virt_manager(d):
    programs = ("Xvfb", "virt-manager", "import", "convert", "dbus-run-session")
    missing = [p for p in programs if not shutil.which(p)]
    if missing:
        print("virt-manager was not tried: no", ", ".join(missing))
        return
    out = os.environ.get("MESON_BUILD_ROOT", d.root) + "/virt-manager.png"
    number, write = os.pipe()
    x = subprocess.Popen(["Xvfb", "-displayfd", str(write), "-screen", "0", "800x600x24", "-nolisten", "tcp"],
                         pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    env = dict(os.environ, HOME=d.root, LC_ALL="C", DISPLAY=":" + os.read(number, 16).decode().strip(), NO_AT_BRIDGE="1")
    p = subprocess.Popen(["dbus-run-session", "virt-manager", "--no-fork", "--connect", d.uri, "--show-domain-console", "e"],
                         env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        def shows_the_screen():
            # The guest's screen is black; the window around it, and any message in its place, is light.
            if subprocess.run(["import", "-window", "root", out], env=env, stderr=subprocess.DEVNULL).returncode:
                return False
            grey = subprocess.run(["convert", out, "-crop", "600x400+100+150", "-colorspace", "Gray", "-format", "%[fx:maxima]", "info:"],
                                  stdout=subprocess.PIPE, text=True).stdout
            bar = subprocess.run(["convert", out, "-crop", "600x10+100+5", "-colorspace", "Gray", "-format", "%[fx:maxima]", "info:"],
                                 stdout=subprocess.PIPE, text=True).stdout
            time.sleep(0.3)
            return float(grey or 1) < 0.1 and float(bar or 0) > 0.8
        wait("virt-manager shows the guest's screen", shows_the_screen, 90)
    finally:
        import signal
        os.killpg(p.pid, signal.SIGKILL)
        p.wait()
        x.terminate()
        x.wait()


with Daemon() as d:
    kernel = kernel_of_few_instructions(d.root + "/halt", ECHO)
    c = libvirt.open(d.uri)
    g = c.createXML(domain_xml("e", kernel, machine="q35", memory=64,
                               devices="<graphics type='vnc' port='-1' autoport='yes' passwd='secret'/><video><model type='vga'/></video>"))
    host, number = d.virsh("vncdisplay", "e").rsplit(":", 1)
    assert host == "127.0.0.1" and int(number) >= 0
    assert "passwd" not in g.XMLDesc() and "passwd='secret'" in g.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE)
    fd = g.openGraphicsFD(0, 0)
    assert os.read(fd, 4) == b"RFB "
    os.close(fd)
    d.virsh("screenshot", "e", d.root + "/screen.ppm")
    assert open(d.root + "/screen.ppm", "rb").read(2) == b"P6"
    d.virsh("send-key", "e", "KEY_LEFTCTRL", "KEY_LEFTALT", "KEY_DELETE")
    g.destroy()
    g = c.createXML(domain_xml("e", kernel, machine="q35", memory=64,
                               devices="<graphics type='vnc' port='-1' autoport='yes'/><video><model type='vga'/></video>"))
    virt_manager(d)
    c.close()
print("ok")
