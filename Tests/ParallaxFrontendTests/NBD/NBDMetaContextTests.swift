// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxNBD
import Testing

@Suite("NBD metadata contexts")
struct NBDMetaContextTests {
    let disk = NBDExport(name: "disk", byteCount: 4096)
    let other = NBDExport(name: "other", byteCount: 4096)

    private func queries(_ export: String, _ queries: [String]) -> [UInt8] {
        named(export) + big(UInt32(queries.count)) + queries.flatMap(named)
    }

    private func peer(structured: Bool = true) -> NegotiationPeer {
        var peer = NegotiationPeer([disk, other], defaultName: "disk")
        if structured { peer.option(.structuredReply) }
        _ = peer.hear()
        return peer
    }

    private func context(_ id: UInt32) -> [UInt8] { big(id) + Array("base:allocation".utf8) }

    @Test("a listing without a query, by namespace or by name tells of base:allocation")
    func list() {
        for asked in [[], ["base:"], ["base:allocation"], ["x:y", "base:allocation", "base:"]] {
            var peer = peer()
            peer.option(.listMetaContext, queries("disk", asked))
            #expect(
                peer.hear() == optionReply(.listMetaContext, .metaContext, context(0))
                    + optionReply(.listMetaContext, .acknowledged))
        }
    }

    @Test("names that we do not know are ignored, not errors")
    func unknownNames() {
        for asked in ["base:dirty", "qemu:allocation-depth", "nonsense", "", "base:allocation2"] {
            var peer = peer()
            peer.option(.listMetaContext, queries("disk", [asked]))
            peer.option(.setMetaContext, queries("disk", [asked]))
            #expect(replyTypes(peer.hear()) == [.acknowledged, .acknowledged])
        }
    }

    @Test("a selection counts for the export that it named")
    func selection() {
        for (selected, chosen, counts) in [
            ("disk", "disk", true), ("", "disk", true), ("disk", "", true),
            ("other", "disk", false),
        ] {
            var peer = peer()
            peer.option(.setMetaContext, queries(selected, ["base:allocation"]))
            #expect(
                peer.hear() == optionReply(.setMetaContext, .metaContext, context(1))
                    + optionReply(.setMetaContext, .acknowledged))
            peer.option(.go, named(chosen) + [0, 0])
            let agreement = NBDAgreement(
                exportName: "disk", usesStructuredReplies: true, reportsAllocation: counts)
            #expect(peer.negotiation.outcome == .transmission(agreement))
        }
    }

    @Test("a later selection replaces an earlier one, also when it fails")
    func replacement() {
        let later: [[UInt8]] = [
            queries("disk", []), queries("disk", ["base:"]), queries("nowhere", []), [1, 2, 3],
            queries("disk", ["base:allocation"]) + [0],
            [UInt8](repeating: 0, count: NBDLimits.optionBytesKept + 1),
        ]
        for data in later {
            var peer = peer()
            peer.option(.setMetaContext, queries("disk", ["base:allocation"]))
            peer.option(.setMetaContext, data)
            peer.option(.go, named("disk") + [0, 0])
            let agreement = NBDAgreement(
                exportName: "disk", usesStructuredReplies: true, reportsAllocation: false)
            #expect(peer.negotiation.outcome == .transmission(agreement), "\(data.prefix(20))")
        }
    }

    @Test("without structured replies both options are refused")
    func withoutStructuredReplies() {
        var peer = peer(structured: false)
        peer.option(.listMetaContext, queries("disk", []))
        peer.option(.setMetaContext, queries("disk", ["base:allocation"]))
        #expect(replyTypes(peer.hear()) == [.invalid, .invalid])
    }

    @Test("counts and lengths that lie are refused")
    func lies() {
        let bad: [[UInt8]] = [
            [], named("disk"), named("disk") + [0, 0, 0], named("disk") + big(UInt32.max),
            named("disk") + big(UInt32(2)) + named("base:"),
            named("disk") + big(UInt32(1)) + big(UInt32.max),
            named("disk") + big(UInt32(1)) + big(UInt32(4097)) + [UInt8](repeating: 0, count: 4097),
            queries("disk", []) + [0],
        ]
        for data in bad {
            var peer = peer()
            peer.option(.listMetaContext, data)
            peer.option(.setMetaContext, data)
            #expect(replyTypes(peer.hear()) == [.invalid, .invalid], "\(data.prefix(20))")
        }
    }

    @Test("an option with too much data is refused and the conversation goes on in step")
    func tooBig() {
        var peer = peer()
        let data = [UInt8](repeating: 0, count: NBDLimits.optionBytesKept + 1)
        peer.option(.listMetaContext, data)
        peer.option(.go, data)
        peer.option(.list)
        #expect(replyTypes(peer.hear()) == [.tooBig, .tooBig, .server, .server, .acknowledged])
    }
}
