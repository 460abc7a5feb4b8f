/* Calls functions when told to, one command a line:
 *   work N        calls work(1) .. work(N)
 *   caller N      calls caller(1) .. caller(N), each of which calls work
 *   fork N        a child calls work(1) .. work(N)
 *   load PATH     loads a library
 *   lib N         calls its lib_work(1) .. lib_work(N)
 *   now PATH N    loads a library and calls its function at once, and then every millisecond
 *   exec PATH     becomes another program
 *   many          calls each of the hundred functions once
 * It says `ready` at the start and `done SUM` after each. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

__attribute__((noinline)) long work(long value) {
    volatile long kept[4] = {value, value + 1, value + 2, value + 3};
    if (value < 0) return kept[3];
    return kept[0] + 7;
}

__attribute__((noinline)) long caller(long value) {
    long got = work(value);
    if (got > 1000000) puts("large");
    return got + value;
}

#define F(n) __attribute__((noinline)) long f##n(long value) { volatile long kept = value; if (value < 0) return -kept; return kept + n; }
#define TEN(n) F(n##0) F(n##1) F(n##2) F(n##3) F(n##4) F(n##5) F(n##6) F(n##7) F(n##8) F(n##9)
TEN(1) TEN(2) TEN(3) TEN(4) TEN(5) TEN(6) TEN(7) TEN(8) TEN(9) TEN(10)
#define C(n) sum += f##n(1);
#define CTEN(n) C(n##0) C(n##1) C(n##2) C(n##3) C(n##4) C(n##5) C(n##6) C(n##7) C(n##8) C(n##9)

typedef long (*function)(long);

static long each(function called, long count) {
    long sum = 0;
    for (long i = 1; i <= count; i++) sum += called(i);
    return sum;
}

int main(void) {
    char line[4096], path[4096];
    long count;
    function lib = NULL;
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        long sum = 0;
        if (sscanf(line, "work %ld", &count) == 1) sum = each(work, count);
        else if (sscanf(line, "caller %ld", &count) == 1) sum = each(caller, count);
        else if (sscanf(line, "fork %ld", &count) == 1) {
            if (fork() == 0) { each(work, count); _exit(0); }
            wait(NULL);
        }
#ifndef NO_LIBRARIES
        else if (sscanf(line, "now %4000s %ld", path, &count) == 2) {
            void *opened = dlopen(path, RTLD_NOW);
            if (!opened) { puts(dlerror()); return 1; }
            function called = (function)dlsym(opened, "lib_work");
            for (long i = 1; i <= count; i++) { sum += called(i); usleep(1000); }
        }
        else if (sscanf(line, "load %4000s", path) == 1) {
            void *opened = dlopen(path, RTLD_NOW);
            if (!opened) { puts(dlerror()); return 1; }
            lib = (function)dlsym(opened, "lib_work");
        }
#endif
        else if (sscanf(line, "lib %ld", &count) == 1 && lib) sum = each(lib, count);
        else if (sscanf(line, "exec %4000s", path) == 1) execl(path, path, NULL);
        else if (!strncmp(line, "many", 4)) { CTEN(1) CTEN(2) CTEN(3) CTEN(4) CTEN(5) CTEN(6) CTEN(7) CTEN(8) CTEN(9) CTEN(10) }
        else return 1;
        printf("done %ld\n", sum);
    }
    return 0;
}
