/* The monitor with a machine made of variables: what clients get to read, well-behaved and hostile ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/loop.h"
#include "base/sock.h"
#include "monitor/monitor.h"
#include "client.h"

struct machine {
    struct loop *loop;
    struct monitor *m;
    char *dir, *path;
    enum monitor_status status;
    uint64_t balloon;
    int powerdowns, resets, quits;
    struct monitor_paging paging;
    uint8_t ram[64 << 10];
};

static enum monitor_status vm_status(void *opaque)
{
    return ((struct machine *)opaque)->status;
}

static const char *vm_engine(void *opaque)
{
    return "soft";
}

static int vm_stop(void *opaque, struct err *err)
{
    struct machine *k = opaque;
    k->status = MONITOR_PAUSED;
    monitor_event(k->m, "STOP", NULL);
    return 0;
}

static int vm_cont(void *opaque, struct err *err)
{
    struct machine *k = opaque;
    k->status = MONITOR_RUNNING;
    monitor_event(k->m, "RESUME", NULL);
    return 0;
}

static int vm_powerdown(void *opaque, struct err *err)
{
    ((struct machine *)opaque)->powerdowns++;
    return 0;
}

static int vm_reset(void *opaque, struct err *err)
{
    ((struct machine *)opaque)->resets++;
    return 0;
}

static void vm_quit(void *opaque)
{
    ((struct machine *)opaque)->quits++;
}

static unsigned vm_cpus(void *opaque, struct monitor_cpu *cpus, unsigned max)
{
    cpus[0] = (struct monitor_cpu){0, 100, false};
    cpus[1] = (struct monitor_cpu){1, 101, true};
    return 2;
}

static unsigned vm_disks(void *opaque, struct monitor_disk *disks, unsigned max)
{
    disks[0] = (struct monitor_disk){
        .device = "vda", .qdev = "/machine/vda", .file = "/x.img", .format = "raw", .readonly = true, .size = 1 << 20};
    return 1;
}

static int vm_balloon_set(void *opaque, uint64_t bytes, struct err *err)
{
    ((struct machine *)opaque)->balloon = bytes;
    return 0;
}

static int vm_balloon_get(void *opaque, uint64_t *ret_bytes, struct err *err)
{
    *ret_bytes = ((struct machine *)opaque)->balloon;
    return 0;
}

static char *vm_registers(void *opaque, unsigned cpu, struct err *err)
{
    if (cpu < 2)
        return xasprintf("RAX=%016x\nRBX=%016x\n", cpu, cpu);
    err_set(err, -EINVAL, "there is no vCPU %u", cpu);
    return NULL;
}

static int vm_paging(void *opaque, unsigned cpu, struct monitor_paging *ret, struct err *err)
{
    *ret = ((struct machine *)opaque)->paging;
    return 0;
}

static int vm_read_phys(void *opaque, uint64_t gpa, void *buf, size_t len)
{
    struct machine *k = opaque;
    if (gpa > sizeof k->ram || len > sizeof k->ram - gpa)
        return -EFAULT;
    memcpy(buf, k->ram + gpa, len);
    return 0;
}

static char *vm_pci(void *opaque)
{
    return xstrdup("  Bus  0, device   0, function 0:\n    Host bridge\n");
}

static const struct monitor_vm_ops vm_ops = {
    .status = vm_status,
    .engine = vm_engine,
    .stop = vm_stop,
    .cont = vm_cont,
    .powerdown = vm_powerdown,
    .reset = vm_reset,
    .quit = vm_quit,
    .cpus = vm_cpus,
    .disks = vm_disks,
    .balloon_set = vm_balloon_set,
    .balloon_get = vm_balloon_get,
    .registers = vm_registers,
    .paging = vm_paging,
    .read_phys = vm_read_phys,
    .pci = vm_pci,
};

static int setup(void **state)
{
    struct machine *k = xcalloc(1, sizeof *k);
    struct err err = {0};
    k->dir = xstrdup("/tmp/lodge-test-XXXXXX");
    assert_non_null(mkdtemp(k->dir));
    k->path = xasprintf("%s/monitor", k->dir);
    k->status = MONITOR_RUNNING;
    k->balloon = 1 << 30;
    struct monitor_vm vm = {&vm_ops, k, "guest", "bf28c519-71c7-44a8-89ed-10e03cf8d9ca", 1 << 30};
    if (loop_new(&k->loop, &err) || monitor_new(k->loop, k->path, &vm, &k->m, &err))
        fail_msg("%s", err.msg);
    *state = k;
    return 0;
}

static int teardown(void **state)
{
    struct machine *k = *state;
    monitor_free(k->m);
    loop_poll(k->loop, 0);
    loop_free(k->loop);
    assert_int_equal(access(k->path, F_OK), -1);
    rmdir(k->dir);
    free(k->path);
    free(k->dir);
    free(k);
    return 0;
}

static void turn(struct machine *k)
{
    for (int i = 0; i < 5; i++)
        loop_poll(k->loop, 0);
}

static bool is_closed(int fd)
{
    char c;
    return recv(fd, &c, 1, MSG_DONTWAIT) == 0;
}

static char *talk(struct machine *k, int fd, const char *text)
{
    send(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT);
    turn(k);
    return read_all(fd);
}

static int connect_raw(struct machine *k)
{
    int fd = sock_unix_connect(k->path, NULL);
    assert_true(fd >= 0);
    turn(k);
    return fd;
}

static int connect_ready(struct machine *k)
{
    int fd = connect_raw(k);
    autofree char *greeting = read_all(fd);
    assert_non_null(strstr(greeting, "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": "));
    autofree char *reply = talk(k, fd, "{\"execute\": \"qmp_capabilities\"}\n");
    assert_string_equal(reply, "{\"return\": {}}\r\n");
    return fd;
}

static void expect(struct machine *k, int fd, const char *command, const char *reply)
{
    autofree char *got = talk(k, fd, command);
    assert_string_equal(got, reply);
}

static void a_session_starts_with_the_capabilities(void **state)
{
    struct machine *k = *state;
    int fd = connect_raw(k);
    free(read_all(fd));
    expect(k, fd, "{'execute':1}\n",
           "{\"error\": {\"class\": \"GenericError\", \"desc\": \"JSON parse error, string or '}' expected near "
           "'''\"}}\r\n");
    expect(k, fd, "{\"execute\": \"query-status\"}",
           "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"Expecting capabilities negotiation with "
           "'qmp_capabilities'\"}}\r\n");
    monitor_event(k->m, "STOP", NULL); /* not for those who have not negotiated */
    expect(k, fd, "{\"execute\": \"qmp_capabilities\", \"id\": [1]}", "{\"return\": {}, \"id\": [1]}\r\n");
    expect(k, fd, "{\"execute\": \"qmp_capabilities\"}",
           "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"Capabilities negotiation is already complete, "
           "command "
           "ignored\"}}\r\n");
    close(fd);
}

static void commands_answer(void **state)
{
    struct machine *k = *state;
    int fd = connect_ready(k);
    expect(k, fd, "{\"execute\": \"query-status\"}",
           "{\"return\": {\"status\": \"running\", \"singlestep\": false, \"running\": true}}\r\n");
    expect(k, fd, "{\"execute\": \"query-name\"}", "{\"return\": {\"name\": \"guest\"}}\r\n");
    expect(k, fd, "{\"execute\": \"query-kvm\"}", "{\"return\": {\"enabled\": false, \"present\": false}}\r\n");
    expect(k, fd, "{\"execute\": \"query-balloon\"}", "{\"return\": {\"actual\": 1073741824}}\r\n");
    expect(k, fd, "{\"execute\": \"balloon\", \"arguments\": {\"value\": 536870912}}", "{\"return\": {}}\r\n");
    assert_int_equal(k->balloon, 512 << 20);
    expect(k, fd, "{\"execute\": \"system_powerdown\"}{\"execute\": \"system_reset\"}",
           "{\"return\": {}}\r\n{\"return\": {}}\r\n");
    assert_int_equal(k->powerdowns, 1);
    assert_int_equal(k->resets, 1);
    autofree char *cpus = talk(k, fd, "{\n\"execute\"\n:\"query-cpus-fast\"\n}\n");
    assert_non_null(strstr(cpus, "\"thread-id\": 101"));
    autofree char *block = talk(k, fd, "{\"execute\": \"query-block\"}\n");
    assert_non_null(strstr(block, "\"file\": \"/x.img\""));
    assert_non_null(strstr(block, "\"virtual-size\": 1048576"));
    expect(k, fd, "{\"execute\": \"quit\"}", "{\"return\": {}}\r\n");
    assert_int_equal(k->quits, 1);
    close(fd);
}

static void wrong_commands_are_explained(void **state)
{
    static const char *const cases[][2] = {
        {"{\"execute\": \"fly\"}", "The command fly has not been found"},
        {"{\"execute\": \"balloon\"}", "Parameter 'value' is missing"},
        {"{\"execute\": \"balloon\", \"arguments\": {\"value\": \"x\"}}",
         "Invalid parameter type for 'value', expected: integer"},
        {"{\"execute\": \"balloon\", \"arguments\": {\"value\": -5}}", "Parameter 'value' expects a size"},
        {"{\"execute\": \"stop\", \"arguments\": {\"now\": 1}}", "Parameter 'now' is unexpected"},
        {"{\"execute\": \"stop\", \"arguments\": []}", "QMP input member 'arguments' must be an object"},
        {"{\"execute\": {}}", "QMP input member 'execute' must be a string"},
        {"{\"run\": \"stop\"}", "QMP input member 'run' is unexpected"},
        {"{}", "QMP input lacks member 'execute'"},
        {"[]", "QMP input must be a JSON object"},
        {"hello\n", "JSON parse error, '[' or '{' expected near 'hello'"},
    };
    struct machine *k = *state;
    int fd = connect_ready(k);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        autofree char *reply = talk(k, fd, cases[i][0]);
        json_t *r = json_loads(reply, 0, NULL);
        assert_string_equal(json_string_value(json_object_get(json_object_get(r, "error"), "desc")), cases[i][1]);
        json_decref(r);
    }
    k->status = MONITOR_SHUTDOWN;
    autofree char *reply = talk(k, fd, "{\"execute\": \"cont\"}");
    assert_non_null(strstr(reply, "cont is not possible in state shutdown"));
    close(fd);
}

static void every_client_hears_of_events(void **state)
{
    struct machine *k = *state;
    int a = connect_ready(k), b = connect_ready(k);
    autofree char *at_a = talk(k, a, "{\"execute\": \"stop\"}");
    autofree char *at_b = read_all(b);
    assert_non_null(strstr(at_b, "\"event\": \"STOP\"}"));
    assert_non_null(strstr(at_b, "\"timestamp\": {\"seconds\": "));
    assert_non_null(strstr(at_a, at_b));
    assert_non_null(strstr(at_a, "{\"return\": {}}"));
    monitor_event(k->m, "SHUTDOWN", "{\"guest\": true, \"reason\": \"guest-shutdown\"}");
    autofree char *shutdown = read_all(b);
    assert_non_null(
        strstr(shutdown, "\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, \"reason\": \"guest-shutdown\"}}"));
    close(a);
    close(b);
}

static char *hmp(struct machine *k, int fd, const char *line)
{
    autofree char *command =
        xasprintf("{\"execute\": \"human-monitor-command\", \"arguments\": {\"command-line\": \"%s\"}}", line);
    autofree char *reply = talk(k, fd, command);
    json_t *r = json_loads(reply, 0, NULL);
    const char *s = json_string_value(json_object_get(r, "return"));
    char *text = xstrdup(s ? s : "(no text)");
    json_decref(r);
    return text;
}

static void expect_hmp(struct machine *k, int fd, const char *line, const char *text)
{
    autofree char *got = hmp(k, fd, line);
    assert_string_equal(got, text);
}

static void people_can_ask_too(void **state)
{
    struct machine *k = *state;
    int fd = connect_ready(k);
    expect_hmp(k, fd, "info status", "VM status: running\r\n");
    k->status = MONITOR_PANICKED;
    expect_hmp(k, fd, "info status", "VM status: paused (guest-panicked)\r\n");
    expect_hmp(k, fd, "info registers", "\r\nCPU#0\r\nRAX=0000000000000000\r\nRBX=0000000000000000\r\n");
    expect_hmp(k, fd, "info pci", "  Bus  0, device   0, function 0:\r\n    Host bridge\r\n");
    expect_hmp(k, fd, "info mem", "PG disabled\r\n");
    expect_hmp(k, fd, "fly", "unknown command: 'fly'\r\n");
    expect_hmp(k, fd, "", "");
    memcpy(k->ram + 0x100, "\x01\x02\x03\x04Lodg\xff\xff", 10);
    expect_hmp(k, fd, "xp /2xw 0x100", "0000000000000100: 0x04030201 0x67646f4c\r\n");
    expect_hmp(k, fd, "xp/4c 0x104", "0000000000000104: 'L' 'o' 'd' 'g'\r\n");
    expect_hmp(k, fd, "x /1dh 0x108", "0000000000000108: -1\r\n");
    expect_hmp(k, fd, "xp /1xg 0xffffffff", "00000000ffffffff: Cannot access memory at address 0xffffffff\r\n");
    autofree char *usage = hmp(k, fd, "xp /99999999x 0");
    assert_non_null(strstr(usage, "is expected"));
    autofree char *help = hmp(k, fd, "help");
    assert_non_null(strstr(help, "info registers"));
    close(fd);
}

static void page_tables_are_listed_and_followed(void **state)
{
    struct machine *k = *state;
    int fd = connect_ready(k);
    /* PML4 at 0x1000, PDPT 0x2000, PD 0x3000, PT 0x4000; 4 KiB at 0x7000 mapped at 0x400000 (user, read-only) and at
     * the top. */
    k->paging = (struct monitor_paging){.cr0 = 0x80000001, .cr3 = 0x1000, .cr4 = 0x20, .efer = 0x500};
    le64_put(k->ram + 0x1000, 0x2007);
    le64_put(k->ram + 0x1ff8, 0x2003);
    le64_put(k->ram + 0x2000, 0x3007);
    le64_put(k->ram + 0x3010, 0x4007);
    le64_put(k->ram + 0x4000, 0x7005);
    le64_put(k->ram + 0x4008, 0x8005);
    memcpy(k->ram + 0x7ffc, "\xaa\xbb\xcc\xdd\x11\x22\x33\x44", 8);
    expect_hmp(k, fd, "info mem",
               "0000000000400000-0000000000402000 0000000000002000 ur-\r\n"
               "ffffff8000400000-ffffff8000402000 0000000000002000 -r-\r\n");
    expect_hmp(k, fd, "x /1xg 0x400ffc", "0000000000400ffc: 0x44332211ddccbbaa\r\n");
    expect_hmp(k, fd, "x /1xg 0x401ffc", "0000000000401ffc: Cannot access memory at address 0x402000\r\n");
    /* A table that is its own child at every level: the listing ends. */
    for (int i = 0; i < 512; i++)
        le64_put(k->ram + 0x1000 + i * 8, 0x1007);
    autofree char *loop = hmp(k, fd, "info mem");
    assert_true(strlen(loop) < 1 << 20);
    close(fd);
}

static void hostile_clients_are_kept_small(void **state)
{
    struct machine *k = *state;
    /* Nested deeper than anyone needs. */
    int fd = connect_ready(k);
    char deep[200];
    memset(deep, '[', sizeof deep - 1);
    deep[sizeof deep - 1] = 0;
    autofree char *reply = talk(k, fd, deep);
    assert_non_null(strstr(reply, "nested too deeply"));
    assert_true(is_closed(fd));
    close(fd);

    /* A message without an end. */
    fd = connect_ready(k);
    static char big[65536];
    memset(big, ' ', sizeof big);
    big[0] = '{';
    for (int i = 0; i < 40; i++) {
        send(fd, big, sizeof big, MSG_NOSIGNAL | MSG_DONTWAIT);
        turn(k);
        big[0] = ' ';
    }
    autofree char *too_long = read_all(fd);
    assert_non_null(strstr(too_long, "longer than 1 MiB"));
    close(fd);

    /* One that reads nothing while things happen. */
    int lazy = connect_ready(k), good = connect_ready(k);
    for (int i = 0; i < 100000; i++) {
        monitor_event(k->m, "STOP", NULL);
        if (i % 500 == 0) {
            turn(k);
            free(read_all(good));
        }
    }
    free(read_all(lazy));
    assert_true(is_closed(lazy));
    for (size_t n = 1; n;) {
        turn(k);
        autofree char *rest = read_all(good);
        n = strlen(rest);
    }
    expect(k, good, "{\"execute\": \"query-name\"}", "{\"return\": {\"name\": \"guest\"}}\r\n");
    close(lazy);
    close(good);

    /* More clients than anyone needs. */
    int many[40];
    for (unsigned i = 0; i < ARRAY_SIZE(many); i++)
        many[i] = connect_raw(k);
    assert_true(is_closed(many[39]));
    for (unsigned i = 0; i < ARRAY_SIZE(many); i++)
        close(many[i]);
    turn(k);
    fd = connect_ready(k);
    close(fd);
}

/* Damaged commands and noise: the monitor answers or hangs up, and goes on serving others. */
static void noise_does_no_harm(void **state)
{
    static const char *const seeds[] = {
        "{\"execute\": \"query-status\", \"id\": \"a\\\"b\"}\n",
        "{\"execute\": \"balloon\", \"arguments\": {\"value\": 536870912}}\n",
        "{\"execute\": \"human-monitor-command\", \"arguments\": {\"command-line\": \"xp /16xg 0x1000\"}}\n",
        "{\"execute\": \"human-monitor-command\", \"arguments\": {\"command-line\": \"\xc3\xbc info mem\", "
        "\"cpu-index\": 1}}\n",
        "{\"execute\": \"qmp_capabilities\", \"arguments\": {\"enable\": [\"oob\"]}}\n",
    };
    struct machine *k = *state;
    uint32_t seed = 4711;
    for (int i = 0; i < 16; i++)
        le64_put(k->ram + i * 8, 0x1007);
    k->paging = (struct monitor_paging){.cr0 = 0x80000001, .cr4 = 0x20, .efer = 0x500};
    int good = connect_ready(k);
    for (int round = 0; round < 300; round++) {
        int fd = round % 2 ? connect_raw(k) : connect_ready(k);
        for (int i = 0; i < 10; i++) {
            char text[300];
            seed = seed * 1664525 + 1013904223;
            size_t n = snprintf(text, sizeof text, "%s", seeds[(seed >> 16) % ARRAY_SIZE(seeds)]);
            for (unsigned f = 0; f < (seed >> 8) % 4; f++) {
                seed = seed * 1664525 + 1013904223;
                text[(seed >> 8) % n] = seed & 1 ? "{}[]\",:\\\n0"[(seed >> 24) % 10] : (char)(seed >> 20);
            }
            if (send(fd, text, n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
                break;
        }
        for (int i = 0; i < 4; i++)
            loop_poll(k->loop, 0);
        free(read_all(fd));
        close(fd);
    }
    turn(k);
    free(read_all(good));
    expect(k, good, "{\"execute\": \"query-name\"}", "{\"return\": {\"name\": \"guest\"}}\r\n");
    close(good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_session_starts_with_the_capabilities, setup, teardown),
        cmocka_unit_test_setup_teardown(commands_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(wrong_commands_are_explained, setup, teardown),
        cmocka_unit_test_setup_teardown(every_client_hears_of_events, setup, teardown),
        cmocka_unit_test_setup_teardown(people_can_ask_too, setup, teardown),
        cmocka_unit_test_setup_teardown(page_tables_are_listed_and_followed, setup, teardown),
        cmocka_unit_test_setup_teardown(hostile_clients_are_kept_small, setup, teardown),
        cmocka_unit_test_setup_teardown(noise_does_no_harm, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
