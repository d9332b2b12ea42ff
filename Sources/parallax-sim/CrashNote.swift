// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc

/// Says which seed was running when the program is stopped by a trap, or by its own alarm because
/// a seed takes too long.
enum CrashNote {
    /// SAFETY: written by the main thread before a scenario runs, read by a signal handler in the
    /// same thread; a handler may use only what is already there.
    nonisolated(unsafe) private static var text: UnsafeMutablePointer<CChar>?
    nonisolated(unsafe) private static var length = 0

    static func prepare(replay: String, secondsPerSeed: UInt32) {
        if text == nil {
            for number in [SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGABRT, SIGALRM] {
                signal(number) { number in CrashNote.report(number) }
            }
        }
        text?.deallocate()
        let note = "\nstopped by a trap or after \(secondsPerSeed) s; replay: \(replay) --trace\n"
        let bytes = Array(note.utf8CString)
        let copy = UnsafeMutablePointer<CChar>.allocate(capacity: bytes.count)
        copy.initialize(from: bytes, count: bytes.count)
        text = copy
        length = bytes.count - 1
        alarm(secondsPerSeed)
    }

    private static func report(_ number: Int32) {
        if let text { _ = write(2, text, length) }
        signal(number, SIG_DFL)
        raise(number)
    }
}
