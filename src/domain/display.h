/* <graphics>, <video> and <input>: one file for all steps. Private to src/domain. */
#ifndef LODGE_DOMAIN_DISPLAY_H
#define LODGE_DOMAIN_DISPLAY_H

#include "domain/reader.h"

void domain_parse_graphics(struct reader *r, struct xml_node *n, struct domain *d);
void domain_parse_video(struct reader *r, struct xml_node *n, struct domain *d);
void domain_parse_input(struct reader *r, struct xml_node *n, struct domain *d);
void domain_display_defaults(struct domain *d);
/* `format` has one %s for `text`. */
struct domain_display_problem {
    int line;
    const char *format, *text;
};
/* 0, or -1 with what is wrong. */
int domain_display_check(const struct domain *d, struct domain_display_problem *ret);
void domain_format_display(struct xml_node *devices, const struct domain *d);
void domain_free_display(struct domain *d, void (*free_unknown)(struct domain_unknown *u));

#endif
