/* The functions behind the table of management verbs, commands.def. Each file of this folder holds one family. */
#ifndef LODGE_CLI_COMMANDS_H
#define LODGE_CLI_COMMANDS_H

#include "cli/vsh.h"

#define GROUP_FIRST(title, keyword, id)
#define GROUP(title, keyword, id)
#define COMMAND(name, function, flags, options, summary) bool function(struct vsh *v, const struct vsh_args *a);
#include "cli/commands.def"
#undef GROUP_FIRST
#undef GROUP
#undef COMMAND

#endif
