// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import Logging
package import ParallaxControl

/// The daemon from an open store to a closed one.
package struct Daemon: Sendable {
    /// How often attachments that do not serve are tried again: the directory of a guest's socket
    /// is often made later than we start.
    private static let retrySeconds = 5
    /// How often the store's space is looked at.
    private static let watchSeconds = 5

    private let configuration: DaemonConfiguration
    private let log: Logger
    private let notifier: ServiceNotifier

    package init(configuration: DaemonConfiguration, log: Logger, notifier: ServiceNotifier) {
        self.configuration = configuration
        self.log = log
        self.notifier = notifier
    }

    /// Serves `runtime` until `stop` yields or ends; then detaches all and closes the store.
    package func run(_ runtime: StoreRuntime, until stop: AsyncStream<Void>)
        async throws(ControlError)
    {
        let notifier = notifier
        let plane = ControlPlane(
            runtime: runtime, configuration: configuration, log: log,
            onStateChange: { notifier.send(ServiceNotifier.message(for: $0, summary: $1)) })
        let server: HTTPServer
        do throws(ControlError) {
            try await plane.load()
            server = try startServer(for: plane)
        } catch {
            await plane.shutDown()
            throw error
        }
        log.info(
            "store open",
            metadata: [
                "store": "\(configuration.storePath)",
                "control": "\(configuration.controlSocketPath)",
            ])
        await serve(plane, until: stop)
        log.info("stopping")
        let deadline = ContinuousClock.now + ControlPlane.stopLimit
        await plane.beginStopping()
        await server.stop(until: deadline)
        await plane.shutDown(until: deadline)
        log.info("stopped")
    }

    private func startServer(for plane: ControlPlane) throws(ControlError) -> HTTPServer {
        let listener = try ListeningSocket(
            path: configuration.controlSocketPath, purpose: "the control socket")
        let routes = ControlRoutes(plane: plane)
        let server = try HTTPServer(
            listener: listener, log: log, isAlwaysServed: ControlRoutes.isAnsweredAtOnce
        ) { await routes.respond(to: $0) }
        try server.start()
        return server
    }

    private func serve(_ plane: ControlPlane, until stop: AsyncStream<Void>) async {
        let restoring = Task {
            repeat {
                await plane.restoreAttachments()
                await plane.releaseEndedXen()
                try await Task.sleep(for: .seconds(Self.retrySeconds))
            } while true
        }
        let watching = Task {
            repeat {
                await plane.watchSpace()
                await plane.watchScrub()
                try await Task.sleep(for: .seconds(Self.watchSeconds))
            } while true
        }
        let following = Task { await XenFollower(log: log).run(plane) }
        for await _ in stop { break }
        restoring.cancel()
        watching.cancel()
        following.cancel()
    }
}
