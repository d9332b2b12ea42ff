// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc

/// The two ways to reach the kernel.
package enum IOEngineKind: String, CaseIterable, Sendable {
    case ioUring = "io_uring"
    case libaio

    /// Tries the engine out. Nil: it works here; otherwise why not.
    package func probe() -> ReactorError? {
        do throws(ReactorError) {
            switch self {
            case .ioUring: _ = try UringReactor(fileDescriptor: 0, commandCapacity: 1)
            case .libaio: _ = try AioReactor(fileDescriptor: 0, commandCapacity: 1)
            }
            return nil
        } catch {
            return error
        }
    }

    /// What an errno from making this engine means, as half a sentence.
    func explanation(of code: Int32) -> String {
        switch (self, code) {
        case (.ioUring, ENOSYS):
            "this kernel has no io_uring"
        case (.ioUring, EPERM), (.ioUring, EACCES):
            "io_uring is forbidden here (sysctl kernel.io_uring_disabled, or a seccomp filter)"
        case (.ioUring, EOPNOTSUPP):
            "this kernel's io_uring is too old (Linux 5.11 or later is needed)"
        case (.libaio, ENOSYS):
            "this kernel has no asynchronous I/O (CONFIG_AIO)"
        case (.libaio, EAGAIN):
            "no asynchronous I/O requests are left (raise sysctl fs.aio-max-nr)"
        case (_, ENOMEM):
            "not enough memory may be locked (raise RLIMIT_MEMLOCK)"
        case (_, EMFILE):
            "too many files are open (raise RLIMIT_NOFILE)"
        default:
            String(cString: strerror(code))
        }
    }
}

/// Which engine the daemon runs on, decided once at start.
package struct IOEngineChoice: Equatable, Sendable {
    package var kind: IOEngineKind
    /// To be said once, when it is not the preferred one.
    package var notice: String?

    package init(kind: IOEngineKind, notice: String? = nil) {
        self.kind = kind
        self.notice = notice
    }

    /// The preferred engine if it works here, else the other one. `probe` is replaced by tests.
    /// Throws the preferred engine's error when none works.
    package static func make(
        preferred: IOEngineKind,
        probe: (IOEngineKind) -> ReactorError? = { kind in kind.probe() }
    ) throws(ReactorError) -> IOEngineChoice {
        guard let obstacle = probe(preferred) else { return IOEngineChoice(kind: preferred) }
        for other in IOEngineKind.allCases where other != preferred && probe(other) == nil {
            return IOEngineChoice(
                kind: other, notice: "\(obstacle.description); going on with \(other.rawValue)")
        }
        throw obstacle
    }
}
