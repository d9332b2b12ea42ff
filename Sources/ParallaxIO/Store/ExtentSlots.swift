// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// A place for one extent in the store.
package struct ExtentSlot: Equatable, Sendable {
    package var index: UInt32
    /// It has been written from end to end before: the file system has blocks for it.
    package var isWritten: Bool

    package init(index: UInt32, isWritten: Bool) {
        self.index = index
        self.isWritten = isWritten
    }
}

/// Which slots of the store are free. All calls come one at a time.
package protocol ExtentSlotSource: ~Copyable, Sendable {
    /// A free slot, which is the caller's from now on; nil when the store is full.
    mutating func allocate() -> ExtentSlot?
    mutating func release(_ slot: ExtentSlot)
}

/// Where the slots lie in the store: slot `i` begins at `firstByte + i * slotBytes`.
package struct ExtentSlotLayout: Equatable, Sendable {
    package var firstByte: UInt64
    package var slotBytes: Int

    package init(firstByte: UInt64, slotBytes: Int) {
        self.firstByte = firstByte
        self.slotBytes = slotBytes
    }

    package func offset(of slot: UInt32) -> UInt64 {
        firstByte + UInt64(slot) * UInt64(slotBytes)
    }
}
