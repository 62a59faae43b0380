/* Network XML and what is made of it: round trips, refusals, net-update, the packet filter's and dnsmasq's configuration. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "hostnet/hostnet.h"

static const char full[] =
    "<network ipv6='yes' xmlns:lodge='https://lodge.dev/schemas/network/1.0' "
    "xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0'>\n"
    "  <name>full</name>\n"
    "  <uuid>3e3fce45-4f53-4fa7-bb32-11f34168b82b</uuid>\n"
    "  <metadata><x:y xmlns:x='urn:x'>kept</x:y></metadata>\n"
    "  <forward dev='eth0' mode='nat'><nat><address start='1.2.3.4' end='1.2.3.10'/><port start='2000' end='3000'/></nat>"
    "<interface dev='eth0'/></forward>\n"
    "  <bridge name='virbr7' stp='off' delay='4'/>\n"
    "  <mtu size='1400'/>\n"
    "  <mac address='52:54:00:12:34:56'/>\n"
    "  <domain name='lab.example' localOnly='yes'/>\n"
    "  <dns forwardPlainNames='no'><forwarder domain='corp.example' addr='10.1.2.3'/><forwarder addr='8.8.4.4'/>"
    "<txt name='note' value='a b'/><srv service='ldap' protocol='tcp' domain='lab.example' target='dir.lab.example' port='389' "
    "priority='1' weight='2'/><host ip='192.168.77.5'><hostname>gate</hostname><hostname>gate2</hostname></host></dns>\n"
    "  <bandwidth><inbound average='1000' peak='2000' burst='512'/><outbound average='100'/></bandwidth>\n"
    "  <port isolated='yes'/>\n"
    "  <ip address='192.168.77.1' netmask='255.255.255.0' localPtr='yes'><tftp root='/srv/tftp'/>"
    "<dhcp><range start='192.168.77.10' end='192.168.77.99'><lease expiry='10' unit='hours'/></range>"
    "<host mac='52:54:00:00:00:01' name='one' ip='192.168.77.100'/>"
    "<bootp file='pxelinux.0' server='192.168.77.9'/></dhcp></ip>\n"
    "  <ip family='ipv6' address='fd00:77::1' prefix='64'><dhcp><range start='fd00:77::100' end='fd00:77::1ff'/>"
    "<host id='0:3:0:1:0:16:3e:11:22:33' name='six' ip='fd00:77::5'/></dhcp></ip>\n"
    "  <route address='10.9.0.0' prefix='16' gateway='192.168.77.2' metric='3'/>\n"
    "  <dnsmasq:options><dnsmasq:option value='dhcp-option=42,192.168.77.1'/></dnsmasq:options>\n"
    "  <lodge:publish protocol='tcp' port='8080' to='192.168.77.100' toPort='80'/>\n"
    "</network>\n";

static struct network *parse(const char *xml)
{
    struct network *n = NULL;
    struct err err = {0};
    if (network_parse(xml, strlen(xml), "net.xml", &n, &err))
        fail_msg("%s", err.msg);
    network_defaults(n);
    if (network_check(n, "net.xml", &err))
        fail_msg("%s", err.msg);
    return n;
}

static void round_trip(void **state)
{
    (void)state;
    struct network *n = parse(full);
    autofree char *once = network_format(n, 0);
    struct network *again = parse(once);
    autofree char *twice = network_format(again, 0);
    assert_string_equal(once, twice);
    static const char *const parts[] = {
        "<forward dev='eth0' mode='nat'>", "<bridge name='virbr7' stp='off' delay='4'/>", "<x:y", "netmask='255.255.255.0'",
        "<lease expiry='600'/>", "id='0:3:0:1:0:16:3e:11:22:33'", "metric='3'", "isolated='yes'", "toPort='80'",
        "<inbound average='1000' peak='2000' burst='512'/>", "dhcp-option=42,192.168.77.1", "localOnly='yes'", "weight='2'",
    };
    for (unsigned i = 0; i < ARRAY_SIZE(parts); i++)
        if (!strstr(once, parts[i]))
            fail_msg("%s is missing in:\n%s", parts[i], once);
    network_free(n);
    network_free(again);
}

static void refusals(void **state)
{
    (void)state;
    static const struct {
        const char *xml, *says;
    } bad[] = {
        {"<domain/>", "not a <network>"},
        {"<network/>", "<name> is missing"},
        {"<network><name>a/b</name></network>", "cannot be a network's name"},
        {"<network><name>a;reboot</name></network>", "cannot be a network's name"},
        {"<network><name>..</name></network>", "cannot be a network's name"},
        {"<network><name>n</name><bridge name='a b'/></network>", "not an interface's name"},
        {"<network><name>n</name><bridge name='averyverylongname'/></network>", "not an interface's name"},
        {"<network><name>n</name><forward mode='teleport'/></network>", "'teleport' is not supported"},
        {"<network><name>n</name><forward mode='nat'/></network>", "needs an <ip>"},
        {"<network><name>n</name><forward mode='bridge'/></network>", "needs a <bridge name> or a device"},
        {"<network><name>n</name><forward mode='bridge'/><bridge name='br0'/><ip address='10.0.0.1'/></network>", "no addresses"},
        {"<network><name>n</name><ip address='10.0.0'/></network>", "net.xml:1: <ip address>: '10.0.0' is not an IP address"},
        {"<network><name>n</name><ip family='ipv6' address='10.0.0.1'/></network>", "not an IPv6 address"},
        {"<network><name>n</name><ip address='10.0.0.1' netmask='255.0.255.0'/></network>", "not an IPv4 netmask"},
        {"<network><name>n</name><ip address='10.0.0.1' prefix='40'/></network>", "too large"},
        {"<network><name>n</name><ip address='10.0.0.1' prefix='24'/><ip address='10.0.0.9' prefix='28'/></network>", "overlaps"},
        {"<network><name>n</name><ip address='10.0.0.1' prefix='24'><dhcp><range start='10.0.1.2' end='10.0.1.9'/></dhcp></ip></network>",
         "not in the network's subnet"},
        {"<network><name>n</name><ip address='10.0.0.1' prefix='24'><dhcp><range start='10.0.0.9' end='10.0.0.2'/></dhcp></ip></network>",
         "comes after"},
        {"<network><name>n</name><ip address='10.0.0.1' prefix='24'><dhcp><range start='10.0.0.2' end='10.0.0.255'/></dhcp></ip></network>",
         "broadcast"},
        {"<network><name>n</name><ip address='10.0.0.1' prefix='24'><dhcp><range start='10.0.0.2' end='10.0.0.9'/>"
         "<range start='10.0.0.8' end='10.0.0.19'/></dhcp></ip></network>",
         "overlaps another range"},
        {"<network><name>n</name><ip address='10.0.0.1' prefix='24'><dhcp><host mac='52:54:00:00:00:01' ip='10.0.0.5'/>"
         "<host mac='52:54:00:00:00:01' ip='10.0.0.6'/></dhcp></ip></network>",
         "52:54:00:00:00:01 is there twice"},
        {"<network><name>n</name><ip address='10.0.0.1' prefix='24'><dhcp><host mac='53:54:00:00:00:01' ip='10.0.0.5'/></dhcp></ip></network>",
         "multicast"},
        {"<network><name>n</name><ip address='10.0.0.1' prefix='24'><dhcp><host mac='52:54:00:00:00:01' name='a&#10;server=1' "
         "ip='10.0.0.5'/></dhcp></ip></network>",
         "not a host name"},
        {"<network><name>n</name><dns><txt name='x' value='a&#10;addn-hosts=/etc/shadow'/></dns></network>", "one line"},
        {"<network xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0'><name>n</name><dnsmasq:options>"
         "<dnsmasq:option value='a&#10;b'/></dnsmasq:options></network>",
         "one line"},
        {"<network><name>n</name><virtualport type='802.1Qbh'/></network>", "is not supported"},
        {"<network xmlns:lodge='https://lodge.dev/schemas/network/1.0'><name>n</name><lodge:publish protocol='icmp' port='1' "
         "to='10.0.0.1'/></network>",
         "neither tcp nor udp"},
        {"<network xmlns:lodge='https://lodge.dev/schemas/network/1.0'><name>n</name><ip address='10.0.0.1' prefix='24'/>"
         "<lodge:publish protocol='tcp' port='1' to='10.0.1.1'/></network>",
         "not an address of the network's subnets"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        struct network *n = NULL;
        struct err err = {0};
        int code = network_parse(bad[i].xml, strlen(bad[i].xml), "net.xml", &n, &err);
        if (!code) {
            network_defaults(n);
            code = network_check(n, "net.xml", &err);
        }
        if (!code || !strstr(err.msg, bad[i].says))
            fail_msg("%s\nsays: %s\nnot:  %s", bad[i].xml, code ? err.msg : "(fine)", bad[i].says);
        network_free(n);
    }
}

static int update(struct network *n, unsigned command, unsigned section, const char *xml, char *ret_msg)
{
    struct err err = {0};
    int code = network_update(n, command, section, -1, xml, &err);
    snprintf(ret_msg, ERR_MSG_MAX, "%s", err.msg);
    return code;
}

static void updates(void **state)
{
    (void)state;
    struct network *n = parse(full);
    char msg[ERR_MSG_MAX];
    unsigned host = NETWORK_SECTION_IP_DHCP_HOST;
    assert_int_equal(update(n, NETWORK_ADD_LAST, host, "<host mac='52:54:00:00:00:02' ip='192.168.77.101'/>", msg), 0);
    assert_int_equal(n->ips[0].n_hosts, 2);
    assert_int_equal(update(n, NETWORK_ADD_LAST, host, "<host mac='52:54:00:00:00:02' ip='192.168.77.102'/>", msg), -EEXIST);
    assert_int_equal(update(n, NETWORK_ADD_LAST, host, "<host mac='52:54:00:00:00:03' ip='10.0.0.1'/>", msg), -EINVAL);
    assert_int_equal(update(n, NETWORK_MODIFY, host, "<host mac='52:54:00:00:00:02' name='two' ip='192.168.77.103'/>", msg), 0);
    assert_string_equal(n->ips[0].hosts[1].name, "two"); /* the new one is last */
    assert_int_equal(update(n, NETWORK_DELETE, host, "<host mac='52:54:00:00:00:09' ip='192.168.77.103'/>", msg), -ENOENT);
    assert_int_equal(update(n, NETWORK_DELETE, host, "<host mac='52:54:00:00:00:01'/>", msg), 0);
    assert_int_equal(update(n, NETWORK_DELETE, host, "<range/>", msg), -EINVAL);
    assert_int_equal(n->ips[0].n_hosts, 1);
    assert_int_equal(update(n, NETWORK_ADD_FIRST, NETWORK_SECTION_DNS_HOST, "<host ip='192.168.77.6'><hostname>x</hostname></host>", msg), 0);
    assert_string_equal(n->dns_hosts[0].names[0], "x");
    assert_int_equal(update(n, NETWORK_DELETE, NETWORK_SECTION_DNS_TXT, "<txt name='note'/>", msg), 0);
    assert_int_equal(n->n_txts, 0);
    assert_int_equal(update(n, NETWORK_DELETE, NETWORK_SECTION_IP_DHCP_RANGE, "<range start='192.168.77.10' end='192.168.77.99'/>", msg), 0);
    assert_int_equal(n->ips[0].n_ranges, 0);
    assert_int_equal(update(n, NETWORK_MODIFY, NETWORK_SECTION_BRIDGE, "<bridge/>", msg), -EOPNOTSUPP);
    network_free(n);
}

static void filter_text(void **state)
{
    (void)state;
    struct network *n = parse(full);
    autofree char *text = nft_rules(n, "virbr7");
    static const char *const parts[] = {
        "table inet lodge_virbr7 {}\ndelete table inet lodge_virbr7",
        "oifname \"eth0\" ip saddr 192.168.77.0/24 ip daddr != 192.168.77.0/24 snat ip to 1.2.3.4-1.2.3.10:2000-3000",
        "iifname \"eth0\" oifname \"virbr7\" ip daddr 192.168.77.0/24 ct state established,related accept",
        "iifname \"virbr7\" reject",
        "tcp dport 8080 dnat ip to 192.168.77.100:80",
        /* IPv6 is routed, not translated, unless asked */
        "oifname \"virbr7\" ip6 daddr fd00:77::/64 accept",
    };
    for (unsigned i = 0; i < ARRAY_SIZE(parts); i++)
        if (!strstr(text, parts[i]))
            fail_msg("%s is missing in:\n%s", parts[i], text);
    assert_null(strstr(text, "ip6 saddr fd00:77::/64 ip6 daddr !="));
    network_free(n);
}

static void dnsmasq_text(void **state)
{
    (void)state;
    struct network *n = parse(full);
    const struct hostnet_dirs dirs = {"/state", "/run"};
    autofree char *conf = dnsmasq_conf(n, "virbr7", &dirs), *hosts = dnsmasq_hosts(n), *names = dnsmasq_names(n);
    static const char *const parts[] = {
        "interface=virbr7\n", "domain=lab.example\n", "local=/lab.example/\n", "server=/corp.example/10.1.2.3\n", "server=8.8.4.4\n",
        "no-resolv\n", "dhcp-range=192.168.77.10,192.168.77.99,255.255.255.0,36000\n", "dhcp-range=fd00:77::100,fd00:77::1ff,64\n",
        "enable-ra\n", "txt-record=note,\"a b\"\n", "srv-host=_ldap._tcp.lab.example,dir.lab.example,389,1,2\n", "tftp-root=/srv/tftp\n",
        "dhcp-boot=pxelinux.0,,192.168.77.9\n", "dhcp-option=option:mtu,1400\n", "dhcp-option=42,192.168.77.1\n",
        "dhcp-leasefile=/state/full.leases\n",
    };
    for (unsigned i = 0; i < ARRAY_SIZE(parts); i++)
        if (!strstr(conf, parts[i]))
            fail_msg("%s is missing in:\n%s", parts[i], conf);
    assert_string_equal(hosts, "52:54:00:00:00:01,192.168.77.100,one\nid:0:3:0:1:0:16:3e:11:22:33,[fd00:77::5],six\n");
    assert_string_equal(names, "192.168.77.5 gate gate2\n");
    network_free(n);
}

static void addresses(void **state)
{
    (void)state;
    struct ipaddr a, b;
    char text[IPADDR_TEXT_MAX];
    assert_int_equal(ipaddr_parse("192.168.300.1", &a), -EINVAL);
    assert_int_equal(ipaddr_parse("10.1.2.255", &a), 0);
    b = ipaddr_add(&a, 1);
    assert_string_equal(ipaddr_format(&b, text), "10.1.3.0");
    assert_int_equal(ipaddr_span(&a, &b), 2);
    assert_int_equal(ipaddr_span(&b, &a), 0);
    b = ipaddr_mask(&a, 20);
    assert_string_equal(ipaddr_format(&b, text), "10.1.0.0");
    b = ipaddr_last(&a, 20);
    assert_string_equal(ipaddr_format(&b, text), "10.1.15.255");
    assert_true(ipaddr_overlap(&a, 8, &b, 24));
    ipaddr_parse("fd00::", &a);
    ipaddr_parse("fd01::", &b);
    assert_int_equal(ipaddr_span(&a, &b), UINT32_MAX);
    ipaddr_parse("255.255.240.0", &a);
    assert_int_equal(ipaddr_netmask_prefix(&a), 20);
    uint8_t mac[6];
    assert_int_equal(mac_parse("52:54:00:12:34:5g", mac), -EINVAL);
    assert_int_equal(mac_parse("52:54:00:12:34:56:78", mac), -EINVAL);
    assert_int_equal(mac_parse("52-54-00-ab-CD-ef", mac), 0);
    assert_string_equal(mac_format(mac, text), "52:54:00:ab:cd:ef");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip), cmocka_unit_test(refusals),     cmocka_unit_test(updates),
        cmocka_unit_test(filter_text), cmocka_unit_test(dnsmasq_text), cmocka_unit_test(addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
