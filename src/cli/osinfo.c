/* See osinfo.h. */
#include "cli/osinfo.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "domain/xml.h"

#define DEPTH_MAX 40 /* systems that one derives from */

static const char *top(void)
{
    const char *dir = getenv("OSINFO_SYSTEM_DIR");
    return dir && *dir ? dir : "/usr/share/osinfo";
}

/* A file's contents; NULL: not there, or far too large. */
static char *read_file(const char *path)
{
    struct stat st;
    autofd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size > XML_MAX_BYTES)
        return NULL;
    char *text = xcalloc(1, st.st_size + 1);
    if (fd_read_full(fd, text, st.st_size) < 0) {
        free(text);
        return NULL;
    }
    return text;
}

/* Calls fn(opaque, text) with each system's document until it returns true. */
static bool each_document(bool (*fn)(void *opaque, const char *text), void *opaque)
{
    autofree char *base = xasprintf("%s/os", top());
    DIR *vendors = opendir(base);
    bool done = false;
    for (struct dirent *v; vendors && !done && (v = readdir(vendors));) {
        if (v->d_name[0] == '.')
            continue;
        autofree char *dir = xasprintf("%s/%s", base, v->d_name);
        DIR *systems = opendir(dir);
        for (struct dirent *s; systems && !done && (s = readdir(systems));) {
            size_t len = strlen(s->d_name);
            if (len < 5 || strcmp(s->d_name + len - 4, ".xml") != 0)
                continue;
            autofree char *path = xasprintf("%s/%s", dir, s->d_name);
            autofree char *text = read_file(path);
            done = text && fn(opaque, text);
        }
        if (systems)
            closedir(systems);
    }
    if (vendors)
        closedir(vendors);
    return done;
}

struct search {
    char *needle, *found;
};

static bool matches(void *opaque, const char *text)
{
    struct search *s = opaque;
    if (!strstr(text, s->needle))
        return false;
    s->found = xstrdup(text);
    return true;
}

/* "http://debian.org/debian/11" is in debian.org/debian-11.xml. */
static char *document_of(const char *id)
{
    const char *host = strstr(id, "://");
    host = host ? host + 3 : id;
    const char *slash = strchr(host, '/');
    if (!slash || strstr(id, ".."))
        return NULL;
    autofree char *rest = xstrdup(slash + 1);
    for (char *c = rest; *c; c++)
        if (*c == '/')
            *c = '-';
    autofree char *path = xasprintf("%s/os/%.*s/%s.xml", top(), (int)(slash - host), host, rest);
    return read_file(path);
}

static const struct xml_node *system_of(const struct xml_node *root)
{
    return root ? xml_child(root, "os") : NULL;
}

static void take_devices(const struct xml_node *os, struct osinfo *o)
{
    static const struct {
        const char *id;
        size_t flag;
    } known[] = {
#define FLAG(member) offsetof(struct osinfo, member)
        {"pci/1af4/1000", FLAG(net)},    {"pci/1af4/1041", FLAG(net)},     {"pci/1af4/1001", FLAG(block)},
        {"pci/1af4/1042", FLAG(block)},  {"pci/1af4/1050", FLAG(gpu)},     {"pci/1af4/1005", FLAG(rng)},
        {"pci/1af4/1044", FLAG(rng)},    {"pci/1af4/1003", FLAG(channel)}, {"pci/1af4/1043", FLAG(channel)},
        {"usb/80ee/0021", FLAG(tablet)},
#undef FLAG
    };
    for (const struct xml_node *d = os->first; d; d = d->next) {
        if (strcmp(d->name, "devices") != 0)
            continue;
        for (const struct xml_node *c = d->first; c; c = c->next) {
            const char *id = xml_attr_get(c, "id");
            for (unsigned i = 0; id && i < sizeof(known) / sizeof(known[0]); i++)
                if (strstr(id, known[i].id))
                    *((bool *)o + known[i].flag) = true;
        }
    }
}

static uint64_t number(const struct xml_node *parent, const char *name)
{
    const struct xml_node *n = parent ? xml_child(parent, name) : NULL;
    return n && n->text ? strtoull(n->text, NULL, 10) : 0;
}

static void take_resources(const struct xml_node *os, struct osinfo *o)
{
    static const char *const kinds[] = {"recommended", "minimum"};
    for (const struct xml_node *r = os->first; r; r = r->next) {
        const char *arch = xml_attr_get(r, "arch");
        if (strcmp(r->name, "resources") != 0 || (arch && strcmp(arch, "all") != 0 && strcmp(arch, "x86_64") != 0))
            continue;
        for (unsigned i = 0; i < 2; i++) {
            const struct xml_node *k = xml_child(r, kinds[i]);
            if (!o->ram)
                o->ram = number(k, "ram");
            if (!o->storage)
                o->storage = number(k, "storage");
            if (!o->cpus)
                o->cpus = number(k, "n-cpus");
        }
    }
}

/* Adds what the system has of its ancestors: devices always, resources only where it says nothing itself. */
static void inherit(const struct xml_node *os, struct osinfo *o, unsigned depth)
{
    take_devices(os, o);
    take_resources(os, o);
    for (const struct xml_node *c = os->first; c && depth < DEPTH_MAX; c = c->next) {
        const char *id = xml_attr_get(c, "id");
        if (!id || (strcmp(c->name, "derives-from") != 0 && strcmp(c->name, "clones") != 0))
            continue;
        autofree char *text = document_of(id);
        struct xml_node *root = NULL;
        if (text && xml_parse(text, strlen(text), id, &root, NULL) == 0 && system_of(root))
            inherit(system_of(root), o, depth + 1);
        xml_free(root);
    }
}

static char *text_of(const struct xml_node *os, const char *name)
{
    const struct xml_node *n = xml_child(os, name);
    return xstrdup(n && n->text ? n->text : "");
}

int osinfo_find(const char *name, struct osinfo *ret, struct err *err)
{
    *ret = (struct osinfo){0};
    if (!strcmp(name, "generic")) {
        ret->id = xstrdup("http://libosinfo.org/unknown");
        ret->name = xstrdup("Generic or unknown OS");
        ret->family = xstrdup("");
        return 0;
    }
    struct search s = {0};
    if (strstr(name, "://")) {
        s.found = document_of(name);
    } else {
        s.needle = xasprintf("<short-id>%s</short-id>", name);
        each_document(matches, &s);
    }
    autofree char *needle = s.needle, *text = s.found;
    struct xml_node *root = NULL;
    if (!text)
        return err_set(err, -ENOENT, "Unknown OS name '%s'. See `--osinfo list` for valid values.", name);
    if (xml_parse(text, strlen(text), name, &root, err) < 0 || !system_of(root)) {
        xml_free(root);
        return err_set(err, -ENOENT, "the description of OS '%s' cannot be read", name);
    }
    const struct xml_node *os = system_of(root);
    ret->id = xstrdup(xml_attr_get(os, "id") ? xml_attr_get(os, "id") : "");
    ret->name = text_of(os, "name");
    ret->family = text_of(os, "family");
    inherit(os, ret, 0);
    xml_free(root);
    return 0;
}

void osinfo_free(struct osinfo *o)
{
    free(o->id);
    free(o->name);
    free(o->family);
    *o = (struct osinfo){0};
}

struct names {
    char **v;
    unsigned n;
};

static bool collect(void *opaque, const char *text)
{
    struct names *names = opaque;
    autofree char *line = xstrdup("");
    for (const char *at = text; (at = strstr(at, "<short-id>"));) {
        at += strlen("<short-id>");
        char *longer = xasprintf("%s%s%.*s", line, *line ? ", " : "", (int)strcspn(at, "<"), at);
        free(line);
        line = longer;
    }
    if (!*line)
        return false;
    if (names->n % 256 == 0) {
        char **more = xcalloc(names->n + 256, sizeof(*more));
        if (names->n)
            memcpy(more, names->v, names->n * sizeof(*more));
        free(names->v);
        names->v = more;
    }
    names->v[names->n++] = ptr_take(line);
    return false;
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int osinfo_list(struct err *err)
{
    struct names names = {0};
    each_document(collect, &names);
    if (!names.n)
        return err_set(err, -ENOENT, "there is no %s/os: the package osinfo-db is missing", top());
    qsort(names.v, names.n, sizeof(*names.v), compare);
    for (unsigned i = 0; i < names.n; i++) {
        puts(names.v[i]);
        free(names.v[i]);
    }
    free(names.v);
    return 0;
}
