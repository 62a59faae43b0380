/* qcow2: compressed clusters: raw deflate with a window of 4 KiB, or one zstd frame. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "base/fd.h"
#include "base/iov.h"
#include "block/qcow2.h"

/*
 * Whether deflating is worth a try. zstd's fastest level that codes single bytes, too, tells: what it cannot make smaller deflate
 * cannot either, but takes fifty times as long to find out (2.6 ms for 64 KiB of noise).
 */
static bool promising(const void *src, size_t len, void *dst, size_t cap)
{
    size_t n = ZSTD_compress(dst, cap, src, len, 1);
    return !ZSTD_isError(n) && n < len - len / 64;
}

ssize_t qcow2_compress(const struct qcow2 *s, const void *src, size_t len, void *dst, size_t cap)
{
    if (s->compression == QCOMP_ZSTD) {
        size_t n = ZSTD_compress(dst, cap - 1, src, len, 3);
        return ZSTD_isError(n) ? 0 : (ssize_t)n;
    }
    if (!promising(src, len, dst, cap))
        return 0;
    z_stream z = {0};
    if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY) != Z_OK)
        return -ENOMEM;
    z.next_in = (Bytef *)src;
    z.avail_in = (uInt)len;
    z.next_out = dst;
    z.avail_out = (uInt)(cap - 1);
    int r = deflate(&z, Z_FINISH);
    ssize_t n = r == Z_STREAM_END ? (ssize_t)(cap - 1 - z.avail_out) : 0;
    deflateEnd(&z);
    return n;
}

/* Unpacks exactly `len` bytes. The packed length is only known to the sector: what follows the stream is ignored. */
static int unpack(const struct qcow2 *s, const uint8_t *src, size_t n, uint8_t *dst, size_t len)
{
    if (s->compression == QCOMP_ZSTD) {
        ZSTD_DCtx *ctx = ZSTD_createDCtx();
        ZSTD_inBuffer in = {src, n, 0};
        ZSTD_outBuffer out = {dst, len, 0};
        size_t r = 1;
        if (!ctx)
            return -ENOMEM;
        while (out.pos < out.size) {
            size_t before = in.pos + out.pos;
            r = ZSTD_decompressStream(ctx, &out, &in);
            if (ZSTD_isError(r) || in.pos + out.pos == before)
                break;
        }
        ZSTD_freeDCtx(ctx);
        return out.pos == out.size && !ZSTD_isError(r) ? 0 : -EIO;
    }
    z_stream z = {0};
    if (inflateInit2(&z, -12) != Z_OK)
        return -ENOMEM;
    z.next_in = (Bytef *)src;
    z.avail_in = (uInt)n;
    z.next_out = dst;
    z.avail_out = (uInt)len;
    int r = inflate(&z, Z_FINISH);
    bool ok = (r == Z_STREAM_END || r == Z_BUF_ERROR || r == Z_OK) && !z.avail_out;
    inflateEnd(&z);
    return ok ? 0 : -EIO;
}

int qcow2_read_compressed(struct qcow2 *s, uint64_t entry, uint64_t off, const struct iovec *iov, unsigned niov,
                          uint64_t len)
{
    uint64_t where, packed;
    pthread_mutex_lock(&s->comp_lock);
    bool hit = s->comp_buf && s->comp_entry == entry;
    if (hit)
        iov_write(iov, niov, 0, s->comp_buf + off, len);
    pthread_mutex_unlock(&s->comp_lock);
    if (hit)
        return 0;
    if (!qcow2_compressed_range(s, entry, &where, &packed))
        return qcow2_corrupt(s, "a compressed cluster lies at %#llx", (unsigned long long)where);
    autofree uint8_t *in = malloc(packed), *out = malloc(s->cluster_size);
    if (!in || !out)
        return -ENOMEM;
    int code = blk_pread(s->file, where, in, packed);
    if (code == 0)
        code = unpack(s, in, packed, out, s->cluster_size);
    if (code < 0)
        return code;
    iov_write(iov, niov, 0, out + off, len);
    if (len < s->cluster_size) { /* more of it may follow */
        pthread_mutex_lock(&s->comp_lock);
        uint8_t *old = s->comp_buf;
        s->comp_buf = ptr_take(out);
        s->comp_entry = entry;
        pthread_mutex_unlock(&s->comp_lock);
        free(old);
    }
    return 0;
}
