/* The gdb server's answers to what gdb asks about it and its threads (gdb manual, "General Query Packets"). */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "monitor/gdb_private.h"

static void query_xfer(struct gdb *g, char *p)
{
    uint64_t off, len;
    if (strncmp(p, "target.xml:", 11)) {
        gdb_say(g, "E00");
        return;
    }
    p += 11;
    if (!gdb_number(&p, &off) || !gdb_comma(&p) || !gdb_number(&p, &len)) {
        gdb_say(g, "E01");
        return;
    }
    autofree char *xml = gdb_regs_xml();
    size_t size = strlen(xml);
    off = MIN(off, size);
    len = MIN(MIN(len, size - off), GDB_MEMORY_MAX); /* escapes may double it */
    struct gdb_reply r = {0};
    gdb_put(&r, "%c%.*s", off + len < size ? 'm' : 'l', (int)len, xml + off);
    gdb_say_reply(g, &r);
}

void gdb_query(struct gdb *g, char *p)
{
    struct gdb_reply r = {0};
    if (gdb_starts(p, "qSupported")) {
        g->says_why = strstr(p, "swbreak+") && strstr(p, "hwbreak+");
        gdb_put(&r, "PacketSize=%x;qXfer:features:read+;QStartNoAckMode+;vContSupported+;swbreak+;hwbreak+",
                GDB_PACKET_MAX);
    } else if (gdb_starts(p, "qXfer:features:read:")) {
        query_xfer(g, p + 20);
        return;
    } else if (gdb_starts(p, "qfThreadInfo")) {
        for (unsigned i = 0; i < gdb_cpus(g); i++)
            gdb_put(&r, "%c%02x", i ? ',' : 'm', i + 1);
    } else if (gdb_starts(p, "qsThreadInfo")) {
        gdb_put(&r, "l");
    } else if (gdb_starts(p, "qThreadExtraInfo,")) {
        autofree struct cpu_state *s = xcalloc(1, sizeof *s);
        p += 17;
        int cpu = gdb_thread(g, &p);
        char text[40];
        if (cpu < 0 || (unsigned)cpu >= gdb_cpus(g) || g->target.ops->get_state(g->target.opaque, (unsigned)cpu, s) < 0) {
            gdb_say_status(g, -EINVAL);
            return;
        }
        int n = snprintf(text, sizeof text, "CPU %d, %s", cpu,
                         s->run_state == CPU_RUNNABLE ? "running" : s->run_state == CPU_HALTED ? "halted" : "not started");
        gdb_put_hex(&r, text, (size_t)n);
    } else if (!strcmp(p, "qC")) {
        gdb_put(&r, "QC%02x", g->cpu + 1);
    } else if (gdb_starts(p, "qAttached")) {
        gdb_put(&r, "1");
    } else if (gdb_starts(p, "qSymbol:")) {
        gdb_put(&r, "OK");
    }
    gdb_say_reply(g, &r);
}
