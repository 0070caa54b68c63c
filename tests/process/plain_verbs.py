"""The verbs for processes outside of MPI. A case prints `ok NAME` or `not ok NAME`.

usage: plain_verbs.py [CASE...]      as root, or as an ordinary user

The subject counts: a line of input is answered by a line "N WORD" with N growing by one, so what was
lost or done twice shows in the numbers.
"""
import errno
import glob
import json
import os
import pty
import re
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

import suite
from suite import GHOST, TICKER, Skip, alive, children_of, good, until

LIBRARY = os.path.abspath("ghost-core/.libs/libghost.so")
SUBJECT = """
import os, sys
n = 0
print("ready", os.getpid(), flush=True)
for line in sys.stdin:
    n += 1
    word = line.strip()
    if word == "clone": word = open("/proc/self/environ").read().partition("GHOST_CLONE=")[2][:1]
    if word == "library":
        import ctypes
        word = str(ctypes.CDLL(sys.argv[1]).ghost_is_clone())
    print(n, word, flush=True)
    if word.startswith("exit"): sys.exit(int(word[4:]))
    if word == "die": os.kill(os.getpid(), 9)
"""
# Its memory is written all over, again and again, by the kernel.
FILLER = """
import os, sys
memory, source = memoryview(bytearray(256 << 20)), os.memfd_create("source")
os.write(source, os.urandom(16 << 20))
fills = 0
while True:
    done = 0
    while done < len(memory): done += os.preadv(source, [memory[done:done + (16 << 20)]], 0)
    fills += 1
    with open(sys.argv[1], "w") as out: out.write("%d" % fills)
"""
# Has and lets go of all that is found by its name, as fast as it can. What it needs of it is in "at":
# a file kept open is read again, by its descriptor, at the end of each step.
CHURNER = """
import mmap, os, random, sys, time
top, number = sys.argv[1], 0
held = []
def name():
    global number
    number += 1
    return os.path.join(top, "f%d" % (number % 40))
def file(mode):
    path = name()
    with open(path + "+", "w") as out: out.write("of step %d " % number * random.randrange(1, 300))
    os.rename(path + "+", path)
    return path, open(path, mode)
def mapped():
    path, opened = file("r")
    with opened: return path, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ)
class Folder:
    def __init__(self, path): self.fd = os.open(path, os.O_RDONLY)
    def close(self): os.close(self.fd)
def subfolder():
    path = name() + ".d"
    os.makedirs(path, exist_ok=True)
    os.chdir(path)
    return path, Folder(path)
def pipe():
    path = name() + ".p"
    if not os.path.exists(path): os.mkfifo(path)
    return path, open(path, "rb+", buffering=0)
def gone(path):
    if path.endswith(".d"):
        os.chdir(top)
        return os.rmdir(path)
    os.unlink(path)
def let_go(path, thing):
    others = any(path == other for other, _ in held)
    early = random.random() < 0.5 and not path.endswith((".d", ".p")) and not others
    if early: gone(path)
    thing.close()
    if not early and not others: gone(path)
kinds = [lambda: file("r"), lambda: file("r+"), lambda: file("a"), mapped, subfolder, pipe]
at = open(os.path.join(top, "at"), "w")
while True:
    held.append(random.choice(kinds)())
    while len(held) > random.randrange(12): let_go(*held.pop(random.randrange(len(held))))
    at.seek(0)
    at.write("%12d" % number)
    at.flush()
"""
LIMIT = 20
CHURNS = 15
IS_ROOT = os.geteuid() == 0
# its folder has a random name for all but root
HOLDER = ("/run/ghost-0" if IS_ROOT else "/dev/shm/ghost-%d.*" % os.geteuid()) + "/holder.sock"
folder = tempfile.mkdtemp(prefix="ghost-plain.", dir="/var/tmp")


def path(name):
    return os.path.join(folder, name)


def ghost(*words, **more):
    more.setdefault("timeout", LIMIT)
    return subprocess.run([GHOST, *words], capture_output=True, text=True, **more)


class Talk:
    """A foreground `ghost` whose program is asked over pipes."""

    def __init__(self, *words, **more):
        more.setdefault("stdin", subprocess.PIPE)
        more.setdefault("stdout", subprocess.PIPE)
        self.process = subprocess.Popen([GHOST, *words], stderr=subprocess.PIPE, text=True, **more)
        self.read = b""
        live.append(self)

    # Not readline(): select() does not see what that has read ahead.
    def line(self):
        end = time.monotonic() + LIMIT
        while b"\n" not in self.read:
            left = max(0, end - time.monotonic())
            ready, _, _ = select.select([self.process.stdout], [], [], left)
            assert ready, "no answer"
            more = os.read(self.process.stdout.fileno(), 65536)
            if not more:
                break
            self.read += more
        line, _, self.read = self.read.partition(b"\n")
        return line.decode().strip()

    def ask(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self.line()

    def end(self):
        status = self.process.wait(LIMIT)
        return status

    def kill(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(2)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


live, pids = [], []


def pid_of(talk, inner):
    """What this system calls the program that calls itself `inner`: root's have the same number here."""
    if IS_ROOT:
        return inner
    named = {open("/proc/%d/comm" % pid).read().strip(): pid for pid in children_of(talk.process.pid)}
    return children_of(named["ghost-init"])[0]


def started():
    talk = Talk("run", "--", "python3", "-c", SUBJECT, LIBRARY)
    word, inner = talk.line().split()
    assert word == "ready"
    return talk, pid_of(talk, int(inner))


def ticker(name, *more):
    pid = int(good(ghost("run", "--detach", *more, "--", "python3", "-c", TICKER, path(name))))
    pids.append(pid)
    until(lambda: os.path.exists(path(name)), "the first tick")
    return pid


def ticks(name):
    return suite.ticks(path(name))


def goes_on(name):
    before = ticks(name)
    until(lambda: ticks(name) > before, name + " to go on")
    return before


def case_ends_as_without_us():
    for script, wanted in (("exit 0", 0), ("exit 3", 3), ("kill -9 $$", -9), ("kill -TERM $$", -15)):
        assert ghost("run", "--", "sh", "-c", script).returncode == wanted, script
    assert ghost("run", "no-such-program").returncode == 127
    assert ghost("run", "--", "cat", input="through\n").stdout == "through\n"
    done = ghost("run", "--", "sh", "-c", "echo a; echo b >&2")
    assert (done.stdout, done.stderr) == ("a\n", "b\n")


def case_signals_reach_the_program():
    talk = Talk("run", "--", "sh", "-c", "trap 'echo usr1; exit 7' USR1; echo up; while :; do sleep 0.02; done")
    assert talk.line() == "up"
    talk.process.send_signal(signal.SIGUSR1)
    assert talk.line() == "usr1"
    assert talk.end() == 7
    talk, inner = started()
    talk.process.kill()
    talk.process.wait()
    until(lambda: not alive(inner), "the program to die with its `ghost run`")


def case_detached_pid_is_its_own():
    pid = ticker("own")
    words = json.loads(good(ghost("run", "--detach", "--json", "--", "sleep", "100")))
    pids.append(words["pid"])
    assert open("/proc/%d/comm" % words["pid"]).read() == "sleep\n"
    inner = open("/proc/%d/status" % pid).read().partition("NSpid:")[2].split("\n")[0].split()
    assert inner[0] == str(pid) and len(inner) == 2 and (inner[1] == str(pid) or not IS_ROOT), inner
    assert ghost("run", "--detach", "no-such-program").returncode == 1


def case_original_goes_on_and_ghost_too():
    talk, inner = started()
    assert talk.ask("one") == "1 one"
    out = json.loads(good(ghost("export", str(inner), "--to", path("g"), "--json")))
    assert out["pid"] == inner and out["bytes"] > 0 and out["then"] == "continue"
    assert talk.ask("two") == "2 two"
    other = Talk("import", path("g"))
    assert other.ask("again") == "2 again"
    assert other.ask("exit5") == "3 exit5"
    assert other.end() == 5
    assert talk.ask("three") == "3 three"
    assert talk.ask("die") == "4 die"
    assert talk.end() == -9


def having(word):
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if word in open("/proc/%s/cmdline" % pid).read().split("\0"):
                found.append(int(pid))
        except OSError:
            pass
    return found


# While its memory comes: a tree that is stopped, and that nobody knows of.
def case_killed_import_leaves_nothing():
    word = "half-made-%d" % os.getpid()
    program = "import sys, time\nx = b'x' * (200 << 20)\nprint('ready', flush=True)\ntime.sleep(1000)"
    talk = Talk("run", "--", "python3", "-c", program, word)
    assert talk.line() == "ready"
    pid = next(pid for pid in having(word) if pid != talk.process.pid)
    good(ghost("export", str(pid), "--to", path("half"), "--then", "kill"))
    assert talk.end() == -9
    for _ in range(3):
        half = Talk("import", path("half"))
        until(lambda: having(word), "a tree")
        half.process.kill()
        assert half.end() == -9
        until(lambda: not having(word), "the end of what was half made")


def case_packed_encrypted_and_striped():
    key = path("key")
    with open(os.open(key, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        file.write("ab" * 32)
    ways = [("lz4:" + path("p1"), path("p1"), []),
            ("zstd:encrypt,key=%s:%s" % (key, path("p2")), path("p2"), ["--key", key]),
            ("stripe:%s;%s" % (path("p3"), path("p4")), None, []),
            ("tee:%s;%s" % (path("p5"), path("p6")), path("p6"), [])]
    for to, back, options in ways:
        talk, inner = started()
        assert talk.ask("one") == "1 one"
        good(ghost("export", str(inner), "--to", to, "--then", "kill"))
        assert talk.end() == -9
        other = Talk("import", back or to, *options)
        assert other.ask("again") == "2 again", to
        assert other.ask("exit5") == "3 exit5"
        assert other.end() == 5
    refused = ghost("import", path("p2"))
    assert refused.returncode == 1 and "encrypt" in refused.stderr, refused.stderr
    assert ghost("export", str(os.getpid()), "--to", "no-such-class:x").returncode == 1


def case_signed():
    """Only what the key's owner has signed becomes a process, whole and as it was signed."""
    made = json.loads(good(ghost("key", path("signer"), "--json")))
    good(ghost("key", path("other-signer")))
    assert os.stat(made["secret"]).st_mode & 0o777 == 0o600, made
    again = ghost("key", path("signer"))
    assert again.returncode == 1 and "File exists" in again.stderr, again.stderr
    checks = ["--verify-key", path("signer.pub")]

    def refused(file, why, *options):
        for verb in ("import", "restart", "verify"):
            done = ghost(verb, file, *(options or checks))
            assert done.returncode == 1 and re.search(why, done.stderr), (verb, file, done.stderr)

    for number, prefix in enumerate(("", "lz4:")):
        file = path("signed%d" % number)
        talk, inner = started()
        assert talk.ask("one") == "1 one"
        good(ghost("export", str(inner), "--to", path("unsigned")))
        good(ghost("export", str(inner), "--to", prefix + file, "--sign", path("signer"), "--then", "kill"))
        assert talk.end() == -9
        refused(path("unsigned"), "it is not signed")
        refused(file, "signed by another, whose key is " + made["key"], "--verify-key", path("other-signer.pub"))
        with open(file, "rb") as ghost_file:
            whole = ghost_file.read()
        for place in (60, len(whole) // 2, len(whole) - 10):
            with open(path("bad"), "wb") as bad:
                bad.write(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1:])
            refused(path("bad"), "not what was signed|wrong size|damaged|unpack|too early")
        for bad_bytes in (whole[:-1], whole[:-72], whole[:len(whole) // 2], whole + b"x"):
            with open(path("bad"), "wb") as bad:
                bad.write(bad_bytes)
            refused(path("bad"), "too early|follows|damaged|unpack")
        assert not having(SUBJECT), "something of a refused ghost runs"
        good(ghost("verify", file, *checks))
        good(ghost("verify", file))
        good(ghost("inspect", file))
        other = Talk("import", file, *checks)
        assert other.ask("again") == "2 again", prefix
        assert other.ask("exit5") == "3 exit5"
        assert other.end() == 5
    other = Talk("import", path("signed0"))
    assert other.ask("again") == "2 again", "whoever does not ask whose it is reads it as any"
    other.ask("exit0")
    assert other.end() == 0
    talk, inner = started()
    folder = path("signed-checkpoints")
    good(ghost("checkpoint", str(inner), "--to", folder, "--sign", path("signer"), "--then", "kill"))
    assert talk.end() == -9
    back = Talk("restart", folder, *checks)
    assert back.ask("again") == "1 again"
    back.ask("exit0")
    assert back.end() == 0
    for words in (["checkpoint", str(os.getpid()), "--to", "memory", "--sign", path("signer")],
                  ["import", path("signed0"), "--verify-key", path("unsigned")]):
        assert ghost(*words).returncode == 2, words


def case_concurrent_while_the_kernel_writes():
    """A write into a page that is about to be saved waits; it never fails for that."""
    pids.append(int(good(ghost("run", "--detach", "--", "python3", "-c", FILLER, path("f")))))
    until(lambda: os.path.exists(path("f")), "memory to be filled")
    for _ in range(4):
        out = json.loads(good(ghost("export", str(pids[-1]), "--to", path("f.ghost"), "--mode", "concurrent", "--json")))
        assert "not_deferred" not in out or not (IS_ROOT or os.access("/dev/userfaultfd", os.W_OK)), out
        goes_on("f")
    good(ghost("export", str(pids[-1]), "--to", path("f.ghost"), "--then", "kill"))
    pids.append(int(good(ghost("import", path("f.ghost"), "--detach"))))
    goes_on("f")


def case_then_kill_and_then_stop():
    pid = ticker("t")
    good(ghost("export", str(pid), "--to", path("t.ghost"), "--then", "stop"))
    assert open("/proc/%d/stat" % pid).read().rpartition(")")[2].split()[0] == "T"
    at = ticks("t")
    time.sleep(0.05)
    assert ticks("t") == at
    good(ghost("export", str(pid), "--to", path("t.ghost"), "--then", "kill"))
    until(lambda: not alive(pid), "the original's end")
    pids.append(int(good(ghost("import", path("t.ghost"), "--detach"))))
    assert goes_on("t") >= at


def churner(name):
    """Its pid, and the file that tells its step."""
    work = path(name)
    os.mkdir(work)
    pids.append(int(good(ghost("run", "--detach", "--", "python3", "-c", CHURNER, work))))
    at = os.path.join(work, "at")
    until(lambda: os.path.exists(at) and os.path.getsize(at), "the first step")
    return pids[-1], at


def case_files_come_and_go():
    """A ghost needs what its process had at its stop, not what that had when it was looked at."""
    pid, at = churner("churn")
    for verb, to in ("export", "churn.ghost"), ("checkpoint", "churn.shots"):
        for turn in range(CHURNS):
            done = json.loads(good(ghost(verb, str(pid), "--to", path(to), "--then", "kill", "--json")))
            until(lambda: not alive(pid), "the original's end")
            step = open(at).read()
            made = ghost("import", done.get("snapshot") or path(to), "--detach")
            assert made.returncode == 0, (verb, turn, made.stderr)
            pid = int(made.stdout)
            pids.append(pid)
            until(lambda: open(at).read() not in ("", step), "the next step")


def case_files_come_and_go_in_a_move():
    pid, at = churner("moving")
    for turn in range(CHURNS):
        done = ghost("dup", str(pid), "--to", "localhost", "--then", "kill", "--json")
        assert done.returncode == 0, (turn, done.stdout)
        until(lambda: not alive(pid), "the original's end")
        pid = json.loads(done.stdout)["clone_pid"]
        pids.append(pid)
        step = open(at).read()
        until(lambda: open(at).read() not in ("", step), "the next step")


def case_by_the_pid_of_ghost_run():
    talk, inner = started()
    out = json.loads(good(ghost("export", str(talk.process.pid), "--to", path("r"), "--json")))
    assert out["pid"] == inner


def case_terminal_and_pipe():
    ours, theirs = pty.openpty()
    talk = Talk("run", "--", "python3", "-c", SUBJECT, stdin=theirs, stdout=theirs)
    os.close(theirs)
    text = os.read(ours, 1000).decode()
    while "\n" not in text:
        text += os.read(ours, 1000).decode()
    inner = pid_of(talk, int(text.split()[1]))
    good(ghost("export", str(inner), "--to", path("tty"), "--then", "kill"))
    other = Talk("import", path("tty"))
    assert "1 word" in [other.ask("word"), other.line()]  # a terminal's echo comes first
    os.close(ours)
    talk, inner = started()
    good(ghost("export", str(inner), "--to", path("pipe"), "--then", "kill"))
    with open(path("out"), "w+") as out:
        third = Talk("import", path("pipe"), stdout=out)
        third.process.stdin.write("word\nexit0\n")
        third.process.stdin.flush()
        assert third.end() == 0
        out.seek(0)
        assert out.read() == "1 word\n2 exit0\n"


def case_refused_with_its_name():
    listener = socket.create_server(("127.0.0.1", 0))
    script = ("import socket, time\ns = socket.create_connection(('127.0.0.1', %d))\n"
              "print('ready', flush=True)\ntime.sleep(100)" % listener.getsockname()[1])
    talk = Talk("run", "--", "python3", "-c", script)
    assert talk.line() == "ready"
    done = ghost("export", str(talk.process.pid), "--to", path("x"))
    assert done.returncode == 1 and "descriptor 3" in done.stderr, done.stderr
    assert "127.0.0.1:%d" % listener.getsockname()[1] in done.stderr
    assert not os.path.exists(path("x"))
    assert ghost("export", "1", "--to", path("x")).returncode == 1
    assert ghost("export", "999999999", "--to", path("x")).returncode == 1
    assert ghost("import", path("nothing")).returncode == 1
    open(path("junk"), "w").write("this is no ghost" * 100)
    done = ghost("import", path("junk"))
    assert done.returncode == 1 and "ghost" in done.stderr


def case_what_a_node_lacks():
    work = path("work")
    os.mkdir(work)
    pid = ticker("w")
    good(ghost("export", str(pid), "--to", path("w.ghost"), "--then", "kill"))
    inner = Talk("run", "--", "sh", "-c", "cd %s; exec 5<%s; echo in; cat" % (work, path("w")))
    assert inner.line() == "in"
    good(ghost("export", str(inner.process.pid), "--to", path("lack"), "--then", "kill"))
    os.rmdir(work)
    os.remove(path("w"))
    done = ghost("import", path("lack"))
    assert done.returncode == 1 and work in done.stderr and path("w") in done.stderr, done.stderr


def memory_group(limit):
    """A control group below our own that may use so many bytes of memory, or nothing."""
    with open("/proc/self/cgroup") as file:
        own = [line.strip().split(":", 2) for line in file]
    for _, controllers, place in own:
        old = "memory" in controllers.split(",")
        top = "/sys/fs/cgroup" + ("/memory" if old else "")
        if not old and not os.path.exists(top + "/cgroup.controllers"):
            continue
        group = top + place.rstrip("/") + "/ghost-plain.%d" % os.getpid()
        try:
            os.mkdir(group)
            with open(group + ("/memory.limit_in_bytes" if old else "/memory.max"), "w") as file:
                file.write(str(limit))
            return group
        except OSError:
            if os.path.isdir(group):
                os.rmdir(group)
    return None


def is_removed(group):
    """A control group goes when the last process in it has ended."""
    try:
        os.rmdir(group)
    except OSError as why:
        if why.errno != errno.EBUSY:
            raise
        return False
    return True


def case_no_memory_left_in_its_group():
    """A batch system's limit: the machine has memory, the job has none."""
    group = memory_group(96 << 20)
    if not group:
        raise Skip("no control group with a limit of memory can be made here")
    try:
        program = "x = bytearray(b'x') * (128 << 20); print('ready', flush=True); input()"
        big = Talk("run", "--", "python3", "-c", program)
        assert big.line() == "ready"
        good(ghost("export", str(big.process.pid), "--to", path("big"), "--then", "kill"))
        enter = ["sh", "-c", 'echo $$ > %s/cgroup.procs; exec "$@"' % group, "sh"]
        done = subprocess.run([*enter, GHOST, "import", path("big"), "--detach"], capture_output=True, text=True,
                              timeout=LIMIT)
        assert done.returncode == 1 and re.search(r"memory: .* MiB needed, .* MiB free", done.stderr), done
    finally:
        until(lambda: is_removed(group), "whatever the import has begun to end")
    again = Talk("import", path("big"))
    again.process.stdin.close()
    assert again.end() == 1, "it ended with the end of its input"


def case_kept_only_if_it_can_be_made_again():
    """Nothing is ended on the strength of a ghost that this node would refuse."""
    with open("/proc/self/status") as status:
        bounding = int(re.search(r"CapBnd:\t(\w+)", status.read())[1], 16)
    if IS_ROOT and bounding >> 24 & 1:
        raise Skip("CAP_SYS_RESOURCE raises every limit")
    pid = ticker("k")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for verb in (["export", str(pid), "--to", path("k.ghost")],
                 ["checkpoint", str(pid), "--to", path("k.shots")]):
        done = subprocess.run(["sh", "-c", 'ulimit -n %d; exec "$@"' % (hard - 1), "sh", GHOST,
                               *verb, "--then", "kill"], capture_output=True, text=True,
                              timeout=LIMIT)
        assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
        assert "hard limit of open files: %d needed" % hard in done.stderr, done.stderr
        assert "could be imported on this node" in done.stderr, done.stderr
        goes_on("k")
    assert not os.path.exists(path("k.ghost"))
    good(ghost("export", str(pid), "--to", path("k.ghost"), "--then", "kill"))


def case_export_broken_off():
    pid = ticker("b")
    for stop in (signal.SIGINT, signal.SIGKILL):
        for delay in [0.002 * step for step in range(20)]:
            export = subprocess.Popen([GHOST, "export", str(pid), "--to", path("b.ghost")],
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(delay)
            export.send_signal(stop)
            export.wait(LIMIT)
            goes_on("b")
    good(ghost("export", str(pid), "--to", path("b.ghost")))
    ours = f"ghost-{os.geteuid()}-plain."
    left = [name for name in os.listdir("/dev/shm") if name.startswith(ours)]
    left = [name for name in left if not alive(int(name[len(ours):].split(".")[-1].split("-")[0]))]
    assert not left, left
    assert sorted(name for name in os.listdir(folder) if name.startswith("b.ghost")) == ["b.ghost"]


def case_clone_knows():
    talk, inner = started()
    assert talk.ask("clone") == "1 0"
    good(ghost("export", str(inner), "--to", path("c")))
    other = Talk("import", path("c"), "--clone")
    assert other.ask("clone") == "2 1"
    assert talk.ask("clone") == "2 0"
    if os.path.exists(LIBRARY):
        assert other.ask("library") == "3 1"
        assert talk.ask("library") == "3 0"


def doctor(*before):
    done = subprocess.run([*before, GHOST, "doctor", "--json"], capture_output=True, text=True, timeout=3 * LIMIT)
    node = json.loads(done.stdout)["nodes"][0]
    assert done.returncode == (0 if node["ok"] else 1), done
    checks = {check["name"]: check for check in node["checks"]}
    return node, checks


def case_doctor_says_what_works():
    node, checks = doctor()
    assert node["user"] == os.geteuid()
    assert checks["privilege"]["state"] == ("root" if IS_ROOT else "a user name space"), checks["privilege"]
    assert node["works"]["programs"][:3] == ["stop", "concurrent", "live"], node
    assert ("lazy" in node["works"]["programs"]) == IS_ROOT, node
    by_device = not IS_ROOT and os.access("/dev/userfaultfd", os.R_OK | os.W_OK)
    faults = checks["userfaultfd for all faults"]
    assert faults["ok"] == (IS_ROOT or by_device) and ("/dev/userfaultfd" in faults["state"]) == by_device, faults
    for check in checks.values():
        assert check["ok"] or check["repair"], check
    if not IS_ROOT:
        assert by_device or "60-ghost.rules" in faults["repair"]
        assert checks["real-time priority"]["ok"] or "rtprio" in checks["real-time priority"]["repair"]
        assert not checks["real-time priority"]["needed"]
    text = ghost("doctor", timeout=3 * LIMIT).stdout
    assert "programs by `ghost run`, --mode stop, concurrent, live" in text, text


# A user name space in which no further one may be made is like a node on which none may be.
def case_where_no_user_name_space_is():
    if IS_ROOT:
        raise Skip("root needs none")
    inside = ["unshare", "--user", "--map-current-user", "--keep-caps", "sh", "-c",
              'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"', "sh"]
    node, checks = doctor(*inside)
    assert not node["ok"] and node["works"] == {"ranks": False, "programs": []}, node
    assert "user name space" in checks["privilege"]["state"], checks["privilege"]
    assert checks["criu check"]["state"] == "not tried without that", checks["criu check"]
    for verb in ["run", "--", "true"], ["run", "--detach", "--", "true"], ["import", path("x")]:
        done = subprocess.run([*inside, GHOST, *verb], capture_output=True, text=True, timeout=LIMIT)
        assert done.returncode == 1 and "user name space" in done.stderr, done


def case_not_started_by_us():
    process = subprocess.Popen(["setsid", "python3", "-c", TICKER, path("p")],
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    pid = process.pid
    try:
        until(lambda: os.path.exists(path("p")), "the first tick")
        if not IS_ROOT:
            for verb in (["export", str(pid), "--to", path("p.ghost")], ["checkpoint", str(pid)],
                         ["dup", str(pid), "--to", "localhost"]):
                done = ghost(*verb, cwd=folder)
                assert done.returncode == 1 and "only root may" in done.stderr, done.stderr
                goes_on("p")
            assert not os.path.exists(path("p.ghost"))
            return
        good(ghost("export", str(pid), "--to", path("p.ghost")))
        goes_on("p")
        done = ghost("import", path("p.ghost"), "--detach")
        assert done.returncode == 1 and "ghost run" in done.stderr, done.stderr
    finally:
        process.kill()
        process.wait()
    assert int(good(ghost("import", path("p.ghost"), "--detach"))) == pid
    pids.append(pid)
    goes_on("p")


def case_checkpoint_on_disk():
    talk, inner = started()
    assert talk.ask("one") == "1 one"
    out = json.loads(good(ghost("checkpoint", str(inner), "--to", path("snaps"), "--json")))
    assert out["snapshot"].startswith(path("snaps")) and out["pause_us"] > 0
    assert talk.ask("two") == "2 two"
    good(ghost("checkpoint", str(inner), "--to", path("snaps")))
    assert talk.ask("three") == "3 three"
    done = ghost("restart", path("snaps"))
    assert done.returncode == 1 and "--replace" in done.stderr, done.stderr
    assert talk.ask("four") == "4 four"
    other = Talk("restart", path("snaps"), "--replace")
    assert other.ask("newest") == "3 newest"
    assert talk.end() == -9
    older = Talk("restart", out["snapshot"])
    assert older.ask("older") == "2 older"


def case_checkpoint_in_memory():
    ours = ghost("holder", "--list").returncode != 0
    try:
        talk, inner = started()
        assert talk.ask("one") == "1 one"
        out = json.loads(good(ghost("checkpoint", str(inner), "--to", "memory", "--json")))
        assert out["snapshot"] == "memory:%d" % inner
        assert talk.ask("two") == "2 two"
        good(ghost("checkpoint", str(inner), "--to", "memory", "--name", "b", "--then", "kill"))
        assert talk.end() in (-9, 137)
        kept = json.loads(good(ghost("holder", "--list", "--json")))["ghosts"]
        assert [one["name"] for one in kept][:2] == ["b", str(inner)], kept
        first = Talk("restart", "--from", "memory")
        assert first.ask("again") == "3 again"
        second = Talk("restart", "memory:%d" % inner)
        assert second.ask("again") == "2 again"
        third = Talk("restart", "--from", "memory", "b")
        assert third.ask("again") == "3 again"
        for _ in range(3):  # memory that is warm is used again; nothing of it shows
            good(ghost("checkpoint", str(first.process.pid), "--to", "memory", "--name", "b"))
        fourth = Talk("restart", "memory:b", "--replace")
        answer = fourth.ask("more")
        assert answer == "4 more", answer
        [holder] = glob.glob(HOLDER)
        assert oct(os.stat(holder).st_mode)[-3:] == "600"
        good(ghost("holder", "--drop", "b"))
        assert ghost("restart", "memory:b").returncode == 1
        good(ghost("holder", "--drop", str(inner)))
    finally:
        if ours:
            ghost("holder", "--stop")
    assert not ours or ghost("restart", "--from", "memory").returncode == 1


def holder_pid():
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as one:
        one.connect(glob.glob(HOLDER)[0])
        return struct.unpack("3i", one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]


# Calls `begin`, kills the holder after so much of the time, and returns what `begin` has.
def with_a_death(begin, after_s):
    pid = holder_pid()
    begun = begin()
    time.sleep(after_s)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid), "the holder's end")
    return begun


def checkpoint_with_a_death(inner, after_s, *more):
    words = [GHOST, "checkpoint", str(inner), "--to", "memory", "--name", "b", *more]
    work = with_a_death(
        lambda: subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True),
        after_s)
    _, said = work.communicate(timeout=LIMIT)
    assert work.returncode == 0 or (work.returncode == 1 and "holder" in said), said
    return work.returncode


# A holder that is killed at any moment costs the ghosts it kept, never a process: an original goes
# on, or its ghost is kept; a restart is whole, or an error. In a name space of mounts with a /run of
# its own: nobody else's holder is touched.
def case_killed_holder():
    if not IS_ROOT and ghost("holder", "--list").returncode == 0:
        raise Skip("this user has a holder already")
    if IS_ROOT and "GHOST_TEST_OWN_RUN" not in os.environ:
        words = ["unshare", "--mount", "--propagation", "private", "sh", "-c",
                 'mount -t tmpfs none /run && exec "$@"', "sh", sys.executable, __file__,
                 "killed_holder"]
        done = subprocess.run(words, env={**os.environ, "GHOST_TEST_OWN_RUN": "1"},
                              capture_output=True, text=True, timeout=10 * LIMIT)
        assert done.returncode == 0, done.stdout + done.stderr
        return
    try:
        deaths_of_the_holder()
    finally:
        ghost("holder", "--stop")


def deaths_of_the_holder():
    talk, inner = started()
    good(ghost("checkpoint", str(inner), "--to", "memory"))
    begin = time.monotonic()
    good(ghost("checkpoint", str(inner), "--to", "memory"))
    takes = time.monotonic() - begin
    came = set()
    for i in range(200):
        good(ghost("checkpoint", str(inner), "--to", "memory"))  # with a new holder
        came.add(checkpoint_with_a_death(inner, takes * i / 15))
        assert talk.ask("on") == "%d on" % (i + 1)
        if i >= 20 and came == {0, 1}:  # later and later: the machine may have become slower
            break
    assert came == {0, 1}, (came, takes)
    for i in range(8):
        one, inner = started()
        assert one.ask("one") == "1 one"
        good(ghost("checkpoint", str(inner), "--to", "memory"))
        if checkpoint_with_a_death(inner, takes * i / 6, "--then", "kill") == 0:
            assert one.end() in (-9, 137)
        else:
            assert one.ask("two") == "2 two"
    for i in range(8):
        one, inner = started()
        assert one.ask("one") == "1 one"
        good(ghost("checkpoint", str(inner), "--to", "memory", "--then", "kill"))
        again = with_a_death(lambda: Talk("restart", "--from", "memory"), takes * i / 6)
        try:
            answer = again.ask("again")
        except BrokenPipeError:
            answer = ""
        assert answer == "2 again" or (answer == "" and again.end() == 1), (answer, again.end())


def case_dup_here():
    pid = ticker("dup", "--inherit")
    words = json.loads(good(ghost("dup", str(pid), "--to", "localhost", "--json")))
    clone = words["clone_pid"]
    pids.append(clone)
    assert clone != pid and alive(clone) and alive(pid)
    environment = open("/proc/%d/environ" % clone).read().split("\0")
    assert "GHOST_CLONE=1" in environment
    assert "GHOST_CLONE=0" in open("/proc/%d/environ" % pid).read().split("\0")
    words = json.loads(good(ghost("dup", str(clone), "--to", "localhost", "--then", "kill", "--json")))
    pids.append(words["clone_pid"])
    until(lambda: not alive(clone), "the moved one's end")
    assert alive(words["clone_pid"]) and alive(pid)
    assert ghost("dup", str(pid), "--to", "no-such-node.invalid").returncode == 1
    goes_on("dup")


def clean():
    for talk in live:
        talk.kill()
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
    del live[:], pids[:]


def cleaned(name, case):
    try:
        case()
    finally:
        clean()


try:
    sys.exit(suite.run_cases(suite.cases_in(globals()), sys.argv[1:], cleaned))
finally:
    shutil.rmtree(folder)
