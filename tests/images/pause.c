// The process that keeps a pod's namespaces alive until it gets a signal.
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static void end(int signal) { _exit(0); }

int main(void) {
    signal(SIGTERM, end);
    signal(SIGINT, end);
    for (;;) pause();
}
