/*
 * Set 0 (linux, input-event-codes.h) is what virsh uses. Its first 88 numbers are the PC's own scan codes of set 1; the
 * table has the others: extended keys are the code after 0xe0 with bit 7 set. XT, AT set 1 and qnum need no
 * translation.
 */
#include "daemon/keycodes.h"

#include "base/bits.h"

static const struct {
    unsigned char linux_code, qnum;
} extended[] = {
    {96, 0x9c},  {97, 0x9d},  {98, 0xb5},  {99, 0x54},  {100, 0xb8}, {102, 0xc7}, {103, 0xc8}, {104, 0xc9}, {105, 0xcb},
    {106, 0xcd}, {107, 0xcf}, {108, 0xd0}, {109, 0xd1}, {110, 0xd2}, {111, 0xd3}, {113, 0xa0}, {114, 0xae}, {115, 0xb0},
    {116, 0xde}, {117, 0x59}, {119, 0xc6}, {125, 0xdb}, {126, 0xdc}, {127, 0xdd}, {142, 0xdf}, {143, 0xe3},
};

int keycode_to_qnum(unsigned set, unsigned code)
{
    enum { LINUX = 0, ATSET1 = 2, XT = 1, QNUM = 9 };
    if (set == QNUM || set == XT || set == ATSET1)
        return code && code < 256 ? (int)code : -1;
    if (set != LINUX || !code)
        return -1;
    if (code <= 88 && code != 84)
        return (int)code;
    for (unsigned i = 0; i < ARRAY_SIZE(extended); i++)
        if (extended[i].linux_code == code)
            return extended[i].qnum;
    return -1;
}
