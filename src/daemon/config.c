/* What lodged is told by its file: "key = value" lines, '#' comments. Unknown keys are errors, so that a typing error
 * does not go unseen. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "daemon/daemon.h"

static char *under(const char *root, const char *path)
{
    return xasprintf("%s%s", root ? root : "", path);
}

static char *user_dir(const char *variable, const char *home_sub, const char *sub)
{
    const char *v = getenv(variable), *home = getenv("HOME");
    return v && *v == '/' ? xasprintf("%s/%s", v, sub) : xasprintf("%s/%s/%s", home ? home : "", home_sub, sub);
}

void daemon_config_init(struct daemon_config *c, bool session, const char *root)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    *c = (struct daemon_config){
        .session = session,
        .mode = session ? 0700 : 0770,
        .mode_ro = session ? 0700 : 0777,
        .max_clients = 5000,
        .max_calls = 20,
        .keepalive_interval = 5,
        .keepalive_count = 5,
        .log_max_kib = 2048,
        .log_keep = 3,
        .idle_timeout = session ? 120 : 0,
    };
    if (session && !root) {
        c->config_dir = user_dir("XDG_CONFIG_HOME", ".config", "lodge");
        c->state_dir = user_dir("XDG_DATA_HOME", ".local/share", "lodge");
        c->log_dir = user_dir("XDG_CACHE_HOME", ".cache", "lodge/log");
        c->run_dir = runtime && *runtime == '/' ? xasprintf("%s/lodge", runtime)
                                                : user_dir("XDG_CACHE_HOME", ".cache", "lodge/run");
    } else {
        c->config_dir = under(root, "/etc/lodge");
        c->state_dir = under(root, "/var/lib/lodge");
        c->log_dir = under(root, "/var/log/lodge");
        c->run_dir = under(root, "/run/lodge");
    }
    c->socket = xasprintf("%s/lodge-sock", c->run_dir);
    c->socket_ro = xasprintf("%s/lodge-sock-ro", c->run_dir);
}

void daemon_config_free(struct daemon_config *c)
{
    free(c->config_dir);
    free(c->state_dir);
    free(c->run_dir);
    free(c->log_dir);
    free(c->socket);
    free(c->socket_ro);
    free(c->group);
    free(c->lodge_vm);
}

static int set_number(unsigned *field, const char *text, int base, unsigned max)
{
    char *end;
    errno = 0;
    unsigned long v = strtoul(text, &end, base);
    if (errno || end == text || *end || v > max)
        return -EINVAL;
    *field = v;
    return 0;
}

static int set_path(char **field, const char *text)
{
    if (*text != '/')
        return -EINVAL;
    free(*field);
    *field = xstrdup(text);
    return 0;
}

static int set_key(struct daemon_config *c, const char *key, const char *value)
{
    const struct {
        const char *key;
        unsigned *number;
        unsigned base, max;
    } numbers[] = {
        {"socket_mode", &c->mode, 8, 0777},
        {"socket_ro_mode", &c->mode_ro, 8, 0777},
        {"max_clients", &c->max_clients, 10, 100000},
        {"max_client_calls", &c->max_calls, 10, 1000},
        {"keepalive_interval", &c->keepalive_interval, 10, 86400},
        {"keepalive_count", &c->keepalive_count, 10, 1000},
        {"log_max_kib", &c->log_max_kib, 10, 1 << 20},
        {"log_keep", &c->log_keep, 10, 100},
        {"idle_timeout", &c->idle_timeout, 10, 1 << 30},
    };
    const struct {
        const char *key;
        char **path;
    } paths[] = {
        {"socket", &c->socket},
        {"socket_ro", &c->socket_ro},
        {"lodge_vm", &c->lodge_vm},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(numbers); i++)
        if (!strcmp(numbers[i].key, key))
            return set_number(numbers[i].number, value, numbers[i].base, numbers[i].max);
    for (unsigned i = 0; i < ARRAY_SIZE(paths); i++)
        if (!strcmp(paths[i].key, key))
            return set_path(paths[i].path, value);
    if (!strcmp(key, "socket_group")) {
        free(c->group);
        c->group = xstrdup(value);
        return 0;
    }
    if (!strcmp(key, "auth")) {
        if (strcmp(value, "none") && strcmp(value, "polkit"))
            return -EINVAL;
        c->auth = !strcmp(value, "polkit") ? DAEMON_AUTH_POLKIT : DAEMON_AUTH_NONE;
        return 0;
    }
    return -ENOENT;
}

static char *trim(char *s)
{
    s += strspn(s, " \t\r\n");
    for (size_t n = strlen(s); n && strchr(" \t\r\n", s[n - 1]); n--)
        s[n - 1] = 0;
    return s;
}

int daemon_config_read(struct daemon_config *c, const char *path, struct err *err)
{
    autofree char *text = store_read_file(path, NULL);
    if (!text)
        return err_errno(err, -errno, "%s", path);
    int n = 0;
    for (char *line, *rest = text; (line = strsep(&rest, "\n"));) {
        n++;
        line = trim(line);
        if (!*line || *line == '#')
            continue;
        char *value = strchr(line, '=');
        if (!value)
            return err_set(err, -EINVAL, "%s:%d: not a line like 'key = value'", path, n);
        *value++ = 0;
        char *key = trim(line);
        value = trim(value);
        size_t len = strlen(value);
        if (len > 1 && value[0] == '"' && value[len - 1] == '"') {
            value[len - 1] = 0;
            value++;
        }
        int r = set_key(c, key, value);
        if (r == -ENOENT)
            return err_set(err, -EINVAL, "%s:%d: there is no setting '%.40s'", path, n, key);
        if (r < 0)
            return err_set(err, r, "%s:%d: '%.100s' is not a value for %s", path, n, value, key);
    }
    return 0;
}
