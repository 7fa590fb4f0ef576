"""An isthmus-server on loopback, for the scripts beside this file."""
import os
import subprocess
import sys


class Server:
    """Runs while it is entered; `address` is its connection string, `env` finds its keys."""

    def __init__(self, bin_dir, model, home, *flags, stderr=None):
        self.env = dict(os.environ, ISTHMUS_HOME=home)
        self.process = subprocess.Popen(
            [f"{bin_dir}/isthmus-server", "--model", model, "--bind", "127.0.0.1:0", "--quiet", "--allow-any-client", *map(str, flags)],
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
        return self.process.wait()
