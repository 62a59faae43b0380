/* Domain XML: what is read, what comes back, what is refused and how that is said. Documents: tests/unit/domain/. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "domain/domain.h"
#include "domain/xml.h"

static const char *const corpus[] = {"server.xml", "kernel.xml", "auto.xml"};

static char *corpus_path(const char *name)
{
    return xasprintf("%s/domain/%s", TEST_SOURCE_DIR, name);
}

static struct domain *load(const char *name)
{
    autofree char *path = corpus_path(name);
    struct domain *d = NULL;
    struct err err = {0};
    if (domain_parse_file(path, &d, &err))
        fail_msg("%s", err.msg);
    return d;
}

static char *slurp(const char *name)
{
    autofree char *path = corpus_path(name);
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    char *buf = calloc(1, 65536);
    assert_true(fread(buf, 1, 65535, f) > 0);
    fclose(f);
    return buf;
}

static struct xml_node *tree(const char *text)
{
    struct xml_node *n = NULL;
    struct err err = {0};
    if (xml_parse(text, strlen(text), "t", &n, &err))
        fail_msg("%s", err.msg);
    return n;
}

/* Is everything that `a` says also said by `b`, in any order? */
static bool covers(const struct xml_node *b, const struct xml_node *a)
{
    if (strcmp(a->name, b->name))
        return false;
    for (const struct xml_attr *x = a->attrs; x; x = x->next) {
        const char *v = xml_attr_get(b, x->name);
        if (!v || strcmp(v, x->value))
            return false;
    }
    if (a->text && (!b->text || strcmp(a->text, b->text)))
        return false;
    for (const struct xml_node *c = a->first; c; c = c->next) {
        bool found = false;
        for (const struct xml_node *o = b->first; o && !found; o = o->next)
            found = covers(o, c);
        if (!found)
            return false;
    }
    return true;
}

static void every_document_comes_back_whole(void **s)
{
    for (unsigned i = 0; i < ARRAY_SIZE(corpus); i++) {
        struct domain *d = load(corpus[i]), *again = NULL;
        autofree char *once = domain_format(d);
        assert_int_equal(domain_parse(once, strlen(once), "again", &again, NULL), 0);
        autofree char *twice = domain_format(again);
        assert_string_equal(once, twice);

        domain_defaults(again);
        autofree char *full = domain_format(again);
        struct xml_node *a = tree(once), *b = tree(full);
        assert_true(covers(b, a)); /* defaults only add */
        xml_free(a);
        xml_free(b);
        domain_free(d);
        domain_free(again);
    }
}

static void nothing_of_a_libvirt_document_is_lost(void **s)
{
    /* Same values in other clothes (memory units, the UUID's dashes) would not compare equal: this one has none. */
    struct domain *d = load("server.xml");
    autofree char *text = domain_format(d), *original = slurp("server.xml");
    struct xml_node *a = tree(original), *b = tree(text);
    for (const char *const *unit = (const char *const[]){"memory", "currentMemory", NULL}; *unit; unit++)
        xml_attr_set(xml_child(a, *unit), "unit", "KiB");
    assert_true(covers(b, a));
    xml_free(a);
    xml_free(b);
    domain_free(d);
}

static void the_struct_holds_what_the_document_says(void **s)
{
    struct domain *d = load("kernel.xml");
    assert_int_equal(d->engine, DOMAIN_ENGINE_SOFT);
    assert_string_equal(d->title, "A & B");
    assert_int_equal(d->uuid[0], 0xbf);
    assert_int_equal(d->uuid[15], 0xca);
    assert_int_equal(d->memory, 512 * MIB);
    assert_int_equal(d->current_memory, 256 * MIB);
    assert_int_equal(d->vcpus, 8);
    assert_int_equal(d->vcpus_current, 4);
    assert_string_equal(d->os.cmdline, "console=ttyS0 root=/dev/vda opt='a<b'");
    assert_int_equal(d->pae, DOMAIN_OFF);
    assert_int_equal(d->cpu.n_features, 3);
    assert_true(d->cpu.features[0].on);
    assert_false(d->cpu.features[1].on);
    assert_int_equal(d->on_crash, DOMAIN_ACTION_COREDUMP_DESTROY);
    assert_int_equal(d->n_disks, 2);
    assert_string_equal(d->disks[0].source, "/srv/a b/ü.img");
    assert_int_equal(d->disks[0].cache, DOMAIN_CACHE_NONE);
    assert_int_equal(d->disks[0].io, DOMAIN_IO_URING);
    assert_int_equal(d->disks[0].iothread, 2);
    assert_string_equal(d->disks[0].serial, "WD-0001");
    assert_true(d->disks[0].shareable);
    assert_int_equal(d->disks[0].boot_order, 1);
    assert_int_equal(d->disks[1].type, DOMAIN_DISK_BLOCK);
    assert_true(d->disks[1].readonly);
    assert_int_equal(d->n_interfaces, 2);
    assert_int_equal(d->interfaces[0].n_forwards, 2);
    assert_int_equal(d->interfaces[0].forwards[0].ranges[1].end, 3020);
    assert_int_equal(d->interfaces[0].forwards[0].ranges[1].to, 4000);
    assert_true(d->interfaces[0].forwards[0].ranges[2].exclude);
    assert_string_equal(d->interfaces[1].target, "tap0");
    assert_int_equal(d->interfaces[1].queues, 4);
    assert_int_equal(d->interfaces[1].link_up, DOMAIN_OFF);
    assert_int_equal(d->serials[1].chardev.type, DOMAIN_CHARDEV_FILE);
    assert_true(d->serials[1].chardev.append);
    assert_int_equal(d->consoles[1].target, DOMAIN_CONSOLE_VIRTIO);
    assert_int_equal(d->balloon.stats_period, 10);
    assert_int_equal(d->rngs[0].rate_bytes, 1024);
    assert_string_equal(d->filesystems[0].target, "share");
    assert_int_equal(d->n_panics, 1);
    domain_defaults(d);
    assert_int_equal(d->os.board, DOMAIN_BOARD_Q35);
    struct err err = {0};
    if (domain_check(d, "kernel.xml", &err))
        fail_msg("%s", err.msg);
    domain_free(d);
}

static void defaults_make_a_short_document_complete(void **s)
{
    struct domain *d = load("auto.xml");
    assert_int_equal(d->engine, DOMAIN_ENGINE_AUTO);
    domain_defaults(d);
    struct err err = {0};
    if (domain_check(d, "auto.xml", &err))
        fail_msg("%s", err.msg);
    assert_true(d->has_uuid);
    assert_int_equal(d->vcpus, 1);
    assert_int_equal(d->os.board, DOMAIN_BOARD_MICRO);
    assert_string_equal(d->disks[0].target, "vda");
    assert_string_equal(d->disks[1].target, "vdb");
    assert_string_equal(d->disks[1].format, "raw");
    assert_int_equal(d->disks[1].bus, DOMAIN_BUS_VIRTIO);
    assert_int_equal(d->serials[0].port, 0);
    assert_int_equal(d->n_consoles, 1);
    assert_int_equal(d->balloon.model, DOMAIN_BALLOON_VIRTIO);
    autofree char *once = domain_format(d);
    domain_defaults(d);
    autofree char *twice = domain_format(d);
    assert_string_equal(once, twice);
    domain_free(d);
}

static void collect(void *opaque, int line, const char *path)
{
    char *all = opaque;
    size_t len = strlen(all);
    snprintf(all + len, 4096 - len, "%d:%s\n", line, path);
}

static void what_has_no_effect_is_reported(void **s)
{
    struct domain *d = load("kernel.xml");
    char all[4096] = "";
    domain_each_unknown(d, collect, all);
    assert_string_equal(all, "9:vcpu/@placement\n21:features/kvm\n25:cpu/vendor\n");
    domain_free(d);
    d = load("server.xml");
    *all = 0;
    domain_each_unknown(d, collect, all);
    assert_non_null(strstr(all, "4:metadata\n"));
    assert_non_null(strstr(all, "34:devices/disk/driver/@detect_zeroes\n"));
    assert_non_null(strstr(all, "36:devices/disk/source/seclabel\n"));
    assert_non_null(strstr(all, "41:devices/controller\n"));
    domain_free(d);
}

static void wrong_documents_are_refused_with_their_place(void **s)
{
#define DOC(inner) "<domain type='kvm'><name>x</name><memory>65536</memory>\n" inner "</domain>"
#define KERNEL "<os><type>hvm</type><kernel>/k</kernel></os>\n"
    static const struct {
        const char *xml, *message;
    } cases[] = {
        {"", "g.xml: not XML: the file is empty"},
        {"  \n", "g.xml:2: not well-formed XML: no element found"},
        {"hello", "g.xml:1: not well-formed XML: syntax error"},
        {"<domain>\n<a>\n</domain>", "g.xml:3: not well-formed XML: mismatched tag"},
        {"<domain type='kvm'>\n<name>", "g.xml:2: not well-formed XML: no element found"},
        {"<network/>", "g.xml:1: the document is a <network>, not a <domain>"},
        {"<domain/>", "g.xml:1: <domain> has no type attribute (kvm or qemu)"},
        {"<!DOCTYPE a [<!ENTITY b 'c'>]><domain/>", "g.xml:1: a document type declaration is not allowed"},
        {"<domain type='kvm'>\n<memory unit='acre'>1</memory></domain>", "g.xml:2: <memory unit>: unknown unit 'acre'"},
        {"<domain type='kvm'><memory>-1</memory></domain>", "g.xml:1: <memory>: '-1' is not a number"},
        {"<domain type='kvm'><memory unit='TiB'>99999999</memory></domain>",
         "g.xml:1: <memory>: 99999999 is too large (at most 8388607)"},
        {"<domain type='kvm'><uuid>12</uuid></domain>", "g.xml:1: <uuid>: '12' is not a UUID"},
        {"<domain type='kvm'><on_crash>cry</on_crash></domain>", "g.xml:1: <on_crash>: unknown action 'cry'"},
        {DOC("<devices><disk device='tape'/></devices>"), "g.xml:2: <disk device>: unknown value 'tape'"},
        {DOC("<devices><interface/></devices>"), "g.xml:2: <interface> has no type"},
        {DOC("<devices><interface type='user'><mac address='52:54:00:1:2:3'/></interface></devices>"),
         "g.xml:2: <mac address>: '52:54:00:1:2:3' is not a MAC address"},
        {DOC("<devices><interface type='user'><portForward proto='sctp'/></interface></devices>"),
         "g.xml:2: <portForward proto>: must be tcp or udp"},
        {DOC("<vcpu>1</vcpu>\n<vcpu>2</vcpu>"), "g.xml:3: <vcpu> is there twice"},
        {DOC("<devices><memballoon model='virtio'/>\n<memballoon model='virtio'/></devices>"),
         "g.xml:3: a guest has at most one <memballoon>"},
        /* The same, found by domain_check(). */
        {"<domain type='kvm'/>", "g.xml: the domain has no <name>"},
        {"<domain type='xen'><name>x</name></domain>", "g.xml: domain type 'xen' is not supported, only kvm and qemu"},
        {"<domain type='kvm'><name>a/b</name></domain>",
         "g.xml: 'a/b' is not a domain name: at most 200 characters, without '/'"},
        {"<domain type='kvm'><name>x</name></domain>", "g.xml: the domain has no <memory>"},
        {"<domain type='kvm'><name>x</name><memory>4</memory></domain>",
         "g.xml: <memory>: 4 KiB is not between 2 MiB and 4096 GiB"},
        {DOC("<os><type machine='micro'>hvm</type></os>"),
         "g.xml: <os> names no <kernel>: the micro board has no firmware to boot a disk with"},
        {DOC("<os firmware='coreboot'/>"), "g.xml: <os firmware>: 'coreboot' is neither bios nor efi"},
        {DOC("<os><loader type='flash'>/x</loader></os>"), "g.xml: <loader type>: 'flash' is neither rom nor pflash"},
        {DOC("<os><boot dev='tape'/></os>"), "g.xml: <boot dev>: 'tape' is none of hd, cdrom, network and fd"},
        {DOC("<os><nvram>x.fd</nvram></os>"), "g.xml: <nvram>: 'x.fd' is not an absolute path"},
        {DOC("<os><type machine='pc'>hvm</type></os>"),
         "g.xml: <os><type machine>: 'pc' is not supported, only q35 and micro"},
        {DOC("<os><type arch='aarch64'>hvm</type></os>"),
         "g.xml: <os><type arch>: 'aarch64' is not supported, only x86_64"},
        {DOC("<vcpu>300</vcpu>"), "g.xml: <vcpu>: 300 is not between 1 and 255"},
        {DOC("<vcpu>4</vcpu><cpu><topology sockets='1' cores='3' threads='1'/></cpu>"),
         "g.xml: <cpu><topology>: sockets * dies * cores * threads is not the number of vCPUs, 4"},
        {DOC(KERNEL "<devices><disk><source file='x.img'/></disk></devices>"),
         "g.xml:3: disk 'vda': 'x.img' is not an absolute path"},
        {DOC(KERNEL "<devices><disk><source file='/x'/><target dev='hda'/></disk></devices>"),
         "g.xml:3: disk 'hda': bus 'ide' is not supported, only virtio and sata"},
        {DOC(KERNEL "<devices><disk type='network'><source name='x'/></disk></devices>"),
         "g.xml:3: disk 'vda': type 'network' is not supported, only file and block"},
        {DOC(KERNEL "<devices><disk><source file='/x'/><driver iothread='1'/></disk></devices>"),
         "g.xml:3: disk 'vda': there is no I/O thread 1, only 0"},
        {DOC(KERNEL "<devices><disk><source file='/x'/><target dev='vda'/></disk>\n"
                    "<disk><source file='/y'/><target dev='vda'/></disk></devices>"),
         "g.xml:4: disk 'vda': there is another disk of that name"},
        {DOC(KERNEL "<devices><interface type='network'/></devices>"),
         "g.xml:3: interface 0: type 'network' is connected by lodged; start the guest through it, or use type user or ethernet"},
        {DOC(KERNEL "<devices><interface type='ethernet'/></devices>"),
         "g.xml:3: interface 0: type ethernet needs the name of a tap device in <target dev>"},
        {DOC(KERNEL "<devices><serial type='tcp'/></devices>"),
         "g.xml:3: serial port 0: type 'tcp' is not supported, only pty, file, unix, stdio and null"},
        {DOC(KERNEL "<devices><serial type='stdio'/><serial type='stdio'/></devices>"),
         "g.xml: the terminal (stdio) can be given to one serial port or console only"},
        {DOC(KERNEL "<devices><filesystem><source dir='/x'/></filesystem></devices>"),
         "g.xml:3: filesystem has no <target dir> (the guest's mount tag)"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct domain *d = NULL;
        struct err err = {0};
        int r = domain_parse(cases[i].xml, strlen(cases[i].xml), "g.xml", &d, &err);
        if (!r) {
            domain_defaults(d);
            r = domain_check(d, "g.xml", &err);
        }
        assert_true(r < 0);
        assert_string_equal(err.msg, cases[i].message);
        domain_free(d);
    }
}

static void size_and_depth_are_limited(void **s)
{
    char *deep = calloc(1, 100000);
    for (int i = 0; i < 1000; i++)
        strcat(deep, "<a>");
    struct domain *d;
    struct err err = {0};
    assert_true(domain_parse(deep, strlen(deep), "g.xml", &d, &err) < 0);
    assert_string_equal(err.msg, "g.xml:1: elements are nested too deeply");
    free(deep);
}

static uint32_t seed = 12345;

static uint32_t rnd(uint32_t below)
{
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % below;
}

/* Changes a document in one place: a byte, a piece that is left out, or words that mean something. */
static size_t damage(char *text, size_t len, size_t room)
{
    static const char *const words[] = {
        "0",
        "-1",
        "4294967296",
        "18446744073709551616",
        "yes",
        "off",
        "virtio",
        "file",
        "&amp;",
        "<disk/>",
        "<cpu>",
        "</cpu>",
        "<interface type='user'/>",
        "<memballoon model='none'/>",
        "<panic/>",
        "<serial type='pty'/>",
        "<console type='pty'/>",
        "<timer/>",
        "<boot dev='hd'/>",
        "<portForward proto='tcp'/>",
        "<topology/>",
        "<feature name='x'/>",
        "<x:y z='1'/>",
    };
    size_t at = rnd(len);
    switch (rnd(4)) {
    case 0:
        text[at] = (char)rnd(256);
        return len;
    case 1: {
        size_t n = rnd(len - at);
        memmove(text + at, text + at + n, len - at - n);
        return len - n;
    }
    default: {
        /* After the next tag or quote, where it is likely to be well formed. */
        const char *word = words[rnd(ARRAY_SIZE(words))];
        char *end = memchr(text + at, *word == '<' ? '>' : '\'', len - at);
        size_t n = strlen(word);
        if (!end || len + n > room)
            return len;
        at = end - text + 1;
        memmove(text + at + n, text + at, len - at);
        memcpy(text + at, word, n);
        return len + n;
    }
    }
}

/* Is what comes out of a domain the same document when it is read again? */
static char *format_twice(const struct domain *d)
{
    struct domain *again = NULL;
    struct err err = {0};
    char *once = domain_format(d);
    if (domain_parse(once, strlen(once), "again", &again, &err))
        fail_msg("%s\n%s", err.msg, once);
    autofree char *twice = domain_format(again);
    assert_string_equal(once, twice);
    domain_free(again);
    return once;
}

/* Any damage gives an error that names the file, or a domain that can be written and read again. */
static void damaged_documents_do_no_harm(void **s)
{
    enum { ROOM = 20000 };
    for (unsigned i = 0; i < ARRAY_SIZE(corpus); i++) {
        autofree char *text = slurp(corpus[i]);
        for (int round = 0; round < 4000; round++) {
            char copy[ROOM];
            size_t len = strlen(text);
            memcpy(copy, text, len);
            for (unsigned k = rnd(3) + 1; k && len > 1; k--)
                len = damage(copy, len, ROOM);
            struct domain *d = NULL;
            struct err err = {0};
            if (domain_parse(copy, len, "g.xml", &d, &err)) {
                assert_non_null(strstr(err.msg, "g.xml"));
                continue;
            }
            free(format_twice(d));
            domain_defaults(d);
            domain_check(d, "g.xml", &err);
            free(format_twice(d));
            domain_free(d);
        }
    }
}

static void text_that_xml_cannot_hold_is_known(void **s)
{
    assert_true(xml_valid_text("a\tü€😀"));
    assert_false(xml_valid_text("\x01"));
    assert_false(xml_valid_text("\xff"));
    assert_false(xml_valid_text("\xc0\x80"));
    assert_false(xml_valid_text("\xe2\x82"));
    assert_false(xml_valid_text("\xed\xa0\x80"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_document_comes_back_whole),
        cmocka_unit_test(nothing_of_a_libvirt_document_is_lost),
        cmocka_unit_test(the_struct_holds_what_the_document_says),
        cmocka_unit_test(defaults_make_a_short_document_complete),
        cmocka_unit_test(what_has_no_effect_is_reported),
        cmocka_unit_test(wrong_documents_are_refused_with_their_place),
        cmocka_unit_test(size_and_depth_are_limited),
        cmocka_unit_test(damaged_documents_do_no_harm),
        cmocka_unit_test(text_that_xml_cannot_hold_is_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
