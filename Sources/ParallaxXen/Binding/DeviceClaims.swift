// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Synchronization

/// The guests' devices that this process serves, each by its front-end directory: a domain's name
/// and its number lead to the same one, and so do a tool stack's node and one of ours. Shards
/// share it, so a device is served once in the whole process.
final class DeviceClaims: Sendable {
    private let frontends = Mutex<Set<String>>([])

    /// nil: the device is served already. The claim ends with the object that is returned.
    func claim(_ frontend: String) -> DeviceClaim? {
        let isFree = frontends.withLock { $0.insert(frontend).inserted }
        return isFree ? DeviceClaim(frontend, in: self) : nil
    }

    fileprivate func release(_ frontend: String) {
        frontends.withLock { _ = $0.remove(frontend) }
    }
}

final class DeviceClaim: Sendable {
    private let frontend: String
    private let claims: DeviceClaims

    fileprivate init(_ frontend: String, in claims: DeviceClaims) {
        self.frontend = frontend
        self.claims = claims
    }

    deinit { claims.release(frontend) }
}
