// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

// What a guest of the Xen lab does with its disk. Prints one line, ends with 0 only if all is well.
//
//     guest-io verify DEVICE JOBS ROUNDS     random writes and reads, each block's content known
//     guest-io long DEVICE JOBS              the same, until the disk grows
//     guest-io discard DEVICE                what is discarded is zero, what is beside it stays
//     guest-io tail DEVICE                   the last block can be written and read
//     guest-io refuse DEVICE                 a write must fail

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BLOCK = 4096, RUN = 64, REGION = 512, UNTIL_GROWN = 1000000 };

static uint64_t device_bytes(int file) {
    uint64_t bytes = 0;
    return ioctl(file, BLKGETSIZE64, &bytes) < 0 ? 0 : bytes;
}

static uint64_t next(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void fill(uint64_t *words, uint64_t block, uint64_t generation) {
    for (int i = 0; i < BLOCK / 8; i++)
        words[i] = (block << 32 | generation << 12 | (uint64_t)i) * 0x9e3779b97f4a7c15u;
}

static int check(const uint64_t *words, uint64_t block, uint64_t generation) {
    uint64_t expected[BLOCK / 8];
    fill(expected, block, generation);
    if (memcmp(words, expected, BLOCK) == 0) return 0;
    fprintf(stderr, "guest-io: block %llu is not of generation %llu\n",
            (unsigned long long)block, (unsigned long long)generation);
    return 1;
}

static int read_run(int file, char *buffer, uint64_t first, int count, const uint16_t *generations) {
    if (pread(file, buffer, (size_t)count * BLOCK, (off_t)(first * BLOCK)) != count * BLOCK) {
        fprintf(stderr, "guest-io: read of %d blocks: %s\n", count, strerror(errno));
        return 1;
    }
    int bad = 0;
    for (int i = 0; i < count; i++)
        if (generations[i] > 0)
            bad |= check((uint64_t *)(buffer + i * BLOCK), first + i, generations[i]);
    return bad;
}

static int work(const char *path, int job, int jobs, int rounds) {
    int file = open(path, O_RDWR | O_DIRECT);
    if (file < 0) return perror(path), 1;
    uint64_t start = device_bytes(file) / BLOCK / (uint64_t)jobs * (uint64_t)job;
    uint16_t generations[REGION] = { 0 };
    uint64_t state = 88172645463325252u + (uint64_t)job * 7919;
    char *buffer = aligned_alloc(BLOCK, RUN * BLOCK);
    uint64_t bytes = device_bytes(file);
    int bad = 0;
    for (int round = 0; round < rounds && !bad; round++) {
        if (rounds == UNTIL_GROWN && round % 16 == 0 && device_bytes(file) != bytes) break;
        int count = 1 + (int)(next(&state) % RUN);
        int first = (int)(next(&state) % (uint64_t)(REGION - count + 1));
        if (next(&state) % 5 < 3) {
            for (int i = 0; i < count; i++)
                fill((uint64_t *)(buffer + i * BLOCK), start + first + i, ++generations[first + i]);
            if (pwrite(file, buffer, (size_t)count * BLOCK, (off_t)((start + first) * BLOCK))
                != count * BLOCK)
                return perror("guest-io: write"), 1;
            if (next(&state) % 8 == 0 && fdatasync(file) < 0) return perror("guest-io: flush"), 1;
        } else {
            bad = read_run(file, buffer, start + first, count, generations + first);
        }
    }
    for (int first = 0; first < REGION && !bad; first += RUN)
        bad = read_run(file, buffer, start + first, RUN, generations + first);
    return bad;
}

static int verify(const char *path, int jobs, int rounds) {
    for (int job = 0; job < jobs; job++) {
        pid_t child = fork();
        if (child == 0) _exit(work(path, job, jobs, rounds));
        if (child < 0) return perror("fork"), 1;
    }
    int bad = 0, status;
    while (wait(&status) > 0) bad |= status != 0;
    return bad;
}

static int discard(const char *path) {
    int file = open(path, O_RDWR | O_DIRECT);
    if (file < 0) return perror(path), 1;
    char *buffer = aligned_alloc(BLOCK, 32 * BLOCK);
    for (int i = 0; i < 32; i++) fill((uint64_t *)(buffer + i * BLOCK), i, 9);
    if (pwrite(file, buffer, 32 * BLOCK, 0) != 32 * BLOCK) return perror("write"), 1;
    uint64_t range[2] = { 8 * BLOCK, 16 * BLOCK };
    if (ioctl(file, BLKDISCARD, range) < 0) return perror("guest-io: discard"), 1;
    if (pread(file, buffer, 32 * BLOCK, 0) != 32 * BLOCK) return perror("read"), 1;
    int bad = 0;
    for (int i = 0; i < 32; i++) {
        if (i < 8 || i >= 24) {
            bad |= check((uint64_t *)(buffer + i * BLOCK), i, 9);
        } else {
            for (int k = 0; k < BLOCK; k++) bad |= buffer[i * BLOCK + k] != 0;
        }
    }
    return bad;
}

static int tail(const char *path) {
    int file = open(path, O_RDWR | O_DIRECT);
    if (file < 0) return perror(path), 1;
    uint64_t last = device_bytes(file) / BLOCK - 1;
    char *buffer = aligned_alloc(BLOCK, BLOCK);
    uint16_t generation = 5;
    fill((uint64_t *)buffer, last, generation);
    if (pwrite(file, buffer, BLOCK, (off_t)(last * BLOCK)) != BLOCK) return perror("write"), 1;
    return read_run(file, buffer, last, 1, &generation);
}

static int refuse(const char *path) {
    int file = open(path, O_RDWR | O_DIRECT);
    if (file < 0) return errno == EACCES || errno == EROFS || errno == EPERM ? 0 : 1;
    char *buffer = aligned_alloc(BLOCK, BLOCK);
    memset(buffer, 1, BLOCK);
    return pwrite(file, buffer, BLOCK, 0) == BLOCK;
}

int main(int count, char **arguments) {
    int bad = 1;
    if (count == 5 && strcmp(arguments[1], "verify") == 0)
        bad = verify(arguments[2], atoi(arguments[3]), atoi(arguments[4]));
    else if (count == 4 && strcmp(arguments[1], "long") == 0)
        bad = verify(arguments[2], atoi(arguments[3]), UNTIL_GROWN);
    else if (count == 3 && strcmp(arguments[1], "discard") == 0)
        bad = discard(arguments[2]);
    else if (count == 3 && strcmp(arguments[1], "tail") == 0)
        bad = tail(arguments[2]);
    else if (count == 3 && strcmp(arguments[1], "refuse") == 0)
        bad = refuse(arguments[2]);
    printf("guest-io %s: %s\n", count > 1 ? arguments[1] : "", bad ? "BAD" : "good");
    return bad;
}
