/* The table of all verbs. */
#include "cli/cli.h"

#include <string.h>

const struct cli_verb cli_verbs[] = {
    {"run", "start a guest in the foreground", NULL, cli_run_notes, cli_run_options, NULL, cli_run},
    {"img", "work with disk images", "VERB [ARGUMENT]...", NULL, NULL, "@img", cli_img},
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
