"""An isthmus-server on loopback, for the scripts beside this file."""
import os
import subprocess
import sys


class Server:
    """Runs while it is entered; `address` is its connection string, `env` finds its keys. Where `stderr` is a pipe, all that it logged is in `log` behind `stop`."""

    def __init__(self, bin_dir, model, home, *flags, stderr=None):
        self.env = dict(os.environ, ISTHMUS_HOME=home)
        quiet = [] if stderr == subprocess.PIPE else ["--quiet"]
        self.process = subprocess.Popen(
            [f"{bin_dir}/isthmus-server", "--model", model, "--bind", "127.0.0.1:0", "--allow-any-client", *quiet, *map(str, flags)],
            stdout=subprocess.PIPE, stderr=stderr, text=True, env=self.env)
        self.address = self.process.stdout.readline().strip()
        if not self.address:
            sys.exit("the server did not start")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.process.terminate()
        self.log = self.process.communicate()[1]
        return self.process.returncode
