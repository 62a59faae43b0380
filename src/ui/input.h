/*
 * Keyboards and pointers: producers (a VNC client, the monitor) say what a person did, devices are told. Several
 * devices may take keys or movements; the last one that the guest uses gets them. Main loop's thread.
 */
#ifndef LODGE_UI_INPUT_H
#define LODGE_UI_INPUT_H

#include <stdbool.h>
#include <stdint.h>

struct key;

enum { UI_BUTTON_LEFT = 1, UI_BUTTON_MIDDLE = 2, UI_BUTTON_RIGHT = 4, UI_BUTTON_SIDE = 8, UI_BUTTON_EXTRA = 16 };
#define UI_POINTER_MAX 0x7fff

/* A device. Members that it has no use for are NULL. */
struct ui_input_sink {
    /* Does the guest use it? NULL: always. */
    bool (*active)(void *opaque);
    void (*key)(void *opaque, const struct key *key, bool down);
    /* Movement right and down, wheel away from the user positive. */
    void (*move)(void *opaque, int dx, int dy, int wheel, unsigned buttons);
    /* Place on the screen, 0 to UI_POINTER_MAX. */
    void (*place)(void *opaque, unsigned x, unsigned y, int wheel, unsigned buttons);
    void *opaque;
};

#define UI_SINKS_MAX 16
struct ui_input {
    struct ui_input_sink sink[UI_SINKS_MAX];
    unsigned n_sinks;
    unsigned x, y, buttons; /* last place, for devices that know movements only */
    bool placed;
    uint8_t down[32]; /* keys that are down, by code */
    unsigned leds;    /* as the guest set them: 1 scroll, 2 num, 4 caps */
};

void ui_input_add(struct ui_input *in, const struct ui_input_sink *sink);
void ui_input_key(struct ui_input *in, const struct key *key, bool down);
void ui_input_release_all(struct ui_input *in);
/* `width`, `height`: of the screen, to make movements of places. */
void ui_input_place(struct ui_input *in, unsigned x, unsigned y, int wheel, unsigned buttons, unsigned width,
                    unsigned height);
void ui_input_move(struct ui_input *in, int dx, int dy, int wheel, unsigned buttons);
/* Does a device take places? */
bool ui_input_absolute(const struct ui_input *in);

#endif
