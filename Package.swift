// swift-tools-version: 6.2
// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import PackageDescription

let swift: [SwiftSetting] = [
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
]

let c: [CSetting] = [
    .enableWarning("all"),
    .enableWarning("extra"),
    .treatAllWarnings(as: .error),
]

let argumentParser: Target.Dependency =
    .product(name: "ArgumentParser", package: "swift-argument-parser")

let package = Package(
    name: "parallax",
    products: [
        .executable(name: "parallax-blockd", targets: ["ParallaxBlockd"]),
        .executable(name: "parallax-ctl", targets: ["parallax-ctl"]),
        .executable(name: "parallax-bench", targets: ["parallax-bench"]),
        .executable(name: "parallax-sim", targets: ["parallax-sim"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/LebJe/TOMLKit", from: "0.6.0"),
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
    ],
    targets: [
        // C shims: one header each, no logic beyond arithmetic and system calls.
        .target(name: "CChecksum", cSettings: c),
        .target(name: "CLinux", cSettings: c),
        .target(name: "CXen", cSettings: c),
        .target(name: "CLiburing", cSettings: c, linkerSettings: [.linkedLibrary("uring")]),
        .target(name: "CLibaio", cSettings: c, linkerSettings: [.linkedLibrary("aio")]),

        // The storage engine: no system calls, no clock, no threads.
        .target(name: "ParallaxCore", dependencies: ["CChecksum"], swiftSettings: swift),

        // The kernel boundary.
        .target(
            name: "ParallaxIO",
            dependencies: ["ParallaxCore", "CLiburing", "CLibaio", "CLinux"],
            swiftSettings: swift),

        // Front ends.
        .target(
            name: "ParallaxVhost", dependencies: ["ParallaxCore", "CLinux"], swiftSettings: swift),
        .target(
            name: "ParallaxNBD", dependencies: ["ParallaxCore", "CLinux"], swiftSettings: swift),
        .target(
            name: "ParallaxXen", dependencies: ["ParallaxCore", "CLinux", "CXen"],
            swiftSettings: swift),

        // Control plane.
        .target(name: "ParallaxRetention", swiftSettings: swift),
        .target(
            name: "ParallaxControl", dependencies: ["ParallaxRetention"], swiftSettings: swift),
        .executableTarget(
            name: "ParallaxBlockd",
            dependencies: [
                "ParallaxCore", "ParallaxIO", "ParallaxVhost", "ParallaxNBD", "ParallaxXen",
                "ParallaxControl", "ParallaxRetention", "CLinux", argumentParser,
                .product(name: "Logging", package: "swift-log"),
                .product(name: "TOMLKit", package: "TOMLKit"),
            ],
            swiftSettings: swift),
        .executableTarget(
            name: "parallax-ctl",
            dependencies: [
                "ParallaxControl", "ParallaxRetention", "ParallaxCore", "ParallaxIO", "CLinux",
                argumentParser,
            ],
            swiftSettings: swift),

        // Development tools; not shipped.
        .target(
            name: "ParallaxSimulation", dependencies: ["ParallaxCore", "ParallaxRetention"],
            swiftSettings: swift),
        .target(
            name: "ParallaxGuest", dependencies: ["ParallaxCore", "CLinux", "CXen"],
            swiftSettings: swift),
        .target(
            name: "ParallaxXenSimulation",
            dependencies: ["ParallaxSimulation", "ParallaxGuest", "ParallaxXen", "ParallaxCore"],
            swiftSettings: swift),
        .executableTarget(
            name: "parallax-sim",
            dependencies: [
                "ParallaxSimulation", "ParallaxXenSimulation", "ParallaxCore", argumentParser,
            ],
            swiftSettings: swift),
        .executableTarget(
            name: "parallax-bench",
            dependencies: [
                "ParallaxGuest", "ParallaxVhost", "ParallaxXen", "ParallaxCore", "CLinux",
                argumentParser,
                .product(name: "Histogram", package: "hdrhistogram-swift"),
            ],
            swiftSettings: swift),

        // Tests.
        .testTarget(
            name: "ParallaxCoreTests", dependencies: ["ParallaxCore", "ParallaxSimulation"],
            swiftSettings: swift),
        .testTarget(
            name: "ParallaxIOTests", dependencies: ["ParallaxIO", "ParallaxCore", "CLinux"],
            swiftSettings: swift),
        .testTarget(
            name: "ParallaxFrontendTests",
            dependencies: [
                "ParallaxVhost", "ParallaxNBD", "ParallaxXen", "ParallaxGuest", "ParallaxCore",
                "CLinux", "ParallaxSimulation",
            ],
            swiftSettings: swift),
        .testTarget(
            name: "ParallaxControlTests",
            dependencies: [
                "ParallaxControl", "ParallaxRetention", "ParallaxBlockd", "ParallaxXen",
                "ParallaxNBD", "ParallaxIO", "parallax-ctl", "ParallaxCore", argumentParser,
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: swift),
        .testTarget(
            name: "ParallaxRetentionTests",
            dependencies: ["ParallaxRetention", "ParallaxSimulation"], swiftSettings: swift),
        .testTarget(
            name: "SimulationTests",
            dependencies: ["ParallaxSimulation", "ParallaxXenSimulation", "ParallaxCore"],
            swiftSettings: swift),
        .testTarget(
            name: "IntegrationTests",
            dependencies: ["ParallaxGuest", "ParallaxControl", "ParallaxCore", "CLinux"],
            swiftSettings: swift),
    ],
    swiftLanguageModes: [.v6]
)

// ThreadSanitizer, for scripts/sanitize: Swift 6.3 does not compile these modules with it, in which only
// one thread works at a time. They are optimised so that no copies of the standard library's atomics are
// left in them, which the linker would take for those of all.
if Context.environment["PARALLAX_THREAD_SANITIZER"] != nil {
    let plain: Set<String> = [
        "ParallaxCore", "ParallaxVhost", "ParallaxNBD", "ParallaxXen", "parallax-bench",
        "ParallaxCoreTests",
    ]
    let sanitizedC = CSetting.unsafeFlags(["-fsanitize=thread"])
    let sanitizedSwift = SwiftSetting.unsafeFlags(["-sanitize=thread"])
    let unsanitizedSwift = SwiftSetting.unsafeFlags(["-O"])
    let sanitizedProgram = LinkerSetting.unsafeFlags(["-sanitize=thread"])
    for target in package.targets {
        if target.name.hasPrefix("C") {
            target.cSettings = c + [sanitizedC]
        } else {
            let isPlain = plain.contains(target.name)
            target.swiftSettings = swift + [isPlain ? unsanitizedSwift : sanitizedSwift]
        }
        if target.type == .executable || target.type == .test {
            target.linkerSettings = [sanitizedProgram]
        }
    }
}

// The fuzz targets need libFuzzer's main: scripts/fuzz builds them, in a folder of their own. They call
// the daemon's control plane, so there the daemon is a library.
if Context.environment["PARALLAX_FUZZ"] != nil {
    package.products.removeAll { $0.name == "parallax-blockd" }
    package.targets = package.targets.map { target in
        guard target.name == "ParallaxBlockd" else { return target }
        return .target(
            name: target.name, dependencies: target.dependencies, exclude: ["main.swift"],
            swiftSettings: swift)
    }
    package.targets.append(
        .executableTarget(
            name: "parallax-fuzz",
            dependencies: [
                "ParallaxVhost", "ParallaxNBD", "ParallaxControl", "ParallaxBlockd",
                "ParallaxCore", "CLinux", .product(name: "Logging", package: "swift-log"),
            ],
            path: "Fuzz/parallax-fuzz", swiftSettings: swift))
}
