"""A process is cloned and moved from gn1 to gn2 of a virtual cluster, over ssh as a user has it.

usage: plain_dup.py [CASE...]      GHOST_TEST_USER=NAME: as that user of the machine
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

GHOST = os.environ.get("GHOST", os.path.abspath("tools/ghost"))
LAB = "d%d" % os.getpid()
LIMIT = 30
USER = os.environ.get("GHOST_TEST_USER", "")
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


def ghost(*words):
    return subprocess.run([GHOST, *words], capture_output=True, text=True, timeout=120)


def on(node, *words):
    return ghost("lab", "exec", "--name", LAB, *(["--user", USER] if USER else []), node, *words)


def good(done):
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return done.stdout


def ticks(folder, name):
    try:
        return int(open(os.path.join(folder, name)).read() or 0)
    except OSError:
        return 0


def until(condition, what):
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "waited in vain for " + what
        time.sleep(0.01)


def started(folder):
    pid = good(on("gn1", "ghost", "run", "--detach", "--", "python3", "-c", TICKER, folder)).strip()
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
    ghost("lab", "cut", "--name", LAB, "gn2")
    agent = "ssh -o ConnectTimeout=2 -F " + good(
        on("gn1", "sh", "-c", "echo ${OMPI_MCA_plm_rsh_agent#*-F }")).strip()
    done = on("gn1", "env", "GHOST_RSH=" + agent, "ghost", "dup", pid, "--to", "gn2")
    assert done.returncode == 1, done
    before = ticks(folder, "0")
    until(lambda: ticks(folder, "0") > before, "the original to go on")
    ghost("lab", "heal", "--name", LAB, "gn2")


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # cleans up as any other end does
    up = ghost("lab", "up", "--name", LAB, "-n", "2")
    if up.returncode != 0:
        print("SKIP: no virtual cluster: " + up.stderr.strip())
        return 77
    bad = 0
    try:
        for name, case in sorted(globals().items()):
            if not name.startswith("case_") or (sys.argv[1:] and name[5:] not in sys.argv[1:]):
                continue
            folder = tempfile.mkdtemp(prefix="dup.", dir=os.getcwd())
            if USER:
                shutil.chown(folder, USER)
            try:
                case(folder)
                print("ok", name[5:], flush=True)
            except Exception:
                bad += 1
                traceback.print_exc(file=sys.stdout)
                print("not ok", name[5:], flush=True)
            for node in ("gn1", "gn2"):
                on(node, "sh", "-c", "for p in $(pgrep python3) $(pgrep sleep); do kill -9 $p; done")
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        ghost("lab", "down", "--name", LAB)
    return 1 if bad else 0


sys.exit(main())
