/* The host's interfaces, packet filters and devices: iface-*, nwfilter-*, nodedev-*. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/dom.h"

static int compare_ifaces(const void *a, const void *b)
{
    return strcasecmp(((const rp_iface *)a)->name, ((const rp_iface *)b)->name);
}

bool cmd_iface_list(struct vsh *v, const struct vsh_args *a)
{
    const rp_list_args args = {1, vsh_has(a, "all") ? 3 : vsh_has(a, "inactive") ? 1 : 2};
    rp_iface_list list;
    if (!vsh_call(v, RPC_PROC_CONNECT_LIST_ALL_INTERFACES, &args, &list))
        return vsh_error(v, "Failed to list interfaces");
    if (list.items.items_len)
        qsort(list.items.items_val, list.items.items_len, sizeof(rp_iface), compare_ifaces);
    autotable t = vsh_table_new("Name", "State", "MAC Address", NULL);
    for (unsigned i = 0; i < list.items.items_len; i++) {
        const rp_iface *f = &list.items.items_val[i];
        rp_int active = 0;
        if (!vsh_call(v, RPC_PROC_INTERFACE_IS_ACTIVE, f, &active))
            active = 0;
        vsh_table_row(t, f->name, active ? "active" : "inactive", f->mac);
    }
    vsh_error_reset(v);
    vsh_table_print(v, t);
    client_result_free(RPC_PROC_CONNECT_LIST_ALL_INTERFACES, &list);
    return true;
}

static void free_iface(rp_iface *f)
{
    rpc_free((rpc_xdr_fn)(void *)xdr_rp_iface, f);
}

/* By MAC address or name. */
static bool find_iface(struct vsh *v, const struct vsh_args *a, rp_iface *ret)
{
    rp_string text = (char *)vsh_text(a, "interface");
    *ret = (rp_iface){0};
    if (strlen(text) == 17 && strchr(text, ':') && vsh_call(v, RPC_PROC_INTERFACE_LOOKUP_BY_MAC_STRING, &text, ret))
        return true;
    if (vsh_call(v, RPC_PROC_INTERFACE_LOOKUP_BY_NAME, &text, ret)) {
        vsh_error_reset(v);
        return true;
    }
    return vsh_error(v, "failed to get interface '%s'", text);
}

bool cmd_iface_dumpxml(struct vsh *v, const struct vsh_args *a)
{
    __attribute__((cleanup(free_iface))) rp_iface f;
    rp_string text;
    if (!find_iface(v, a, &f))
        return false;
    const rp_iface_flags args = {f, vsh_has(a, "inactive")};
    if (!vsh_call(v, RPC_PROC_INTERFACE_GET_XML_DESC, &args, &text))
        return false;
    bool ok = vsh_print_xml(v, a, text);
    free(text);
    return ok;
}

bool cmd_iface_name(struct vsh *v, const struct vsh_args *a)
{
    __attribute__((cleanup(free_iface))) rp_iface f;
    if (!find_iface(v, a, &f))
        return false;
    puts(f.name);
    return true;
}

bool cmd_iface_mac(struct vsh *v, const struct vsh_args *a)
{
    __attribute__((cleanup(free_iface))) rp_iface f;
    if (!find_iface(v, a, &f))
        return false;
    puts(f.mac);
    return true;
}

static int compare_filters(const void *a, const void *b)
{
    return strcasecmp(((const rp_nwfilter *)a)->name, ((const rp_nwfilter *)b)->name);
}

bool cmd_nwfilter_list(struct vsh *v, const struct vsh_args *a)
{
    const rp_list_args args = {1, 0};
    rp_nwfilter_list list;
    if (!vsh_call(v, RPC_PROC_CONNECT_LIST_ALL_NWFILTERS, &args, &list))
        return vsh_error(v, "Failed to list network filters");
    if (list.items.items_len)
        qsort(list.items.items_val, list.items.items_len, sizeof(rp_nwfilter), compare_filters);
    autotable t = vsh_table_new("UUID", "Name", NULL);
    for (unsigned i = 0; i < list.items.items_len; i++) {
        char uuid[37];
        vsh_uuid_text(&list.items.items_val[i].uuid, uuid);
        vsh_table_row(t, uuid, list.items.items_val[i].name);
    }
    vsh_table_print(v, t);
    client_result_free(RPC_PROC_CONNECT_LIST_ALL_NWFILTERS, &list);
    return true;
}

static void free_filter(rp_nwfilter *f)
{
    rpc_free((rpc_xdr_fn)(void *)xdr_rp_nwfilter, f);
}

static bool find_filter(struct vsh *v, const struct vsh_args *a, rp_nwfilter *ret)
{
    rp_string text = (char *)vsh_text(a, "nwfilter");
    rp_uuid uuid;
    *ret = (rp_nwfilter){0};
    if ((strlen(text) == 36 && vsh_uuid_parse(text, &uuid) &&
         vsh_call(v, RPC_PROC_NWFILTER_LOOKUP_BY_UUID, &uuid, ret)) ||
        vsh_call(v, RPC_PROC_NWFILTER_LOOKUP_BY_NAME, &text, ret)) {
        vsh_error_reset(v);
        return true;
    }
    return vsh_error(v, "failed to get nwfilter '%s'", text);
}

static char *filter_text(struct vsh *v, const rp_nwfilter *f)
{
    const rp_nwfilter_flags args = {*f, 0};
    rp_string text;
    return vsh_call(v, RPC_PROC_NWFILTER_GET_XML_DESC, &args, &text) ? text : NULL;
}

bool cmd_nwfilter_dumpxml(struct vsh *v, const struct vsh_args *a)
{
    __attribute__((cleanup(free_filter))) rp_nwfilter f;
    if (!find_filter(v, a, &f))
        return false;
    autofree char *text = filter_text(v, &f);
    return text && vsh_print_xml(v, a, text);
}

static bool define_filter(struct vsh *v, const char *text, void *opaque)
{
    rp_string xml = (char *)text;
    rp_nwfilter *out = opaque;
    return vsh_call(v, RPC_PROC_NWFILTER_DEFINE_XML, &xml, out);
}

bool cmd_nwfilter_define(struct vsh *v, const struct vsh_args *a)
{
    __attribute__((cleanup(free_filter))) rp_nwfilter f = {0};
    const char *path = vsh_text(a, "file");
    autofree char *text = vsh_read_file(v, path);
    if (!text)
        return false;
    if (!define_filter(v, text, &f))
        return vsh_error(v, "Failed to define network filter from %s", path);
    vsh_extra(v, "Network filter %s defined from %s\n", f.name, path);
    return true;
}

bool cmd_nwfilter_undefine(struct vsh *v, const struct vsh_args *a)
{
    __attribute__((cleanup(free_filter))) rp_nwfilter f;
    const char *name = vsh_text(a, "nwfilter");
    if (!find_filter(v, a, &f))
        return false;
    if (!vsh_call(v, RPC_PROC_NWFILTER_UNDEFINE, &f, NULL))
        return vsh_error(v, "Failed to undefine network filter %s", name);
    vsh_extra(v, "Network filter %s undefined\n", name);
    return true;
}

bool cmd_nwfilter_edit(struct vsh *v, const struct vsh_args *a)
{
    __attribute__((cleanup(free_filter))) rp_nwfilter f, changed_filter = {0};
    if (!find_filter(v, a, &f))
        return false;
    autofree char *text = filter_text(v, &f);
    autofree char *what = xasprintf("Network filter %s", f.name);
    bool changed;
    if (!text || !vsh_edit(v, text, what, define_filter, &changed_filter, &changed))
        return false;
    if (changed)
        vsh_extra(v, "%s XML configuration edited.\n", what);
    return true;
}

static int compare_devices(const void *a, const void *b)
{
    return strcasecmp(((const rp_nodedev *)a)->name, ((const rp_nodedev *)b)->name);
}

bool cmd_nodedev_list(struct vsh *v, const struct vsh_args *a)
{
    static const char *const caps[] = {"system",      "pci",        "usb_device", "usb",     "net",    "scsi_host",
                                       "scsi_target", "scsi",       "storage",    "fc_host", "vports", "scsi_generic",
                                       "drm",         "mdev_types", "mdev",       "ccw",     "css",    "vdpa",
                                       "ap_card",     "ap_queue",   "ap_matrix",  "vpd"};
    const char *cap = vsh_text(a, "cap");
    unsigned flags = 0;
    autofree char *copy = cap ? xstrdup(cap) : NULL;
    char *save = NULL;
    for (char *w = copy ? strtok_r(copy, ",", &save) : NULL; w; w = strtok_r(NULL, ",", &save)) {
        unsigned i = 0;
        while (i < sizeof(caps) / sizeof(caps[0]) && strcmp(w, caps[i]) != 0)
            i++;
        if (i == sizeof(caps) / sizeof(caps[0]))
            return vsh_error(v, "Invalid capability type");
        flags |= 1u << i;
    }
    const rp_list_args args = {1, flags};
    rp_nodedev_list list;
    if (!vsh_call(v, RPC_PROC_CONNECT_LIST_ALL_NODE_DEVICES, &args, &list))
        return vsh_error(v, "Failed to list node devices");
    if (list.items.items_len)
        qsort(list.items.items_val, list.items.items_len, sizeof(rp_nodedev), compare_devices);
    for (unsigned i = 0; i < list.items.items_len; i++)
        puts(list.items.items_val[i].name);
    client_result_free(RPC_PROC_CONNECT_LIST_ALL_NODE_DEVICES, &list);
    return true;
}

bool cmd_nodedev_dumpxml(struct vsh *v, const struct vsh_args *a)
{
    rp_string name = (char *)vsh_text(a, "device"), text;
    rp_nodedev dev;
    if (!vsh_call(v, RPC_PROC_NODE_DEVICE_LOOKUP_BY_NAME, &name, &dev))
        return vsh_error(v, "Could not find matching device '%s'", name);
    client_result_free(RPC_PROC_NODE_DEVICE_LOOKUP_BY_NAME, &dev);
    const rp_str_flags args = {name, 0};
    if (!vsh_call(v, RPC_PROC_NODE_DEVICE_GET_XML_DESC, &args, &text))
        return false;
    bool ok = vsh_print_xml(v, a, text);
    free(text);
    return ok;
}
