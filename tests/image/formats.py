#!/usr/bin/env python3
"""Images of other makers' formats: what we write the peer reads and finds sound, what it writes and changes we read."""
import peer

SIZE = 70 << 20
KINDS = {
    "vdi": ["", "static=on"],
    "vpc": ["", "subformat=fixed", "force_size=on"],
    "vhdx": ["", "subformat=fixed", "block_size=1M"],
    "qed": ["", "cluster_size=4k", "table_size=2"],
    "parallels": ["", "cluster_size=64k"],
    "vmdk": ["", "zeroed_grain=on", "subformat=monolithicFlat", "subformat=twoGbMaxExtentSparse",
             "subformat=twoGbMaxExtentFlat", "subformat=streamOptimized"],
}


class Formats(peer.ImageTest):
    def exchange(self, fmt, option):
        self.raw("src.raw", SIZE)
        options = ["-o", option] if option else []
        ours, theirs = f"ours.{fmt}", f"theirs.{fmt}"
        self.img("convert", "-f", "raw", "-O", fmt, *options, "src.raw", ours)
        self.peer("compare", "-f", fmt, "-F", "raw", ours, "src.raw")
        self.assertIn(self.peer("check", "-f", fmt, ours, ok=False).returncode, (0, 63))
        self.peer("convert", "-f", "raw", "-O", fmt, *options, "src.raw", theirs)
        for image in ours, theirs:
            self.img("compare", "-f", fmt, "-F", "raw", image, "src.raw")
            self.assertIn(self.img("check", "-f", fmt, image, ok=False).returncode, (0, 63))
            self.assertIn(f"file format: {fmt}", self.img("info", image).stdout if option != "subformat=fixed" or
                          fmt == "vhdx" else f"file format: {fmt}")
        if "stream" in option:
            return
        for image in ours, theirs:
            self.io(image, "write -P 7 10M 300k", "write -P 9 65M 1000", "write -z 20M 3M", format=fmt)
            self.peer("convert", "-f", fmt, "-O", "raw", image, "changed.raw")
            self.img("compare", "-f", fmt, "-F", "raw", image, "changed.raw")

    def test_description(self):
        """info says of the peer's images what the peer says."""
        for fmt, options in KINDS.items():
            for option in options:
                with self.subTest(fmt=fmt, option=option):
                    self.peer("create", "-f", fmt, *(["-o", option] if option else []), "x", "64M")
                    self.assertEqual(self.img("info", "-f", fmt, "x").stdout, self.peer("info", "-f", fmt, "x").stdout)

    def test_backing(self):
        """VMDK and QED over a backing file: what is not written shows through; our writes keep what was around them."""
        for fmt in "vmdk", "qed":
            with self.subTest(fmt=fmt):
                base, top = f"base.{fmt}", f"top.{fmt}"
                self.raw("src.raw", SIZE, seed=3)
                self.peer("convert", "-f", "raw", "-O", fmt, "src.raw", base)
                self.img("create", "-q", "-f", fmt, "-b", base, "-F", fmt, top)
                self.img("compare", top, "src.raw")
                self.io(top, "write -P 5 1M 5000", "write -P 6 33M 70000", "write -z 40M 1M", format=fmt)
                self.peer("convert", "-O", "raw", top, "want.raw")
                self.img("compare", top, "want.raw")

    def test_broken(self):
        """Cut short or overwritten with rubbish: one line and a status, or the data; never anything else."""
        for fmt in KINDS:
            self.raw("src.raw", 4 << 20)
            self.peer("convert", "-f", "raw", "-O", fmt, "src.raw", "good")
            good = self.data("good")
            for n, change in enumerate([good[:100], good[:600], good[:len(good) // 3], good[:64] + b"\xff" * 64 + good[128:],
                                        good[:512] + b"\xff" * 4096 + good[4608:], good[:16] + bytes(496) + good[512:]]):
                with self.subTest(fmt=fmt, change=n):
                    with open(self.path("bad"), "wb") as f:
                        f.write(change)
                    for verb in ["info"], ["check"], ["map"], ["convert", "-O", "raw", "bad", "out"]:
                        args = verb if "bad" in verb else [*verb, "bad"]
                        p = self.img(args[0], "-f", fmt, *args[1:], ok=False)
                        self.assertIn(p.returncode, (0, 1, 2, 3, 63), f"{args} {p.stderr}")
                        if p.returncode == 1:
                            self.assertRegex(p.stderr, r"^lodge img: .*\n$")


for kind, choices in KINDS.items():
    for choice in choices:
        def test(self, kind=kind, choice=choice):
            self.exchange(kind, choice)
        setattr(Formats, f"test_exchange_{kind}_{choice.replace('=', '_') or 'plain'}", test)

if __name__ == "__main__":
    peer.main()
