// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Logging
import ParallaxControl
import ParallaxXen

/// Follows what Xen's tool stack writes into xenstore, where there is a Xen.
struct XenFollower: Sendable {
    /// How often xenstore is tried while it does not answer: it may start after us.
    private static let retrySeconds = 5

    let log: Logger

    /// Until the task is cancelled; at once where Xen's libraries are not installed.
    func run(_ plane: ControlPlane) async {
        let library: XenLibrary
        do throws(XenError) {
            library = try XenLibrary.load()
        } catch {
            log.debug("no Xen: \(error)")
            return
        }
        while !Task.isCancelled {
            for await nodes in changes(library) {
                await plane.follow(nodes) { node, sentence in
                    startDetachedThread {
                        XenDirectory.refuse(library, path: node.path, sentence: sentence)
                    }
                }
            }
            try? await Task.sleep(for: .seconds(Self.retrySeconds))
        }
    }

    /// The nodes after each change. xenstore's calls wait, so they have a thread of their own; it
    /// ends at the first change after nobody listens, or with the process.
    private func changes(_ library: XenLibrary) -> AsyncStream<[XenDiskNode]> {
        let (stream, continuation) = AsyncStream.makeStream(
            of: [XenDiskNode].self, bufferingPolicy: .bufferingNewest(1))
        let log = log
        let isStarted = startDetachedThread {
            do throws(XenError) {
                try XenDirectory.watch(library) { nodes in
                    if case .terminated = continuation.yield(nodes) { return false }
                    return true
                }
            } catch {
                log.debug("no Xen: \(error)")
            }
            continuation.finish()
        }
        if !isStarted { continuation.finish() }
        return stream
    }
}
