#!/usr/bin/env python3
"""tools/fetch.py against a package index on this machine that breaks off, ignores ranges or sends wrong bytes."""
import hashlib
import http.server
import io
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import unittest
import zipfile

FETCH = pathlib.Path(__file__).resolve().parents[2] / "tools" / "fetch.py"
WHEEL = "thing-1.0-py3-none-any.whl"


def make_wheel():
    """A wheel with one member that is kept and one that is not."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("thing/data.bin", bytes(range(256)) * 4096)
        archive.writestr("thing/other.txt", "not kept")
    return buffer.getvalue()


class Index(http.server.ThreadingHTTPServer):
    """Serves /simple/thing/ and the wheel. `stop_after` breaks the next answers off after so many bytes."""

    def __init__(self, wheel):
        super().__init__(("127.0.0.1", 0), Handler)
        self.wheel, self.stop_after, self.honours_range, self.ranges = wheel, [], True, []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        if self.path == "/simple/thing/":
            self.answer(200, f'<a href="../../files/{WHEEL}#sha256=0">{WHEEL}</a>'.encode())
        elif self.path == f"/files/{WHEEL}":
            self.send_wheel()
        else:
            self.answer(404, b"")

    def answer(self, code, body, length=None):
        self.send_response(code)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def send_wheel(self):
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        start = int(wanted[len("bytes="):-1]) if wanted and self.server.honours_range else 0
        if start >= len(self.server.wheel):
            self.answer(416, b"")
            return
        body = self.server.wheel[start:]
        sent = body[:self.server.stop_after.pop(0)] if self.server.stop_after else body
        self.answer(206 if start else 200, sent, len(body))
        self.close_connection = True


class FetchTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.cache = self.folder / "cache"
        self.wheel = make_wheel()
        self.index = Index(self.wheel)
        self.addCleanup(self.index.server_close)
        self.addCleanup(self.index.shutdown)
        (self.folder / "tools").mkdir()
        (self.folder / "third_party").mkdir()
        (self.folder / "tools" / "fetch.py").write_text(FETCH.read_text())
        digest = hashlib.sha256(self.wheel).hexdigest()
        (self.folder / "third_party" / "downloads.txt").write_text(
            f"# comment\nset | thing | {WHEEL} | {digest} | thing/*.bin\n")

    def fetch(self, *arguments):
        environment = {name: value for name, value in os.environ.items()
                       if not name.lower().endswith("_proxy") and not name.startswith("PIP_")}
        environment |= {"PIP_CONFIG_FILE": os.devnull, "ISTHMUS_CACHE": str(self.cache),
                        "PIP_INDEX_URL": f"http://127.0.0.1:{self.index.server_port}/simple"}
        return subprocess.run([sys.executable, str(self.folder / "tools" / "fetch.py"), *arguments],
                              env=environment, capture_output=True, text=True)

    def check_fetched(self, result):
        self.assertEqual(result.returncode, 0, result.stderr)
        folder = pathlib.Path(result.stdout.strip())
        files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        self.assertEqual(files, [".manifest", "thing/data.bin"])
        self.assertEqual((folder / "thing" / "data.bin").read_bytes(), bytes(range(256)) * 4096)
        self.assertEqual(list((self.cache / "downloads").iterdir()), [])
        return folder

    def test_a_second_run_is_silent_and_asks_nobody(self):
        folder = self.check_fetched(self.fetch("set"))
        requests = len(self.index.ranges)
        again = self.fetch("set")
        self.assertEqual((again.stdout.strip(), again.stderr), (str(folder), ""))
        self.assertEqual(len(self.index.ranges), requests)

    def test_a_download_that_breaks_off_goes_on_where_it_stopped(self):
        self.index.stop_after = [1000, 500_000]
        self.check_fetched(self.fetch("set"))
        self.assertEqual(self.index.ranges, [None, "bytes=1000-", "bytes=501000-"])

    def test_a_part_left_by_a_killed_run_is_continued(self):
        (self.cache / "downloads").mkdir(parents=True)
        (self.cache / "downloads" / (WHEEL + ".part")).write_bytes(self.wheel[:70_000])
        self.check_fetched(self.fetch("set"))
        self.assertEqual(self.index.ranges, ["bytes=70000-"])

    def test_a_part_that_is_already_whole_is_taken(self):
        (self.cache / "downloads").mkdir(parents=True)
        (self.cache / "downloads" / (WHEEL + ".part")).write_bytes(self.wheel)
        self.check_fetched(self.fetch("set"))

    def test_a_damaged_part_is_thrown_away_and_fetched_anew(self):
        (self.cache / "downloads").mkdir(parents=True)
        (self.cache / "downloads" / (WHEEL + ".part")).write_bytes(b"x" * 70_000)
        result = self.fetch("set")
        self.assertIn("SHA-256", result.stderr)
        self.check_fetched(result)
        self.assertEqual(self.index.ranges, ["bytes=70000-", None])

    def test_a_server_that_ignores_ranges_is_read_from_the_start(self):
        self.index.honours_range = False
        self.index.stop_after = [1000]
        self.check_fetched(self.fetch("set"))

    def test_a_damaged_file_in_the_cache_is_fetched_again(self):
        folder = self.check_fetched(self.fetch("set"))
        for damage in (b"short", bytes(256 * 4096)):
            (folder / "thing" / "data.bin").write_bytes(damage)
            self.assertNotEqual(self.fetch("--only-if-present", "set").returncode, 0)
            result = self.fetch("set")
            self.assertIn("damaged", result.stderr)
            self.check_fetched(result)

    def test_a_touched_file_is_not_damaged(self):
        folder = self.check_fetched(self.fetch("set"))
        os.utime(folder / "thing" / "data.bin", (1, 1))
        self.assertEqual(self.fetch("--only-if-present", "set").returncode, 0)

    def test_a_wheel_that_the_index_lacks_is_one_line(self):
        pins = self.folder / "third_party" / "downloads.txt"
        pins.write_text(pins.read_text().replace("| thing |", "| other |"))
        result = self.fetch("set")
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, r"^setup: error: .*/other/: .*404.*\n$")

    def test_nothing_is_fetched_when_only_presence_is_asked(self):
        result = self.fetch("--only-if-present", "set")
        self.assertEqual((result.returncode, result.stdout, self.index.ranges), (1, "", []))


if __name__ == "__main__":
    unittest.main()
