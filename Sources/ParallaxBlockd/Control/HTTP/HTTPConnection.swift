// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
package import ParallaxControl

/// One connection of the control socket, served by a thread of its own.
struct HTTPConnection: ~Copyable {
    /// A peer may keep a connection open this long between two requests.
    private static let idleSeconds = 60
    /// A request must be complete this long after its first byte.
    private static let requestSeconds = 15
    /// A peer that hangs up while its request is being answered is noticed so soon.
    private static let hangUpMilliseconds = 500

    private let stream: StreamSocket
    private let unawaited: UnawaitedRequests

    init(_ stream: consuming StreamSocket, unawaited: UnawaitedRequests) {
        self.stream = stream
        self.unawaited = unawaited
    }

    /// Answers requests until the peer goes, errs or idles, or `mark` says to stop. `mark` is told
    /// of the slot for each answer, and then that there is none.
    borrowing func serve(mark: (AnswerSlot?) -> Bool, respond: @escaping HTTPServer.Respond) {
        var parser = HTTPParser(role: .requests, limits: .request)
        while true {
            do throws(HTTPFailure) {
                guard let request = try receive(&parser) else { return }
                let slot = AnswerSlot(socket: stream.fileDescriptor, unawaited: unawaited)
                let mayContinue = mark(slot)
                // On the pool of Swift concurrency, while this thread waits.
                Task {
                    await AnswerSlot.$current.withValue(slot) {
                        slot.end(with: await respond(request))
                    }
                }
                guard var answer = wait(for: slot) else { return }
                answer.keepsAlive = request.keepsAlive && mayContinue
                guard send(answer, to: request), answer.keepsAlive, mark(nil) else { return }
            } catch {
                refuse(error)
                return
            }
        }
    }

    /// The answer; nil when the peer has hung up. What it asked for goes on once it has begun, but
    /// must not keep one of the few connections: a shard that gives no answer would take them all
    /// in time.
    private borrowing func wait(for slot: AnswerSlot) -> HTTPMessage? {
        while true {
            if let answer = slot.wait(milliseconds: Self.hangUpMilliseconds) { return answer }
            guard !stream.hasPeerHungUp else {
                slot.abandon()
                return nil
            }
        }
    }

    /// The next request; nil when the peer has gone or has idled too long.
    private borrowing func receive(_ parser: inout HTTPParser) throws(HTTPFailure) -> HTTPMessage? {
        stream.setTimeouts(seconds: parser.isIdle ? Self.idleSeconds : Self.requestSeconds)
        var deadline: ContinuousClock.Instant?
        while true {
            if let request = try parser.next() { return request }
            if parser.awaitsContinue {
                guard stream.send(Array("HTTP/1.1 100 Continue\r\n\r\n".utf8)) else { return nil }
                parser.grantContinue()
            }
            if !parser.isIdle, deadline == nil {
                deadline = .now + .seconds(Self.requestSeconds)
                stream.setTimeouts(seconds: Self.requestSeconds)
            }
            let bytes = stream.receive(limit: 16 << 10)
            if let deadline, bytes == nil || .now > deadline {
                throw HTTPFailure(
                    408, "the request did not come within \(Self.requestSeconds) seconds")
            }
            guard let bytes, !bytes.isEmpty else { return nil }
            parser.append(bytes)
        }
    }

    private borrowing func send(_ answer: HTTPMessage, to request: HTTPMessage) -> Bool {
        var isHead = false
        if case .request("HEAD", _) = request.startLine { isHead = true }
        return stream.send(answer.serialized(omittingBody: isHead))
    }

    /// Says what was wrong and gives up the connection, since the place where the next request
    /// begins is unknown.
    private borrowing func refuse(_ failure: HTTPFailure) {
        let kind: ControlError.Kind = failure.status == 413 ? .tooLarge : .invalid
        var answer = HTTPMessage.json(
            status: failure.status, ErrorBody(ControlError(kind, failure.reason)))
        answer.keepsAlive = false
        guard stream.send(answer.serialized()) else { return }
        // Closing with unread bytes in the socket would reset the connection and could take the
        // answer away from a peer that is still sending, so read on for a moment.
        _ = shutdown(stream.fileDescriptor, Int32(SHUT_WR))
        stream.setTimeouts(seconds: 1)
        for _ in 0..<64 {
            guard let bytes = stream.receive(limit: 64 << 10), !bytes.isEmpty else { return }
        }
    }
}

extension HTTPMessage {
    /// An answer with a JSON body.
    package static func json(status: Int, _ body: some Encodable) -> HTTPMessage {
        HTTPMessage(
            startLine: .response(status: status), headers: ["content-type": "application/json"],
            body: ControlJSON.encode(body))
    }
}
