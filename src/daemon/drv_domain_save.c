/* Domains: saving to a file, and going on from one. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "daemon/daemon.h"
#include "rpc/params.h"

enum { SAVE_BYPASS_CACHE = 1, SAVE_RUNNING = 2, SAVE_PAUSED = 4 };

static int how(struct rpc_call *call, unsigned flags, int *ret_running)
{
    if (call_flags(call, flags, 31) < 0)
        return -1;
    if (flags & SAVE_RUNNING && flags & SAVE_PAUSED)
        return verr_set(&call->error, VIR_INVALID_ARG, "running and paused flags are mutually exclusive");
    *ret_running = flags & SAVE_RUNNING ? 1 : flags & SAVE_PAUSED ? 0 : -1;
    return 0;
}

static int save(struct daemon *d, struct rpc_call *call, const rp_domain *dom, const char *path, const char *xml,
                unsigned flags)
{
    struct guest *g = call_active(d, call, dom);
    int running;
    if (!g || how(call, flags, &running) < 0)
        return RPC_FAILED;
    return guest_save(g, path, xml, running, call_done, call, &call->error) < 0 ? RPC_FAILED : RPC_LATER;
}

static int save_plain(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_str);
    return save(d, call, &a->dom, a->text, NULL, 0);
}

static int save_flags(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_str_ostr_flags);
    return save(d, call, &a->dom, a->text, a->text2 ? *a->text2 : NULL, a->flags);
}

static const char *text_param(const rp_param *v, unsigned n, const char *name)
{
    const rp_param *p = rpc_param_find(v, n, name);
    return p && p->value.type == RP_STRING ? p->value.rp_value_u.s : NULL;
}

static int save_params(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_params_flags);
    const char *file = text_param(a->params.params_val, a->params.params_len, "file");
    if (!file)
        return verr_set(&call->error, VIR_OPERATION_INVALID, "the 'file' parameter is missing");
    return save(d, call, &a->dom, file, text_param(a->params.params_val, a->params.params_len, "dxml"), a->flags);
}

static int managed_save(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_flags);
    struct guest *g = call_active(d, call, &a->dom);
    if (!g)
        return RPC_FAILED;
    if (!guest_persistent(g))
        return verr_set(&call->error, VIR_OPERATION_INVALID, "cannot do managed save for transient domain");
    autofree char *path = guest_managed_save_path(g);
    return save(d, call, &a->dom, path, NULL, a->flags);
}

static int restore(struct daemon *d, struct rpc_call *call, const char *path, const char *xml, unsigned flags)
{
    struct domain *live = NULL;
    bool was_running;
    int running;
    if (how(call, flags, &running) < 0)
        return RPC_FAILED;
    autofree char *saved = save_read_xml(path, &was_running, &call->error);
    struct guest *g = saved ? define_transient(&d->guests, xml ? xml : saved, &live, &call->error) : NULL;
    if (!g)
        return RPC_FAILED;
    domain_set(&g->incoming, path);
    return domain_start(call, g, live, (running < 0 ? was_running : running) ? 0 : 1);
}

static int restore_plain(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_string);
    return restore(d, call, *a, NULL, 0);
}

static int restore_flags(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_str_ostr_flags);
    return restore(d, call, a->text, a->text2 ? *a->text2 : NULL, a->flags);
}

static int restore_params(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_params_flags);
    const char *file = text_param(a->params.params_val, a->params.params_len, "file");
    if (!file)
        return verr_set(&call->error, VIR_OPERATION_INVALID, "the 'file' parameter is missing");
    return restore(d, call, file, text_param(a->params.params_val, a->params.params_len, "dxml"), a->flags);
}

static int image_xml(struct rpc_call *call, const char *path)
{
    RET(rp_string);
    bool running;
    *ret = save_read_xml(path, &running, &call->error);
    return *ret ? RPC_DONE : RPC_FAILED;
}

static int get_image_xml(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_str_flags);
    return image_xml(call, a->text);
}

static struct guest *saved_guest(struct daemon *d, struct rpc_call *call, const rp_domain *dom)
{
    struct guest *g = call_guest(d, call, dom);
    if (g && !guest_has_managed_save(g)) {
        verr_set(&call->error, VIR_OPERATION_INVALID, "domain does not have managed save image");
        return NULL;
    }
    return g;
}

static int get_managed_xml(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_flags);
    struct guest *g = saved_guest(d, call, &a->dom);
    if (!g)
        return RPC_FAILED;
    autofree char *path = guest_managed_save_path(g);
    return image_xml(call, path);
}

/* The new document must be that of the same guest. */
static int redefine(struct daemon *d, struct rpc_call *call, const char *path, const char *xml, unsigned flags)
{
    int running;
    bool was_running;
    if (how(call, flags, &running) < 0)
        return RPC_FAILED;
    autofree char *old_xml = save_read_xml(path, &was_running, &call->error);
    struct domain *old = old_xml ? define_parse(&d->guests, old_xml, &call->error) : NULL;
    struct domain *new = old ? define_parse(&d->guests, xml, &call->error) : NULL;
    int r = new ? RPC_DONE : RPC_FAILED;
    if (new &&memcmp(old->uuid, new->uuid, 16))
        r = verr_set(&call->error, VIR_CONFIG_UNSUPPORTED, "the saved guest has another UUID");
    if (!r)
        r = save_write_xml(path, xml, running, &call->error);
    domain_free(old);
    domain_free(new);
    return r;
}

static int define_image_xml(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_str_str_flags);
    return redefine(d, call, a->text, a->text2, a->flags);
}

static int define_managed_xml(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_ostr_flags);
    struct guest *g = saved_guest(d, call, &a->dom);
    if (!g)
        return RPC_FAILED;
    autofree char *path = guest_managed_save_path(g);
    return redefine(d, call, path, a->text ? *a->text : "", a->flags);
}

static int has_managed_save(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_flags);
    RET(rp_int);
    struct guest *g = call_guest(d, call, &a->dom);
    if (!g)
        return RPC_FAILED;
    *ret = guest_has_managed_save(g);
    return RPC_DONE;
}

static int remove_managed_save(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_flags);
    struct guest *g = call_guest(d, call, &a->dom);
    return g ? guest_remove_managed_save(g, &call->error) : RPC_FAILED;
}

const struct driver driver_domain_save = {
    .name = "domain save",
    .program = RPC_REMOTE_PROGRAM,
    .error_domain = VIR_FROM_QEMU,
    .handlers =
        (const struct handler[]){
            {RPC_PROC_DOMAIN_SAVE, save_plain},
            {RPC_PROC_DOMAIN_SAVE_FLAGS, save_flags},
            {RPC_PROC_DOMAIN_SAVE_PARAMS, save_params},
            {RPC_PROC_DOMAIN_RESTORE, restore_plain},
            {RPC_PROC_DOMAIN_RESTORE_FLAGS, restore_flags},
            {RPC_PROC_DOMAIN_RESTORE_PARAMS, restore_params},
            {RPC_PROC_DOMAIN_SAVE_IMAGE_GET_XML_DESC, get_image_xml},
            {RPC_PROC_DOMAIN_SAVE_IMAGE_DEFINE_XML, define_image_xml},
            {RPC_PROC_DOMAIN_MANAGED_SAVE, managed_save},
            {RPC_PROC_DOMAIN_MANAGED_SAVE_GET_XML_DESC, get_managed_xml},
            {RPC_PROC_DOMAIN_MANAGED_SAVE_DEFINE_XML, define_managed_xml},
            {RPC_PROC_DOMAIN_HAS_MANAGED_SAVE_IMAGE, has_managed_save},
            {RPC_PROC_DOMAIN_MANAGED_SAVE_REMOVE, remove_managed_save},
            {0},
        },
};
