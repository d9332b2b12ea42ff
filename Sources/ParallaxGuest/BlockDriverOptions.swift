// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What a guest asks for when it starts its disk.
package struct BlockDriverOptions: Sendable {
    package var queueCount = 1
    /// Descriptors in each ring; a power of two. QEMU's default is 128.
    package var queueSize = 128
    /// How many requests may be in flight in each queue.
    package var requestsPerQueue = 32
    /// The most data that one request may carry.
    package var bufferBytes = 128 << 10
    /// Cuts the data of a request into descriptors of at most this length; the device's own limit
    /// (`size_max`) cuts further.
    package var dataSegmentBytes = Int.max
    /// Features that are accepted if offered. Take out `.eventIndex` or `.indirectDescriptors` to
    /// run without.
    package var features = VirtioFeatures.understood
    package var protocolFeatures = VhostUserProtocolFeatures.understood
    /// How long the device may take for an answer on the socket, and for a blocking call.
    package var timeoutMilliseconds = 10_000

    package init() {}
}
