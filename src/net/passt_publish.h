/* Published ports: from what net_options.publish says to what passt's command line says. */
#ifndef LODGE_NET_PASST_PUBLISH_H
#define LODGE_NET_PASST_PUBLISH_H

#include <stddef.h>

#include "base/err.h"

/*
 * passt's option ("-t" or "-u") and its value, put into val[size]: "tcp:127.0.0.1:8000-8010:80,~8005" is
 * -t 127.0.0.1/8000-8010:80-90,~8005-8005. -EINVAL with a message.
 */
int passt_publish(const char *s, const char **ret_opt, char *val, size_t size, struct err *err);

#endif
