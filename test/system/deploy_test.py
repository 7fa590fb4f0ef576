"""Checks examples/deploy against a running isthmus-server.

usage: deploy_test.py BIN_DIR MODEL DEPLOY_DIR
"""
import json
import pathlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

try:
    import yaml
except ImportError:  # the files are still checked for names and flags
    yaml = None


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def get(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def wait_ready(port, server):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert server.poll() is None, "the server ended"
        try:
            if get(port, "/readyz")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError("never ready")


def page_of_metrics(binary, arguments, port):
    """What a server started with these arguments shows on `port`, after checking its other pages."""
    with tempfile.TemporaryDirectory() as home:
        server = subprocess.Popen([binary, *arguments, "--quiet"], stdout=subprocess.DEVNULL,
                                  env={**os.environ, "ISTHMUS_HOME": home})
        try:
            wait_ready(port, server)
            assert get(port, "/healthz")[0] == 200
            assert get(port, "/nothing")[0] == 404
            status, text = get(port, "/metrics")
            assert status == 200
        finally:
            server.terminate()
        assert server.wait(timeout=60) == 0
    return text


def metrics_of(binary, model):
    """Names that a server shows."""
    port = free_port()
    text = page_of_metrics(binary, ["--model", model, "--bind", "127.0.0.1:0", "--metrics", f"*:{port}"], port)
    names = set(re.findall(r"^# TYPE (isthmus_\w+)", text, re.M))
    # A family without a member yet is not shown; its name is in the program.
    program = pathlib.Path(binary).read_bytes()
    names |= {"isthmus_" + name for name in ("refusals_total", "failures_total", "sessions_ended_total")
              if name.encode() in program}
    assert len(names) > 10, names
    return names


def check_names(folder, names):
    known = names | {name + suffix for name in names for suffix in ("_bucket", "_sum", "_count")}
    for file in ("alerts.yaml", "grafana-dashboard.json"):
        used = set(re.findall(r"\bisthmus_\w+", (folder / file).read_text()))
        assert used, file
        assert used <= known, f"{file} names {sorted(used - known)}"


def only_line(file, pattern):
    lines = re.findall(pattern, file.read_text(), re.M)
    assert len(lines) == 1, f"{file}: {lines}"
    return lines[0]


def commands_of(folder):
    """The server's arguments in each file: (file, list)."""
    entry, command = (json.loads(only_line(folder / "Containerfile", rf"^{word} (.*)$")) for word in ("ENTRYPOINT", "CMD"))
    manifest = json.loads(only_line(folder / "kubernetes.yaml", r"^ +args: (.*)$"))
    unit = shlex.split(only_line(folder / "isthmus-server.service", r"^ExecStart=/usr/bin/env (.*)$"))
    assert entry[0] == unit[0] == "isthmus-server"
    return (("Containerfile", entry[1:] + command), ("kubernetes.yaml", entry[1:] + manifest),
            ("isthmus-server.service", unit[1:]))


def check_commands(folder, binary, model):
    """Every command starts a server, with this model and on free ports."""
    for file, arguments in commands_of(folder):
        print(f"{file}: {shlex.join(arguments)}", flush=True)
        port = free_port()
        for pattern, replacement in ((r".*/model\.gguf$", model), (r":5755$", ":0"), (r":9464$", f":{port}")):
            replaced = [re.sub(pattern, replacement, argument) for argument in arguments]
            assert replaced != arguments, f"{file} has no {pattern}"
            arguments = replaced
        page_of_metrics(binary, arguments, port)


def check_formats(folder):
    json.loads((folder / "grafana-dashboard.json").read_text())
    if yaml:
        for file in ("alerts.yaml", "kubernetes.yaml"):
            assert all(yaml.safe_load_all((folder / file).read_text())), file
    else:
        print("no PyYAML: the YAML files were not parsed")
    if shutil.which("systemd-analyze"):
        subprocess.run(["systemd-analyze", "verify", str(folder / "isthmus-server.service")], check=True)
    else:
        print("no systemd-analyze: the unit was not verified")
    if shutil.which("promtool"):
        subprocess.run(["promtool", "check", "rules", str(folder / "alerts.yaml")], check=True)


def main():
    binary, model, folder = sys.argv[1] + "/isthmus-server", sys.argv[2], pathlib.Path(sys.argv[3])
    check_formats(folder)
    check_commands(folder, binary, model)
    check_names(folder, metrics_of(binary, model))


main()
