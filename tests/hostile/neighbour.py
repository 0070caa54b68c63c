"""A hostile second user of the nodes, uid 65534 without any privilege, against jobs and processes of root: he makes what
they would make, takes their names, keeps them waiting, and offers his own as theirs. Each case is one way; see
docs/SECURITY.md. `in_the_list` compares that page's list with running jobs, one of root's and one of a user's. Without
arguments all cases; else those named. The laboratory is that of tests/net/snapshots.py."""
import json
import os
import re
import subprocess
import sys
import time

import snapshots
from snapshots import SLOW, Endless, Job, Ledger, lab, on, until
from suite import ROOT, AtWork, as_user, cases_in, good

STRANGER = 65534
USER = "ghost-owner"
HOSTILE = [*as_user(STRANGER), "python3", "-c"]
# What a hostile program begins with.
COMMON = """
import os, socket, sys, time
def ready():
    print("ready", flush=True)
def hold():
    ready()
    sys.stdin.read()
def take(name, kind=socket.SOCK_SEQPACKET):
    s = socket.socket(socket.AF_UNIX, kind)
    s.bind("\\0" + name)
    return s
"""


def hostile(node, code, *words, before=None):
    """A program of the stranger's on a node; it is at it once this is made, until it leaves the block."""
    return AtWork(lab.words(node, *(HOSTILE if before is None else before + HOSTILE[-2:]), COMMON + code, *words))


def as_stranger(node, code, *words):
    return good(on(node, *HOSTILE, COMMON + code, *words))


def timed(node, *words):
    """A command that must not wait for a stranger."""
    begin = time.monotonic()
    done = on(node, *words)
    assert time.monotonic() - begin < 20, (words, time.monotonic() - begin)
    return done


def program(node, seconds):
    """A process under `ghost run`: its number."""
    return int(good(on(node, "ghost", "run", "--detach", "--", "sleep", str(seconds))).split()[-1])


# --- names -----------------------------------------------------------------------------------------

TAKE_FOLDERS = """
for name in ("ghost-0", "ghost-0.0", "ghost-criu", "ghost-snapshots-0", "ghost-snapshots-0.0"):
    os.mkdir("/dev/shm/" + name, 0o777)
"""

# All that the job of the first life listened at, as soon as it is free.
TAKE_SOCKETS = """
names, held = sys.argv[1:], []
ready()
end = time.monotonic() + 60
while names and time.monotonic() < end:
    for name in list(names):
        try:
            held.append(take(name))
            held[-1].listen(1)
            names.remove(name)
        except OSError:
            time.sleep(0.001)
print("taken", len(held), flush=True)
sys.stdin.read()
"""


def abstract_names(node):
    return sorted(set(re.findall(r"@(ghost/\S+)", good(on(node, "cat", "/proc/net/unix")))))


def case_takes_names(folder):
    """Names of folders beforehand, of sockets once he has seen them: snapshots, restarts and moves go on."""
    for node in ("gn1", "gn2", "gn3"):
        as_stranger(node, TAKE_FOLDERS)
    job = Ledger(folder, ranks=2, hosts="gn1:1,gn2:1,gn3:1", steps=400)
    job.reach(50)
    names = {node: abstract_names(node) for node in ("gn1", "gn2")}
    assert all(names.values()), names
    made = job.snapshot("--to", "both")
    assert len(job.complete()) == 1 and os.path.basename(made["second"]), made
    with hostile("gn1", TAKE_SOCKETS, *names["gn1"]) as one, hostile("gn2", TAKE_SOCKETS, *names["gn2"]) as two:
        job.kill()
        for stranger, node in ((one, "gn1"), (two, "gn2")):
            assert stranger.process.stdout.readline() == "taken %d\n" % len(names[node]), names
        job.restart("gn1:1,gn2:1,gn3:1")
        job.reach(120)
        good(on("gn1", "ghost", "migrate", "--rank", "1", "--to", "gn3"))
        job.finish()


TAKE_TURNS = """
held = []
for pid in map(int, sys.argv[1:]):
    held.append(take("ghost-export-%d" % pid, socket.SOCK_DGRAM))
    os.close(os.open("/dev/shm/ghost-bound-%d" % pid, os.O_CREAT | os.O_WRONLY, 0o666))
hold()
"""


def case_takes_turns(folder):
    """Names by a process's number: it is exported all the same."""
    pid = program("gn1", 1001)
    parent = good(on("gn1", "ps", "-o", "ppid=", "-p", str(pid))).strip()
    assert good(on("gn1", "ps", "-o", "comm=", "-p", parent)).strip() == "ghost-init"
    with hostile("gn1", TAKE_TURNS, str(pid), parent):
        good(timed("gn1", "ghost", "export", str(pid), "--to", os.path.join(folder, "one.ghost"), "--then", "kill"))


class Kernetd:
    """A stream manager on gn1 for as long as the block lasts, and what it has said first."""

    def __init__(self, folder):
        write_for_kernetd(folder)
        kernetd = os.path.abspath("kernet-btl/kernetd/kernetd")
        self.process = subprocess.Popen(
            lab.words("gn1", "timeout", "60", "prlimit", "--nofile=1024:1024", kernetd,
                      "--node", "one", "--nodes", folder + "/nodes", "--secret", folder + "/secret"), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.said = self.process.stdout.readline()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        on("gn1", "sh", "-c", "kill $(pidof kernetd)")
        self.process.communicate(timeout=30)


def write_for_kernetd(folder):
    for name, text in (("nodes", "one 127.0.0.1 7777\n"), ("secret", "5e" * 32 + "\n")):
        with open(os.path.join(folder, name), "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(text)


def case_takes_kernetd(folder):
    """The name at which a stream manager would listen."""
    with hostile("gn1", "held = take('kernet/0')\nhold()"), Kernetd(folder) as manager:
        assert manager.said == "kernetd: one is ready\n", manager.said


# --- waits -----------------------------------------------------------------------------------------

FULL_BACKLOG = """
os.makedirs("/tmp/ompi.stranger.0/pid.1")
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.bind("/tmp/ompi.stranger.0/pid.1/ghost.sock")
os.chmod("/tmp/ompi.stranger.0/pid.1/ghost.sock", 0o777)
s.listen(0)
full = []
for i in range(3):
    full.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    full[-1].setblocking(False)
    try:
        full[-1].connect("/tmp/ompi.stranger.0/pid.1/ghost.sock")
    except BlockingIOError:
        pass
hold()
"""


def case_keeps_commands_waiting(folder):
    """A session folder whose coordinator takes no connection: `ghost ps` shows the job that there is."""
    Endless(folder)
    with hostile("gn1", FULL_BACKLOG):
        jobs = json.loads(good(timed("gn1", "ghost", "ps", "--json")))["jobs"]
        assert len(jobs) == 1, jobs
        good(timed("gn1", "ghost", "migrate", "--rank", "1", "--to", "gn3"))


KNOCK = """
names, count, end = sys.argv[1:], 0, time.monotonic() + 2
while time.monotonic() < end:
    for name in names:
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.setblocking(False)
        try:
            s.connect("\\0" + name)
            count += 1
        except OSError:
            pass
        s.close()
print(count)
"""


def case_knocks(folder):
    """Hundreds of connections to whatever listens: a line or two of the job's output, and the job goes on."""
    job = Endless(folder)
    knocks = int(as_stranger("gn1", KNOCK, *abstract_names("gn1")))
    assert knocks > 100, knocks
    steps = job.text().count("ledger: step")
    job.until_running(lambda: job.text().count("ledger: step") > steps + 2, "further steps")
    lines = [line for line in job.text().splitlines() if not line.startswith("ledger:")]
    assert len(lines) <= 4, (len(lines), lines[:5])
    assert any("another user" in line for line in lines), lines


# Connections to whatever has those names, as many as it takes, up to 1100 each; they say nothing, and are made again
# when they are closed.
IDLE = """
import errno, resource, select, stat
resource.setrlimit(resource.RLIMIT_NOFILE, (16384, 16384))
poll, held = select.epoll(), {}
def again(name):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.setblocking(False)
    try:
        s.connect(name)
    except OSError:
        return False  # its queue is full
    held[s.fileno()] = (s, name)
    poll.register(s.fileno(), select.EPOLLRDHUP)
    return True
def fill(seconds):
    end = time.monotonic() + seconds
    wanted = {name: 1100 for name in names}
    for s, name in held.values(): wanted[name] -= 1
    while any(wanted.values()) and time.monotonic() < end:
        for name in names:
            if wanted[name] and again(name): wanted[name] -= 1
            elif wanted[name]: time.sleep(0.002)
names = [name.replace("@", "\\0") for name in sys.argv[1:]]
fill(6)
ready()
poll.register(0, select.EPOLLIN)
while True:
    for fd, _ in poll.poll(1, 4096):
        if fd == 0: sys.exit()
        poll.unregister(fd)
        held.pop(fd)[0].close()
    fill(0.1)
"""


def listening_control_sockets(node):
    """Names of those of Ghost's on a node that are no link of a rank's."""
    names = re.findall(r" (\S*ghost\S*)$", good(on(node, "cat", "/proc/net/unix")), re.M)
    return sorted({name for name in names if not re.search(r"/r\d+\.\d+$", name)})


def case_idle_at_control_sockets(folder):
    """Processes of the job's own user and of another one that connect to every control socket and say nothing: the job
    is shown, moved and kept in memory as if there were none, and nothing spins."""
    Endless(folder)
    pid = program("gn1", 1003)
    good(on("gn1", "ghost", "checkpoint", str(pid), "--to", "memory"))  # which makes a holder
    names = {node: listening_control_sockets(node) for node in ("gn1", "gn3")}
    for what in ("/ghost.sock", "/holder.sock", "@ghost/"):
        assert any(what in name for name in names["gn1"]), names
    def own(node):
        return hostile(node, IDLE, *names[node], before=[])
    def spent():
        fields = good(on("gn1", "sh", "-c", "cat /proc/$(pidof -s mpirun)/stat")).rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    try:
        with own("gn1"), own("gn3"), hostile("gn1", IDLE, *(name for name in names["gn1"] if name[0] == "@")):
            begin, before = time.monotonic(), spent()
            assert len(json.loads(good(timed("gn1", "ghost", "ps", "--json")))["jobs"]) == 1
            good(timed("gn1", "ghost", "migrate", "--rank", "1", "--to", "gn3"))
            good(timed("gn1", "ghost", "checkpoint", str(pid), "--to", "memory"))
            good(timed("gn1", "ghost", "holder", "--list"))
            print("# in %.1f s; mpirun: %.1f s of a processor" % (time.monotonic() - begin, spent() - before), flush=True)
            assert spent() - before < 0.5 * (time.monotonic() - begin), spent() - before
    finally:
        on("gn1", "ghost", "holder", "--stop")
        on("gn1", "kill", str(pid))


GREET = """
import signal
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
signal.alarm(10)  # not settimeout(): connect(2) would not wait then
s.connect(sys.argv[1])
s.send(b'{"t":"hello","process":0}')
print(s.recv(65536).decode())
"""


def case_idle_at_kernetd(folder):
    """The same at a stream manager that has 1024 descriptors: whoever greets it is welcomed."""
    with Kernetd(folder):
        [name] = re.findall(r" (/\S*/kernet.sock)$", good(on("gn1", "cat", "/proc/net/unix")), re.M)
        with hostile("gn1", IDLE, name, before=[]):
            answer = json.loads(good(on("gn1", "python3", "-c", COMMON + GREET, name)))
            assert answer["t"] == "welcome", answer


def case_long_session_folder(folder):
    """Not hostile: the coordinator of a job with a long TMPDIR is found as any other."""
    place = "/tmp/" + "x" * 90
    good(on("gn1", "mkdir", place))
    job = Job(folder, ["sleep", "100"], ranks=1, hosts="gn1:1", mca=[("orte_tmpdir_base", place)])
    def found():
        shown = on("gn1", "env", "OMPI_MCA_orte_tmpdir_base=" + place, "ghost", "ps", "--json")
        return shown.returncode == 0 and json.loads(shown.stdout)["jobs"]
    job.until_running(found, "the job to be shown")


# --- his own as theirs -----------------------------------------------------------------------------

def exported(folder, name, seconds):
    file = os.path.join(folder, name)
    good(on("gn1", "ghost", "export", str(program("gn1", seconds)), "--to", file, "--then", "kill"))
    return file


def began(done):
    """What the process that was begun does, which is then ended."""
    pid = good(done).split()[-1]
    said = good(on("gn1", "sh", "-c", "tr '\\0' ' ' < /proc/%s/cmdline" % pid))
    on("gn1", "kill", pid)
    return said.strip()


def case_offers_ghosts(folder):
    """A ghost of his in a folder with one of root's, and newer: refused, passed over, taken if that is asked for."""
    own, his = exported(folder, "own.ghost", 2001), exported(folder, "his.ghost", 2002)
    os.chown(his, STRANGER, STRANGER)
    later = time.time() + 3600
    os.utime(his, (later, later))
    for words in (["import", his], ["restart", his]):
        refused = on("gn1", "ghost", *words, "--detach")
        assert refused.returncode == 1 and "belongs to user %d" % STRANGER in refused.stderr, (words, refused)
    assert began(on("gn1", "ghost", "restart", folder, "--detach")) == "sleep 2001"
    assert began(on("gn1", "ghost", "restart", folder, "--detach", "--trust-owner")) == "sleep 2002"
    merged = os.path.join(folder, "merged")
    refused = on("gn1", "ghost", "merge", his, "-o", merged)
    assert refused.returncode == 1 and "belongs to user %d" % STRANGER in refused.stderr, refused
    trusted = on("gn1", "ghost", "merge", his, "-o", merged, "--trust-owner")
    assert "is full already" in trusted.stderr and not os.path.exists(merged), trusted
    good(on("gn1", "ghost", "verify", his))
    good(on("gn1", "ghost", "inspect", his))
    os.chmod(own, 0o622)
    refused = on("gn1", "ghost", "restart", folder, "--detach")
    assert refused.returncode == 1, refused
    os.chmod(own, 0o600)


def case_offers_parts_of_snapshots(folder):
    """Ghosts of a snapshot that are his, beside the manifest or on another node: `ghost gather` takes none of them."""
    job = Endless(folder)
    made = job.snapshot("--to", "memory")["snapshot"]
    job.kill()
    together = os.path.join(folder, "together")
    for node, rank in (("gn1", 0), ("gn2", 1)):
        file = "%s/rank-%d.ghost.lz4" % (made, rank)
        for spoil, mend in ((["chown", str(STRANGER), file], ["chown", "0", file]),
                            (["chmod", "0666", file], ["chmod", "0600", file])):
            good(on(node, *spoil))
            refused = on("gn1", "ghost", "gather", made, "--to", together)
            assert refused.returncode == 1, (node, refused)
            assert re.search("belongs to (another )?user|others may write to it", refused.stderr), (node, refused)
            assert not [name for name in os.listdir(together) if re.fullmatch(r"\d+-\d{6}", name)]
            good(on(node, *mend))
    good(on("gn1", "ghost", "gather", made, "--to", together))


# --- the list --------------------------------------------------------------------------------------

# Everything of a job's on a node, by its processes' descriptors and by the folders where all may write.
LIST = r"""
import json, os, re, stat, sys
uid, shared, out = int(sys.argv[1]), sys.argv[2], []
names = {"mpirun", "orted", "ghost-wrapper", "ghost-init", "ghost-guard", "ledger", "criu"}
sockets, by = {}, {}
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        comm = open("/proc/%s/comm" % pid).read().strip()
        if comm not in names:
            continue
        for fd in os.listdir("/proc/%s/fd" % pid):
            link = os.readlink("/proc/%s/fd/%s" % (pid, fd))
            if link.startswith("socket:["):
                sockets.setdefault(link[8:-1], comm)
            elif link.startswith("/memfd:"):
                out.append({"what": link.split(" ")[0], "kind": "memfd", "by": comm})
    except OSError:
        pass
for line in open("/proc/net/unix").read().splitlines()[1:]:
    row = line.split()
    if int(row[3], 16) & 0x10000 and row[6] in sockets:
        out.append({"what": row[7] if len(row) > 7 else "", "kind": "Unix, listens", "by": sockets[row[6]]})
for table in ("tcp", "tcp6"):
    for line in open("/proc/net/" + table).read().splitlines()[1:]:
        row = line.split()
        if row[3] == "0A" and row[9] in sockets:
            out.append({"what": "port", "kind": "TCP, listens", "by": sockets[row[9]]})
for place in ("/tmp", "/dev/shm", "/run"):
    for folder, folders, files in os.walk(place):
        for name in folders + files:
            path = os.path.join(folder, name)
            info = os.lstat(path)
            if path.startswith(shared + "/") or shared.startswith(path + "/"):
                continue
            if info.st_uid == uid and not stat.S_ISSOCK(info.st_mode):
                kind = "folder" if stat.S_ISDIR(info.st_mode) else "file"
                out.append({"what": path, "kind": kind, "mode": stat.S_IMODE(info.st_mode)})
print(json.dumps(out))
"""
WORDS = {"UID": r"\d+", "JOB": r"\d+", "RANDOM": r"[0-9A-Za-z]+", "LIFE": r"[0-9a-f]+", "RANK": r"\d+",
         "EPOCH": r"\d+", "PID": r"\d+", "NAME": r"[-.\w]+", "NODE": r"[-.\w]+", "SPACE": r"\d+", "REST": r".+"}
BY = {"mpirun": "daemon", "orted": "daemon", "ghost-wrapper": "wrapper", "ledger": "rank", "ghost-init": "rank"}


def listed():
    """Rows of the list in docs/SECURITY.md: expression, kind, owner."""
    with open(os.path.join(ROOT, "docs", "SECURITY.md")) as file:
        table = file.read().split("## What a job has")[1].split("\n## ")[0]
    rows = []
    for what, kind, owner in re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|", table, re.M)[1:]:
        if what.startswith("--"):
            continue
        name = re.fullmatch(r"`([^`]+)`", what)
        form = re.escape(name[1]) if name else None
        for word, meaning in WORDS.items():
            form = form and re.sub(r"(?<![A-Za-z])%s(?![A-Za-z])|(?<=r)%s(?![A-Za-z])" % (word, word), lambda _: meaning, form)
        rows.append((form and form.rstrip("/"), kind, owner))
    return rows


def unlisted(found, rows, user):
    """Those that no row has, with that owner and mode."""
    def fits(one, row):
        form, kind, owner = row
        if kind != one["kind"]:
            return False
        if "mode" in one:
            whose, mode = owner.split(", ")
            return (form is not None and re.fullmatch(form, one["what"]) and int(mode, 8) == one["mode"]
                    and (whose == "user" or user == "root"))
        if form is not None and not re.fullmatch(form, one["what"]):
            return False
        return owner.split(", ")[0] in (BY.get(one["by"]), "user")
    return [one for one in found if not any(fits(one, row) for row in rows)]


def as_owner(node, *words):
    return on(node, *words, user=USER)


def see(user, uid, before, folder):
    rows, seen = listed(), []
    for node in ("gn1", "gn2"):
        found = json.loads(good(on(node, "python3", "-c", LIST, str(uid), os.getcwd())))
        seen += found
        # what lies in a folder of the list is its owner's alone
        private = [one["what"] + "/" for one in found if one["kind"] == "folder" and not unlisted([one], rows, user)]
        found = [one for one in found if "mode" not in one or one["what"] not in before[node]
                 and not any(one["what"].startswith(p) for p in private)]
        assert unlisted(found, rows, user) == [], (user, node, unlisted(found, rows, user))
    assert unlisted([{"what": "/dev/shm/ghost-x", "kind": "folder", "mode": 0o755}], rows, user)
    for kind, by in (("Unix, listens", "mpirun"), ("Unix, listens", "orted"), ("Unix, listens", "ledger"),
                     ("TCP, listens", "ledger"), ("TCP, listens", "orted")):
        assert any(one["kind"] == kind and one.get("by") == by for one in seen), (kind, by, seen)
    assert any(re.match("/dev/shm/ghost-snapshots-", one["what"]) for one in seen), seen


def case_in_the_list(folder):
    """Sockets, ports, files and segments of a job of root's, then of a user's, are those of docs/SECURITY.md."""
    def around(uid):
        return {node: {one["what"] for one in json.loads(good(on(node, "python3", "-c", LIST, str(uid), os.getcwd())))
                       if "mode" in one} for node in ("gn1", "gn2")}
    before = around(0)
    job = Endless(folder)
    job.snapshot("--to", "memory")
    see("root", 0, before, folder)
    job.kill()
    subprocess.run(["userdel", USER], capture_output=True)
    good(subprocess.run(["useradd", "--no-create-home", "--shell", "/bin/bash", "--password", "*", USER],
                        capture_output=True, text=True))
    try:
        users_job(folder)
    finally:
        # not as long as a process of the job's is ending; 6: there is no such user any more
        until(lambda: subprocess.run(["userdel", USER], capture_output=True).returncode in (0, 6),
              "the user's processes to end")


def users_job(folder):
    uid = int(good(subprocess.run(["id", "-u", USER], capture_output=True, text=True)))
    own = os.path.join(folder, "users")
    os.makedirs(own)
    os.chmod(folder, 0o755)  # of the one above it
    os.chown(own, uid, uid)
    text = os.path.join(folder, "users-text")
    with open(text, "w") as out:
        mpirun = subprocess.Popen(
            lab.words("gn1", "mpirun", "-np", "2", "--host", "gn1:1,gn2:1", "--bind-to", "none", "--mca", "ghost", "1",
                      "--mca", "ghost_checkpoint_dir", own + "/shots", snapshots.LEDGER, "--dir", own, *SLOW, user=USER),
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
    try:
        def stepped():
            with open(text) as file:
                said = file.read()
            assert mpirun.poll() is None, said
            return "ledger: step" in said
        until(stepped, "the user's job")
        made = as_owner("gn1", "ghost", "checkpoint", "--to", "memory")
        with open(text) as file:
            assert made.returncode == 0, (made.stderr, file.read())
        see(USER, uid, {"gn1": set(), "gn2": set()}, own)
    finally:
        as_owner("gn1", "sh", "-c", "kill -9 $(pidof mpirun)")
        mpirun.wait(30)


if __name__ == "__main__":
    sys.exit(snapshots.main(cases_in(globals()), sys.argv[1:]))
