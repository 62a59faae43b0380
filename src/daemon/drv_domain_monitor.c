/* Domains: what goes through to the guest's monitor: its commands, keys, the screen. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "daemon/daemon.h"
#include "daemon/keycodes.h"
#include "daemon/qmp.h"

/* ---- qemu-monitor-command ---- */

struct command {
    struct rpc_call *call;
    bool hmp;
};

static void on_answer(void *opaque, json_t *value, const char *error)
{
    struct command *c = opaque;
    rp_string *ret = c->call->ret;
    if (c->hmp && json_is_string(value)) {
        *ret = xstrdup(json_string_value(value));
    } else if (c->hmp) {
        verr_set(&c->call->error, VIR_INTERNAL_ERROR, "unable to execute monitor command: %s",
                 error ? error : "no text");
    } else {
        json_t *m = value ? json_pack("{s:O}", "return", value)
                          : json_pack("{s:{s:s,s:s}}", "error", "class", "GenericError", "desc", error);
        *ret = m ? json_dumps(m, JSON_COMPACT) : NULL;
        json_decref(m);
        if (!*ret)
            verr_set(&c->call->error, VIR_INTERNAL_ERROR, "the monitor's answer cannot be passed on");
    }
    rpc_call_finish(c->call);
    free(c);
}

static int monitor_command(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_str_flags);
    enum { HMP = 1 };
    struct guest *g = call_active(d, call, &a->dom);
    json_error_t je;
    json_t *args = NULL;
    const char *name = "human-monitor-command";
    json_t *message = NULL;
    if (!g || call_flags(call, a->flags, HMP) < 0)
        return RPC_FAILED;
    if (!g->qmp)
        return verr_set(&call->error, VIR_OPERATION_FAILED, "the monitor of domain '%s' does not answer", g->name);
    if (a->flags & HMP) {
        args = json_pack("{s:s}", "command-line", a->text);
    } else {
        message = json_loads(a->text, 0, &je);
        name = json_string_value(json_object_get(message, "execute"));
        if (!name) {
            json_decref(message);
            return verr_set(&call->error, VIR_INVALID_ARG, "not a monitor command in JSON: %.200s", a->text);
        }
        args = json_incref(json_object_get(message, "arguments"));
    }
    struct command *c = xcalloc(1, sizeof *c);
    *c = (struct command){call, a->flags & HMP};
    qmp_call(g->qmp, name, args, on_answer, c);
    json_decref(message);
    return RPC_LATER;
}

/* ---- send-key, inject-nmi ---- */

static int send_key(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_send_key);
    struct guest *g = call_active(d, call, &a->dom);
    if (!g || call_flags(call, a->flags, 0) < 0)
        return RPC_FAILED;
    json_t *keys = json_array();
    for (unsigned i = 0; i < a->keycodes.keycodes_len; i++) {
        int qnum = keycode_to_qnum(a->codeset, a->keycodes.keycodes_val[i]);
        if (qnum < 0) {
            json_decref(keys);
            return verr_set(&call->error, VIR_INVALID_ARG, "cannot translate keycode %u of codeset %u",
                            a->keycodes.keycodes_val[i], a->codeset);
        }
        json_array_append_new(keys, json_pack("{s:s,s:i}", "type", "number", "data", qnum));
    }
    json_t *args = json_pack("{s:o}", "keys", keys);
    if (a->holdtime)
        json_object_set_new(args, "hold-time", json_integer(a->holdtime));
    return guest_command(g, "send-key", args, call_done, call, &call->error) < 0 ? RPC_FAILED : RPC_LATER;
}

static int inject_nmi(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_flags);
    struct guest *g = call_active(d, call, &a->dom);
    if (!g || call_flags(call, a->flags, 0) < 0)
        return RPC_FAILED;
    return guest_command(g, "inject-nmi", NULL, call_done, call, &call->error) < 0 ? RPC_FAILED : RPC_LATER;
}

/* ---- screenshot: lodge-vm writes a file, which becomes a stream ---- */

struct shot {
    struct daemon *d;
    struct rpc_call *call;
    struct rpc_stream *stream;
    char *path;
    int fd;
    bool eof;
};

static void shot_free(struct shot *s)
{
    unlink(s->path);
    fd_closep(&s->fd);
    free(s->path);
    free(s);
}

static void on_room(void *opaque)
{
    struct shot *s = opaque;
    autofree uint8_t *buf = xcalloc(1, RPC_STREAM_CHUNK);
    while (!s->eof && rpc_stream_room(s->stream)) {
        ssize_t n = read(s->fd, buf, RPC_STREAM_CHUNK);
        if (n > 0) {
            rpc_stream_send(s->stream, buf, n);
        } else {
            s->eof = true;
            rpc_stream_eof(s->stream);
        }
    }
}

static void on_closed(void *opaque)
{
    struct shot *s = opaque;
    loop_unpost(s->d->loop, s);
    shot_free(s);
}

static const struct rpc_stream_ops shot_ops = {.room = on_room, .closed = on_closed};

static void on_dumped(void *opaque, const struct rpc_error *e)
{
    struct shot *s = opaque;
    struct rpc_call *call = s->call;
    if (!e && call->client) {
        s->fd = open(s->path, O_RDONLY | O_CLOEXEC);
        s->stream = s->fd < 0 ? NULL : rpc_stream_new(call, &shot_ops, s);
        if (s->fd < 0)
            verr_errno(&call->error, errno, "cannot open the screenshot");
    } else if (e) {
        call->error = *e;
    }
    struct rpc_stream *stream = s->stream;
    if (!stream) {
        shot_free(s);
    } else {
        rp_opt_string *ret = call->ret;
        *ret = xcalloc(1, sizeof(rp_string));
        **ret = xstrdup("image/x-portable-pixmap");
        loop_post(s->d->loop, on_room, s);
    }
    rpc_call_finish(call);
}

static int screenshot(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_uint_flags);
    struct guest *g = call_active(d, call, &a->dom);
    if (!g || call_flags(call, a->flags, 0) < 0)
        return RPC_FAILED;
    if (a->value)
        return verr_set(&call->error, VIR_INVALID_ARG, "there is no screen %u", a->value);
    struct shot *s = xcalloc(1, sizeof *s);
    s->d = d;
    s->call = call;
    s->fd = -1;
    s->path = xasprintf("%s/screen-%llu.ppm", d->guests.dirs.run, ++d->serial);
    if (guest_command(g, "screendump", json_pack("{s:s}", "filename", s->path), on_dumped, s, &call->error) < 0) {
        shot_free(s);
        return RPC_FAILED;
    }
    return RPC_LATER;
}

const struct driver driver_domain_monitor = {
    .name = "domain monitor",
    .program = RPC_REMOTE_PROGRAM,
    .error_domain = VIR_FROM_QEMU,
    .handlers =
        (const struct handler[]){
            {RPC_PROC_DOMAIN_SEND_KEY, send_key},
            {RPC_PROC_DOMAIN_INJECT_NMI, inject_nmi},
            {RPC_PROC_DOMAIN_SCREENSHOT, screenshot},
            {RPC_PROC_DOMAIN_OPEN_GRAPHICS_FD, open_graphics_fd},
            {0},
        },
};

const struct driver driver_qemu = {
    .name = "qemu",
    .program = RPC_QEMU_PROGRAM,
    .error_domain = VIR_FROM_QEMU,
    .handlers = (const struct handler[]){{RPC_PROC_QEMU_MONITOR_COMMAND, monitor_command}, {0}},
};
