#!/usr/bin/env python3
"""lodge install and lodge clone on a lodged of their own: what they define, what they make, what they refuse.

Usage: test_install.py LODGE LODGED
"""
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree as ET

LODGE, LODGED = map(os.path.abspath, sys.argv[1:3])


class Install(unittest.TestCase):
    def setUp(self):
        self.top = tempfile.mkdtemp(prefix="lodge-inst")
        os.mkdir(f"{self.top}/bin")
        for name in "virsh", "virt-install", "virt-clone":
            os.symlink(LODGE, f"{self.top}/bin/{name}")
        self.env = {**os.environ, "HOME": self.top, "XDG_RUNTIME_DIR": f"{self.top}/run", "LIBVIRT_DEFAULT_URI": "qemu:///session"}
        for name in "CONFIG_HOME", "DATA_HOME", "CACHE_HOME":
            self.env.pop("XDG_" + name, None)
        os.mkdir(f"{self.top}/run")
        self.daemon = subprocess.Popen([LODGED, "--session"], env=self.env, stdin=subprocess.DEVNULL)
        for _ in range(200):
            if os.path.exists(f"{self.top}/run/lodge/lodge-sock"):
                break
            time.sleep(0.05)
        with open(f"{self.top}/install.iso", "wb") as f:
            f.truncate(1 << 20)

    def tearDown(self):
        self.daemon.send_signal(signal.SIGTERM)
        self.daemon.wait(20)
        shutil.rmtree(self.top, ignore_errors=True)

    def run_as(self, program, *args, status=0):
        p = subprocess.run([f"{self.top}/bin/{program}", *args], env=self.env, cwd=self.top, capture_output=True, text=True,
                           timeout=60, stdin=subprocess.DEVNULL)
        self.assertEqual(p.returncode, status, p.stdout + p.stderr)
        return p

    def domain(self, *args):
        return ET.fromstring(self.run_as("virt-install", "--print-xml", *args).stdout)

    def test_the_line_that_people_type(self):
        args = ["--name=vm_name", "--vcpus=2", "--memory=2048", "--cdrom=install.iso", "--disk", "size=20G,format=qcow2",
                "--os-type=linux", "--os-variant=generic"]
        p = self.run_as("virt-install", *args, "--print-xml")
        self.assertIn("--os-type is deprecated", p.stderr)
        d = ET.fromstring(p.stdout)
        self.assertEqual((d.findtext("name"), d.findtext("vcpu"), d.findtext("memory")), ("vm_name", "2", "2097152"))
        self.assertEqual(d.find("os/boot").get("dev"), "cdrom")
        self.assertEqual(d.findtext("on_reboot"), "destroy")
        disks = d.findall("devices/disk")
        self.assertEqual([x.get("device") for x in disks], ["disk", "cdrom"])
        self.assertTrue(disks[0].find("source").get("file").endswith("/images/vm_name.qcow2"))
        second = ET.fromstring(self.run_as("virt-install", *args, "--print-xml", "2").stdout)
        self.assertEqual(second.find("os/boot").get("dev"), "hd")
        self.assertEqual(second.findtext("on_reboot"), "restart")
        self.assertEqual(second.findtext("uuid") is not None and second.findall("devices/disk")[1].find("source"), None)
        self.assertEqual(self.run_as("virsh", "list", "--all", "--name").stdout.strip(), "")

    def test_options_become_elements(self):
        d = self.domain("--name", "o", "--memory", "512", "--vcpus", "sockets=1,cores=2,threads=2", "--import", "--disk", "none",
                        "--os-variant", "generic", "--network", "user,model=virtio,mac=52:54:00:00:00:07", "--graphics",
                        "vnc,port=5907,listen=127.0.0.1", "--cpu", "host-passthrough,+aes", "--features", "apic=off",
                        "--boot", "menu=on", "--xml", "./description=by hand", "--events", "on_crash=restart")
        self.assertEqual(d.findtext("vcpu"), "4")
        self.assertEqual(d.find("cpu/feature").attrib, {"policy": "require", "name": "aes"})
        nic = d.find("devices/interface")
        self.assertEqual((nic.get("type"), nic.find("mac").get("address"), nic.find("model").get("type")),
                         ("user", "52:54:00:00:00:07", "virtio"))
        self.assertEqual(d.find("devices/graphics").get("port"), "5907")
        self.assertIsNone(d.find("features/apic"))
        self.assertEqual(d.findtext("description"), "by hand")
        self.assertEqual(d.findtext("on_crash"), "restart")

    def test_wrong_options_are_refused_and_nothing_is_left(self):
        base = "--name", "w", "--memory", "64", "--os-variant", "generic"
        for args, message in ((["--import", "--disk", "size=lots"], "Improper value for 'size'"),
                              (["--import", "--disk", "none", "--network", "color=red"], "Unknown --network options: ['color']"),
                              (["--import", "--disk", "/nonexistent/x.img"], "Size must be specified"),
                              (["--disk", "none"], "An install method must be specified"),
                              (["--import", "--pxe", "--disk", "none"], "Only one install method"),
                              (["--cdrom", "none.iso", "--disk", "none"], "No such file"),
                              (["--location", self.top, "--disk", "none"], "Could not find an installable distribution"),
                              (["--import", "--disk", "none", "--unattended"], "--unattended")):
            p = self.run_as("virt-install", *base, *args, status=1)
            self.assertIn(message, p.stderr)
        p = self.run_as("virt-install", "--name", "w", "--memory", "64", "--import", "--disk", "none", "--os-variant", "nosuch9",
                        status=1)
        self.assertIn("Unknown OS name 'nosuch9'", p.stderr)
        self.run_as("virt-install", "--fly", status=2)
        self.assertEqual(self.run_as("virsh", "list", "--all", "--name").stdout.strip(), "")

    def test_define_clone_undefine(self):
        self.run_as("virt-install", "--name", "one", "--memory", "64", "--import", "--noreboot", "--disk",
                    "size=1M,format=raw", "--os-variant", "generic", "--network", "none", "--graphics", "none", "--noautoconsole",
                    "--virt-type", "qemu", "--xml", "./devices/disk/target/@bus=virtio", "--xml", "./devices/disk/target/@dev=vda")
        image = f"{self.top}/.local/share/lodge/images/one.img"
        self.assertEqual(os.path.getsize(image), 1 << 20)
        with open(image, "r+b") as f:
            f.write(b"precious")
        p = self.run_as("virt-clone", "--original", "one", "--name", "two", "--auto-clone")
        self.assertIn("Clone 'two' created successfully.", p.stdout)
        copy = f"{self.top}/.local/share/lodge/images/two.img"
        with open(copy, "rb") as f:
            self.assertEqual(f.read(8), b"precious")
        one, two = (ET.fromstring(self.run_as("virsh", "dumpxml", x).stdout) for x in ("one", "two"))
        self.assertNotEqual(one.findtext("uuid"), two.findtext("uuid"))
        self.assertEqual(two.find("devices/disk/source").get("file"), copy)
        self.assertIn("already in use", self.run_as("virt-clone", "-o", "one", "-n", "two", "--auto-clone", status=1).stderr)
        self.assertIn("was not found", self.run_as("virt-clone", "-o", "none", "--auto-clone", status=1).stderr)
        d = ET.fromstring(self.run_as("virt-clone", "-o", "one", "--auto-clone", "--print-xml").stdout)
        self.assertEqual(d.findtext("name"), "one-clone")
        self.run_as("virsh", "undefine", "two", "--remove-all-storage")
        self.assertFalse(os.path.exists(copy))
        self.assertTrue(os.path.exists(image))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
