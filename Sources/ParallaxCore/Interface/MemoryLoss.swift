// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Synchronization

/// Whether memory has gone that is somebody else's and mapped by us: a file that was cut, a page that
/// the machine has found faulty. Where it was there are zeroes from then on, which look like data.
///
/// ```
///   front end     a session's memory is mapped, with one of these; it goes along in each request
///   SIGBUS        in the middle of a copy: the word is set, then zeroes are put there
///   engine        copy, then look: not set, so every byte is the guest's
/// ```
///
/// SAFETY: the address of a word. Whoever makes one frees it when no request has it any more, and
/// clears it only while none has it. It is set by a signal handler in the thread that copies, which is
/// the one that looks: no order between threads is needed, but the look must stay behind the copy. It
/// does, as `Memory.copy` is a call into another module, which may change anything.
package struct MemoryLoss: BitwiseCopyable {
    /// An aligned `UInt32`, 0 until it happens.
    package let word: UnsafeMutableRawPointer

    package static func allocate() -> MemoryLoss {
        let word = UnsafeMutablePointer<Atomic<UInt32>>.allocate(capacity: 1)
        word.initialize(to: Atomic(0))
        return MemoryLoss(word: UnsafeMutableRawPointer(word))
    }

    package func deallocate() { word.deallocate() }

    package var hasHappened: Bool { flag.pointee.load(ordering: .relaxed) != 0 }

    package func clear() { flag.pointee.store(0, ordering: .relaxed) }

    private var flag: UnsafeMutablePointer<Atomic<UInt32>> {
        word.assumingMemoryBound(to: Atomic<UInt32>.self)
    }
}
