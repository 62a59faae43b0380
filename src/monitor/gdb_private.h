/*
 * The inside of the gdb server, for gdb*.c only: gdb.c (connection, framing), gdb_packet.c and gdb_query.c
 * (commands), gdb_regs.c.
 */
#ifndef LODGE_MONITOR_GDB_PRIVATE_H
#define LODGE_MONITOR_GDB_PRIVATE_H

#include "monitor/gdb.h"

#define GDB_PACKET_MAX 16384u            /* bytes between $ and #, either way */
#define GDB_MEMORY_MAX (GDB_PACKET_MAX / 2 - 64) /* bytes of one read */
#define GDB_UNREAD_MAX (8 * GDB_PACKET_MAX) /* bytes a peer may leave unread before it is no longer listened to */

struct gdb {
    struct loop *loop;
    struct gdb_target target;
    char *path; /* of the UNIX socket */
    int listen_fd;
    struct loop_fd *listen_watch;

    /* The connection; fd -1: none. */
    int fd;
    struct loop_fd *watch;
    bool no_ack;
    bool running;  /* a reply is owed once the machine stops */
    bool says_why; /* it understands swbreak and hwbreak */
    enum { GDB_IDLE, GDB_PACKET, GDB_SUM1, GDB_SUM2, GDB_TOO_LONG } rx;
    char in[GDB_PACKET_MAX + 1];
    size_t in_len;
    char sum[2];
    char *out; /* not sent yet */
    size_t out_len, out_cap;
    char *last; /* the last packet, for a peer that wants it again */
    size_t last_len;

    unsigned cpu, step_cpu; /* Hg, Hc */
    char stop[64];          /* the last stop reply */
    struct gdb_point point[GDB_POINTS_MAX];
    unsigned n_points;
};

/* A reply under way: what does not fit is lost. */
struct gdb_reply {
    size_t len;
    char s[GDB_PACKET_MAX];
};
void gdb_put(struct gdb_reply *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void gdb_put_hex(struct gdb_reply *r, const void *bytes, size_t n);

/* gdb.c */
void gdb_send(struct gdb *g, const char *s, size_t n);
void gdb_drop(struct gdb *g); /* closes the connection; the guest goes on without breakpoints */

/* gdb_packet.c. One packet, unescaped, with a NUL behind it. */
void gdb_packet(struct gdb *g, char *p, size_t len);
void gdb_interrupt(struct gdb *g);
/* `n` hexadecimal pairs at `s` as bytes; false when there are fewer. */
bool gdb_unhex(const char *s, void *ret, size_t n);

/* For what reads packets. Answers: a text; "OK", or the error; what was put together. */
void gdb_say(struct gdb *g, const char *s);
void gdb_say_status(struct gdb *g, int code);
void gdb_say_reply(struct gdb *g, const struct gdb_reply *r);
unsigned gdb_cpus(const struct gdb *g);
bool gdb_starts(const char *p, const char *word);
/* A hexadecimal number, a comma at *p, which moves behind it. False when there is none. */
bool gdb_number(char **p, uint64_t *ret);
bool gdb_comma(char **p);
/* A thread: -1 all, else a vCPU's index (0 is any: the first). -2: there is none of that name. */
int gdb_thread(const struct gdb *g, char **p);

/* gdb_query.c: a packet that begins with q. */
void gdb_query(struct gdb *g, char *p);

/* gdb_regs.c */
#define GDB_REG_BYTES_MAX 16
extern const unsigned gdb_regs;
/* Size of register `n` in bytes; its bytes, little-endian. */
unsigned gdb_reg_get(const struct cpu_state *s, unsigned n, uint8_t *ret);
unsigned gdb_reg_size(unsigned n);
/* -EINVAL: cannot be written. */
int gdb_reg_set(struct cpu_state *s, unsigned n, const uint8_t *bytes);
/* The target description; the caller frees it. */
char *gdb_regs_xml(void);

#endif
