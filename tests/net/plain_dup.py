"""A process is cloned and moved from gn1 to gn2 of a virtual cluster, over ssh as a user has it.

usage: plain_dup.py [CASE...]      GHOST_TEST_USER=NAME: as that user of the machine
"""
import fcntl
import functools
import json
import os
import shutil
import sys
import tempfile

import suite
from suite import USER, give, good

LIMIT = 30
# Counts in a file named after its node; says there whether it is a clone.
TICKER = """
import ctypes, os, sys, time
getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p
files = {w: os.open(os.path.join(sys.argv[1], w), os.O_RDWR | os.O_CREAT) for w in "01"}
n = 0
memory = [bytearray(os.urandom(4096) * 256) for _ in range(48)]
sums = [hash(bytes(m)) for m in memory]
while True:
    n += 1
    i = n % len(memory)
    if hash(bytes(memory[i])) != sums[i]:
        os.write(2, b"bad")
        sys.exit(1)
    memory[i][n * 4099 % 1048576] ^= 1
    sums[i] = hash(bytes(memory[i]))
    os.pwrite(files[getenv(b"GHOST_CLONE").decode()], b"%10d" % n, 0)
    time.sleep(0.01)
"""

# Holds the file `lock` of FOLDER, and counts as the other one does.
LOCKER = """
import fcntl, os, sys, time
lock = open(sys.argv[1] + "/lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
ticks = os.open(sys.argv[1] + "/0", os.O_CREAT | os.O_WRONLY)
n = 0
while True:
    n += 1
    os.pwrite(ticks, b"%10d" % n, 0)
    time.sleep(0.01)
"""


def ticks(folder, name):
    return suite.ticks(os.path.join(folder, name))


until = functools.partial(suite.until, limit=LIMIT)
lab = suite.Lab(2)
on = lab.on


def started(folder, program=TICKER):
    pid = good(on("gn1", "ghost", "run", "--detach", "--", "python3", "-c", program, folder)).strip()
    until(lambda: ticks(folder, "0") > 2, "the first ticks")
    return pid


def case_clone(folder):
    pid = started(folder)
    out = json.loads(good(on("gn1", "ghost", "dup", pid, "--to", "gn2", "--json")))
    until(lambda: ticks(folder, "1") > 5, "the clone's ticks")
    before = ticks(folder, "0")
    until(lambda: ticks(folder, "0") > before, "the original to go on")
    assert on("gn2", "kill", "-0", str(out["clone_pid"])).returncode == 0
    assert on("gn1", "kill", "-0", pid).returncode == 0


def case_move(folder):
    pid = started(folder)
    out = json.loads(good(on("gn1", "ghost", "dup", pid, "--to", "gn2", "--then", "kill", "--json")))
    before = ticks(folder, "0")
    until(lambda: ticks(folder, "0") > before, "the process to go on at gn2")
    assert on("gn2", "kill", "-0", str(out["clone_pid"])).returncode == 0
    assert on("gn1", "kill", "-0", pid).returncode != 0


def is_locked(folder):
    with open(os.path.join(folder, "lock")) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def case_move_locked(folder):
    """An exclusive lock goes along; a clone beside its original cannot have it."""
    pid = started(folder, LOCKER)
    refused = on("gn1", "ghost", "dup", pid, "--to", "gn2")
    assert refused.returncode == 1 and "exclusive lock" in refused.stderr, refused
    assert is_locked(folder)
    good(on("gn1", "ghost", "dup", pid, "--to", "gn2", "--then", "kill"))
    before = ticks(folder, "0")
    until(lambda: ticks(folder, "0") > before, "the process to go on at gn2")
    assert on("gn1", "kill", "-0", pid).returncode != 0
    assert is_locked(folder)


def moved_live(folder, mode):
    """There by this mode, looks at all its memory there, and back."""
    pid = started(folder)
    for here, there in (("gn1", "gn2"), ("gn2", "gn1")):
        out = json.loads(good(on(here, "ghost", "dup", pid, "--to", there, "--then", "kill", "--mode", mode,
                                 "--json")))
        assert out["mode"] == mode and out["downtime_us"] > 0, out
        assert (out["deferred_bytes"] > 40 << 20) == (mode == "lazy"), out
        before = ticks(folder, "0")
        until(lambda: ticks(folder, "0") > before + 100, "the process to go on at " + there)
        assert on(here, "kill", "-0", pid).returncode != 0
        pid = str(out["clone_pid"])
        assert on(there, "kill", "-0", pid).returncode == 0


def case_move_live(folder):
    moved_live(folder, "live")


# Where it cannot be, it is refused by name, and the process goes on where it was.
def moved_lazily(folder, mode):
    if not USER:
        return moved_live(folder, mode)
    pid = started(folder)
    done = on("gn1", "ghost", "dup", pid, "--to", "gn2", "--then", "kill", "--mode", mode)
    assert done.returncode == 1 and "userfaultfd" in done.stderr, done
    before = ticks(folder, "0")
    until(lambda: ticks(folder, "0") > before + 100, "the original to go on")
    assert on("gn1", "kill", "-0", pid).returncode == 0
    assert on("gn2", "pgrep", "-U", USER, "ghost-init").returncode == 1


def case_move_lazy(folder):
    moved_lazily(folder, "lazy")


def case_move_hybrid(folder):
    moved_lazily(folder, "hybrid")


def case_live_is_a_move(folder):
    pid = started(folder)
    done = on("gn1", "ghost", "dup", pid, "--to", "gn2", "--mode", "live")
    assert done.returncode == 2 and "--then" in done.stderr, done
    before = ticks(folder, "0")
    until(lambda: ticks(folder, "0") > before, "the original to go on")


def case_all_that_is_missing(folder):
    script = "cd /tmp && mkdir here && cd here && exec 5</etc/hostname 6</tmp/only-here && exec sleep 100"
    good(on("gn1", "sh", "-c", "touch /tmp/only-here"))
    pid = good(on("gn1", "ghost", "run", "--detach", "--", "sh", "-c", script)).strip()
    until(lambda: on("gn1", "grep", "-c", "sleep", "/proc/%s/comm" % pid).returncode == 0, "sleep")
    done = on("gn1", "ghost", "dup", pid, "--to", "gn2")
    assert done.returncode == 1, done
    assert "/tmp/here" in done.stderr and "/tmp/only-here" in done.stderr, done.stderr
    assert "S" in good(on("gn1", "ps", "-o", "stat=", "-p", pid))


def case_connection_cut(folder):
    pid = started(folder)
    lab.command("cut", "gn2")
    agent = "ssh -o ConnectTimeout=2 -F " + good(
        on("gn1", "sh", "-c", "echo ${OMPI_MCA_plm_rsh_agent#*-F }")).strip()
    done = on("gn1", "env", "GHOST_RSH=" + agent, "ghost", "dup", pid, "--to", "gn2")
    assert done.returncode == 1, done
    before = ticks(folder, "0")
    until(lambda: ticks(folder, "0") > before, "the original to go on")
    lab.command("heal", "gn2")


def in_folder(name, case):
    folder = give(tempfile.mkdtemp(prefix="dup.", dir=os.getcwd()))
    try:
        case(folder)
    finally:
        for node in ("gn1", "gn2"):
            on(node, "sh", "-c", "for p in $(pgrep python3) $(pgrep sleep); do kill -9 $p; done")
        shutil.rmtree(folder, ignore_errors=True)


with lab:
    sys.exit(suite.run_cases(suite.cases_in(globals()), sys.argv[1:], in_folder))
