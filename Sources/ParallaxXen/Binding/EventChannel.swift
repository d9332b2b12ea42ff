// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CXen

/// The event channel of one queue, on a descriptor of its own.
struct EventChannel: ~Copyable {
    private let functions: UnsafePointer<parallax_xen_functions>
    private let handle: UnsafeMutableRawPointer
    private var port: UInt32 = 0
    let fileDescriptor: Int32

    init?(_ library: XenLibrary) {
        guard let handle = parallax_channel_open(library.functions) else { return nil }
        functions = library.functions
        self.handle = handle
        fileDescriptor = parallax_channel_fd(library.functions, handle)
    }

    /// The port goes with the descriptor.
    deinit { parallax_channel_close(functions, handle) }

    mutating func bind(domain: UInt32, remotePort: UInt32) -> Bool {
        let result = parallax_channel_bind(functions, handle, domain, remotePort)
        guard result >= 0 else { return false }
        port = UInt32(result)
        return true
    }

    func notify() { parallax_channel_notify(functions, handle, port) }

    /// Takes the event; the next one wakes us again.
    func drain() { parallax_channel_drain(functions, handle) }
}
