#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
"""One test for each rule of scripts/tidy: what it lets through and what it catches."""

import importlib.machinery
import importlib.util
import pathlib
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
SCRIPTS = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(SCRIPTS))

import tidy_rules as rules

loader = importlib.machinery.SourceFileLoader("tidy", str(SCRIPTS / "tidy"))
tidy = importlib.util.module_from_spec(importlib.util.spec_from_loader("tidy", loader))
loader.exec_module(tidy)

CORE = "Sources/ParallaxCore/X.swift"


def found(check, path, text, *more):
    return [f.rule for f in check(rules.Source.of(path, text), *more) if not f.warning]


class Sizes(unittest.TestCase):
    def test_files(self):
        self.assertEqual(found(rules.check_file_length, CORE, "x\n" * 600), [])
        self.assertEqual(found(rules.check_file_length, CORE, "x\n" * 601), ["file-length"])
        self.assertEqual(found(rules.check_file_length, "docs/x.md", "x\n" * 601), [])
        findings = list(rules.check_file_length(rules.Source.of(CORE, "x\n" * 401)))
        self.assertTrue(findings[0].warning)

    def test_swift_functions(self):
        for head in ("func f()", "init?(a: Int = g({ 1 }))", "deinit", "subscript(i: Int) -> Int",
                     "func == <T>(a: T, b: T)\n  throws(E) -> (Int, Int) where T: ~Copyable",
                     "mutating func f(\n  a: Int,\n  b: [String: Int]\n) async"):
            fits = f"{head} {{\n" + "x\n" * 68 + "}\n"
            self.assertEqual(found(rules.check_function_length, CORE, fits), [], head)
            long = f"{head} {{\n" + "x\n" * 69 + "}\n"
            self.assertEqual(found(rules.check_function_length, CORE, long),
                             ["function-length"], head)

    def test_what_is_no_function(self):
        body = "x\n" * 80
        for text in (f"protocol P {{\nfunc f()\nvar x: Int {{ get }}\n{body}}}\n",
                     f"struct S {{\nlet a = T.init(x)\n{body}}}\n",
                     f"let s = \"func f() {{\"\n{body}\n",
                     f"// func f() {{\n{body}\n"):
            self.assertEqual(found(rules.check_function_length, CORE, text), [])

    def test_braces_in_strings_do_not_count(self):
        text = 'func f() {\n  let a = "{"\n  let b = #"{"#\n}\n' + "x\n" * 80
        self.assertEqual(found(rules.check_function_length, CORE, text), [])

    def test_script_functions(self):
        shell = "#!/bin/bash\nf() {\n" + ": x\n" * 80 + "}\n"
        self.assertEqual(found(rules.check_function_length, "scripts/x", shell),
                         ["function-length"])
        python = "def f():\n" + "    x = 1\n" * 80
        self.assertEqual(found(rules.check_function_length, "x.py", python), ["function-length"])


class Swift(unittest.TestCase):
    def imports(self, path, text):
        return found(rules.check_imports, path, text)

    def test_import_table(self):
        self.assertEqual(self.imports(CORE, "import CChecksum\nimport Synchronization\n"), [])
        for module in ("Glibc", "Foundation", "CLinux", "ParallaxIO"):
            self.assertEqual(self.imports(CORE, f"internal import {module}\n"), ["import"])
        vhost = "Sources/ParallaxVhost/Session/X.swift"
        self.assertEqual(self.imports(vhost, "import ParallaxCore\nimport Glibc\n"), [])
        for module in ("ParallaxNBD", "ParallaxIO", "Foundation"):
            self.assertEqual(self.imports(vhost, f"package import {module}\n"), ["import"])
        self.assertEqual(self.imports("Tests/IntegrationTests/X.swift", "import ParallaxIO"),
                         ["import"])

    def test_import_forms(self):
        self.assertEqual(self.imports(CORE, "@preconcurrency import Foundation\n"), ["import"])
        self.assertEqual(self.imports(CORE, "import struct Foundation.Date\n"), ["import"])
        self.assertEqual(self.imports(CORE, "// import Foundation\nlet s = \"import Foundation\""),
                         [])

    def test_c_modules_stay_inside(self):
        io = "Sources/ParallaxIO/X.swift"
        self.assertEqual(self.imports(io, "internal import CLinux\n"), [])
        self.assertEqual(self.imports(io, "public import CLinux\n"), ["import"])
        self.assertEqual(self.imports(io, "package import ParallaxCore\n"), [])

    def test_unknown_target(self):
        self.assertEqual(self.imports("Sources/Novelty/X.swift", ""), ["import"])

    def test_banned_calls(self):
        for text in ("let a = try! f()", "fatalError(\"x\")", "let a = b as! C", "import XCTest"):
            self.assertEqual(found(rules.check_banned_calls, CORE, text), ["banned-call"], text)
        self.assertEqual(found(rules.check_banned_calls, CORE, "try? f() // try! f()"), [])

    def test_print(self):
        self.assertEqual(found(rules.check_banned_calls, CORE, "print(1)"), ["print"])
        self.assertEqual(found(rules.check_banned_calls, CORE, "out.print(1)"), [])
        ctl = "Sources/parallax-ctl/X.swift"
        self.assertEqual(found(rules.check_banned_calls, ctl, "print(1)"), [])

    def test_repeatable(self):
        check = rules.check_banned_calls
        sim = "Sources/ParallaxSimulation/X.swift"
        for text in ("clock_gettime(a, b)", "Int.random(in: 0..<9)", "ContinuousClock.now"):
            self.assertEqual(found(check, sim, text), ["repeatable"], text)
        for text in ("Int.random(in: 0..<9, using: &seed)", "Operation.random(weights, &seed)"):
            self.assertEqual(found(check, sim, text), [], text)
        self.assertEqual(found(check, "Sources/ParallaxIO/X.swift", "clock_gettime(a, b)"), [])

    def test_safety_note(self):
        check = rules.check_banned_calls
        bare = "final class A: @unchecked Sendable {}\n"
        self.assertEqual(found(check, CORE, bare), ["safety"])
        noted = "// SAFETY: one thread writes,\n// the rest read after join.\n@safe\n" + bare
        self.assertEqual(found(check, CORE, noted), [])
        pair = "// SAFETY: x\n" + "nonisolated(unsafe) var a\n" * 2
        self.assertEqual(found(check, CORE, pair), [])
        far = "// SAFETY: of something else\nlet x = 1\n" + bare
        self.assertEqual(found(check, CORE, far), ["safety"])
        self.assertEqual(found(check, CORE, "nonisolated(unsafe) var x = 1\n"), ["safety"])


class Texts(unittest.TestCase):
    def test_spdx(self):
        head = "// SPDX-License-Identifier: Apache-2.0\n"
        self.assertEqual(found(rules.check_spdx, CORE, head), ["spdx"])
        whole = head + "// SPDX-FileCopyrightText: The Parallax authors\n"
        self.assertEqual(found(rules.check_spdx, CORE, whole), [])
        self.assertEqual(found(rules.check_spdx, "README.md", ""), [])
        self.assertEqual(found(rules.check_spdx, "scripts/x", "#!/bin/sh\n"), ["spdx", "spdx"])

    def test_reminders(self):
        check = rules.check_reminders_and_paths
        self.assertEqual(found(check, CORE, "// FIXME\n// TODO: x\n"), ["reminder"] * 2)
        self.assertEqual(found(check, CORE, "// TODO(#12): x\n// TODO #3 y\n"), [])

    def test_machine_paths(self):
        check = rules.check_reminders_and_paths
        for text in ("cd /root/x", '"/home/me/x"', "`/" "work/x`"):
            self.assertEqual(found(check, "README.md", text), ["machine-path"], text)
        for text in ("/var/lib/parallax", "a/root/x", "$DIR/work/x", "docs/work/x"):
            self.assertEqual(found(check, "README.md", text), [], text)

    def test_white_space(self):
        check = rules.check_white_space
        self.assertEqual(found(check, CORE, "a\n\n"), [])
        self.assertEqual(found(check, CORE, "a \n"), ["white-space"])
        self.assertEqual(found(check, CORE, "a"), ["white-space"])
        self.assertEqual(found(check, CORE, "<<<<<<< HEAD\n"), ["white-space"])
        self.assertEqual(found(check, "x.sh", "x" * 101 + "\n"), ["white-space"])

    def test_links(self):
        files = {"docs/a.md", "docs", "README.md", "Sources/ParallaxCore/X.swift", "scripts/demo"}

        def links(text, path="docs/a.md"):
            return found(rules.check_links, path, text, files)

        self.assertEqual(links("[x](../README.md) [y](a.md#z) [z](https://x.org/y) [d](./)"), [])
        self.assertEqual(links("[x](b.md)"), ["link"])
        self.assertEqual(links("# A b `c`!\n[x](#a-b-c)"), [])
        self.assertEqual(links("[x](#nowhere)"), ["link"])
        self.assertEqual(links("`X.swift` `ParallaxCore/X.swift` `scripts/demo` `a.md`"), [])
        self.assertEqual(links("`Y.swift` `scripts/gone`"), ["link"] * 2)

    def test_bytes(self):
        def rule(data, executable=False):
            return [f.rule for f in rules.check_bytes("x", data, executable)]

        self.assertEqual(rule(b"text\n"), [])
        self.assertEqual(rule(b"\x7fELF\0"), ["binary"])
        self.assertEqual(rule(b"\xff\xfe"), ["binary"])
        self.assertEqual(rule(b"x" * (rules.FILE_BYTES_MAX + 1)), ["binary"])
        self.assertEqual(rule(b"#!/bin/sh\n"), ["mode"])
        self.assertEqual(rule(b"x", True), ["mode"])


class Waivers(unittest.TestCase):
    def test_reading(self):
        self.assertEqual(list(tidy.read_waivers("# c\n\nlink a.md old note\n")),
                         [(3, "link", "a.md")])
        with self.assertRaises(ValueError):
            list(tidy.read_waivers("link a.md\n"))

    def test_applying(self):
        finding = rules.Finding("link", "README.md", 3, "m")
        used, idle = (1, "link", "README.md"), (2, "spdx", "README.md")
        self.assertEqual(tidy.apply_waivers([finding], [used], ["README.md"]), [])
        kept = tidy.apply_waivers([finding], [used, idle], ["README.md"])
        self.assertEqual([f.rule for f in kept], ["waiver"])

    def test_a_tree(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            (root / "a.md").write_text("[x](b.md)\n")
            findings = list(tidy.check_tree(root, ["a.md"], ["a.md"]))
            self.assertEqual([f.rule for f in findings], ["link"])


if __name__ == "__main__":
    unittest.main()
