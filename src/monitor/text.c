/* A text that grows to a limit. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/private.h"

void text_printf(struct text *t, const char *fmt, ...)
{
    char *piece;
    va_list ap;
    if (t->full)
        return;
    va_start(ap, fmt);
    int n = vasprintf(&piece, fmt, ap);
    va_end(ap);
    if (n < 0)
        abort();
    if (t->len + n > MONITOR_TEXT_MAX) {
        free(piece);
        t->full = true;
        piece = strdup("…\r\n");
        if (!piece)
            abort();
        n = strlen(piece);
    }
    char *s = realloc(t->s, t->len + n + 1);
    if (!s)
        abort();
    memcpy(s + t->len, piece, n + 1);
    t->s = s;
    t->len += n;
    free(piece);
}
