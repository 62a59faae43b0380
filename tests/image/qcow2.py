#!/usr/bin/env python3
"""qcow2 of every kind beside the peer: what either makes or changes, the other reads, checks and changes."""
import peer

KINDS = ["", "compat=0.10", "cluster_size=512", "cluster_size=2M", "refcount_bits=1", "refcount_bits=64,cluster_size=4k",
         "extended_l2=on", "compression_type=zstd", "lazy_refcounts=on", "data_file=DATA", "preallocation=metadata"]
SIZE = 9 << 20


class Qcow2(peer.ImageTest):
    def kinds(self):
        for i, kind in enumerate(KINDS):
            option = kind.replace("DATA", f"data{i}")
            yield kind, (["-o", option] if option else [])

    def sound(self, image):
        self.peer("check", image)
        self.img("check", image)
        self.img("compare", image, image)

    def test_made_by_either(self):
        for maker, other in ((self.img, self.peer), (self.peer, self.img)):
            for kind, options in self.kinds():
                with self.subTest(kind=kind, maker=maker.__name__):
                    self.raw("src.raw", SIZE)
                    maker("convert", "-O", "qcow2", *options, "src.raw", "a.qcow2")
                    self.sound("a.qcow2")
                    other("compare", "a.qcow2", "src.raw")
                    # The other changes it, and both see the same.
                    self.io("a.qcow2", "write -P 3 1M 70000", "write -z 2M 300k", "discard 3M 200k", "write -P 4 8M 512")
                    self.img("convert", "-O", "raw", "a.qcow2", "b.raw")
                    self.peer("compare", "a.qcow2", "b.raw")
                    other("resize", "a.qcow2", "+3M")
                    self.sound("a.qcow2")

    def test_our_writes(self):
        for kind, options in self.kinds():
            with self.subTest(kind=kind):
                self.raw("src.raw", SIZE, seed=9)
                self.peer("convert", "-O", "qcow2", *options, "src.raw", "a.qcow2")
                self.img("io", "-c", "write -P 3 1M 70000", "-c", "write -z 2M 300k", "-c", "discard 3M 200k", "-c",
                         "write -P 4 8M 512", "a.qcow2")
                self.sound("a.qcow2")
                self.peer("convert", "-O", "raw", "a.qcow2", "b.raw")
                self.img("compare", "a.qcow2", "b.raw")

    def test_snapshots(self):
        for kind, options in self.kinds():
            if kind not in ("", "compat=0.10", "cluster_size=512", "extended_l2=on"):
                continue
            for first, second in ((self.img, self.peer), (self.peer, self.img)):
                with self.subTest(kind=kind, first=first.__name__):
                    self.raw("src.raw", SIZE, seed=4)
                    self.peer("convert", "-O", "qcow2", *options, "src.raw", "a.qcow2")
                    first("snapshot", "-c", "one", "a.qcow2")
                    self.io("a.qcow2", "write -P 3 1M 3M")
                    second("snapshot", "-c", "two", "a.qcow2")
                    self.img("io", "-c", "write -P 5 0 2M", "a.qcow2")
                    self.sound("a.qcow2")
                    second("snapshot", "-a", "one", "a.qcow2")
                    self.peer("compare", "a.qcow2", "src.raw")
                    first("snapshot", "-d", "one", "a.qcow2")
                    self.sound("a.qcow2")
                    second("snapshot", "-a", "two", "a.qcow2")
                    second("snapshot", "-d", "two", "a.qcow2")
                    self.sound("a.qcow2")

    def test_backing(self):
        for kind, options in self.kinds():
            if "data_file" in kind or "prealloc" in kind:
                continue
            with self.subTest(kind=kind):
                self.raw("base.raw", SIZE, seed=6)
                self.img("create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "mid.qcow2")
                self.img("create", "-q", "-f", "qcow2", *options, "-b", "mid.qcow2", "-F", "qcow2", "top.qcow2")
                self.img("io", "-c", "write -P 3 1M 5000", "-c", "write -z 2M 300k", "-c", "discard 4M 1M", "top.qcow2")
                self.io("top.qcow2", "write -P 7 1050000 9000")
                self.sound("top.qcow2")
                self.peer("convert", "-O", "raw", "top.qcow2", "want.raw")
                self.img("compare", "top.qcow2", "want.raw")

    def test_repair(self):
        """Refcounts that are gone come back; leaks go."""
        self.raw("src.raw", SIZE)
        self.peer("convert", "-O", "qcow2", "src.raw", "a.qcow2")
        with open(self.path("a.qcow2"), "r+b") as f:
            f.seek(0x20000)
            f.write(bytes(40) + bytes([0, 3]) * 4)
        self.assertEqual(self.img("check", "a.qcow2", ok=False).returncode, 2)
        self.img("check", "-r", "all", "a.qcow2", ok=False)
        self.sound("a.qcow2")
        self.peer("compare", "a.qcow2", "src.raw")


if __name__ == "__main__":
    peer.main()
