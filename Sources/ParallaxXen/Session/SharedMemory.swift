// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux

/// Access to memory that the guest may be changing.
enum SharedMemory {
    /// Orders our writes before our reads.
    static func fence() { parallax_fence_seq_cst() }

    /// The compiler uses the copy from here on and never the source again.
    static func copyOnce(
        to target: UnsafeMutableRawPointer, from source: UnsafeRawPointer, _ byteCount: Int
    ) {
        parallax_copy_once(target, source, byteCount)
    }
}
