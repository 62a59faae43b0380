#!/usr/bin/env python3
"""Appliances become images and a domain that lodge understands."""
import os
import tarfile
import xml.etree.ElementTree as ET

import peer

OVF = """<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
 <References><File ovf:href="d1.vmdk" ovf:id="f1"/><File ovf:href="d2.vmdk" ovf:id="f2"/></References>
 <DiskSection><Info/><Disk ovf:diskId="one" ovf:fileRef="f1"/><Disk ovf:diskId="two" ovf:fileRef="f2"/></DiskSection>
 <VirtualSystem ovf:id="vm"><Name>shop</Name>
  <OperatingSystemSection ovf:id="94"><Description>Ubuntu_64</Description></OperatingSystemSection>
  <VirtualHardwareSection>
   <Item><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>3</rasd:VirtualQuantity></Item>
   <Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:ResourceType>4</rasd:ResourceType>
    <rasd:VirtualQuantity>768</rasd:VirtualQuantity></Item>
   <Item><rasd:HostResource>ovf:/disk/one</rasd:HostResource><rasd:ResourceType>17</rasd:ResourceType></Item>
   <Item><rasd:HostResource>ovf:/disk/two</rasd:HostResource><rasd:ResourceType>17</rasd:ResourceType></Item>
   <Item><rasd:ResourceType>10</rasd:ResourceType></Item>
  </VirtualHardwareSection></VirtualSystem></Envelope>
"""


class Import(peer.ImageTest):
    def setUp(self):
        super().setUp()
        for i in 1, 2:
            self.raw(f"d{i}.raw", i << 22, seed=i)
            self.peer("convert", "-O", "vmdk", "-o", "subformat=streamOptimized", f"d{i}.raw", f"d{i}.vmdk")
        with open(self.path("shop.ovf"), "w") as f:
            f.write(OVF)
        with tarfile.open(self.path("shop.ova"), "w", format=tarfile.USTAR_FORMAT) as t:
            for name in "shop.ovf", "d1.vmdk", "d2.vmdk":
                t.add(self.path(name), name)

    def check(self, source, bus="virtio"):
        os.mkdir(self.path("out"))
        root = ET.fromstring(self.img("import", "-d", "out", source).stdout)
        self.assertEqual((root.find("name").text, root.find("vcpu").text, root.find("memory").text), ("shop", "3", str(768 << 10)))
        disks = root.findall("devices/disk")
        self.assertEqual([d.find("target").get("bus") for d in disks], [bus, bus])
        for i, d in enumerate(disks):
            self.peer("compare", "-F", "raw", d.find("source").get("file"), f"d{i + 1}.raw")
        self.assertEqual(len(root.findall("devices/interface")), 1)
        with open(self.path("shop.xml"), "wb") as f:
            f.write(ET.tostring(root))
        peer.run(peer.LODGE, "run", "--xml", "shop.xml", "--print-xml", cwd=self.cwd)

    def test_ova(self):
        self.check("shop.ova")

    def test_ovf(self):
        self.check("shop.ovf")

    def test_bad(self):
        good = self.data("shop.ova")
        for bad in (b"", b"x" * 5000, good[:700], good[:-len(good) // 2], good.replace(b"d2.vmdk", b"d3.vmdk", 1),
                    good.replace(b"<Envelope", b"<Envelop ", 1)):
            with open(self.path("bad.ova"), "wb") as f:
                f.write(bad)
            p = self.img("import", "-d", self.folder.name, "-n", f"x{len(bad)}", "bad.ova", ok=False)
            self.assertEqual(p.returncode, 1, bad[:20])
            self.assertRegex(p.stderr, "^lodge img: .*\n$")


if __name__ == "__main__":
    peer.main()
