/* The tables of all verbs: those that do their own thing, and (commands.def) those that manage guests by a daemon. */
#include <string.h>

#include "cli/cli.h"
#include "cli/commands.h"

const struct cli_verb cli_verbs[] = {
    {"run", "start a guest in the foreground", NULL, cli_run_notes, cli_run_options, NULL, cli_run},
    {"img", "work with disk images", "VERB [ARGUMENT]...", NULL, NULL, "@img", cli_img},
    {"install", "make a guest from install media or an image", "[OPTION]...", NULL, NULL, NULL, cli_install},
    {"clone", "copy a guest and its disks", "[OPTION]...", NULL, NULL, NULL, cli_clone},
    {"completion", "print a completion script for a shell", "bash|zsh|fish", NULL, NULL, "bash zsh fish",
     cli_completion},
    {"help", "explain a verb", "[VERB]", NULL, NULL, "@verbs", cli_help_verb},
    {NULL},
};

const struct cli_verb *cli_verb_find(const char *name)
{
    for (const struct cli_verb *v = cli_verbs; v->name; v++)
        if (!strcmp(v->name, name))
            return v;
    return NULL;
}

#define COMMAND(name, function, flags, options, summary) {name, options, summary, function, flags},
#define GROUP_FIRST(title, keyword, id) static const struct vsh_cmd id##_cmds[] = {
#define GROUP(title, keyword, id)                                                                                      \
    {                                                                                                                  \
        NULL                                                                                                           \
    }                                                                                                                  \
    }                                                                                                                  \
    ;                                                                                                                  \
    static const struct vsh_cmd id##_cmds[] = {
/* clang-format off */
#include "cli/commands.def"
    {NULL}};
/* clang-format on */
#undef COMMAND
#undef GROUP_FIRST
#undef GROUP

#define COMMAND(name, function, flags, options, summary)
#define GROUP_FIRST(title, keyword, id) {title, keyword, id##_cmds},
#define GROUP(title, keyword, id) {title, keyword, id##_cmds},
const struct vsh_group vsh_groups[] = {
#include "cli/commands.def"
    {NULL},
};
#undef COMMAND
#undef GROUP_FIRST
#undef GROUP

const struct vsh_cmd *vsh_cmd_find(const char *name)
{
    for (const struct vsh_group *g = vsh_groups; g->title; g++)
        for (const struct vsh_cmd *c = g->cmds; c->name; c++)
            if (!strcmp(c->name, name))
                return c;
    return NULL;
}

const char *vsh_option_help(const struct vsh_cmd *cmd, const char *option)
{
    static const struct {
        const char *name, *help;
    } texts[] = {
#define OPTION(name, help) {name, help},
#include "cli/options.def"
#undef OPTION
    };
    for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (!strcmp(texts[i].name, option))
            return texts[i].help;
    return "";
}
