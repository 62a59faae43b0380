/* QMP's messages: checks against commands.def, the commands themselves, replies and errors in QEMU's words. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bits.h"
#include "base/fd.h"
#include "monitor/private.h"

#define ANY (~0u)
#define CONTINUABLE (1u << MONITOR_PRELAUNCH | 1u << MONITOR_RUNNING | 1u << MONITOR_PAUSED | 1u << MONITOR_IO_ERROR)
#define CPUS_MAX 256
#define DISKS_MAX 256

const char *monitor_status_name(enum monitor_status s)
{
    static const char *const names[] = {
        [MONITOR_PRELAUNCH] = "prelaunch",
        [MONITOR_RUNNING] = "running",
        [MONITOR_PAUSED] = "paused",
        [MONITOR_SHUTDOWN] = "shutdown",
        [MONITOR_PANICKED] = "guest-panicked",
        [MONITOR_IO_ERROR] = "io-error",
        [MONITOR_INTERNAL_ERROR] = "internal-error",
    };
    return names[s];
}

static json_t *version(void)
{
    int major = 0, minor = 0, micro = 0;
    sscanf(LODGE_VERSION, "%d.%d.%d", &major, &minor, &micro);
    return json_pack("{s:{s:i,s:i,s:i},s:s}", "qemu", "micro", micro, "minor", minor, "major", major, "package",
                     "lodge " LODGE_VERSION);
}

/* A text as JSON, also when it was cut within a character. */
static json_t *text_value(const char *text)
{
    json_t *v = json_string(text);
    if (v)
        return v;
    autofree char *copy = xstrdup(text);
    for (char *p = copy; *p; p++)
        if (*p & 0x80)
            *p = '?';
    return json_string(copy);
}

/* Commands: a new value, or NULL with *err. Arguments are checked already. */

static json_t *done(int code)
{
    return code < 0 ? NULL : json_object();
}

static json_t *qmp_capabilities(struct qmp_session *s, const json_t *args, struct err *err)
{
    json_t *enable = json_object_get(args, "enable");
    if (json_array_size(enable)) {
        err_set(err, -EINVAL, "there is no capability that could be enabled");
        return NULL;
    }
    s->negotiated = true;
    return json_object();
}

static json_t *query_commands(struct qmp_session *s, const json_t *args, struct err *err);

static json_t *query_version(struct qmp_session *s, const json_t *args, struct err *err)
{
    return version();
}

static json_t *query_name(struct qmp_session *s, const json_t *args, struct err *err)
{
    return json_pack("{s:s}", "name", s->m->name);
}

static json_t *query_uuid(struct qmp_session *s, const json_t *args, struct err *err)
{
    return json_pack("{s:s}", "UUID", s->m->uuid);
}

static json_t *query_kvm(struct qmp_session *s, const json_t *args, struct err *err)
{
    bool enabled = !strcmp(s->m->vm.ops->engine(s->m->vm.opaque), "kvm");
    return json_pack("{s:b,s:b}", "enabled", enabled, "present", enabled);
}

static json_t *query_status(struct qmp_session *s, const json_t *args, struct err *err)
{
    enum monitor_status status = s->m->vm.ops->status(s->m->vm.opaque);
    return json_pack("{s:s,s:b,s:b}", "status", monitor_status_name(status), "singlestep", 0, "running",
                     status == MONITOR_RUNNING);
}

static json_t *query_cpus_fast(struct qmp_session *s, const json_t *args, struct err *err)
{
    static const char path[] = "/machine/cpu[%u]";
    struct monitor_cpu *cpus = xcalloc(CPUS_MAX, sizeof *cpus);
    unsigned n = s->m->vm.ops->cpus(s->m->vm.opaque, cpus, CPUS_MAX);
    json_t *list = json_array();
    for (unsigned i = 0; i < n; i++) {
        char qom[40];
        snprintf(qom, sizeof qom, path, cpus[i].index);
        json_array_append_new(list, json_pack("{s:i,s:{s:i,s:i,s:i},s:s,s:i,s:s}", "thread-id", (int)cpus[i].thread_id,
                                              "props", "core-id", 0, "thread-id", 0, "socket-id", (int)cpus[i].index,
                                              "qom-path", qom, "cpu-index", (int)cpus[i].index, "target", "x86_64"));
    }
    free(cpus);
    return list;
}

static json_t *block_info(const struct monitor_disk *k)
{
    struct stat st;
    json_int_t actual = stat(k->file, &st) == 0 ? (json_int_t)st.st_blocks * 512 : 0;
    json_t *image = json_pack("{s:I,s:s?,s:s,s:I,s:b}", "virtual-size", (json_int_t)k->size, "filename", k->file,
                              "format", k->format, "actual-size", actual, "dirty-flag", 0);
    json_t *cache =
        json_pack("{s:b,s:b,s:b}", "writeback", !k->writethrough, "direct", k->direct, "no-flush", k->no_flush);
    json_t *inserted = json_pack("{s:b,s:s,s:s?,s:b,s:i,s:s,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:o,s:o}", "ro", k->readonly,
                                 "drv", k->format, "file", k->file, "encrypted", 0, "backing_file_depth", 0,
                                 "detect_zeroes", "off", "bps", 0, "bps_rd", 0, "bps_wr", 0, "iops", 0, "iops_rd", 0,
                                 "iops_wr", 0, "write_threshold", 0, "image", image, "cache", cache);
    return json_pack("{s:s,s:s,s:s,s:b,s:b,s:s,s:o*}", "device", k->device, "qdev", k->qdev, "type", "unknown",
                     "removable", k->removable, "locked", 0, "io-status", k->io_error ? "failed" : "ok", "inserted",
                     inserted);
}

static json_t *query_block(struct qmp_session *s, const json_t *args, struct err *err)
{
    struct monitor_disk *disks = xcalloc(DISKS_MAX, sizeof *disks);
    unsigned n = s->m->vm.ops->disks(s->m->vm.opaque, disks, DISKS_MAX);
    json_t *list = json_array();
    for (unsigned i = 0; i < n; i++)
        json_array_append_new(list, block_info(&disks[i]));
    free(disks);
    return list;
}

static json_t *query_blockstats(struct qmp_session *s, const json_t *args, struct err *err)
{
    struct monitor_disk *disks = xcalloc(DISKS_MAX, sizeof *disks);
    unsigned n = s->m->vm.ops->disks(s->m->vm.opaque, disks, DISKS_MAX);
    json_t *list = json_array();
    for (unsigned i = 0; i < n; i++) {
        const struct monitor_disk *k = &disks[i];
        json_t *stats = json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "rd_operations", (json_int_t)k->rd_ops, "rd_bytes",
                                  (json_int_t)k->rd_bytes, "wr_operations", (json_int_t)k->wr_ops, "wr_bytes",
                                  (json_int_t)k->wr_bytes, "flush_operations", (json_int_t)k->flush_ops,
                                  "unmap_operations", (json_int_t)k->unmap_ops, "unmap_bytes",
                                  (json_int_t)k->unmap_bytes);
        json_array_append_new(list, json_pack("{s:s,s:s,s:o}", "device", k->device, "qdev", k->qdev, "stats", stats));
    }
    free(disks);
    return list;
}

static int no_balloon(struct err *err)
{
    return err_set(err, -ENODEV, "No balloon device has been activated");
}

static json_t *query_balloon(struct qmp_session *s, const json_t *args, struct err *err)
{
    uint64_t actual = 0;
    const struct monitor_vm *vm = &s->m->vm;
    int code = vm->ops->balloon_get ? vm->ops->balloon_get(vm->opaque, &actual, err) : no_balloon(err);
    return code < 0 ? NULL : json_pack("{s:I}", "actual", (json_int_t)actual);
}

static json_t *block_resize(struct qmp_session *s, const json_t *args, struct err *err)
{
    const char *device = json_string_value(json_object_get(args, "device"));
    json_int_t size = json_integer_value(json_object_get(args, "size"));
    const struct monitor_vm *vm = &s->m->vm;
    if (!device)
        device = json_string_value(json_object_get(args, "node-name"));
    if (!device || size <= 0) {
        err_set(err, -EINVAL, device ? "Parameter 'size' expects a >0 size" : "Parameter 'device' is missing");
        return NULL;
    }
    if (!vm->ops->disk_resize) {
        err_set(err, -ENODEV, "Cannot find device='%s'", device);
        return NULL;
    }
    return done(vm->ops->disk_resize(vm->opaque, device, (uint64_t)size, err));
}

static json_t *balloon(struct qmp_session *s, const json_t *args, struct err *err)
{
    json_int_t value = json_integer_value(json_object_get(args, "value"));
    const struct monitor_vm *vm = &s->m->vm;
    if (value <= 0) {
        err_set(err, -EINVAL, "Parameter 'value' expects a size");
        return NULL;
    }
    return done(vm->ops->balloon_set ? vm->ops->balloon_set(vm->opaque, value, err) : no_balloon(err));
}

static json_t *migrate(struct qmp_session *s, const json_t *args, struct err *err)
{
    const char *uri = json_string_value(json_object_get(args, "uri"));
    const struct monitor_vm *vm = &s->m->vm;
    if (strncmp(uri, "file:", 5) || !uri[5]) {
        err_set(err, -EINVAL, "Parameter 'uri' expects file:PATH");
        return NULL;
    }
    if (!vm->ops->save) {
        err_set(err, -ENOTSUP, "this guest cannot be saved");
        return NULL;
    }
    int code = vm->ops->save(vm->opaque, uri + 5, err);
    s->m->migrated = code < 0 ? "failed" : "completed";
    return done(code);
}

static json_t *query_migrate(struct qmp_session *s, const json_t *args, struct err *err)
{
    return s->m->migrated ? json_pack("{s:s}", "status", s->m->migrated) : json_object();
}

static json_t *stop(struct qmp_session *s, const json_t *args, struct err *err)
{
    return done(s->m->vm.ops->stop(s->m->vm.opaque, err));
}

static json_t *cont(struct qmp_session *s, const json_t *args, struct err *err)
{
    return done(s->m->vm.ops->cont(s->m->vm.opaque, err));
}

static json_t *system_powerdown(struct qmp_session *s, const json_t *args, struct err *err)
{
    return done(s->m->vm.ops->powerdown(s->m->vm.opaque, err));
}

static json_t *system_reset(struct qmp_session *s, const json_t *args, struct err *err)
{
    return done(s->m->vm.ops->reset(s->m->vm.opaque, err));
}

static json_t *human_monitor_command(struct qmp_session *s, const json_t *args, struct err *err)
{
    json_int_t cpu = json_integer_value(json_object_get(args, "cpu-index"));
    if (cpu < 0 || cpu >= CPUS_MAX) {
        err_set(err, -EINVAL, "Parameter 'cpu-index' expects a CPU number");
        return NULL;
    }
    autofree char *text =
        hmp_execute(s->m, json_string_value(json_object_get(args, "command-line")), (unsigned)cpu, &s->quit);
    return text_value(text);
}

static json_t *quit(struct qmp_session *s, const json_t *args, struct err *err)
{
    s->quit = true;
    return json_object();
}

static const struct command {
    const char *name;
    json_t *(*run)(struct qmp_session *s, const json_t *args, struct err *err);
    const char *args;
    unsigned states;
    const char *help;
} commands[] = {
#define MONITOR_COMMAND(name, function, args, states, help) {name, function, args, states, help},
#include "monitor/commands.def"
#undef MONITOR_COMMAND
};

static json_t *query_commands(struct qmp_session *s, const json_t *args, struct err *err)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < ARRAY_SIZE(commands); i++)
        json_array_append_new(list, json_pack("{s:s,s:s}", "name", commands[i].name, "help", commands[i].help));
    return list;
}

/* Messages. */

static json_t *error(const char *class, const char *desc)
{
    return json_pack("{s:{s:s,s:o}}", "error", "class", class, "desc", text_value(desc));
}

/* The entry of that name in "a:i,b:s?", or NULL; *ret_type gets 'i'. */
static const char *find_arg(const char *spec, const char *name, char *ret_type)
{
    size_t len = strlen(name);
    for (const char *p = spec; *p;) {
        size_t n = strcspn(p, ":");
        if (n == len && !memcmp(p, name, n)) {
            *ret_type = p[n + 1];
            return p;
        }
        p += strcspn(p, ",");
        p += *p == ',';
    }
    return NULL;
}

static int check_args(const struct command *c, const json_t *args, struct err *err)
{
    const char *key;
    json_t *value;
    char type;
    json_object_foreach((json_t *)args, key, value)
    {
        if (!find_arg(c->args, key, &type))
            return err_set(err, -EINVAL, "Parameter '%.100s' is unexpected", key);
        if (type == 's' && !json_is_string(value))
            return err_set(err, -EINVAL, "Invalid parameter type for '%s', expected: string", key);
        if (type == 'i' && !json_is_integer(value))
            return err_set(err, -EINVAL, "Invalid parameter type for '%s', expected: integer", key);
        if (type == 'b' && !json_is_boolean(value))
            return err_set(err, -EINVAL, "Invalid parameter type for '%s', expected: boolean", key);
        if (type == 'a' && !json_is_array(value))
            return err_set(err, -EINVAL, "Invalid parameter type for '%s', expected: array", key);
    }
    for (const char *p = c->args; *p;) {
        size_t n = strcspn(p, ":");
        autofree char *name = strndup(p, n);
        if (p[n + 2] != '?' && !json_object_get(args, name))
            return err_set(err, -EINVAL, "Parameter '%s' is missing", name);
        p += strcspn(p, ",");
        p += *p == ',';
    }
    return 0;
}

static json_t *run_command(struct qmp_session *s, const char *name, const json_t *args)
{
    const struct command *c = NULL;
    char desc[ERR_MSG_MAX];
    bool capabilities = !strcmp(name, "qmp_capabilities");
    if (!s->negotiated && !capabilities)
        return error("CommandNotFound", "Expecting capabilities negotiation with 'qmp_capabilities'");
    if (s->negotiated && capabilities)
        return error("CommandNotFound", "Capabilities negotiation is already complete, command ignored");
    for (unsigned i = 0; i < ARRAY_SIZE(commands) && !c; i++)
        if (!strcmp(commands[i].name, name))
            c = &commands[i];
    if (!c) {
        snprintf(desc, sizeof desc, "The command %.100s has not been found", name);
        return error("CommandNotFound", desc);
    }
    struct err err = {0};
    enum monitor_status status = s->m->vm.ops->status(s->m->vm.opaque);
    if (!(c->states & 1u << status)) {
        snprintf(desc, sizeof desc, "%s is not possible in state %s: reset the machine first", name,
                 monitor_status_name(status));
        return error("GenericError", desc);
    }
    if (check_args(c, args, &err))
        return error("GenericError", err.msg);
    json_t *result = c->run(s, args, &err);
    if (!result)
        return error(err.code == -ENODEV ? "DeviceNotActive" : "GenericError", err.msg);
    return json_pack("{s:o}", "return", result);
}

static json_t *check_and_run(struct qmp_session *s, const json_t *message)
{
    const char *key, *name = NULL;
    json_t *value, *args = NULL;
    char desc[ERR_MSG_MAX];
    if (!json_is_object(message))
        return error("GenericError", "QMP input must be a JSON object");
    json_object_foreach((json_t *)message, key, value)
    {
        if (!strcmp(key, "execute")) {
            if (!(name = json_string_value(value)))
                return error("GenericError", "QMP input member 'execute' must be a string");
        } else if (!strcmp(key, "arguments")) {
            args = value;
            if (!json_is_object(value))
                return error("GenericError", "QMP input member 'arguments' must be an object");
        } else if (strcmp(key, "id")) {
            snprintf(desc, sizeof desc, "QMP input member '%.100s' is unexpected", key);
            return error("GenericError", desc);
        }
    }
    if (!name)
        return error("GenericError", "QMP input lacks member 'execute'");
    json_t *none = json_object();
    json_t *reply = run_command(s, name, args ? args : none);
    json_decref(none);
    return reply;
}

json_t *qmp_execute(struct qmp_session *s, const json_t *message, const char *parse_error)
{
    char desc[ERR_MSG_MAX];
    if (!message && !parse_error)
        return json_pack("{s:{s:o,s:[]}}", "QMP", "version", version(), "capabilities");
    if (!message) {
        snprintf(desc, sizeof desc, "JSON parse error, %.200s", parse_error);
        return error("GenericError", desc);
    }
    json_t *reply = check_and_run(s, message);
    json_t *id = json_object_get(message, "id");
    if (id)
        json_object_set(reply, "id", id);
    return reply;
}
