/*
 * The table of all engines, and the choice among them. Called by the machine and by `lodge run --dry-run` on the main
 * thread.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cpu/engine.h"

extern const struct engine_ops kvm_engine_ops, soft_engine_ops, null_engine_ops;

const struct engine_ops *const engines[] = {
    &kvm_engine_ops,
    &soft_engine_ops,
    &null_engine_ops,
    NULL,
};

/* Engines that "auto" never takes: they run no guest code. */
static bool is_for_tests(const struct engine_ops *ops)
{
    return !strcmp(ops->name, "null");
}

int engine_choose(const char *name, const struct engine_ops **ret, char why[200], struct err *err)
{
    bool any = !name || !strcmp(name, "auto");
    char refused[300] = "";

    why[0] = 0;
    for (unsigned i = 0; engines[i]; i++) {
        const struct engine_ops *ops = engines[i];
        struct engine_probe p = {.usable = true};
        if (any ? is_for_tests(ops) : strcmp(ops->name, name) != 0)
            continue;
        if (!any) {
            snprintf(why, 200, "%s, as asked", ops->name);
            *ret = ops;
            return 0;
        }
        if (ops->probe)
            ops->probe(&p);
        if (p.usable) {
            snprintf(why, 200, "%s%s%s", refused, refused[0] ? "; so " : "", p.why[0] ? p.why : ops->name);
            *ret = ops;
            return 0;
        }
        size_t n = strlen(refused);
        snprintf(refused + n, sizeof refused - n, "%s%s", n ? "; " : "", p.why);
    }
    if (!any)
        return err_set(err, -ENOENT, "engine '%s' is not known (auto, kvm, soft)", name);
    return err_set(err, -ENODEV, "no engine can run guests here: %s", refused[0] ? refused : "none is built in");
}
