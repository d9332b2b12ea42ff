// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxGuest

/// A request of the simulated guest, until its answer.
struct GuestOrder {
    enum Kind: Equatable {
        case read, write, barrier, flush, emptyBarrier, discard
        /// One that breaks a rule, and what has to be answered.
        case refused(Refusal)
    }

    enum Refusal: CaseIterable {
        case unknownOperation, secureDiscard, pastTheEnd, badGrant, badSectors, noSegments
        case tooManySegments, hollowIndirect
    }

    /// A part of a page.
    struct Part {
        var page: Int
        var first: Int
        var count: Int
    }

    var id: UInt64
    var kind: Kind
    var sectors: Range<Int>
    /// What a write leaves.
    var version: UInt64 = 0
    var queue = 0
    /// Its place among the requests of its queue.
    var sequence = 0
    var parts: [Part] = []
    /// The page with the list of an indirect request.
    var table: Int?
    /// The engine was failing while it was under way.
    var mayFail = false

    var isChange: Bool {
        switch kind {
        case .write, .barrier, .discard: true
        case .read, .flush, .emptyBarrier, .refused: false
        }
    }

    var isBarrier: Bool { kind == .barrier || kind == .emptyBarrier }

    /// As the response repeats it.
    var operation: UInt8 {
        switch kind {
        case .read: 0
        case .write: 1
        case .barrier, .emptyBarrier: 2
        case .flush: 3
        case .discard: 5
        case .refused(let refusal):
            switch refusal {
            case .unknownOperation: 9
            case .secureDiscard: 5
            case .pastTheEnd, .badGrant, .tooManySegments: 0
            case .badSectors, .noSegments, .hollowIndirect: 1
            }
        }
    }

    /// The status of a back end that is well.
    func status(isReadOnly: Bool) -> Int16 {
        switch kind {
        case .refused(.unknownOperation), .refused(.secureDiscard): -2
        case .refused: -1
        case .write, .barrier, .discard: isReadOnly ? -1 : 0
        case .read, .flush, .emptyBarrier: 0
        }
    }
}
