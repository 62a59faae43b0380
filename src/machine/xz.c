/* See xz.h. Main thread. The stream is the user's file; liblzma treats it as hostile, and its memory is limited here. */
#include "machine/xz.h"

#include <dlfcn.h>
#include <errno.h>
#include <lzma.h>

#include "base/bits.h"

#define MEMORY_MAX (256 * MIB) /* of the decoder; the largest dictionary of Linux's build is 32 MiB */

static long decode(void *lib, const uint8_t *src, size_t src_len, uint8_t *dst, size_t dst_cap)
{
    __typeof__(&lzma_stream_decoder) start = (__typeof__(start))dlsym(lib, "lzma_stream_decoder");
    __typeof__(&lzma_code) code = (__typeof__(code))dlsym(lib, "lzma_code");
    __typeof__(&lzma_end) end = (__typeof__(end))dlsym(lib, "lzma_end");
    lzma_stream s = LZMA_STREAM_INIT;
    if (!start || !code || !end)
        return -ENOSYS;
    if (start(&s, MEMORY_MAX, 0) != LZMA_OK)
        return -ENOSYS;
    s.next_in = src;
    s.avail_in = src_len;
    s.next_out = dst;
    s.avail_out = dst_cap;
    lzma_ret r;
    do
        r = code(&s, LZMA_FINISH);
    while (r == LZMA_OK && s.avail_out);
    long done = (long)(dst_cap - s.avail_out);
    end(&s);
    return r == LZMA_OK || r == LZMA_STREAM_END || (r == LZMA_BUF_ERROR && !s.avail_out) ? done : -EINVAL;
}

long xz_stream(const uint8_t *src, size_t src_len, uint8_t *dst, size_t dst_cap)
{
    void *lib = dlopen("liblzma.so.5", RTLD_NOW | RTLD_LOCAL);
    if (!lib)
        return -ENOSYS;
    long done = decode(lib, src, src_len, dst, dst_cap);
    dlclose(lib);
    return done;
}
