#!/usr/bin/env python3
"""The software engine beside QEMU's TCG and the host itself: the same static program (bench/cpu/) on the same kernel and initramfs.

usage: bench/cpu.py [--quick] [--runs N] [--only NAME,CLASS,...] [--pair] [--json FILE] [--lodge PROGRAM] [--no-qemu]
       (LODGE_KERNEL and LODGE_INITRAMFS, or --kernel and --initrd: from tools/guest)

Prints the slowdown against the host for each thing measured, the geometric means of each class and of all, and how the guest's clock
compares with the host's. QEMU is the better of its models qemu64 and max for each thing. Medians of --runs boots (5; --quick: 1, short).
--pair: two vCPUs instead: parallel work, and ping-pong between them. It needs gcc, libssl-dev, liblua5.4-dev and zlib1g-dev.
"""
import argparse, base64, collections, json, math, os, signal, statistics, subprocess, sys, tempfile, time

ap = argparse.ArgumentParser(usage=__doc__)
ap.add_argument('--lodge', default=os.environ.get('LODGE', 'build/src/main/lodge'))
ap.add_argument('--kernel', default=os.environ.get('LODGE_KERNEL', 'cache/kernel/vmlinuz'))
ap.add_argument('--initrd', default=os.environ.get('LODGE_INITRAMFS', 'cache/initramfs'))
ap.add_argument('--quick', action='store_true')
ap.add_argument('--runs', type=int)
ap.add_argument('--ms', type=int)
ap.add_argument('--only', default='')
ap.add_argument('--pair', action='store_true')
ap.add_argument('--json')
ap.add_argument('--no-qemu', action='store_true')
ap.add_argument('--lodge-arg', action='append', default=[], help='one more argument for lodge run')
args = ap.parse_args()
runs = args.runs or (1 if args.quick else 5)
ms = args.ms or (20 if args.quick else 200)
names = args.only.split(',') if args.only else ['pair'] if args.pair else []
cpus = 2 if args.pair else 1
here = os.path.dirname(os.path.abspath(__file__))
tmp = tempfile.TemporaryDirectory()
program = tmp.name + '/cpubench'

sources = [here + '/cpu/' + f for f in sorted(os.listdir(here + '/cpu')) if f.endswith('.c')]
done = subprocess.run(['gcc', '-O2', '-static', '-Wall', '-Wextra', '-I/usr/include/lua5.4', '-o', program] + sources +
                      ['-llua5.4', '-lcrypto', '-lz', '-lm', '-pthread'], stderr=subprocess.PIPE, text=True)
if done.returncode:
    sys.exit(done.stderr)

# The program in an archive of its own behind the initramfs: the kernel unpacks both.
root = tmp.name + '/root'
os.makedirs(root + '/bin')
os.link(program, root + '/bin/cpubench')
overlay = subprocess.run(['cpio', '-o', '-H', 'newc', '-R', '0:0', '--quiet'], cwd=root, input='bin\nbin/cpubench\n'.encode(),
                         stdout=subprocess.PIPE, check=True).stdout
initrd = tmp.name + '/initrd'
with open(args.initrd, 'rb') as f, open(initrd, 'wb') as out:
    base = f.read()
    out.write(base + b'\0' * (-len(base) % 4) + overlay)

command = ' '.join(['/bin/cpubench', '-t', str(ms)] + names)
words = 'console=ttyS0 quiet lodge.exec=' + base64.b64encode(command.encode()).decode()
LODGE = [args.lodge, 'run', '--engine', 'soft', '--memory', '512M', '--cpus', str(cpus), '--net', 'none', '--serial', 'stdio',
         '--kernel', args.kernel, '--initrd', initrd, '--append', words] + args.lodge_arg
QEMU = ['qemu-system-x86_64', '-nodefaults', '-display', 'none', '-accel', 'tcg', '-machine', 'q35', '-m', '512', '-smp', str(cpus),
        '-serial', 'stdio', '-no-reboot', '-kernel', args.kernel, '-initrd', initrd, '-append', words]
NATIVE = [program, '-t', str(ms)] + names
ways = {'native': NATIVE, 'lodge': LODGE}
if not args.no_qemu:
    ways.update({'qemu64': QEMU + ['-cpu', 'qemu64'], 'max': QEMU + ['-cpu', 'max']})


def measure(way, command):
    """Nanoseconds by name, and how much faster the guest's clock is than ours."""
    p = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0,
                         start_new_session=True)
    found, clocks, log, buf = {}, [], [], b''
    while True:
        chunk = os.read(p.stdout.fileno(), 65536)
        if not chunk:
            break
        now = time.monotonic()
        buf += chunk
        *lines, buf = buf.split(b'\n')
        for line in lines:
            log.append(line.decode(errors='replace').rstrip())
            word = log[-1].split()
            if len(word) == 3 and word[1] == 'clock':
                clocks.append((int(word[2]) / 1e9, now))
            elif len(word) == 3 and clocks and len(clocks) < 2:
                classes[word[0]] = word[1]
                found[word[0]] = None if word[2] == 'skip' else float(word[2])
        if len(clocks) == 2:
            break
    try:
        p.wait(20 if way == 'native' else 5)
    except subprocess.TimeoutExpired:
        os.killpg(p.pid, signal.SIGKILL)
        p.wait()
    if len(clocks) < 2:
        sys.exit('%s did not finish:\n%s' % (way, '\n'.join(log[-20:])))
    (g0, h0), (g1, h1) = clocks
    return found, (g1 - g0) / (h1 - h0)


classes = {}
results = collections.defaultdict(lambda: collections.defaultdict(list))
drift = collections.defaultdict(list)
for n in range(runs):
    for way, cmd in ways.items():
        found, clock = measure(way, cmd)
        drift[way].append(clock)
        for name, ns in found.items():
            if ns is not None:
                results[name][way].append(ns)
        print('round %d, %s: done' % (n + 1, way), file=sys.stderr)

median = {name: {way: statistics.median(v) for way, v in r.items()} for name, r in results.items()}
table, means = {}, collections.defaultdict(lambda: collections.defaultdict(list))
print('%-20s %13s %13s %13s %9s %9s %9s' % ('', 'native ns', 'Lodge ns', 'TCG ns', 'Lodge', 'TCG', 'TCG/Lodge'))
last = None
for name, m in median.items():
    native, lodge = m.get('native'), m.get('lodge')
    tcg = min([m[w] for w in ('qemu64', 'max') if w in m], default=None)
    if classes[name] != last:
        last = classes[name]
        print('%s' % last)
    row = {'class': last, 'ns': m, 'slowdown': lodge / native if lodge and native else None,
           'tcg_slowdown': tcg / native if tcg and native else None}
    table[name] = row
    for key in 'slowdown', 'tcg_slowdown':
        if row[key]:
            means[last][key].append(row[key])
            means['all'][key].append(row[key])
    text = lambda v, form: form % v if v else '-'
    print('  %-18s %13s %13s %13s %9s %9s %9s' % (
        name, text(native, '%.1f'), text(lodge, '%.1f'), text(tcg, '%.1f'), text(row['slowdown'], '%.2f'),
        text(row['tcg_slowdown'], '%.2f'), text(tcg and lodge and tcg / lodge, '%.2f')))
print('geometric means')
mean = lambda v: math.exp(sum(map(math.log, v)) / len(v)) if v else None
for group, m in means.items():
    l, t = mean(m['slowdown']), mean(m['tcg_slowdown'])
    print('  %-18s %41s %9s %9s %9s' % (group, '', text(l, '%.2f'), text(t, '%.2f'), text(l and t and t / l, '%.2f')))
if 'work-1-thread' in median:
    for way, cost in ((w, median['work-1-thread'].get(w)) for w in ways):
        both = median.get('work-2-threads', {}).get(way)
        if cost and both:
            print('two vCPUs, %s: %.2f times one' % (way, 2 * cost / both))
print("guest's clock against the host's: " + ', '.join('%s %.4f' % (w, statistics.median(d)) for w, d in drift.items() if w != 'native'))
if args.json:
    with open(args.json, 'w') as f:
        json.dump({'things': table, 'clock': drift, 'means': {g: {k: mean(v) for k, v in m.items()} for g, m in means.items()}}, f,
                  indent=1)
