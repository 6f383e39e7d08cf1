/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A QEMU plugin that counts executed instructions by translated block and CPU, for tests/xen/bench --profile.
 *
 * It follows the report of dom0 (argument report=FILE): from a line "@profile on NAME" to "@profile off" it counts, and writes
 * OUT/NAME.blocks (argument out=DIR) with a line "ADDRESS INSTRUCTIONS RUNS-ON-CPU-0 RUNS-ON-CPU-1 ..." for each block.
 * Needs the single-threaded emulator: counters are plain.
 *
 * The declarations below are those of QEMU's plugin interface, version 1, that are used here; Debian packages no header.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct qemu_plugin_tb;
struct qemu_plugin_insn;
extern void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*callback)(uint64_t id, struct qemu_plugin_tb *tb));
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, void (*callback)(unsigned int cpu, void *data), int flags, void *data);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
extern uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

enum { CPUS = 8, BUCKETS = 1 << 18 };

struct block {
    struct block *next;
    uint64_t address;
    size_t instructions;
    uint64_t runs[CPUS];
};

static struct block *blocks[BUCKETS];
static char report[4096], out[4096];

static void count(unsigned int cpu, void *data)
{
    struct block *block = data;
    if (cpu < CPUS)
        block->runs[cpu]++;
}

/* A block that is translated again (they all are, now and then) goes on with the counters that it had. */
static struct block *find(uint64_t address, size_t instructions)
{
    struct block **bucket = &blocks[(address * 0x9e3779b97f4a7c15u + instructions) >> 46];
    struct block *block;
    for (block = *bucket; block; block = block->next)
        if (block->address == address && block->instructions == instructions)
            return block;
    block = calloc(1, sizeof *block);
    if (!block)
        abort();
    block->address = address;
    block->instructions = instructions;
    block->next = *bucket;
    __atomic_store_n(bucket, block, __ATOMIC_RELEASE);
    return block;
}

static void translated(uint64_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_cb(tb, count, 0, find(qemu_plugin_tb_vaddr(tb), qemu_plugin_tb_n_insns(tb)));
}

static void for_each(void (*act)(struct block *block, FILE *to), FILE *to)
{
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct block *block = __atomic_load_n(&blocks[i], __ATOMIC_ACQUIRE); block; block = block->next)
            act(block, to);
}

static void clear(struct block *block, FILE *to)
{
    (void)to;
    memset(block->runs, 0, sizeof block->runs);
}

static void print(struct block *block, FILE *to)
{
    uint64_t any = 0;
    for (int cpu = 0; cpu < CPUS; cpu++)
        any |= block->runs[cpu];
    if (!any)
        return;
    fprintf(to, "%" PRIx64 " %zu", block->address, block->instructions);
    for (int cpu = 0; cpu < CPUS; cpu++)
        fprintf(to, " %" PRIu64, block->runs[cpu]);
    fputc('\n', to);
}

static void write_out(const char *name)
{
    char path[8192], partial[8192];
    FILE *to;
    snprintf(path, sizeof path, "%s/%s.blocks", out, name);
    snprintf(partial, sizeof partial, "%s/%s.partial", out, name);
    to = fopen(partial, "w");
    if (!to) {
        perror(path);
        return;
    }
    for_each(print, to);
    if (fclose(to) || rename(partial, path))
        perror(path);
}

static void *follow(void *unused)
{
    char line[1024], name[256] = "";
    long begin = 0; /* of the line: dom0 writes byte by byte, so it may be read in parts */
    FILE *from = NULL;
    (void)unused;
    while (!from) {
        from = fopen(report, "r");
        usleep(10000);
    }
    for (;;) {
        if (!fgets(line, sizeof line, from) || !strchr(line, '\n')) {
            clearerr(from);
            fseek(from, begin, SEEK_SET);
            usleep(10000);
            continue;
        }
        begin = ftell(from);
        if (sscanf(line, "@profile on %255[a-z0-9-]", name) == 1) {
            for_each(clear, NULL);
        } else if (!strncmp(line, "@profile off", 12)) {
            write_out(name);
        }
    }
    return NULL;
}

EXPORT int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
    pthread_t follower;
    (void)info;
    for (int i = 0; i < argc; i++)
        if (sscanf(argv[i], "report=%4095s", report) != 1 && sscanf(argv[i], "out=%4095s", out) != 1)
            return -1;
    if (!report[0] || !out[0])
        return -1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    return pthread_create(&follower, NULL, follow, NULL) ? -1 : 0;
}
