# SPDX-License-Identifier: BSD-3-Clause
"""What the suites in Python share: waiting for a condition, named cases, a virtual cluster. tests/suite.sh has them
find it."""
import os
import pwd
import re
import signal
import subprocess
import sys
import time
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
GHOST = os.environ.get("GHOST", os.path.abspath("tools/ghost"))
USER = os.environ.get("GHOST_TEST_USER", "")  # whose the commands on nodes are; else root's
UID = pwd.getpwnam(USER).pw_uid if USER else 0
AT_LENGTH = os.environ.get("GHOST_TEST_LONG", "") not in ("", "0")
# Counts in the file it is given, which it keeps open: an original that goes on and renames what its clone has open
# would not let that come to life.
TICKER = """
import os, sys, time
fd, n = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), 0
while True:
    n += 1
    os.pwrite(fd, b"%10d" % n, 0)
    time.sleep(0.01)
"""


class Skip(Exception):
    """Raised by a case that cannot be run here; says why."""


def good(done):
    """What a command has printed that must have succeeded."""
    assert done.returncode == 0, (done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


def until(condition, what, limit=20.0, process=None, said=lambda: ""):
    """The first thing that condition() gives and that is true. Fails, with what said() gives, after `limit` seconds or
    when a process has ended that must not end before."""
    end = time.monotonic() + limit
    while True:
        ended = process is not None and process.poll() is not None
        value = condition()
        if value:
            return value
        assert not ended, "ended before %s: %s" % (what, said())
        assert time.monotonic() < end, "waited in vain for %s: %s" % (what, said())
        time.sleep(0.01)


def ticks(path):
    """How far TICKER is."""
    try:
        with open(path) as file:
            return int(file.read() or 0)
    except OSError:
        return 0


def children_of(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            return [int(x) for x in f.read().split()]
    except OSError:
        return []


def tree_of(pid):
    out = [pid]
    for child in children_of(pid):
        out += tree_of(child)
    return out


def alive(pid):
    """Exists and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def as_user(uid, gid=None):
    """Begins a command that somebody without privileges runs."""
    return ["setpriv", "--reuid", str(uid), "--regid", str(uid if gid is None else gid), "--clear-groups"]


def give(path):
    """A file or folder becomes that user's whose the commands on nodes are."""
    if USER:
        os.chown(path, UID, pwd.getpwnam(USER).pw_gid)
    return path


def own_folder(path):
    """Makes one, with those above it, and gives it to that user."""
    os.makedirs(path)
    return give(path)


class AtWork:
    """A program that says `ready` when it is at its work, which it is until the block is left: its input ends."""

    def __init__(self, words, **more):
        self.process = subprocess.Popen(words, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, **more)
        if self.process.stdout.readline() != "ready\n":
            raise AssertionError("%s failed: %s" % (words, self.process.communicate()[1]))

    def end(self):
        """What else it has said."""
        return self.process.communicate(timeout=60)[0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.end()


class Lab:
    """A virtual cluster of the suite's own. In a block: up, or the suite is skipped; and down, whatever happens.
    Commands are the user's; user="" for what only root may do to a node."""

    def __init__(self, nodes, user=USER):
        self.name = "t%d" % os.getpid()
        self.nodes, self.user = nodes, user

    def command(self, verb, *words):
        return subprocess.run([GHOST, "lab", verb, "--name", self.name, *words], capture_output=True, text=True,
                              timeout=120)

    def up(self, *options):
        return self.command("up", "-n", str(self.nodes), *options)

    def down(self):
        return self.command("down")

    def words(self, node, *words, user=None):
        """A command on a node, for subprocess."""
        user = self.user if user is None else user
        return [GHOST, "lab", "exec", "--name", self.name, *(["--user", user] if user else []), node, *words]

    def on(self, node, *words, user=None, limit=120):
        return subprocess.run(self.words(node, *words, user=user), capture_output=True, text=True, timeout=limit)

    def address(self, node):
        return re.search(r"inet (10\.[\d.]+)/", good(self.on(node, "ip", "-4", "addr", user="")))[1]

    def __enter__(self):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # cleans up as any other end does
        up = self.up()
        if up.returncode != 0:
            self.down()
            print("SKIP: no virtual cluster: " + up.stderr.strip())
            sys.exit(77)
        return self

    def __exit__(self, *_):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # whoever sends it to a group sends it twice
        self.down()


def cases_in(names):
    """{case: function} of a module's globals()."""
    return {name[5:]: case for name, case in names.items() if name.startswith("case_")}


def run_cases(cases, wanted=(), around=lambda name, case: case(), failed=lambda: None):
    """Runs those that are wanted, or all, each by around(); failed() says more of one that has failed. Exit status."""
    bad = 0
    for name in wanted or cases:
        begin = time.monotonic()
        try:
            around(name, cases[name])
            print("# %s took %.1f s" % (name, time.monotonic() - begin))
            print("ok", name, flush=True)
        except Skip as why:
            print("ok %s # SKIP %s" % (name, why), flush=True)
        except Exception:
            bad += 1
            traceback.print_exc(file=sys.stdout)
            failed()
            print("not ok", name, flush=True)
    return 1 if bad else 0
