// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Why a VDI cannot be attached to a domain.
package enum XenError: Error, Equatable, CustomStringConvertible {
    case libraryMissing(String)
    case noStore
    case outOfFileDescriptors
    case noSuchDomain(String)
    case deviceInUse(XenAddress)
    /// A back-end directory whose front end is served already, or was served another disk.
    case nodeInUse(String)
    case nodeIncomplete(String)
    case cannotWrite(String, errno: Int32)

    package var description: String {
        switch self {
        case .libraryMissing(let name):
            "Xen's libraries are not installed (\(name) is missing); "
                + "install libxengnttab1, libxenevtchn1 and libxenstore4, and try again"
        case .noStore:
            "xenstore cannot be reached; is this Xen's control domain, and does xenstored run?"
        case .outOfFileDescriptors:
            "too many files are open; raise the daemon's limit (LimitNOFILE)"
        case .noSuchDomain(let name):
            "there is no domain \(name); see `xl list`"
        case .deviceInUse(let address):
            "the domain has a device \(address) already; use another device"
        case .nodeInUse(let path):
            "the device of the xenstore node \(path) has another disk already; detach that first"
        case .nodeIncomplete(let path):
            "the xenstore node \(path) names no front end; let the tool stack make it anew"
        case .cannotWrite(let path, let code):
            "xenstore does not let us write \(path) (error \(code)); run in the control domain"
        }
    }
}
