/* A guest's console on this terminal, by a stream. See vsh.h. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/dom.h"

/* Passes bytes on in both directions until one side ends. False: v->error says why. */
static bool pump(struct vsh *v, struct client_stream *s)
{
    for (;;) {
        const uint8_t *data;
        uint64_t hole;
        ssize_t n;
        while ((n = client_stream_recv(s, 0, &data, &hole, &v->error)) > 0)
            if (!hole && fd_write_full(STDOUT_FILENO, data, n) < 0)
                return true;
        if (n == 0)
            return true;
        if (n != -EAGAIN)
            return false;
        struct pollfd p[2] = {{STDIN_FILENO, POLLIN, 0}, {client_fd(v->conn), POLLIN, 0}};
        if (poll(p, 2, 5000) < 0 && errno != EINTR)
            return false;
        if (!p[0].revents)
            continue;
        char buf[1024];
        n = read(STDIN_FILENO, buf, sizeof(buf));
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n <= 0)
            return true;
        char *leave = memchr(buf, v->escape, n);
        if (leave)
            n = leave - buf;
        if (n && client_stream_send(s, buf, n, &v->error) < 0)
            return false;
        if (leave)
            return true;
    }
}

bool vsh_console(struct vsh *v, const rp_domain *dom, const char *device, unsigned flags)
{
    int state = dom_state(v, dom, NULL);
    if (state < 0)
        return vsh_error(v, "Unable to get domain status");
    if (state == DOM_SHUTOFF)
        return vsh_error(v, "The domain is not running");
    struct termios old, raw;
    if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &old) < 0)
        return vsh_error(v, "Cannot run interactive console without a controlling TTY");
    vsh_extra(v, "Connected to domain '%s'\n", dom->name);
    vsh_extra(v, "Escape character is ^%c", (v->escape & 0x1f) + '@');
    if (v->escape < 0x20)
        vsh_extra(v, " (Ctrl + %c)", (v->escape & 0x1f) + '@');
    vsh_extra(v, "\n");
    fflush(stdout);
    rp_string name = (char *)device;
    const rp_dom_ostr_flags args = {*dom, device ? &name : NULL, flags};
    struct client_stream *s;
    if (client_stream_open(v->conn, RPC_PROC_DOMAIN_OPEN_CONSOLE, &args, NULL, &s, &v->error) < 0)
        return false;
    raw = old;
    cfmakeraw(&raw);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &raw);
    bool ok = pump(v, s);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &old);
    client_stream_abort(s);
    return ok;
}
