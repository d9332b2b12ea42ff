// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import ParallaxCore
import ParallaxVhost

/// An in-flight area in the hands of a front end, which can read and change all of it.
final class KeptArea {
    let layout: InflightLayout
    let description: [UInt8]
    let file: Int32
    private let memory: UnsafeMutableRawPointer

    /// Asks the device for one, as QEMU does at the first start.
    init?(_ frontEnd: PretendedFrontEnd, queues: UInt16 = 1, size: UInt16 = 128) {
        frontEnd.send(.getInflightArea, Self.description(0, queues: queues, size: size))
        guard let layout = InflightLayout(queueCount: queues, queueSize: size),
            let answer = frontEnd.receiveWithFile()
        else { return nil }
        self.layout = layout
        description = answer.payload
        file = answer.file
        let mapped = mmap(nil, layout.byteCount, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)
        guard let mapped, mapped != MAP_FAILED else { return nil }
        memory = mapped
    }

    deinit {
        munmap(memory, layout.byteCount)
        close(file)
    }

    static func description(
        _ byteCount: UInt64, offset: UInt64 = 0, queues: UInt16, size: UInt16
    ) -> [UInt8] {
        byteCount.bytes + offset.bytes + queues.bytes + size.bytes + UInt32(0).bytes
    }

    /// Gives it to the device, which answers by 0 when it takes it.
    func give(_ frontEnd: PretendedFrontEnd) -> UInt64? {
        frontEnd.acknowledge(.setInflightArea, description, files: [file])
    }

    // MARK: Fields of queue 0

    private func entry(_ head: UInt16) -> UnsafeMutableRawPointer {
        memory + InflightLayout.headerByteCount + InflightLayout.entryByteCount * Int(head)
    }

    func isMarked(_ head: UInt16) -> Bool { entry(head).load(as: UInt8.self) != 0 }

    func mark(_ head: UInt16, _ isMarked: Bool = true) {
        entry(head).storeBytes(of: isMarked ? 1 : 0, as: UInt8.self)
    }

    func counter(_ head: UInt16) -> UInt64 {
        entry(head).load(fromByteOffset: InflightLayout.counterOffset, as: UInt64.self)
    }

    var usedIndex: UInt16 {
        get { memory.load(fromByteOffset: InflightLayout.usedIndexOffset, as: UInt16.self) }
        set {
            memory.storeBytes(
                of: newValue, toByteOffset: InflightLayout.usedIndexOffset, as: UInt16.self)
        }
    }

    var version: UInt16 {
        get { memory.load(fromByteOffset: InflightLayout.versionOffset, as: UInt16.self) }
        set {
            memory.storeBytes(
                of: newValue, toByteOffset: InflightLayout.versionOffset, as: UInt16.self)
        }
    }

    var markedHeads: [UInt16] { (0..<UInt16(layout.queueSize)).filter(isMarked) }

    // MARK: Settings

    /// The disk that is named in it, as the daemon reads it. nil makes an area of a daemon that
    /// named none.
    var disk: VhostDiskIdentity? {
        get {
            guard load(InflightLayout.diskMagicOffset) == InflightLayout.diskMagic else {
                return nil
            }
            let store = StoreUUID(
                high: load(InflightLayout.storeOffset), low: load(InflightLayout.storeOffset + 8))
            return VhostDiskIdentity(store: store, version: load(InflightLayout.diskVersionOffset))
        }
        set {
            store(newValue?.store.high ?? 0, InflightLayout.storeOffset)
            store(newValue?.store.low ?? 0, InflightLayout.storeOffset + 8)
            store(newValue?.version ?? 0, InflightLayout.diskVersionOffset)
            store(newValue == nil ? 0 : InflightLayout.diskMagic, InflightLayout.diskMagicOffset)
        }
    }

    private func load(_ offset: Int) -> UInt64 {
        memory.load(fromByteOffset: layout.settingsOffset + offset, as: UInt64.self)
    }

    private func store(_ value: UInt64, _ offset: Int) {
        memory.storeBytes(
            of: value, toByteOffset: layout.settingsOffset + offset, as: UInt64.self)
    }

    /// Gives an area of any content: a device refuses another disk's and takes all others. False
    /// when it did anything else.
    func giveWhatever(_ frontEnd: PretendedFrontEnd) -> Bool {
        guard let kept = disk, kept != VhostRig.identity else { return give(frontEnd) == 0 }
        guard give(frontEnd) == 1 else { return false }
        disk = nil
        return give(frontEnd) == 0
    }

    /// All of it, with what is behind the queues.
    var bytes: UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(start: memory, count: layout.byteCount)
    }
}
