/* Functions whose first instruction is the one in question, and a clock around calls of them. `clock NAME N` says `done` and
 * the nanoseconds that N calls took. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#define SITE(name, code) \
    void name(void); \
    __asm__(".text\n.globl " #name "\n.type " #name ",@function\n" #name ":\n" code "\nret\n.size " #name ",.-" #name "\n");

SITE(site_nop, "nop")
SITE(site_push, "push %rbx\npop %rbx")
SITE(site_jcc, "jz 1f\n1:")
SITE(site_jmp, "jmp 1f\n1:")
SITE(site_call, "call 1f\nret\n1:")
SITE(site_mov, "mov %rdi,%rax")
SITE(site_sub, "sub $8,%rsp\nadd $8,%rsp")
SITE(site_cmp, "cmp %rdi,%rsi")
SITE(site_endbr64, "endbr64")
SITE(site_ret, "")
SITE(site_marked, "endbr64\npush %rbx\nmov $7,%eax\npop %rbx")

static const struct { const char *name; void (*called)(void); } all[] = {
    {"site_nop", site_nop}, {"site_push", site_push}, {"site_jcc", site_jcc}, {"site_jmp", site_jmp}, {"site_call", site_call},
    {"site_marked", site_marked}, {"site_mov", site_mov}, {"site_sub", site_sub}, {"site_cmp", site_cmp}, {"site_endbr64", site_endbr64}, {"site_ret", site_ret},
};

int main(void) {
    char line[256], name[64];
    long count;
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "clock %60s %ld", name, &count) != 2) return 1;
        for (unsigned at = 0; at < sizeof all / sizeof *all; at++) {
            if (strcmp(all[at].name, name)) continue;
            struct timespec from, to;
            clock_gettime(CLOCK_MONOTONIC, &from);
            for (long i = 0; i < count; i++) all[at].called();
            clock_gettime(CLOCK_MONOTONIC, &to);
            printf("done %ld\n", (to.tv_sec - from.tv_sec) * 1000000000L + to.tv_nsec - from.tv_nsec);
        }
    }
    return 0;
}
