/*
 * Saves a running guest on one engine and lets it go on, on another, several times over: its two counts, one of which lives in a vector
 * register, must go on without a step too many or too few. Then the saved state is damaged, and must be refused or run, but
 * never crash.
 *
 * usage: save KERNEL ENGINE...; exit status 77 where /dev/kvm cannot be used
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "machine/vm.h"

struct guest {
    struct loop *loop;
    struct domain *domain;
    struct vm *vm;
};

static const char *kernel;
static char serial[] = "/tmp/lodge-save-XXXXXX";

static void on_event(void *opaque, enum vm_event event, bool guest)
{
}

static void on_end(void *opaque, enum vm_end end, const char *why)
{
    fprintf(stderr, "the guest ended: %s\n", why);
    exit(1);
}

static int check(int code, const struct err *err)
{
    if (code < 0) {
        fprintf(stderr, "save: %s\n", err->msg);
        exit(1);
    }
    return code;
}

static struct guest guest_new(struct loop *loop, const char *engine)
{
    struct guest g = {.loop = loop};
    struct err err = {0};
    autofree char *xml = xasprintf(
        "<domain type='%s'><name>m</name><memory unit='MiB'>8</memory><vcpu>1</vcpu><os><type machine='q35'>hvm</type>"
        "<kernel>%s</kernel></os><devices><serial type='file'><source path='%s' append='on'/></serial>"
        "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng></devices></domain>",
        !strcmp(engine, "kvm") ? "kvm" : "qemu", kernel, serial);
    check(domain_parse(xml, strlen(xml), "m", &g.domain, &err), &err);
    domain_defaults(g.domain);
    check(domain_check(g.domain, "m", &err), &err);
    const struct vm_owner owner = {NULL, on_event, on_end, NULL};
    check(vm_new(g.domain, loop, &owner, &g.vm, &err), &err);
    return g;
}

static void guest_free(struct guest *g)
{
    vm_free(g->vm);
    loop_poll(g->loop, 0);
    domain_free(g->domain);
}

static size_t output(char *buf, size_t size)
{
    autofd int fd = open(serial, O_RDONLY | O_CLOEXEC);
    ssize_t n = read(fd, buf, size);
    return n < 0 ? 0 : (size_t)n;
}

/* Runs until so many bytes more were written. */
static void run(struct guest *g, size_t more)
{
    static char buf[65536];
    struct err err = {0};
    size_t start = output(buf, sizeof buf);
    check(vm_cont(g->vm, &err), &err);
    for (int i = 0; output(buf, sizeof buf) < start + more; i++) {
        if (i > 20000) {
            fprintf(stderr, "save: the guest stands still after %zu bytes\n", output(buf, sizeof buf));
            exit(1);
        }
        loop_poll(g->loop, 1);
    }
    check(vm_stop(g->vm, &err), &err);
}

/* Letters follow letters, and digits follow digits. */
static void check_output(void)
{
    static char buf[65536];
    size_t n = output(buf, sizeof buf), letters = 0, digits = 0;
    for (size_t i = 0; i < n; i++) {
        bool digit = buf[i] >= '0' && buf[i] <= '9';
        size_t *count = digit ? &digits : &letters;
        char want = (char)(digit ? '0' + (*count + 1) % 10 : 'a' + (*count + 1) % 26);
        if (buf[i] != want) {
            fprintf(stderr, "save: byte %zu is '%c', not '%c', in %.*s\n", i, buf[i], want, (int)n, buf);
            exit(1);
        }
        ++*count;
    }
    if (letters < n / 10 || digits < n / 10) {
        fprintf(stderr, "save: one of the timers stopped: %zu letters, %zu digits\n", letters, digits);
        exit(1);
    }
}

/* Each of many damaged streams is refused, or makes a guest. */
static void damage(struct loop *loop, const char *engine, const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len);
    uint64_t r = 88172645463325252ull;
    for (int round = 0; round < 60; round++) {
        memcpy(copy, data, len);
        r ^= r << 13, r ^= r >> 7, r ^= r << 17;
        /* The state is at the end; memory may hold anything anyway. */
        size_t from = len > 40000 ? len - 40000 : 0, at = from + r % (len - from);
        size_t used = round % 3 ? len : at;
        copy[at] ^= (uint8_t)(1u << (r >> 40 & 7));
        if (round % 3 == 2)
            copy[at] = (uint8_t)(r >> 48);
        autofd int fd = memfd_create("state", MFD_CLOEXEC);
        struct err err = {0};
        struct guest g = guest_new(loop, engine);
        if (fd_write_full(fd, copy, used) < 0)
            exit(1);
        lseek(fd, 0, SEEK_SET);
        if (vm_load(g.vm, fd, &err) < 0 && !err.msg[0]) {
            fprintf(stderr, "save: a refusal says nothing\n");
            exit(1);
        }
        if (used < len && !err.msg[0]) {
            fprintf(stderr, "save: a stream that is cut off was taken\n");
            exit(1);
        }
        guest_free(&g);
    }
    free(copy);
}

int main(int argc, char **argv)
{
    struct loop *loop;
    struct err err = {0};
    autofd int fd = memfd_create("state", MFD_CLOEXEC);
    if (argc < 3)
        return 2;
    kernel = argv[1];
    for (int i = 2; i < argc; i++) {
        if (!strcmp(argv[i], "kvm") && access("/dev/kvm", R_OK | W_OK) < 0) {
            printf("SKIP: no usable /dev/kvm\n");
            return 77;
        }
    }
    close(mkstemp(serial));
    check(loop_new(&loop, &err), &err);
    struct guest g = guest_new(loop, argv[2]);
    run(&g, 40);
    for (int i = 3; i < argc; i++) {
        if (ftruncate(fd, 0) < 0 || lseek(fd, 0, SEEK_SET) < 0)
            return 1;
        check(vm_save(g.vm, fd, &err), &err);
        guest_free(&g);
        g = guest_new(loop, argv[i]);
        lseek(fd, 0, SEEK_SET);
        check(vm_load(g.vm, fd, &err), &err);
        run(&g, 40);
        check_output();
    }
    guest_free(&g);
    off_t len = lseek(fd, 0, SEEK_END);
    uint8_t *data = malloc((size_t)len);
    if (!data || fd_pread_full(fd, data, (size_t)len, 0) < 0)
        return 1;
    damage(loop, argv[argc - 1], data, (size_t)len);
    free(data);
    loop_free(loop);
    unlink(serial);
    return 0;
}
