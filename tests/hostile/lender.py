"""ghostd where users may make no user name spaces (lender.sh makes such a node): an ordinary user is refused by name
without it; with it his programs run, are exported and imported; hostile users get nothing that is not theirs, keep
nobody waiting and leave nothing behind. Without arguments all cases; else those named."""
import ctypes
import glob
import json
import os
import pwd
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from suite import GHOST, TICKER, AtWork, Skip, as_user, cases_in, run_cases, ticks, until

GHOSTD = os.path.abspath("tools/ghostd/ghostd")
FAULTS = os.path.abspath("tests/process/lent_faults")
USER = pwd.getpwnam(os.environ["GHOST_TEST_USER"])
STRANGER = 61234
SOCKET = "/run/ghost/ghostd.sock"
MAGIC, VERSION = 0x67736f68, 1
NOTHING, SPACE, USERFAULTFD = 0, 1, 2
LENT, BUSY, NOT_LENT, NOT_TO_YOU, TOO_MANY, FAILED, NOT_UNDERSTOOD = range(7)
LIMIT = 20
outside = None

# A client of its own: says what it is told to, and prints verdict, bits, errno and how many descriptors came.
CLIENT = """
import array, ctypes, json, os, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def connect():
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for limit in socket.SO_SNDTIMEO, socket.SO_RCVTIMEO:  # of connect() too
        s.setsockopt(socket.SOL_SOCKET, limit, struct.pack("ll", 60, 0))
    s.connect("/run/ghost/ghostd.sock")
    return s
def ask(what, magic=0x67736f68, version=1, reserved=0, more=b"", raw=None, fds=()):
    s = connect()
    data = struct.pack("<IHHQ", magic, version, what, reserved) + more if raw is None else raw
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    s.sendmsg([data], ancillary)
    answer, got, _, _ = socket.recv_fds(s, 100, 4)
    _, _, verdict, lends, error = struct.unpack("<IHHIi", answer)
    return verdict, lends, error, list(got)
def say(value):
    print(json.dumps(value), flush=True)
def enter(fd):
    return 0 if libc.setns(fd, 0x10000000) == 0 else ctypes.get_errno()
def caps():
    return [l.split()[1] for l in open("/proc/self/status") if l.startswith("CapEff")][0]
"""

libc = ctypes.CDLL(None, use_errno=True)


def cover():
    """From now on whoever has our root may make no user name spaces."""
    assert libc.mount(b"none", b"/", b"tmpfs", 0, None) == 0, os.strerror(ctypes.get_errno())


def uncover():
    assert libc.umount2(b"/..", 2) == 0, os.strerror(ctypes.get_errno())  # MNT_DETACH


AS_USER = as_user(USER.pw_uid, USER.pw_gid)


def client(code, uid=None):
    """What a client's program says, line by line as values."""
    who = AS_USER if uid is None else as_user(uid) if uid != 0 else []
    done = subprocess.run([*who, "python3", "-c", CLIENT + code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def listens():
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as one:
        return one.connect_ex(SOCKET) == 0


class Lender:
    """ghostd, outside."""

    def __init__(self, *options, by=()):
        # as a service has it: nothing open but these
        self.process = subprocess.Popen(
            ["nsenter", "--mount=/proc/%s/ns/mnt" % outside, "--", *by, GHOSTD, *(() if by else ("--listen", SOCKET)),
             *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        until(listens, "ghostd to listen")

    def __enter__(self):
        return self

    def pid(self):
        return self.process.pid

    def children(self):
        return open("/proc/%d/task/%d/children" % (self.pid(), self.pid())).read().split()

    def descriptors(self):
        return len(os.listdir("/proc/%d/fd" % self.pid()))

    def at_rest(self):
        """It has taken all who have connected by now and serves nobody any more. How many descriptors it has open."""
        assert client("say(ask(0)[0])", uid=0) == [LENT]
        until(lambda: not self.children(), "the end of what it serves")
        return self.descriptors()

    def held(self, count):
        """Holds those at their work who serve somebody, once they are so many."""
        def stopped():
            for pid in map(int, self.children()):
                os.kill(pid, signal.SIGSTOP)
            return {pid for pid in self.children() if re.search(r"\nState:\tT", open("/proc/%s/status" % pid).read())}

        def enough():
            try:
                held = stopped()
            except (ProcessLookupError, FileNotFoundError):  # it has just ended
                return None
            return held if len(held) == count else None
        return until(enough, "%d who are served" % count)

    def let_go(self, held):
        """They go on, and end: their time is up."""
        for pid in held:
            os.kill(int(pid), signal.SIGCONT)
        until(lambda: not held & set(self.children()), "the end of those who were held")

    def __exit__(self, *_):
        assert self.process.poll() is None, "ghostd has ended: " + self.process.stdout.read().decode()
        self.process.terminate()
        self.said = self.process.communicate(timeout=LIMIT)[0].decode()
        if os.path.exists(SOCKET):
            os.unlink(SOCKET)


def ghost(*words, **more):
    return subprocess.run([*AS_USER, GHOST, *words], capture_output=True, text=True, timeout=60, cwd="/", **more)


def spaces(uid):
    """User name spaces of processes of that user, but for ours."""
    out = set()
    for folder in glob.glob("/proc/[0-9]*"):
        try:
            if os.stat(folder).st_uid == uid:
                out.add(os.readlink(folder + "/ns/user"))
        except OSError:
            pass
    return out - {os.readlink("/proc/self/ns/user")}


def case_refused_without():
    for verb in ["run", "--", "true"], ["run", "--detach", "--", "true"], ["import", "/nowhere"]:
        done = ghost(*verb)
        assert done.returncode == 1, done
        assert "cannot make a user name space: users may not, and no ghostd(8) runs here that lends them (Operation not " \
               "permitted)" in done.stderr, done.stderr
    node = json.loads(ghost("doctor", "--json").stdout)["nodes"][0]
    assert not node["ok"] and node["works"]["programs"] == [], node
    assert "systemctl enable --now ghostd.socket" in node["checks"][0]["repair"], node["checks"][0]


def case_doctor_says_what_is_lent():
    with Lender():
        node = json.loads(ghost("doctor", "--json").stdout)["nodes"][0]
        checks = {check["name"]: check for check in node["checks"]}
        assert checks["privilege"]["ok"] and checks["criu check"]["ok"], node
        assert checks["ghostd"]["state"] == "lends user name spaces", node


class Activated:
    """ghostd as systemd starts it, when somebody asks. From then on nothing is mounted over the root, as criu takes no
    program from below it: it stands in for a kernel that refuses new name spaces and nothing else."""

    def __init__(self):
        uncover()
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(SOCKET)
        os.chmod(SOCKET, 0o666)
        self.listener.listen()

    def serve(self, *words):
        """The output of a `ghost` that has been refused by the kernel, and has asked."""
        cover()
        asks = subprocess.Popen([*AS_USER, GHOST, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, cwd="/")
        assert select.select([self.listener], [], [], LIMIT)[0], asks.communicate()
        uncover()
        fd = self.listener.fileno()
        lender = subprocess.Popen(
            ["sh", "-c", "exec 3<&%d && LISTEN_FDS=1 LISTEN_PID=$$ exec %s" % (fd, GHOSTD)], pass_fds=[fd],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            out, err = asks.communicate(timeout=LIMIT)
            assert asks.returncode == 0, err
            return out
        finally:
            lender.terminate()
            lender.wait()

    def close(self):
        self.listener.close()
        os.unlink(SOCKET)


def case_run_export_import():
    folder = tempfile.mkdtemp(prefix="ghost-lender.", dir="/var/tmp")
    os.chown(folder, USER.pw_uid, USER.pw_gid)
    at, saved = os.path.join(folder, "at"), os.path.join(folder, "saved")
    now = lambda: ticks(at)
    lender = Activated()
    pids = []
    try:
        pids.append(int(lender.serve("run", "--detach", "--", "python3", "-c", TICKER, at)))
        until(lambda: now() > 10, "ticks")
        done = ghost("export", str(pids[0]), "--to", saved, "--then", "kill")
        assert done.returncode == 0, done
        until(lambda: not os.path.exists("/proc/%d" % pids[0]), "the original's end")
        then = now()
        pids.append(int(lender.serve("import", saved, "--detach")))
        until(lambda: now() > then + 10, "more ticks")
        status = open("/proc/%d/status" % pids[1]).read()
        assert "CapEff:\t" + "0" * 16 in status and "Uid:\t%d\t" % USER.pw_uid in status, status
        for verb in ["checkpoint", "--to", saved + "2"], ["export", "--to", saved + "3"]:
            done = ghost(verb[0], str(pids[1]), *verb[1:])
            assert done.returncode == 0, done
        then = now()
        until(lambda: now() > then + 10, "more ticks")
    finally:
        lender.close()
        cover()
        for pid in pids:
            subprocess.run(["kill", "-9", str(pid)], stderr=subprocess.DEVNULL)
        until(lambda: not spaces(USER.pw_uid), "the end of all name spaces")
        shutil.rmtree(folder)


def case_no_privilege():
    with Lender():
        done = ghost("run", "--", "sh", "-c", "grep -h CapEff /proc/self/status /proc/1/status; cat /proc/self/uid_map "
                     "/proc/self/gid_map /proc/self/setgroups")
        assert done.stdout.split() == [
            "CapEff:", "0" * 16, "CapEff:", "0" * 16, str(USER.pw_uid), str(USER.pw_uid), "1", str(USER.pw_gid),
            str(USER.pw_gid), "1", "deny"], done
        # who has only borrowed has what he had
        before, verdict, between, inside, map_is, setgroups = client("""
say(caps()); answer = ask(1); say(answer[0]); say(caps())
assert enter(answer[3][0]) == 0
say(caps() != "0" * 16); say(open("/proc/self/uid_map").read().split()); say(open("/proc/self/setgroups").read())
for act in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([]), lambda: os.kill(1, 0),
            lambda: open("/etc/shadow"), lambda: open("/proc/self/uid_map", "wb", 0).write(b"0 0 1"),
            lambda: open("/proc/sys/kernel/hostname", "wb", 0).write(b"x")):
    try: act()
    except OSError: continue
    raise SystemExit("something was allowed: " + str(act.__code__.co_names))
""")
        assert (before, verdict, between, inside) == ("0" * 16, LENT, "0" * 16, True)
        assert map_is == [str(USER.pw_uid), str(USER.pw_uid), "1"] and setgroups == "deny\n"


def case_ranks():
    """Each rank has one lent, and no privilege; without ghostd mpirun says that none will move."""
    words = 'eval "$("$0" env)"; exec mpirun --oversubscribe --mca ghost 1 -np 2 sh -c "$1"'
    rank = "echo $(cat /proc/self/uid_map) $(grep CapEff /proc/self/status)"

    def job():
        done = subprocess.run([*AS_USER, "sh", "-c", words, GHOST, rank], capture_output=True, text=True, timeout=60,
                              cwd="/", env={**os.environ, "HOME": "/"})
        assert done.returncode == 0, done
        return done

    with Lender() as lender:
        done = job()
        assert done.stdout.splitlines() == ["%d %d 1 CapEff: %s" % (USER.pw_uid, USER.pw_uid, "0" * 16)] * 2, done
        lender.at_rest()
    assert lender.said.count("lent a name space") == 3, lender.said  # mpirun has tried it
    done = job()
    assert "no ghostd(8) runs here that lends them" in " ".join(done.stderr.split()), done
    assert done.stdout.split().count("4294967295") == 2, done


def case_nobody_elses():
    """A name space is of use to its user alone; whoever has no number of his own, and root, get none."""
    with Lender("--lend", "space,userfaultfd"):
        assert client("say(ask(1)[0]); say(ask(2)[0]); say(ask(0)[0])", uid=0) == [NOT_TO_YOU, NOT_TO_YOU, LENT]
        assert client("say(ask(1)[0]); say(ask(2)[0])", uid=65534) == [NOT_TO_YOU, NOT_TO_YOU]
        ours, theirs = socket.socketpair()
        # handed on to a stranger, who tries it
        borrower = subprocess.Popen([*AS_USER, "python3", "-c", CLIENT + """
s = socket.socket(fileno=int(sys.argv[1])); socket.send_fds(s, [b"x"], ask(1)[3])
""", str(theirs.fileno())], pass_fds=[theirs.fileno()])
        _, got, _, _ = socket.recv_fds(ours, 1, 1)
        assert borrower.wait() == 0
        tries = subprocess.run([*as_user(STRANGER), "python3", "-c", CLIENT + "say(enter(int(sys.argv[1])))",
                                str(got[0])], pass_fds=got, capture_output=True, text=True)
        assert tries.stdout == "1\n", tries  # EPERM
        for fd in got:
            os.close(fd)


def case_what_it_understands():
    with Lender() as lender:
        rest = lender.at_rest()
        said = client("""
import os
pid = os.open("/proc/1", os.O_PATH)
for answer in (ask(1, magic=1), ask(1, version=2), ask(3), ask(65535), ask(1, reserved=1), ask(1, more=b"x"),
               ask(1, raw=b""), ask(1, raw=b"x"), ask(1, raw=os.urandom(100000)), ask(1, fds=[os.pidfd_open(1)]),
               ask(1, fds=[pid] * 200)):
    say([answer[0], len(answer[3])])
say(ask(1)[0]); say(ask(2)[:2])
""")
        assert said[:-2] == [[NOT_UNDERSTOOD, 0]] * 11, said
        assert said[-2:] == [LENT, [NOT_LENT, 1 << SPACE]], said
        assert lender.at_rest() == rest


def case_userfaultfd():
    """A userfaultfd for the kernel's faults, by the device that a user may not open, lent to his tree from outside."""
    assert not os.stat("/dev/userfaultfd").st_mode & 0o006
    for options, wanted in ((), "cannot make userfaultfd"), (("--lend", "space,userfaultfd"), "served\n"):
        with Lender(*options) as lender:
            done = subprocess.run([*AS_USER, FAULTS], capture_output=True, text=True, timeout=60)
            assert done.stdout.startswith(wanted), (options, done)
            node = json.loads(ghost("doctor", "--json").stdout)["nodes"][0]
            checks = {check["name"]: check for check in node["checks"]}
            assert (checks["userfaultfd for all faults"]["state"] == "works, by ghostd") == bool(options), checks
        assert ("lent /dev/userfaultfd to user %d," % USER.pw_uid in lender.said) == bool(options), lender.said
    # where root has given the device to the user, nobody is asked for it
    device = tempfile.mktemp(prefix="ghost-device.", dir="/var/tmp")
    number = os.stat("/dev/userfaultfd").st_rdev
    with Lender("--lend", "space,userfaultfd") as lender:
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", 'mknod -m 0600 "$1" c $2 $3 && chown $4 "$1" && '
             'mount --bind "$1" /dev/userfaultfd && rm "$1" && shift 4 && exec "$@"', "sh", device,
             str(os.major(number)), str(os.minor(number)), str(USER.pw_uid), *AS_USER, FAULTS],
            capture_output=True, text=True, timeout=60)
        assert done.stdout == "served\n", done
    assert "userfaultfd" not in lender.said, lender.said


# Connections that say nothing: they are made for as long as the input lasts, and 2000 at least. Those that have been
# answered, as too many, are closed. Then: how many there were.
FLOOD = """
import resource, select
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
def is_mute(s):
    try: s.recv(100, socket.MSG_DONTWAIT)
    except BlockingIOError: return True
    return False
mute, made = [], 0
print("ready", flush=True)
while made < 2000 or not select.select([0], [], [], 0)[0]:
    mute.append(connect())
    made += 1
    if made % 100 == 0: mute = [s for s in mute if is_mute(s)]
say(made)
"""


def case_flood():
    """One user's connections that say nothing: eight are served, each for two seconds; others do not notice."""
    with Lender() as lender:
        rest = lender.at_rest()
        with AtWork([*as_user(STRANGER), "python3", "-c", CLIENT + FLOOD]) as flood:
            for _ in range(2):
                eight = lender.held(8)
                for _ in range(5):
                    assert client("say(ask(1)[0])") == [LENT]
                    until(lambda: set(lender.children()) == eight, "nobody else to be served")
                lender.let_go(eight)
            assert int(flood.end()) >= 2000
        assert lender.at_rest() == rest
        # his own turn comes again
        assert client("say(ask(1)[0])", uid=STRANGER) == [LENT]


def case_flood_of_requests():
    """Requests of one user's that all wait at the same time: eight are served before another user is."""
    with Lender() as lender:
        lender.at_rest()
        os.kill(lender.pid(), signal.SIGSTOP)
        client("""
for i in range(3000):
    s = connect(); s.send(struct.pack("<IHHQ", 0x67736f68, 1, 1, 0)); s.close()
""", uid=STRANGER)
        os.kill(lender.pid(), signal.SIGCONT)
        assert client("say(ask(1)[0])") == [LENT]
        lender.at_rest()
    assert lender.said.count("to user %d," % STRANGER) == 8, lender.said


def case_busy_is_waited_for():
    """As many wrappers at once as a node has ranks, all served."""
    with Lender() as lender:
        many = [subprocess.Popen([*AS_USER, GHOST, "run", "--", "true"], cwd="/", stderr=subprocess.PIPE)
                for _ in range(24)]
        assert [(one.wait(60), one.stderr.read()) for one in many] == [(0, b"")] * 24
        lender.at_rest()


def case_spaces_are_counted():
    with Lender("--spaces", "2"):
        held = []
        for verdict in LENT, LENT, TOO_MANY:
            holder = subprocess.Popen([*AS_USER, "python3", "-c", CLIENT + """
answer = ask(1)
if answer[3]: enter(answer[3][0])
say(answer[0]); sys.stdin.read()
"""], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            held.append(holder)
            assert json.loads(holder.stdout.readline()) == verdict
        done = ghost("run", "--", "true")
        assert done.returncode == 1 and "this user has as many as he may have" in done.stderr, done
        assert client("say(ask(1)[0])", uid=STRANGER) == [LENT]
        assert len(spaces(USER.pw_uid)) == 2
        for holder in held:
            holder.communicate()
        assert client("say(ask(1)[0])") == [LENT]
    assert not spaces(USER.pw_uid)


def case_killed_client():
    """A client that is killed in the middle leaves neither a process of ghostd's nor a name space."""
    with Lender() as lender:
        rest = lender.at_rest()
        for number in range(20):
            one = subprocess.Popen([*AS_USER, "python3", "-c", CLIENT + """
s = connect(); s.send(struct.pack("<IHHQ", 0x67736f68, 1, 1, 0)); say(1); time.sleep(60)
"""], stdout=subprocess.PIPE)
            assert one.stdout.readline()
            time.sleep(number * 0.0005)
            one.kill()
            one.wait()
        assert lender.at_rest() == rest
        assert not spaces(USER.pw_uid)


def case_not_roots():
    """Something of another user's at the lender's address is not asked."""
    os.chown("/run/ghost", STRANGER, STRANGER)
    false = subprocess.Popen([*as_user(STRANGER), "python3", "-c", """
import socket, os
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.bind("/run/ghost/ghostd.sock"); os.chmod("/run/ghost/ghostd.sock", 0o666); s.listen()
print("ready", flush=True)
c, _ = s.accept()
print(c.recv(100), flush=True)
"""], stdout=subprocess.PIPE, text=True)
    try:
        assert false.stdout.readline() == "ready\n"
        done = ghost("run", "--", "true")
        assert done.returncode == 1 and "it is not root's" in done.stderr, done
        assert false.communicate(timeout=LIMIT)[0] == "b''\n"
    finally:
        false.kill()
        os.unlink(SOCKET)
        os.chown("/run/ghost", 0, 0)


def case_socket_of_systemd():
    """As ghostd.socket hands it over, by systemd's own program for that."""
    by = "/usr/bin/systemd-socket-activate"
    if not os.path.exists(by):
        raise Skip("no systemd-socket-activate")
    # with what the service leaves it
    less = ["setpriv", "--bounding-set", "-all,+sys_admin,+setuid,+setgid,+sys_ptrace", "--no-new-privs"]
    with Lender(by=[*less, by, "--seqpacket", "--listen", SOCKET]):
        os.chmod(SOCKET, 0o666)
        done = ghost("run", "--", "echo", "here")
        assert done.stdout == "here\n", done
    done = subprocess.run([GHOSTD], capture_output=True, text=True)
    assert done.returncode == 1 and "start ghostd.socket" in done.stderr, done
    done = subprocess.run([*AS_USER, GHOSTD, "--listen", "/tmp/x"], capture_output=True, text=True)
    assert done.returncode == 1 and "only root has to lend" in done.stderr, done


def main():
    global outside
    words = sys.argv[1:]
    at = words.index("--outside")
    outside = words[at + 1]
    wanted = words[:at] + words[at + 2:]
    cover()
    # else nothing is shown
    assert subprocess.run([*AS_USER, "unshare", "--user", "true"], capture_output=True).returncode != 0
    cases = cases_in(globals())
    here = [name for name in wanted if name in cases]  # others are lender_ranks.py's
    return run_cases(cases, here) if here or not wanted else 0


sys.exit(main())
