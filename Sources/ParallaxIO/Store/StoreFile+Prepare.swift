// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc
package import ParallaxCore

extension StoreFile {
    /// Makes later writes to a range of a file pure overwrites: allocated in one go, so that the
    /// file system gives it few, long extents; then zeroes, as allocation alone leaves blocks that
    /// the first write has to convert. Loses what was there, unless all of it has been written
    /// before. A block device needs nothing.
    ///
    /// `zeroes` holds zeros, in multiples of 4096 bytes. `report` hears how many bytes of the range
    /// are done, and may stop the work by returning false. False: there was nothing to do.
    @discardableResult
    package func prepare(
        from start: UInt64, byteCount: UInt64, zeroes: UnsafeRawBufferPointer,
        report: (UInt64) -> Bool
    ) throws(MediumError) -> Bool {
        if isBlockDevice || parallax_range_is_written(fileDescriptor, start, byteCount) == 1 {
            return false
        }
        let result = parallax_fallocate(fileDescriptor, 0, Int64(start), Int64(byteCount))
        if result < 0 && result != -EOPNOTSUPP {
            throw MediumError(errno: -result, operation: .write, offset: start)
        }
        var done: UInt64 = 0
        while done < byteCount {
            guard report(done) else {
                throw MediumError(errno: ECANCELED, operation: .write, offset: start + done)
            }
            let count = min(zeroes.count, Int(byteCount - done))
            try write(
                at: start + done, from: UnsafeRawBufferPointer(rebasing: zeroes[..<count]))
            done += UInt64(count)
        }
        return true
    }
}
