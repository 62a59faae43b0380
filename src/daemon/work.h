/* Work that takes long, on a thread of its own; the daemon's thread is told when it is done. */
#ifndef LODGE_DAEMON_WORK_H
#define LODGE_DAEMON_WORK_H

struct daemon;

/* Calls run(opaque) on a new thread and then done(opaque) on the daemon's. run() must touch nothing else of the
 * daemon's. Where no thread can be made, it is run at once. */
void work_start(struct daemon *d, void (*run)(void *opaque), void (*done)(void *opaque), void *opaque);

/* Waits for all work, which has no client any more: the daemon ends. */
void work_wait(struct daemon *d);

#endif
