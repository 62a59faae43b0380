/* The gdb server with a machine made of variables: what a debugger gets to read, well-behaved and hostile ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/loop.h"
#include "base/sock.h"
#include "monitor/gdb.h"
#include "client.h"

enum { CPUS = 3 };

struct machine {
    struct loop *loop;
    struct gdb *g;
    char *dir, *path;
    bool running;
    int kills;
    enum gdb_how how[CPUS];
    struct cpu_state cpu[CPUS];
    struct gdb_point point[GDB_POINTS_MAX];
    unsigned n_points;
    uint8_t ram[64 << 10];
};

static unsigned vm_cpus(void *opaque)
{
    return CPUS;
}

static bool vm_running(void *opaque)
{
    return ((struct machine *)opaque)->running;
}

static int vm_stop(void *opaque)
{
    ((struct machine *)opaque)->running = false;
    return 0;
}

static int vm_resume(void *opaque, const enum gdb_how *how)
{
    struct machine *k = opaque;
    k->running = true;
    memcpy(k->how, how, sizeof k->how);
    return 0;
}

static int vm_get_state(void *opaque, unsigned cpu, struct cpu_state *ret)
{
    struct machine *k = opaque;
    assert_false(k->running);
    assert_in_range(cpu, 0, CPUS - 1);
    *ret = k->cpu[cpu];
    return 0;
}

static int vm_set_state(void *opaque, unsigned cpu, const struct cpu_state *s)
{
    struct machine *k = opaque;
    assert_false(k->running);
    assert_in_range(cpu, 0, CPUS - 1);
    k->cpu[cpu] = *s;
    return 0;
}

static int vm_read_phys(void *opaque, uint64_t gpa, void *buf, size_t len)
{
    struct machine *k = opaque;
    if (gpa >= sizeof k->ram || len > sizeof k->ram - gpa)
        return -EFAULT;
    memcpy(buf, k->ram + gpa, len);
    return 0;
}

static int vm_write_phys(void *opaque, uint64_t gpa, const void *buf, size_t len)
{
    struct machine *k = opaque;
    if (gpa >= sizeof k->ram || len > sizeof k->ram - gpa)
        return -EFAULT;
    memcpy(k->ram + gpa, buf, len);
    return 0;
}

static int vm_set_points(void *opaque, const struct gdb_point *points, unsigned n)
{
    struct machine *k = opaque;
    assert_false(k->running);
    if (n > 4)
        return -ENOSPC;
    if (n)
        memcpy(k->point, points, n * sizeof *points);
    k->n_points = n;
    return 0;
}

static void vm_kill(void *opaque)
{
    ((struct machine *)opaque)->kills++;
}

static const struct gdb_target_ops ops = {
    vm_cpus, vm_running, vm_stop, vm_resume, vm_get_state, vm_set_state, vm_read_phys, vm_write_phys, vm_set_points, vm_kill,
};

static int setup(void **state)
{
    struct machine *k = xcalloc(1, sizeof *k);
    struct err err = {0};
    k->dir = xstrdup("/tmp/lodge-test-XXXXXX");
    assert_non_null(mkdtemp(k->dir));
    k->path = xasprintf("unix=%s/gdb", k->dir);
    k->running = true;
    const struct gdb_target target = {&ops, k};
    if (loop_new(&k->loop, &err) || gdb_new(k->loop, k->path, &target, &k->g, &err))
        fail_msg("%s", err.msg);
    *state = k;
    return 0;
}

static int teardown(void **state)
{
    struct machine *k = *state;
    gdb_free(k->g);
    loop_poll(k->loop, 0);
    loop_free(k->loop);
    assert_int_equal(rmdir(k->dir), 0);
    free(k->path);
    free(k->dir);
    free(k);
    return 0;
}

static void turn(struct machine *k)
{
    for (int i = 0; i < 8; i++)
        loop_poll(k->loop, 0);
}

static int attach(struct machine *k)
{
    int fd = sock_unix_connect(k->path + 5, NULL);
    assert_true(fd >= 0);
    turn(k);
    return fd;
}

static void raw(struct machine *k, int fd, const char *bytes, size_t n)
{
    (void)!send(fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    turn(k);
}

/* Sends a packet and returns what is answered, without frame and acknowledgement; "" too when nothing is. */
static char *ask(struct machine *k, int fd, const char *packet)
{
    uint8_t sum = 0;
    for (const char *c = packet; *c; c++)
        sum += (uint8_t)*c;
    autofree char *framed = xasprintf("$%s#%02x", packet, sum);
    raw(k, fd, framed, strlen(framed));
    char *s = read_all(fd);
    char *from = strchr(s, '$'), *to = from ? strchr(from, '#') : NULL;
    if (!to) {
        s[0] = 0;
        return s;
    }
    *to = 0;
    memmove(s, from + 1, strlen(from));
    return s;
}

#define EXPECT(k, fd, packet, want)                                                                                    \
    do {                                                                                                               \
        autofree char *got_ = ask(k, fd, packet);                                                                      \
        assert_string_equal(got_, want);                                                                               \
    } while (0)

static void test_session(void **state)
{
    struct machine *k = *state;
    autofd int fd = attach(k);
    assert_false(k->running);
    autofree char *supported = ask(k, fd, "qSupported:swbreak+;hwbreak+;xmlRegisters=i386");
    assert_non_null(strstr(supported, "PacketSize=4000"));
    assert_non_null(strstr(supported, "qXfer:features:read+"));
    EXPECT(k, fd, "?", "T05thread:01;");
    EXPECT(k, fd, "qfThreadInfo", "m01,02,03");
    EXPECT(k, fd, "qsThreadInfo", "l");
    EXPECT(k, fd, "qC", "QC01");
    EXPECT(k, fd, "qAttached", "1");
    EXPECT(k, fd, "vCont?", "vCont;c;C;s;S");
    EXPECT(k, fd, "T3", "OK");
    EXPECT(k, fd, "T4", "E16");
    EXPECT(k, fd, "vMustReplyEmpty", "");
    EXPECT(k, fd, "D", "OK");
    assert_true(k->running);
}

static void test_description(void **state)
{
    struct machine *k = *state;
    autofd int fd = attach(k);
    autofree char *xml = xcalloc(1, 65536);
    size_t len = 0;
    for (;;) {
        char packet[64];
        snprintf(packet, sizeof packet, "qXfer:features:read:target.xml:%zx,800", len);
        autofree char *part = ask(k, fd, packet);
        assert_true(part[0] == 'm' || part[0] == 'l');
        strcat(xml, part + 1);
        len = strlen(xml);
        if (part[0] == 'l')
            break;
        assert_in_range(len, 1, 60000);
    }
    assert_non_null(strstr(xml, "org.gnu.gdb.i386.core"));
    assert_non_null(strstr(xml, "org.gnu.gdb.i386.sse"));
    assert_non_null(strstr(xml, "org.gnu.gdb.i386.segments"));
    assert_non_null(strstr(xml, "</target>"));
    EXPECT(k, fd, "qXfer:features:read:target.xml:fffffffffffffff0,ffffffffffffffff", "l");
    EXPECT(k, fd, "qXfer:features:read:other.xml:0,100", "E00");
}

static void test_registers(void **state)
{
    struct machine *k = *state;
    k->cpu[0].gpr[3] = 0x1122334455667788; /* RBX is register 1 */
    k->cpu[1].rip = 0x42;
    autofd int fd = attach(k);
    EXPECT(k, fd, "p1", "8877665544332211");
    EXPECT(k, fd, "P1=0100000000000000", "OK");
    assert_int_equal(k->cpu[0].gpr[3], 1);
    EXPECT(k, fd, "Hg2", "OK");
    EXPECT(k, fd, "p10", "4200000000000000");
    EXPECT(k, fd, "P29=000102030405060708090a0b0c0d0e0f", "OK"); /* XMM1 */
    assert_int_equal(k->cpu[1].xsave[160 + 16 + 15], 15);
    assert_int_equal(k->cpu[1].xsave[512] & 2, 2);
    autofree char *all = ask(k, fd, "g");
    assert_true(strlen(all) > 2 * (24 * 8));
    k->cpu[1].rip = 0;
    autofree char *back = xasprintf("G%s", all);
    EXPECT(k, fd, back, "OK");
    assert_int_equal(k->cpu[1].rip, 0x42);
    EXPECT(k, fd, "G00", "E16");
    EXPECT(k, fd, "P1=00", "E16");
    EXPECT(k, fd, "Pffffffff=00", "E16");
    EXPECT(k, fd, "pffffffffff", "E16");
    EXPECT(k, fd, "P12=0800000", "E16"); /* CS: half a byte is missing */
    EXPECT(k, fd, "P12=08000000", "E16");
    EXPECT(k, fd, "Hg9", "E16");
    EXPECT(k, fd, "Hg-1", "OK");
}

static void test_memory(void **state)
{
    struct machine *k = *state;
    autofd int fd = attach(k);
    memcpy(k->ram + 0x1234, "lodge", 5);
    EXPECT(k, fd, "m1234,5", "6c6f646765");
    EXPECT(k, fd, "M1234,2:4142", "OK");
    assert_memory_equal(k->ram + 0x1234, "ABdge", 5);
    EXPECT(k, fd, "X1234,2:x}]", "OK"); /* } escapes: 0x5d ^ 0x20 */
    assert_memory_equal(k->ram + 0x1234, "x}dge", 5);
    EXPECT(k, fd, "m10000,1", "E0e");
    EXPECT(k, fd, "mfffe,10", "0000");
    EXPECT(k, fd, "mffffffffffffffff,ffffffffffffffff", "E0e");
    EXPECT(k, fd, "m,", "E16");
    EXPECT(k, fd, "M1234,ffffffffffffffff:00", "E16");
    EXPECT(k, fd, "M1234,2:4", "E16");
    EXPECT(k, fd, "M1234,2:zz42", "E16");
    /* By page tables: virtual page 0x7000 is physical 0x5000. */
    struct cpu_state *s = &k->cpu[0];
    *s = (struct cpu_state){.cr0 = 0x80000001, .cr3 = 0x1000, .cr4 = 0x20, .efer = 0x500};
    k->ram[0x1001] = 0x20;
    k->ram[0x1000] = 3;
    k->ram[0x2001] = 0x30;
    k->ram[0x2000] = 3;
    k->ram[0x3001] = 0x40;
    k->ram[0x3000] = 3;
    k->ram[0x4000 + 7 * 8 + 1] = 0x50;
    k->ram[0x4000 + 7 * 8] = 3;
    k->ram[0x5010] = 0x99;
    EXPECT(k, fd, "m7010,1", "99");
    EXPECT(k, fd, "M7010,1:12", "OK");
    assert_int_equal(k->ram[0x5010], 0x12);
    EXPECT(k, fd, "m8000,1", "E0e");
}

static void test_points(void **state)
{
    struct machine *k = *state;
    autofd int fd = attach(k);
    autofree char *supported = ask(k, fd, "qSupported:swbreak+;hwbreak+");
    EXPECT(k, fd, "Z0,1000,1", "OK");
    EXPECT(k, fd, "Z0,1000,1", "OK");
    assert_int_equal(k->n_points, 1);
    EXPECT(k, fd, "Z2,2000,8", "OK");
    assert_int_equal(k->point[1].kind, GDB_WRITE);
    EXPECT(k, fd, "Z5,0,0", "");
    EXPECT(k, fd, "Z2,0,0", "E16");
    EXPECT(k, fd, "Z", "E16");
    EXPECT(k, fd, "Z1,1,1", "OK");
    EXPECT(k, fd, "Z1,2,1", "OK");
    EXPECT(k, fd, "Z1,3,1", "E1c"); /* ENOSPC: the machine takes four */
    EXPECT(k, fd, "z1,1,1", "OK");
    EXPECT(k, fd, "z1,2,1", "OK");
    EXPECT(k, fd, "vCont;s:2;c", "");
    assert_true(k->running);
    assert_int_equal(k->how[0], GDB_RUN);
    assert_int_equal(k->how[1], GDB_STEP);
    uint64_t at = 0x1000;
    k->running = false;
    gdb_stopped(k->g, 1, &at);
    autofree char *reply = read_all(fd);
    assert_non_null(strstr(reply, "$T05thread:02;swbreak:;#"));
    EXPECT(k, fd, "s", "");
    assert_int_equal(k->how[0], GDB_HOLD);
    assert_int_equal(k->how[1], GDB_STEP);
    at = 0x2000;
    k->running = false;
    gdb_stopped(k->g, 2, &at);
    autofree char *watch = read_all(fd);
    assert_non_null(strstr(watch, "$T05thread:03;watch:2000;#"));
    EXPECT(k, fd, "c", "");
    EXPECT(k, fd, "g", "E10"); /* while it runs */
    raw(k, fd, "\3", 1);
    assert_false(k->running);
    autofree char *stop = read_all(fd);
    assert_non_null(strstr(stop, "$T02thread:03;#"));
    EXPECT(k, fd, "vCont", "");
    EXPECT(k, fd, "vCont;", "E16");
    EXPECT(k, fd, "vCont;x", "E16");
    EXPECT(k, fd, "vCont;c:99", "E16");
    EXPECT(k, fd, "c", "");
    gdb_ended(k->g, 3);
    autofree char *end = read_all(fd);
    assert_non_null(strstr(end, "$W03#"));
}

static void test_goes_away(void **state)
{
    struct machine *k = *state;
    int fd = attach(k);
    EXPECT(k, fd, "Z0,1000,1", "OK");
    autofd int second = attach(k);
    char c;
    assert_int_equal(recv(second, &c, 1, MSG_DONTWAIT), 0); /* one at a time */
    close(fd);
    turn(k);
    assert_int_equal(k->n_points, 0);
    assert_true(k->running);
    autofd int third = attach(k);
    assert_false(k->running);
    EXPECT(k, third, "vKill;1", "OK");
    assert_int_equal(k->kills, 1);
}

static void test_damaged(void **state)
{
    struct machine *k = *state;
    autofd int fd = attach(k);
    raw(k, fd, "$?#00", 5);
    autofree char *nak = read_all(fd);
    assert_string_equal(nak, "-");
    raw(k, fd, "garbage$m12$?#3f", 16); /* cut off, then a good one */
    autofree char *good = read_all(fd);
    assert_string_equal(good, "+$T05thread:01;#07");
    raw(k, fd, "-", 1);
    autofree char *again = read_all(fd);
    assert_string_equal(again, "$T05thread:01;#07");
    EXPECT(k, fd, "QStartNoAckMode", "OK");
    raw(k, fd, "$?#00", 5); /* nobody looks at sums now */
    autofree char *quiet = read_all(fd);
    assert_string_equal(quiet, "$T05thread:01;#07");
    autofree char *flood = xcalloc(1, 100000);
    memset(flood, 'A', 100000);
    flood[0] = '$';
    for (unsigned i = 0; i < 100000; i += 10000)
        raw(k, fd, flood + i, 10000);
    raw(k, fd, "#00$?#00", 8);
    autofree char *late = read_all(fd);
    assert_non_null(strstr(late, "$T05thread:01;#07"));
}

/* Any bytes at all: nothing but the machine's own limits may be met, and a new debugger finds the server alive. */
static void test_garbage(void **state)
{
    struct machine *k = *state;
    static const char *const words[] = {"m", "M", "X", "G", "P", "p", "Z0,", "z", "vCont;", "vCont;s:", "Hg", "Hc", "T",
                                        "qXfer:features:read:target.xml:", "qThreadExtraInfo,", "qSupported", "c", "s", "D"};
    uint32_t seed = 1;
    int fd = attach(k);
    EXPECT(k, fd, "QStartNoAckMode", "OK");
    for (int round = 0; round < 3000; round++) {
        char packet[80];
        seed = seed * 1664525 + 1013904223;
        int n = snprintf(packet, sizeof packet, "$%s", words[(seed >> 8) % ARRAY_SIZE(words)]);
        int more = seed >> 24 & 31;
        for (int i = 0; i < more; i++) {
            seed = seed * 1664525 + 1013904223;
            packet[n++] = (seed >> 30) ? "0123456789abcdef,:;=-1"[(seed >> 16) % 22] : (char)(seed >> 16);
        }
        memcpy(packet + n, "#00\3", 4);
        (void)!send(fd, packet, (size_t)n + 4, MSG_NOSIGNAL | MSG_DONTWAIT);
        loop_poll(k->loop, 0);
        loop_poll(k->loop, 0);
        autofree char *got = read_all(fd);
        char c;
        if (recv(fd, &c, 1, MSG_DONTWAIT) == 0) { /* detached */
            close(fd);
            fd = attach(k);
            EXPECT(k, fd, "QStartNoAckMode", "OK");
        }
    }
    close(fd);
    turn(k);
    autofd int next = attach(k);
    EXPECT(k, next, "?", "T05thread:01;");
}

static void test_where(void **state)
{
    struct machine *k = *state;
    struct err err = {0};
    struct gdb *g = NULL;
    const struct gdb_target target = {&ops, k};
    assert_true(gdb_where_valid("tcp=1234"));
    assert_false(gdb_where_valid("tcp="));
    assert_false(gdb_where_valid("1234"));
    assert_true(gdb_new(k->loop, "tcp=127.0.0.1:99999x", &target, &g, &err) < 0);
    assert_null(g);
    err = (struct err){0};
    assert_int_equal(gdb_new(k->loop, "tcp=127.0.0.1:0", &target, &g, &err), 0);
    gdb_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_session, setup, teardown),
        cmocka_unit_test_setup_teardown(test_description, setup, teardown),
        cmocka_unit_test_setup_teardown(test_registers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_points, setup, teardown),
        cmocka_unit_test_setup_teardown(test_goes_away, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
        cmocka_unit_test_setup_teardown(test_garbage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_where, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
