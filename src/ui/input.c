/* See input.h. */
#include "ui/input.h"

#include <stddef.h>

#include "base/bits.h"
#include "ui/keymap.h"

void ui_input_add(struct ui_input *in, const struct ui_input_sink *sink)
{
    if (in->n_sinks < UI_SINKS_MAX)
        in->sink[in->n_sinks++] = *sink;
}

static bool active(const struct ui_input_sink *s)
{
    return !s->active || s->active(s->opaque);
}

void ui_input_key(struct ui_input *in, const struct key *key, bool down)
{
    uint8_t bit = (uint8_t)BIT(key->code & 7);
    if (down)
        in->down[key->code / 8] |= bit;
    else
        in->down[key->code / 8] &= (uint8_t)~bit;
    for (unsigned i = in->n_sinks; i-- > 0;)
        if (in->sink[i].key && active(&in->sink[i])) {
            in->sink[i].key(in->sink[i].opaque, key, down);
            return;
        }
}

void ui_input_release_all(struct ui_input *in)
{
    for (unsigned code = 0; code < 256; code++)
        if (in->down[code / 8] >> (code & 7) & 1)
            ui_input_key(in, key_by_code(code), false);
}

bool ui_input_absolute(const struct ui_input *in)
{
    for (unsigned i = 0; i < in->n_sinks; i++)
        if (in->sink[i].place && active(&in->sink[i]))
            return true;
    return false;
}

void ui_input_move(struct ui_input *in, int dx, int dy, int wheel, unsigned buttons)
{
    in->buttons = buttons;
    for (unsigned i = in->n_sinks; i-- > 0;)
        if (in->sink[i].move && active(&in->sink[i])) {
            in->sink[i].move(in->sink[i].opaque, dx, dy, wheel, buttons);
            return;
        }
}

void ui_input_place(struct ui_input *in, unsigned x, unsigned y, int wheel, unsigned buttons, unsigned width,
                    unsigned height)
{
    x = MIN(x, UI_POINTER_MAX);
    y = MIN(y, UI_POINTER_MAX);
    int dx = in->placed ? (int)(x * width / UI_POINTER_MAX) - (int)(in->x * width / UI_POINTER_MAX) : 0;
    int dy = in->placed ? (int)(y * height / UI_POINTER_MAX) - (int)(in->y * height / UI_POINTER_MAX) : 0;
    in->x = x;
    in->y = y;
    in->placed = true;
    in->buttons = buttons;
    for (unsigned i = in->n_sinks; i-- > 0;) {
        if (!in->sink[i].place || !active(&in->sink[i]))
            continue;
        in->sink[i].place(in->sink[i].opaque, x, y, wheel, buttons);
        return;
    }
    ui_input_move(in, dx, dy, wheel, buttons);
}
