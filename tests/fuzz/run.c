/* The options of `lodge run`, one word a line, with a kernel given before and --dry-run, which starts nothing. */
#include "base/bits.h"
#include "base/fd.h"
#include "cli/cli.h"
#include "target.h"

#define WORDS_MAX 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static FILE *null;
    if (!null)
        MUST((null = fopen("/dev/null", "we")));
    autofree char *text = target_text(data, size);
    char *argv[WORDS_MAX] = {"run", "--dry-run", "--kernel", "/proc/self/exe"}, *save;
    int argc = 4;
    for (char *w = strtok_r(text, "\n", &save); w && argc < WORDS_MAX - 2; w = strtok_r(NULL, "\n", &save))
        argv[argc++] = w;
    argv[argc] = NULL;
    /* The verb prints; the sanitizers write to the descriptor and are still heard. */
    FILE *out = stdout, *errors = stderr;
    stdout = stderr = null;
    int status = cli_run(cli_verb_find("run"), argc, argv);
    stdout = out;
    stderr = errors;
    MUST(status == CLI_OK || status == CLI_ERROR || status == CLI_USAGE);
    return 0;
}
