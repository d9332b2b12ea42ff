// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import ParallaxCore

/// What lies behind the queues of an in-flight area: the guest's choice of writeback, and the disk
/// that its requests are for.
///
/// The front end can change it at any time. Each value is read once, any bit pattern is one, and
/// none is used as an address: a lie can only hurt the guest whose front end keeps the area.
///
/// ORDER: a value comes before its magic, which says that it is there; so a process that is killed
/// in between has left nothing.
///
/// SAFETY: `base` leads to `InflightLayout.settingsByteCount` bytes of a mapped area.
struct InflightSettings: BitwiseCopyable {
    private let base: UnsafeMutableRawPointer

    init(base: UnsafeMutableRawPointer) { self.base = base }

    /// The guest's choice, if an earlier connection left it here.
    func loadWriteback() -> Bool? {
        guard parallax_load_acquire_u64(base) == InflightLayout.writebackMagic else { return nil }
        return parallax_load_relaxed_u8(base + InflightLayout.writebackOffset) != 0
    }

    func storeWriteback(_ isOn: Bool) {
        parallax_store_relaxed_u8(base + InflightLayout.writebackOffset, isOn ? 1 : 0)
        parallax_store_release_u64(base, InflightLayout.writebackMagic)
    }

    /// The disk that served the guest before. nil: none, or by a daemon that did not say.
    func loadDisk() -> VhostDiskIdentity? {
        let magic = parallax_load_acquire_u64(base + InflightLayout.diskMagicOffset)
        guard magic == InflightLayout.diskMagic else { return nil }
        let high = parallax_load_relaxed_u64(base + InflightLayout.storeOffset)
        let low = parallax_load_relaxed_u64(base + InflightLayout.storeOffset + 8)
        let version = parallax_load_relaxed_u64(base + InflightLayout.diskVersionOffset)
        return VhostDiskIdentity(store: StoreUUID(high: high, low: low), version: version)
    }

    func storeDisk(_ disk: VhostDiskIdentity) {
        parallax_store_relaxed_u64(base + InflightLayout.storeOffset, disk.store.high)
        parallax_store_relaxed_u64(base + InflightLayout.storeOffset + 8, disk.store.low)
        parallax_store_relaxed_u64(base + InflightLayout.diskVersionOffset, disk.version)
        parallax_store_release_u64(
            base + InflightLayout.diskMagicOffset, InflightLayout.diskMagic)
    }
}
