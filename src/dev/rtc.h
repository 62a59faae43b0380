/*
 * Motorola MC146818A real-time clock with 128 bytes of CMOS RAM at ports 0x70 and 0x71, as in a PC: century in register
 * 0x32, IRQ 8. The time is the host's plus an offset (what the guest set), or that of the guest's clock.
 */
#ifndef LODGE_DEV_RTC_H
#define LODGE_DEV_RTC_H

#include "dev/bus.h"
#include "dev/device.h"
#include "dev/irq.h"

#define RTC_CENTURY 0x32 /* FADT's CENTURY field */

struct rtc;

struct rtc_config {
    const char *id;
    struct loop *loop; /* runs its timer */
    const struct clock *clock;
    struct irq irq;
    struct irq alarm; /* the same, never inhibited: acpi_pm_rtc(). Optional */
    /*
     * Seconds since 1970 (UTC) that the RTC shows at guest time 0; then it follows the guest's clock. With `host`
     * instead: it follows the host's real time, plus `start` seconds (0: UTC; a zone's offset: local time).
     */
    bool host;
    int64_t start;
};

void rtc_new(const struct rtc_config *cfg, struct rtc **ret);
struct device *rtc_device(struct rtc *r);
int rtc_map(struct rtc *r, struct bus *pio, struct err *err);
/* Sets a byte of CMOS RAM (index 0x0e..0x7f), as firmware expects it from the board. Before the first vCPU runs; kept
 * over resets. */
void rtc_set_cmos(struct rtc *r, unsigned index, uint8_t val);
/* While high, the RTC is cut off from IRQ 8 (the HPET's legacy replacement route). */
struct irq rtc_inhibit(struct rtc *r);

extern const struct device_type rtc_type;

#endif
