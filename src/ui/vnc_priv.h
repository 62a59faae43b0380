/* The inside of the VNC server: what the two processes say to each other, and what the server's files share. */
#ifndef LODGE_UI_VNC_PRIV_H
#define LODGE_UI_VNC_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zlib.h>

#include "base/loop.h"
#include "ui/display.h"
#include "ui/vnc.h"

/* ---- messages over the socket between the processes: one struct each, SOCK_SEQPACKET ---- */

enum vnc_kind {
    /* to the server */
    VNC_SCREEN, /* the memfd, with w and h; again when the size changes, then without */
    VNC_DAMAGE, /* x, y, w, h */
    VNC_CURSOR, /* w, h, x, y (hot spot); the pixels follow */
    /* from the server */
    VNC_READY,   /* give me more damage */
    VNC_WATCHED, /* x: somebody looks, or nobody */
    VNC_KEYSYM,  /* x: keysym, y: down */
    VNC_XT,      /* x: XT scan code, y: down */
    VNC_POINTER, /* x, y: place on the screen, w: buttons, h: wheel + 16 */
    VNC_RELEASE, /* a viewer has gone: no key is down */
    VNC_WISH,    /* w, h */
};
struct vnc_message {
    uint32_t kind, x, y, w, h;
};

/* ---- the server's process ---- */

#define VNC_CLIENTS_MAX 16
#define VNC_TILE 64u
#define VNC_TILES_X (UI_WIDTH_MAX / VNC_TILE)
#define VNC_TILES_Y ((UI_HEIGHT_MAX + VNC_TILE - 1) / VNC_TILE)
#define VNC_OUT_MAX (8u << 20) /* bytes waiting for one viewer */
#define VNC_IN_MAX (1u << 16)

struct vnc_format {
    uint8_t bpp, depth, big, red_shift, green_shift, blue_shift;
    uint16_t red_max, green_max, blue_max;
};

struct vnc_buffer {
    uint8_t *data;
    size_t len, cap;
};
void buffer_put(struct vnc_buffer *b, const void *data, size_t len);
void buffer_u8(struct vnc_buffer *b, uint8_t v);
void buffer_u16(struct vnc_buffer *b, uint16_t v);
void buffer_u32(struct vnc_buffer *b, uint32_t v);

struct vnc_server {
    struct loop *loop;
    int link;
    const char *name;
    char password[9];
    bool has_password, exclusive_ok;
    const uint32_t *pixels; /* NULL until the machine has a screen */
    unsigned width, height;
    struct ui_cursor cursor;
    struct vnc_client *clients;
    unsigned n_clients;
    unsigned failures; /* wrong passwords in a row */
    uint64_t blocked;  /* until then nobody may try (clock_host_ns) */
};

enum vnc_state { VNC_HANDSHAKE, VNC_VERSION, VNC_SECURITY, VNC_AUTH, VNC_INIT, VNC_RUN, VNC_GONE };

struct vnc_client {
    struct vnc_server *server;
    struct vnc_client *next;
    int fd;
    struct loop_fd *watch;
    enum vnc_state state;
    int minor; /* of the protocol */
    uint8_t challenge[16];
    bool websocket;
    struct vnc_buffer in, raw, out; /* raw: WebSocket frames as they came */
    size_t sent;                    /* of out */
    struct vnc_format format;
    int encoding; /* 0 raw, 5 hextile, 16 ZRLE */
    bool can_resize, can_resize_ext, can_cursor, can_ext_key, ext_key_told;
    bool wants_update, size_changed, cursor_changed;
    int size_reason; /* of the extended desktop size */
    unsigned asked_x, asked_y, asked_w, asked_h;
    uint8_t buttons;
    uint64_t dirty[VNC_TILES_Y]; /* a bit for each tile of the row */
    z_stream zlib;
    bool zlib_on;
};
_Static_assert(VNC_TILES_X <= 64, "one word for each row");

/* vnc_client.c */
void viewer_accept(struct vnc_server *s, int fd, bool websocket);
void viewer_free(struct vnc_client *c);
void viewer_damage(struct vnc_client *c, unsigned x, unsigned y, unsigned w, unsigned h);
/* Sends an update if the viewer waits for one and there is something. */
void viewer_update(struct vnc_client *c);

/* vnc_encode.c: one rectangle, at most a tile in height, with its header. */
void encode_rect(struct vnc_client *c, unsigned x, unsigned y, unsigned w, unsigned h);
unsigned encode_pixel(const struct vnc_format *f, uint32_t rgb, uint8_t ret[4]);

/* vnc_server.c */
void server_tell(struct vnc_server *s, uint32_t kind, uint32_t x, uint32_t y, uint32_t w, uint32_t h);
void server_watched(struct vnc_server *s);
_Noreturn void server_run(struct vnc_server *s, const int *listen_fds, unsigned n, int websocket_fd);

/* vnc_crypt.c */
/* DES of 16 bytes with the password as VNC takes it: each byte's bits in reverse (RFC 6143, 7.2.2). */
void vnc_des(const char password[8], const uint8_t in[16], uint8_t out[16]);
void vnc_sha1(const uint8_t *data, size_t len, uint8_t ret[20]);
/* vnc_websocket.c: RFC 6455. */
/* Takes the client's HTTP request; 1: answered, 0: more is needed, -1: not one. */
int websocket_handshake(struct vnc_client *c);
/* Moves what whole frames carry from raw to in; -1: close. */
int websocket_decode(struct vnc_client *c);
/* The frame's header before `len` bytes. */
unsigned websocket_header(size_t len, uint8_t ret[10]);

/* confine.c: from here on only what a server with open sockets needs. -errno. */
int confine_server(void);

#endif
