// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxControl

/// Requests on the control socket: the bytes, in pieces; then the body as every kind of request.
enum ControlRequests {
    static func run(_ start: Input) {
        var input = start
        let role: HTTPParser.Role = input.byte() & 1 != 0 ? .requests : .responses
        var parser = HTTPParser(role: role, limits: .request)
        let pieceBytes = 1 + input.below(200)
        var messages = 0
        do throws(HTTPFailure) {
            while !input.isAtEnd {
                parser.append(input.take(min(pieceBytes, input.left)))
                while let message = try parser.next() {
                    messages += 1
                    precondition(messages < 100_000, "more messages than bytes")
                    decode(message)
                }
                if parser.awaitsContinue { parser.grantContinue() }
            }
        } catch {
            precondition((400..<600).contains(error.status), "a refusal without its status")
        }
    }

    private static func decode(_ message: HTTPMessage) {
        _ = message.serialized()
        if case .request(_, let target) = message.startLine {
            for part in target.split(whereSeparator: { "/?&=".contains($0) }) {
                let text = String(part)
                _ = try? ByteSize.parse(text)
                _ = PercentEncoding.decode(text)
            }
        }
        _ = try? ControlJSON.decode(CreateVDIRequest.self, from: message.body)
        _ = try? ControlJSON.decode(ChangeVDIRequest.self, from: message.body)
        _ = try? ControlJSON.decode(AttachRequest.self, from: message.body)
        _ = try? ControlJSON.decode(CreateSnapshotRequest.self, from: message.body)
        _ = try? ControlJSON.decode(ChangeSnapshotRequest.self, from: message.body)
        _ = try? ControlJSON.decode(DeleteSnapshotsRequest.self, from: message.body)
        _ = try? ControlJSON.decode(HoldRequest.self, from: message.body)
        _ = try? ControlJSON.decode(RollbackRequest.self, from: message.body)
        _ = try? ControlJSON.decode(ApplyRetentionRequest.self, from: message.body)
        _ = try? ControlJSON.decode(GrowStoreRequest.self, from: message.body)
        _ = try? ControlJSON.decode(CleanStoreRequest.self, from: message.body)
        _ = try? ControlJSON.decode(ScrubStoreRequest.self, from: message.body)
    }
}
