// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// The engine's books against a walk through all that it refers to.
extension SimulatedHost {
    func takeCensus() throws(SimulationFailure) {
        guard !mayBeDamaged else { return }
        let device = device
        for stream in streams where stream.engine?.failureMessage == nil {
            let census = stream.engine?.census { offset, target in
                device.peek(
                    at: offset,
                    into: UnsafeMutableRawBufferPointer(start: target, count: blockBytes))
            }
            guard let census else { continue }
            statistics.censuses += 1
            trace.note(
                .census, UInt64(stream.index), UInt64(census.live.values.reduce(0, +)),
                "  census of stream \(stream.index)")
            try check(census, stream)
        }
    }

    private func check(
        _ census: StreamCensus, _ stream: SimulatedStream
    ) throws(SimulationFailure) {
        let place = "census of stream \(stream.index)"
        if let problem = census.problems.first { throw SimulationFailure("\(place): \(problem)") }
        for extent in Set(census.live.keys).union(census.counted.keys).sorted() {
            let live = census.live[extent] ?? 0
            let counted = census.counted[extent] ?? 0
            guard live == counted else {
                throw SimulationFailure(
                    "\(place): extent \(extent) has \(live) live blocks and counts \(counted)")
            }
        }
        for identifier in census.exclusive.keys.sorted() {
            guard let summary = stream.engine?.summary(of: identifier),
                let told = summary.exclusiveBytes
            else { continue }
            let found = (census.exclusive[identifier] ?? 0) * UInt64(blockBytes)
            guard told == found else {
                throw SimulationFailure(
                    "\(place): snapshot \(hex(identifier)) alone holds \(found) bytes and tells "
                        + "\(told)")
            }
        }
    }
}
