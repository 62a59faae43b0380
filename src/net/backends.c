/* Every network backend Lodge has. Adding one is: its file, one line here, one test. */
#include "net/backend.h"

const struct net_backend *const net_backends[] = {
    &net_passt,
    &net_tap,
    NULL,
};
