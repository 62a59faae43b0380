/* See png.h. One IDAT, lines filtered by "up", which makes of a screen's text little. */
#include "ui/png.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>
#include <zlib.h>

#include "base/fd.h"

static void be32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

/* Length, type, data, CRC. */
static int put_chunk(FILE *f, const char *type, const uint8_t *data, size_t len)
{
    uint8_t head[8], tail[4];
    be32(head, (uint32_t)len);
    memcpy(head + 4, type, 4);
    uLong crc = crc32(crc32(0, head + 4, 4), data, (uInt)len);
    be32(tail, (uint32_t)crc);
    return fwrite(head, 1, 8, f) == 8 && fwrite(data, 1, len, f) == len && fwrite(tail, 1, 4, f) == 4 ? 0 : -EIO;
}

static void rgb(uint8_t *to, const uint32_t *pixels, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        *to++ = (uint8_t)(pixels[i] >> 16);
        *to++ = (uint8_t)(pixels[i] >> 8);
        *to++ = (uint8_t)pixels[i];
    }
}

static int finish(FILE *f, const char *path, int code, struct err *err)
{
    if (fclose(f) != 0 && !code)
        code = -errno;
    return code < 0 ? err_errno(err, code, "%s", path) : 0;
}

static FILE *create(const char *path, struct err *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "wb");
    if (!f) {
        err_errno(err, -errno, "%s", path);
        if (fd >= 0)
            close(fd);
    }
    return f;
}

int png_write(const char *path, const uint32_t *pixels, unsigned width, unsigned height, struct err *err)
{
    static const uint8_t magic[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    size_t line = (size_t)width * 3, raw_len = (line + 1) * height;
    uLongf len = compressBound(raw_len);
    autofree uint8_t *raw = malloc(raw_len), *packed = malloc(len), *above = calloc(1, line), *now = malloc(line);
    uint8_t head[13] = {0};
    if (!raw || !packed || !above || !now)
        return err_errno(err, -ENOMEM, "%s", path);
    for (unsigned y = 0; y < height; y++) {
        uint8_t *to = raw + y * (line + 1);
        rgb(now, pixels + (size_t)y * width, width);
        *to++ = 2;
        for (size_t i = 0; i < line; i++)
            to[i] = (uint8_t)(now[i] - above[i]);
        memcpy(above, now, line);
    }
    if (compress2(packed, &len, raw, raw_len, 3) != Z_OK)
        return err_errno(err, -ENOMEM, "%s", path);
    FILE *f = create(path, err);
    if (!f)
        return err ? err->code : -EIO;
    be32(head, width);
    be32(head + 4, height);
    head[8] = 8; /* bits */
    head[9] = 2; /* red, green, blue */
    int code = fwrite(magic, 1, 8, f) == 8 ? 0 : -EIO;
    if (!code && !(code = put_chunk(f, "IHDR", head, sizeof head)) && !(code = put_chunk(f, "IDAT", packed, len)))
        code = put_chunk(f, "IEND", (const uint8_t *)"", 0);
    return finish(f, path, code, err);
}

int ppm_write(const char *path, const uint32_t *pixels, unsigned width, unsigned height, struct err *err)
{
    autofree uint8_t *line = malloc((size_t)width * 3);
    FILE *f = line ? create(path, err) : NULL;
    if (!f)
        return line ? (err ? err->code : -EIO) : err_errno(err, -ENOMEM, "%s", path);
    int code = fprintf(f, "P6\n%u %u\n255\n", width, height) < 0 ? -EIO : 0;
    for (unsigned y = 0; y < height && !code; y++) {
        rgb(line, pixels + (size_t)y * width, width);
        code = fwrite(line, 3, width, f) == width ? 0 : -EIO;
    }
    return finish(f, path, code, err);
}
