"""A reboot inside the guest: the same machine starts again, with its disk as it was left; with --no-reboot it ends. Usage: reboot.py MACHINE"""
from guest import *

machine = sys.argv[1]
args = ['--machine', machine, '--net', 'none', '--memory', '256M', '--cpus', '2']
with tempfile.TemporaryDirectory() as tmp:
    disk = tmp + '/disk'
    with open(disk, 'wb') as f:
        f.truncate(1 << 20)
    # The disk counts the starts. Interrupts and timers work after the reset: the second start sleeps and has both vCPUs.
    r = boot('n=$(head -c 1 /dev/vda | tr "\\0" 0); echo "start $n"; grep -c ^processor /proc/cpuinfo; sleep 0.2;'
             'if [ "$n" = 0 ]; then printf 1 | dd of=/dev/vda conv=fsync 2>/dev/null; reboot -f; sleep 60; fi',
             args + ['--disk', 'path=' + disk], timeout=120)
    expect(re.findall(r'^start (\d)\n(\d)\n', r.console, re.M) == [('0', '2'), ('1', '2')], 'the guest started twice', r)
    expect(re.search(r'^=== lodge: end 0', r.console, re.M) and r.status == 0, 'the second start ran to its end', r)
r = boot('echo started; reboot -f; sleep 60', args + ['--no-reboot'], timeout=120)
expect(r.console.count('started\n') == 1 and r.status == 0, 'with --no-reboot a reboot is the end, and no failure', r)
