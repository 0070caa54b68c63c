#!/usr/bin/env python3
"""Under ghost-wrapper a rank behaves as without it.

Every case runs twice under stock mpirun, bare and with the wrapper as fork agent, and must give the
same output, errors and exit status. usage: wrapper_parity.py WRAPPER PROBE MPIRUN
"""

import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
import unittest

from suite import alive, tree_of, until
from wrapper_agent import Agent

WRAPPER, PROBE, MPIRUN = (sys.argv + [""] * 3)[1:4]
# Ranks on the wrapper's node share no memory here, so nothing but loopback is used.
MCA = ["--mca", "btl", "self,tcp", "--mca", "btl_tcp_if_include", "lo", "--mca", "pml", "ob1",
       "--mca", "oob_tcp_if_include", "lo", "--mca", "plm", "isolated", "--oversubscribe",
       "--bind-to", "none"]
ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


class Services:
    """A node agent that accepts wrappers and lets them do."""

    def __init__(self):
        self.agent = Agent("parity")
        self.hellos = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        peers = []
        while not self.stop.is_set():
            ready = select.select([self.agent.sock] + [p.sock for p in peers], [], [], 0.05)[0]
            if self.agent.sock in ready:
                peers.append(self.agent.accept())
            for peer in [p for p in peers if p.sock in ready]:
                message = peer.receive()
                if message is None:
                    peer.close()
                    peers.remove(peer)
                elif message["t"] == "hello":
                    self.hellos.append(message)
        for peer in peers:
            peer.close()

    def close(self):
        self.stop.set()
        self.thread.join()
        self.agent.close()


def normal(text):
    """Without what differs between any two runs, mpirun's own reports among it: under load it now
    and then leaves one out."""
    text = re.sub(rb"-{60,}\n.*?-{60,}\n", b"", text, flags=re.DOTALL)
    text = re.sub(rb"\[[^\]\n]*:\d+\]", b"[host:pid]", text)
    text = re.sub(rb"PID \d+", b"PID n", text)
    return re.sub(rb"\[\[\d+,\d+\],\d+\]", b"[[n,n],n]", text)


class Parity(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.services = Services()

    def setUp(self):
        self.repeated = False

    @classmethod
    def tearDownClass(cls):
        cls.services.close()

    def command(self, program, wrapped, np=1, options=()):
        fork_agent = ["--mca", "orte_fork_agent", WRAPPER] if wrapped else []
        return [MPIRUN, "-np", str(np), *MCA, *options, *fork_agent, *program]

    def environment(self, wrapped):
        env = dict(os.environ, **ROOT)
        if wrapped:
            env.update(self.services.agent.environment())
            del env["GHOST_RANK"]  # each rank takes its PMIX_RANK
        return env

    def once(self, program, wrapped, np=1, options=(), stdin=b"", limit=60):
        hellos = len(self.services.hellos)
        done = None
        while done is None:
            done = subprocess.run(self.command(program, wrapped, np, options), input=stdin,
                                  capture_output=True, timeout=limit,
                                  env=self.environment(wrapped))
            # Killed by a signal is mpirun itself, which has nothing of ours in it (a rank so killed
            # is its status 128 + number): nothing to compare. Once more, and no oftener.
            if done.returncode < 0 and not self.repeated:
                print(f"{self.id()}: mpirun itself died of signal {-done.returncode}; once more",
                      flush=True)
                self.repeated, done = True, None
        if wrapped and np:
            met = self.services.hellos[hellos:]
            self.assertTrue(all(h["mode"] == "run" and h["init"] > 0 for h in met), met)
        return done

    def same(self, program, **how):
        bare, ours = (self.once(program, wrapped, **how) for wrapped in (False, True))
        self.assertEqual(bare.returncode, ours.returncode, ours.stderr)
        if how.get("np", 1) == 1:
            self.assertEqual(bare.stdout, ours.stdout)
            self.assertEqual(normal(bare.stderr), normal(ours.stderr))
        else:
            self.assertEqual(sorted(bare.stdout.split(b"\n")), sorted(ours.stdout.split(b"\n")))
        return ours

    def test_exit_codes(self):
        for code in (0, 1, 77, 129, 139, 255):
            with self.subTest(code=code):
                self.assertEqual(self.same([PROBE, "exit", str(code)]).returncode, code)

    def test_deaths(self):
        for name in ("SEGV", "KILL", "ABRT", "TERM", "USR1", "RTMIN"):
            with self.subTest(signal=name):
                self.assertNotEqual(self.same([PROBE, "die", str(getattr(signal, "SIG" + name))])
                                    .returncode, 0)

    def test_missing_program(self):
        self.same(["./no-such-program"])

    def test_program_by_its_name_alone(self):
        # The runtime looks in the working directory too, after PATH; a rank, and a process that
        # Ghost does not move (one that MPI_Comm_spawn has made).
        folder, name = os.path.split(PROBE)
        self.same([name, "state"], options=["--wdir", folder])
        unmoved = subprocess.run(self.command([name, "exit", "7"], True,
                                              options=["--wdir", folder]),
                                 capture_output=True, timeout=60, env=dict(os.environ, **ROOT))
        self.assertEqual(unmoved.returncode, 7, unmoved.stderr)

    def test_bad_interpreter(self):
        ours = self.once([PROBE + ".cannot"], True)
        self.assertNotEqual(ours.returncode, 0)

    def test_mpi_abort(self):
        # Stock mpirun now and then loses its message in a race; the status is what counts.
        for wrapped in (False, True):
            self.assertEqual(self.once([PROBE, "mpi-abort", "42"], wrapped).returncode, 42)

    def test_mpi_job(self):
        self.same([PROBE, "mpi-sum"], np=3)

    def test_state_of_the_process(self):
        # Descriptors, signal state, directory, environment, limits, binding, terminal settings.
        self.same([PROBE, "state"])
        self.same([PROBE, "state"], options=["--wdir", "/tmp"])
        self.same([PROBE, "state"], options=["--bind-to", "core"])

    def test_process_number_is_unique(self):
        out = self.once(["sh", "-c", "echo $$"], True, np=3).stdout.split()
        self.assertEqual(sorted(out), [b"1000", b"1001", b"1002"])

    def test_large_output(self):
        begin = time.monotonic()
        bare = self.once([PROBE, "flood", "100000000"], False)
        middle = time.monotonic()
        ours = self.once([PROBE, "flood", "100000000"], True)
        end = time.monotonic()
        self.assertEqual(len(bare.stdout), len(ours.stdout))
        self.assertTrue(bare.stdout == ours.stdout)
        self.assertLess(end - middle, 3 * (middle - begin) + 5)

    def test_interleaving(self):
        self.same([PROBE, "interleave"], options=["--mca", "orte_output_merge", "1"])
        self.same([PROBE, "lines"])
        self.same(["sh", "-c", "printf partial; exec >&-; sleep 0.1; exit 3"])
        self.same(["sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x >&2; echo end"])

    def test_stdin(self):
        for size in (0, 5, 70_000, 3_000_000):
            with self.subTest(size=size):
                data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
                ours = self.same(["md5sum"], stdin=data)
                self.assertEqual(ours.returncode, 0)
        # A rank that ends without reading its input: stock mpirun 4.1.4 may crash of it, output
        # and all, so there is nothing to compare but that it ends.
        self.once(["head", "-c", "10"], True, stdin=b"y" * 500_000)

    def running(self, program, wrapped, np=1):
        proc = subprocess.Popen(self.command(program, wrapped, np), stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env=self.environment(wrapped))
        self.addCleanup(lambda: (proc.poll() is None and proc.kill(), proc.wait(),
                                 proc.stdout.close(), proc.stderr.close()))
        return proc

    def test_signal_forwarding(self):
        results = []
        for wrapped in (False, True):
            proc = self.running([PROBE, "signals"], wrapped)
            self.assertEqual(proc.stdout.readline(), b"ready\n")
            for name in ("USR1", "USR2", "CONT", "USR1", "ALRM"):
                proc.send_signal(getattr(signal, "SIG" + name))
                self.assertEqual(proc.stdout.readline(), b"SIG" + name.encode() + b"\n")
            proc.send_signal(signal.SIGUSR2)
            proc.send_signal(signal.SIGTERM)
            out, err = proc.communicate(timeout=20)
            results.append(proc.returncode)
        self.assertEqual(results[0], results[1])

    def test_stop_and_continue(self):
        for wrapped in (False, True):
            proc = self.running([PROBE, "ticks"], wrapped)
            pid = int(proc.stdout.readline())
            tree = descendants(proc.pid)
            rank = next(p for p in tree if command_of(p)[1:2] == ["ticks"]
                        and command_of(p)[0] == PROBE)
            proc.send_signal(signal.SIGTSTP)
            until(lambda: state_of(rank) == "T", f"rank {pid} stopped")
            proc.send_signal(signal.SIGCONT)
            until(lambda: state_of(rank) != "T", f"rank {pid} goes on")
            proc.terminate()
            proc.communicate(timeout=20)

    def ends_clean(self, how, program, limit=20):
        codes = []
        for wrapped in (False, True):
            proc = self.running(program, wrapped, np=2)
            self.assertEqual(proc.stdout.readline(), b"ready\n")
            self.assertEqual(proc.stdout.readline(), b"ready\n")
            tree = descendants(proc.pid)
            if wrapped:
                self.assertTrue(any("ghost-init" in command_of(p)[0] for p in tree))
            how(proc)
            proc.communicate(timeout=limit)
            codes.append(proc.returncode)
            if wrapped:
                until(lambda: not any(alive(p) for p in tree),
                           f"nothing left of {[(p, command_of(p)) for p in tree]}")
            else:
                for p in filter(alive, tree):
                    os.kill(p, signal.SIGKILL)
        self.assertEqual(codes[0], codes[1])

    def test_nothing_left(self):
        for kind in ("wait", "stubborn"):
            for name in ("INT", "TERM", "KILL"):
                with self.subTest(kind=kind, signal=name):
                    self.ends_clean(lambda p: p.send_signal(getattr(signal, "SIG" + name)),
                                    [PROBE, kind])

    def test_nothing_left_of_a_wrapper_killed_before_its_daemon(self):
        # What mpirun's SIGTERM and SIGKILL come to when the wrapper gets no processor in between.
        daemon = subprocess.Popen(["sh", "-c", '"$@" & read end', "daemon", WRAPPER, PROBE, "wait"],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  env=self.services.agent.environment())
        self.assertEqual(daemon.stdout.readline(), b"ready\n")
        until(lambda: any("ghost-init" in command_of(p)[0] for p in descendants(daemon.pid)),
                   "the tree")
        tree = descendants(daemon.pid)
        self.addCleanup(lambda: [os.kill(p, signal.SIGKILL) for p in tree if alive(p)])
        wrapper = next(p for p in tree if command_of(p)[0] == WRAPPER
                       and any("ghost-init" in command_of(c)[0] for c in descendants(p)))
        init = next(p for p in tree if "ghost-init" in command_of(p)[0])
        os.kill(wrapper, signal.SIGKILL)
        until(lambda: not alive(wrapper), "the wrapper's end")
        time.sleep(0.2)
        self.assertTrue(alive(init), "a new wrapper could adopt it")
        daemon.kill()
        daemon.communicate(timeout=20)
        until(lambda: not any(alive(p) for p in tree),
                   f"nothing left of {[(p, command_of(p)) for p in tree]}")

    def test_without_agent(self):
        env = dict(os.environ)
        env.pop("GHOST_NODE_SOCKET", None)
        out = subprocess.run([WRAPPER, "sh", "-c", "echo $PPID; exit 5"], env=env,
                             capture_output=True)
        self.assertEqual((int(out.stdout), out.returncode), (os.getpid(), 5))
        env["GHOST_NODE_SOCKET"] = "@ghost-test/nobody-listens"
        out = subprocess.run([WRAPPER, "sh", "-c", "echo $PPID; exit 6"], env=env,
                             capture_output=True)
        self.assertEqual((int(out.stdout), out.returncode), (os.getpid(), 6))

    def test_without_name_spaces(self):
        # No capabilities: clone refuses, the program runs all the same and the agent is told.
        out = subprocess.run(["setpriv", "--bounding-set=-all", "--inh-caps=-all", WRAPPER, "sh",
                              "-c", "echo $PPID; exit 5"], capture_output=True,
                             env=self.services.agent.environment())
        self.assertEqual((int(out.stdout), out.returncode), (os.getpid(), 5), out.stderr)
        until(lambda: self.services.hellos and self.services.hellos[-1]["mode"] == "direct",
                   "the agent is told")
        self.assertIn("name space", self.services.hellos[-1]["why"])
        self.services.hellos.pop()


def descendants(pid):
    return tree_of(pid)[1:]


def command_of(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as f:
            return f.read().split("\0")
    except OSError:
        return [""]


def state_of(pid):
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rpartition(")")[2].split()[0]


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[4:], verbosity=2)
