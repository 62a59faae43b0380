/*
 * One viewer: the protocol's states, its messages, its updates (RFC 6143, chapter 7). A viewer is a stranger: its input
 * is bounded by VNC_IN_MAX, what waits for it by one update, and it hears nothing it did not ask for.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "ui/vnc_priv.h"

#define UPDATE_BYTES (2u << 20) /* after which the rest of an update waits for the next request */
#define FAILURES_FREE 3         /* wrong passwords before they cost time */
#define BLOCK_SECONDS 5

enum {
    ENC_RAW = 0,
    ENC_HEXTILE = 5,
    ENC_ZRLE = 16,
    ENC_CURSOR = -239,
    ENC_RESIZE = -223,
    ENC_EXT_RESIZE = -308,
    ENC_EXT_KEY = -258
};

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}
static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)get16(p) << 16 | get16(p + 2);
}

/* ---- sending ---- */

static void gone(struct vnc_client *c)
{
    c->state = VNC_GONE;
}

/* Everything that waits, as far as it goes. */
static void flush(struct vnc_client *c)
{
    while (c->sent < c->out.len) {
        ssize_t n = send(c->fd, c->out.data + c->sent, c->out.len - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n <= 0) {
            gone(c);
            return;
        }
        c->sent += (size_t)n;
    }
    if (c->sent == c->out.len)
        c->sent = c->out.len = 0;
    loop_mod_fd(c->watch, EPOLLIN | (c->out.len ? EPOLLOUT : 0));
}

/* Ends a message that began at out.len == `start`: with WebSocket it becomes a frame. */
static void finish(struct vnc_client *c, size_t start)
{
    uint8_t head[10];
    size_t len = c->out.len - start;
    if (c->websocket && len) {
        unsigned n = websocket_header(len, head);
        buffer_put(&c->out, head, n); /* room */
        memmove(c->out.data + start + n, c->out.data + start, len);
        memcpy(c->out.data + start, head, n);
    }
    flush(c);
}

static void say(struct vnc_client *c, const void *data, size_t len)
{
    size_t start = c->out.len;
    buffer_put(&c->out, data, len);
    finish(c, start);
}

/* ---- updates ---- */

void viewer_damage(struct vnc_client *c, unsigned x, unsigned y, unsigned w, unsigned h)
{
    if (!w || !h || x >= UI_WIDTH_MAX || y >= UI_HEIGHT_MAX)
        return;
    unsigned tx1 = x / VNC_TILE, tx2 = (MIN(x + w, UI_WIDTH_MAX) - 1) / VNC_TILE;
    unsigned ty1 = y / VNC_TILE, ty2 = (MIN(y + h, UI_HEIGHT_MAX) - 1) / VNC_TILE;
    uint64_t bits = (~0ull >> (63 - (tx2 - tx1))) << tx1;
    for (unsigned ty = ty1; ty <= ty2; ty++)
        c->dirty[ty] |= bits;
}

static bool any_dirty(const struct vnc_client *c)
{
    for (unsigned i = 0; i < VNC_TILES_Y; i++)
        if (c->dirty[i])
            return true;
    return false;
}

static void put_size(struct vnc_client *c)
{
    const struct vnc_server *s = c->server;
    buffer_u16(&c->out, (uint16_t)(c->can_resize_ext ? c->size_reason : 0));
    buffer_u16(&c->out, 0);
    buffer_u16(&c->out, (uint16_t)s->width);
    buffer_u16(&c->out, (uint16_t)s->height);
    buffer_u32(&c->out, (uint32_t)(c->can_resize_ext ? ENC_EXT_RESIZE : ENC_RESIZE));
    if (!c->can_resize_ext)
        return;
    buffer_u32(&c->out, 1u << 24); /* one screen, padding */
    buffer_u32(&c->out, 0);        /* its id */
    buffer_u32(&c->out, 0);        /* its place */
    buffer_u16(&c->out, (uint16_t)s->width);
    buffer_u16(&c->out, (uint16_t)s->height);
    buffer_u32(&c->out, 0);
}

static void put_cursor(struct vnc_client *c)
{
    const struct ui_cursor *k = &c->server->cursor;
    uint8_t p[4], mask[UI_CURSOR_MAX * UI_CURSOR_MAX / 8] = {0};
    unsigned line = (k->width + 7) / 8;
    buffer_u16(&c->out, (uint16_t)k->hot_x);
    buffer_u16(&c->out, (uint16_t)k->hot_y);
    buffer_u16(&c->out, (uint16_t)k->width);
    buffer_u16(&c->out, (uint16_t)k->height);
    buffer_u32(&c->out, (uint32_t)ENC_CURSOR);
    for (unsigned i = 0; i < k->width * k->height; i++) {
        buffer_put(&c->out, p, encode_pixel(&c->format, k->pixels[i], p));
        if (k->pixels[i] >> 31)
            mask[i / k->width * line + i % k->width / 8] |= (uint8_t)(0x80 >> (i % k->width & 7));
    }
    buffer_put(&c->out, mask, line * k->height);
}

/* Dirty tiles of a row that lie side by side make one rectangle. */
static unsigned put_tiles(struct vnc_client *c)
{
    const struct vnc_server *s = c->server;
    unsigned count = 0;
    size_t start = c->out.len;
    for (unsigned ty = 0; ty * VNC_TILE < s->height; ty++) {
        while (c->dirty[ty]) {
            unsigned first = (unsigned)__builtin_ctzll(c->dirty[ty]), n = 0;
            while (first + n < 64 && (c->dirty[ty] >> (first + n) & 1))
                n++;
            if (c->out.len - start > UPDATE_BYTES)
                return count;
            c->dirty[ty] &= ~((n == 64 ? ~0ull : (1ull << n) - 1) << first);
            unsigned x = first * VNC_TILE, y = ty * VNC_TILE;
            if (x >= s->width)
                continue;
            encode_rect(c, x, y, MIN(n * VNC_TILE, s->width - x), MIN(VNC_TILE, s->height - y));
            count++;
        }
    }
    memset(c->dirty, 0, sizeof c->dirty);
    return count;
}

void viewer_update(struct vnc_client *c)
{
    const struct vnc_server *s = c->server;
    if (c->state != VNC_RUN || !c->wants_update || c->out.len || !s->pixels)
        return;
    bool size = c->size_changed && (c->can_resize || c->can_resize_ext), cursor = c->cursor_changed && c->can_cursor;
    bool key = c->can_ext_key && !c->ext_key_told;
    if (!any_dirty(c) && !size && !cursor && !key)
        return;
    size_t start = c->out.len;
    unsigned count = 0;
    buffer_u16(&c->out, 0); /* FramebufferUpdate, padding */
    size_t at = c->out.len;
    buffer_u16(&c->out, 0);
    if (size) {
        put_size(c);
        count++;
    }
    if (key) { /* an empty rectangle says that we take scan codes */
        buffer_u32(&c->out, 0);
        buffer_u32(&c->out, 0);
        buffer_u32(&c->out, (uint32_t)ENC_EXT_KEY);
        c->ext_key_told = true;
        count++;
    }
    if (cursor) {
        put_cursor(c);
        count++;
    }
    if (!size) /* the viewer asks again once it knows the size */
        count += put_tiles(c);
    c->size_changed = c->cursor_changed = c->wants_update = false;
    uint16_t be = htobe16((uint16_t)count);
    memcpy(c->out.data + at, &be, 2);
    finish(c, start);
}

/* ---- messages ---- */

static int set_format(struct vnc_client *c, const uint8_t *p)
{
    struct vnc_format f = {p[0], p[1], p[2] != 0, p[10], p[11], p[12], get16(p + 4), get16(p + 6), get16(p + 8)};
    bool sane = (f.bpp == 8 || f.bpp == 16 || f.bpp == 32) && p[3] && f.red_shift < f.bpp && f.green_shift < f.bpp &&
                f.blue_shift < f.bpp && f.red_max && f.green_max && f.blue_max &&
                (uint64_t)f.red_max << f.red_shift < 1ull << f.bpp &&
                (uint64_t)f.green_max << f.green_shift < 1ull << f.bpp &&
                (uint64_t)f.blue_max << f.blue_shift < 1ull << f.bpp;
    if (!sane)
        return -1; /* colour maps too: no viewer of today wants one */
    c->format = f;
    viewer_damage(c, 0, 0, c->server->width, c->server->height);
    return 0;
}

static void set_encodings(struct vnc_client *c, const uint8_t *p, unsigned n)
{
    bool chosen = false;
    c->encoding = ENC_RAW;
    c->can_resize = c->can_resize_ext = c->can_cursor = c->can_ext_key = false;
    for (unsigned i = 0; i < n; i++) {
        int32_t e = (int32_t)get32(p + 4 * i);
        if (!chosen && (e == ENC_RAW || e == ENC_HEXTILE || e == ENC_ZRLE)) {
            c->encoding = e;
            chosen = true;
        }
        c->can_resize |= e == ENC_RESIZE;
        c->can_resize_ext |= e == ENC_EXT_RESIZE;
        c->can_cursor |= e == ENC_CURSOR;
        c->can_ext_key |= e == ENC_EXT_KEY;
    }
    if (c->can_resize_ext)
        c->size_changed = true; /* says so, and what screens there are */
    c->cursor_changed = c->server->cursor.width != 0;
}

static void pointer(struct vnc_client *c, const uint8_t *p)
{
    static const uint8_t map[3] = {1, 2, 4}; /* left, middle, right: as ours */
    uint32_t buttons = 0;
    uint8_t pressed = p[0] & (uint8_t)~c->buttons;
    int wheel = (pressed & 8 ? 1 : 0) - (pressed & 16 ? 1 : 0);
    for (unsigned i = 0; i < 3; i++)
        if (p[0] >> i & 1)
            buttons |= map[i];
    c->buttons = p[0];
    server_tell(c->server, VNC_POINTER, get16(p + 1), get16(p + 3), buttons, (uint32_t)(wheel + 16));
}

static void ask_size(struct vnc_client *c, unsigned w, unsigned h)
{
    server_tell(c->server, VNC_WISH, 0, 0, w, h);
    c->size_reason = 1;
    c->size_changed = true;
}

/* One message at the start of `p`: its length, 0 when more is needed, -1 to end. */
static ssize_t message(struct vnc_client *c, const uint8_t *p, size_t len)
{
    static const uint8_t fixed[] = {[0] = 20, [2] = 4, [3] = 10, [4] = 8, [5] = 6, [6] = 8};
    size_t need = p[0] < sizeof fixed && fixed[p[0]] ? fixed[p[0]] : p[0] == 251 ? 8 : p[0] == 255 ? 12 : 0;
    if (!need)
        return -1;
    if (len < need)
        return 0;
    switch (p[0]) {
    case 0:
        return set_format(c, p + 4) < 0 ? -1 : (ssize_t)need;
    case 2:
        need += 4u * get16(p + 2);
        if (len < need)
            return need > VNC_IN_MAX ? -1 : 0;
        set_encodings(c, p + 4, get16(p + 2));
        break;
    case 3:
        if (!p[1])
            viewer_damage(c, get16(p + 2), get16(p + 4), get16(p + 6), get16(p + 8));
        c->wants_update = true;
        break;
    case 4:
        server_tell(c->server, VNC_KEYSYM, get32(p + 4), p[1] != 0, 0, 0);
        break;
    case 5:
        pointer(c, p + 1);
        break;
    case 6: /* the viewer's clipboard: nobody to give it to */
        need += get32(p + 4);
        if (need > VNC_IN_MAX)
            return -1;
        if (len < need)
            return 0;
        break;
    case 251:
        need += 16u * p[6];
        if (len < need)
            return 0;
        ask_size(c, get16(p + 2), get16(p + 4));
        break;
    case 255:
        if (p[1])
            return -1;
        server_tell(c->server, VNC_XT, get32(p + 8), get16(p + 2) != 0, 0, 0);
        break;
    }
    return (ssize_t)need;
}

/* ---- coming in ---- */

static void refuse(struct vnc_client *c, const char *why)
{
    size_t start = c->out.len;
    buffer_u32(&c->out, 1);
    if (c->minor >= 8) {
        buffer_u32(&c->out, (uint32_t)strlen(why));
        buffer_put(&c->out, why, strlen(why));
    }
    finish(c, start);
    gone(c);
}

static void accepted(struct vnc_client *c, bool told)
{
    static const uint8_t ok[4];
    if (told)
        say(c, ok, sizeof ok);
    c->state = VNC_INIT;
}

static void challenge(struct vnc_client *c)
{
    if (getrandom(c->challenge, sizeof c->challenge, 0) != sizeof c->challenge)
        abort();
    c->state = VNC_AUTH;
    say(c, c->challenge, sizeof c->challenge);
}

static ssize_t take_version(struct vnc_client *c, const uint8_t *p, size_t len)
{
    struct vnc_server *s = c->server;
    if (len < 12)
        return 0;
    if (memcmp(p, "RFB 003.", 8) || p[11] != '\n')
        return -1;
    c->minor = (p[8] - '0') * 100 + (p[9] - '0') * 10 + (p[10] - '0');
    c->minor = c->minor == 7 || c->minor >= 8 ? MIN(c->minor, 8) : 3;
    uint8_t type = s->has_password ? 2 : 1;
    if (c->minor == 3) {
        uint8_t word[4] = {0, 0, 0, type};
        say(c, word, sizeof word);
        if (s->has_password)
            challenge(c);
        else
            c->state = VNC_INIT;
    } else {
        uint8_t list[2] = {1, type};
        say(c, list, sizeof list);
        c->state = VNC_SECURITY;
    }
    return 12;
}

static ssize_t take_answer(struct vnc_client *c, const uint8_t *p, size_t len)
{
    struct vnc_server *s = c->server;
    uint8_t want[16], differ = 0;
    if (len < sizeof want)
        return 0;
    uint64_t now = clock_host_ns();
    vnc_des(s->password, c->challenge, want);
    for (unsigned i = 0; i < sizeof want; i++)
        differ |= want[i] ^ p[i];
    if (now < s->blocked) {
        refuse(c, "Too many wrong passwords: wait a little");
    } else if (differ) {
        if (++s->failures >= FAILURES_FREE)
            s->blocked = now + BLOCK_SECONDS * NSEC_PER_SEC;
        refuse(c, "The password is wrong");
    } else {
        s->failures = 0;
        accepted(c, true);
    }
    return sizeof want;
}

static void send_away(struct vnc_client *c)
{
    for (struct vnc_client *o = c->server->clients; o; o = o->next)
        if (o != c && o->state == VNC_RUN) {
            gone(o);
            shutdown(o->fd, SHUT_RDWR); /* its own event frees it */
        }
}

static ssize_t take_init(struct vnc_client *c, const uint8_t *p, size_t len)
{
    struct vnc_server *s = c->server;
    if (len < 1)
        return 0;
    if (!p[0] && s->exclusive_ok)
        send_away(c);
    size_t start = c->out.len, n = strlen(s->name);
    static const uint8_t ours[16] = {32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0};
    buffer_u16(&c->out, (uint16_t)s->width);
    buffer_u16(&c->out, (uint16_t)s->height);
    buffer_put(&c->out, ours, sizeof ours);
    buffer_u32(&c->out, (uint32_t)n);
    buffer_put(&c->out, s->name, n);
    c->format = (struct vnc_format){32, 24, 0, 16, 8, 0, 255, 255, 255};
    c->state = VNC_RUN;
    viewer_damage(c, 0, 0, s->width, s->height);
    c->size_changed = false;
    finish(c, start);
    return 1;
}

static ssize_t take(struct vnc_client *c, const uint8_t *p, size_t len)
{
    switch (c->state) {
    case VNC_VERSION:
        return take_version(c, p, len);
    case VNC_SECURITY:
        if (len < 1)
            return 0;
        if (p[0] != (c->server->has_password ? 2 : 1))
            return -1;
        if (c->server->has_password)
            challenge(c);
        else
            accepted(c, c->minor >= 8);
        return 1;
    case VNC_AUTH:
        return take_answer(c, p, len);
    case VNC_INIT:
        return take_init(c, p, len);
    case VNC_RUN:
        return message(c, p, len);
    default:
        return -1;
    }
}

static void greet(struct vnc_client *c)
{
    c->state = VNC_VERSION;
    say(c, "RFB 003.008\n", 12);
}

static void work(struct vnc_client *c)
{
    if (c->websocket && c->state == VNC_HANDSHAKE) {
        int r = websocket_handshake(c);
        if (r < 0)
            gone(c);
        if (r <= 0)
            return;
        greet(c);
    }
    if (c->websocket && websocket_decode(c) < 0)
        gone(c);
    size_t at = 0;
    while (c->state != VNC_GONE && at < c->in.len) {
        ssize_t n = take(c, c->in.data + at, c->in.len - at);
        if (n < 0)
            gone(c);
        if (n <= 0)
            break;
        at += (size_t)n;
    }
    if (at)
        memmove(c->in.data, c->in.data + at, c->in.len - at);
    c->in.len -= at;
}

static void ready(void *opaque, uint32_t events)
{
    struct vnc_client *c = opaque;
    uint8_t buf[16384];
    if (events & EPOLLOUT)
        flush(c);
    for (unsigned i = 0; i < 8 && c->state != VNC_GONE && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)); i++) {
        ssize_t n = recv(c->fd, buf, sizeof buf, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        struct vnc_buffer *to = c->websocket ? &c->raw : &c->in;
        if (n <= 0 || to->len > 2 * VNC_IN_MAX) {
            gone(c);
            break;
        }
        buffer_put(to, buf, (size_t)n);
        work(c);
    }
    if (c->state == VNC_GONE)
        viewer_free(c);
    else
        viewer_update(c);
}

void viewer_accept(struct vnc_server *s, int fd, bool websocket)
{
    int on = 1, room = 1 << 18;
    if (s->n_clients == VNC_CLIENTS_MAX) {
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    struct vnc_client *c = xcalloc(1, sizeof *c);
    c->server = s;
    c->fd = fd;
    c->websocket = websocket;
    c->watch = loop_add_fd(s->loop, fd, EPOLLIN, ready, c);
    c->next = s->clients;
    s->clients = c;
    s->n_clients++;
    server_watched(s); /* so that the picture and its size are those of now once the viewer is told */
    if (!websocket)
        greet(c);
    if (c->state == VNC_GONE)
        viewer_free(c);
}

void viewer_free(struct vnc_client *c)
{
    struct vnc_server *s = c->server;
    for (struct vnc_client **p = &s->clients; *p; p = &(*p)->next)
        if (*p == c) {
            *p = c->next;
            break;
        }
    s->n_clients--;
    loop_del_fd(c->watch);
    close(c->fd);
    if (c->zlib_on)
        deflateEnd(&c->zlib);
    free(c->in.data);
    free(c->raw.data);
    free(c->out.data);
    free(c);
    server_tell(s, VNC_RELEASE, 0, 0, 0, 0);
    server_watched(s);
}
