#!/usr/bin/env python3
"""Checks that static libraries neither print, abort nor exit: they must not even refer to what would.

    symbols_test.py LIBRARY...

std::terminate is allowed (the compiler calls it where a noexcept function throws), and so is __assert_fail, which is
there only in builds with assertions.
"""
import re
import subprocess
import sys

FORBIDDEN = re.compile(
    r"^(abort|exit|_exit|_Exit|quick_exit|stdout|stderr|"
    r"(__)?v?f?printf(_chk)?|puts|fputs|putchar|putc|fputc|perror|"
    r"std::(cout|cerr|clog|wcout|wcerr|exit|abort))(@.*)?$")


def references(library):
    """Pairs of object file and undefined symbol, demangled."""
    listing = subprocess.run(["nm", "--print-file-name", "--undefined-only", "--demangle", library],
                             check=True, capture_output=True, text=True).stdout
    for line in listing.splitlines():
        place, _, symbol = line.partition(" U ")
        yield place.strip().rstrip(":"), symbol.strip()


def main():
    found = [f"{place}: {symbol}" for library in sys.argv[1:] for place, symbol in references(library)
             if FORBIDDEN.match(symbol)]
    total = sum(1 for library in sys.argv[1:] for _ in references(library))
    if total == 0:
        sys.exit("symbols_test: no symbols were read")
    if found:
        sys.exit("a library must not print, abort or exit, but these are referred to:\n" + "\n".join(found))
    print(f"{len(sys.argv) - 1} libraries, {total} references, none forbidden")


if __name__ == "__main__":
    main()
