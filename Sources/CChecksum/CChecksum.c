// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

#include "CChecksum.h"

#include <string.h>

#if defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>
#elif defined(__x86_64__)
#include <nmmintrin.h>
#endif

#define POLYNOMIAL 0x82f63b78u // reflected

// The crc32 instruction has a latency of three cycles and a throughput of one, so three
// independent lanes run three times as fast as one. A lane is 1360 bytes: three of them and a
// remainder of 16 bytes are one 4 KiB block. Lanes are joined by multiplying a CRC with x^(8*1360)
// modulo the polynomial, which is linear and so a look-up of four tables.
#define LANE 1360

static uint32_t slice[8][256];
static uint32_t join[4][256];
static bool accelerated;

static uint32_t append_zeros(uint32_t crc, size_t count) {
    while (count-- > 0) {
        crc = slice[0][crc & 0xff] ^ (crc >> 8);
    }
    return crc;
}

__attribute__((constructor)) static void prepare(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc & 1) ? (crc >> 1) ^ POLYNOMIAL : crc >> 1;
        }
        slice[0][byte] = crc;
    }
    for (uint32_t byte = 0; byte < 256; byte++) {
        for (int depth = 1; depth < 8; depth++) {
            uint32_t previous = slice[depth - 1][byte];
            slice[depth][byte] = slice[0][previous & 0xff] ^ (previous >> 8);
        }
    }
    uint32_t column[32];
    for (int bit = 0; bit < 32; bit++) {
        column[bit] = append_zeros((uint32_t)1 << bit, LANE);
    }
    for (int part = 0; part < 4; part++) {
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t sum = 0;
            for (int bit = 0; bit < 8; bit++) {
                if (byte & ((uint32_t)1 << bit)) {
                    sum ^= column[part * 8 + bit];
                }
            }
            join[part][byte] = sum;
        }
    }
#if defined(__x86_64__)
    __builtin_cpu_init();
    accelerated = __builtin_cpu_supports("sse4.2");
#elif defined(__aarch64__)
    accelerated = (getauxval(AT_HWCAP) & (1 << 7)) != 0; // HWCAP_CRC32
#endif
}

uint32_t parallax_crc32c_software(uint32_t crc, const void *bytes, size_t count) {
    const uint8_t *next = bytes;
    crc = ~crc;
    while (count >= 8) {
        uint64_t word;
        memcpy(&word, next, 8);
        word ^= crc;
        crc = slice[7][word & 0xff] ^ slice[6][(word >> 8) & 0xff] ^
              slice[5][(word >> 16) & 0xff] ^ slice[4][(word >> 24) & 0xff] ^
              slice[3][(word >> 32) & 0xff] ^ slice[2][(word >> 40) & 0xff] ^
              slice[1][(word >> 48) & 0xff] ^ slice[0][word >> 56];
        next += 8;
        count -= 8;
    }
    while (count-- > 0) {
        crc = slice[0][(crc ^ *next++) & 0xff] ^ (crc >> 8);
    }
    return ~crc;
}

#if defined(__x86_64__) || defined(__aarch64__)

#if defined(__x86_64__)
#define CRC_TARGET __attribute__((target("sse4.2")))
#define CRC_WORD(crc, word) ((uint32_t)_mm_crc32_u64((crc), (word)))
#define CRC_BYTE(crc, byte) _mm_crc32_u8((crc), (byte))
#else
#define CRC_TARGET __attribute__((target("crc")))
#define CRC_WORD(crc, word) __crc32cd((crc), (word))
#define CRC_BYTE(crc, byte) __crc32cb((crc), (byte))
#endif

static inline uint64_t load(const uint8_t *bytes) {
    uint64_t word;
    memcpy(&word, bytes, 8);
    return word;
}

static inline uint32_t join_lane(uint32_t crc) {
    return join[0][crc & 0xff] ^ join[1][(crc >> 8) & 0xff] ^ join[2][(crc >> 16) & 0xff] ^
           join[3][crc >> 24];
}

CRC_TARGET static uint32_t crc32c_instructions(uint32_t crc, const uint8_t *next, size_t count) {
    crc = ~crc;
    while (count >= 3 * LANE) {
        uint32_t second = 0, third = 0;
        for (size_t offset = 0; offset < LANE; offset += 8) {
            crc = CRC_WORD(crc, load(next + offset));
            second = CRC_WORD(second, load(next + LANE + offset));
            third = CRC_WORD(third, load(next + 2 * LANE + offset));
        }
        crc = join_lane(join_lane(crc) ^ second) ^ third;
        next += 3 * LANE;
        count -= 3 * LANE;
    }
    while (count >= 8) {
        crc = CRC_WORD(crc, load(next));
        next += 8;
        count -= 8;
    }
    while (count-- > 0) {
        crc = CRC_BYTE(crc, *next++);
    }
    return ~crc;
}

#endif

uint32_t parallax_crc32c(uint32_t crc, const void *bytes, size_t count) {
#if defined(__x86_64__) || defined(__aarch64__)
    if (accelerated) {
        return crc32c_instructions(crc, bytes, count);
    }
#endif
    return parallax_crc32c_software(crc, bytes, count);
}

bool parallax_crc32c_is_accelerated(void) { return accelerated; }

void parallax_copy(void *to, const void *from, size_t count) { memcpy(to, from, count); }

void parallax_zero(void *bytes, size_t count) { memset(bytes, 0, count); }

bool parallax_is_zero(const void *bytes, size_t count) {
    // Comparing the memory with itself, shifted by one byte, lets memcmp do the work.
    const uint8_t *first = bytes;
    return count == 0 || (first[0] == 0 && memcmp(first, first + 1, count - 1) == 0);
}
