/* A domain's life: define and undefine, start and stop, save and restore. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/dom.h"
#include "domain/xml.h"

/* One call with a domain alone (or with flags, when there are any), and what is said then. `%s` is the name as typed.
 */
static bool act(struct vsh *v, const struct vsh_args *a, int proc, int proc_flags, unsigned flags, const char *done,
                const char *failed)
{
    autodomain dom = {0};
    if (!vsh_domain(v, a, &dom))
        return false;
    const rp_dom_flags args = {dom, flags};
    const char *name = vsh_text(a, "domain");
    bool ok = proc && !flags ? vsh_call(v, proc, &dom, NULL) : vsh_call(v, proc_flags, &args, NULL);
    if (!ok)
        return vsh_error(v, "%s '%s'", failed, name);
    vsh_extra(v, "Domain '%s' %s\n", name, done);
    return true;
}

bool cmd_suspend(struct vsh *v, const struct vsh_args *a)
{
    return act(v, a, RPC_PROC_DOMAIN_SUSPEND, 0, 0, "suspended", "Failed to suspend domain");
}

bool cmd_resume(struct vsh *v, const struct vsh_args *a)
{
    return act(v, a, RPC_PROC_DOMAIN_RESUME, 0, 0, "resumed", "Failed to resume domain");
}

bool cmd_reset(struct vsh *v, const struct vsh_args *a)
{
    return act(v, a, 0, RPC_PROC_DOMAIN_RESET, 0, "was reset", "Failed to reset domain");
}

bool cmd_destroy(struct vsh *v, const struct vsh_args *a)
{
    unsigned flags = vsh_has(a, "graceful") | vsh_has(a, "remove-logs") << 1;
    return act(v, a, RPC_PROC_DOMAIN_DESTROY, RPC_PROC_DOMAIN_DESTROY_FLAGS, flags, "destroyed",
               "Failed to destroy domain");
}

/* "acpi,agent" as bits. False: said so. */
static bool modes(struct vsh *v, const struct vsh_args *a, const char *before_or, unsigned *ret)
{
    static const char *const names[] = {"acpi", "agent", "initctl", "signal", "paravirt"};
    const char *text = vsh_text(a, "mode");
    autofree char *copy = text ? xstrdup(text) : NULL;
    char *save = NULL;
    *ret = 0;
    for (char *m = copy ? strtok_r(copy, ",", &save) : NULL; m; m = strtok_r(NULL, ",", &save)) {
        unsigned i = 0;
        while (i < 5 && strcmp(m, names[i]) != 0)
            i++;
        if (i == 5)
            return vsh_error(v, "Unknown mode %s value, expecting 'acpi', 'agent', 'initctl', 'signal'%s or 'paravirt'",
                             m, before_or);
        *ret |= 1u << i;
    }
    return true;
}

bool cmd_shutdown(struct vsh *v, const struct vsh_args *a)
{
    unsigned flags;
    return modes(v, a, ",", &flags) && act(v, a, RPC_PROC_DOMAIN_SHUTDOWN, RPC_PROC_DOMAIN_SHUTDOWN_FLAGS, flags,
                                           "is being shutdown", "Failed to shutdown domain");
}

bool cmd_reboot(struct vsh *v, const struct vsh_args *a)
{
    unsigned flags;
    return modes(v, a, "", &flags) &&
           act(v, a, 0, RPC_PROC_DOMAIN_REBOOT, flags, "is being rebooted", "Failed to reboot domain");
}

bool cmd_start(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    if (!vsh_domain_find(v, vsh_text(a, "domain"), VSH_BY_NAME | VSH_BY_UUID, &dom))
        return false;
    if (dom.id >= 0)
        return vsh_error(v, "Domain is already active");
    const rp_dom_flags args = {dom, vsh_has(a, "paused") | vsh_has(a, "autodestroy") << 1 |
                                        vsh_has(a, "bypass-cache") << 2 | vsh_has(a, "force-boot") << 3 |
                                        vsh_has(a, "reset-nvram") << 5};
    autodomain started = {0};
    bool ok = args.flags ? vsh_call(v, RPC_PROC_DOMAIN_CREATE_WITH_FLAGS, &args, &started)
                         : vsh_call(v, RPC_PROC_DOMAIN_CREATE, &dom, NULL);
    if (!ok)
        return vsh_error(v, "Failed to start domain '%s'", dom.name);
    vsh_extra(v, "Domain '%s' started\n", dom.name);
    return !vsh_has(a, "console") || vsh_console(v, &dom, NULL, 0);
}

bool cmd_autostart(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    if (!vsh_domain(v, a, &dom))
        return false;
    bool off = vsh_has(a, "disable");
    const rp_dom_int args = {dom, !off};
    const char *name = vsh_text(a, "domain");
    if (!vsh_call(v, RPC_PROC_DOMAIN_SET_AUTOSTART, &args, NULL))
        return vsh_error(
            v, off ? "Failed to unmark domain '%s' as autostarted" : "Failed to mark domain '%s' as autostarted", name);
    vsh_extra(v, off ? "Domain '%s' unmarked as autostarted\n" : "Domain '%s' marked as autostarted\n", name);
    return true;
}

bool cmd_domrename(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    if (!vsh_domain(v, a, &dom))
        return false;
    rp_string name = (char *)vsh_text(a, "new-name");
    const rp_dom_ostr_flags args = {dom, &name, 0};
    rp_int r;
    if (!vsh_call(v, RPC_PROC_DOMAIN_RENAME, &args, &r))
        return false;
    vsh_extra(v, "Domain successfully renamed\n");
    return true;
}

bool cmd_define(struct vsh *v, const struct vsh_args *a)
{
    const char *path = vsh_text(a, "file");
    autofree char *text = vsh_read_file(v, path);
    autodomain dom = {0};
    if (!text)
        return false;
    rp_string xml = text;
    const rp_str_flags args = {text, 1};
    bool ok = vsh_has(a, "validate") ? vsh_call(v, RPC_PROC_DOMAIN_DEFINE_XML_FLAGS, &args, &dom)
                                     : vsh_call(v, RPC_PROC_DOMAIN_DEFINE_XML, &xml, &dom);
    if (!ok)
        return vsh_error(v, "Failed to define domain from %s", path);
    vsh_extra(v, "Domain '%s' defined from %s\n", dom.name, path);
    return true;
}

bool cmd_create(struct vsh *v, const struct vsh_args *a)
{
    const char *path = vsh_text(a, "file");
    autofree char *text = vsh_read_file(v, path);
    autodomain dom = {0};
    if (!text)
        return false;
    const rp_str_flags args = {text, vsh_has(a, "paused") | vsh_has(a, "autodestroy") << 1 |
                                         vsh_has(a, "validate") << 4 | vsh_has(a, "reset-nvram") << 5};
    if (!vsh_call(v, RPC_PROC_DOMAIN_CREATE_XML, &args, &dom))
        return vsh_error(v, "Failed to create domain from %s", path);
    vsh_extra(v, "Domain '%s' created from %s\n", dom.name, path);
    return !vsh_has(a, "console") || vsh_console(v, &dom, NULL, 0);
}

/* Volumes that go with a domain. */
struct doomed {
    rp_vol vol;
    char *target, *source;
};

static bool picked(const char *list, const char *target, const char *source)
{
    autofree char *copy = xstrdup(list);
    char *save = NULL;
    for (char *w = strtok_r(copy, ",", &save); w; w = strtok_r(NULL, ",", &save))
        if (!strcmp(w, target) || !strcmp(w, source))
            return true;
    return false;
}

/* A disk's volume; said so when there is none. */
static bool disk_volume(struct vsh *v, const struct xml_node *source, const char *target, const char *path, rp_vol *ret)
{
    const char *pool_name = xml_attr_get(source, "pool");
    rp_string text = (char *)path;
    bool found;
    if (pool_name) {
        autopool pool = {0};
        rp_string name = (char *)pool_name;
        if (!vsh_call(v, RPC_PROC_STORAGE_POOL_LOOKUP_BY_NAME, &name, &pool)) {
            vsh_error_reset(v);
            return vsh_error(v, "Storage pool '%s' for volume '%s' not found.", pool_name, target);
        }
        const rp_pool_str args = {pool, text};
        found = vsh_call(v, RPC_PROC_STORAGE_VOL_LOOKUP_BY_NAME, &args, ret);
    } else {
        found = vsh_call(v, RPC_PROC_STORAGE_VOL_LOOKUP_BY_PATH, &text, ret);
    }
    vsh_error_reset(v);
    return found ||
           vsh_error(v, "Storage volume '%s'(%s) is not managed by libvirt. Remove it manually.\n", target, path);
}

static unsigned collect_volumes(struct vsh *v, const struct xml_node *root, const char *only, struct doomed *out,
                                unsigned max)
{
    static const char *const attrs[] = {"file", "dir", "name", "dev", "volume"};
    const struct xml_node *devices = xml_child(root, "devices");
    unsigned n = 0;
    for (const struct xml_node *d = devices ? devices->first : NULL; d && n < max; d = d->next) {
        const struct xml_node *target = xml_child(d, "target"), *source = xml_child(d, "source");
        const char *dev = target ? xml_attr_get(target, "dev") : NULL, *path = NULL;
        for (unsigned i = 0; source && i < 5 && !path; i++)
            path = xml_attr_get(source, attrs[i]);
        if (strcmp(d->name, "disk") != 0 || !dev || !path || (only && !picked(only, dev, path)))
            continue;
        struct doomed *one = &out[n];
        *one = (struct doomed){0};
        if (!disk_volume(v, source, dev, path, &one->vol))
            continue;
        one->target = xstrdup(dev);
        one->source = xstrdup(path);
        n++;
    }
    return n;
}

/* Every word of --storage must be a disk of the domain. */
static bool storage_known(struct vsh *v, const struct xml_node *root, const char *only)
{
    static const char *const attrs[] = {"file", "dir", "name", "dev", "volume"};
    autofree char *copy = xstrdup(only);
    char *save = NULL;
    bool ok = true;
    for (char *w = strtok_r(copy, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
        bool found = false;
        const struct xml_node *devices = xml_child(root, "devices");
        for (const struct xml_node *d = devices ? devices->first : NULL; d && !found; d = d->next) {
            const struct xml_node *target = xml_child(d, "target"), *source = xml_child(d, "source");
            const char *dev = target ? xml_attr_get(target, "dev") : NULL;
            found = dev && !strcmp(dev, w) && source;
            for (unsigned i = 0; source && i < 5; i++)
                found |= xml_attr_get(source, attrs[i]) && !strcmp(xml_attr_get(source, attrs[i]), w);
        }
        if (!found)
            ok = vsh_error(v, "Volume '%s' was not found in domain's definition.\n", w);
    }
    return ok;
}

static bool remove_volumes(struct vsh *v, struct doomed *d, unsigned n, bool wipe, unsigned flags)
{
    bool ok = true;
    for (unsigned i = 0; i < n; i++) {
        const rp_vol_flags args = {d[i].vol, 0}, del = {d[i].vol, flags};
        if (wipe) {
            vsh_extra(v, "Wiping volume '%s'(%s) ... ", d[i].target, d[i].source);
            fflush(stdout);
            if (!vsh_call(v, RPC_PROC_STORAGE_VOL_WIPE, &args, NULL)) {
                ok = vsh_error(v, "Failed! Volume not removed.");
                continue;
            }
            vsh_extra(v, "Done.\n");
        }
        if (vsh_call(v, RPC_PROC_STORAGE_VOL_DELETE, &del, NULL))
            vsh_extra(v, "Volume '%s'(%s) removed.\n", d[i].target, d[i].source);
        else
            ok = vsh_error(v, "Failed to remove storage volume '%s'(%s)", d[i].target, d[i].source);
    }
    return ok;
}

bool cmd_undefine(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    const char *name = vsh_text(a, "domain"), *storage = vsh_text(a, "storage");
    bool all = vsh_has(a, "remove-all-storage"), wipe = vsh_has(a, "wipe-storage");
    bool snapshots = vsh_has(a, "delete-storage-volume-snapshots");
    if (snapshots && !all)
        return vsh_error(v, "Option --delete-storage-volume-snapshots is required by option --remove-all-storage");
    if (!vsh_exclusive(v, a, "nvram", "keep-nvram") || !vsh_exclusive(v, a, "tpm", "keep-tpm"))
        return false;
    if (wipe && !storage && !all)
        return vsh_error(v, "'--wipe-storage' requires '--storage <string>' or '--remove-all-storage'");
    if (!vsh_domain(v, a, &dom))
        return false;
    int running = dom_flag(v, RPC_PROC_DOMAIN_IS_ACTIVE, &dom);
    if (running < 0)
        return false;
    struct doomed doomed[64];
    unsigned n = 0;
    if (storage || all) {
        if (running)
            return vsh_error(v, "Storage volume deletion is supported only on stopped domains");
        if (storage && all)
            return vsh_error(v, "Specified both --storage and --remove-all-storage");
        autoxml root = vsh_domain_xml(v, &dom, 0);
        if (!root || (storage && !storage_known(v, root, storage)))
            return false;
        n = collect_volumes(v, root, storage, doomed, 64);
    }
    unsigned flags = vsh_has(a, "nvram") << 2 | vsh_has(a, "keep-nvram") << 3 | vsh_has(a, "tpm") << 5 |
                     vsh_has(a, "keep-tpm") << 6 | vsh_has(a, "checkpoints-metadata") << 4;
    /* What is not there is not asked for: a daemon may refuse flags that it does not know. */
    const rp_dom_flags query = {dom, 0};
    rp_int there;
    if (vsh_has(a, "managed-save") && !running &&
        (!vsh_call(v, RPC_PROC_DOMAIN_HAS_MANAGED_SAVE_IMAGE, &query, &there) || there))
        flags |= 1;
    if (vsh_has(a, "snapshots-metadata") && !running &&
        (!vsh_call(v, RPC_PROC_DOMAIN_SNAPSHOT_NUM, &query, &there) || there))
        flags |= 2;
    vsh_error_reset(v);
    const rp_dom_flags args = {dom, flags};
    bool ok = vsh_call(v, RPC_PROC_DOMAIN_UNDEFINE_FLAGS, &args, NULL);
    if (ok) {
        vsh_extra(v, "Domain '%s' has been undefined\n", name);
        ok = remove_volumes(v, doomed, n, wipe, snapshots ? 2 : 0);
    } else {
        vsh_error(v, "Failed to undefine domain '%s'", name);
    }
    for (unsigned i = 0; i < n; i++) {
        vsh_free_vol(&doomed[i].vol);
        free(doomed[i].target);
        free(doomed[i].source);
    }
    return ok;
}

/* --bypass-cache, --running, --paused */
static bool save_flags(struct vsh *v, const struct vsh_args *a, unsigned *ret)
{
    *ret = vsh_has(a, "bypass-cache") | vsh_has(a, "running") << 1 | vsh_has(a, "paused") << 2 |
           vsh_has(a, "reset-nvram") << 3;
    return vsh_exclusive(v, a, "running", "paused");
}

bool cmd_save(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    unsigned flags;
    const char *to = vsh_text(a, "file"), *xml = vsh_text(a, "xml");
    if (!save_flags(v, a, &flags) || !vsh_domain(v, a, &dom))
        return false;
    autofree char *path = to[0] == '/' ? xstrdup(to) : realpath(".", NULL);
    autofree char *full = to[0] == '/' ? xstrdup(to) : xasprintf("%s/%s", path ? path : "", to);
    autofree char *text = xml ? vsh_read_file(v, xml) : NULL;
    if (xml && !text)
        return false;
    rp_string doc = text;
    const rp_dom_str plain = {dom, full};
    const rp_dom_str_ostr_flags args = {dom, full, text ? &doc : NULL, flags};
    bool ok = flags || text ? vsh_call(v, RPC_PROC_DOMAIN_SAVE_FLAGS, &args, NULL)
                            : vsh_call(v, RPC_PROC_DOMAIN_SAVE, &plain, NULL);
    if (!ok)
        return vsh_error(v, "Failed to save domain '%s' to %s", dom.name, to);
    vsh_extra(v, "\nDomain '%s' saved to %s\n", dom.name, to);
    return true;
}

bool cmd_restore(struct vsh *v, const struct vsh_args *a)
{
    unsigned flags;
    const char *from = vsh_text(a, "file"), *xml = vsh_text(a, "xml");
    if (!save_flags(v, a, &flags))
        return false;
    autofree char *text = xml ? vsh_read_file(v, xml) : NULL;
    if (xml && !text)
        return false;
    autofree char *cwd = realpath(".", NULL);
    autofree char *full = from[0] == '/' ? xstrdup(from) : xasprintf("%s/%s", cwd ? cwd : "", from);
    rp_string path = full, doc = text;
    const rp_str_ostr_flags args = {full, text ? &doc : NULL, flags};
    bool ok = flags || text ? vsh_call(v, RPC_PROC_DOMAIN_RESTORE_FLAGS, &args, NULL)
                            : vsh_call(v, RPC_PROC_DOMAIN_RESTORE, &path, NULL);
    if (!ok)
        return vsh_error(v, "Failed to restore domain from %s", from);
    vsh_extra(v, "Domain restored from %s\n", from);
    return true;
}

bool cmd_managedsave(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    unsigned flags;
    if (!save_flags(v, a, &flags) || !vsh_domain(v, a, &dom))
        return false;
    const rp_dom_flags args = {dom, flags};
    if (!vsh_call(v, RPC_PROC_DOMAIN_MANAGED_SAVE, &args, NULL))
        return vsh_error(v, "Failed to save domain '%s' state", dom.name);
    vsh_extra(v, "\nDomain '%s' state saved by libvirt\n", dom.name);
    return true;
}

bool cmd_managedsave_remove(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    const char *name = vsh_text(a, "domain");
    rp_int saved;
    if (!vsh_domain(v, a, &dom))
        return false;
    const rp_dom_flags args = {dom, 0};
    if (!vsh_call(v, RPC_PROC_DOMAIN_HAS_MANAGED_SAVE_IMAGE, &args, &saved))
        return vsh_error(v, "Failed to check for domain managed save image");
    if (!saved) {
        vsh_extra(v, "Domain '%s' has no manage save image; removal skipped", name);
        return true;
    }
    if (!vsh_call(v, RPC_PROC_DOMAIN_MANAGED_SAVE_REMOVE, &args, NULL))
        return vsh_error(v, "Failed to remove managed save image for domain '%s'", name);
    vsh_extra(v, "Removed managedsave image for domain '%s'", name);
    return true;
}

bool cmd_managedsave_dumpxml(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    if (!vsh_domain(v, a, &dom))
        return false;
    const rp_dom_flags args = {dom, vsh_has(a, "security-info")};
    rp_string text;
    if (!vsh_call(v, RPC_PROC_DOMAIN_MANAGED_SAVE_GET_XML_DESC, &args, &text))
        return false;
    bool ok = vsh_print_xml(v, a, text);
    free(text);
    return ok;
}

bool cmd_save_image_dumpxml(struct vsh *v, const struct vsh_args *a)
{
    const rp_str_flags args = {(char *)vsh_text(a, "file"), vsh_has(a, "security-info")};
    rp_string text;
    if (!vsh_call(v, RPC_PROC_DOMAIN_SAVE_IMAGE_GET_XML_DESC, &args, &text))
        return false;
    bool ok = vsh_print_xml(v, a, text);
    free(text);
    return ok;
}

bool cmd_dump(struct vsh *v, const struct vsh_args *a)
{
    static const char *const formats[] = {"elf", "kdump-zlib", "kdump-lzo", "kdump-snappy", "win-dmp"};
    autodomain dom = {0};
    const char *to = vsh_text(a, "file"), *format = vsh_text(a, "format");
    unsigned f = 0, flags = vsh_has(a, "crash") | vsh_has(a, "live") << 1 | vsh_has(a, "bypass-cache") << 2 |
                            vsh_has(a, "reset") << 3 | vsh_has(a, "memory-only") << 4;
    if (!vsh_exclusive(v, a, "live", "crash") || !vsh_exclusive(v, a, "live", "reset"))
        return false;
    while (format && f < 5 && strcmp(format, formats[f]) != 0)
        f++;
    if (f == 5)
        return vsh_error(
            v,
            "format '%s' is not supported, expecting 'kdump-zlib', 'kdump-lzo', 'kdump-snappy', 'win-dmp' or "
            "'elf'",
            format);
    if (format && !vsh_has(a, "memory-only"))
        return vsh_error(v, "--format only works with --memory-only");
    if (!vsh_domain(v, a, &dom))
        return false;
    const rp_dom_str_flags args = {dom, (char *)to, flags};
    const rp_dom_str_uint_flags with_format = {dom, (char *)to, f, flags};
    bool ok = f ? vsh_call(v, RPC_PROC_DOMAIN_CORE_DUMP_WITH_FORMAT, &with_format, NULL)
                : vsh_call(v, RPC_PROC_DOMAIN_CORE_DUMP, &args, NULL);
    if (!ok)
        return vsh_error(v, "Failed to core dump domain '%s' to %s", dom.name, to);
    vsh_extra(v, "\nDomain '%s' dumped to %s\n", dom.name, to);
    return true;
}

bool cmd_set_lifecycle_action(struct vsh *v, const struct vsh_args *a)
{
    static const char *const types[] = {"poweroff", "reboot", "crash"};
    static const char *const actions[] = {"destroy",  "restart",          "rename-restart",
                                          "preserve", "coredump-destroy", "coredump-restart"};
    autodomain dom = {0};
    unsigned t = 0, act_at = 0;
    int affect = vsh_affect(v, a);
    while (t < 3 && strcmp(vsh_text(a, "type"), types[t]) != 0)
        t++;
    while (act_at < 6 && strcmp(vsh_text(a, "action"), actions[act_at]) != 0)
        act_at++;
    if (t == 3)
        return vsh_error(v, "Invalid lifecycle type '%s'.", vsh_text(a, "type"));
    if (act_at == 6)
        return vsh_error(v, "Invalid lifecycle action '%s'.", vsh_text(a, "action"));
    if (affect < 0 || !vsh_domain(v, a, &dom))
        return false;
    const rp_dom_uint_uint_flags args = {dom, t, act_at, affect};
    return vsh_call(v, RPC_PROC_DOMAIN_SET_LIFECYCLE_ACTION, &args, NULL) ||
           vsh_error(v, "Unable to change lifecycle action.");
}
