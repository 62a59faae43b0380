/*
 * The last step of a TCP handshake, which passt leaves out. When a connection comes in through a published port and the
 * guest has answered with SYN-ACK, passt of 2023 sends the ACK only with the first data from outside. Where the guest's
 * server speaks first (SMTP, MySQL, VNC), both sides would wait for ever. A second ACK from a passt that does send it
 * changes nothing.
 */
#ifndef LODGE_NET_PASST_ACK_H
#define LODGE_NET_PASST_ACK_H

#include <stddef.h>
#include <stdint.h>

#define PASST_SYN_ACK_MAX (14 + 60 + 60) /* Ethernet, IPv4 with options, TCP with options: no SYN-ACK is longer */
#define PASST_ACK_MAX (14 + 40 + 20)

/* If `frame` from the guest is a TCP SYN-ACK, puts the frame that acknowledges it into `ack` (PASST_ACK_MAX bytes): its
 * length, else 0. */
size_t passt_ack(const uint8_t *frame, size_t len, uint8_t *ack);

#endif
