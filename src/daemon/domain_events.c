/* What happens to guests, as libvirt's events. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "daemon/daemon.h"

/* libvirt's virDomainEventID. */
enum { ID_LIFECYCLE = 0, ID_REBOOT = 1, ID_RTC_CHANGE = 2, ID_BALLOON_CHANGE = 13, ID_DEVICE_REMOVED = 15 };

/* An event's view of the guest; nothing in it is a copy. */
static rp_domain borrowed(const struct guest *g)
{
    rp_domain dom = {.name = g->name, .id = g->id};
    memcpy(dom.uuid.bytes, g->uuid, 16);
    return dom;
}

void domain_event_lifecycle(void *opaque, struct guest *g, enum guest_event event, int detail)
{
    rp_ev_dom_int_int m = {.dom = borrowed(g), .value = event, .detail = detail};
    daemon_event(opaque, EVENTS_DOMAIN, ID_LIFECYCLE, RPC_REMOTE_PROGRAM, RPC_PROC_DOMAIN_EVENT_CALLBACK_LIFECYCLE, &m,
                 g->uuid);
}

void domain_event_monitor(void *opaque, struct guest *g, const char *name, const void *json)
{
    const json_t *data = json;
    if (!strcmp(name, "RESET")) {
        rp_ev_dom m = {.dom = borrowed(g)};
        daemon_event(opaque, EVENTS_DOMAIN, ID_REBOOT, RPC_REMOTE_PROGRAM, RPC_PROC_DOMAIN_EVENT_CALLBACK_REBOOT, &m,
                     g->uuid);
    } else if (!strcmp(name, "BALLOON_CHANGE")) {
        rp_ev_dom_uhyper m = {.dom = borrowed(g), .value = g->balloon / 1024};
        daemon_event(opaque, EVENTS_DOMAIN, ID_BALLOON_CHANGE, RPC_REMOTE_PROGRAM,
                     RPC_PROC_DOMAIN_EVENT_CALLBACK_BALLOON_CHANGE, &m, g->uuid);
    } else if (!strcmp(name, "RTC_CHANGE")) {
        rp_ev_dom_hyper m = {.dom = borrowed(g), .value = json_integer_value(json_object_get(data, "offset"))};
        daemon_event(opaque, EVENTS_DOMAIN, ID_RTC_CHANGE, RPC_REMOTE_PROGRAM,
                     RPC_PROC_DOMAIN_EVENT_CALLBACK_RTC_CHANGE, &m, g->uuid);
    } else if (!strcmp(name, "DEVICE_DELETED") && json_string_value(json_object_get(data, "device"))) {
        rp_ev_dom_str m = {.dom = borrowed(g), .text = (char *)json_string_value(json_object_get(data, "device"))};
        daemon_event(opaque, EVENTS_DOMAIN, ID_DEVICE_REMOVED, RPC_REMOTE_PROGRAM,
                     RPC_PROC_DOMAIN_EVENT_CALLBACK_DEVICE_REMOVED, &m, g->uuid);
    }
}
