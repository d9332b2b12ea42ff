// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxControl

/// Held while a run of one cron line is under way, by flock(2): it ends with the process, however
/// that ends. The file stays; it is empty and in the directory of the control socket.
struct RunLock: ~Copyable {
    private let descriptor: Int32

    deinit { _ = close(descriptor) }

    /// nil: another process has it. `key` tells lines that do different things apart.
    static func take(beside socketPath: String, key: [String]) throws(ControlError) -> RunLock? {
        let path = "\(socketPath).cron-\(name(of: key)).lock"
        // flock(2) takes no right to write, so a file that another account made, root by hand for
        // instance, is as good.
        let descriptor = open(path, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o644)
        guard descriptor >= 0 else { throw cannotMake(path, beside: socketPath, errno) }
        // Whatever the umask. Only the owner can, and need.
        _ = fchmod(descriptor, 0o644)
        let lock = RunLock(descriptor: descriptor)
        while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
            if errno == EINTR { continue }
            guard errno == EWOULDBLOCK else {
                throw ControlError(.ioError, "cannot take the lock \(path): \(errnoText(errno))")
            }
            return nil
        }
        return lock
    }

    private static func cannotMake(
        _ path: String, beside socketPath: String, _ number: Int32
    ) -> ControlError {
        switch number {
        case ENOENT:
            ControlError(
                .unreachable,
                "there is no directory for the control socket \(socketPath); "
                    + "is parallax-blockd running, and is this its control socket?")
        case EACCES, EPERM:
            ControlError(
                .ioError,
                "permission denied on the lock \(path); run cron-snapshot as the account that "
                    + "parallax-blockd runs as, and remove the lock if another account has made it")
        default:
            ControlError(
                .ioError,
                "cannot make the lock \(path): \(errnoText(number)); mend that, or remove it")
        }
    }

    /// FNV-1a, 64 bits.
    private static func name(of key: [String]) -> String {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in key.joined(separator: "\u{0}").utf8 {
            hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3
        }
        return String(hash, radix: 16)
    }
}
