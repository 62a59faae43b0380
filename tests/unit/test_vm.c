/* The life of a machine, with kernels of a few instructions: two machines in one process, reset, stop, and every way to end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "machine/vm.h"

/* After the Multiboot header: mov dx, 0x3f8; mov al, '!'; out dx, al; then one of these. */
static const uint8_t greet[] = {0x66, 0xba, 0xf8, 0x03, 0xb0, '!', 0xee};
static const uint8_t wait_forever[] = {0xf4, 0xeb, 0xfd};
/* mov dx, 0x604 (PM1 control); mov ax, 0x3400 (S5, SLP_EN); out dx, ax; hlt; jmp $-1 */
static const uint8_t power_off[] = {0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x34, 0x66, 0xef, 0xf4, 0xeb, 0xfd};
/* push 0; push 0; lidt [esp]; int3 */
static const uint8_t triple_fault[] = {0x6a, 0, 0x6a, 0, 0x0f, 0x01, 0x1c, 0x24, 0xcc};
/* mov al, 21; out 0xf4, al; hlt; jmp $-1 */
static const uint8_t debug_exit[] = {0xb0, 21, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd};
/* mov dx, 0xcf9; mov al, 6; out dx, al; hlt; jmp $-1 */
static const uint8_t reset_self[] = {0x66, 0xba, 0xf9, 0x0c, 0xb0, 6, 0xee, 0xf4, 0xeb, 0xfd};

struct machine {
    struct loop *loop;
    struct domain *domain;
    struct vm *vm;
    char kernel[32], serial[32];
    enum vm_end end;
    unsigned events[8];
    unsigned quit_after_resets; /* 0: never */
};

static void on_event(void *opaque, enum vm_event event, bool guest)
{
    struct machine *m = opaque;
    m->events[event]++;
    if (event == VM_EVENT_RESET && m->events[event] == m->quit_after_resets)
        loop_quit(m->loop);
}

static void on_end(void *opaque, enum vm_end end, const char *why)
{
    struct machine *m = opaque;
    m->end = end;
    loop_quit(m->loop);
}

static void make_file(char *path, const void *data, size_t len)
{
    strcpy(path, "/tmp/lodge-vm-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(fd_write_full(fd, data, len), 0);
    close(fd);
}

static struct machine *machine_new(struct loop *loop, const void *code, size_t len, const char *board)
{
    struct machine *m = calloc(1, sizeof *m);
    uint8_t image[128] = {0};
    const uint32_t base = 0x100000, header[] = {0x1badb002, 0x10000, -(0x1badb002u + 0x10000), base, base, 0, 0, base + 32};
    memcpy(image, header, sizeof header);
    memcpy(image + 32, greet, sizeof greet);
    memcpy(image + 32 + sizeof greet, code, len);
    make_file(m->kernel, image, sizeof image);
    make_file(m->serial, "", 0);
    char xml[1024];
    int n = snprintf(xml, sizeof xml,
                     "<domain type='qemu'><name>m</name><memory unit='MiB'>8</memory><vcpu>2</vcpu>"
                     "<os><type machine='%s'>hvm</type><kernel>%s</kernel></os><devices><serial type='file'>"
                     "<source path='%s'/></serial><memballoon model='none'/></devices></domain>",
                     board, m->kernel, m->serial);
    struct err err = {0};
    m->loop = loop;
    if (domain_parse(xml, (size_t)n, "m", &m->domain, &err) < 0)
        fail_msg("%s", err.msg);
    domain_defaults(m->domain);
    if (domain_check(m->domain, "m", &err) < 0)
        fail_msg("%s", err.msg);
    const struct vm_owner owner = {m, on_event, on_end};
    if (vm_new(m->domain, loop, &owner, &m->vm, &err) < 0)
        fail_msg("%s", err.msg);
    return m;
}

/* How many bytes the guest has written, all of them '!'. */
static size_t greetings(const struct machine *m)
{
    char buf[64];
    int fd = open(m->serial, O_RDONLY | O_CLOEXEC);
    ssize_t n = read(fd, buf, sizeof buf);
    close(fd);
    assert_true(n >= 0);
    for (ssize_t i = 0; i < n; i++)
        assert_int_equal(buf[i], '!');
    return (size_t)n;
}

static void wait_for_greetings(struct machine *m, size_t n)
{
    for (int i = 0; i < 5000 && greetings(m) < n; i++)
        loop_poll(m->loop, 1);
    assert_int_equal(greetings(m), n);
}

static void machine_free(struct machine *m)
{
    vm_free(m->vm);
    loop_poll(m->loop, 0); /* the serial port's file goes in a posted call */
    domain_free(m->domain);
    unlink(m->kernel);
    unlink(m->serial);
    free(m);
}

static struct loop *new_loop(void)
{
    struct loop *loop;
    assert_int_equal(loop_new(&loop, NULL), 0);
    return loop;
}

static void two_machines_share_a_process(void **s)
{
    struct loop *loop = new_loop();
    struct machine *a = machine_new(loop, wait_forever, sizeof wait_forever, "q35");
    struct machine *b = machine_new(loop, power_off, sizeof power_off, "q35");
    assert_int_equal(vm_cont(a->vm, NULL), 0);
    assert_int_equal(vm_cont(b->vm, NULL), 0);
    loop_run(loop);
    assert_int_equal(b->end, VM_END_POWEROFF);
    assert_int_equal(vm_status(b->vm), VM_SHUTDOWN);
    wait_for_greetings(a, 1);
    assert_int_equal(a->end, VM_END_NONE);
    assert_int_equal(vm_status(a->vm), VM_RUNNING);
    machine_free(b);
    struct cpu_state *state = calloc(1, sizeof *state);
    assert_int_equal(vm_vcpu_state(a->vm, 0, state, NULL), 0);
    assert_in_range(state->rip, 0x100027, 0x100029);
    free(state);
    machine_free(a);
    loop_free(loop);
}

static void every_end_has_its_name(void **s)
{
    static const struct {
        const void *code;
        size_t len;
        enum vm_end end;
    } cases[] = {
        {power_off, sizeof power_off, VM_END_POWEROFF},
        {triple_fault, sizeof triple_fault, VM_END_TRIPLE_FAULT},
        {debug_exit, sizeof debug_exit, VM_END_DEBUG_EXIT},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct loop *loop = new_loop();
        struct machine *m = machine_new(loop, cases[i].code, cases[i].len, "q35");
        assert_int_equal(vm_cont(m->vm, NULL), 0);
        loop_run(loop);
        assert_int_equal(m->end, cases[i].end);
        if (m->end == VM_END_DEBUG_EXIT)
            assert_int_equal(vm_exit_status(m->vm), 43);
        assert_int_equal(greetings(m), 1);
        /* It stays ended, until it is reset. */
        assert_int_equal(vm_cont(m->vm, NULL), -EPERM);
        vm_reset(m->vm);
        assert_int_equal(vm_status(m->vm), VM_PAUSED);
        m->end = VM_END_NONE;
        assert_int_equal(vm_cont(m->vm, NULL), 0); /* so short a life may be over in here */
        loop_run(loop);
        assert_int_equal(m->end, cases[i].end);
        assert_int_equal(greetings(m), 2);
        machine_free(m);
        loop_free(loop);
    }
}

static void a_reset_starts_the_kernel_again(void **s)
{
    for (unsigned i = 0; i < 2; i++) {
        struct loop *loop = new_loop();
        struct machine *m = machine_new(loop, reset_self, sizeof reset_self, i ? "micro" : "q35");
        m->quit_after_resets = 5;
        assert_int_equal(vm_cont(m->vm, NULL), 0);
        loop_run(loop);
        assert_int_equal(m->end, VM_END_NONE);
        assert_in_range(greetings(m), 5, 6);
        machine_free(m);
        loop_free(loop);
    }
}

static void stop_holds_and_cont_goes_on(void **s)
{
    struct loop *loop = new_loop();
    struct machine *m = machine_new(loop, wait_forever, sizeof wait_forever, "micro");
    assert_int_equal(vm_status(m->vm), VM_PRELAUNCH);
    assert_int_equal(greetings(m), 0);
    assert_int_equal(vm_cont(m->vm, NULL), 0);
    wait_for_greetings(m, 1);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(vm_stop(m->vm, NULL), 0);
        assert_int_equal(vm_status(m->vm), VM_PAUSED);
        assert_int_equal(vm_stop(m->vm, NULL), 0);
        if (i == 10)
            vm_reset(m->vm);
        assert_int_equal(vm_cont(m->vm, NULL), 0);
        assert_int_equal(vm_status(m->vm), VM_RUNNING);
    }
    wait_for_greetings(m, 2);
    assert_int_equal(m->events[VM_EVENT_STOP], 20);
    assert_int_equal(m->events[VM_EVENT_RESUME], 21);
    assert_int_equal(m->events[VM_EVENT_RESET], 1);
    machine_free(m);
    loop_free(loop);
}

static void a_machine_that_cannot_be_leaves_nothing(void **s)
{
    static const char xml[] = "<domain type='qemu'><name>m</name><memory unit='MiB'>8</memory>"
                              "<os><type machine='q35'>hvm</type><kernel>/nonexistent/kernel</kernel></os></domain>";
    struct loop *loop = new_loop();
    struct domain *d;
    struct vm *vm;
    struct err err = {0};
    assert_int_equal(domain_parse(xml, sizeof xml - 1, "m", &d, &err), 0);
    domain_defaults(d);
    const struct vm_owner owner = {0};
    assert_int_equal(vm_new(d, loop, &owner, &vm, &err), -ENOENT);
    assert_non_null(strstr(err.msg, "/nonexistent/kernel"));
    domain_free(d);
    loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_machines_share_a_process),
        cmocka_unit_test(every_end_has_its_name),
        cmocka_unit_test(a_reset_starts_the_kernel_again),
        cmocka_unit_test(stop_holds_and_cont_goes_on),
        cmocka_unit_test(a_machine_that_cannot_be_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
