/* The inside of the monitor, for the files of src/monitor only. */
#ifndef LODGE_MONITOR_PRIVATE_H
#define LODGE_MONITOR_PRIVATE_H

#include <jansson.h>

#include "monitor/monitor.h"

#define MONITOR_CLIENTS_MAX 16
#define MONITOR_INPUT_MAX (1u << 20)  /* bytes of one message */
#define MONITOR_OUTPUT_MAX (4u << 20) /* bytes a client may leave unread */
#define MONITOR_DEPTH_MAX 64          /* of nested JSON */
#define MONITOR_TEXT_MAX (256u << 10) /* of one reply for people */

struct client;

struct monitor {
    struct loop *loop;
    struct monitor_vm vm;
    char *name, *uuid, *path;
    int listen_fd;
    struct loop_fd *listen_watch;
    struct client *clients;
    unsigned n_clients;
    const char *migrated; /* how the last migrate ended, or NULL */
    unsigned buttons, x, y; /* of the pointer, as input-send-event left them */
};

/* client.c: one connection. */
void client_new(struct monitor *m, int fd);
void client_free(struct client *c);
void client_send(struct client *c, const json_t *message);
struct client *client_next(const struct client *c);
bool client_negotiated(const struct client *c);

/* qmp.c: executes one message, which may be NULL (`parse_error` says why). A new reply. */
struct qmp_session {
    struct monitor *m;
    bool negotiated;
    bool quit; /* end the process after the reply */
};
json_t *qmp_execute(struct qmp_session *s, const json_t *message, const char *parse_error);
/* qmp_input.c: commands. */
json_t *qmp_eject(struct qmp_session *s, const json_t *args, struct err *err);
json_t *qmp_change_medium(struct qmp_session *s, const json_t *args, struct err *err);
json_t *qmp_screendump(struct qmp_session *s, const json_t *args, struct err *err);
json_t *qmp_send_key(struct qmp_session *s, const json_t *args, struct err *err);
json_t *qmp_input_send_event(struct qmp_session *s, const json_t *args, struct err *err);
const char *monitor_status_name(enum monitor_status s);

/* hmp.c: executes a line for people; the text belongs to the caller. *ret_quit: end the process. */
char *hmp_execute(struct monitor *m, const char *line, unsigned cpu, bool *ret_quit);

/* text.c: a growing text, cut at MONITOR_TEXT_MAX. */
struct text {
    char *s;
    size_t len;
    bool full;
};
void text_printf(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* paging.c */
int paging_read(struct monitor *m, unsigned cpu, uint64_t gva, void *buf, size_t len, struct err *err);
void paging_list(struct monitor *m, unsigned cpu, struct text *t);

#endif
