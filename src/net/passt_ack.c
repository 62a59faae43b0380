#include "net/passt_ack.h"

#include <stdbool.h>
#include <string.h>

#include "base/bits.h"
#include "net/vnet.h"

enum { ETH = 14, IP4 = 20, IP6 = 40, TCP = 20, PROTO_TCP = 6 };
enum { FIN = 1, SYN = 2, RST = 4, ACK = 16 };
#define WINDOW 256 /* scaled as passt said in its SYN; its next segment tells the real one */

static uint16_t be16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}
static void be16_put(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

size_t passt_ack(const uint8_t *frame, size_t len, uint8_t *ack)
{
    if (len < ETH + IP4 + TCP || len > PASST_SYN_ACK_MAX)
        return 0;
    bool v6 = be16(frame + 12) == 0x86dd;
    if (!v6 && be16(frame + 12) != 0x0800)
        return 0;
    const uint8_t *ip = frame + ETH;
    size_t iplen = v6 ? IP6 : 4u * (ip[0] & 15);
    if (ip[0] >> 4 != (v6 ? 6 : 4) || iplen < IP4 || len < ETH + iplen + TCP || ip[v6 ? 6 : 9] != PROTO_TCP)
        return 0;
    const uint8_t *tcp = ip + iplen;
    if ((tcp[13] & (FIN | SYN | RST | ACK)) != (SYN | ACK))
        return 0;

    size_t addr = v6 ? 16 : 4, src = v6 ? 8 : 12, head = v6 ? IP6 : IP4;
    uint8_t *aip = ack + ETH, *atcp = aip + head;
    memset(ack, 0, PASST_ACK_MAX);
    memcpy(ack, frame + 6, 6);
    memcpy(ack + 6, frame, 6);
    memcpy(ack + 12, frame + 12, 2);
    memcpy(aip + src, ip + src + addr, addr);
    memcpy(aip + src + addr, ip + src, addr);
    if (v6) {
        aip[0] = 6 << 4;
        be16_put(aip + 4, TCP);
        aip[6] = PROTO_TCP;
        aip[7] = 255;
    } else {
        aip[0] = 4 << 4 | IP4 / 4;
        be16_put(aip + 2, IP4 + TCP);
        aip[8] = 255;
        aip[9] = PROTO_TCP;
        be16_put(aip + 10, (uint16_t)~vnet_sum(&(struct iovec){aip, IP4}, 1, 0));
    }
    memcpy(atcp, tcp + 2, 2);
    memcpy(atcp + 2, tcp, 2);
    memcpy(atcp + 4, tcp + 8, 4);
    uint32_t seq = ((uint32_t)be16(tcp + 4) << 16 | be16(tcp + 6)) + 1;
    be16_put(atcp + 8, seq >> 16);
    be16_put(atcp + 10, seq & 0xffff);
    atcp[12] = TCP / 4 << 4;
    atcp[13] = ACK;
    be16_put(atcp + 14, WINDOW);
    uint8_t pseudo[4] = {0, PROTO_TCP, 0, TCP};
    struct iovec sum[] = {{aip + src, 2 * addr}, {pseudo, 4}, {atcp, TCP}};
    be16_put(atcp + 16, (uint16_t)~vnet_sum(sum, 3, 0));
    return ETH + head + TCP;
}
