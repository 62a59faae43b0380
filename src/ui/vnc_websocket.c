/* WebSocket (RFC 6455) under RFB: the handshake, and frames. Everything comes from strangers; frames are at most as
 * long as our input. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/bits.h"
#include "ui/vnc_priv.h"

#define GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#define KEY_LEN 24

static void base64(const uint8_t *in, size_t n, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t o = 0;
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)in[i] << 16 | (i + 1 < n ? in[i + 1] << 8 : 0) | (i + 2 < n ? in[i + 2] : 0);
        out[o++] = digits[v >> 18];
        out[o++] = digits[v >> 12 & 63];
        out[o++] = i + 1 < n ? digits[v >> 6 & 63] : '=';
        out[o++] = i + 2 < n ? digits[v & 63] : '=';
    }
    out[o] = 0;
}

/* The value of a header line, or NULL. The text ends with an empty line. */
static const char *find_header(const char *text, const char *name)
{
    size_t n = strlen(name);
    for (const char *line = text; line; line = strstr(line, "\r\n")) {
        if (*line == '\r')
            line += 2;
        if (!strncasecmp(line, name, n) && line[n] == ':')
            return line + n + 1 + strspn(line + n + 1, " ");
    }
    return NULL;
}

int websocket_handshake(struct vnc_client *c)
{
    char text[4097], key[KEY_LEN + sizeof GUID], reply[32], answer[256];
    uint8_t hash[20];
    size_t n = MIN(c->raw.len, sizeof text - 1);
    memcpy(text, c->raw.data, n);
    text[n] = 0;
    char *end = strstr(text, "\r\n\r\n");
    if (!end)
        return n == sizeof text - 1 || strlen(text) != n ? -1 : 0;
    end[2] = 0;
    const char *value = find_header(text, "Sec-WebSocket-Key"), *protocol = find_header(text, "Sec-WebSocket-Protocol");
    if (strncmp(text, "GET ", 4) || !value || strcspn(value, "\r") != KEY_LEN)
        return -1;
    memcpy(key, value, KEY_LEN);
    memcpy(key + KEY_LEN, GUID, sizeof GUID);
    vnc_sha1((const uint8_t *)key, KEY_LEN + sizeof GUID - 1, hash);
    base64(hash, sizeof hash, reply);
    bool binary = protocol && !strncmp(protocol, "binary", 6);
    int len = snprintf(answer, sizeof answer,
                       "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                       "Sec-WebSocket-Accept: %s\r\n%s\r\n",
                       reply, binary ? "Sec-WebSocket-Protocol: binary\r\n" : "");
    buffer_put(&c->out, answer, (size_t)len);
    size_t used = (size_t)(end - text) + 4;
    memmove(c->raw.data, c->raw.data + used, c->raw.len - used);
    c->raw.len -= used;
    return 1;
}

int websocket_decode(struct vnc_client *c)
{
    size_t at = 0;
    while (c->raw.len - at >= 2) {
        const uint8_t *p = c->raw.data + at;
        uint64_t len = p[1] & 127;
        unsigned head = 2, op = p[0] & 15;
        if (!(p[1] & 0x80))
            return -1; /* clients mask */
        if (len == 126)
            head = 4;
        else if (len == 127)
            head = 10;
        if (c->raw.len - at < head + 4u)
            break;
        if (head == 4)
            len = (uint64_t)(p[2] << 8 | p[3]);
        for (unsigned i = 0; head == 10 && i < 8; i++)
            len = i ? len << 8 | p[2 + i] : p[2];
        if (len > VNC_IN_MAX)
            return -1;
        if (c->raw.len - at < head + 4 + len)
            break;
        if (op == 8)
            return -1;
        uint8_t *data = c->raw.data + at + head + 4;
        const uint8_t *mask = p + head;
        for (uint64_t i = 0; i < len; i++)
            data[i] ^= mask[i & 3];
        if (op <= 2)
            buffer_put(&c->in, data, len);
        at += head + 4 + len;
        if (c->in.len > 2 * VNC_IN_MAX)
            break;
    }
    memmove(c->raw.data, c->raw.data + at, c->raw.len - at);
    c->raw.len -= at;
    return 0;
}

unsigned websocket_header(size_t len, uint8_t ret[10])
{
    ret[0] = 0x82; /* binary, whole */
    if (len < 126) {
        ret[1] = (uint8_t)len;
        return 2;
    }
    if (len < 65536) {
        ret[1] = 126;
        ret[2] = (uint8_t)(len >> 8);
        ret[3] = (uint8_t)len;
        return 4;
    }
    ret[1] = 127;
    uint64_t be = htobe64(len);
    memcpy(ret + 2, &be, 8);
    return 10;
}
