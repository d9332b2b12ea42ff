// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ArgumentParser
import Glibc
import ParallaxControl

// One line says why; exit 0, 1 (failed) or 64 (usage). Only asking for help prints more.
signal(SIGPIPE, SIG_DFL)
do {
    var command = try RootCommand.parseAsRoot()
    try command.run()
} catch let code as ExitCode {
    // What failed has been said already.
    exit(code.rawValue)
} catch let error as ControlError {
    writeStandardError("parallax-ctl: \(error.message)")
    exit(1)
} catch {
    let code = RootCommand.exitCode(for: error)
    guard code.isSuccess else {
        writeStandardError("parallax-ctl: \(RootCommand.message(for: error))")
        exit(code.rawValue)
    }
    print(RootCommand.fullMessage(for: error))
}
