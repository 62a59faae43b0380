/*
 * Saved guests. A file is what lodge-vm wrote (machine/save.h), and behind it the live document and a trailer, so that
 * one file is all that is needed: document, its length (32 bits), whether the guest ran (32 bits), "LODGEXML". A
 * managed save is such a file at STATE/NAME.save; the next start goes on from it and removes it.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/clock.h"
#include "base/fd.h"
#include "daemon/guest.h"

#define MAGIC "LODGEXML"
#define TRAILER_SIZE 16
#define XML_MAX (8u << 20)

char *guest_managed_save_path(const struct guest *g)
{
    return xasprintf("%s/%s.save", g->guests->dirs.state, g->name);
}

bool guest_has_managed_save(const struct guest *g)
{
    autofree char *path = guest_managed_save_path(g);
    return access(path, F_OK) == 0;
}

int guest_remove_managed_save(struct guest *g, struct rpc_error *e)
{
    autofree char *path = guest_managed_save_path(g);
    if (unlink(path) < 0 && errno != ENOENT)
        return verr_errno(e, errno, "Failed to remove managed save file '%s'", path);
    return 0;
}

/* Where the document starts in the file, and how long it is. */
static int find_trailer(int fd, const char *path, off_t *ret_start, uint32_t *ret_len, bool *ret_running,
                        struct rpc_error *e)
{
    struct stat st;
    uint8_t t[TRAILER_SIZE];
    if (fstat(fd, &st) < 0)
        return verr_errno(e, errno, "%s", path);
    if (st.st_size < TRAILER_SIZE || fd_pread_full(fd, t, sizeof t, st.st_size - TRAILER_SIZE) < 0 ||
        memcmp(t + 8, MAGIC, 8))
        return verr_set(e, VIR_OPERATION_FAILED, "'%s' is not a saved guest, or incomplete", path);
    *ret_len = le32_get(t);
    *ret_running = le32_get(t + 4) & 1;
    *ret_start = st.st_size - TRAILER_SIZE - *ret_len;
    if (*ret_len > XML_MAX || *ret_start < 8)
        return verr_set(e, VIR_OPERATION_FAILED, "'%s' is not a saved guest, or incomplete", path);
    return 0;
}

char *save_read_xml(const char *path, bool *ret_running, struct rpc_error *e)
{
    off_t start;
    uint32_t len;
    autofd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        verr_errno(e, errno, "Failed to open file '%s'", path);
        return NULL;
    }
    if (find_trailer(fd, path, &start, &len, ret_running, e) < 0)
        return NULL;
    char *xml = malloc(len + 1u);
    if (!xml || fd_pread_full(fd, xml, len, start) < 0) {
        free(xml);
        verr_set(e, VIR_OPERATION_FAILED, "cannot read '%s'", path);
        return NULL;
    }
    xml[len] = 0;
    return xml;
}

static int write_trailer(int fd, off_t at, const char *xml, bool running)
{
    uint8_t t[TRAILER_SIZE];
    size_t len = strlen(xml);
    le32_put(t, len);
    le32_put(t + 4, running);
    memcpy(t + 8, MAGIC, 8);
    if (lseek(fd, at, SEEK_SET) < 0)
        return -errno;
    int r = fd_write_full(fd, xml, len);
    if (!r)
        r = fd_write_full(fd, t, sizeof t);
    if (!r && ftruncate(fd, at + len + sizeof t) < 0)
        r = -errno;
    return !r && fsync(fd) < 0 ? -errno : r;
}

int save_write_xml(const char *path, const char *xml, int running, struct rpc_error *e)
{
    off_t start;
    uint32_t len;
    bool was_running;
    autofd int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return verr_errno(e, errno, "Failed to open file '%s'", path);
    if (find_trailer(fd, path, &start, &len, &was_running, e) < 0)
        return -1;
    int r = write_trailer(fd, start, xml, running < 0 ? was_running : running);
    return r < 0 ? verr_errno(e, r, "cannot write '%s'", path) : 0;
}

struct saving {
    struct guest *g;
    char *path, *xml;
    bool was_running, running;
    guest_done *done;
    void *opaque;
};

static void finish(struct saving *s, const struct rpc_error *e)
{
    s->done(s->opaque, e);
    free(s->path);
    free(s->xml);
    free(s);
}

static void on_gone(void *opaque, const struct rpc_error *e)
{
    finish(opaque, NULL);
}

static void on_saved(void *opaque, const struct rpc_error *e)
{
    struct saving *s = opaque;
    struct guest *g = s->g;
    struct rpc_error own = {.domain = VIR_FROM_QEMU};
    if (e)
        own = *e;
    if (!e) {
        autofd int fd = open(s->path, O_RDWR | O_CLOEXEC);
        struct stat st;
        int r = fd < 0 || fstat(fd, &st) < 0 ? -errno : write_trailer(fd, st.st_size, s->xml, s->running);
        if (r < 0)
            verr_errno(&own, r, "cannot complete '%s'", s->path);
    }
    g->job_ns = 0;
    if (!own.code && guest_destroy(g, false, SHUTOFF_SAVED, on_gone, s, &own) == 0)
        return;
    unlink(s->path);
    if (guest_active(g) && s->was_running)
        guest_resume(g, NULL, NULL, &(struct rpc_error){0});
    finish(s, &own);
}

int guest_save(struct guest *g, const char *path, const char *xml, int running, guest_done *done, void *opaque,
               struct rpc_error *e)
{
    if (!guest_active(g))
        return verr_set(e, VIR_OPERATION_INVALID, "domain is not running");
    if (g->state != GUEST_RUNNING && g->state != GUEST_PAUSED)
        return verr_set(e, VIR_OPERATION_INVALID, "domain is neither running nor paused");
    if (g->job_ns)
        return verr_set(e, VIR_OPERATION_TIMEOUT, "cannot acquire state change lock: the domain is being saved");
    if (*path != '/')
        return verr_set(e, VIR_INVALID_ARG, "'%.300s' is not an absolute path", path);
    struct saving *s = xcalloc(1, sizeof *s);
    *s = (struct saving){.g = g,
                         .path = xstrdup(path),
                         .xml = xml ? xstrdup(xml) : domain_format(g->live),
                         .done = done,
                         .opaque = opaque};
    s->was_running = g->state == GUEST_RUNNING;
    s->running = running < 0 ? s->was_running : running;
    autofree char *uri = xasprintf("file:%s", path);
    if (guest_command(g, "migrate", json_pack("{s:s}", "uri", uri), on_saved, s, e) < 0) {
        free(s->path);
        free(s->xml);
        free(s);
        return -1;
    }
    g->job_ns = clock_host_ns();
    return 0;
}
