// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc

/// How a front end wants to be served.
package struct BlkfrontOptions: Sendable {
    package var queueCount: Int
    package var ringPages: Int
    package var isPersistent: Bool
    package var layout: BlkfrontLayout

    package init(
        queueCount: Int = 1, ringPages: Int = 1, isPersistent: Bool = true,
        layout: BlkfrontLayout = .x86For64
    ) {
        self.queueCount = queueCount
        self.ringPages = ringPages
        self.isPersistent = isPersistent
        self.layout = layout
    }
}

/// The front end of a disk in a `PretendedXen`: its pages, its rings, its keys in xenstore.
package final class BlkfrontDriver {
    package let xen: PretendedXen
    package let backend: String
    package let frontend: String
    package var queues: [BlkfrontQueue] = []
    private var nextPage = 0
    private var nextPort: UInt32 = 20

    package init(xen: PretendedXen, backend: String, frontend: String) {
        self.xen = xen
        self.backend = backend
        self.frontend = frontend
    }

    /// The same front end in a copy of the machine.
    package func moved(to other: PretendedXen) -> BlkfrontDriver {
        let driver = BlkfrontDriver(xen: other, backend: backend, frontend: frontend)
        driver.queues = queues.map { BlkfrontQueue(moving: $0, to: other) }
        driver.nextPage = nextPage
        driver.nextPort = nextPort
        return driver
    }

    /// The nodes as a tool stack makes them.
    package func makeNodes(keys: [String: String] = [:]) {
        let store = xen.store
        store[backend + "/frontend"] = frontend
        store[backend + "/frontend-id"] = "\(xen.domain)"
        store[backend + "/online"] = "1"
        for key in keys.keys.sorted() { store["\(backend)/\(key)"] = keys[key] }
        store[frontend + "/backend"] = backend
        store[frontend + "/state"] = "1"
        store[backend + "/state"] = "1"
    }

    package var state: String? {
        get { xen.store[frontend + "/state"] }
        set { xen.store[frontend + "/state"] = newValue }
    }

    package var backendState: String? { xen.store[backend + "/state"] }
    package func property(_ key: String) -> String? { xen.store["\(backend)/\(key)"] }

    /// A fresh page of the guest, granted.
    package func allocatePage(isReadOnly: Bool = false) -> (
        reference: UInt32, page: UnsafeMutableRawPointer
    ) {
        precondition(nextPage < xen.pageCount, "the pretended guest has no page left")
        let reference = UInt32(8 + nextPage)
        xen.grant(reference, page: nextPage, isReadOnly: isReadOnly)
        defer { nextPage += 1 }
        return (reference, xen.page(nextPage))
    }

    /// Lets all pages go, as when the driver is loaded anew.
    package func freePages() { nextPage = 0 }

    /// Makes the rings and writes all keys, without the state.
    package func writeKeys(_ options: BlkfrontOptions) {
        queues = (0..<options.queueCount).map { _ in makeQueue(options) }
        let store = xen.store
        store[frontend + "/protocol"] = options.layout.rawValue
        store[frontend + "/feature-persistent"] = options.isPersistent ? "1" : "0"
        if options.ringPages > 1 {
            store[frontend + "/ring-page-order"] = "\(options.ringPages.trailingZeroBitCount)"
        }
        if options.queueCount > 1 {
            store[frontend + "/multi-queue-num-queues"] = "\(options.queueCount)"
        }
        for (index, queue) in queues.enumerated() {
            let folder = options.queueCount > 1 ? "\(frontend)/queue-\(index)" : frontend
            store[folder + "/event-channel"] = "\(queue.port)"
            for (page, reference) in queue.references.enumerated() {
                let name = options.ringPages > 1 ? "ring-ref\(page)" : "ring-ref"
                store["\(folder)/\(name)"] = "\(reference)"
            }
        }
    }

    private func makeQueue(_ options: BlkfrontOptions) -> BlkfrontQueue {
        let pages = (0..<options.ringPages).map { _ in allocatePage() }
        defer { nextPort += 1 }
        return BlkfrontQueue(
            xen: xen, base: pages[0].page, references: pages.map(\.reference), port: nextPort,
            layout: options.layout)
    }
}
