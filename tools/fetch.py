#!/usr/bin/env python3
"""Fetches a set of third_party/downloads.txt into the cache and prints where it lies.

    tools/fetch.py [--only-if-present] SET [SET ...]      for example: tools/fetch.py torch cuda

Wheels come from the index that pip is configured for. An interrupted download goes on where it stopped; a wheel is
unpacked only when its SHA-256 is the pinned one; a set appears under its name only when complete. Several sets named
together make one folder. Called by tools/setup; needs Python's standard library and pip.
"""
import argparse
import contextlib
import fcntl
import fnmatch
import hashlib
import html.parser
import http.client
import os
import pathlib
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile

PINS = pathlib.Path(__file__).resolve().parent.parent / "third_party" / "downloads.txt"
CHUNK = 1 << 20
ATTEMPTS = 5  # per wheel, each going on where the last one stopped


class Failure(Exception):
    """Ends the program with one line."""


def cache_folder():
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return pathlib.Path(os.environ.get("ISTHMUS_CACHE") or os.path.join(home, "isthmus"))


def read_pins(sets):
    """The wheels of some sets, {wheel: (project, sha256, [patterns])}, and a name that changes with them."""
    wheels, digest = {}, hashlib.sha256()
    for line in PINS.read_text().splitlines():
        fields = [field.strip() for field in line.split("|")]
        if line.startswith("#") or fields[0] not in sets:
            continue
        digest.update(line.encode())
        _, project, wheel, sha256, patterns = fields
        wheels.setdefault(wheel, (project, sha256, []))[2].extend(patterns.split())
    if not wheels:
        raise Failure(f"no set {' '.join(sets)} in {PINS}")
    return wheels, f"{'-'.join(sets)}-{digest.hexdigest()[:8]}"


class Progress:
    """One line that rewrites itself on a terminal, a line every 20 % elsewhere."""

    def __init__(self, label, total):
        self.label, self.total, self.next = label, max(total, 1), 0

    def show(self, done):
        percent = min(100, 100 * done // self.total)
        if percent < self.next:
            return
        self.next = percent + 1 if sys.stderr.isatty() else 20 * (percent // 20 + 1)
        text = f"setup: {self.label}: {done >> 20} of {self.total >> 20} MiB, {percent} %"
        end = "\n" if percent == 100 or not sys.stderr.isatty() else ""
        print(("\r\033[K" if sys.stderr.isatty() else "") + text, end=end, file=sys.stderr, flush=True)


class Index:
    """The package index of pip's own configuration, with pip's certificates and proxy."""

    def __init__(self):
        try:
            from pip._internal.commands import create_command
        except ImportError:
            raise Failure("this Python has no pip (Debian: python3-pip)") from None
        options, _ = create_command("download").parse_args([])
        self.pages = [url for url in [options.index_url, *options.extra_index_urls] if url]
        self.timeout = options.timeout
        authorities = options.cert or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        context = ssl.create_default_context(cafile=authorities or None)
        proxies = {"http": options.proxy, "https": options.proxy} if options.proxy else None
        self.opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context),
                                                  urllib.request.ProxyHandler(proxies))

    def open(self, url, headers):
        return self.opener.open(urllib.request.Request(url, headers=headers), timeout=self.timeout)

    def find(self, project, wheel):
        """The address of a wheel (PEP 503)."""
        reasons = []
        for index in self.pages:
            page = f"{index.rstrip('/')}/{project}/"
            try:
                with self.open(page, {"Accept": "text/html"}) as reply:
                    links, base = Links(), reply.geturl()
                    links.feed(reply.read().decode("utf-8", "replace"))
            except (OSError, http.client.HTTPException) as error:
                reasons.append(f"{page}: {error}")
                continue
            for link in links.found:
                address = urllib.parse.urljoin(base, link)
                if urllib.parse.unquote(urllib.parse.urlsplit(address).path).endswith("/" + wheel):
                    return urllib.parse.urldefrag(address).url
            reasons.append(f"{page}: no {wheel}")
        raise Failure("; ".join(reasons) or "pip is configured without an index")

    def download(self, url, part, label):
        """Appends what is missing to the file `part`."""
        have = part.stat().st_size if part.exists() else 0
        try:
            reply = self.open(url, {"Range": f"bytes={have}-"} if have else {})
        except urllib.error.HTTPError as error:
            if error.code == 416:  # nothing is left to send
                return
            raise
        with reply, open(part, "ab" if reply.status == 206 else "wb") as file:
            done = file.tell()
            total = done + int(reply.headers.get("Content-Length") or 0)
            progress = Progress(label, total)
            while chunk := reply.read(CHUNK):
                file.write(chunk)
                done += len(chunk)
                progress.show(done)
        if done < total:
            raise OSError(f"connection closed after {done} of {total} bytes")


class Links(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def fetch_wheel(index, project, wheel, sha256, folder):
    """The path of a complete wheel with the pinned hash."""
    path, part = folder / wheel, folder / (wheel + ".part")
    if path.exists() and sha256_of(path) == sha256:
        return path
    url = index.find(project, wheel)
    for attempt in range(1, ATTEMPTS + 1):
        reason = "its SHA-256 is not the pinned one"
        try:
            index.download(url, part, wheel.split("-py3-")[0].split("-cp3")[0])
            if sha256_of(part) == sha256:
                part.rename(path)
                return path
            part.unlink()
        except (OSError, http.client.HTTPException) as error:
            reason = error
        if attempt < ATTEMPTS:
            print(f"setup: {wheel}: {reason}; trying again", file=sys.stderr)
            time.sleep(2 ** (attempt - 1))
    raise Failure(f"{wheel}: {reason} (gave up after {ATTEMPTS} attempts; what has arrived is kept)")


def unpack(wheel, patterns, folder):
    with zipfile.ZipFile(wheel) as archive:
        for pattern in patterns:
            members = fnmatch.filter(archive.namelist(), pattern)
            if not members:
                raise Failure(f"{wheel.name} has no {pattern}")
            for member in members:
                archive.extract(member, folder)


def write_manifest(folder):
    """Hash, size and time of every file, so that `is_intact` reads only files that were touched."""
    lines = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        status = path.stat()
        lines.append(f"{sha256_of(path)} {status.st_size} {status.st_mtime_ns} {path.relative_to(folder)}\n")
    (folder / ".manifest").write_text("".join(lines))


def is_intact(folder):
    try:
        lines = (folder / ".manifest").read_text().splitlines()
        for line in lines:
            sha256, size, time_ns, name = line.split(" ", 3)
            status = os.stat(folder / name)
            same = (status.st_size, status.st_mtime_ns) == (int(size), int(time_ns))
            if not same and (status.st_size != int(size) or sha256_of(folder / name) != sha256):
                return False
        return bool(lines)
    except (OSError, ValueError):
        return False


def fetch(sets, only_if_present):
    wheels, name = read_pins(sets)
    cache = cache_folder()
    folder, downloads, partial = cache / name, cache / "downloads", cache / (name + ".partial")
    if is_intact(folder):
        return folder
    if only_if_present:
        raise Failure(f"{' '.join(sets)} is not complete in {cache}; run tools/setup")
    downloads.mkdir(parents=True, exist_ok=True)
    with open(cache / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_intact(folder):  # another process was quicker
            return folder
        if folder.exists():
            print(f"setup: {folder} is damaged; fetching it again", file=sys.stderr)
            shutil.rmtree(folder)
        shutil.rmtree(partial, ignore_errors=True)
        index = Index()
        for wheel, (project, sha256, patterns) in wheels.items():
            path = fetch_wheel(index, project, wheel, sha256, downloads)
            unpack(path, patterns, partial)
        write_manifest(partial)
        partial.rename(folder)
        for wheel in wheels:
            with contextlib.suppress(FileNotFoundError):
                (downloads / wheel).unlink()
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only-if-present", action="store_true", help="fail instead of downloading")
    parser.add_argument("sets", nargs="+", metavar="SET")
    arguments = parser.parse_args()
    try:
        print(fetch(arguments.sets, arguments.only_if_present))
    except (Failure, OSError) as error:
        sys.exit(f"setup: error: {error}")
    except KeyboardInterrupt:
        sys.exit("setup: interrupted; the next run goes on from here")


if __name__ == "__main__":
    main()
