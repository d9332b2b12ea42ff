// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CXen
internal import Synchronization

/// Xen's user-space libraries: grants, event channels and xenstore. Everything that the back end
/// wants from Xen goes through this table, so a table of other functions makes another Xen.
package struct XenLibrary: Sendable {
    // SAFETY: the table is filled before this value exists, never changes, and is never freed.
    nonisolated(unsafe) let functions: UnsafePointer<parallax_xen_functions>
    let budget: GrantBudget
    let claims = DeviceClaims()

    /// A Xen of the caller's own: `functions` leads to a `parallax_xen_functions` that lives as
    /// long as the process.
    package init(functions: UnsafeRawPointer) {
        self.functions = functions.assumingMemoryBound(to: parallax_xen_functions.self)
        budget = GrantBudget(limit: XenLimits.persistentGrantsOfProcess)
    }

    private static let shared = Mutex<XenLibrary?>(nil)

    /// Finds the libraries; the table is the same for the whole process.
    package static func load() throws(XenError) -> XenLibrary {
        let result = shared.withLock { shared -> Result<XenLibrary, XenError> in
            if let shared { return .success(shared) }
            let table = UnsafeMutablePointer<parallax_xen_functions>.allocate(capacity: 1)
            var missing: UnsafePointer<CChar>?
            guard parallax_xen_load(table, &missing) == 0 else {
                table.deallocate()
                return .failure(.libraryMissing(missing.map { String(cString: $0) } ?? "libxen"))
            }
            let library = XenLibrary(functions: UnsafeRawPointer(table))
            shared = library
            return .success(library)
        }
        return try result.get()
    }
}

/// How many more grants the process may keep mapped. Asked when a grant is mapped to stay, which
/// a guest that keeps to the protocol makes rare.
final class GrantBudget: Sendable {
    private let left: Atomic<Int>

    init(limit: Int) { left = Atomic(limit) }

    func take() -> Bool {
        if left.subtract(1, ordering: .relaxed).newValue >= 0 { return true }
        left.add(1, ordering: .relaxed)
        return false
    }

    func giveBack(_ count: Int) { left.add(count, ordering: .relaxed) }
}
