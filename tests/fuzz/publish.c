/* What `publish` of a user network says, on its way to passt's command line. */
#include <errno.h>

#include "base/fd.h"
#include "net/passt_publish.h"
#include "target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    autofree char *text = target_text(data, size);
    const char *opt = NULL;
    struct err err = {0};
    size_t room = 512;
    autofree char *val = xcalloc(1, room);
    if (passt_publish(text, &opt, val, room, &err)) {
        MUST(err.code == -EINVAL);
        return 0;
    }
    MUST(opt && (!strcmp(opt, "-t") || !strcmp(opt, "-u")));
    MUST(strlen(val) < room && val[0] && val[0] != '-');
    for (const char *s = val; *s; s++)
        MUST(*s > ' ' && *s < 0x7f);
    /* Too small a room is refused or holds all of it; never half a value. */
    autofree char *small = xcalloc(1, strlen(val) + 1);
    if (!passt_publish(text, &opt, small, strlen(val), &err))
        MUST(!strcmp(small, val));
    return 0;
}
