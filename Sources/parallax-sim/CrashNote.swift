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
    /// What this program is to be run with in its own place; nil: not at all.
    nonisolated(unsafe) private static var goingOn: [UnsafeMutablePointer<CChar>?] = []

    /// `goesOn`: after a trap the program runs itself to find the fewest operations.
    static func prepare(replay: String, secondsPerSeed: UInt32, goesOn: Bool) {
        if text == nil {
            for number in [SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGABRT, SIGVTALRM] {
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
        for word in goingOn { free(word) }
        let words = replay.split(separator: " ").map(String.init) + ["--after-stop"]
        goingOn = goesOn ? words.map { strdup($0) } + [nil] : []
        setAlarm(secondsPerSeed)
    }

    /// In time that the program itself has used: nothing here waits, and a machine that others keep
    /// busy, or that stops the program for a while, says nothing about a seed.
    private static func setAlarm(_ seconds: UInt32) {
        var limit = itimerval()
        limit.it_value.tv_sec = Int(seconds)
        setitimer(__itimer_which_t(ITIMER_VIRTUAL.rawValue), &limit, nil)
    }

    /// Returns only if that is not possible.
    private static func runAgain() {
        setAlarm(0)
        var none = sigset_t()
        sigemptyset(&none)
        sigprocmask(SIG_SETMASK, &none, nil)
        goingOn.withUnsafeBufferPointer { words in
            if let first = words.baseAddress { _ = execv("/proc/self/exe", first) }
        }
    }

    private static func report(_ number: Int32) {
        if let text { _ = write(2, text, length) }
        if number != SIGVTALRM, !goingOn.isEmpty { runAgain() }
        signal(number, SIG_DFL)
        raise(number)
    }
}
