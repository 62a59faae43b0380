/* Networks made for real, in a network namespace of the test's own: bridge, addresses, filter, dnsmasq, ports, conflicts, and what is left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "hostnet/hostnet.h"
#include "hostnet/link.h"
#include "hostnet/tool.h"

static char dir[] = "/tmp/lodge-hostnet-XXXXXX";
static struct hostnet_dirs dirs = {dir, dir};

static const char nat[] = "<network><name>nat</name><uuid>3e3fce45-4f53-4fa7-bb32-11f34168b82b</uuid><forward mode='nat'/>"
                          "<bridge name='vbr0' stp='off'/><ip address='192.168.77.1' prefix='24'><dhcp>"
                          "<range start='192.168.77.10' end='192.168.77.99'/></dhcp></ip>"
                          "<ip family='ipv6' address='fd00:77::1' prefix='64'/></network>";

static struct network *parse(const char *xml)
{
    struct network *n = NULL;
    struct err err = {0};
    if (network_parse(xml, strlen(xml), "net.xml", &n, &err))
        fail_msg("%s", err.msg);
    network_defaults(n);
    return n;
}

/* What a program prints. */
static char *said(const char *command)
{
    FILE *f = popen(command, "re");
    char *text = calloc(1, 65536);
    assert_true(fread(text, 1, 65535, f) < 65535);
    pclose(f);
    return text;
}

static void up(const struct network *n)
{
    struct err err = {0};
    if (hostnet_up(n, &dirs, &err))
        fail_msg("%s", err.msg);
}

static void comes_and_goes(void **state)
{
    (void)state;
    struct network *n = parse(nat);
    struct link l;
    struct err err = {0};
    assert_false(hostnet_is_up(n));
    up(n);
    assert_true(hostnet_is_up(n));
    assert_int_equal(link_find("vbr0", &l, NULL), 0);
    assert_string_equal(l.kind, "bridge");
    assert_true(l.up);
    pid_t pid = dnsmasq_pid(n, &dirs);
    assert_true(pid > 0);
    autofree char *rules = said("nft list tables"), *addrs = said("ip -o addr show dev vbr0");
    assert_non_null(strstr(rules, "table inet lodge_vbr0"));
    assert_non_null(strstr(addrs, "192.168.77.1/24"));
    assert_non_null(strstr(addrs, "fd00:77::1/64"));

    /* The daemon comes back: nothing changes, a killed dnsmasq and lost rules are put right. */
    assert_int_equal(hostnet_refresh(n, &dirs, &err), 0);
    assert_int_equal(dnsmasq_pid(n, &dirs), pid);
    kill(pid, SIGKILL);
    for (int i = 0; i < 1000 && dnsmasq_pid(n, &dirs); i++)
        usleep(5000);
    const char *const flush[] = {"nft", "delete", "table", "inet", "lodge_vbr0", NULL};
    assert_int_equal(tool_run(flush, "nftables", NULL, &err), 0);
    if (hostnet_refresh(n, &dirs, &err))
        fail_msg("%s", err.msg);
    assert_true(dnsmasq_pid(n, &dirs) > 0);
    autofree char *again = said("nft list tables");
    assert_non_null(strstr(again, "table inet lodge_vbr0"));

    hostnet_down(n, &dirs);
    assert_int_equal(link_find("vbr0", &l, NULL), -ENODEV);
    assert_int_equal(dnsmasq_pid(n, &dirs), 0);
    autofree char *left = said("nft list tables");
    assert_string_equal(left, "");
    network_free(n);
}

static void conflicts(void **state)
{
    (void)state;
    struct network *n = parse(nat);
    struct err err = {0};
    /* Somebody else's bridge of that name is left alone. */
    assert_int_equal(link_add_bridge("vbr0", NULL, false, 0, &err), 0);
    assert_int_equal(hostnet_up(n, &dirs, &err), -EEXIST);
    assert_non_null(strstr(err.msg, "vbr0"));
    assert_false(hostnet_is_up(n));
    assert_int_equal(link_delete("vbr0", NULL), 0);
    /* So is a subnet. */
    struct ipaddr a;
    err = (struct err){0};
    ipaddr_parse("192.168.77.200", &a);
    assert_int_equal(link_add_bridge("other0", NULL, false, 0, &err), 0);
    assert_int_equal(link_set_up("other0", true, &err), 0);
    assert_int_equal(link_add_addr("other0", &a, 25, &err), 0);
    assert_int_equal(hostnet_up(n, &dirs, &err), -EADDRINUSE);
    assert_non_null(strstr(err.msg, "other0"));
    assert_int_equal(link_delete("other0", NULL), 0);
    /* A step that fails takes the others back. */
    err = (struct err){0};
    free(n->mac_table);
    n->mac_table = NULL;
    char **option = malloc(sizeof *option);
    *option = xstrdup("no-such-option");
    n->dnsmasq_options = option;
    n->n_dnsmasq_options = 1;
    assert_true(hostnet_up(n, &dirs, &err) < 0);
    assert_non_null(strstr(err.msg, "dnsmasq"));
    struct link l;
    assert_int_equal(link_find("vbr0", &l, NULL), -ENODEV);
    autofree char *left = said("nft list tables");
    assert_string_equal(left, "");
    network_free(n);
}

static void ports(void **state)
{
    (void)state;
    struct network *n = parse(nat);
    struct err err = {0};
    struct nft_port p = {.name = "tap0", .mac = {0x52, 0x54, 0, 1, 2, 3}, .filtered = true};
    struct link bridge, tap;
    up(n);
    if (hostnet_port_add(n, p.name, p.mac, false, &err) || hostnet_ports_filter(n, &dirs, &p, 1, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(link_find("vbr0", &bridge, NULL), 0);
    assert_int_equal(link_find("tap0", &tap, NULL), 0);
    assert_int_equal(tap.master, bridge.index);
    autofree char *rules = said("nft list table bridge lodge_vbr0");
    assert_non_null(strstr(rules, "\"tap0\" . 52:54:00:01:02:03"));
    assert_int_equal(hostnet_ports_filter(n, &dirs, NULL, 0, &err), 0);
    hostnet_port_remove(n, p.name);
    assert_int_equal(link_find("tap0", &tap, NULL), -ENODEV);
    hostnet_down(n, &dirs);
    network_free(n);
}

static void isolated_and_foreign(void **state)
{
    (void)state;
    struct network *n = parse("<network><name>iso</name><uuid>3e3fce45-4f53-4fa7-bb32-11f34168b82c</uuid><bridge name='vbr1'/></network>");
    struct err err = {0};
    up(n);
    assert_int_equal(dnsmasq_pid(n, &dirs), 0);
    hostnet_down(n, &dirs);
    network_free(n);
    n = parse("<network><name>br</name><uuid>3e3fce45-4f53-4fa7-bb32-11f34168b82d</uuid><forward mode='bridge'/>"
              "<bridge name='nobr'/></network>");
    assert_int_equal(hostnet_up(n, &dirs, &err), -ENODEV);
    assert_non_null(strstr(err.msg, "nobr"));
    network_free(n);
}

static bool none_taken(void *opaque, const struct ipaddr *net, unsigned prefix)
{
    (void)opaque;
    (void)prefix;
    return net->bytes[2] == 122;
}

static void free_subnet(void **state)
{
    (void)state;
    struct ipaddr a;
    char text[IPADDR_TEXT_MAX];
    assert_int_equal(hostnet_free_subnet(none_taken, NULL, &a), 0);
    assert_string_equal(ipaddr_format(&a, text), "192.168.123.0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_and_goes), cmocka_unit_test(conflicts), cmocka_unit_test(ports),
        cmocka_unit_test(isolated_and_foreign), cmocka_unit_test(free_subnet),
    };
    if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0) {
        printf("needs root to make a network namespace: %s\n", strerror(errno));
        return 77;
    }
    autofree char *nft = tool_find("nft"), *dnsmasq = tool_find("dnsmasq");
    if (!nft || !dnsmasq) {
        printf("nft or dnsmasq is not installed\n");
        return 77;
    }
    if (!mkdtemp(dir) || link_set_up("lo", true, NULL) < 0)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    autofree char *rm = xasprintf("%s/nat.leases", dir);
    unlink(rm);
    rmdir(dir);
    return failed;
}
