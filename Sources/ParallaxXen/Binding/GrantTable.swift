// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CXen

/// Maps pages that one domain has granted to us, while it is open.
///
/// SAFETY: what is mapped stays mapped until `unmap` or `close`; its owner sees to it that nobody
/// has an address of it then. A page stays readable when its domain is destroyed: the hypervisor
/// frees it only after the last mapping.
struct GrantTable: ~Copyable {
    private let functions: UnsafePointer<parallax_xen_functions>
    private var handle: UnsafeMutableRawPointer?
    private var domain: UInt32 = 0
    /// Pages that are mapped now.
    private(set) var mappedCount = 0

    init(_ library: XenLibrary) { functions = library.functions }

    deinit { if let handle { parallax_grants_close(functions, handle) } }

    mutating func open(domain: UInt32) -> Bool {
        close()
        handle = parallax_grants_open(functions)
        self.domain = domain
        return handle != nil
    }

    /// Everything that is mapped goes with the descriptor.
    mutating func close() {
        if let handle { parallax_grants_close(functions, handle) }
        handle = nil
        mappedCount = 0
    }

    /// One page after the other; nil if one of them cannot be mapped, and then none is.
    mutating func map(
        _ references: UnsafePointer<UInt32>, count: Int, isWritable: Bool
    ) -> UnsafeMutableRawPointer? {
        guard let handle,
            let start = parallax_grants_map(
                functions, handle, domain, references, UInt32(count), isWritable)
        else { return nil }
        mappedCount += count
        return start
    }

    mutating func map(_ reference: UInt32, isWritable: Bool) -> UnsafeMutableRawPointer? {
        var reference = reference
        return map(&reference, count: 1, isWritable: isWritable)
    }

    /// What one call of `map` has mapped.
    mutating func unmap(_ start: UnsafeMutableRawPointer, count: Int) {
        guard let handle else { return }
        parallax_grants_unmap(functions, handle, start, UInt32(count))
        mappedCount -= count
    }
}
