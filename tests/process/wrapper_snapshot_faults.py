"""What goes wrong with snapshots of a rank and with restarts from them."""

import os
import random
import shutil
import signal
import subprocess
import time

from suite import alive, children_of, until
from wrapper_snapshot_case import AGENT, CRIU, TRIALS, WRAPPER, SnapshotCase, comm


class Faults(SnapshotCase):
    def criu_of(self, rank):
        """Started by one of the wrapper's threads."""
        for thread in os.listdir(f"/proc/{rank.proc.pid}/task"):
            with open(f"/proc/{rank.proc.pid}/task/{thread}/children") as f:
                for pid in f.read().split():
                    if comm(pid) == "criu":
                        return int(pid)
        return 0

    def woken(self, rank):
        """The rank's agent got its signal and the rank runs; only the end tells of the signal."""
        self.running(rank)
        self.finish(rank)

    def test_cannot_restart_and_nobody_says_so(self):
        """The node agent goes before it has told anybody: the reason is on standard error."""
        source = self.steps(0)
        until(lambda: os.stat(self.log).st_size > 1 << 16, "a file that is not small")
        row = self.snapshot(source)
        self.kill(source)
        os.unlink(self.log)
        rank = self.look_at(row)
        rank.peer.expect("failed")
        rank.peer.close()
        self.assertEqual(rank.status(), 1)
        until(lambda: b"cannot go on from its snapshot: " in rank.stdio.text[rank.stdio.err],
                   "the reason")

    def test_cannot_restart(self):
        source = self.steps(0)
        first = self.snapshot(source)
        until(lambda: os.stat(self.log).st_size > 1 << 16, "a file that is not small")
        row = self.snapshot(source, incremental=True)
        self.kill(source)
        with open(self.log) as f:
            text = f.read()
        os.unlink(self.log)
        self.cannot_restart(row, self.log, "has been removed since")
        self.assertFalse(os.path.exists(self.log))
        with open(self.log, "w") as f:
            f.write("short")
        self.cannot_restart(row, self.log, "less than when the snapshot was made")
        with open(self.log, "w") as f:
            f.write(text)
        longer = text + "after the snapshot\n"
        with open(self.log, "w") as f:
            f.write(longer)
        parent = os.path.join(first["folder"], first["file"])
        os.rename(parent, parent + ".away")
        self.cannot_restart(row, parent)
        with open(parent, "wb") as f:
            f.write(b"no ghost")
        self.cannot_restart(row, "ghost")
        os.rename(parent + ".away", parent)
        with open(parent, "r+b") as f:
            f.seek(first["bytes"] // 2)
            f.write(b"damaged")
        with open(self.log) as f:
            self.assertEqual(f.read(), longer, "cut back, and then refused")
        self.cannot_restart(row, "checksum", begin=self.restart)
        with open(os.path.join(first["folder"], "manifest.json"), "a") as f:
            f.write("}")
        self.cannot_restart(first, "manifest")
        shutil.copy(os.path.join(row["folder"], row["file"]), parent)
        self.end(source, first, dead=True)
        self.cannot_restart(first, f"of snapshot {row['name']}")

    def test_no_name_to_take(self):
        """Another user cannot keep a rank from its snapshots by a folder in /dev/shm."""
        taken = f"/dev/shm/ghost-{os.geteuid()}"
        os.mkdir(taken)
        self.addCleanup(os.rmdir, taken)
        os.chown(taken, 65534, 65534)
        source = self.steps()
        self.snapshot(source)
        self.kill(source)

    def test_restart_killed(self):
        """Whoever dies before `go` leaves nothing; after it the rank is adopted."""
        source = self.steps()
        row = self.snapshot(source)
        self.kill(source)
        for point in ("importing", "held"):
            with self.subTest(point):
                rank = self.restart(row)
                if point == "held":
                    init = rank.peer.expect("held", 60)["init"]
                rank.proc.kill()
                rank.status()
                if point == "held":
                    until(lambda: not alive(init), "the held tree is dead")
                rank.peer.close_spare()
        with self.subTest("with its guard"):
            rank = self.restart(row)
            init = rank.peer.expect("held", 60)["init"]
            guard = [p for p in children_of(rank.proc.pid) if comm(p) == "ghost-guard"]
            for pid in guard + children_of(guard[0]) + [rank.proc.pid, init]:
                os.kill(pid, signal.SIGKILL)
            rank.status()
            rank.peer.close_spare()
            self.assertEqual(len(self.work_folders()), 1)
        rank = self.restart(row)
        held = rank.peer.expect("held", 60)
        rank.init = held["init"]
        self.assertEqual(len(self.work_folders()), 1)
        rank.peer.send({"t": "go", "seq": 0, "agent": AGENT})
        until(lambda: self.state(children_of(rank.init)[0]) not in "Tt", "it runs")
        heir = self.adopt(WRAPPER, CRIU, rank)
        heir.peer.send({"t": "resume", "seq": 0, "agent": AGENT})
        self.running(heir)
        self.finish(heir, adopted=True)

    # --- failures ---

    def test_cancel(self):
        rank = self.steps()
        self.snapshot(rank)
        for point in ("preparing", "ready", "freezing", "waiting", "captured", "written", "nothing"):
            with self.subTest(point):
                if point != "nothing":
                    self.prepare(rank, rate=1 << 20 if point == "captured" else 0, incremental=True)
                if point in ("ready", "freezing", "waiting", "captured", "written"):
                    rank.peer.expect("snap_ready")
                if point in ("freezing", "waiting", "captured", "written"):
                    self.freeze(rank)
                if point in ("waiting", "captured", "written"):
                    self.captured(rank, write=point != "waiting")
                if point == "waiting":  # nothing is written before it is told to
                    self.assertLess(sum(os.path.getsize(os.path.join(rank.order["folder"], name))
                                        for name in os.listdir(rank.order["folder"])), 1 << 20)
                if point == "written":
                    rank.peer.expect("snap_written")
                rank.peer.send({"t": "snap_cancel", "seq": self.seq})
                rank.peer.expect("snap_cancelled",
                                 skip=("progress", "snap_ready", "snap_captured", "snap_written"))
                self.nothing_left(rank)
                self.running(rank)
        row = self.snapshot(rank, incremental=True)
        self.assertEqual(row["kind"], "full")
        self.running(rank)
        self.goes_on_again(row, rank)

    def test_not_movable(self):
        rank = self.run_rank("socket")
        self.peers.append(self.agent.accept())  # the other end of the probe's socket
        until(lambda: b"ready" in rank.stdio.output, "probe is ready")
        self.prepare(rank)
        rank.peer.expect("snap_ready")  # a rank that runs has sockets
        self.freeze(rank)
        answer = rank.peer.expect("failed")
        self.assertEqual(answer["stage"], "check")
        self.assertRegex(answer["why"], "rank 0's process .* descriptor .* socket")
        self.nothing_left(rank)
        self.assertTrue(alive(rank.init))
        rank.proc.terminate()
        rank.status()

    def test_disk_full(self):
        for size in ("64k", "12m"):
            with self.subTest(size):
                rank = self.steps()
                self.seq += 1
                place = os.path.join(self.folder, f"full-{self.seq}")
                os.mkdir(place)
                subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place],
                               check=True)
                try:
                    self.prepare(rank, folder=place)
                    rank.peer.expect("snap_ready")
                    self.freeze(rank)
                    self.captured(rank)
                    answer = rank.peer.expect("failed")
                    self.assertEqual(answer["stage"], "write")
                    self.assertIn("No space left", answer["why"])
                    self.assertEqual(os.listdir(place), [])
                finally:
                    subprocess.run(["umount", place], check=True)
                self.woken(rank)

    def test_disk_full_direct(self):
        rank = self.steps()
        place = os.path.join(self.folder, "full")
        os.mkdir(place)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", place], check=True)
        try:
            self.prepare(rank, folder=place, memory=1 << 20)
            self.assertTrue(rank.peer.expect("snap_ready")["direct"])
            self.freeze(rank)
            self.assertIn("No space left", rank.peer.expect("failed")["why"])
        finally:
            subprocess.run(["umount", place], check=True)
        self.woken(rank)

    def test_no_folder(self):
        rank = self.steps()
        self.prepare(rank, folder=os.path.join(self.folder, "missing"))
        answer = rank.peer.expect("failed")
        self.assertEqual(answer["stage"], "prepare")
        self.assertIn("missing", answer["why"])
        self.prepare(rank, compress="rar")
        self.assertIn("rar", rank.peer.expect("failed")["why"])
        for point in ("ready", "captured"):
            with self.subTest(point):
                self.prepare(rank, rate=8 << 20)
                rank.peer.expect("snap_ready")
                if point == "ready":
                    shutil.rmtree(rank.order["folder"])
                self.freeze(rank)
                self.captured(rank)
                if point == "captured":
                    shutil.rmtree(rank.order["folder"])
                self.assertEqual(rank.peer.expect("failed")["stage"], "write")
                self.running(rank)
        self.finish(rank)

    def test_tree_ends(self):
        """The program ends by itself in the middle."""
        for point in ("preparing", "ready", "waiting", "captured", "written"):
            with self.subTest(point):
                rank = self.steps()
                self.prepare(rank, rate=1 << 20 if point == "captured" else 0)
                if point != "preparing":
                    rank.peer.expect("snap_ready")
                if point in ("waiting", "captured", "written"):
                    self.freeze(rank)
                    self.captured(rank, write=point != "waiting")
                if point == "written":
                    rank.peer.expect("snap_written")
                self.ends(rank, skip=("progress", "snap_ready", "failed", "snap_written", "stdin_closed"))
                if point != "written":
                    self.nothing_left(rank)

    def test_criu_killed(self):
        rank = self.steps()
        for point in ("ready", "freezing"):
            for _ in range(1 if point == "ready" else 5):
                with self.subTest(point):
                    self.prepare(rank)
                    rank.peer.expect("snap_ready")
                    criu = until(lambda: self.criu_of(rank), "criu is there")
                    if point == "ready":
                        os.kill(criu, signal.SIGKILL)
                        self.freeze(rank)
                    else:
                        self.freeze(rank)
                        os.kill(criu, signal.SIGKILL)
                    answer = rank.peer.receive()
                    while answer["t"] == "progress":
                        answer = rank.peer.receive()
                    if answer["t"] == "snap_captured":  # it was through already
                        rank.peer.send({"t": "snap_write", "seq": self.seq})
                        answer = rank.peer.expect("snap_written")
                        rank.peer.send({"t": "snap_cancel", "seq": self.seq})
                        rank.peer.expect("snap_cancelled")
                    else:
                        self.assertEqual(answer["t"], "failed")
                    self.nothing_left(rank)
                    self.running(rank)
        self.finish(rank)

    def test_wrapper_killed(self):
        """In every state; another one adopts the rank, which goes on and is saved again."""
        for point in ("preparing", "ready", "freezing", "captured", "written", "direct"):
            with self.subTest(point):
                rank = self.steps()
                self.prepare(rank, rate=1 << 20 if point == "captured" else 0,
                             memory=1 << 20 if point == "direct" else 0)
                if point != "preparing":
                    rank.peer.expect("snap_ready")
                if point in ("freezing", "captured", "written", "direct"):
                    self.freeze(rank)
                if point in ("captured", "written"):
                    self.captured(rank)
                if point == "written":
                    rank.peer.expect("snap_written")
                heir = self.adopt(WRAPPER, CRIU, rank)
                if point != "written":
                    self.nothing_left(rank)
                # As the node agent does for whoever had closed.
                heir.peer.send({"t": "resume", "seq": self.seq, "agent": AGENT})
                heir.peer.send({"t": "snap_cancel", "seq": self.seq})
                heir.peer.expect("snap_cancelled")
                self.running(heir)
                row = self.snapshot(heir)
                self.running(heir)
                self.goes_on_again(row, heir)

    def test_killed_at_random(self):
        """The wrapper or criu, at any moment from the order to freeze on: the rank goes on, whole."""
        rank = self.steps(300)
        for i in range(TRIALS):
            who = random.choice(("wrapper", "criu"))
            self.prepare(rank, incremental=True, memory=random.choice((0, 0, 0, 1 << 20)))
            rank.peer.expect("snap_ready")
            victim = rank.proc.pid if who == "wrapper" else self.criu_of(rank)
            moment = random.random() * 0.015
            self.freeze(rank)
            end = time.monotonic() + moment
            while time.monotonic() < end:
                pass
            try:
                if victim:  # none waits for a snapshot without a copy
                    os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                pass
            with self.subTest(f"{i}: {who} after {moment * 1e3:.1f} ms"):
                if who == "wrapper":
                    rank = self.adopt(WRAPPER, CRIU, rank)
                    rank.peer.send({"t": "resume", "seq": self.seq, "agent": AGENT})
                else:
                    answer = "freeze"
                    while answer not in ("failed", "snap_written"):
                        answer = rank.peer.receive()["t"]
                        if answer == "snap_captured":
                            rank.peer.send({"t": "snap_write", "seq": self.seq})
                rank.peer.send({"t": "snap_cancel", "seq": self.seq})
                rank.peer.expect("snap_cancelled")
                self.nothing_left(rank)
                self.running(rank)
        row = self.snapshot(rank)
        self.running(rank)
        self.goes_on_again(row, rank)
