"""What the scripts of the benchmarks share: the command, a virtual cluster, what they need, and their results.
They run in a build folder."""
import contextlib
import json
import os
import signal
import subprocess
import sys
import time

GHOST = os.path.abspath("tools/ghost")
NAME = os.path.basename(sys.argv[0])
LAB = "bench%d" % os.getpid()
LIMIT = 300  # seconds


def need(*programs, root=True):
    """Ends the script if something that it needs is missing here."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # cleans up as any other end does
    for program in GHOST, *programs:
        if not os.path.exists(program):
            sys.exit("%s: %s is not built: make benchmarks, and run in the build folder"
                     % (NAME, os.path.relpath(program)))
    if root and os.geteuid() != 0:
        sys.exit("%s: needs root" % NAME)


def run(*words):
    """What the command prints."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise RuntimeError("%s: %s %s" % (done.args, done.stdout[-2000:], done.stderr[-2000:]))
    return done.stdout


def ghost(*words):
    return run(GHOST, *words)


def words_on(node, *words, user=None):
    """The command that runs `words` on a node of the cluster, as root or as a user."""
    return [GHOST, "lab", "exec", "--name", LAB, *(["--user", user] if user else []), node, *words]


def on(node, *words, user=None):
    return run(*words_on(node, *words, user=user))


@contextlib.contextmanager
def ordinary_user():
    """A user of this machine, while the context lasts; his name."""
    name = "ghost-%s" % LAB
    try:
        # A locked account ("!") may not come by ssh.
        run("useradd", "--no-create-home", "--shell", "/bin/bash", "--password", "*", name)
        yield name
    finally:
        subprocess.run(["userdel", name], capture_output=True)


@contextlib.contextmanager
def lab(nodes, *options):
    """A virtual cluster, while the context lasts."""
    try:
        ghost("lab", "up", "--name", LAB, "-n", str(nodes), *options)
        yield
    finally:
        subprocess.run([GHOST, "lab", "down", "--name", LAB], capture_output=True)


def until(condition, what):
    end = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError("waited in vain for " + what)
        time.sleep(0.002)


def write_json(path, result):
    """Nothing without a path."""
    if path:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        with open(path, "w") as file:
            json.dump(result, file, indent=1)


def plot(svg, script):
    """By gnuplot; the script begins with its terminal. Prints the picture's path."""
    os.makedirs(os.path.dirname(os.path.abspath(svg)), exist_ok=True)
    lines = [script[0], "set output '%s'" % svg, *script[1:]]
    subprocess.run(["gnuplot"], input="\n".join(lines) + "\n", text=True, check=True, timeout=LIMIT)
    print(svg)
