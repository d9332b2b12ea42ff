// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors
//
// CRC32C (Castagnoli, RFC 3720 appendix B.4) and the copies that go with it. Pure arithmetic on
// caller-owned memory: the one C module that the storage engine may import, because Swift has no
// spelling for the CRC instructions.

#ifndef PARALLAX_CCHECKSUM_H
#define PARALLAX_CCHECKSUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// Continues a CRC32C: start with 0 and feed pieces in order. Uses the processor's CRC
/// instructions where it has them (asked once, at start).
uint32_t parallax_crc32c(uint32_t crc, const void *_Nonnull bytes, size_t count);

/// The same by table look-up, for processors without the instructions and to test against.
uint32_t parallax_crc32c_software(uint32_t crc, const void *_Nonnull bytes, size_t count);

/// Whether parallax_crc32c uses instructions.
bool parallax_crc32c_is_accelerated(void);

/// memcpy, for memory that another process may be writing at the same time.
void parallax_copy(void *_Nonnull to, const void *_Nonnull from, size_t count);

/// memset to zero.
void parallax_zero(void *_Nonnull bytes, size_t count);

/// Whether all bytes are zero.
bool parallax_is_zero(const void *_Nonnull bytes, size_t count);

#endif
