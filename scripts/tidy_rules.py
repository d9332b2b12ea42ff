# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
"""The rules of scripts/tidy: each check takes a file and yields findings."""

import ast
import pathlib
import re
from typing import NamedTuple

FILE_LINES_WARN, FILE_LINES_FAIL = 400, 600
FUNCTION_LINES_WARN, FUNCTION_LINES_FAIL = 40, 70
SCRIPT_COLUMNS = 100
FILE_BYTES_MAX = 512 * 1024

# Import table: what each target may import. Core has no system below it; front ends know Core and
# nothing of each other or of the kernel boundary; Foundation stays off the data path.
STANDARD = {"Swift", "Synchronization"}
CORE = STANDARD | {"ParallaxCore"}
KERNEL = CORE | {"CLinux", "Glibc"}
FOUNDATION = {"Foundation", "FoundationEssentials"}
TESTS = KERNEL | FOUNDATION | {"Testing"}
IMPORTS = {
    "ParallaxCore": STANDARD | {"CChecksum", "BasicContainers", "DequeModule"},
    "ParallaxIO": KERNEL | {"CLiburing", "CLibaio"},
    "ParallaxVhost": KERNEL,
    "ParallaxNBD": KERNEL,
    "ParallaxXen": KERNEL | {"CXen"},
    "ParallaxControl": STANDARD | {"FoundationEssentials", "Glibc", "ParallaxRetention"},
    # Pure decisions. FoundationInternationalization has the time zones' tables.
    "ParallaxRetention": STANDARD | {"FoundationEssentials", "FoundationInternationalization"},
    "ParallaxBlockd": KERNEL | FOUNDATION | {
        "ParallaxIO", "ParallaxVhost", "ParallaxNBD", "ParallaxXen", "ParallaxControl",
        "ParallaxRetention", "ArgumentParser", "Logging", "Dispatch", "TOMLKit",
    },
    "parallax-ctl": KERNEL | FOUNDATION | {
        "ParallaxControl", "ParallaxRetention", "ParallaxIO", "ArgumentParser",
    },
    # Glibc for the names of the error numbers; what a seed must not meet is in UNREPEATABLE.
    "ParallaxSimulation": CORE | {"ParallaxRetention", "ParallaxVhost", "ParallaxNBD", "Glibc"},
    "ParallaxXenSimulation": CORE | {
        "ParallaxSimulation", "ParallaxGuest", "ParallaxXen", "Glibc",
    },
    "parallax-sim": CORE | {
        "ParallaxSimulation", "ParallaxXenSimulation", "ArgumentParser", "Glibc",
    },
    "ParallaxGuest": KERNEL | {"CXen"},
    "parallax-bench": KERNEL | FOUNDATION | {
        "ParallaxGuest", "ParallaxVhost", "ParallaxXen", "ArgumentParser", "Histogram",
    },
    "ParallaxCoreTests": TESTS | {"ParallaxSimulation"},
    "ParallaxIOTests": TESTS | {"ParallaxIO"},
    "ParallaxFrontendTests": TESTS | {
        "ParallaxVhost", "ParallaxNBD", "ParallaxXen", "ParallaxGuest", "ParallaxSimulation",
    },
    "ParallaxControlTests": TESTS | {
        "ParallaxControl", "ParallaxRetention", "ParallaxBlockd", "ParallaxXen", "ParallaxNBD",
        "ParallaxIO", "parallax_ctl", "ArgumentParser", "Logging",
    },
    "ParallaxRetentionTests": TESTS | {"ParallaxRetention", "ParallaxSimulation"},
    "SimulationTests": TESTS | {"ParallaxSimulation", "ParallaxXenSimulation"},
    "IntegrationTests": TESTS | {"ParallaxGuest", "ParallaxControl"},
}
MAY_PRINT = {"ParallaxBlockd", "parallax-ctl", "parallax-sim", "parallax-bench"}
C_MODULES = re.compile(r"C[A-Z]\w*")

# The checker and its tests have to spell what they forbid.
SELF = {"scripts/tidy_rules.py", "scripts/tests/tidy_test.py"}


class Finding(NamedTuple):
    rule: str
    path: str
    line: int
    message: str
    warning: bool = False


class Source(NamedTuple):
    path: str
    text: str
    lines: list

    @classmethod
    def of(cls, path, text):
        return cls(path, text, text.splitlines())

    @property
    def target(self):
        parts = self.path.split("/")
        return parts[1] if len(parts) > 2 and parts[0] in ("Sources", "Tests") else None

    @property
    def language(self):
        name = self.path.rsplit("/", 1)[-1]
        suffix = name.rsplit(".", 1)[-1] if "." in name[1:] else ""
        known = {"swift": "swift", "c": "c", "h": "c", "py": "python", "sh": "shell", "md": "docs"}
        if suffix in known:
            return known[suffix]
        first = self.lines[0] if self.lines else ""
        if first.startswith("#!"):
            return "python" if "python" in first else "shell"
        return "other"


SWIFT_NOISE = re.compile(
    r'(?P<string>#*"""[\s\S]*?"""#*|#"(?:[^"\n]|"(?!#))*"#|"(?:\\.|[^"\\\n])*")'
    r"|//[^\n]*|/\*[\s\S]*?\*/")


def code_only(text):
    """`text` with strings and comments blanked; offsets and line breaks stay where they are."""
    return SWIFT_NOISE.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


# --- sizes ---------------------------------------------------------------------------------------

def check_file_length(source):
    count = len(source.lines)
    if source.language in ("docs", "other"):
        return
    if count > FILE_LINES_FAIL:
        yield Finding("file-length", source.path, 1,
                      f"{count} lines; the limit is {FILE_LINES_FAIL}: split it by operation")
    elif count > FILE_LINES_WARN:
        yield Finding("file-length", source.path, 1,
                      f"{count} lines; aim for less than {FILE_LINES_WARN}", warning=True)


def closing(code, start, pair):
    """The offset of the bracket that closes the one at `start`, or None."""
    depth = 0
    for offset in range(start, len(code)):
        if code[offset] == pair[0]:
            depth += 1
        elif code[offset] == pair[1]:
            depth -= 1
            if depth == 0:
                return offset
    return None


SWIFT_FUNCTION = re.compile(
    r"(?<![.\w`])(?:func\s+(?P<name>[^\s(<]+|[<>=!~+*/%&|^-]+)|init[?]?|subscript)"
    r"\s*(?=[<(])|(?<![.\w`])(?P<deinit>deinit)\b")
NOT_A_SIGNATURE = re.compile(r"\b(?:func|var|let|init|case|struct|class|enum|return)\b|[}=;@]")


def swift_functions(text):
    """Yields (name, line, lines from the opening to the closing brace)."""
    code = code_only(text)
    for match in SWIFT_FUNCTION.finditer(code):
        after = match.end()
        if not match.group("deinit"):
            paren = code.find("(", after)
            after = closing(code, paren, "()") if paren >= 0 else None
            if after is None:
                continue
            after += 1
        opening = code.find("{", after)
        if opening < 0 or NOT_A_SIGNATURE.search(code[after:opening]):
            continue  # a protocol's requirement, or a call
        end = closing(code, opening, "{}")
        if end is not None:
            name = match.group("name") or match.group().strip()
            yield name, line_of(code, match.start()), code.count("\n", opening, end) + 1


def python_functions(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, node.lineno, node.end_lineno - node.lineno + 1


def shell_functions(text):
    for match in re.finditer(r"^(\w+)\(\) \{\n[\s\S]*?^\}", text, re.MULTILINE):
        yield match.group(1), line_of(text, match.start()), match.group().count("\n") + 1


FUNCTIONS = {"swift": swift_functions, "python": python_functions, "shell": shell_functions}


def check_function_length(source):
    find = FUNCTIONS.get(source.language)
    for name, line, count in find(source.text) if find else ():
        if count > FUNCTION_LINES_FAIL:
            yield Finding("function-length", source.path, line,
                          f"{name} has {count} lines; the limit is {FUNCTION_LINES_FAIL}")
        elif count > FUNCTION_LINES_WARN:
            yield Finding("function-length", source.path, line,
                          f"{name} has {count} lines; aim for {FUNCTION_LINES_WARN}", warning=True)


# --- Swift ---------------------------------------------------------------------------------------

SWIFT_IMPORT = re.compile(
    r"^\s*(?:@\w+(?:\([^)]*\))?\s+)*(?:(public|package|internal|fileprivate|private)\s+)?"
    r"import\s+(?:(?:struct|class|enum|func|protocol|var|let|typealias)\s+)?(\w+)", re.MULTILINE)


def check_imports(source):
    if source.language != "swift" or source.target is None:
        return
    allowed = IMPORTS.get(source.target)
    if allowed is None:
        yield Finding("import", source.path, 1,
                      f"target {source.target} has no row in the import table of tidy_rules.py")
        return
    code = code_only(source.text)
    for match in SWIFT_IMPORT.finditer(code):
        access, module = match.groups()
        line = line_of(code, match.start(2))
        if module not in allowed:
            yield Finding("import", source.path, line,
                          f"{source.target} must not import {module} (see IMPORTS, tidy_rules.py)")
        elif C_MODULES.fullmatch(module) and access in ("public", "package"):
            yield Finding("import", source.path, line,
                          f"{module} must not appear in the interface of {source.target}: "
                          "use a plain import")


BANNED = [
    (re.compile(r"\btry!"), "try! hides an error: handle it or pass it on"),
    (re.compile(r"\bfatalError\("), "use precondition with a static message (broken invariant) or "
     "throw (anything else)"),
    (re.compile(r"\bas!"), "as! traps: use as? and handle nil"),
    (re.compile(r"\bimport XCTest\b"), "tests use Swift Testing"),
    # What a sanitizer needs is named so.
    (re.compile(r"-Ounchecked|^(?!.*sanitized).*\bunsafeFlags\b", re.IGNORECASE),
     "unchecked builds remove the preconditions"),
]
PRINT = re.compile(r"(?<![.\w])(?:debugPrint|print|dump)\(")
UNREPEATABLE = re.compile(
    r"\b(?:clock_gettime|gettimeofday|pthread_\w+|getrandom|arc4random\w*|"
    r"SystemRandomNumberGenerator|ContinuousClock|SuspendingClock|Task\.sleep|shuffled\(\))"
    r"|\.random\((?:\)|in:(?![^)]*using:))")
REPEATABLE_TARGETS = {
    "ParallaxCore", "ParallaxSimulation", "ParallaxXenSimulation", "ParallaxRetention",
}
UNCHECKED = re.compile(r"@unchecked\s+Sendable|nonisolated\(unsafe\)")


def check_banned_calls(source):
    if source.language != "swift":
        return
    code = code_only(source.text).split("\n")
    quiet = source.path.startswith("Sources/") and source.target not in MAY_PRINT
    for number, line in enumerate(code, 1):
        for pattern, reason in BANNED:
            if pattern.search(line):
                yield Finding("banned-call", source.path, number, reason)
        if quiet and PRINT.search(line):
            yield Finding("print", source.path, number,
                          "a library does not print: return it, throw it or count it")
        if source.target in REPEATABLE_TARGETS and UNREPEATABLE.search(line):
            yield Finding("repeatable", source.path, number,
                          "clock, thread or chance outside the seed: a run could not be repeated")
        if UNCHECKED.search(line) and not safety_note(source.lines, number):
            yield Finding("safety", source.path, number,
                          "escapes Sendable checking without a SAFETY: note above it")


def safety_note(lines, number):
    """True when line `number` or the comments and attributes right above it hold a note.

    One note covers several such declarations in a row."""
    if "SAFETY:" in lines[number - 1]:
        return True
    for line in reversed(lines[:number - 1]):
        if not re.match(r"\s*(//|@)", line) and not UNCHECKED.search(line):
            return False
        if "SAFETY:" in line:
            return True
    return False


# --- every text ----------------------------------------------------------------------------------

SPDX_TAGS = (
    "SPDX-License-Identifier: Apache-2.0",
    "SPDX-FileCopyrightText: The Parallax authors",
)


def check_spdx(source):
    if source.language in ("docs", "other"):
        return
    head = "\n".join(source.lines[:4])
    for tag in SPDX_TAGS:
        if tag not in head:
            yield Finding("spdx", source.path, 1, f"the header lacks '{tag}'")


MACHINE_PATH = re.compile(r"(?<![\w.~}$-])/(?:work|workspace|root|home|Users)/[\w.]")


def check_reminders_and_paths(source):
    if source.path in SELF:
        return
    for number, line in enumerate(source.lines, 1):
        if "FIXME" in line:
            yield Finding("reminder", source.path, number, "fix it now or open an issue")
        if re.search(r"\bTODO\b(?!\(?:? ?#\d)", line):
            yield Finding("reminder", source.path, number, "write the issue: TODO(#12)")
        if MACHINE_PATH.search(line):
            yield Finding("machine-path", source.path, number,
                          "a path of one machine: make it relative or a parameter")


def check_white_space(source):
    if source.path == "LICENSE":
        return
    for number, line in enumerate(source.lines, 1):
        if line != line.rstrip():
            yield Finding("white-space", source.path, number, "spaces at the end of the line")
        if re.match(r"(<{7}|>{7}|={7})( |$)", line):
            yield Finding("white-space", source.path, number, "a conflict marker")
        if source.language in ("python", "shell") and len(line) > SCRIPT_COLUMNS:
            yield Finding("white-space", source.path, number,
                          f"{len(line)} columns; the limit is {SCRIPT_COLUMNS}")
    if source.text and not source.text.endswith("\n"):
        yield Finding("white-space", source.path, len(source.lines), "no newline at the end")


# --- documents -----------------------------------------------------------------------------------

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
NAMED_FILE = re.compile(r"`([\w./+-]+)`")


def heading_anchors(text):
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def check_links(source, files):
    """Relative links, and files named in back quotes, must lead somewhere."""
    if source.language != "docs":
        return
    folder = pathlib.PurePosixPath(source.path).parent
    for number, line in enumerate(source.lines, 1):
        for target in LINK.findall(line):
            if re.match(r"\w+:", target):
                continue
            path, _, anchor = target.partition("#")
            if not path and anchor not in heading_anchors(source.text):
                yield Finding("link", source.path, number, f"no heading for #{anchor}")
            elif path and normal(folder / path) not in files:
                yield Finding("link", source.path, number, f"{path} does not exist")
        for name in NAMED_FILE.findall(line):
            if not names_a_file(name, files):
                yield Finding("link", source.path, number, f"{name} does not exist")


def normal(path):
    parts = []
    for part in path.parts:
        if part == ".." and parts:
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def names_a_file(name, files):
    if re.match(r"(Sources|Tests|scripts|docs)/.", name):
        return name.rstrip("/") in files
    if name.endswith(".swift"):
        return any(file == name or file.endswith("/" + name) for file in files)
    return True


# --- the file as such --------------------------------------------------------------------------

def check_bytes(path, data, executable):
    """For what is not text at all, too large, or has the wrong mode."""
    if not is_text(data):
        yield Finding("binary", path, 1, "not text: build it, do not commit it")
    elif len(data) > FILE_BYTES_MAX:
        yield Finding("binary", path, 1, f"{len(data)} bytes; the limit is {FILE_BYTES_MAX}")
    elif executable != data.startswith(b"#!"):
        yield Finding("mode", path, 1, "a file is executable if and only if it starts with #!")


def is_text(data):
    if b"\0" in data:
        return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


TEXT_CHECKS = [
    check_file_length, check_function_length, check_imports, check_banned_calls, check_spdx,
    check_reminders_and_paths, check_white_space,
]
