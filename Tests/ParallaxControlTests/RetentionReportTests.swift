// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxControl
import ParallaxRetention
import Testing

@testable import ParallaxBlockd
@testable import parallax_ctl

@Suite struct RetentionReportTests {
    private func report(_ count: Int, brief: Bool = false) throws -> RetentionReport {
        let policy = try RetentionPolicy.parse(options: ["--keep-last", "2"])
        var candidates: [RetentionCandidate] = []
        for number in 0..<count {
            let time = RetentionTime(seconds: Int64(number))
            candidates.append(
                RetentionCandidate(
                    id: UInt64(number), name: "s\(number)", time: time, origin: .scheduled))
        }
        let plan = try policy.decide(candidates, now: RetentionTime(seconds: Int64(count)))
        return ControlPlane.report(
            plan, "d", policy, spared: [5: "held"],
            ApplyRetentionRequest(brief: brief ? true : nil))
    }

    @Test("a report of very many snapshots has the counts alone, and says so")
    func tooMany() throws {
        let limit = RetentionReport.decisionLimit
        let fits = try report(limit)
        #expect(fits.decisions?.count == limit && fits.leavesDecisionsOut == nil)
        let large = try report(limit + 1)
        #expect(large.decisions == nil && large.leavesDecisionsOut == true)
        #expect(large.keptCount == 3 && large.deletedCount == limit - 2)
        let text = RetentionText.report(large)
        #expect(text == "d: 3 stay, 99998 gone; too many to list, more than 100000\n")
        let json = String(decoding: ControlJSON.encode(large), as: UTF8.self)
        #expect(json.contains(#""decisions_left_out":true"#))
        // Who asks for the counts alone has nothing left out.
        #expect(try report(limit + 1, brief: true).leavesDecisionsOut == nil)
    }

    @Test("the longest list of decisions is well within what a client takes")
    func size() throws {
        let bytes = ControlJSON.encode(try report(RetentionReport.decisionLimit)).count
        #expect(bytes < HTTPLimits.response.bodyBytes / 4)
    }

    @Test("an answer that is longer all the same is told as that, and not as another program's")
    func longAnswer() throws {
        let directory = try TemporaryDirectory()
        let path = directory.file("s")
        let listener = try ListeningSocket(path: path, purpose: "the control socket")
        let descriptor = listener.fileDescriptor
        startDetachedThread {
            var ready = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            poll(&ready, 1, 10_000)
            let peer = accept(descriptor, nil, nil)
            let head = "HTTP/1.1 200 OK\r\ncontent-length: 67108865\r\n\r\n"
            _ = send(peer, head, head.utf8.count, Int32(MSG_NOSIGNAL))
            // Until the client has left.
            var byte: UInt8 = 0
            while recv(peer, &byte, 1, 0) > 0 {}
            close(peer)
        }
        let client = try ControlClient(socketPath: path)
        let error = failure { _ = try client.status() }
        #expect(error?.kind == .tooLarge && error?.message.contains("64 MiB") == true)
        _ = consume listener
    }
}
