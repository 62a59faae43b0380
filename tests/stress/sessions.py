"""Many short sessions of `lodge run` on a terminal: keys in bursts, the escape key's help, breaks, idle times, and every way out, at
random moments. Each must end as it was asked to, with nothing said but what belongs there.
Usage: sessions.py LODGE KERNEL [--sessions N] [--seed N] [--engine E] [--machine M] [--preload LIBRARY]
       sessions.py LODGE KERNEL --initrd FILE ...    a Linux kernel; its shell gets commands instead
"""
import argparse
import fcntl
import os
import pty
import random
import select
import signal
import subprocess
import sys
import termios
import time

parser = argparse.ArgumentParser()
parser.add_argument('lodge')
parser.add_argument('kernel')
parser.add_argument('--initrd')
parser.add_argument('--sessions', type=int, default=int(os.environ.get('LODGE_SESSIONS', '20')))
parser.add_argument('--seed', type=int, default=1)
parser.add_argument('--engine', default='soft')
parser.add_argument('--machine', default='q35')
parser.add_argument('--preload', default='')
parser.add_argument('--cpus', default='1')
parser.add_argument('--net', default='none')
args = parser.parse_args()


class Session:
    def __init__(self, rnd):
        self.rnd = rnd
        self.master, self.slave = pty.openpty()

        def own_terminal():
            os.setsid()
            fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)

        words = [args.lodge, 'run', '--kernel', args.kernel, '--engine', args.engine, '--machine', args.machine, '--cpus', args.cpus,
                 '--memory', '256M' if args.initrd else '32M', '--net', args.net]
        if args.initrd:
            words += ['--initrd', args.initrd, '--append', 'console=ttyS0 quiet']
        env = dict(os.environ)
        if args.preload:
            env['LD_PRELOAD'] = args.preload
        self.proc = subprocess.Popen(words, stdin=self.slave, stdout=self.slave, stderr=self.slave, preexec_fn=own_terminal, env=env)
        self.seen = b''

    def close(self):
        self.proc.kill()
        self.proc.wait()
        os.close(self.master)
        os.close(self.slave)

    def read(self, seconds):
        """Reads for so long, or until something came."""
        ready, _, _ = select.select([self.master], [], [], max(seconds, 0))
        if ready:
            self.seen += os.read(self.master, 65536)
        return bool(ready)

    def wait_for(self, what, seconds=60):
        end = time.monotonic() + seconds
        while what not in self.seen:
            if not self.read(end - time.monotonic()):
                raise AssertionError('%r does not come' % what)
            if self.proc.poll() is not None and what not in self.seen:
                raise AssertionError('it ended (%s) before %r came' % (self.proc.returncode, what))

    def type(self, what):
        os.write(self.master, what)

    def finish(self, want):
        """The exit status, reading what still comes."""
        end = time.monotonic() + 60
        while self.proc.poll() is None:
            self.read(0.05)
            if time.monotonic() > end:
                raise AssertionError('it does not end')
        while self.read(0):
            pass
        if self.proc.returncode != want:
            raise AssertionError('it ended with %d, not %d' % (self.proc.returncode, want))
        for bad in (b'ssertion', b'mutexcheck', b'Sanitizer', b'killed by signal'):
            if bad in self.seen and not (want and bad == b'killed by signal'):
                raise AssertionError('it said %r' % bad)

    def run(self):
        rnd = self.rnd
        self.wait_for(b'# ' if args.initrd else b'ready', 240 if args.initrd else 20)
        for _ in range(rnd.randrange(1, 8)):
            kind = rnd.randrange(5)
            self.seen = b''
            if kind == 0:
                self.type(b'uname -a\r')
                self.wait_for(b'GNU/Linux' if args.initrd else b'uname -a\r')
            elif kind == 1:
                self.type(b'\x01?')
                self.wait_for(b'this help')
            elif kind == 2 and not args.initrd: # Linux takes a break and a key for SysRq
                self.type(b'\x01b')
            elif kind == 3:
                self.type(b'x' * rnd.randrange(1, 300) + b'\x15')
            time.sleep(rnd.choice((0, 0, 0.001, 0.003, 0.01, 0.05)))
            self.read(0)
        way = rnd.randrange(4)
        if way == 0:
            self.type(b'\x01x')
            self.finish(0)
        elif way == 1:
            self.type(b'\x15poweroff -f\r' if args.initrd else b'\x04')
            self.finish(0)
        elif way == 2:
            self.type(b'\x01?' + b'\x01x')
            self.finish(0)
        else:
            self.proc.send_signal(signal.SIGTERM)
            self.finish(128 + signal.SIGTERM)


failed = 0
for n in range(args.sessions):
    s = Session(random.Random('%d/%d' % (args.seed, n)))
    try:
        s.run()
    except (AssertionError, OSError) as e:
        failed += 1
        print('session %d/%d: %s\n%s' % (args.seed, n, e, s.seen.decode(errors='replace')[-3000:]))
    finally:
        s.close()
print('%d sessions, %d failed' % (args.sessions, failed))
sys.exit(failed != 0)
