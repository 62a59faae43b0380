/* Sizes, numbers and lists of key=value on the command line: the first byte chooses, the rest is the text. */
#include "base/fd.h"
#include "cli/cli.h"
#include "target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint64_t units[] = {1, 1 << 20, 1ull << 40};
    if (!size)
        return 0;
    autofree char *text = target_text(data + 1, size - 1);
    size_t len = strlen(text);
    uint64_t bytes = 42;
    unsigned n = 7;
    char *rest = text, *key, *value;
    switch (data[0] % 5) {
    case 0:
    case 1:
    case 2:
        MUST(cli_parse_size(text, units[data[0] % 5], &bytes) ? bytes == 42 : bytes <= INT64_MAX);
        break;
    case 3:
        MUST(cli_parse_number(text, 10, 4000000000u, &n) ? n == 7 : n >= 10 && n <= 4000000000u);
        break;
    case 4:
        while ((key = cli_next_part(&rest, &value))) {
            MUST(key >= text && key + strlen(key) <= text + len);
            MUST(!value || (value > key && value + strlen(value) <= text + len));
            MUST(!rest || (rest > key && rest <= text + len));
        }
        break;
    }
    return 0;
}
