/* Burns CPU time: in COUNT threads or processes, for SECONDS, or for a number of STEPS.
 *
 * workload threads COUNT SECONDS | workload processes COUNT SECONDS | workload steps COUNT
 *
 * It makes no system call while it burns; the clock is read from the vDSO. */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double seconds;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static uint64_t work(uint64_t steps) {
    volatile uint64_t x = 88172645463325252u;
    for (uint64_t i = 0; i < steps; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    return x;
}

static void *spin(void *unused) {
    double end = now() + seconds;
    while (now() < end)
        work(2000);
    return unused;
}

int main(int argc, char **argv) {
    if (argc < 3)
        return 2;
    if (strcmp(argv[1], "steps") == 0)
        return work(strtoull(argv[2], NULL, 10)) == 0;
    int count = atoi(argv[2]);
    seconds = atof(argv[3]);
    if (strcmp(argv[1], "threads") == 0) {
        pthread_t threads[64];
        for (int i = 1; i < count && i < 64; i++)
            pthread_create(&threads[i], NULL, spin, NULL);
        spin(NULL);
        for (int i = 1; i < count && i < 64; i++)
            pthread_join(threads[i], NULL);
        return 0;
    }
    for (int i = 1; i < count; i++)
        if (fork() == 0)
            break;
    spin(NULL);
    while (wait(NULL) > 0)
        ;
    return 0;
}
