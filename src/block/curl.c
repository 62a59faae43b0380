/*
 * The protocol `http` and `https`: images read by ranges from a web server, by libcurl, which is loaded when the first one is
 * opened. Read-only. What is read is cached in a few large pieces, because a request costs a round trip.
 */
#include <curl/curl.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/iov.h"
#include "block/driver.h"

enum { PIECE = 256 << 10, PIECES = 16, TIMEOUT = 60 };

#define FUNCTIONS(F)                                                                                                   \
    F(curl_global_init)                                                                                                \
    F(curl_easy_init)                                                                                                  \
    F(curl_easy_cleanup)                                                                                               \
    F(curl_easy_setopt)                                                                                                \
    F(curl_easy_perform)                                                                                               \
    F(curl_easy_getinfo)                                                                                               \
    F(curl_easy_strerror)

/* curl.h makes type-checking macros of these. */
#undef curl_easy_setopt
#undef curl_easy_getinfo

struct library {
#define MEMBER(name) __typeof__(name) *name;
    FUNCTIONS(MEMBER)
};

struct piece {
    uint64_t at; /* UINT64_MAX: empty */
    uint64_t used;
    size_t len;
    uint8_t *data;
};

struct web {
    struct library lib;
    void *so;
    CURL *curl;
    bool ranges; /* the server said that it has them */
    uint64_t clock;
    pthread_mutex_t lock; /* one request at a time */
    struct piece pieces[PIECES];
};

struct sink {
    uint8_t *data;
    size_t len, room;
};

static int load(struct web *w, struct err *err)
{
    w->so = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
    if (!w->so)
        return err_set(err, -ENOTSUP, "http: libcurl (the package libcurl4) is needed and cannot be loaded: %s", dlerror());
#define LOAD(name)                                                                                                     \
    if (!(w->lib.name = (__typeof__(name) *)dlsym(w->so, #name)))                                                      \
        return err_set(err, -ENOTSUP, "http: libcurl is too old: it has no " #name);
    FUNCTIONS(LOAD)
    return 0;
}

/* More than was asked for means that the server does not know ranges: the transfer ends there. */
static size_t on_body(char *data, size_t size, size_t n, void *opaque)
{
    struct sink *s = opaque;
    size_t len = size * n;
    if (len > s->room - s->len)
        return 0;
    memcpy(s->data + s->len, data, len);
    s->len += len;
    return len;
}

static size_t on_header(char *data, size_t size, size_t n, void *opaque)
{
    struct web *w = opaque;
    static const char key[] = "accept-ranges:";
    size_t len = size * n;
    if (len > sizeof key && !strncasecmp(data, key, sizeof key - 1) && memmem(data, len, "bytes", 5))
        w->ranges = true;
    return len;
}

static int web_open(struct blk_node *n, struct blk_opts *opts, struct err *err)
{
    struct web *w = xcalloc(1, sizeof *w);
    const char *url = blk_opts_get(opts, "url"), *name = blk_opts_get(opts, "filename");
    const char *verify = blk_opts_get(opts, "sslverify"), *cookie = blk_opts_get(opts, "cookie");
    curl_off_t size = -1;
    n->priv = w;
    pthread_mutex_init(&w->lock, NULL);
    for (unsigned i = 0; i < PIECES; i++)
        w->pieces[i].at = UINT64_MAX;
    if (!url)
        url = name;
    if (!url || !*url)
        return err_set(err, -EINVAL, "http: a URL is missing");
    if (!n->read_only)
        return err_set(err, -EROFS, "%s: web servers' images can be read only", url);
    int code = load(w, err);
    if (code < 0)
        return code;
    w->lib.curl_global_init(CURL_GLOBAL_DEFAULT);
    if (!(w->curl = w->lib.curl_easy_init()))
        return err_set(err, -ENOMEM, "%s: libcurl does not start", url);
    w->lib.curl_easy_setopt(w->curl, CURLOPT_URL, url);
    w->lib.curl_easy_setopt(w->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    w->lib.curl_easy_setopt(w->curl, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
    w->lib.curl_easy_setopt(w->curl, CURLOPT_FOLLOWLOCATION, 1L);
    w->lib.curl_easy_setopt(w->curl, CURLOPT_MAXREDIRS, 8L);
    w->lib.curl_easy_setopt(w->curl, CURLOPT_FAILONERROR, 1L);
    w->lib.curl_easy_setopt(w->curl, CURLOPT_NOSIGNAL, 1L);
    w->lib.curl_easy_setopt(w->curl, CURLOPT_CONNECTTIMEOUT, (long)TIMEOUT);
    w->lib.curl_easy_setopt(w->curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    w->lib.curl_easy_setopt(w->curl, CURLOPT_LOW_SPEED_TIME, (long)TIMEOUT);
    if (verify && (!strcmp(verify, "off") || !strcmp(verify, "false")))
        w->lib.curl_easy_setopt(w->curl, CURLOPT_SSL_VERIFYPEER, 0L);
    if (cookie)
        w->lib.curl_easy_setopt(w->curl, CURLOPT_COOKIE, cookie);
    w->lib.curl_easy_setopt(w->curl, CURLOPT_HEADERFUNCTION, on_header);
    w->lib.curl_easy_setopt(w->curl, CURLOPT_HEADERDATA, w);
    w->lib.curl_easy_setopt(w->curl, CURLOPT_NOBODY, 1L);
    CURLcode r = w->lib.curl_easy_perform(w->curl);
    if (r != CURLE_OK)
        return err_set(err, -EIO, "%s: %s", url, w->lib.curl_easy_strerror(r));
    w->lib.curl_easy_getinfo(w->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &size);
    if (size < 0)
        return err_set(err, -ENOTSUP, "%s: the server does not say how large it is", url);
    if (size && !w->ranges)
        return err_set(err, -ENOTSUP, "%s: the server does not support range requests", url);
    n->size = (uint64_t)size;
    w->lib.curl_easy_setopt(w->curl, CURLOPT_NOBODY, 0L);
    w->lib.curl_easy_setopt(w->curl, CURLOPT_HTTPGET, 1L);
    w->lib.curl_easy_setopt(w->curl, CURLOPT_WRITEFUNCTION, on_body);
    return 0;
}

static void web_close(struct blk_node *n)
{
    struct web *w = n->priv;
    if (w->curl)
        w->lib.curl_easy_cleanup(w->curl);
    for (unsigned i = 0; i < PIECES; i++)
        free(w->pieces[i].data);
    pthread_mutex_destroy(&w->lock);
    free(w); /* the library stays: it may have threads and exit handlers */
}

/* The cached piece that begins at `at`. Lock held. */
static int fetch(struct blk_node *n, uint64_t at, struct piece **ret)
{
    struct web *w = n->priv;
    struct piece *p = &w->pieces[0];
    char range[64];
    long status = 0;
    for (unsigned i = 0; i < PIECES; i++) {
        if (w->pieces[i].at == at) {
            w->pieces[i].used = ++w->clock;
            *ret = &w->pieces[i];
            return 0;
        }
        if (w->pieces[i].used < p->used)
            p = &w->pieces[i];
    }
    if (!p->data && !(p->data = malloc(PIECE)))
        return -ENOMEM;
    p->at = UINT64_MAX;
    size_t want = MIN((uint64_t)PIECE, n->size - at);
    struct sink s = {.data = p->data, .room = want};
    snprintf(range, sizeof range, "%llu-%llu", (unsigned long long)at, (unsigned long long)(at + want - 1));
    w->lib.curl_easy_setopt(w->curl, CURLOPT_RANGE, range);
    w->lib.curl_easy_setopt(w->curl, CURLOPT_WRITEDATA, &s);
    if (w->lib.curl_easy_perform(w->curl) != CURLE_OK || s.len != want)
        return -EIO;
    w->lib.curl_easy_getinfo(w->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status != 206 && !(status == 200 && !at && want == n->size))
        return -EIO;
    p->at = at;
    p->len = want;
    p->used = ++w->clock;
    *ret = p;
    return 0;
}

static int web_preadv(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov, uint64_t len)
{
    struct web *w = n->priv;
    uint64_t size = n->size, done = 0;
    int code = 0;
    pthread_mutex_lock(&w->lock);
    while (done < len && code == 0) {
        uint64_t pos = offset + done, at = ALIGN_DOWN(pos, (uint64_t)PIECE);
        struct piece *p;
        if (pos >= size) {
            static const uint8_t zeroes[4096];
            done += iov_write(iov, niov, done, zeroes, MIN(len - done, sizeof zeroes));
            continue;
        }
        if ((code = fetch(n, at, &p)) == 0)
            done += iov_write(iov, niov, done, p->data + (pos - at), MIN(len - done, p->len - (pos - at)));
    }
    pthread_mutex_unlock(&w->lock);
    return code;
}

static const char *const schemes[] = {"http", "https", NULL};

const struct blk_driver blk_curl = {
    .name = "http",
    .protocol = true,
    .schemes = schemes,
    .open = web_open,
    .close = web_close,
    .preadv = web_preadv,
};
