/* Commands for people (human-monitor-command): words instead of JSON, text instead of objects, in QEMU's style. */
#include <errno.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "monitor/private.h"

#define ITEMS_MAX 65536

struct hmp {
    struct monitor *m;
    unsigned cpu;
    struct text t;
    bool quit;
};

static void *vm_of(struct hmp *h)
{
    return h->m->vm.opaque;
}

static const struct monitor_vm_ops *ops(struct hmp *h)
{
    return h->m->vm.ops;
}

static void put_lines(struct text *t, const char *s)
{
    while (s && *s) {
        size_t n = strcspn(s, "\n");
        text_printf(t, "%.*s\r\n", (int)n, s);
        s += n + (s[n] == '\n');
    }
}

static void show(struct hmp *h, int code, const struct err *err)
{
    if (code < 0)
        text_printf(&h->t, "Error: %s\r\n", err->msg);
}

static void info_status(struct hmp *h, const char *arg)
{
    enum monitor_status s = ops(h)->status(vm_of(h));
    text_printf(&h->t, "VM status: %s%s%s\r\n", s == MONITOR_RUNNING ? "running" : "paused",
                s == MONITOR_RUNNING || s == MONITOR_PAUSED ? "" : " (",
                s == MONITOR_RUNNING || s == MONITOR_PAUSED ? "" : monitor_status_name(s));
    if (s != MONITOR_RUNNING && s != MONITOR_PAUSED) {
        h->t.len -= 2;
        text_printf(&h->t, ")\r\n");
    }
}

static void info_registers(struct hmp *h, const char *arg)
{
    struct err err = {0};
    unsigned first = h->cpu, count = 1;
    if (!strcmp(arg, "-a")) {
        struct monitor_cpu *cpus = xcalloc(256, sizeof *cpus);
        count = ops(h)->cpus(vm_of(h), cpus, 256);
        free(cpus);
        first = 0;
    }
    for (unsigned i = first; i < first + count; i++) {
        autofree char *s = ops(h)->registers(vm_of(h), i, &err);
        text_printf(&h->t, "\r\nCPU#%u\r\n", i);
        if (!s)
            show(h, -1, &err);
        put_lines(&h->t, s);
    }
}

static void info_mem(struct hmp *h, const char *arg)
{
    paging_list(h->m, h->cpu, &h->t);
}

static void info_pci(struct hmp *h, const char *arg)
{
    autofree char *s = ops(h)->pci(vm_of(h));
    put_lines(&h->t, s);
}

static void info_cpus(struct hmp *h, const char *arg)
{
    struct monitor_cpu *cpus = xcalloc(256, sizeof *cpus);
    unsigned n = ops(h)->cpus(vm_of(h), cpus, 256);
    for (unsigned i = 0; i < n; i++)
        text_printf(&h->t, "%c CPU #%u: thread_id=%d%s\r\n", cpus[i].index == h->cpu ? '*' : ' ', cpus[i].index,
                    (int)cpus[i].thread_id, cpus[i].halted ? " (halted)" : "");
    free(cpus);
}

static void info_block(struct hmp *h, const char *arg)
{
    struct monitor_disk *disks = xcalloc(256, sizeof *disks);
    unsigned n = ops(h)->disks(vm_of(h), disks, 256);
    for (unsigned i = 0; i < n; i++)
        text_printf(&h->t, "%s: %s (%s%s)\r\n", disks[i].device, disks[i].file, disks[i].format,
                    disks[i].readonly ? ", read-only" : "");
    free(disks);
}

static void info_balloon(struct hmp *h, const char *arg)
{
    uint64_t actual;
    struct err err = {0};
    if (!ops(h)->balloon_get)
        err_set(&err, -ENODEV, "No balloon device has been activated");
    if (err.code || ops(h)->balloon_get(vm_of(h), &actual, &err) < 0)
        show(h, -1, &err);
    else
        text_printf(&h->t, "balloon: actual=%llu\r\n", (unsigned long long)(actual >> 20));
}

static void info_version(struct hmp *h, const char *arg)
{
    text_printf(&h->t, "lodge " LODGE_VERSION "\r\n");
}

static void info_name(struct hmp *h, const char *arg)
{
    text_printf(&h->t, "%s\r\n", h->m->name);
}

static void info_uuid(struct hmp *h, const char *arg)
{
    text_printf(&h->t, "%s\r\n", h->m->uuid);
}

static void info_engine(struct hmp *h, const char *arg)
{
    if (ops(h)->engine_info) {
        autofree char *s = ops(h)->engine_info(vm_of(h));
        put_lines(&h->t, s);
    } else {
        text_printf(&h->t, "%s\r\n", ops(h)->engine(vm_of(h)));
    }
}

static void do_stop(struct hmp *h, const char *arg)
{
    struct err err = {0};
    show(h, ops(h)->stop(vm_of(h), &err), &err);
}

static void do_cont(struct hmp *h, const char *arg)
{
    struct err err = {0};
    show(h, ops(h)->cont(vm_of(h), &err), &err);
}

static void do_powerdown(struct hmp *h, const char *arg)
{
    struct err err = {0};
    show(h, ops(h)->powerdown(vm_of(h), &err), &err);
}

static void do_reset(struct hmp *h, const char *arg)
{
    struct err err = {0};
    show(h, ops(h)->reset(vm_of(h), &err), &err);
}

static void do_quit(struct hmp *h, const char *arg)
{
    h->quit = true;
}

static void do_balloon(struct hmp *h, const char *arg)
{
    struct err err = {0};
    char *end;
    unsigned long long mib = strtoull(arg, &end, 10);
    if (!isdigit((unsigned char)*arg) || *end || !mib || mib > UINT32_MAX)
        text_printf(&h->t, "balloon: a number of MiB is expected\r\n");
    else if (!ops(h)->balloon_set)
        text_printf(&h->t, "Error: No balloon device has been activated\r\n");
    else
        show(h, ops(h)->balloon_set(vm_of(h), mib << 20, &err), &err);
}

/* x/NFS ADDRESS: N items in format F (x, d, u, o, c) of size S (b, h, w, g). */
static void dump(struct hmp *h, const char *arg, bool physical)
{
    unsigned long long count = 1, addr;
    char format = 'x', *end;
    unsigned size = 4;
    while (*arg == ' ')
        arg++;
    if (*arg == '/') {
        arg++;
        if (isdigit((unsigned char)*arg)) {
            count = strtoull(arg, &end, 10);
            arg = end;
        }
        for (; *arg && *arg != ' '; arg++) {
            const char *sizes = "bhwg", *s = strchr(sizes, *arg);
            if (s)
                size = 1u << (s - sizes);
            else if (strchr("xduoc", *arg))
                format = *arg;
            else
                count = 0;
        }
    }
    while (*arg == ' ')
        arg++;
    addr = strtoull(arg, &end, 0);
    if (!*arg || *end || !count || count > ITEMS_MAX) {
        text_printf(&h->t, "x and xp: /NFS ADDRESS is expected: up to %u items, format x d u o c, size b h w g\r\n",
                    ITEMS_MAX);
        return;
    }
    if (format == 'c')
        size = 1;
    unsigned per_line = size == 1 ? 8 : 16 / size;
    for (unsigned i = 0; i < count && !h->t.full; i++) {
        uint8_t raw[8] = {0};
        struct err err = {0};
        uint64_t at = addr + (uint64_t)i * size;
        int code;
        if (!physical)
            code = paging_read(h->m, h->cpu, at, raw, size, &err);
        else if ((code = ops(h)->read_phys(vm_of(h), at, raw, size)) < 0)
            err_set(&err, code, "Cannot access memory at address 0x%llx", (unsigned long long)at);
        if (i % per_line == 0)
            text_printf(&h->t, "%s%016llx:", i ? "\r\n" : "", (unsigned long long)at);
        if (code < 0) {
            text_printf(&h->t, "%s%s", i % per_line ? "\r\n" : " ", err.msg);
            break;
        }
        unsigned long long v = le64_get(raw);
        int bits = 64 - 8 * (int)size;
        switch (format) {
        case 'c':
            text_printf(&h->t, isprint(raw[0]) ? " '%c'" : " '\\x%02x'", raw[0]);
            break;
        case 'd':
            text_printf(&h->t, " %lld", (long long)(v << bits) >> bits);
            break;
        case 'u':
            text_printf(&h->t, " %llu", v);
            break;
        case 'o':
            text_printf(&h->t, " 0%llo", v);
            break;
        default:
            text_printf(&h->t, " 0x%0*llx", 2 * (int)size, v);
        }
    }
    text_printf(&h->t, "\r\n");
}

static void do_x(struct hmp *h, const char *arg)
{
    dump(h, arg, false);
}

static void do_xp(struct hmp *h, const char *arg)
{
    dump(h, arg, true);
}

static void do_help(struct hmp *h, const char *arg);

static const struct {
    const char *name;
    void (*run)(struct hmp *h, const char *arg);
    const char *help;
} words[] = {
    {"info status", info_status, "what state the guest is in"},
    {"info registers", info_registers, "registers of the vCPU; -a: of all"},
    {"info mem", info_mem, "what the vCPU's page tables map"},
    {"info pci", info_pci, "PCI devices"},
    {"info cpus", info_cpus, "vCPUs and their threads"},
    {"info block", info_block, "disks"},
    {"info balloon", info_balloon, "memory the balloon leaves, MiB"},
    {"info engine", info_engine, "what executes the guest"},
    {"info jit", info_engine, "the same: blocks, code caches and ways out of translated code"},
    {"info version", info_version, "Lodge's version"},
    {"info name", info_name, "the guest's name"},
    {"info uuid", info_uuid, "the guest's UUID"},
    {"stop", do_stop, "stop the vCPUs"},
    {"cont", do_cont, "let them go on"},
    {"c", do_cont, "the same"},
    {"system_powerdown", do_powerdown, "press the power button"},
    {"system_reset", do_reset, "reset the machine"},
    {"balloon", do_balloon, "MIB: memory the guest shall have"},
    {"x", do_x, "/NFS ADDRESS: memory at a virtual address"},
    {"xp", do_xp, "/NFS ADDRESS: memory at a physical address"},
    {"quit", do_quit, "end lodge-vm"},
    {"q", do_quit, "the same"},
    {"help", do_help, "this list"},
};

static void do_help(struct hmp *h, const char *arg)
{
    for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
        text_printf(&h->t, "%-18s %s\r\n", words[i].name, words[i].help);
}

char *hmp_execute(struct monitor *m, const char *line, unsigned cpu, bool *ret_quit)
{
    struct hmp h = {.m = m, .cpu = cpu};
    while (*line == ' ')
        line++;
    for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
        size_t n = strlen(words[i].name);
        if (strncmp(line, words[i].name, n) || (line[n] && line[n] != ' ' && line[n] != '/'))
            continue;
        const char *arg = line + n;
        while (*arg == ' ')
            arg++;
        words[i].run(&h, arg);
        *ret_quit |= h.quit;
        return h.t.s ? h.t.s : xstrdup("");
    }
    if (*line)
        text_printf(&h.t, "unknown command: '%.100s'\r\n", line);
    return h.t.s ? h.t.s : xstrdup("");
}
