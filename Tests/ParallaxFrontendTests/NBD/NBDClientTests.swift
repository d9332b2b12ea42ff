// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxCore
import ParallaxNBD
import Testing

/// The programs that people use, against the server in this process. Needs libnbd-bin,
/// qemu-utils, nbd-client and fio.
@Suite("NBD clients")
struct NBDClientTests {
    private let folder = TemporaryFolder()
    private let server: NBDTestServer
    private let size = 24 << 20

    init() throws {
        server = NBDTestServer(byteCount: size)
        try server.listen(
            folder.file("nbd.sock"),
            exports: [
                NBDExport(name: "disk", byteCount: UInt64(size), description: "the test's disk"),
                NBDExport(name: "disk@noon", byteCount: UInt64(size), isReadOnly: true),
            ])
    }

    private func uri(_ export: String = "disk") -> String {
        "nbd+unix:///\(export)?socket=\(folder.file("nbd.sock"))"
    }

    /// Runs a program to its end, serving it all the while.
    private func run(_ arguments: String...) throws -> (code: Int32, output: String) {
        let child = try ChildProcess(arguments)
        while child.collect() { server.turn(timeout: 1000, also: [child.outputFD]) }
        server.settle()
        #expect(server.connections.isEmpty, "the client left a connection")
        return child.finish()
    }

    /// An image file with data, zeroes and a hole; `count` bytes.
    private func makeImage(_ name: String, count: Int) throws -> [UInt8] {
        var bytes = pattern(count, seed: 5)
        for index in min(count, 1 << 20)..<min(count, 3 << 20) { bytes[index] = 0 }
        let descriptor = creat(folder.file(name), 0o600)
        #expect(write(descriptor, bytes, count) == count)
        close(descriptor)
        return bytes
    }

    private func contents(_ name: String) -> [UInt8] {
        let descriptor = open(folder.file(name), O_RDONLY)
        defer { close(descriptor) }
        var status = stat()
        fstat(descriptor, &status)
        var bytes = [UInt8](repeating: 0, count: Int(status.st_size))
        #expect(read(descriptor, &bytes, bytes.count) == bytes.count)
        return bytes
    }

    @Test("nbdinfo understands export, size, flags, contexts, list and map")
    func nbdinfo() throws {
        let info = try run("nbdinfo", uri())
        #expect(info.code == 0, "\(info.output)")
        for line in [
            "protocol: newstyle-fixed without TLS, using structured packets",
            "export-size: \(size)", "base:allocation", "can_multi_conn: true", "can_flush: true",
            "can_fua: true", "can_trim: true", "can_zero: true", "can_fast_zero: true",
            "can_df: true", "can_cache: true", "is_read_only: false", "block_size_minimum: 512",
            "block_size_preferred: 4096", "block_size_maximum: 33554432",
        ] { #expect(info.output.contains(line), "\(line) in \(info.output)") }
        #expect(try run("nbdinfo", "--size", uri()).output == "\(size)\n")
        let list = try run("nbdinfo", "--list", "--json", uri(""))
        #expect(list.code == 0, "\(list.output)")
        for word in ["\"disk\"", "\"disk@noon\"", "the test's disk"] {
            #expect(list.output.contains(word), "\(word) in \(list.output)")
        }
        server.engine.isAllocated[1] = true
        let map = try run("nbdinfo", "--map", uri())
        #expect(map.code == 0)
        let lines = map.output.split(separator: "\n").map { $0.split(separator: " ") }
        #expect(
            lines.map { $0.prefix(3).map(String.init) } == [
                ["0", "4096", "3"], ["4096", "4096", "0"], ["8192", "\(size - 8192)", "3"],
            ])
        #expect(try run("nbdinfo", uri("nowhere")).code != 0)
    }

    @Test("nbd-client lists the exports")
    func nbdClient() throws {
        let list = try run("nbd-client", "-l", "-u", folder.file("nbd.sock"))
        #expect(list.code == 0, "\(list.output)")
        #expect(list.output.contains("disk: the test's disk"), "\(list.output)")
        #expect(list.output.contains("disk@noon"))
    }

    @Test("qemu-img converts in and out, compares, maps and measures")
    func qemuImg() throws {
        let bytes = try makeImage("image", count: size)
        let path = folder.file("image")
        let `in` = try run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", path, uri())
        #expect(`in`.code == 0, "\(`in`.output)")
        expect(server.engine.holds(bytes, at: 0))
        let compare = try run("qemu-img", "compare", "-f", "raw", "-F", "raw", path, uri())
        #expect(compare.output.contains("Images are identical."), "\(compare.output)")
        let map = try run("qemu-img", "map", "--output=json", "-f", "raw", uri())
        #expect(map.output.contains("\"zero\": true"), "\(map.output)")
        let info = try run("qemu-img", "info", uri("disk@noon"))
        #expect(info.output.contains("virtual size: 24 MiB"), "\(info.output)")
        let out = try run(
            "qemu-img", "convert", "-O", "qcow2", uri("disk@noon"), folder.file("out.qcow2"))
        #expect(out.code == 0, "\(out.output)")
        let same = try run("qemu-img", "compare", path, folder.file("out.qcow2"))
        #expect(same.output.contains("Images are identical."), "\(same.output)")
    }

    @Test("qemu-io reads, writes, zeroes, discards and flushes; read-only is read-only")
    func qemuIO() throws {
        let done = try run(
            "qemu-io", "-f", "raw", "-c", "write -P 7 1k 100k", "-c", "write -f -P 8 5000 3",
            "-c", "write -z 16k 64k", "-c", "discard 80k 8k", "-c", "flush",
            "-c", "read -P 7 1k 3k", "-c", "read -P 8 5000 3", "-c", "read -P 0 16k 72k",
            "-c", "aio_write -P 9 4M 8M", "-c", "aio_flush", "-c", "read -P 9 4M 8M", uri())
        #expect(done.code == 0, "\(done.output)")
        #expect(!done.output.contains("failed"), "\(done.output)")
        let bytes = pattern(4096)
        server.engine.fill(at: 0, bytes)
        let refused = try run("qemu-io", "-f", "raw", "-c", "write 0 4k", uri("disk@noon"))
        #expect(refused.code != 0)
        expect(server.engine.holds(bytes, at: 0))
    }

    @Test(
        "qemu-io sees the engine's errors as errno",
        arguments: [
            (BlockStatus.ioError, "Input/output error"), (.corrupt, "Input/output error"),
            (.noSpace, "No space left on device"),
        ])
    func qemuIOErrors(status: BlockStatus, text: String) throws {
        server.engine.failures = [8: status]
        let result = try run(
            "qemu-io", "-f", "raw", "-c", "write 0 8k", "-c", "read 0 1M", "-c", "read 8k 8k",
            uri())
        #expect(result.output.contains("write failed: \(text)"), "\(result.output)")
        #expect(result.output.contains("read failed: \(text)"), "\(result.output)")
        #expect(result.output.contains("read 8192/8192 bytes"), "\(result.output)")
    }

    @Test("nbdcopy copies both ways over several connections")
    func nbdcopy() throws {
        let bytes = try makeImage("image", count: size)
        let `in` = try run("nbdcopy", "--flush", folder.file("image"), uri())
        #expect(`in`.code == 0, "\(`in`.output)")
        expect(server.engine.holds(bytes, at: 0))
        #expect(server.handoverCount >= 2)
        let zeroed = server.engine.isAllocated[256..<768]
        #expect(zeroed.allSatisfy { !$0 }, "zeroes become holes")
        let out = try run("nbdcopy", uri("disk@noon"), folder.file("copy"))
        #expect(out.code == 0, "\(out.output)")
        expect(isSame(contents("copy"), bytes))
        let failing = try {
            server.engine.failures = [1000: .corrupt]
            return try run("nbdcopy", uri(), folder.file("copy"))
        }()
        #expect(failing.code != 0)
    }

    @Test("qemu-img takes images of an odd size", arguments: [1000, 5_000_001])
    func oddSizes(count: Int) throws {
        let bytes = try makeImage("image", count: count)
        let path = folder.file("image")
        let convert = try run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", path, uri())
        #expect(convert.code == 0, "\(convert.output)")
        expect(server.engine.holds(bytes, at: 0))
    }

    @Test("fio verifies what it wrote", arguments: [(512, 1), (4096, 32), (1 << 20, 8)])
    func fio(blockBytes: Int, depth: Int) throws {
        let result = try run(
            "fio", "--name=job", "--ioengine=nbd", "--uri=\(uri())", "--rw=randwrite",
            "--bs=\(blockBytes)", "--iodepth=\(depth)", "--size=\(size)",
            "--io_size=\(min(size, blockBytes * 2000))", "--verify=crc32c", "--verify_fatal=1",
            "--fsync=50", "--randseed=7", "--verify_state_save=0")
        #expect(result.code == 0, "\(result.output)")
        #expect(result.output.contains("err= 0"), "\(result.output)")
    }
}
