// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

extension UInt64 {
    /// Takes `count` off an account that was read from a store. False, and 0 is left, where it had
    /// less: then the books are wrong, and the engine must stop.
    mutating func takeOff(_ count: UInt64) -> Bool {
        let (left, isOverdrawn) = subtractingReportingOverflow(count)
        self = isOverdrawn ? 0 : left
        return !isOverdrawn
    }
}
