// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import ParallaxCore
import ParallaxVhost
import Testing

/// Guest memory whose file is cut while it is in use.
@Suite("vhost-user memory that vanishes")
struct VhostVanishedMemoryTests {
    @Test("it is zeroes for us, and ends that connection only")
    func cut() throws {
        let fixture = try VhostFixture()
        let queue = fixture.start()
        fixture.rig.isHolding = true
        _ = queue.add(VhostRequestTests.write, write: VhostFixture.pattern(512))
        queue.run()
        #expect(ftruncate(fixture.frontEnd.memoryFile, 0) == 0)
        fixture.rig.release()
        fixture.rig.settle()
        #expect(fixture.disk(sector: 0, count: 512) == [UInt8](repeating: 0, count: 512))
        #expect(fixture.frontEnd.becomesDisconnected)
        #expect(fixture.hasNotice { if case .memoryVanished = $0 { true } else { false } })
        let next = PretendedFrontEnd(fixture.rig, path: fixture.path)
        #expect(next.ask(.getFeatures) != nil)
    }

    @Test("nothing is answered any more, even where the ring has stayed")
    func noAnswers() throws {
        let fixture = try VhostFixture()
        let front = fixture.frontEnd
        let border = 2 << 20
        front.negotiate(regions: [
            front.region(byteCount: border),
            front.region(at: border, byteCount: PretendedFrontEnd.memoryBytes - border),
        ])
        let queue = PretendedQueue(front)
        queue.start()
        fixture.rig.isHolding = true
        _ = queue.add(VhostRequestTests.write, write: VhostFixture.pattern(512))
        queue.run()
        #expect(ftruncate(front.memoryFile, off_t(border)) == 0)
        fixture.rig.release()
        #expect(queue.usedIndex == 0)
        #expect(front.becomesDisconnected)
    }

    @Test("any number of places takes a few mappings and a few MiB")
    func bounded() throws {
        let byteCount = 1 << 30
        let file = parallax_memfd_create("cut", Int64(byteCount))
        defer { close(file) }
        let mapped = mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)
        let base = try #require(mapped != MAP_FAILED ? mapped : nil)
        defer { munmap(base, byteCount) }
        let number = parallax_guard_add(base, byteCount, nil)
        #expect(number >= 0 && parallax_guard_is_hit(number) == 0)
        defer { _ = parallax_guard_remove(number) }
        #expect(ftruncate(file, 0) == 0)
        // More of them than a process may have mappings.
        for offset in stride(from: 0, to: byteCount, by: 8192) {
            base.storeBytes(of: 1, toByteOffset: offset, as: UInt8.self)
        }
        #expect(parallax_guard_is_hit(number) != 0)
        #expect(base.load(fromByteOffset: byteCount - 8192, as: UInt8.self) == 1)
        #expect(base.load(as: UInt8.self) == 0)
        #expect(Self.mappingCount(base, byteCount) <= 9)
        #expect(Self.residentBytes(base, byteCount) <= 4 << 20)
    }

    @Test("memory that the machine finds faulty is zeroes when it is used, and not before")
    func faulty() throws {
        let byteCount = 4 << 20
        let file = parallax_memfd_create("faulty", Int64(byteCount))
        defer { close(file) }
        let mapped = mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)
        let base = try #require(mapped != MAP_FAILED ? mapped : nil)
        defer { munmap(base, byteCount) }
        let number = parallax_guard_add(base, byteCount, nil)
        try #require(number >= 0)
        defer { _ = parallax_guard_remove(number) }
        base.storeBytes(of: 7, as: UInt8.self)

        // Action optional: also for a page that no guard has, which must not end the handler.
        for place in [base, base + byteCount] {
            try Self.deliverBusError(code: BUS_MCEERR_AO, place)
        }
        #expect(parallax_guard_is_hit(number) == 0)
        #expect(base.load(as: UInt8.self) == 7)

        try Self.deliverBusError(code: BUS_MCEERR_AR, base)
        #expect(parallax_guard_is_hit(number) != 0)
        #expect(base.load(as: UInt8.self) == 0)
        // An address of another page than was touched leads on to that one.
        base.storeBytes(of: 1, toByteOffset: byteCount - 1, as: UInt8.self)
        #expect(base.load(fromByteOffset: byteCount - 1, as: UInt8.self) == 1)
    }

    /// What the kernel does at a fault in memory, which no test can have: it calls the handler.
    static func deliverBusError(code: Int, _ address: UnsafeMutableRawPointer) throws {
        var installed = sigaction()
        try #require(sigaction(SIGBUS, nil, &installed) == 0)
        let handler = try #require(installed.__sigaction_handler.sa_sigaction)
        var info = siginfo_t()
        info.si_signo = SIGBUS
        info.si_code = Int32(code)
        info._sifields._sigfault.si_addr = address
        handler(SIGBUS, &info, nil)
    }

    private static func mappingCount(_ base: UnsafeMutableRawPointer, _ byteCount: Int) -> Int {
        let range = UInt(bitPattern: base)..<UInt(bitPattern: base) + UInt(byteCount)
        guard let maps = fopen("/proc/self/maps", "r") else { return .max }
        defer { fclose(maps) }
        var count = 0
        var line = [CChar](repeating: 0, count: 8192)
        while fgets(&line, 8192, maps) != nil {
            if range.contains(UInt(strtoul(line, nil, 16))) { count += 1 }
        }
        return count
    }

    private static func residentBytes(_ base: UnsafeMutableRawPointer, _ byteCount: Int) -> Int {
        var pages = [UInt8](repeating: 0, count: byteCount / 4096)
        guard mincore(base, byteCount, &pages) == 0 else { return .max }
        return pages.count { $0 & 1 != 0 } * 4096
    }
}

private func mountHuge(_ folder: String) -> Bool {
    mount("none", folder, "tmpfs", 0, "size=32m,huge=always") == 0
}

private let canMountHuge: Bool = {
    let folder = VhostFixture.makeFolder()
    defer { rmdir(folder) }
    guard mountHuge(folder) else { return false }
    return umount2(folder, Int32(MNT_DETACH)) == 0
}()

/// Memory files that may use huge pages say so by their block size, and can be mapped page by page
/// all the same. With `shmem_enabled` set to `always` each memfd is such a file.
@Suite(
    "vhost-user memory in huge pages of tmpfs",
    .enabled(if: canMountHuge, "needs the right to mount a file system"))
struct VhostHugeMemoryTests {
    @Test("the in-flight area and guest memory may begin at any page")
    func anyPage() throws {
        let folder = VhostFixture.makeFolder()
        defer { rmdir(folder) }
        try #require(mountHuge(folder))
        defer { umount2(folder, Int32(MNT_DETACH)) }
        let file = open(folder + "/memory", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        defer { close(file) }
        try #require(file >= 0 && ftruncate(file, 8 << 20) == 0)

        let fixture = try VhostFixture()
        let front = fixture.frontEnd
        front.negotiate()
        let layout = try #require(InflightLayout(queueCount: 1, queueSize: 128))
        let area = KeptArea.description(
            UInt64(layout.byteCount), offset: 4096, queues: 1, size: 128)
        #expect(front.acknowledge(.setInflightArea, area, files: [file]) == 0)
        let region = MemoryRegion(
            guestAddress: 0, byteCount: 4096, userAddress: 0, fileOffset: 12288)
        let payload = UInt64(0).bytes + region.bytes
        #expect(front.acknowledge(.addMemoryRegion, payload, files: [file]) == 0)
    }
}
