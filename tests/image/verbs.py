#!/usr/bin/env python3
"""The verbs of lodge img beside qemu-img's: the same words on the same image, the same images out of the same work."""
import json
import os
import re
import signal
import subprocess
import time

import peer

OPTIONS = ["", "compat=0.10", "cluster_size=4k,refcount_bits=1", "cluster_size=2M,refcount_bits=64", "extended_l2=on",
           "compression_type=zstd", "lazy_refcounts=on", "preallocation=metadata", "data_file=ext.raw,data_file_raw=on"]


def no_sizes(text):
    return re.sub(r'"actual-size": \d+|disk size: .*', "", text)


class Verbs(peer.ImageTest):
    def create(self, tool, name, option="", size="16M", *more):
        args = ["-f", "qcow2", *(["-o", option] if option else []), *more]
        return tool("create", *args, name, *([size] if size else []))

    def some_data(self, name, format="qcow2"):
        self.io(name, "write -P 1 0 1M", "write -P 2 5M 100k", "write -z 8M 1M", "write -P 3 12M 70000", format=format)

    def same_words(self, *args):
        ours, theirs = self.img(*args, ok=False), self.peer(*args, ok=False)
        self.assertEqual((ours.returncode, ours.stdout), (theirs.returncode, theirs.stdout), args)

    def same_json(self, *args):
        ours, theirs = self.img(*args), self.peer(*args)
        self.assertEqual(json.loads(ours.stdout), json.loads(theirs.stdout), args)

    def looks_the_same(self, name, option=""):
        self.same_words("info", name)
        self.same_json("info", "--output=json", name)
        if "extended_l2" not in option:  # the peer tells where subclusters would be that are not there
            self.same_words("map", name)
            self.same_json("map", "--output=json", name)
        self.same_words("check", name)
        self.same_json("check", "--output=json", name)
        self.same_words("measure", "-O", "qcow2", name)
        self.same_json("measure", "-O", "qcow2", "--output=json", name)
        self.same_words("measure", "-O", "raw", name)

    def test_inspecting(self):
        for i, option in enumerate(OPTIONS):
            for maker in self.img, self.peer:
                with self.subTest(option=option, maker=maker.__name__):
                    name = f"x{i}.qcow2"
                    ext = self.path("ext.raw")
                    if os.path.exists(ext):
                        os.unlink(ext)
                    self.create(maker, name, option)
                    self.some_data(name)
                    self.looks_the_same(name, option)

    def test_create_says_the_same(self):
        for option in OPTIONS:
            ours = self.create(self.img, "x", option).stdout
            self.assertEqual(ours, self.create(self.peer, "x", option).stdout)
        self.create(self.img, "base.qcow2")
        for args in (["create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "y"], ["create", "y.raw", "1.5M"],
                     ["create", "-q", "-f", "qcow2", "y", "1000"], ["create", "-f", "raw", "-o", "preallocation=falloc", "y", "1M"],
                     ["create", "-f", "qcow2", "-u", "-b", "none", "-F", "raw", "y", "1G"], ["create", "-f", "vdi", "y", "1M"],
                     ["create", "-f", "vmdk", "-o", "subformat=streamOptimized", "y", "1M"]):
            self.same_words(*args)

    def test_chain(self):
        self.create(self.img, "a.qcow2")
        self.some_data("a.qcow2")
        self.create(self.img, "b.qcow2", "", None, "-b", "a.qcow2", "-F", "qcow2")
        self.io("b.qcow2", "write -P 7 64k 100k", "write -z 5M 64k")
        self.create(self.peer, "c.qcow2", "", "20M", "-b", "b.qcow2", "-F", "qcow2")
        self.io("c.qcow2", "write -P 8 17M 100k")
        for name in "b.qcow2", "c.qcow2":
            self.looks_the_same(name)
            self.same_words("info", "--backing-chain", name)
            self.same_json("info", "--backing-chain", "--output=json", name)
        self.same_json("map", "--output=json", "-s", "100k", "-l", "1M", "b.qcow2")

    def test_rebase_and_commit(self):
        self.create(self.img, "a.qcow2")
        self.some_data("a.qcow2")
        self.create(self.img, "other.qcow2", "cluster_size=4k")
        self.io("other.qcow2", "write -P 9 2M 1M", "write -P 1 0 10k")
        self.create(self.img, "b.qcow2", "", None, "-b", "a.qcow2", "-F", "qcow2")
        self.io("b.qcow2", "write -P 7 64k 100k", "write -z 5M 64k")
        self.peer("convert", "-O", "raw", "b.qcow2", "want.raw")
        for backing in ["-b", "other.qcow2", "-F", "qcow2"], ["-b", ""], ["-b", "a.qcow2", "-F", "qcow2"]:
            self.img("rebase", *backing, "b.qcow2")
            self.peer("check", "b.qcow2")
            self.peer("compare", "b.qcow2", "want.raw")
        self.assertEqual(self.img("rebase", "-b", "a.qcow2", "b.qcow2", ok=False).returncode, 1)
        self.create(self.img, "c.qcow2", "", None, "-b", "b.qcow2", "-F", "qcow2")
        self.io("c.qcow2", "write -P 11 3M 5k")
        self.peer("convert", "-O", "raw", "c.qcow2", "want.raw")
        self.assertEqual(self.img("commit", "-b", "a.qcow2", "c.qcow2").stdout, "Image committed.\n")
        self.peer("compare", "a.qcow2", "want.raw")
        self.io("c.qcow2", "write -P 12 4M 5k")
        self.peer("convert", "-O", "raw", "c.qcow2", "want.raw")
        self.img("commit", "c.qcow2")
        self.peer("compare", "b.qcow2", "want.raw")
        self.peer("compare", "c.qcow2", "want.raw")
        for name in "a.qcow2", "b.qcow2", "c.qcow2":
            self.peer("check", name)
        self.assertNotIn('"depth": 0', self.img("map", "--output=json", "c.qcow2").stdout)

    def test_convert(self):
        self.raw("src.raw", 20 << 20)
        self.img("convert", "-f", "raw", "-O", "qcow2", "src.raw", "src.qcow2")
        for option in OPTIONS:
            with self.subTest(option=option):
                more = ["-o", option] if option else []
                ext = self.path("ext.raw")
                if os.path.exists(ext):
                    os.unlink(ext)
                self.img("convert", "-O", "qcow2", *more, "src.qcow2", "out.qcow2")
                self.peer("check", "out.qcow2")
                self.peer("compare", "-F", "raw", "out.qcow2", "src.raw")
        for args in (["-c"], ["-c", "-o", "compression_type=zstd"], ["-c", "-o", "cluster_size=2M"], ["-S", "0"], ["-S", "64k"],
                     ["-m", "16", "-W"], ["-m", "1"], ["-C"], ["-t", "none", "-T", "none"], ["-r", "1G"], ["-p"],
                     ["--salvage"]):
            for source in "src.raw", "src.qcow2":
                with self.subTest(args=args, source=source):
                    self.img("convert", "-O", "qcow2", *args, source, "out.qcow2")
                    self.peer("check", "out.qcow2")
                    self.peer("compare", "-F", "raw", "out.qcow2", "src.raw")
                    self.img("compare", "-F", "raw", "out.qcow2", "src.raw")
                    if "-c" not in args:
                        self.img("convert", "-O", "raw", *args, source, "out.raw")
                        self.same_data("out.raw", "src.raw")
        self.assertEqual(self.img("convert", "-S", "0", "-O", "raw", "src.qcow2", "full.raw").returncode, 0)
        self.assertGreaterEqual(os.stat(self.path("full.raw")).st_blocks * 512, 20 << 20)
        self.assertLess(os.stat(self.path("out.raw")).st_blocks * 512, 8 << 20)

    def test_convert_to_what_is_there(self):
        self.raw("src.raw", 4 << 20)
        with open(self.path("dst.raw"), "wb") as f:
            f.write(b"\xff" * (5 << 20))
        self.img("convert", "-n", "-O", "raw", "src.raw", "dst.raw")
        self.assertEqual(self.data("dst.raw"), self.data("src.raw") + b"\xff" * (1 << 20))
        self.raw("big.raw", 6 << 20)
        p = self.img("convert", "-n", "-O", "raw", "big.raw", "dst.raw", ok=False)
        self.assertEqual((p.returncode, p.stderr), (1, "lodge img: output file is smaller than input file\n"))
        self.img("convert", "-O", "qcow2", "src.raw", "big.raw", "joined.qcow2")
        with open(self.path("both.raw"), "wb") as f:
            f.write(self.data("src.raw") + self.data("big.raw"))
        self.peer("compare", "joined.qcow2", "both.raw")

    def test_convert_over_backing(self):
        self.create(self.img, "a.qcow2")
        self.some_data("a.qcow2")
        self.create(self.img, "b.qcow2", "", None, "-b", "a.qcow2", "-F", "qcow2")
        self.io("b.qcow2", "write -P 7 64k 100k", "write -z 5M 64k")
        self.img("convert", "-O", "qcow2", "-B", "a.qcow2", "-F", "qcow2", "b.qcow2", "ours.qcow2")
        self.peer("compare", "ours.qcow2", "b.qcow2")
        self.assertLess(os.stat(self.path("ours.qcow2")).st_size, 1 << 20)
        p = self.img("convert", "-O", "qcow2", "-B", "a.qcow2", "b.qcow2", "y.qcow2", ok=False)
        self.assertEqual(p.returncode, 1)

    def test_snapshots(self):
        for maker, user in (self.img, self.peer), (self.peer, self.img):
            self.create(maker, "s.qcow2")
            self.some_data("s.qcow2")
            self.peer("convert", "-O", "raw", "s.qcow2", "old.raw")
            maker("snapshot", "-c", "first", "s.qcow2")
            self.io("s.qcow2", "write -P 9 0 3M")
            self.same_words("snapshot", "-l", "s.qcow2")
            self.same_words("info", "s.qcow2")
            self.img("convert", "-l", "first", "-O", "raw", "s.qcow2", "got.raw")
            self.same_data("got.raw", "old.raw")
            self.img("convert", "-l", "snapshot.name=first", "-O", "raw", "s.qcow2", "got.raw")
            self.same_data("got.raw", "old.raw")
            user("snapshot", "-a", "first", "s.qcow2")
            self.peer("compare", "s.qcow2", "old.raw")
            user("snapshot", "-d", "first", "s.qcow2")
            for tool in self.img, self.peer:
                self.assertEqual(tool("check", "s.qcow2").returncode, 0)
            self.assertEqual(self.img("snapshot", "-d", "first", "s.qcow2", ok=False).stderr,
                             "lodge img: Could not delete snapshot 'first': snapshot not found\n")

    def test_resize_and_amend(self):
        self.create(self.img, "r.qcow2")
        self.some_data("r.qcow2")
        for size in "20M", "+1M", "+0":
            self.assertEqual(self.img("resize", "r.qcow2", size).stdout, "Image resized.\n")
            self.peer("check", "r.qcow2")
        self.assertEqual(self.img("resize", "r.qcow2", "10M", ok=False).returncode, 1)
        self.img("resize", "--shrink", "r.qcow2", "-11M")
        self.assertEqual(self.json(self.peer, "info", "--output=json", "r.qcow2")["virtual-size"], 10 << 20)
        self.img("resize", "--preallocation=full", "r.qcow2", "12M")
        self.peer("check", "r.qcow2")
        for option in "compat=0.10", "compat=1.1,lazy_refcounts=on", "refcount_bits=64", "refcount_bits=8", "size=14M":
            self.img("amend", "-o", option, "r.qcow2")
            self.peer("check", "r.qcow2")
        self.same_words("info", "r.qcow2")
        self.same_words("amend", "-f", "qcow2", "-o", "nonsense=1", "r.qcow2")

    def test_bitmaps(self):
        self.create(self.peer, "m.qcow2")
        self.img("bitmap", "--add", "m.qcow2", "b0")
        self.img("bitmap", "--add", "-g", "32k", "m.qcow2", "b1")
        self.io("m.qcow2", "write 1M 1M", "write 8M 64k")
        self.same_words("info", "m.qcow2")
        self.img("bitmap", "--disable", "m.qcow2", "b0")
        self.img("bitmap", "--add", "--disable", "--merge", "b1", "m.qcow2", "b2")
        self.same_words("info", "m.qcow2")
        self.same_words("measure", "-O", "qcow2", "m.qcow2")
        self.img("convert", "-O", "qcow2", "--bitmaps", "m.qcow2", "n.qcow2")
        self.same_words("info", "n.qcow2")
        self.peer("check", "n.qcow2")
        self.img("bitmap", "--clear", "--enable", "m.qcow2", "b0")
        self.img("bitmap", "--remove", "m.qcow2", "b1")
        self.peer("check", "m.qcow2")
        p = self.img("bitmap", "--remove", "m.qcow2", "b1", ok=False)
        self.assertEqual(p.returncode, 1)
        self.assertRegex(p.stderr, "^lodge img: Operation remove on bitmap b1 failed: .*\n$")

    def test_compare(self):
        self.raw("a.raw", 8 << 20)
        self.img("convert", "-O", "qcow2", "a.raw", "a.qcow2")
        self.same_words("compare", "a.raw", "a.qcow2")
        self.same_words("compare", "-p", "-q", "a.raw", "a.qcow2")
        with open(self.path("b.raw"), "wb") as f:
            f.write(self.data("a.raw") + bytes(1 << 20))
        self.same_words("compare", "-f", "raw", "-F", "raw", "a.raw", "b.raw")
        self.same_words("compare", "-s", "-f", "raw", "-F", "raw", "a.raw", "b.raw")
        self.io("b.raw", "write -P 1 8500000 1", format="raw")
        self.same_words("compare", "-f", "raw", "-F", "raw", "a.raw", "b.raw")
        self.same_words("compare", "a.raw", "none")
        self.same_words("compare", "a.raw")

    def test_dd(self):
        self.raw("a.raw", 4 << 20)
        for args in (["bs=1M", "count=2"], ["bs=64k", "skip=3"], ["bs=512", "skip=1", "count=7"], ["bs=1M", "skip=9"], []):
            for fmt in "raw", "qcow2":
                words = ["dd", "-f", "raw", "-O", fmt, *args, "if=a.raw"]
                self.img(*words, "of=ours", ok=False)
                self.peer(*words, "of=theirs", ok=False)
                self.peer("compare", "-f", fmt, "-F", fmt, "ours", "theirs")

    def test_names(self):
        self.create(self.img, "a.qcow2")
        for name in ('json:{"driver":"qcow2","file":{"driver":"file","filename":"a.qcow2"}}', 'json:{"file.filename":"a.qcow2"}',
                     "file:a.qcow2"):
            self.same_words("info", name)
        for name in "driver=qcow2,file.filename=a.qcow2", "file.filename=a.qcow2", "driver=raw,file.driver=file,file.filename=a.qcow2":
            self.assertEqual(no_sizes(self.img("info", "--image-opts", name).stdout),
                             no_sizes(self.peer("info", "--image-opts", name).stdout))
        self.raw("with,comma.raw", 1 << 20)
        self.same_words("info", "--image-opts", "driver=raw,file.filename=with,,comma.raw")
        self.same_words("info", "--image-opts", "-f", "raw", "x")

    def test_errors(self):
        """Each a status like qemu-img's and one clear line (two with the hint on help)."""
        self.create(self.img, "a.qcow2")
        self.raw("a.raw", 1 << 20)
        for args in ([], ["fly"], ["create"], ["create", "-f", "qcow2", "-b", "a.qcow2", "x"], ["create", "-f", "foo", "x", "1G"],
                     ["create", "-f", "qcow2", "x"], ["create", "-f", "qcow2", "x", "abc"], ["create", "-f", "qcow2", "x", "10Q"],
                     ["create", "-f", "qcow2", "x", "16E"], ["create", "-f", "qcow2", "x", "1G", "2"],
                     ["create", "-f", "qcow2", "-b", "none", "-F", "qcow2", "x"], ["create", "-f", "qcow2", "-o", "a=b", "x", "1G"],
                     ["create", "-f", "qcow2", "-o", "cluster_size=3000", "x", "1G"], ["create", "-f", "raw", "-b", "a.raw", "-F",
                                                                                     "raw", "x", "1G"],
                     ["create", "-f", "dmg", "x", "1G"], ["create", "-f", "qcow2", "no/x", "1G"], ["info"], ["info", "none"],
                     ["info", "-Z", "a.raw"], ["info", "--output=xml", "a.raw"], ["info", "-f", "qcow2", "a.raw"],
                     ["info", "-f", "foo", "a.raw"], ["info", "."], ["info", "foo:x"], ["info", "json:{"], ["check", "a.raw"],
                     ["check", "-r", "x", "a.qcow2"], ["map", "--start-offset=x", "a.raw"], ["convert", "a.raw"],
                     ["convert", "-O", "foo", "a.raw", "x"], ["convert", "-c", "-O", "raw", "a.raw", "x"],
                     ["convert", "-S", "1000", "a.raw", "x"], ["convert", "-m", "17", "a.raw", "x"],
                     ["convert", "--target-is-zero", "a.raw", "x"], ["convert", "-t", "x", "a.raw", "y"],
                     ["convert", "-l", "none", "a.qcow2", "y"], ["convert", "-n", "a.raw", "none"], ["resize", "a.raw"],
                     ["resize", "a.qcow2", "1M"], ["resize", "a.qcow2", "--", "-1G"], ["snapshot", "-c", "x", "-l", "a.qcow2"],
                     ["snapshot", "-a", "x", "a.qcow2"], ["rebase", "a.qcow2"], ["rebase", "-b", "none", "-F", "raw", "a.qcow2"],
                     ["commit", "a.qcow2"], ["commit", "-b", "x", "a.qcow2"], ["amend", "a.qcow2"],
                     ["amend", "-o", "cluster_size=4k", "a.qcow2"], ["amend", "-f", "raw", "-o", "size=1G", "a.raw"],
                     ["measure", "-O", "qcow2"], ["measure", "--size", "1G", "a.raw"], ["measure", "-O", "vmdk", "--size", "1G"],
                     ["bitmap", "a.qcow2", "b"], ["bitmap", "--add", "a.qcow2"], ["dd", "if=a.raw"], ["dd", "if=a.raw", "of=x", "bs=0"],
                     ["dd", "if=a.raw", "of=x", "foo=1"], ["bench", "-c", "x", "a.raw"],
                     ["bench", "--flush-interval=4", "a.raw"], ["compare", "a.raw", "none"]):
            with self.subTest(args=args):
                ours, theirs = self.img(*args, ok=False), self.peer(*args, ok=False)
                self.assertEqual(ours.returncode, theirs.returncode, ours.stderr)
                lines = ours.stderr.splitlines()
                self.assertRegex(ours.stderr, r"^lodge img: ")
                self.assertLessEqual(len(lines), 2, ours.stderr)
                if len(lines) == 2:
                    self.assertRegex(lines[1], r"^Try 'lodge img .*--help' for more information$")

    def test_looping_chain(self):
        self.create(self.img, "a.qcow2")
        self.create(self.img, "b.qcow2", "", None, "-b", "a.qcow2", "-F", "qcow2")
        self.img("rebase", "-u", "-b", "b.qcow2", "-F", "qcow2", "a.qcow2")
        for args in ["info", "--backing-chain", "a.qcow2"], ["map", "a.qcow2"], ["convert", "-O", "raw", "a.qcow2", "x"]:
            p = self.img(*args, ok=False)
            self.assertEqual(p.returncode, 1)
            self.assertRegex(p.stderr, "^lodge img: .*\n$")
        self.assertEqual(self.img("info", "a.qcow2").returncode, 0)

    def test_a_guest_cannot_choose_the_format(self):
        """A raw image in which someone wrote a qcow2 header that names another file of the host."""
        self.raw("secret.raw", 1 << 20)
        self.create(self.img, "evil.qcow2", "", None, "-b", "secret.raw", "-F", "raw")
        self.create(self.img, "top.qcow2", "", "1M", "-b", "evil.qcow2", "-F", "raw")
        self.img("convert", "-O", "raw", "top.qcow2", "got.raw")
        self.assertEqual(self.data("got.raw")[:65536], self.data("evil.qcow2")[:65536])
        # Without a recorded format a backing file is raw or refused.
        self.img("rebase", "-u", "-b", "", "top.qcow2")
        header = bytearray(self.data("top.qcow2"))
        self.assertEqual(self.img("create", "-f", "qcow2", "-b", "evil.qcow2", "x.qcow2", ok=False).returncode, 1)
        self.assertTrue(header)

    def test_progress(self):
        self.raw("a.raw", 16 << 20)
        out = self.img("convert", "-p", "-O", "qcow2", "a.raw", "b.qcow2").stdout
        self.assertRegex(out, r"^    \(0\.00/100%\)\n(.*\n)*    \(100\.00/100%\)\n$")
        p = subprocess.Popen([peer.LODGE, "img", "convert", "-r", "6M", "-O", "qcow2", "-S", "0", "a.raw", "c.qcow2"],
                             cwd=self.cwd, stderr=subprocess.PIPE, text=True)
        time.sleep(0.7)
        p.send_signal(signal.SIGUSR1)
        self.assertRegex(p.communicate(timeout=60)[1], r"^    \(\d+\.\d\d/100%\)\n$")
        self.assertEqual(p.returncode, 0)

    def test_called_as_qemu_img(self):
        link = self.path("qemu-img")
        os.symlink(peer.LODGE, link)
        p = peer.run(link, "info", "none", ok=False, cwd=self.cwd)
        self.assertEqual((p.returncode, p.stderr), (1, "qemu-img: Could not open 'none': No such file or directory\n"))


if __name__ == "__main__":
    peer.main()
