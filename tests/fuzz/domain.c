/* Domain documents: what is read can be written, and reading that gives the same again, before defaults and after. */
#include "base/fd.h"
#include "domain/domain.h"
#include "target.h"

static void ignore(void *opaque, int line, const char *path)
{
    MUST(line >= 0 && path);
}

/* The document of *d, which must read back as the same document. */
static char *formatted(const struct domain *d)
{
    struct domain *again;
    struct err err = {0};
    char *text = domain_format(d);
    if (domain_parse(text, strlen(text), "formatted", &again, &err)) {
        fprintf(stderr, "%s\n%s\n", err.msg, text);
        abort();
    }
    autofree char *text2 = domain_format(again);
    if (strcmp(text, text2)) {
        fprintf(stderr, "%s\nread back is\n%s\n", text, text2);
        abort();
    }
    domain_free(again);
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct domain *d;
    struct err err = {0};
    if (domain_parse((const char *)data, size, "fuzz", &d, &err)) {
        MUST(err.code < 0 && err.msg[0] && !strchr(err.msg, '\n'));
        return 0;
    }
    domain_each_unknown(d, ignore, NULL);
    free(formatted(d));
    domain_defaults(d);
    autofree char *once = formatted(d);
    domain_defaults(d);
    autofree char *twice = domain_format(d);
    MUST(!strcmp(once, twice));
    if (domain_check(d, "fuzz", &err))
        MUST(err.code < 0 && err.msg[0] && !strchr(err.msg, '\n'));
    domain_free(d);
    return 0;
}
