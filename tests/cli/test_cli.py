#!/usr/bin/env python3
"""The command line as a user meets it: what it prints, what it says when something is wrong, its exit status.

Usage: test_cli.py LODGE SOURCE-DIR
"""
import os
import re
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ET

LODGE, SOURCE = map(os.path.abspath, sys.argv[1:3])


def lodge(*args, **kw):
    return subprocess.run([LODGE, *args], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, **kw)


class Messages(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.cwd = os.path.realpath(self.dir.name)
        for name in "kernel", "disk.img":
            with open(os.path.join(self.cwd, name), "wb") as f:
                f.write(b"x" * 4096)

    def tearDown(self):
        self.dir.cleanup()

    def fails(self, status, message, *args):
        p = lodge(*args, cwd=self.cwd)
        self.assertEqual((p.returncode, p.stdout), (status, ""), p.stderr)
        self.assertEqual(p.stderr.rstrip("\n").count("\n"), 0, p.stderr)
        self.assertRegex(p.stderr, message)

    def test_wrong_usage_is_status_2_and_one_line(self):
        run = "run", "--kernel", "kernel"
        self.fails(2, r"^lodge: there is no verb 'fly' \(see lodge --help\)$", "fly")
        self.fails(2, r"^lodge: unknown option '--fly'", "--fly")
        self.fails(2, r"^lodge run: nothing to start: --kernel, --disk or --xml is missing", "run")
        self.fails(2, r"^lodge run: unknown option '--kernle'", "run", "--kernle=x")
        self.fails(2, r"^lodge run: 'kernel' is not an option", "run", "kernel")
        self.fails(2, r"^lodge run: --kernel needs a value, FILE", "run", "--kernel")
        self.fails(2, r"^lodge run: --kernel is given twice", *run, "--kernel", "kernel")
        self.fails(2, r"^lodge run: --no-reboot takes no value", *run, "--no-reboot=1")
        self.fails(2, r"--memory: 'lots' is not a size", *run, "--memory", "lots")
        self.fails(2, r"--memory: '0' is not a size", *run, "--memory", "0")
        self.fails(2, r"--memory: '99999999999T' is not a size", *run, "--memory", "99999999999T")
        self.fails(2, r"--cpus: '0' is not a number from 1 to 255", *run, "--cpus", "0")
        self.fails(2, r"--cpus: '-1' is not a number", *run, "--cpus=-1")
        self.fails(2, r"--engine: 'warp' is none of auto, kvm and soft", *run, "--engine", "warp")
        self.fails(2, r"--disk: 'color=red' is not understood", *run, "--disk", "path=disk.img,color=red")
        self.fails(2, r"--disk readonly=on: path=FILE is missing", *run, "--disk", "readonly=on")
        self.fails(2, r"--net: 'carrier' is none of", *run, "--net", "carrier")
        self.fails(2, r"--net: 'mac=1:2' is not understood", *run, "--net", "user,mac=1:2")
        self.fails(2, r"--net: 'forward=tcp:1' is not understood", *run, "--net", "user,forward=tcp:1")
        self.fails(2, r"--serial: 'file=' is none of", *run, "--serial", "file=")
        self.fails(2, r"--monitor: 'x' is not unix=FILE", *run, "--monitor", "x")
        self.fails(2, r"--machine: 'vax' is neither", *run, "--machine", "vax")
        self.fails(2, r"--cpu: 'avx' is neither \+FEATURE nor -FEATURE", *run, "--cpu", "max,avx")
        self.fails(2, r"--append: the value is not UTF-8 text", *run, "--append", "\x01")
        self.fails(2, r"--xml describes the whole guest; --kernel cannot be added", *run, "--xml", "x")
        self.fails(2, r"^lodge completion: name a shell", "completion")
        self.fails(2, r"^lodge completion: there is no completion for 'csh'", "completion", "csh")
        self.fails(2, r"there is no verb 'fly'", "help", "fly")

    def test_no_arguments_read_commands(self):
        p = subprocess.run([LODGE], input="help pwd; pwd\necho a 'b  c'\nquit\necho d\n", cwd=self.cwd,
                           capture_output=True, text=True, timeout=60)
        self.assertEqual((p.returncode, p.stderr), (0, ""))
        self.assertIn("pwd - print the current directory", p.stdout)
        self.assertIn(f"\n{self.cwd}\n\na b  c\n", p.stdout)
        self.assertNotIn("d\n\n", p.stdout.split("b  c")[1])

    def test_what_is_missing_or_wrong_is_status_1_and_named(self):
        run = "run", "--kernel", "kernel"
        here = re.escape(self.cwd)
        self.fails(1, rf"^lodge: kernel {here}/none: No such file or directory$", "run", "--kernel", "none")
        self.fails(1, rf"^lodge: kernel {here}/\.: is a directory$", "run", "--kernel", ".")
        os.mkfifo(os.path.join(self.cwd, "fifo"))
        self.fails(1, rf"^lodge: kernel {here}/fifo: is not a regular file", "run", "--kernel", "fifo")
        self.fails(1, rf"^lodge: disk {here}/fifo: is not a regular file or block device", *run, "--disk", "fifo")
        self.fails(1, r"^lodge-vm: kernel .*not a kernel that can be started", *run, "--engine", "soft", "--serial", "null")
        self.fails(1, r"^lodge-vm: network interface 0:.* no such interface", *run, "--engine", "soft", "--net",
                   "tap=nosuchtap0", "--serial", "null")
        self.fails(1, r"^lodge-vm: .*: CPU model 'i8086' is not known", *run, "--engine", "soft", "--cpu", "i8086",
                   "--serial", "null")
        os.environ["PATH"], path = self.cwd, os.environ["PATH"]
        try:
            self.fails(1, r"needs the program passt \(Debian package passt\)", *run, "--engine", "soft", "--net", "user",
                       "--serial", "null")
        finally:
            os.environ["PATH"] = path
        self.fails(1, r"^lodge-vm: monitor: /nonexistent/m: cannot listen: No such file", *run, "--monitor",
                   "unix=/nonexistent/m", "--serial", "null")
        self.fails(1, rf"^lodge: initrd {here}/none: No such file", *run, "--initrd", "none")
        self.fails(1, rf"^lodge: disk {here}/none: No such file", *run, "--disk", "path=none")
        self.fails(1, rf"^lodge: shared directory {here}/none: No such file", *run, "--share", "none")
        self.fails(1, rf"^lodge: shared directory {here}/kernel: is not a directory", *run, "--share", "kernel")
        self.fails(1, r"^lodge: <memory>: 1024 KiB is not between", *run, "--memory", "1")
        self.fails(1, r"the terminal \(stdio\) can be given to one", *run, "--serial", "stdio", "--serial", "stdio")
        self.fails(1, r"^lodge: none.xml: No such file or directory", "run", "--xml", "none.xml")
        self.fails(1, r"^lodge: kernel:1: not well-formed XML", "run", "--xml", "kernel")
        with open(os.path.join(self.cwd, "g.xml"), "w") as f:
            f.write("<domain type='kvm'>\n<name>x</name>\n<memory>fat</memory></domain>")
        self.fails(1, r"^lodge: g.xml:3: <memory>: 'fat' is not a number$", "run", "--xml", "g.xml")

    def test_nothing_is_written_when_something_is_missing(self):
        log = os.path.join(self.cwd, "log")
        with open(log, "w") as f:
            f.write("precious")
        self.fails(1, "disk", "run", "--kernel", "kernel", "--serial", "file=log", "--disk", "none")
        with open(log) as f:
            self.assertEqual(f.read(), "precious")

    def test_unknown_parts_of_a_document_are_noted(self):
        with open(os.path.join(self.cwd, "g.xml"), "w") as f:
            f.write(f"""<domain type='kvm'><name>x</name><memory unit='MiB'>64</memory>
<os><type>hvm</type><kernel>{self.cwd}/kernel</kernel></os>
<devices><disk><source file='{self.cwd}/disk.img'/><target dev='vda'/>
<backingStore/></disk></devices></domain>""")
        p = lodge("run", "--xml", "g.xml", "--dry-run", cwd=self.cwd)
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertEqual(p.stderr, "lodge: g.xml:4: note: devices/disk/backingStore has no effect\n")
        p = lodge("run", "--xml", "g.xml", "--print-xml", cwd=self.cwd)
        self.assertIsNotNone(ET.fromstring(p.stdout).find("devices/disk/backingStore"))


class Document(unittest.TestCase):
    def domain(self, *args):
        p = lodge("run", "--kernel", "/k", "--print-xml", *args)
        self.assertEqual((p.returncode, p.stderr), (0, ""))
        self.text = p.stdout
        return ET.fromstring(p.stdout)

    def test_options_become_a_domain(self):
        d = self.domain("--initrd", "/i", "--append", "a='b' <c>", "--cpus", "4", "--memory", "1536M",
                        "--disk", "path=/a,,b.img,format=raw,readonly=on,cache=none,serial=S1",
                        "--disk", "/second.img,iothread=2",
                        "--net", "user,mac=52:54:00:00:00:01,forward=tcp:2222:22", "--net", "tap=tap7,queues=2",
                        "--engine", "soft", "--cpu", "max,-avx,+aes", "--serial", "file=/log,append=on", "--serial",
                        "unix=/sock", "--share", "/srv,tag=data,readonly", "--machine", "micro", "--no-reboot",
                        "--name", "n")
        self.assertEqual(d.get("type"), "qemu")
        self.assertEqual(d.findtext("name"), "n")
        self.assertEqual(d.findtext("memory"), str(1536 * 1024))
        self.assertEqual(d.findtext("vcpu"), "4")
        self.assertEqual(d.findtext("iothreads"), "2")
        self.assertEqual(d.find("os/type").get("machine"), "micro")
        self.assertEqual([d.findtext("os/" + k) for k in ("kernel", "initrd", "cmdline")], ["/k", "/i", "a='b' <c>"])
        self.assertEqual(d.find("cpu").get("mode"), "maximum")
        self.assertEqual([(f.get("policy"), f.get("name")) for f in d.iter("feature")],
                         [("disable", "avx"), ("require", "aes")])
        self.assertEqual(d.findtext("on_reboot"), "destroy")
        first, second = d.findall("devices/disk")
        self.assertEqual(first.find("source").get("file"), "/a,b.img")
        self.assertEqual(first.find("driver").attrib, {"type": "raw", "cache": "none"})
        self.assertEqual(first.findtext("serial"), "S1")
        self.assertIsNotNone(first.find("readonly"))
        self.assertEqual(second.find("target").attrib, {"dev": "vdb", "bus": "virtio"})
        self.assertEqual(second.find("driver").get("iothread"), "2")
        user, tap = d.findall("devices/interface")
        self.assertEqual(user.find("mac").get("address"), "52:54:00:00:00:01")
        self.assertEqual(user.find("portForward/range").attrib, {"start": "2222", "to": "22"})
        self.assertEqual(tap.find("target").attrib, {"dev": "tap7", "managed": "no"})
        self.assertEqual(tap.find("driver").get("queues"), "2")
        self.assertEqual([s.get("type") for s in d.findall("devices/serial")], ["file", "unix"])
        self.assertEqual(d.find("devices/serial/source").attrib, {"path": "/log", "append": "on"})
        fs = d.find("devices/filesystem")
        self.assertEqual((fs.find("source").get("dir"), fs.find("target").get("dir")), ("/srv", "data"))
        self.assertIsNotNone(fs.find("readonly"))

    def test_what_is_printed_can_be_run_again(self):
        self.domain("--net", "user", "--engine", "auto", "--engine-chaos", "77", "--perf-map")
        with tempfile.NamedTemporaryFile("w", suffix=".xml") as f:
            f.write(self.text)
            f.flush()
            again = lodge("run", "--xml", f.name, "--print-xml")
        self.assertEqual((again.stderr, again.stdout), ("", self.text))

    def test_serial_ports_of_a_document_can_be_replaced(self):
        self.domain("--serial", "stdio", "--serial", "file=/a")
        with tempfile.NamedTemporaryFile("w", suffix=".xml") as f:
            f.write(self.text)
            f.flush()
            p = lodge("run", "--xml", f.name, "--serial", "unix=/s", "--print-xml")
        d = ET.fromstring(p.stdout)
        self.assertEqual([s.get("type") for s in d.findall("devices/serial")], ["unix"])
        self.assertEqual([s.get("type") for s in d.findall("devices/console")], ["unix"])

    def test_engine_kvm_soft_and_auto_differ(self):
        self.assertEqual(self.domain("--engine", "kvm").get("type"), "kvm")
        auto = self.domain()
        self.assertEqual(auto.find("{https://lodge.dev/schemas/domain/1.0}engine").get("name"), "auto")

    def test_sizes(self):
        for text, kib in ("64", 64 << 10), ("64M", 64 << 10), ("1g", 1 << 20), ("65536K", 65536), ("1GiB", 1 << 20), ("2GB", 2 << 20):
            self.assertEqual(self.domain("--memory", text).findtext("memory"), str(kib), text)


class Manual(unittest.TestCase):
    """Help, completion and the manual page name the same verbs and options."""

    def options(self):
        return re.findall(r"^  --([a-z-]+)", lodge("run", "--help").stdout, re.M)

    def test_every_verb_has_help(self):
        text = lodge("--help").stdout
        for verb in re.findall(r"^  ([a-z][a-z-]*)  ", text, re.M):
            for args in ((verb, "--help"), ("help", verb)):
                p = lodge(*args)
                self.assertEqual((p.returncode, p.stderr), (0, ""))
                self.assertRegex(p.stdout, rf"(?i:Usage: lodge {verb})|(?m:^    {verb} - )")

    def test_completion_knows_every_option_and_is_valid(self):
        for shell in "bash", "zsh", "fish":
            text = lodge("completion", shell).stdout
            for option in self.options():
                self.assertRegex(text, rf"(--|-l ){option}\b")
        subprocess.run(["bash", "-n"], input=lodge("completion", "bash").stdout, text=True, check=True)
        words = subprocess.run(["bash", "-c", lodge("completion", "bash").stdout +
                                "\nCOMP_WORDS=(lodge run --en); COMP_CWORD=2; _lodge; echo ${COMPREPLY[@]}"
                                "\nCOMP_WORDS=(lodge run --engine k); COMP_CWORD=3; compopt() { :; }; _lodge; echo ${COMPREPLY[@]}"],
                               capture_output=True, text=True, check=True).stdout
        self.assertEqual(words, "--engine --engine-chaos\nkvm\n")
        self.assertEqual(lodge("complete", "--", "start", "--con").stdout, "--console\n\n")
        self.assertIn("net-list\n", lodge("complete", "--", "net-l").stdout)

    def test_the_manual_page_describes_every_verb_and_option(self):
        with open(os.path.join(SOURCE, "docs/man/lodge.1")) as f:
            page = f.read()
        described = set(re.findall(r"^\.It Fl Fl ([a-z-]+)", page, re.M)) - {"help", "version"}
        self.assertEqual(described, set(self.options()))
        for verb in re.findall(r"^  ([a-z][a-z-]*)  ", lodge("--help").stdout, re.M):
            self.assertRegex(page, rf"(?m)^\.It Cm {verb}|^\.Ss lodge {verb}")

    def test_the_manual_page_of_lodge_vm_describes_every_option_and_monitor_command(self):
        with open(os.path.join(SOURCE, "docs/man/lodge-vm.1")) as f:
            page = f.read()
        help = subprocess.run([LODGE + "-vm", "--help"], capture_output=True, text=True, check=True).stdout
        options = set(re.findall(r"--([a-z-]+)", help))
        self.assertEqual(set(re.findall(r"^\.It Fl Fl ([a-z-]+)", page, re.M)), options)
        with open(os.path.join(SOURCE, "src/monitor/commands.def")) as f:
            commands = set(re.findall(r'MONITOR_COMMAND\("([^"]+)"', f.read()))
        described = set(re.findall(r"[a-z_-]+", " ".join(re.findall(r"^\.It Cm (.*)", page, re.M))))
        self.assertEqual(commands - described, set())


class LodgeVm(unittest.TestCase):
    def test_wrong_usage_is_status_2(self):
        for args, message in (([], "one of --domain and --domain-fd is needed"),
                              (["--domain", "a", "--domain-fd", "3"], "one of --domain and --domain-fd"),
                              (["--fly"], "unrecognized option '--fly'"),
                              (["--domain", "a", "b"], "not an option: b"),
                              (["--domain-fd", "x"], "--domain-fd: not a descriptor: x"),
                              (["--domain", "a", "--monitor", "x"], "--monitor: not unix=FILE: x")):
            p = subprocess.run([LODGE + "-vm", *args], capture_output=True, text=True, stdin=subprocess.DEVNULL)
            self.assertEqual((p.returncode, p.stderr.count("\n")), (2, 1), p.stderr)
            self.assertIn(message, p.stderr)

    def test_documents_are_refused_with_their_place(self):
        with tempfile.NamedTemporaryFile("w", suffix=".xml") as f:
            f.write("<domain type='kvm'>\n<vcpu>many</vcpu></domain>")
            f.flush()
            p = subprocess.run([LODGE + "-vm", "--domain", f.name], capture_output=True, text=True)
            self.assertEqual((p.returncode, p.stderr), (1, f"lodge-vm: {f.name}:2: <vcpu>: 'many' is not a number\n"))
            with open(f.name) as g:
                p = subprocess.run([LODGE + "-vm", "--domain-fd", str(g.fileno())], capture_output=True, text=True,
                                   pass_fds=[g.fileno()])
            self.assertEqual((p.returncode, p.stderr), (1, "lodge-vm: domain:2: <vcpu>: 'many' is not a number\n"))
        p = subprocess.run([LODGE + "-vm", "--domain", "/nonexistent"], capture_output=True, text=True)
        self.assertEqual((p.returncode, p.stderr), (1, "lodge-vm: /nonexistent: No such file or directory\n"))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
