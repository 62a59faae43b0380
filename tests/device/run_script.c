/*
 * Runs device scripts: one step a line, '#' begins a comment. The first step is `chip NAME`.
 *
 *   outb PORT VAL   outw  outl        inb PORT [= VAL[/MASK]]   inw  inl
 *   writeb ADDR VAL  writew writel writeq     readb ADDR [= VAL[/MASK]]  readw readl readq
 *   irq N = LEVEL         level of the chip's output N       edges N = COUNT   rising edges since last asked
 *   line N LEVEL          sets the chip's input N            advance TIME      (ns, us, ms, s)
 *   send "TEXT"           what arrives at the chardev        sent = "TEXT"     what the chip wrote there since last
 * asked msi = ADDR DATA       the oldest message not yet asked for               msi none until STEP MAX STEP-LINE
 * repeats a step with an expectation every STEP of time until it holds, at most MAX reset                 resets all
 * reload            saves, resets, loads all state and words of the chip's own (kinds.c), with or without "=
 * VAL[/MASK]".
 */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "env.h"

#define WORDS 16

struct script {
    const char *file;
    unsigned line;
    struct env *env;
};

static _Noreturn void fail(const struct script *s, const char *what)
{
    fprintf(stderr, "%s:%u: %s\n", s->file, s->line, what);
    exit(1);
}

static uint64_t duration(const struct script *s, const char *word)
{
    char *end;
    uint64_t v = strtoull(word, &end, 0);
    if (!strcmp(end, "ns"))
        return v;
    if (!strcmp(end, "us"))
        return v * 1000;
    if (!strcmp(end, "ms"))
        return v * 1000000;
    if (!strcmp(end, "s"))
        return v * NSEC_PER_SEC;
    fail(s, "a time wants ns, us, ms or s");
}

static unsigned width(const struct script *s, char c)
{
    switch (c) {
    case 'b':
        return 1;
    case 'w':
        return 2;
    case 'l':
        return 4;
    case 'q':
        return 8;
    }
    fail(s, "width must be b, w, l or q");
}

/* Replaces \n, \r and \xHH; returns the length. */
static size_t unescape(char *t)
{
    char *to = t, *from = t;
    while (*from) {
        if (*from == '\\' && from[1] == 'x') {
            char hex[3] = {from[2], from[2] ? from[3] : 0, 0};
            *to++ = (char)strtoul(hex, NULL, 16);
            from += 4;
        } else if (*from == '\\' && from[1]) {
            *to++ = from[1] == 'n' ? '\n' : from[1] == 'r' ? '\r' : from[1];
            from += 2;
        } else {
            *to++ = *from++;
        }
    }
    *to = 0;
    return (size_t)(to - t);
}

static unsigned split(char *line, char **word)
{
    unsigned n = 0;
    for (char *p = line; *p;) {
        while (isspace((unsigned char)*p))
            p++;
        if (!*p || *p == '#' || n == WORDS - 1)
            break;
        if (*p == '"') {
            word[n++] = ++p;
            while (*p && *p != '"')
                p++;
        } else {
            word[n++] = p;
            while (*p && !isspace((unsigned char)*p))
                p++;
        }
        if (*p)
            *p++ = 0;
    }
    word[n] = NULL;
    return n;
}

static void reload(const struct script *s)
{
    struct state_writer w = {0};
    struct err err;
    env_save(s->env, &w);
    env_reset(s->env);
    if (env_load(s->env, w.data, w.len, &err) < 0)
        fail(s, err.msg);
    state_writer_free(&w);
}

static void step_sent(const struct script *s, char *want)
{
    struct test_chardev *c = &s->env->chr;
    size_t len = unescape(want);
    if (c->out_len != len || memcmp(c->out, want, len)) {
        fprintf(stderr, "sent \"%.*s\"\n", (int)c->out_len, c->out);
        fail(s, "that is not what was expected");
    }
    c->out_len = 0;
}

static void step_msi(const struct script *s, unsigned argc, char **word)
{
    struct env *env = s->env;
    if (argc == 2 && !strcmp(word[1], "none")) {
        if (env->nmsi)
            fail(s, "there is a message");
        return;
    }
    if (argc != 4)
        fail(s, "msi = ADDR DATA");
    if (!env->nmsi)
        fail(s, "there is no message");
    if (env->msi[0].addr != env_number(word[2]) || env->msi[0].data != env_number(word[3])) {
        fprintf(stderr, "message 0x%" PRIx64 " 0x%" PRIx32 "\n", env->msi[0].addr, env->msi[0].data);
        fail(s, "another message was expected");
    }
    memmove(env->msi, env->msi + 1, sizeof env->msi - sizeof env->msi[0]);
    env->nmsi--;
}

/* Does a step that yields a value; false when the words are not known. */
static bool value_step(const struct script *s, int argc, char **word, uint64_t *ret)
{
    struct env *env = s->env;
    const char *w = word[0];
    *ret = 0;
    if (!strncmp(w, "in", 2) && strlen(w) == 3 && argc == 2) {
        *ret = bus_read(env->pio, env_number(word[1]), width(s, w[2]));
    } else if (!strncmp(w, "out", 3) && strlen(w) == 4 && argc == 3) {
        bus_write(env->pio, env_number(word[1]), width(s, w[3]), env_number(word[2]));
    } else if (!strncmp(w, "read", 4) && strlen(w) == 5 && argc == 2) {
        *ret = bus_read(env->mmio, env_number(word[1]), width(s, w[4]));
    } else if (!strncmp(w, "write", 5) && strlen(w) == 6 && argc == 3) {
        bus_write(env->mmio, env_number(word[1]), width(s, w[5]), env_number(word[2]));
    } else if (!strcmp(w, "irq") && argc == 2) {
        *ret = (uint64_t)env->level[env_number(word[1]) % LINES];
    } else if (!strcmp(w, "edges") && argc == 2) {
        *ret = env->edges[env_number(word[1]) % LINES];
        env->edges[env_number(word[1]) % LINES] = 0;
    } else if (!strcmp(w, "line") && argc == 3) {
        irq_set(env->input[env_number(word[1]) % LINES], (int)env_number(word[2]));
    } else {
        return env->kind->op && env->kind->op(env, argc, word, ret);
    }
    return true;
}

static bool expect(const struct script *s, unsigned argc, char **word, bool report)
{
    uint64_t want = 0, mask = UINT64_MAX, got;
    unsigned n = argc;
    bool checked = argc >= 3 && !strcmp(word[argc - 2], "=");
    if (checked) {
        char value[64];
        snprintf(value, sizeof value, "%s", word[argc - 1]);
        char *slash = strchr(value, '/');
        if (slash) {
            *slash = 0;
            mask = env_number(slash + 1);
        }
        want = env_number(value);
        n -= 2;
    }
    if (!value_step(s, (int)n, word, &got))
        fail(s, "no such step");
    if (!checked || (got & mask) == (want & mask))
        return true;
    if (report) {
        fprintf(stderr, "got 0x%" PRIx64 ", expected 0x%" PRIx64 "\n", got & mask, want);
        fail(s, "wrong value");
    }
    return false;
}

static void until(const struct script *s, unsigned argc, char **word)
{
    if (argc < 6)
        fail(s, "until STEP MAX what = value");
    uint64_t step = duration(s, word[1]), max = duration(s, word[2]);
    for (uint64_t t = 0; !expect(s, argc - 3, word + 3, t >= max); t += step)
        loop_advance(s->env->loop, &s->env->clock, step);
}

static void step(struct script *s, char *line)
{
    char *word[WORDS];
    unsigned argc = split(line, word);
    if (!argc)
        return;
    if (!strcmp(word[0], "chip") && argc == 2) {
        if (s->env)
            fail(s, "one chip a script");
        s->env = env_new(word[1]);
        return;
    }
    if (!s->env)
        fail(s, "the script does not begin with a chip");
    if (!strcmp(word[0], "advance") && argc == 2)
        loop_advance(s->env->loop, &s->env->clock, duration(s, word[1]));
    else if (!strcmp(word[0], "reset") && argc == 1)
        env_reset(s->env);
    else if (!strcmp(word[0], "reload") && argc == 1)
        reload(s);
    else if (!strcmp(word[0], "send") && argc == 2)
        env_send(s->env, word[1], unescape(word[1]));
    else if (!strcmp(word[0], "sent") && argc == 3)
        step_sent(s, word[2]);
    else if (!strcmp(word[0], "msi"))
        step_msi(s, argc, word);
    else if (!strcmp(word[0], "until"))
        until(s, argc, word);
    else
        expect(s, argc, word, true);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        struct script s = {.file = argv[i]};
        char line[512];
        FILE *f = fopen(argv[i], "re");
        if (!f) {
            perror(argv[i]);
            return 2;
        }
        while (fgets(line, sizeof line, f)) {
            s.line++;
            step(&s, line);
        }
        fclose(f);
        env_free(s.env);
    }
    return 0;
}
