// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Radix nodes in memory: a fixed number of 4 KiB frames.
///
/// ```
///            allocate            load done                evict
///   free ----------------> loading --------> clean -----------------> free
///    |                                         ^
///    | new node, copy      staged              | chunk applied
///    +-------------> dirty -------> writing ---+
/// ```
/// - *clean*: the content is that of `address` in the store; found by address; may be evicted
///   when nothing refers to the frame itself.
/// - *dirty*: the newest content, with no place in the store yet. Its parent (another dirty node,
///   or a VDI's root) refers to the frame: `BlockAddress.isResident`.
/// - *writing*: has its place, the chunk is on its way to the device.
///
/// A dirty node may be changed in place only if it is younger than the last freeze of its VDI (a
/// snapshot) and of the whole stream (a checkpoint); else it is copied first. So a freeze costs
/// nothing, and neither a snapshot nor a checkpoint stops the guests.
///
/// Owned by the shard thread.
/// I1 `references` is the number of resident references to the frame: entries of dirty nodes,
///    roots of VDIs, roots that a checkpoint holds.
/// I2 a frame is in the address table exactly while it is loading, clean or writing, unless it
///    `isHole`.
/// I3 `idleCount` frames are clean and have no references.
struct NodeCache: ~Copyable {
    enum State: UInt8, BitwiseCopyable { case free, loading, clean, dirty, writing }

    struct Frame: BitwiseCopyable {
        var address = BlockAddress.hole
        /// Value of `NodeCache.stamp` when the node became dirty.
        var stamp: UInt64 = 0
        var checksum: UInt32 = 0
        var references: UInt32 = 0
        var next: Int32 = -1
        var previous: Int32 = -1
        /// First of the parts that wait for the load.
        var waiters: Int32 = -1
        var state = State.free
        var level: UInt8 = 0
        /// Used since the clock hand last passed.
        var isRecent = false
        /// Frozen and unwritten, and the head has moved on to a copy: dead once it is written.
        var isSuperseded = false
        /// The read epoch of its load.
        var readEpoch: UInt8 = 2
        /// Clean and all zeros: its parent gets a hole instead of a reference.
        var isHole = false
        /// VDI and position, for the log's node records.
        var vdi: UInt64 = 0
        var firstBlock: UInt64 = 0
    }

    let frameCount: Int
    let memory: UnsafeMutableRawPointer
    let frames: UnsafeMutablePointer<Frame>
    var byAddress: IntegerMap
    private var freeHead: Int32
    private(set) var freeCount: Int
    var idleCount = 0
    private var clockHand = 0
    /// Counted up at every freeze.
    var stamp: UInt64 = 1
    /// Dirty nodes with an older stamp belong to a checkpoint.
    var checkpointStamp: UInt64 = 0
    var dirtyLists = NodeLists()
    var frozenLists = NodeLists()
    /// Frames that are dirty or writing.
    var dirtyCount = 0
    /// Frames dirtied since the last freeze, and between the two before it.
    var dirtiedSinceFreeze = 0
    var dirtiedBeforeFreeze = 0
    var evictions: UInt64 = 0
    var loads: UInt64 = 0

    init(frameCount: Int) {
        self.frameCount = frameCount
        memory = Memory.allocatePages(byteCount: frameCount * blockBytes)
        frames = .allocate(capacity: frameCount)
        frames.initialize(repeating: Frame(), count: frameCount)
        byAddress = IntegerMap(capacity: frameCount)
        for index in 0..<frameCount { frames[index].next = Int32(index + 1) }
        frames[frameCount - 1].next = -1
        freeHead = 0
        freeCount = frameCount
    }

    deinit {
        memory.deallocate()
        frames.deallocate()
    }

    /// SAFETY: `frame` is one of ours, so the block lies within `memory`.
    func content(_ frame: Int) -> UnsafeMutableRawPointer {
        precondition(frame >= 0 && frame < frameCount, "NodeCache: no such frame")
        return memory + frame * blockBytes
    }

    /// The node's 256 entries. A `BlockReference` in memory is its on-disk form: little-endian.
    func entries(_ frame: Int) -> UnsafeMutablePointer<BlockReference> {
        content(frame).assumingMemoryBound(to: BlockReference.self)
    }

    func find(_ address: BlockAddress) -> Int? {
        byAddress.find(address.rawValue).map { Int($0) }
    }

    /// Makes sure that `count` frames are free, by eviction. False when too many are in use.
    mutating func ensureFree(_ count: Int) -> Bool {
        while freeCount < count {
            guard evictOne() else { return false }
        }
        return true
    }

    mutating func allocate() -> Int? {
        guard ensureFree(1) else { return nil }
        let frame = Int(freeHead)
        freeHead = frames[frame].next
        freeCount -= 1
        frames[frame] = Frame()
        return frame
    }

    mutating func free(_ frame: Int) {
        frames[frame] = Frame()
        frames[frame].next = freeHead
        freeHead = Int32(frame)
        freeCount += 1
    }

    /// Second-chance eviction.
    private mutating func evictOne() -> Bool {
        guard idleCount > 0 else { return false }
        while true {
            let frame = clockHand
            clockHand = (clockHand + 1) % frameCount
            guard frames[frame].state == .clean, frames[frame].references == 0 else { continue }
            if frames[frame].isRecent {
                frames[frame].isRecent = false
                continue
            }
            evictions += 1
            idleCount -= 1
            if !frames[frame].isHole { byAddress.remove(frames[frame].address.rawValue) }
            free(frame)
            return true
        }
    }
}

extension NodeCache {
    /// Takes a frame for the node at `reference`; the caller reads into it. nil: none to be had.
    mutating func beginLoad(_ reference: BlockReference, level: Int) -> Int? {
        guard let frame = allocate() else { return nil }
        frames[frame].state = .loading
        frames[frame].address = reference.address
        frames[frame].checksum = reference.checksum
        frames[frame].level = UInt8(level)
        byAddress.insert(reference.address.rawValue, UInt32(frame))
        loads += 1
        return frame
    }

    /// The read is done. Returns whether the node is good; a bad one is forgotten.
    mutating func finishLoad(_ frame: Int, succeeded: Bool) -> Bool {
        precondition(frames[frame].state == .loading, "NodeCache: load of a frame in use")
        if succeeded && Checksum.ofBlock(content(frame)) == frames[frame].checksum {
            frames[frame].state = .clean
            frames[frame].isRecent = true
            idleCount += 1
            return true
        }
        byAddress.remove(frames[frame].address.rawValue)
        free(frame)
        return false
    }

    /// A dirty node with one reference, its content to be filled in by the caller.
    mutating func allocateDirty(level: Int) -> Int? {
        guard let frame = allocate() else { return nil }
        frames[frame].state = .dirty
        frames[frame].level = UInt8(level)
        frames[frame].stamp = stamp
        frames[frame].references = 1
        dirtyCount += 1
        dirtiedSinceFreeze += 1
        dirtyLists.insert(frame, level: level, frames: frames)
        return frame
    }

    mutating func retain(_ frame: Int) {
        if frames[frame].references == 0 && frames[frame].state == .clean { idleCount -= 1 }
        frames[frame].references += 1
    }

    /// Takes one resident reference back. A dirty node that nobody refers to any more vanishes,
    /// and so does what only it referred to.
    mutating func release(_ frame: Int) {
        precondition(frames[frame].references > 0, "NodeCache I1: release without a reference")
        frames[frame].references -= 1
        guard frames[frame].references == 0 else { return }
        switch frames[frame].state {
        case .dirty:
            if frames[frame].level > 0 {
                let entries = entries(frame)
                for slot in 0..<radixFanout where entries[slot].address.isResident {
                    release(entries[slot].address.residentFrame)
                }
            }
            unlinkDirty(frame)
            dirtyCount -= 1
            free(frame)
        case .clean:
            if frames[frame].isHole { free(frame) } else { idleCount += 1 }
        case .writing: break
        case .free, .loading: preconditionFailure("NodeCache I1: reference to an unused frame")
        }
    }

    mutating func unlinkDirty(_ frame: Int) {
        let level = Int(frames[frame].level)
        if frames[frame].stamp < checkpointStamp {
            frozenLists.remove(frame, level: level, frames: frames)
        } else {
            dirtyLists.remove(frame, level: level, frames: frames)
        }
    }

    /// All dirty nodes of a tree become part of a version: whoever remembers the returned stamp
    /// copies them before a change.
    mutating func freezeForVersion() -> UInt64 {
        stamp += 1
        return stamp
    }

    /// All dirty nodes become part of a checkpoint; from now on a change copies them.
    mutating func freezeForCheckpoint() {
        precondition(frozenLists.isEmpty, "NodeCache: a checkpoint is still being written")
        stamp += 1
        checkpointStamp = stamp
        swap(&dirtyLists, &frozenLists)
        dirtiedBeforeFreeze = dirtiedSinceFreeze
        dirtiedSinceFreeze = 0
    }

    /// Nodes that a replay from the last durable checkpoint may have to hold dirty at once.
    var replayBound: Int { dirtiedBeforeFreeze + dirtiedSinceFreeze }

    /// The frozen node has got its place.
    mutating func beginWrite(_ frame: Int, address: BlockAddress, checksum: UInt32) {
        frozenLists.remove(frame, level: Int(frames[frame].level), frames: frames)
        frames[frame].state = .writing
        frames[frame].address = address
        frames[frame].checksum = checksum
        byAddress.insert(address.rawValue, UInt32(frame))
    }

    /// The chunk with the node is on the device.
    mutating func finishWrite(_ frame: Int) {
        precondition(frames[frame].state == .writing, "NodeCache: write of a frame in use")
        frames[frame].state = .clean
        frames[frame].isRecent = true
        dirtyCount -= 1
        if frames[frame].references == 0 { idleCount += 1 }
    }

    /// The frozen node is all zeros: it needs no place.
    mutating func finishAsHole(_ frame: Int) {
        frozenLists.remove(frame, level: Int(frames[frame].level), frames: frames)
        frames[frame].state = .clean
        frames[frame].isHole = true
        dirtyCount -= 1
        if frames[frame].references == 0 { free(frame) }
    }
}

/// Doubly linked lists of frames, one for each level, through `Frame.next` and `previous`.
struct NodeLists: BitwiseCopyable {
    private var heads: (Int32, Int32, Int32, Int32, Int32) = (-1, -1, -1, -1, -1)

    func first(level: Int) -> Int? {
        let head =
            switch level {
            case 0: heads.0
            case 1: heads.1
            case 2: heads.2
            case 3: heads.3
            default: heads.4
            }
        return head < 0 ? nil : Int(head)
    }

    private mutating func setFirst(_ frame: Int32, level: Int) {
        switch level {
        case 0: heads.0 = frame
        case 1: heads.1 = frame
        case 2: heads.2 = frame
        case 3: heads.3 = frame
        default: heads.4 = frame
        }
    }

    var isEmpty: Bool { (0..<Limits.radixLevels).allSatisfy { first(level: $0) == nil } }

    mutating func insert(_ frame: Int, level: Int, frames: UnsafeMutablePointer<NodeCache.Frame>) {
        let head = first(level: level)
        frames[frame].previous = -1
        frames[frame].next = Int32(head ?? -1)
        if let head { frames[head].previous = Int32(frame) }
        setFirst(Int32(frame), level: level)
    }

    mutating func remove(_ frame: Int, level: Int, frames: UnsafeMutablePointer<NodeCache.Frame>) {
        let next = frames[frame].next
        let previous = frames[frame].previous
        if previous >= 0 {
            frames[Int(previous)].next = next
        } else {
            setFirst(next, level: level)
        }
        if next >= 0 { frames[Int(next)].previous = previous }
        frames[frame].next = -1
        frames[frame].previous = -1
    }
}
