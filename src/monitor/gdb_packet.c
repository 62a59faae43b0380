/*
 * The commands of GDB's remote serial protocol (gdb manual, "Packets", "General Query Packets"). Threads are vCPUs,
 * numbered from 1. While the machine runs only an interrupt is heard. Called from gdb.c.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "monitor/gdb_private.h"
#include "monitor/paging.h"


bool gdb_starts(const char *p, const char *word)
{
    return !strncmp(p, word, strlen(word));
}

void gdb_say(struct gdb *g, const char *s)
{
    gdb_send(g, s, strlen(s));
}

void gdb_say_status(struct gdb *g, int code)
{
    char s[8];
    snprintf(s, sizeof s, "E%02x", (unsigned)-code & 0xff);
    gdb_say(g, code < 0 ? s : "OK");
}

void gdb_say_reply(struct gdb *g, const struct gdb_reply *r)
{
    gdb_send(g, r->s, r->len);
}

unsigned gdb_cpus(const struct gdb *g)
{
    return MIN(g->target.ops->cpus(g->target.opaque), GDB_CPUS_MAX);
}

/* A hexadecimal number at *p, which moves behind it. False when there is none. */
bool gdb_number(char **p, uint64_t *ret)
{
    char *end;
    if (!strchr("0123456789abcdefABCDEF", **p) || !**p)
        return false;
    *ret = strtoull(*p, &end, 16);
    *p = end;
    return true;
}

bool gdb_comma(char **p)
{
    return *(*p)++ == ',';
}

/* A thread: -1 all, else a vCPU's index (0 is any: the first). -2: there is none of that name. */
int gdb_thread(const struct gdb *g, char **p)
{
    uint64_t n;
    if (!strncmp(*p, "-1", 2)) {
        *p += 2;
        return -1;
    }
    if (!gdb_number(p, &n) || n > gdb_cpus(g))
        return -2;
    return n ? (int)n - 1 : 0;
}

/* ---- stop and go ---- */

void gdb_stopped(struct gdb *g, unsigned cpu, const uint64_t *point)
{
    static const char *const words[] = {"swbreak:;", "hwbreak:;", "watch", "rwatch", "awatch"};
    if (!g || g->fd < 0)
        return;
    g->cpu = g->step_cpu = cpu;
    int n = snprintf(g->stop, sizeof g->stop, "T05thread:%02x;", cpu + 1);
    for (unsigned i = 0; point && i < g->n_points; i++) {
        if (g->point[i].addr != *point)
            continue;
        if (g->point[i].kind >= GDB_WRITE)
            snprintf(g->stop + n, sizeof g->stop - n, "%s:%llx;", words[g->point[i].kind], (unsigned long long)*point);
        else if (g->says_why)
            snprintf(g->stop + n, sizeof g->stop - n, "%s", words[g->point[i].kind]);
        break;
    }
    if (g->running) {
        g->running = false;
        gdb_say(g, g->stop);
    }
}

void gdb_ended(struct gdb *g, int status)
{
    char s[8];
    if (!g || g->fd < 0)
        return;
    snprintf(s, sizeof s, "W%02x", (unsigned)status & 0xff);
    g->running = false;
    gdb_say(g, s);
}

void gdb_interrupt(struct gdb *g)
{
    if (!g->running)
        return;
    g->target.ops->stop(g->target.opaque);
    if (!g->running)
        return; /* stop() has told gdb_stopped() */
    g->running = false;
    snprintf(g->stop, sizeof g->stop, "T02thread:%02x;", g->cpu + 1);
    gdb_say(g, g->stop);
}

static void resume(struct gdb *g, const enum gdb_how *how)
{
    g->running = true;
    if (g->target.ops->resume(g->target.opaque, how) < 0 && g->running)
        gdb_ended(g, 0);
}

/* c, s, C and S: `step` is of the vCPU that Hc named, and then of that one alone. */
static void resume_all(struct gdb *g, bool step)
{
    enum gdb_how how[GDB_CPUS_MAX];
    for (unsigned i = 0; i < GDB_CPUS_MAX; i++)
        how[i] = !step ? GDB_RUN : i == g->step_cpu ? GDB_STEP : GDB_HOLD;
    resume(g, how);
}

/* vCont;action[:thread];… : the first that matches a vCPU is its; others stay. */
static void packet_vcont(struct gdb *g, char *p)
{
    enum gdb_how how[GDB_CPUS_MAX];
    bool known[GDB_CPUS_MAX] = {false}, any = false;
    unsigned n = gdb_cpus(g);
    for (unsigned i = 0; i < GDB_CPUS_MAX; i++)
        how[i] = GDB_HOLD;
    while (*p == ';') {
        char action = *++p;
        uint64_t ignored;
        int which = -1;
        if (!action || !strchr("cCsS", action)) {
            gdb_say_status(g, -EINVAL);
            return;
        }
        p++;
        if (action == 'C' || action == 'S')
            (void)gdb_number(&p, &ignored); /* signals mean nothing to a machine */
        if (*p == ':') {
            p++;
            which = gdb_thread(g, &p);
        }
        for (unsigned i = 0; i < n; i++) {
            if (known[i] || (which != -1 && which != (int)i))
                continue;
            known[i] = any = true;
            how[i] = action == 'c' || action == 'C' ? GDB_RUN : GDB_STEP;
        }
    }
    if (*p || !any)
        gdb_say_status(g, -EINVAL);
    else
        resume(g, how);
}

/* ---- registers ---- */

static void packet_read_regs(struct gdb *g, int only)
{
    struct gdb_reply r = {0};
    autofree struct cpu_state *s = xcalloc(1, sizeof *s);
    uint8_t bytes[GDB_REG_BYTES_MAX];
    int code = only >= (int)gdb_regs ? -EINVAL : g->target.ops->get_state(g->target.opaque, g->cpu, s);
    if (code < 0) {
        gdb_say_status(g, code);
        return;
    }
    for (unsigned i = only < 0 ? 0 : (unsigned)only; i < (only < 0 ? gdb_regs : (unsigned)only + 1); i++)
        gdb_put_hex(&r, bytes, gdb_reg_get(s, i, bytes));
    gdb_say_reply(g, &r);
}

/* One register, or all: of those, what cannot be written stays. */
static int write_regs(struct gdb *g, int only, const char *hex)
{
    autofree struct cpu_state *s = xcalloc(1, sizeof *s);
    int code = g->target.ops->get_state(g->target.opaque, g->cpu, s);
    for (unsigned i = 0; i < gdb_regs && code >= 0; i++) {
        uint8_t bytes[GDB_REG_BYTES_MAX];
        if (only >= 0 && i != (unsigned)only)
            continue;
        if (!gdb_unhex(hex, bytes, gdb_reg_size(i)))
            return -EINVAL;
        hex += 2 * gdb_reg_size(i);
        int r = gdb_reg_set(s, i, bytes);
        if (only >= 0)
            code = r;
    }
    return code < 0 ? code : g->target.ops->set_state(g->target.opaque, g->cpu, s);
}

static void packet_write_reg(struct gdb *g, char *p)
{
    uint64_t n;
    if (!gdb_number(&p, &n) || n >= gdb_regs || *p++ != '=')
        gdb_say_status(g, -EINVAL);
    else
        gdb_say_status(g, write_regs(g, (int)n, p));
}

/* ---- memory ---- */

/* Through the page tables of the vCPU that Hg named. Bytes done, or -errno when not even the first is there. */
static int memory(struct gdb *g, uint64_t addr, uint8_t *buf, size_t len, bool write)
{
    const struct gdb_target_ops *ops = g->target.ops;
    autofree struct cpu_state *s = xcalloc(1, sizeof *s);
    int code = ops->get_state(g->target.opaque, g->cpu, s);
    if (code < 0)
        return code;
    const struct paging p = {{s->cr0, s->cr3, s->cr4, s->efer}, ops->read_phys, g->target.opaque};
    size_t done = 0;
    while (done < len) {
        uint64_t at = addr + done, gpa;
        size_t n = MIN(len - done, (size_t)(4096 - (at & 4095)));
        if (paging_translate(&p, at, &gpa) < 0 || (write ? ops->write_phys(g->target.opaque, gpa, buf + done, n)
                                                         : ops->read_phys(g->target.opaque, gpa, buf + done, n)) < 0)
            break;
        done += n;
    }
    return done || !len ? (int)done : -EFAULT;
}

static void packet_read_memory(struct gdb *g, char *p)
{
    uint64_t addr, len;
    uint8_t buf[GDB_MEMORY_MAX];
    if (!gdb_number(&p, &addr) || !gdb_comma(&p) || !gdb_number(&p, &len)) {
        gdb_say_status(g, -EINVAL);
        return;
    }
    int n = memory(g, addr, buf, MIN(len, sizeof buf), false);
    struct gdb_reply r = {0};
    if (n < 0) {
        gdb_say_status(g, n);
        return;
    }
    gdb_put_hex(&r, buf, (size_t)n);
    gdb_say_reply(g, &r);
}

/* M: in hexadecimal. X: bytes as they are. `end`: of the packet. */
static void packet_write_memory(struct gdb *g, char *p, const char *end, bool hex)
{
    uint64_t addr, len;
    uint8_t buf[GDB_PACKET_MAX];
    bool good = gdb_number(&p, &addr) && gdb_comma(&p) && gdb_number(&p, &len) && *p++ == ':';
    good = good && len <= sizeof buf && (size_t)(end - p) == (hex ? 2 * len : len);
    if (good && hex)
        good = gdb_unhex(p, buf, len);
    else if (good)
        memcpy(buf, p, len);
    int n = good ? memory(g, addr, buf, len, true) : -EINVAL;
    gdb_say_status(g, n >= 0 && (uint64_t)n < len ? -EFAULT : n);
}

/* ---- break- and watchpoints ---- */

static void packet_point(struct gdb *g, bool set, char *p)
{
    uint64_t kind, addr, len;
    if (!gdb_number(&p, &kind) || !gdb_comma(&p) || !gdb_number(&p, &addr) || !gdb_comma(&p) || !gdb_number(&p, &len)) {
        gdb_say_status(g, -EINVAL);
        return;
    }
    if (kind > GDB_ACCESS) {
        gdb_say(g, "");
        return;
    }
    if (kind >= GDB_WRITE && (len == 0 || len > 4096)) {
        gdb_say_status(g, -EINVAL);
        return;
    }
    struct gdb_point point[GDB_POINTS_MAX];
    unsigned n = 0;
    for (unsigned i = 0; i < g->n_points; i++) /* what is set twice is there once */
        if (g->point[i].kind != kind || g->point[i].addr != addr || (kind >= GDB_WRITE && g->point[i].len != len))
            point[n++] = g->point[i];
    if (set && n == GDB_POINTS_MAX) {
        gdb_say_status(g, -ENOSPC);
        return;
    }
    if (set)
        point[n++] = (struct gdb_point){(enum gdb_point_kind)kind, addr, (uint32_t)len};
    int code = g->target.ops->set_points(g->target.opaque, point, n);
    if (code >= 0) {
        memcpy(g->point, point, n * sizeof *point);
        g->n_points = n;
    }
    if (code == -ENOTSUP)
        gdb_say(g, "");
    else
        gdb_say_status(g, code);
}

/* ---- the rest ---- */

static void packet_thread(struct gdb *g, char *p)
{
    char what = *p++;
    int cpu = gdb_thread(g, &p);
    if ((what != 'g' && what != 'c') || cpu == -2) {
        gdb_say_status(g, -EINVAL);
        return;
    }
    if (cpu >= 0)
        *(what == 'g' ? &g->cpu : &g->step_cpu) = (unsigned)cpu;
    gdb_say(g, "OK");
}

static void packet_v(struct gdb *g, char *p)
{
    if (!strcmp(p, "vCont?"))
        gdb_say(g, "vCont;c;C;s;S");
    else if (gdb_starts(p, "vCont;"))
        packet_vcont(g, p + 5);
    else if (gdb_starts(p, "vKill;")) {
        gdb_say(g, "OK");
        g->target.ops->kill(g->target.opaque);
    } else
        gdb_say(g, "");
}

void gdb_packet(struct gdb *g, char *p, size_t len)
{
    uint64_t n;
    char *at = p + 1;
    if (g->running && p[0] != 'k' && !gdb_starts(p, "vKill")) {
        gdb_say_status(g, -EBUSY);
        return;
    }
    switch (p[0]) {
    case '?':
        gdb_say(g, g->stop);
        break;
    case 'g':
        packet_read_regs(g, -1);
        break;
    case 'G':
        gdb_say_status(g, write_regs(g, -1, at));
        break;
    case 'p':
        packet_read_regs(g, gdb_number(&at, &n) && n < gdb_regs ? (int)n : (int)gdb_regs);
        break;
    case 'P':
        packet_write_reg(g, at);
        break;
    case 'm':
        packet_read_memory(g, at);
        break;
    case 'M':
    case 'X':
        packet_write_memory(g, at, p + len, p[0] == 'M');
        break;
    case 'Z':
    case 'z':
        packet_point(g, p[0] == 'Z', at);
        break;
    case 'c':
    case 'C':
    case 's':
    case 'S':
        resume_all(g, p[0] == 's' || p[0] == 'S');
        break;
    case 'H':
        packet_thread(g, at);
        break;
    case 'T':
        gdb_say(g, gdb_thread(g, &at) >= 0 ? "OK" : "E16");
        break;
    case 'q':
        gdb_query(g, p);
        break;
    case 'Q':
        if (strcmp(p, "QStartNoAckMode")) {
            gdb_say(g, "");
            break;
        }
        gdb_say(g, "OK");
        g->no_ack = true;
        break;
    case 'v':
        packet_v(g, p);
        break;
    case 'D':
        gdb_say(g, "OK");
        gdb_drop(g);
        break;
    case 'k':
        g->target.ops->kill(g->target.opaque);
        break;
    default:
        gdb_say(g, "");
        break;
    }
}
