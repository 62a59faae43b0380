/* The parts of a network document that can also come alone, for net-update: network_parse.c and network_update.c share them. */
#ifndef LODGE_DOMAIN_NETWORK_READ_H
#define LODGE_DOMAIN_NETWORK_READ_H

#include "domain/network.h"
#include "domain/reader.h"

void network_read_dhcp_host(struct reader *r, struct xml_node *n, struct network_host *ret);
void network_read_dhcp_range(struct reader *r, struct xml_node *n, struct network_range *ret);
void network_read_dns_host(struct reader *r, struct xml_node *n, struct network_dns_host *ret);
void network_read_txt(struct xml_node *n, struct network_txt *ret);
void network_read_srv(struct reader *r, struct xml_node *n, struct network_srv *ret);
/* An address attribute; bits stay 0 when there is none. */
void network_read_addr(struct reader *r, struct xml_node *n, const char *attr, struct ipaddr *ret);

#endif
