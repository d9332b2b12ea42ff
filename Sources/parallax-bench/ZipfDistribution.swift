// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc
internal import ParallaxGuest

/// Blocks of which the k-th most popular is chosen with a probability in proportion to 1 / k^theta.
///
/// By the approximation of Gray et al., "Quickly Generating Billion-Record Synthetic Databases"
/// (SIGMOD 1994), which fio uses as well. Popularity is spread over the range: neighbours in rank are
/// no neighbours on the disk.
struct ZipfDistribution {
    private let count: UInt64
    private let theta: Double
    private let zeta: Double
    private let alpha: Double
    private let eta: Double

    /// `theta` is between 0 and 1. Takes time in proportion to `count`.
    init(count: UInt64, theta: Double) {
        self.count = count
        self.theta = theta
        var sum = 0.0
        for rank in 1...count { sum += pow(Double(rank), -theta) }
        zeta = sum
        alpha = 1 / (1 - theta)
        let two = 1 + pow(2, -theta)
        eta = (1 - pow(2 / Double(count), 1 - theta)) / (1 - two / sum)
    }

    func next(_ random: inout RandomSource) -> UInt64 {
        let uniform = Double(random.next(below: 1 << 53)) / Double(1 << 53)
        return place(ofRank: rank(uniform))
    }

    /// From 0, the most popular.
    private func rank(_ uniform: Double) -> UInt64 {
        let scaled = uniform * zeta
        if scaled < 1 { return 0 }
        if scaled < 1 + pow(0.5, theta) { return 1 }
        return min(count - 1, UInt64(Double(count) * pow(eta * uniform - eta + 1, alpha)))
    }

    /// One to one, as no count of blocks is a multiple of this prime.
    private func place(ofRank rank: UInt64) -> UInt64 {
        let product = rank.multipliedFullWidth(by: 2_654_435_761)
        return count.dividingFullWidth((product.high % count, product.low)).remainder
    }
}
