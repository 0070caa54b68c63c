"""A node agent for tests of ghost-wrapper: its side of docs/PROTOCOL.md, as a test wants it."""

import ctypes
import glob
import json
import os
import pty
import select
import signal
import socket
import subprocess
import threading
import unittest

from suite import alive, children_of, until

PR_SET_CHILD_SUBREAPER = 36
# What the node agent tells both wrappers of a move.
SECRET = "5e" * 32


def be_subreaper():
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def pair():
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Peer:
    """One connected wrapper."""

    def __init__(self, sock):
        self.sock = sock
        self.spare = []
        self.seen = []
        self.input_bytes = 0
        self.output_given = None  # what it has given of the rank's standard output, told at its end

    def send(self, message, fds=()):
        data = json.dumps(message).encode()
        if fds:
            socket.send_fds(self.sock, [data], list(fds))
        else:
            self.sock.send(data)

    def receive(self, limit=20.0):
        """The next message, or None at the end of the connection."""
        if not select.select([self.sock], [], [], limit)[0]:
            raise AssertionError(f"no message in {limit} s; so far: {self.seen}")
        try:
            data, fds, _, _ = socket.recv_fds(self.sock, 1 << 17, 16)
        except ConnectionResetError:
            data, fds = b"", []
        if not data:
            return None
        message = json.loads(data)
        self.seen.append(message)
        if fds:
            self.close_spare()
            self.spare = fds
            for fd in fds:
                os.set_inheritable(fd, False)
        if message["t"] == "stdin":
            self.input_bytes = message["bytes"]
            return self.receive(limit)
        if message["t"] == "output":
            assert self.output_given is None, f"told twice; so far: {self.seen}"
            self.output_given = message["output"]
            return self.receive(limit)
        if message["t"] == "stdin_closed":
            self.close_spare((0, 3))
        if message["t"] == "exit":
            self.close_spare(range(6))
        return message

    def expect(self, kind, limit=20.0, skip=("progress", "stdin_closed")):
        """The next message that is not to be skipped, which must be of this kind."""
        while True:
            message = self.receive(limit)
            if message is not None and message["t"] in skip and message["t"] != kind:
                continue
            got = message["t"] if message else "the end"
            assert got not in ("gone", "exit") or self.output_given, f"no output told: {self.seen}"
            assert got == kind, f"wanted {kind}, got {message}; so far: {self.seen}"
            return message

    def close_spare(self, which=range(6)):
        for i in which:
            if i < len(self.spare) and self.spare[i] >= 0:
                os.close(self.spare[i])
                self.spare[i] = -1

    def close(self):
        self.close_spare()
        self.sock.close()


class Agent:
    """Listens as GHOST_NODE_SOCKET would."""

    def __init__(self, name):
        self.name = f"ghost-test/{os.getpid()}/{name}"
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self.sock.bind("\0" + self.name)
        self.sock.listen(64)

    def environment(self, rank=0, **more):
        return dict(os.environ, GHOST_NODE_SOCKET="@" + self.name, GHOST_JOB="1",
                    GHOST_RANK=str(rank), **more)

    def accept(self, limit=20.0):
        if not select.select([self.sock], [], [], limit)[0]:
            raise AssertionError(f"no wrapper connected in {limit} s")
        return Peer(self.sock.accept()[0])

    def close(self):
        self.sock.close()


class Stdio:
    """What a daemon gives its child: input, output (a pty if wanted), error; reads all of it."""

    def __init__(self, tty=True):
        stdin, self.stdin = os.pipe()
        self.out, stdout = pty.openpty() if tty else os.pipe()
        self.err, stderr = os.pipe()
        if tty:  # as the runtime sets it
            import termios
            modes = termios.tcgetattr(stdout)
            modes[1] &= ~termios.ONLCR
            modes[3] &= ~termios.ECHO
            termios.tcsetattr(stdout, termios.TCSANOW, modes)
        self.given = (stdin, stdout, stderr)
        self.text = {self.out: b"", self.err: b""}
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        open_ends = {self.out, self.err}
        while open_ends:
            for fd in select.select(open_ends, [], [])[0]:
                try:
                    data = os.read(fd, 65536)
                except OSError:
                    data = b""
                self.text[fd] += data
                if not data:
                    open_ends.discard(fd)

    def started(self):
        for fd in self.given:
            os.close(fd)

    @property
    def output(self):
        return self.text[self.out]

    def close(self, limit=10):
        if self.stdin >= 0:
            os.close(self.stdin)
        self.thread.join(limit)
        assert not self.thread.is_alive(), "somebody keeps the output open"
        os.close(self.out)
        os.close(self.err)


class Rank:
    """A wrapper this test started."""

    number = 0

    def __init__(self, argv, env, tty=True, control=None, stdio=None):
        self.stdio = stdio or Stdio(tty)
        ends = self.stdio.given

        def descriptors():
            os.setpgid(0, 0)
            if control is not None:
                os.dup2(control, 3, inheritable=True)

        self.proc = subprocess.Popen(argv, env=env, stdin=ends[0], stdout=ends[1], stderr=ends[2],
                                     close_fds=control is None, preexec_fn=descriptors)
        self.stdio.started()

    def status(self, limit=20):
        return self.proc.wait(limit)


class WrapperCase(unittest.TestCase):
    """Wrappers and a node agent of their own; whatever happens, nothing of them is left."""

    @staticmethod
    def work_folders():
        """Of wrappers of this user, named after their jobs, those in use and those left behind."""
        return glob.glob(f"/dev/shm/ghost-{os.geteuid()}-[0-9]*")

    def setUp(self):
        self.agent = Agent(self.id())
        self.ranks, self.peers, self.seq = [], [], 0
        self.before = set(children_of(os.getpid()))

    def tearDown(self):
        for rank in self.ranks:  # whatever failed
            if rank.proc.poll() is None:
                rank.proc.terminate()
                rank.proc.kill()
                rank.proc.wait()
            if getattr(rank, "init", 0) in children_of(os.getpid()):
                os.kill(rank.init, signal.SIGKILL)
        for peer in self.peers:
            peer.close()
        self.agent.close()
        until(lambda: self.left_over() == [], "nothing left", said=self.left_over)
        self.assertEqual(self.work_folders(), [], "work folder left")

    def restorer(self, wrapper, criu, number=0, tty=True, within=()):
        """A wrapper that waits for this rank, by `ready`."""
        ours, theirs = pair()
        self.seq += 1
        rank = Rank([*within, wrapper, "--restore", "--rank", str(number), "--job", "1", "--control-fd", "3"],
                    self.agent.environment(rank=number, GHOST_CRIU=criu), tty, theirs.fileno())
        theirs.close()
        self.ranks.append(rank)
        rank.peer = Peer(ours)
        self.peers.append(rank.peer)
        rank.peer.send({"t": "prepare", "seq": self.seq, "epoch": 1, "rank": number, "from": 0, "secret": SECRET})
        self.assertEqual(rank.peer.expect("hello")["mode"], "restore")
        rank.ready = rank.peer.expect("ready")
        return rank

    def ask_for_move(self, source, target, number=0):
        source.peer.send({"t": "connect", "seq": self.seq, "epoch": 1, "rank": number,
                          "host": "127.0.0.1", "port": target.ready["port"],
                          "token": target.ready["token"], "secret": SECRET})

    def adopt(self, wrapper, criu, source, number=0):
        """The wrapper of this rank was killed: a new one takes over, as the node agent does it."""
        source.proc.kill()
        source.status()
        while source.peer.receive() is not None:
            pass
        ours, theirs = pair()
        spare, source.peer.spare = source.peer.spare, []
        source.stdio.given = tuple(spare[:3])
        rank = Rank([wrapper, "--adopt", "--rank", str(number), "--init", str(source.init), "--control-fd", "3"],
                    self.agent.environment(rank=number, GHOST_CRIU=criu), control=theirs.fileno(),
                    stdio=source.stdio)
        theirs.close()
        self.ranks.append(rank)
        rank.peer, rank.init = Peer(ours), source.init
        self.peers.append(rank.peer)
        rank.peer.send({"t": "adopt", "rank": number, "init": source.init,
                        "stdin_bytes": source.peer.input_bytes}, spare[3:])
        for fd in spare[3:]:
            os.close(fd)
        hello = rank.peer.expect("hello")
        self.assertEqual((hello["mode"], hello["init"]), ("adopt", source.init))
        return rank

    def ends(self, rank, adopted=False, skip=("progress", "stdin_closed")):
        """The rank ends as it is told to, and its wrapper with it; the output has all it wrote."""
        rank.proc.send_signal(signal.SIGUSR2)
        if adopted:  # we are the daemon
            rank.peer.send({"t": "child_status", "status": os.waitpid(rank.init, 0)[1]})
        rank.peer.expect("exit", skip=skip)
        self.assertEqual(rank.status(), 7, rank.stdio.text)
        rank.peer.close_spare()
        rank.stdio.close()

    def left_over(self):
        """Our children that are still there; the dead ones are reaped (we are a subreaper)."""
        left = []
        for pid in set(children_of(os.getpid())) - self.before:
            if not alive(pid):
                os.waitpid(pid, os.WNOHANG)
            else:
                left.append(pid)
        return left
