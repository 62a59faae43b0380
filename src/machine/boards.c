/* Every board. The first is the default. */
#include "machine/machine.h"

extern const struct board board_micro;

const struct board *const boards[] = {&board_micro, NULL};
