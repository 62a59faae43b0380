/*
 * A VNC server (RFB 3.8, RFC 6143). What strangers send is read by a process of its own, which has no memory of the
 * guest's, no files and next to no system calls: it gets the picture in a memfd it can only read, hears what has changed,
 * and says what keys and pointer do.
 *
 * vnc_start() makes the sockets and the process, before the machine exists; vnc_attach() joins it to a screen. Both on the
 * main thread.
 */
#ifndef LODGE_UI_VNC_H
#define LODGE_UI_VNC_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct loop;
struct ui_display;
struct ui_input;
struct vnc;

struct vnc_options {
    const char *name;     /* of the guest, for the viewer's title */
    const char *listen;   /* address; NULL: 127.0.0.1 */
    int port;             /* -1: the first free one from 5900 */
    int websocket;        /* -1: the first free one from 5700; 0: none */
    const char *socket;   /* path, instead of a port */
    const char *password; /* NULL: none; at most 8 characters count */
    bool exclusive_ok;    /* a viewer that wants to be alone may send others away */
};

int vnc_start(const struct vnc_options *opt, struct vnc **ret, struct err *err);
void vnc_attach(struct vnc *v, struct loop *loop, struct ui_display *display, struct ui_input *input);
/* NULL-safe; ends the process. Before the display goes. */
void vnc_free(struct vnc *v);
/* Where it listens: 0 for a socket with a path. */
int vnc_port(const struct vnc *v);

#endif
