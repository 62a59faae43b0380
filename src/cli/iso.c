/* Files in ISO 9660 images (ECMA-119), with Rock Ridge names (IEEE P1282). The image is hostile input. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>

#include "base/fd.h"
#include "cli/install.h"

#define SECTOR 2048u
#define DIRECTORY_MAX (4u << 20) /* bytes of one directory */

static uint32_t le32(const uint8_t *p)
{
    return p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24;
}

/* The name that Rock Ridge gives a record, or the ISO name in lower case without its version. */
static void record_name(const uint8_t *r, size_t len, char ret[256])
{
    size_t name_len = r[32], n = 0;
    if (33 + name_len > len)
        name_len = len - 33;
    for (size_t i = 0; i < name_len && r[33 + i] != ';' && n < 255; i++)
        ret[n++] = tolower(r[33 + i]);
    if (n && ret[n - 1] == '.')
        n--;
    ret[n] = 0;
    n = 0;
    for (size_t at = 33 + name_len + !(name_len & 1); at + 5 <= len && r[at + 2] >= 5 && at + r[at + 2] <= len;
         at += r[at + 2])
        if (r[at] == 'N' && r[at + 1] == 'M')
            for (size_t i = 5; i < r[at + 2] && n < 255; i++) {
                ret[n++] = r[at + i];
                ret[n] = 0;
            }
}

/* Finds `name` in the directory at *extent; sets *extent and *size to what it names. */
static int lookup(int fd, uint32_t *extent, uint32_t *size, const char *name, size_t name_len)
{
    if (*size > DIRECTORY_MAX)
        return -EFBIG;
    autofree uint8_t *dir = xcalloc(1, *size + 1);
    int r = fd_pread_full(fd, dir, *size, (off_t)*extent * SECTOR);
    if (r < 0)
        return r;
    for (uint32_t at = 0; at < *size;) {
        uint8_t len = dir[at];
        if (len == 0) { /* records do not cross sectors */
            at = (at / SECTOR + 1) * SECTOR;
            continue;
        }
        if (len < 34 || at + len > *size)
            return -EBADMSG;
        char found[256];
        record_name(dir + at, len, found);
        if (strlen(found) == name_len && !strncasecmp(found, name, name_len)) {
            *extent = le32(dir + at + 2);
            *size = le32(dir + at + 10);
            return 0;
        }
        at += len;
    }
    return -ENOENT;
}

int iso_extract(const char *image, const char *path, int out)
{
    uint8_t descriptor[SECTOR];
    autofd int fd = open(image, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int r = fd_pread_full(fd, descriptor, sizeof(descriptor), 16 * SECTOR);
    if (r < 0 || memcmp(descriptor + 1, "CD001", 5) != 0)
        return -EBADMSG;
    uint32_t extent = le32(descriptor + 156 + 2), size = le32(descriptor + 156 + 10);
    while (*path == '/')
        path++;
    while (*path) {
        size_t len = strcspn(path, "/");
        if ((r = lookup(fd, &extent, &size, path, len)) < 0)
            return r;
        path += len;
        while (*path == '/')
            path++;
    }
    autofree uint8_t *buf = xcalloc(1, 1 << 20);
    for (uint32_t at = 0; at < size;) {
        uint32_t n = size - at < 1 << 20 ? size - at : 1 << 20;
        if ((r = fd_pread_full(fd, buf, n, (off_t)extent * SECTOR + at)) < 0 || (r = fd_write_full(out, buf, n)) < 0)
            return r;
        at += n;
    }
    return 0;
}
