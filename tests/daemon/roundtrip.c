/* Domain documents on the command line, parsed and written again: one line each, and the result as DIR/NUMBER.xml.
 *   roundtrip DIR FILE...
 * "ok NUMBER", "unstable NUMBER" (writing what was written gives something else), or "refused NUMBER MESSAGE". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "domain/domain.h"

static int one(const char *dir, int number, const char *path)
{
    struct domain *d = NULL, *again = NULL;
    struct err err = {0};
    if (domain_parse_file(path, &d, &err) < 0) {
        printf("refused %d %s\n", number, err.msg);
        return 0;
    }
    autofree char *text = domain_format(d);
    autofree char *out = xasprintf("%s/%d.xml", dir, number);
    FILE *f = fopen(out, "we");
    if (!f || fputs(text, f) < 0 || fclose(f))
        return 1;
    autofree char *twice = domain_parse(text, strlen(text), "again", &again, &err) < 0 ? NULL : domain_format(again);
    printf("%s %d %s\n", twice && !strcmp(text, twice) ? "ok" : "unstable", number, twice ? "" : err.msg);
    domain_free(d);
    domain_free(again);
    return 0;
}

int main(int argc, char **argv)
{
    for (int i = 2; i < argc; i++)
        if (one(argv[1], i - 2, argv[i]))
            return 1;
    return 0;
}
