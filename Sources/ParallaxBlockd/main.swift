// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ArgumentParser
import Glibc
import ParallaxControl

// One line says why; exit 0, 1 (failed) or 64 (usage). Only asking for help prints more.
do {
    var command = try DaemonCommand.parseAsRoot()
    try command.run()
} catch let error as ControlError {
    writeStandardError("parallax-blockd: \(error.message)")
    exit(error.kind == .invalid ? 64 : 1)
} catch {
    let code = DaemonCommand.exitCode(for: error)
    guard code.isSuccess else {
        writeStandardError("parallax-blockd: \(DaemonCommand.message(for: error))")
        exit(code.rawValue)
    }
    print(DaemonCommand.fullMessage(for: error))
}
