/* Tables and fields on standard output, as virsh lays them out, or as JSON. See vsh.h. */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/vsh.h"

static void push(struct vsh_table *t, va_list ap, const char *first)
{
    if (t->rows == t->size) {
        unsigned size = t->size ? t->size * 2 : 16;
        char **cells = xcalloc((size_t)size * t->columns, sizeof(*cells));
        if (t->rows)
            memcpy(cells, t->cells, (size_t)t->rows * t->columns * sizeof(*cells));
        free(t->cells);
        t->cells = cells;
        t->size = size;
    }
    char **row = t->cells + (size_t)t->rows++ * t->columns;
    for (unsigned i = 0; i < t->columns; i++) {
        const char *s = first && i == 0 ? first : va_arg(ap, const char *);
        row[i] = xstrdup(s ? s : "-");
    }
}

struct vsh_table *vsh_table_new(const char *first, ...)
{
    struct vsh_table *t = xcalloc(1, sizeof(*t));
    va_list ap;
    va_start(ap, first);
    for (t->columns = 1; va_arg(ap, const char *); t->columns++)
        ;
    va_end(ap);
    va_start(ap, first);
    push(t, ap, first);
    va_end(ap);
    return t;
}

void vsh_table_row(struct vsh_table *t, ...)
{
    va_list ap;
    va_start(ap, t);
    push(t, ap, NULL);
    va_end(ap);
}

void vsh_table_free(struct vsh_table *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < (size_t)t->rows * t->columns; i++)
        free(t->cells[i]);
    free(t->cells);
    free(t);
}

/* Columns on the screen of UTF-8 text; control characters become '\xNN' when printed. */
static unsigned width(const char *s)
{
    unsigned n = 0;
    for (; *s; s++) {
        unsigned char c = *s;
        n += c < 0x20 || c == 0x7f ? 4 : (c & 0xc0) != 0x80;
    }
    return n;
}

static void put(const char *s)
{
    for (; *s; s++) {
        unsigned char c = *s;
        if (c < 0x20 || c == 0x7f)
            printf("\\x%02x", c);
        else
            putchar(c);
    }
}

void vsh_json_string(const char *s)
{
    putchar('"');
    for (; *s; s++) {
        unsigned char c = *s;
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < 0x20)
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    putchar('"');
}

/* "Used memory" -> "used_memory" */
static void json_key(const char *s)
{
    putchar('"');
    bool blank = false;
    for (; *s; s++) {
        if (!isalnum((unsigned char)*s)) {
            blank = true;
            continue;
        }
        if (blank)
            putchar('_');
        blank = false;
        putchar(tolower((unsigned char)*s));
    }
    putchar('"');
}

static void print_json(const struct vsh_table *t)
{
    putchar('[');
    for (unsigned r = 1; r < t->rows; r++) {
        fputs(r > 1 ? ",\n {" : "{", stdout);
        for (unsigned c = 0; c < t->columns; c++) {
            fputs(c ? ", " : "", stdout);
            json_key(t->cells[c]);
            fputs(": ", stdout);
            vsh_json_string(t->cells[(size_t)r * t->columns + c]);
        }
        putchar('}');
    }
    puts("]");
}

void vsh_table_print(struct vsh *v, const struct vsh_table *t)
{
    if (v->json) {
        print_json(t);
        return;
    }
    autofree unsigned *max = xcalloc(t->columns, sizeof(*max));
    for (unsigned r = v->quiet ? 1 : 0; r < t->rows; r++)
        for (unsigned c = 0; c < t->columns; c++) {
            unsigned w = width(t->cells[(size_t)r * t->columns + c]);
            if (w > max[c])
                max[c] = w;
        }
    for (unsigned r = v->quiet ? 1 : 0; r < t->rows; r++) {
        for (unsigned c = 0; c < t->columns; c++) {
            const char *s = t->cells[(size_t)r * t->columns + c];
            putchar(' ');
            put(s);
            if (c + 1 < t->columns)
                printf("%*s", (int)(max[c] - width(s) + 2), "");
        }
        putchar('\n');
        if (r == 0) {
            unsigned line = 0;
            for (unsigned c = 0; c < t->columns; c++)
                line += max[c] + 3;
            for (unsigned i = 0; i < line; i++)
                putchar('-');
            putchar('\n');
        }
    }
}

void vsh_fields_begin(struct vsh *v)
{
    v->fields = 0;
    if (v->json)
        putchar('{');
}

static void put_field(struct vsh *v, int columns, const char *name, const char *text)
{
    if (v->json) {
        fputs(v->fields++ ? ", " : "", stdout);
        json_key(name);
        fputs(": ", stdout);
        vsh_json_string(text);
    } else {
        printf("%-*s %s\n", columns, name, text);
    }
}

void vsh_field(struct vsh *v, const char *name, const char *fmt, ...)
{
    va_list ap;
    char *text;
    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        abort();
    va_end(ap);
    put_field(v, 15, name, text);
    free(text);
}

void vsh_field_wide(struct vsh *v, int columns, const char *name, const char *fmt, ...)
{
    va_list ap;
    char *text;
    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        abort();
    va_end(ap);
    put_field(v, columns, name, text);
    free(text);
}

void vsh_fields_end(struct vsh *v)
{
    if (v->json)
        puts("}");
}
