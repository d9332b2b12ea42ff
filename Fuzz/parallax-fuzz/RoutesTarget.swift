// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Dispatch
import Glibc
import Logging
import ParallaxBlockd
import ParallaxControl

/// Whole requests to the control API, through the parser and the routes to the control plane, over
/// shards in memory; now and then two at a time.
///
/// Each gets one answer. None is 500: nothing fails below, so that would be a check that is missing.
/// Afterwards the plane's lists must be those of the shards.
enum ControlAPI {
    static func run(_ start: Input) {
        var input = start
        let scene = APIScene()
        var requests = 0
        while !input.isAtEnd, requests < 24 {
            let isPair = input.byte() & 7 == 0
            let batch = (0..<(isPair ? 2 : 1)).map { _ in APIRequest.bytes(&input, scene) }
            requests += batch.count
            scene.exchange(batch.compactMap(parse))
        }
        scene.expectConsistency()
    }

    private static func parse(_ bytes: [UInt8]) -> HTTPMessage? {
        var parser = HTTPParser(role: .requests, limits: .request)
        parser.append(bytes)
        return (try? parser.next()) ?? nil
    }
}

/// A control plane of its own for each input.
private final class APIScene: Sendable {
    private static let folder: String = {
        let parent = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp"
        let path = "\(parent)/parallax-fuzz-\(getpid())"
        mkdir(path, 0o700)
        atexit { APIScene.removeFolder() }
        return path
    }()
    private static let uuid = "00000000-1111-2222-3333-444444444444"

    private let shards = (0..<2).map { FakeShard(index: $0) }
    private let plane: ControlPlane
    private let routes: ControlRoutes

    init() {
        Self.removeFiles()
        plane = ControlPlane(
            runtime: Self.runtime(shards), configuration: Self.configuration,
            log: Logger(label: "fuzz") { _ in SwiftLogNoOpLogHandler() },
            now: { 1_700_000_000_000_000_000 }, groupLimit: .seconds(600))
        routes = ControlRoutes(plane: plane)
        let plane = plane
        Self.wait {
            try? await plane.load()
            await plane.restoreAttachments()
        }
    }

    static func socket(_ number: Int) -> String { "\(folder)/\(number).sock" }

    private static func removeFiles() { unlink("\(folder)/state/attachments-\(uuid).json") }

    private static func removeFolder() {
        removeFiles()
        rmdir("\(folder)/state")
        rmdir(folder)
    }

    private static let configuration: DaemonConfiguration = {
        var flags = PartialConfiguration()
        flags.store = "\(folder)/store"
        flags.control = "\(folder)/control.sock"
        flags.stateDirectory = "\(folder)/state"
        guard
            let configuration = try? DaemonConfiguration(
                flags: flags, file: PartialConfiguration())
        else { preconditionFailure("no configuration") }
        return configuration
    }()

    private static func runtime(_ shards: [FakeShard]) -> StoreRuntime {
        let identity = StoreIdentity(
            path: "/fake/store", uuid: uuid, sizeBytes: 1 << 30, extentBytes: 64 << 20,
            extentCount: 16)
        return StoreRuntime(identity: identity, shards: shards, grow: { _ in identity }, close: {})
    }

    /// Runs `body` on the pool of Swift concurrency and waits for it here.
    private static func wait(_ body: @escaping @Sendable () async -> Void) {
        let isDone = DispatchSemaphore(value: 0)
        Task {
            await body()
            isDone.signal()
        }
        isDone.wait()
    }

    /// All at once.
    func exchange(_ requests: [HTTPMessage]) {
        let routes = routes
        Self.wait {
            await withTaskGroup(of: Void.self) { group in
                for request in requests {
                    group.addTask { Self.judge(await routes.respond(to: request), of: request) }
                }
            }
        }
    }

    private static func judge(_ answer: HTTPMessage, of request: HTTPMessage) {
        guard case .response(let status) = answer.startLine else {
            preconditionFailure("a request is answered by a request")
        }
        precondition((200..<600).contains(status), "no status of HTTP")
        precondition(status != 500, "something failed that cannot: \(request) \(answer)")
        precondition(status < 400 || !answer.body.isEmpty, "an error without its reason")
        // What goes out must be read by our own client.
        var parser = HTTPParser(role: .responses, limits: .request)
        parser.append(answer.serialized())
    }

    func expectConsistency() {
        let (plane, shards) = (plane, shards)
        Self.wait {
            var kept: [String] = []
            for shard in shards {
                let all = (try? await shard.vdis()) ?? []
                kept += all.filter { $0.phase == .active }.map(\.name)
                let overlaps = await shard.overlaps
                precondition(overlaps == 0, "two operations on one VDI overlap")
            }
            let listed = ((try? await plane.list()) ?? []).map(\.name)
            precondition(listed.sorted() == kept.sorted(), "the plane lists other VDIs")
            await plane.shutDown()
        }
    }
}

/// Requests that make sense as far as the input lets them.
private enum APIRequest {
    private static let paths = [
        "status", "ready", "vdis", "vdis/V", "vdis/V/attachments", "vdis/V/snapshots",
        "vdis/V/snapshots/S", "vdis/V/snapshots/S/attachments", "vdis/V/snapshots/S/holds",
        "vdis/V/rollback", "vdis/V/retention", "vdis/V/retention/apply", "snapshots",
        "snapshots/delete", "diff", "store/grow", "store/clean", "store/scrub",
    ]
    private static let methods = ["GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "POST", "POST"]
    private static let names = ["a", "b", "c", "%C3%A9", "e%CC%81", "d", "latest", "-1h"]
    private static let words = [
        "a", "b", "c", "é", "e\u{301}", "d", "latest", "-1h", "", "a@b", ".",
    ]
    private static let fields = [
        "name", "size_bytes", "from", "quota_bytes", "template", "shrink", "kind", "socket",
        "read_only", "comment", "labels", "scheduled", "vdis", "reason", "snapshot", "force",
        "keep",
        "snapshots", "dry_run", "brief", "keep_last", "hourly", "daily", "until_percent", "other",
        "rate_bytes_per_second",
        "restart",
    ]

    static func bytes(_ input: inout Input, _ scene: APIScene) -> [UInt8] {
        let method = methods[input.below(methods.count)]
        var path = "/v1/" + paths[input.below(paths.count)]
        path = path.replacing("V", with: name(&input)).replacing("S", with: name(&input))
        switch input.below(12) {
        case 0: path += "?limit=\(input.below(5))&after=\(name(&input))"
        case 1: path += "?reason=\(name(&input))"
        case 2, 3:
            path += "?from=\(name(&input))%40\(name(&input))&to=\(name(&input))%40\(name(&input))"
        case 4: path = "/metrics"
        case 5: path += text(&input)
        default: break
        }
        let body = method == "GET" || method == "HEAD" ? "" : body(&input)
        let head = "\(method) \(path) HTTP/1.1\r\ncontent-length: \(body.utf8.count)\r\n\r\n"
        return Array((head + body).utf8)
    }

    private static func name(_ input: inout Input) -> String { names[input.below(names.count)] }

    private static func text(_ input: inout Input) -> String {
        String(decoding: input.take(input.below(24)), as: UTF8.self)
    }

    /// The usual bodies of requests, and objects of any of the fields.
    private static func body(_ input: inout Input) -> String {
        let (one, two) = (word(&input), word(&input))
        switch input.below(16) {
        case 0: return ""
        case 1, 2: return #"{"name":\#(one),"size_bytes":\#((1 + input.below(9)) << 20)}"#
        case 3: return #"{"name":\#(one),"from":"\#(version(&input))"}"#
        case 4: return #"{"kind":"nbd"}"#
        case 5:
            let socket = APIScene.socket(input.below(4))
            let mode = input.byte() & 1 == 0 ? "" : #","read_only":true"#
            return #"{"kind":"vhost-user","socket":"\#(socket)"\#(mode)}"#
        case 6, 7: return #"{"name":\#(one),"labels":{"k":\#(two)}}"#
        case 8: return #"{"vdis":[\#(one),\#(two)],"name":\#(word(&input))}"#
        case 9: return #"{"snapshots":["\#(version(&input))","\#(version(&input))"]}"#
        case 10: return #"{"reason":\#(one)}"#
        case 11: return #"{"snapshot":\#(one),"force":true,"keep":\#(input.byte() & 1 == 0)}"#
        case 12: return #"{"keep_last":\#(input.below(4)),"hourly":\#(input.below(4))}"#
        case 13: return text(&input)
        default:
            let members = (0..<input.below(4)).map { _ in
                "\"\(fields[input.below(fields.count)])\":\(value(&input, depth: 0))"
            }
            return "{\(members.joined(separator: ","))}"
        }
    }

    private static func word(_ input: inout Input) -> String {
        "\"\(words[input.below(words.count)])\""
    }

    private static func version(_ input: inout Input) -> String {
        "\(words[input.below(words.count)])@\(words[input.below(words.count)])"
    }

    private static func value(_ input: inout Input, depth: Int) -> String {
        switch input.below(depth > 4 ? 6 : 9) {
        case 0: return word(&input)
        case 1: return "\(input.word())"
        case 2: return "\(Int(input.byte()) - 128)"
        case 3: return input.byte() & 1 == 0 ? "true" : "false"
        case 4: return "null"
        case 5: return "\(input.below(200)).\(input.byte())e\(input.below(9))"
        case 6: return "[\(value(&input, depth: depth + 1)),\(value(&input, depth: depth + 1))]"
        case 7: return "{\(word(&input)):\(value(&input, depth: depth + 1))}"
        default: return String(repeating: "[", count: Int(input.byte()))
        }
    }
}
