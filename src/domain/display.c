/* <graphics>, <video> and <input>: parse, defaults, check, format. */
#include "domain/display.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"

static const char *const video_models[] = {"vga", "bochs", "virtio", "none"};

/* ---- parse ---- */

static int parse_port_number(struct reader *r, struct xml_node *n, const char *name)
{
    const char *s = reader_attr(n, name);
    if (!s)
        return 0;
    if (!strcmp(s, "-1"))
        return -1;
    return (int)reader_num(r, n, name, s, 65535);
}

void domain_parse_graphics(struct reader *r, struct xml_node *n, struct domain *d)
{
    struct domain_graphics *g = DOMAIN_ADD(d, graphics);
    g->line = n->line;
    reader_attr_str(n, "type", &g->type);
    g->port = parse_port_number(r, n, "port");
    g->websocket = parse_port_number(r, n, "websocket");
    g->autoport = reader_attr_switch(r, n, "autoport");
    reader_attr_str(n, "listen", &g->listen);
    reader_attr_str(n, "socket", &g->socket);
    reader_attr_str(n, "passwd", &g->passwd);
    reader_attr_str(n, "sharePolicy", &g->share_policy);
    reader_attr_str(n, "keymap", &g->keymap);
    g->as_attr = g->listen || g->socket;
    struct xml_node *listen = xml_child(n, "listen");
    const char *type = listen ? xml_attr_get(listen, "type") : NULL;
    const char *address = listen ? xml_attr_get(listen, "address") : NULL;
    const char *socket = listen ? xml_attr_get(listen, "socket") : NULL;
    /* Other kinds, and an address that contradicts the attribute, are kept as they stand. */
    if (type && !strcmp(type, "address") && address && !g->socket && (!g->listen || !strcmp(g->listen, address))) {
        reader_attr_str(reader_child(n, "listen"), "address", &g->listen);
        g->as_child = true;
    } else if (type && !strcmp(type, "socket") && socket && !g->listen && (!g->socket || !strcmp(g->socket, socket))) {
        reader_attr_str(reader_child(n, "listen"), "socket", &g->socket);
        g->as_child = true;
    }
    if (g->as_child)
        reader_attr(listen, "type");
    reader_keep(r, n, &g->unknown, "", NULL);
}

void domain_parse_video(struct reader *r, struct xml_node *n, struct domain *d)
{
    struct domain_video *v = DOMAIN_ADD(d, videos);
    v->line = n->line;
    struct xml_node *model = reader_child(n, "model");
    reader_attr_str(model, "type", &v->model);
    v->vram = (unsigned)reader_attr_num(r, model, "vram", 0, 1u << 20);
    v->heads = (unsigned)reader_attr_num(r, model, "heads", 0, 16);
    reader_attr_str(model, "primary", &v->primary);
    struct xml_node *resolution = reader_child(model, "resolution");
    v->width = (unsigned)reader_attr_num(r, resolution, "x", 0, 16384);
    v->height = (unsigned)reader_attr_num(r, resolution, "y", 0, 16384);
    reader_keep(r, n, &v->unknown, "", NULL);
}

void domain_parse_input(struct reader *r, struct xml_node *n, struct domain *d)
{
    struct domain_input *i = DOMAIN_ADD(d, inputs);
    i->line = n->line;
    reader_attr_str(n, "type", &i->type);
    reader_attr_str(n, "bus", &i->bus);
    reader_keep(r, n, &i->unknown, "", NULL);
}

/* ---- defaults ---- */

void domain_display_defaults(struct domain *d)
{
    for (unsigned i = 0; i < d->n_graphics; i++) {
        struct domain_graphics *g = &d->graphics[i];
        if (!g->type)
            domain_set(&g->type, "vnc");
        if (!g->socket && !g->port)
            g->port = -1;
        if (!g->socket && g->autoport == DOMAIN_DEFAULT)
            g->autoport = g->port == -1 ? DOMAIN_ON : DOMAIN_OFF;
        if (!g->socket && !g->listen) {
            domain_set(&g->listen, "127.0.0.1");
            g->as_attr = g->as_child = true;
        }
    }
    if (d->n_graphics && !d->n_videos)
        DOMAIN_ADD(d, videos)->line = 0;
    for (unsigned i = 0; i < d->n_videos; i++) {
        if (!d->videos[i].model)
            domain_set(&d->videos[i].model, "vga");
        if (!d->videos[i].heads && strcmp(d->videos[i].model, "none"))
            d->videos[i].heads = 1;
    }
    for (unsigned i = 0; i < d->n_inputs; i++)
        if (!d->inputs[i].bus && d->inputs[i].type)
            domain_set(&d->inputs[i].bus, !strcmp(d->inputs[i].type, "tablet") ? "usb" : "ps2");
}

/* ---- check ---- */

int domain_display_check(const struct domain *d, struct domain_display_problem *ret)
{
    for (unsigned i = 0; i < d->n_graphics; i++) {
        const struct domain_graphics *g = &d->graphics[i];
        if (strcmp(g->type, "vnc")) {
            *ret =
                (struct domain_display_problem){g->line, "graphics: type '%.40s' is not supported, only vnc", g->type};
            return -1;
        }
        if (g->socket && (*g->socket != '/' || strlen(g->socket) > 107)) {
            *ret = (struct domain_display_problem){
                g->line, "graphics: '%.120s' is not an absolute path of at most 107 bytes", g->socket};
            return -1;
        }
        if (g->passwd && strlen(g->passwd) > 8) {
            *ret =
                (struct domain_display_problem){g->line, "graphics: a VNC password has at most 8 characters%.0s", ""};
            return -1;
        }
    }
    if (d->n_graphics > 1) {
        *ret = (struct domain_display_problem){d->graphics[1].line, "a guest has at most one <graphics>%.0s", ""};
        return -1;
    }
    for (unsigned i = 0; i < d->n_videos; i++) {
        const struct domain_video *v = &d->videos[i];
        bool known = false;
        for (unsigned k = 0; k < ARRAY_SIZE(video_models); k++)
            known |= !strcmp(video_models[k], v->model);
        if (!known) {
            *ret = (struct domain_display_problem){
                v->line, "video: model '%.40s' is not supported, only vga, virtio and none", v->model};
            return -1;
        }
    }
    if (d->n_videos > 1) {
        *ret = (struct domain_display_problem){d->videos[1].line, "a guest has at most one <video>%.0s", ""};
        return -1;
    }
    return 0;
}

/* ---- format ---- */

static void put_port(struct xml_node *n, const char *name, int port)
{
    if (port)
        xml_attr_setf(n, name, "%d", port);
}

static void put_yes_no(struct xml_node *n, const char *name, enum domain_tristate v)
{
    if (v != DOMAIN_DEFAULT)
        xml_attr_set(n, name, v == DOMAIN_ON ? "yes" : "no");
}

void domain_format_display(struct xml_node *devices, const struct domain *d)
{
    for (unsigned i = 0; i < d->n_inputs; i++) {
        struct xml_node *n = xml_node_new(devices, "input", NULL);
        xml_attr_set(n, "type", d->inputs[i].type);
        xml_attr_set(n, "bus", d->inputs[i].bus);
        domain_unknown_graft(&d->inputs[i].unknown, n);
    }
    for (unsigned i = 0; i < d->n_graphics; i++) {
        const struct domain_graphics *g = &d->graphics[i];
        struct xml_node *n = xml_node_new(devices, "graphics", NULL), *listen;
        xml_attr_set(n, "type", g->type);
        if (!g->socket)
            put_port(n, "port", g->port);
        put_yes_no(n, "autoport", g->autoport);
        put_port(n, "websocket", g->websocket);
        bool as_attr = g->as_attr || !g->as_child;
        xml_attr_set(n, "listen", as_attr ? g->listen : NULL);
        xml_attr_set(n, "socket", g->as_attr ? g->socket : NULL);
        xml_attr_set(n, "keymap", g->keymap);
        xml_attr_set(n, "passwd", g->passwd);
        xml_attr_set(n, "sharePolicy", g->share_policy);
        if ((g->listen || g->socket) && (g->as_child || !g->as_attr)) {
            listen = xml_node_new(n, "listen", NULL);
            xml_attr_set(listen, "type", g->socket ? "socket" : "address");
            xml_attr_set(listen, g->socket ? "socket" : "address", g->socket ? g->socket : g->listen);
        }
        domain_unknown_graft(&g->unknown, n);
    }
    for (unsigned i = 0; i < d->n_videos; i++) {
        const struct domain_video *v = &d->videos[i];
        struct xml_node *n = xml_node_new(devices, "video", NULL);
        if (v->model || v->vram || v->heads || v->primary || v->width || v->height) {
            struct xml_node *model = xml_node_new(n, "model", NULL);
            xml_attr_set(model, "type", v->model);
            if (v->vram)
                xml_attr_setf(model, "vram", "%u", v->vram);
            if (v->heads)
                xml_attr_setf(model, "heads", "%u", v->heads);
            xml_attr_set(model, "primary", v->primary);
            if (v->width || v->height) {
                struct xml_node *resolution = xml_node_new(model, "resolution", NULL);
                if (v->width)
                    xml_attr_setf(resolution, "x", "%u", v->width);
                if (v->height)
                    xml_attr_setf(resolution, "y", "%u", v->height);
            }
        }
        domain_unknown_graft(&v->unknown, n);
    }
}

void domain_free_display(struct domain *d, void (*free_unknown)(struct domain_unknown *u))
{
    for (unsigned i = 0; i < d->n_graphics; i++) {
        struct domain_graphics *g = &d->graphics[i];
        free(g->type);
        free(g->listen);
        free(g->socket);
        free(g->passwd);
        free(g->share_policy);
        free(g->keymap);
        free_unknown(&g->unknown);
    }
    free(d->graphics);
    for (unsigned i = 0; i < d->n_videos; i++) {
        free(d->videos[i].model);
        free(d->videos[i].primary);
        free_unknown(&d->videos[i].unknown);
    }
    free(d->videos);
    for (unsigned i = 0; i < d->n_inputs; i++) {
        free(d->inputs[i].type);
        free(d->inputs[i].bus);
        free_unknown(&d->inputs[i].unknown);
    }
    free(d->inputs);
}
