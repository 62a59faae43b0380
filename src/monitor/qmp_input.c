/* QMP's commands for screen, keys, pointer and removable media, in QEMU's words. */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "monitor/private.h"

#define KEYS_MAX 16
#define EVENTS_MAX 256

static int no_screen(struct err *err)
{
    return err_set(err, -ENODEV, "the guest has no screen");
}

json_t *qmp_screendump(struct qmp_session *s, const json_t *args, struct err *err)
{
    const struct monitor_vm *vm = &s->m->vm;
    const char *path = json_string_value(json_object_get(args, "filename"));
    const char *format = json_string_value(json_object_get(args, "format"));
    bool png = format && !strcmp(format, "png");
    if (format && !png && strcmp(format, "ppm")) {
        err_set(err, -EINVAL, "Invalid parameter 'format': '%.40s' is neither png nor ppm", format);
        return NULL;
    }
    int code = vm->ops->screendump ? vm->ops->screendump(vm->opaque, path, !png, err) : no_screen(err);
    return code < 0 ? NULL : json_object();
}

static json_t *change(struct qmp_session *s, const json_t *args, const char *path, struct err *err)
{
    const struct monitor_vm *vm = &s->m->vm;
    const char *device = json_string_value(json_object_get(args, "device"));
    if (!device)
        device = json_string_value(json_object_get(args, "id"));
    if (!device) {
        err_set(err, -EINVAL, "Parameter 'device' is missing");
        return NULL;
    }
    bool force = json_is_true(json_object_get(args, "force"));
    int code = vm->ops->change_medium ? vm->ops->change_medium(vm->opaque, device, path, force, err)
                                      : err_set(err, -ENODEV, "the guest has no drives with removable media");
    return code < 0 ? NULL : json_object();
}

json_t *qmp_eject(struct qmp_session *s, const json_t *args, struct err *err)
{
    return change(s, args, NULL, err);
}

json_t *qmp_change_medium(struct qmp_session *s, const json_t *args, struct err *err)
{
    return change(s, args, json_string_value(json_object_get(args, "filename")), err);
}

/* {"type": "qcode, "data": "ret"} or {"type": "number", "data": 28}, or the name alone. */
static int send_one(const struct monitor_vm *vm, const json_t *key, bool down, struct err *err)
{
    const json_t *data = json_is_object(key) ? json_object_get(key, "data") : key;
    if (json_is_string(data))
        return vm->ops->key(vm->opaque, json_string_value(data), 0, down, err);
    if (json_is_integer(data))
        return vm->ops->key(vm->opaque, NULL, (int)json_integer_value(data), down, err);
    return err_set(err, -EINVAL, "Invalid parameter type for 'keys', expected: names or numbers of keys");
}

json_t *qmp_send_key(struct qmp_session *s, const json_t *args, struct err *err)
{
    const struct monitor_vm *vm = &s->m->vm;
    const json_t *keys = json_object_get(args, "keys");
    size_t n = json_array_size(keys), done = 0;
    int code = 0;
    if (!vm->ops->key) {
        no_screen(err);
        return NULL;
    }
    if (n > KEYS_MAX) {
        err_set(err, -EINVAL, "more than %d keys at once", KEYS_MAX);
        return NULL;
    }
    /* The guest's keyboard keeps them in order: how long they are held does not matter. */
    for (; done < n && code >= 0; done++)
        code = send_one(vm, json_array_get(keys, done), true, err);
    while (done-- > 0)
        send_one(vm, json_array_get(keys, done), false, NULL);
    return code < 0 ? NULL : json_object();
}

/* What the events of one command add up to. */
struct gathered {
    int dx, dy, wheel;
    int x, y; /* -1: not given */
    bool moved;
};

static int button(const char *name, bool down, unsigned *buttons, struct gathered *g)
{
    static const char *const names[] = {"left", "middle", "right", "side", "extra"};
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
        if (!strcmp(names[i], name)) {
            *buttons = down ? *buttons | BIT(i) : *buttons & ~BIT(i);
            g->moved = true;
            return 0;
        }
    if (strcmp(name, "wheel-up") && strcmp(name, "wheel-down"))
        return -EINVAL;
    if (down)
        g->wheel += !strcmp(name, "wheel-up") ? 1 : -1;
    g->moved = true;
    return 0;
}

static int one_event(struct monitor *m, const json_t *event, struct gathered *g, struct err *err)
{
    const char *type = json_string_value(json_object_get(event, "type"));
    const json_t *data = json_object_get(event, "data");
    bool down = json_is_true(json_object_get(data, "down"));
    if (type && !strcmp(type, "key"))
        return send_one(&m->vm, json_object_get(data, "key"), down, err);
    if (type && !strcmp(type, "btn")) {
        const char *name = json_string_value(json_object_get(data, "button"));
        if (name && !button(name, down, &m->buttons, g))
            return 0;
    }
    const char *axis = json_string_value(json_object_get(data, "axis"));
    int value = (int)MIN(MAX(json_integer_value(json_object_get(data, "value")), -0x7fff), 0x7fff);
    bool rel = type && !strcmp(type, "rel"), abs = type && !strcmp(type, "abs");
    if (!axis || (!rel && !abs) || (strcmp(axis, "x") && strcmp(axis, "y")))
        return err_set(err, -EINVAL, "Invalid parameter 'events': a key, btn, rel or abs event was expected");
    int *to = rel ? (*axis == 'x' ? &g->dx : &g->dy) : *axis == 'x' ? &g->x : &g->y;
    *to = rel ? *to + value : MAX(value, 0);
    g->moved = true;
    return 0;
}

json_t *qmp_input_send_event(struct qmp_session *s, const json_t *args, struct err *err)
{
    struct monitor *m = s->m;
    const json_t *events = json_object_get(args, "events");
    struct gathered g = {.x = -1, .y = -1};
    int code = 0;
    if (!m->vm.ops->key) {
        no_screen(err);
        return NULL;
    }
    if (json_array_size(events) > EVENTS_MAX) {
        err_set(err, -EINVAL, "more than %d events at once", EVENTS_MAX);
        return NULL;
    }
    for (size_t i = 0; i < json_array_size(events) && code >= 0; i++)
        code = one_event(m, json_array_get(events, i), &g, err);
    if (g.x >= 0 || g.y >= 0) {
        m->x = g.x >= 0 ? (unsigned)g.x : m->x;
        m->y = g.y >= 0 ? (unsigned)g.y : m->y;
        m->vm.ops->place(m->vm.opaque, m->x, m->y, g.wheel, m->buttons);
    } else if (g.moved) {
        m->vm.ops->move(m->vm.opaque, g.dx, g.dy, g.wheel, m->buttons);
    }
    return code < 0 ? NULL : json_object();
}
