/*
 * Definitions on disk: CONFIG/NAME.xml, and a link autostart/NAME.xml for those that start with the daemon. A new
 * definition is written to a temporary file, flushed and renamed; what cannot be written leaves the old one in place.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/log.h"
#include "daemon/guest.h"

#define FILE_MAX (8u << 20)

static int sync_dir_of(const char *path)
{
    autofree char *dir = xstrdup(path);
    *strrchr(dir, '/') = 0;
    autofd int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

/*
 * Where nothing stood at `path` before, one flush after the rename puts both the contents and the name on disk (the
 * caller has not been promised anything until then). An old file is replaced only by one that is on disk already.
 */
int store_write_file(const char *path, const char *text, size_t len, bool durable)
{
    autofree char *temp = xasprintf("%.*s/.new", (int)(strrchr(path, '/') - path), path);
    autofd int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    bool replaces = access(path, F_OK) == 0;
    int r = fd_write_full(fd, text, len);
    if (!r && durable && replaces && fsync(fd) < 0)
        r = -errno;
    if (!r && rename(temp, path) < 0)
        r = -errno;
    if (r) {
        unlink(temp);
        return r;
    }
    if (!durable)
        return 0;
    if (replaces)
        return sync_dir_of(path);
    if (fsync(fd) < 0) {
        r = -errno;
        unlink(path);
    }
    return r;
}

char *store_read_file(const char *path, size_t *ret_len)
{
    autofd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return NULL;
    if (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX) {
        errno = EFBIG;
        return NULL;
    }
    char *text = malloc(st.st_size + 1);
    if (!text || fd_pread_full(fd, text, st.st_size, 0) < 0) {
        free(text);
        return NULL;
    }
    text[st.st_size] = 0;
    if (ret_len)
        *ret_len = st.st_size;
    return text;
}

static char *definition_path(const struct guest *g, const char *name)
{
    return xasprintf("%s/%s.xml", g->guests->dirs.config, name);
}

static char *autostart_path(const struct guest *g, const char *name)
{
    return xasprintf("%s/autostart/%s.xml", g->guests->dirs.config, name);
}

static void note_sizes(struct guest *g, const struct domain *d)
{
    g->memory = d->memory;
    g->current_memory = d->current_memory ? d->current_memory : d->memory;
    g->vcpus_max = d->vcpus;
    g->vcpus = d->vcpus_current ? d->vcpus_current : d->vcpus;
}

static void load_one(struct guests *t, const char *file)
{
    autofree char *path = xasprintf("%s/%s", t->dirs.config, file);
    size_t len;
    autofree char *text = store_read_file(path, &len);
    struct domain *d = NULL;
    struct err err = {0};
    if (!text) {
        log_error("%s: %s", path, strerror(errno));
        return;
    }
    if (domain_parse(text, len, path, &d, &err) < 0) {
        log_error("definition not loaded: %s", err.msg);
        return;
    }
    size_t stem = strlen(file) - 4;
    if (!d->name || !d->has_uuid || strlen(d->name) != stem || strncmp(d->name, file, stem))
        log_error("%s: definition not loaded: its name is not that of the file, or it has no UUID", path);
    else if (guests_find_name(t, d->name) || guests_find_uuid(t, d->uuid))
        log_error("%s: definition not loaded: there is another guest of that name or UUID", path);
    else {
        struct guest *g = guests_add(t, d->name, d->uuid);
        g->xml = xstrdup(text);
        note_sizes(g, d);
        autofree char *link = autostart_path(g, g->name);
        g->autostart = access(link, F_OK) == 0;
    }
    domain_free(d);
}

int store_load(struct guests *t, struct rpc_error *e)
{
    DIR *dir = opendir(t->dirs.config);
    if (!dir)
        return verr_errno(e, errno, "%s", t->dirs.config);
    for (struct dirent *entry; (entry = readdir(dir));) {
        size_t len = strlen(entry->d_name);
        if (len > 4 && !strcmp(entry->d_name + len - 4, ".xml") && entry->d_type != DT_DIR)
            load_one(t, entry->d_name);
    }
    closedir(dir);
    return 0;
}

int store_save(struct guest *g, const struct domain *d, struct rpc_error *e)
{
    autofree char *path = definition_path(g, g->name);
    autofree char *text = domain_format(d);
    int r = store_write_file(path, text, strlen(text), true);
    if (r < 0)
        return verr_errno(e, r, "cannot save the definition to '%s'", path);
    free(g->xml);
    g->xml = ptr_take(text);
    note_sizes(g, d);
    return 0;
}

int store_remove(struct guest *g, struct rpc_error *e)
{
    autofree char *path = definition_path(g, g->name);
    autofree char *link = autostart_path(g, g->name);
    if (unlink(path) < 0 && errno != ENOENT)
        return verr_errno(e, errno, "cannot remove '%s'", path);
    if (g->autostart)
        unlink(link);
    g->autostart = false;
    free(g->xml);
    g->xml = NULL;
    int r = sync_dir_of(path);
    return r < 0 ? verr_errno(e, r, "cannot remove '%s'", path) : 0;
}

int store_set_autostart(struct guest *g, bool on, struct rpc_error *e)
{
    autofree char *link = autostart_path(g, g->name);
    autofree char *target = xasprintf("../%s.xml", g->name);
    autofree char *dir = xasprintf("%s/autostart", g->guests->dirs.config);
    if (on == g->autostart)
        return 0;
    mkdir(dir, 0700);
    int r = on ? symlink(target, link) : unlink(link);
    if (r < 0 && errno != (on ? EEXIST : ENOENT))
        return verr_errno(e, errno, on ? "Failed to create symlink '%s'" : "cannot remove '%s'", link);
    sync_dir_of(link);
    g->autostart = on;
    return 0;
}

int store_rename(struct guest *g, const char *name, struct rpc_error *e)
{
    struct guests *t = g->guests;
    struct domain *d = guest_config(g, true, e);
    if (!d)
        return -1;
    autofree char *old_path = definition_path(g, g->name);
    autofree char *new_path = definition_path(g, name);
    domain_set(&d->name, name);
    autofree char *text = domain_format(d);
    domain_free(d);
    bool autostart = g->autostart;
    int r = store_write_file(new_path, text, strlen(text), true);
    if (r < 0)
        return verr_errno(e, r, "cannot save the definition to '%s'", new_path);
    if (autostart)
        store_set_autostart(g, false, e);
    unlink(old_path);
    sync_dir_of(old_path);
    HASH_DELETE(by_name, t->by_name, g);
    free(g->name);
    g->name = xstrdup(name);
    HASH_ADD_KEYPTR(by_name, t->by_name, g->name, strlen(g->name), g);
    free(g->xml);
    g->xml = ptr_take(text);
    if (autostart)
        store_set_autostart(g, true, e);
    return 0;
}
