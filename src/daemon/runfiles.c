/*
 * What is known of running guests, in the run directory, so that a daemon that starts can take them over. By UUID:
 *   .xml the live document   .state pid, start time and id   .monitor its socket   .end how it ended (lodge-vm writes
 * it)
 */
#include <errno.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "daemon/guest.h"

static const char *const suffixes[] = {"xml", "state", "monitor", "end", NULL};

char *run_path(const struct guest *g, const char *suffix)
{
    char uuid[37];
    uuid_format(g->uuid, uuid);
    return xasprintf("%s/%s.%s", g->guests->dirs.run, uuid, suffix);
}

int run_save(struct guest *g)
{
    autofree char *xml_path = run_path(g, "xml");
    autofree char *state_path = run_path(g, "state");
    autofree char *xml = domain_format(g->live);
    int r = store_write_file(xml_path, xml, strlen(xml), false);
    if (r < 0)
        return r;
    autofree char *state = xasprintf("pid=%d\nstart=%" PRIu64 "\nid=%d\n", (int)g->pid, g->pid_start, g->id);
    return store_write_file(state_path, state, strlen(state), false);
}

void run_remove(struct guest *g)
{
    for (const char *const *s = suffixes; *s; s++) {
        autofree char *path = run_path(g, *s);
        unlink(path);
    }
}

static void adopt(struct guests *t, const char *file)
{
    autofree char *state_path = xasprintf("%s/%s", t->dirs.run, file);
    autofree char *xml_path = xasprintf("%s/%.36s.xml", t->dirs.run, file);
    autofree char *state = store_read_file(state_path, NULL);
    struct domain *d = NULL;
    struct err err = {0};
    int pid, id;
    uint64_t start;
    if (!state || sscanf(state, "pid=%d\nstart=%" SCNu64 "\nid=%d", &pid, &start, &id) != 3 || pid <= 1 || id < 1) {
        log_error("%s: not what we write; left alone", state_path);
        return;
    }
    if (domain_parse_file(xml_path, &d, &err) < 0) {
        log_error("running guest not taken over: %s", err.msg);
        return;
    }
    domain_defaults(d);
    struct guest *g = guests_find_uuid(t, d->uuid);
    if (!g && !guests_find_name(t, d->name))
        g = guests_add(t, d->name, d->uuid);
    if (!g || guest_active(g)) {
        log_error("%s: another guest has the name '%s'; left alone", state_path, d->name);
        domain_free(d);
        return;
    }
    g->live = d;
    g->pid = pid;
    g->pid_start = start;
    g->adopted = true;
    guests_set_id(g, id);
    if (id > t->last_id)
        t->last_id = id;
    if (guest_adopt(g) < 0)
        guest_ended(g, -1);
}

void run_adopt_all(struct guests *t)
{
    DIR *dir = opendir(t->dirs.run);
    if (!dir)
        return;
    for (struct dirent *entry; (entry = readdir(dir));) {
        const char *dot = strrchr(entry->d_name, '.');
        if (dot && !strcmp(dot, ".state") && dot - entry->d_name == 36)
            adopt(t, entry->d_name);
    }
    closedir(dir);
}
