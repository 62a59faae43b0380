/* Every board. The first is the default. */
#include "machine/machine.h"

extern const struct board board_q35, board_micro;

const struct board *const boards[] = {&board_q35, &board_micro, NULL};
