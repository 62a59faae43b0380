"""A guest's kernel that panics: it says so through pvpanic (status 3) where it has the driver, else it reboots (status 0 with --no-reboot)."""
from guest import *

crash = 'echo before; echo c >/proc/sysrq-trigger; sleep 60'
args = ['--net', 'none', '--memory', '256M', '--no-reboot']
r = boot(crash, args, kernel='_GENERIC', timeout=120)
expect(re.search(r'sysrq triggered crash', r.console), 'the kernel panicked', r)
expect(r.status == 3, 'the panic is told', r)
expect('panic' in r.stderr, 'and named', r)
r = boot(crash, args + ['--machine', 'micro'], timeout=120)
expect(re.search(r'sysrq triggered crash', r.console), 'the kernel panicked', r)
expect(r.status == 0, 'panic=-1 is a reboot', r)
# No handler for the fault, none for the double fault: the CPU shuts down. reboot=t makes Linux do that.
r = boot('reboot -f; sleep 60', args, 'reboot=t,force', timeout=120)
expect(r.status == 4, 'a triple fault is told', r)
