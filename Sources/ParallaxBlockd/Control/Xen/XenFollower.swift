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
            return await plane.warnOfNodesWithoutXen("\(error)")
        }
        while !Task.isCancelled {
            let secondLook = XenSecondLook()
            for await nodes in changes(library, secondLook) {
                let isUnsettled = await plane.follow(
                    nodes, isCurrent: { await Self.isCurrent($0, library) },
                    refuse: { node, sentence in
                        startDetachedThread {
                            XenDirectory.refuse(library, path: node.path, sentence: sentence)
                        }
                    })
                if isUnsettled { secondLook.ask() }
            }
            try? await Task.sleep(for: .seconds(Self.retrySeconds))
        }
    }

    private static func isCurrent(_ node: XenDiskNode, _ library: XenLibrary) async -> Bool {
        await withCheckedContinuation { continuation in
            let isStarted = startDetachedThread {
                continuation.resume(returning: XenDirectory.isCurrent(node, library))
            }
            if !isStarted { continuation.resume(returning: false) }
        }
    }

    /// The nodes after each change. xenstore's calls wait, so they have a thread of their own; it
    /// ends at the first change after nobody listens, or with the process.
    private func changes(
        _ library: XenLibrary, _ secondLook: XenSecondLook
    ) -> AsyncStream<[XenDiskNode]> {
        let (stream, continuation) = AsyncStream.makeStream(
            of: [XenDiskNode].self, bufferingPolicy: .bufferingNewest(1))
        let log = log
        let isStarted = startDetachedThread {
            do throws(XenError) {
                try XenDirectory.watch(library, secondLook: secondLook) { nodes in
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
