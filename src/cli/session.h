/* A user's own daemon, started when the first client wants it. */
#ifndef LODGE_CLI_SESSION_H
#define LODGE_CLI_SESSION_H

/* Starts lodged for this user and waits until it listens at `socket_path`. 0, or -errno. */
int session_start(const char *socket_path);
/* The path of another of our programs: beside this one, or else its plain name. The caller frees it. */
char *session_program(const char *name);

#endif
