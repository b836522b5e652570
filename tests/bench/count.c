/*
 * A QEMU TCG plugin that counts the instructions that the guest executes.
 *
 * Virtual time under -icount counts instructions too, but it jumps ahead when the guest is idle; a guest that waits
 * for the next request is idle most of the time, so what a request costs is only seen here. The counters lie in a file
 * that the bench maps: it reads them at any moment and asks nobody. C, because qemu_plugin_version must be one number,
 * which QEMU 7 wants to be at most 1 and QEMU 10 at least 2: the bench compiles this file for the QEMU that it finds.
 * Debian ships no qemu-plugin.h, so the few functions in use are declared here; their shapes are the same in both.
 * One vCPU only: the counters are not atomic.
 */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef uint64_t plugin_id;

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*)(unsigned, void *), int flags, void *);

EXPORT int qemu_plugin_version = PLUGIN_VERSION;

/* What the bench reads, in this order. */
struct counters {
    uint64_t all;        /* since the machine's reset: firmware, kernel, user */
    uint64_t user;       /* of them, in user mode */
    uint64_t first_user; /* `all` when the first one in user mode ran: PID 1's first */
};
static struct counters *counters;

/*
 * Who runs is told by the address of the code. The kernel's text is mapped in the upper half (x86-64), a process in the
 * lower. Firmware and the kernel's own first code run at low addresses too, so nothing is a process until the kernel
 * has run at its address for longer than its early code takes, which hops between both.
 */
static const uint64_t kernel_text = 0xffffffff80000000ull;
static const uint64_t kernel_text_end = 0xffffffffff600000ull; /* below what a sign-extended reset vector looks like */
static const uint64_t kernel_is_up = 1000000;
static uint64_t in_kernel;

static void count_low(unsigned vcpu, void *unused)
{
    counters->all++;
    if (in_kernel > kernel_is_up) {
        if (counters->user++ == 0)
            counters->first_user = counters->all;
    }
}

static void count_high(unsigned vcpu, void *unused)
{
    in_kernel++;
    counters->all++;
}

static void translated(plugin_id id, struct qemu_plugin_tb *tb)
{
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        uint64_t at = qemu_plugin_insn_vaddr(insn);
        int high = at >= kernel_text && at < kernel_text_end;
        qemu_plugin_register_vcpu_insn_exec_cb(insn, high ? count_high : count_low, 0, NULL);
    }
}

/* Arguments: counters=PATH, which exists and is at least as long as struct counters. */
EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    if (argc != 1 || strncmp(argv[0], "counters=", 9) != 0) {
        fprintf(stderr, "count: say counters=PATH\n");
        return 1;
    }
    int file = open(argv[0] + 9, O_RDWR | O_CLOEXEC);
    if (file < 0) {
        perror(argv[0]);
        return 1;
    }
    counters = mmap(NULL, sizeof *counters, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (counters == MAP_FAILED) {
        perror("count: mmap");
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    return 0;
}
