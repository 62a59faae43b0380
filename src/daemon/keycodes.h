/* Key numbers of the sets that clients may use, as the numbers that a PC keyboard sends (QEMU's "qnum"). */
#ifndef LODGE_DAEMON_KEYCODES_H
#define LODGE_DAEMON_KEYCODES_H

/* `set` is libvirt's virKeycodeSet. -1: not known. */
int keycode_to_qnum(unsigned set, unsigned code);

#endif
