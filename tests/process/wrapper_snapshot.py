#!/usr/bin/env python3
"""Snapshots of a rank by its wrapper, and restarts from them, with this test as the node agent.

usage: wrapper_snapshot.py WRAPPER PROBE MANIFEST CRIU
"""

import json
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from suite import alive, children_of, until
from wrapper_agent import SECRET, Peer, Rank, WrapperCase, be_subreaper, pair

WRAPPER, PROBE, MANIFEST, CRIU = (sys.argv + [""] * 4)[1:5]
TRIALS = int(os.environ.get("GHOST_TEST_TRIALS", "60" if "GHOST_TEST_LONG" in os.environ else "6"))
AGENT = {"pid": 1000, "tid": 1000}  # the probe's main thread stands in for the rank's agent


def comm(pid):
    with open(f"/proc/{pid}/comm") as f:
        return f.read().strip()


class Snapshot(WrapperCase):
    def setUp(self):
        super().setUp()
        self.folder = tempfile.mkdtemp(prefix="ghost-snapshot-", dir="/var/tmp")
        self.log = os.path.join(self.folder, "log")
        self.rows = {}

    def tearDown(self):
        try:
            super().tearDown()
        finally:
            shutil.rmtree(self.folder)

    def start(self, *program, tty=True, number=0, **environment):
        rank = Rank([WRAPPER, PROBE, *program],
                    self.agent.environment(rank=number, GHOST_CRIU=CRIU, **environment), tty)
        rank.number = number
        self.ranks.append(rank)
        rank.peer = self.agent.accept()
        self.peers.append(rank.peer)
        return rank

    def run_rank(self, *program, tty=True, number=0):
        rank = self.start(*program, tty=tty, number=number)
        rank.init = rank.peer.expect("hello")["init"]
        self.assertGreater(rank.init, 0)
        return rank

    def steps(self, pause_us=1000):
        rank = self.run_rank("steps", self.log, str(pause_us))
        self.running(rank)
        return rank

    def running(self, rank):
        have = len(rank.stdio.output)
        until(lambda: len(rank.stdio.output) > have + 200, "the rank writes")

    def goes_on(self, source, row):
        """The rank is made again from its snapshot, and runs to its end."""
        rank = self.restart(row)
        self.go(rank)
        self.running(rank)
        self.finish(rank, source)

    # --- a snapshot, step by step ---

    def prepare(self, rank, **more):
        self.seq += 1
        name = f"1-{self.seq:06}"
        folder = os.path.join(self.folder, name)
        os.makedirs(folder, 0o700, exist_ok=True)
        rank.order = {"t": "snap_prepare", "seq": self.seq, "folder": folder,
                      "file": f"rank-{rank.number}.ghost", "name": name, "agent": AGENT, "incremental": False,
                      "compress": "none", "rate": 0, "then": "continue", **more}
        rank.peer.send(rank.order)

    def freeze(self, rank):
        rank.peer.send({"t": "snap_freeze", "seq": self.seq, "agent": AGENT})

    def end(self, rank, row, keep=True, dead=False):
        """Completes it, as the coordinator would."""
        self.rows[row["name"]] = row
        self.manifest(row)
        if not dead:
            rank.peer.send({"t": "snap_end", "seq": self.seq, "keep": keep})

    def manifest(self, *rows, copies=True, sign=0):
        """Says the key it is signed with."""
        files = {}
        for row in rows:
            for f in row["files"]:
                one = files.setdefault(f["path"], {"path": f["path"], "size": 0, "ranks": [],
                                                   "newest": (-1,)})
                one["size"] = max(one["size"], f["size"])
                one["ranks"].append(row["rank"])
                when = (f.get("changed", 0), f.get("taken", 0))
                if when <= one["newest"]:
                    continue
                one["newest"] = when
                one.pop("copy", None)
                if copies and f.get("hash"):
                    one["copy"] = {"rank": row["rank"], "size": f["size"], "hash": f["hash"]}
        text = json.dumps({"folder": rows[0]["folder"], "name": rows[0]["name"], "ranks": rows,
                           "files": list(files.values()), "sign": sign})
        return subprocess.run([MANIFEST], input=text, check=True, text=True, stdout=subprocess.PIPE).stdout.strip()

    def captured(self, rank, write=True):
        answer = rank.peer.expect("snap_captured", 60)
        if write:
            rank.peer.send({"t": "snap_write", "seq": self.seq})
        return answer

    def snapshot(self, rank, keep=True, again=False, **more):
        self.seq -= 1 if again else 0  # of another rank
        self.prepare(rank, **more)
        ready = rank.peer.expect("snap_ready", 60)
        self.freeze(rank)
        captured = self.captured(rank)
        self.assertGreater(captured["pause_us"], 0)
        row = rank.peer.expect("snap_written", 60)
        self.assertEqual(row["seq"], self.seq)
        path = os.path.join(rank.order["folder"], row["file"])
        self.assertEqual(os.stat(path).st_size, row["bytes"])
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        row.update(rank=rank.number, name=rank.order["name"], folder=rank.order["folder"],
                   ready=ready, captured=captured)
        self.end(rank, row, keep)
        return row

    # --- ends ---

    def kill(self, rank):
        """The machine goes down: wrapper and tree at once."""
        rank.proc.kill()
        os.kill(rank.init, signal.SIGKILL)
        rank.status()
        until(lambda: not alive(rank.init), "the tree is dead")
        rank.peer.close_spare()

    def restart(self, row, tty=True, **environment):
        rank = self.look_at(row, tty, **environment)
        rank.peer.expect("checked", 60)
        rank.peer.send({"t": "import", "seq": 0})
        return rank

    def look_at(self, row, tty=True, **environment):
        rank = self.start("never", tty=tty, number=row["rank"], GHOST_RESTART=row["folder"],
                          **environment)
        hello = rank.peer.expect("hello")
        self.assertEqual((hello["mode"], hello["init"]), ("restart", 0))
        rank.peer.send({"t": "prepare", "seq": 0, "epoch": 2, "rank": rank.number})
        return rank

    def go(self, rank):
        held = rank.peer.expect("held", 60)
        self.assertEqual(held["agent"], AGENT)
        self.assertEqual(len(rank.peer.spare), 6)
        rank.init = held["init"]
        self.assertTrue(alive(rank.init))
        rank.peer.close_spare()
        rank.peer.send({"t": "go", "seq": 0, "agent": held["agent"]})
        hello = rank.peer.expect("hello")
        self.assertEqual((hello["mode"], hello["init"]), ("restart", rank.init))

    def counts(self, text):
        return [int(n) for n in re.findall(rb"count (\d+)\n", text)]

    def finish(self, rank, *earlier, adopted=False):
        """Ends the program; it has checked itself, and its output and file have no hole."""
        rank.proc.send_signal(signal.SIGUSR2)
        if adopted:  # we are the daemon
            status = os.waitpid(rank.init, 0)[1]
            rank.peer.send({"t": "child_status", "status": status})
        rank.peer.expect("exit", skip=("progress", "stdin_closed", "snap_captured", "snap_written"))
        self.assertEqual(rank.status(), 7, rank.stdio.text)
        rank.peer.close_spare()
        rank.stdio.close()
        self.assertIn(b"sum right, woken", rank.stdio.output)
        self.assertTrue(rank.stdio.output.endswith(b"end\n"), rank.stdio.output[-100:])
        counts = self.counts(rank.stdio.output)
        self.assertEqual(counts, list(range(counts[0], counts[0] + len(counts))))
        if earlier:
            self.assertIn(b"count %d\n" % (counts[0] - 1), earlier[-1].stdio.output)
        with open(self.log) as f:
            lines = f.read().splitlines()
        self.assertEqual(lines, [f"step {i}" for i in range(counts[-1] + 1)] +
                         [f"end {counts[-1] + 1}"])

    def test_restart(self):
        for compress in ("none", "lz4", "zstd,level=1"):
            with self.subTest(compress):
                source = self.steps()
                row = self.snapshot(source, compress=compress)
                self.assertEqual((row["kind"], row["chain"]), ("full", []))
                self.assertEqual([f["path"] for f in row["files"]], [self.log])
                self.running(source)
                self.kill(source)
                self.assertGreater(os.stat(self.log).st_size, row["files"][0]["size"])
                self.goes_on(source, row)

    def test_signed(self):
        """All of a chain is signed with one key, which the manifest names; what is not is not begun again, nor what a
        manifest says that is not the signer's."""
        source = self.steps()
        plain = self.snapshot(source, incremental=True)
        self.assertEqual(plain.get("signer", ""), "")
        rows = []
        for kind in "full", "incremental":
            self.running(source)
            rows.append(self.snapshot(source, sign=True, incremental=True, compress="lz4"))
            self.assertEqual(rows[-1]["kind"], kind)
        self.assertEqual(rows[0]["signer"], rows[1]["signer"])
        self.assertEqual(len(rows[0]["signer"]), 64)
        row = rows[1]
        self.snapshot(source, incremental=True)
        theirs = self.snapshot(source, sign=True, incremental=True)
        self.assertEqual(theirs["kind"], "full")
        self.assertNotEqual(theirs["signer"], row["signer"])
        self.kill(source)
        key = {"GHOST_RESTART_SIGNER": self.manifest(row, sign=7)}
        self.cannot_restart(plain, "it is not signed", **key)
        self.cannot_restart(row, "signed by another", GHOST_RESTART_SIGNER="0" * 64)
        for place in 1, 0:  # its own, and what it is based on
            ours = os.path.join(rows[place]["folder"], rows[place]["file"])
            with open(ours, "rb") as file:
                kept = file.read()
            for one, why in (plain, "it is not signed"), (theirs, "signed by another"):
                shutil.copy(os.path.join(one["folder"], one["file"]), ours)
                self.cannot_restart(row, why, **key)
            with open(ours, "wb") as file:
                file.write(kept)
        rank = self.restart(row, **key)
        self.go(rank)
        self.running(rank)
        self.finish(rank, source)

    def test_parent_gone(self):
        """What somebody has removed, on a disk only this node sees, is nobody's parent."""
        rank = self.steps()
        self.snapshot(rank, incremental=True)
        first = self.snapshot(rank, incremental=True)
        self.assertEqual(first["kind"], "incremental")
        shutil.rmtree(os.path.join(self.folder, "1-%06d" % (self.seq - 1)))
        row = self.snapshot(rank, incremental=True)
        self.assertEqual((row["kind"], row["chain"]), ("full", []))
        self.running(rank)
        self.kill(rank)
        self.goes_on(rank, row)

    def test_goes_on(self):
        rank = self.steps()
        self.snapshot(rank, keep=False)
        self.running(rank)
        self.snapshot(rank, keep=False, incremental=True)
        self.finish(rank)

    def test_chain(self):
        """Incremental ones, restarts of restarts, and incremental ones of those."""
        # slow, so that on a busy machine too little is written between two to be half of it
        source, generation = self.steps(pause_us=10000), 0
        for _ in range(2):
            rows = [self.snapshot(source, incremental=True)]
            self.assertEqual(rows[0]["kind"], "full")
            for i in range(2):
                self.running(source)
                rows.append(self.snapshot(source, incremental=True, compress="lz4"))
                self.assertEqual(rows[-1]["kind"], "incremental")
                self.assertLess(rows[-1]["page_bytes"], rows[0]["page_bytes"] / 2)
                names = [f"{r['name']}/{r['file']}" for r in reversed(rows[:-1])]
                self.assertEqual((rows[-1]["chain"], rows[-1]["parent"]), (names, names[0]))
            self.running(source)
            self.kill(source)
            rank = self.restart(rows[-1])
            self.go(rank)
            self.running(rank)
            source.stdio.close()
            before, source = source, rank
        self.finish(rank, before)

    def test_move(self):
        """A rank whose memory is tracked leaves; what arrives is saved whole."""
        source = self.steps()
        self.snapshot(source)
        self.seq += 1
        ours, theirs = pair()
        target = Rank([WRAPPER, "--restore", "--rank", "0", "--job", "1", "--control-fd", "3"],
                      self.agent.environment(rank=0, GHOST_CRIU=CRIU), control=theirs.fileno())
        theirs.close()
        self.ranks.append(target)
        target.peer = Peer(ours)
        self.peers.append(target.peer)
        target.peer.send({"t": "prepare", "seq": self.seq, "epoch": 1, "rank": 0, "from": 0, "secret": SECRET})
        target.peer.expect("hello")
        ready = target.peer.expect("ready")
        source.peer.send({"t": "connect", "seq": self.seq, "epoch": 1, "rank": 0,
                          "host": "127.0.0.1", "port": ready["port"], "token": ready["token"],
                          "secret": SECRET})
        source.peer.expect("connected")
        source.peer.send({"t": "export", "seq": self.seq})
        source.peer.expect("exported", 60)
        target.peer.expect("held", 60)
        source.peer.send({"t": "die", "seq": self.seq})
        source.peer.expect("gone")
        source.peer.send({"t": "bye"})
        source.status()
        source.peer.close_spare()
        target.peer.send({"t": "go", "seq": self.seq, "agent": AGENT})
        target.init = target.peer.expect("hello")["init"]
        self.running(target)
        row = self.snapshot(target, incremental=True)
        self.assertEqual(row["kind"], "full")
        self.kill(target)
        self.goes_on(target, row)

    def test_kill(self):
        source = self.steps()
        self.prepare(source, then="kill")
        source.peer.expect("snap_ready")
        self.freeze(source)
        self.captured(source)
        row = source.peer.expect("snap_written")
        row.update(rank=0, name=source.order["name"], folder=source.order["folder"])
        self.end(source, row)
        size = os.stat(self.log).st_size
        self.assertEqual(row["files"][0]["size"], size)
        source.proc.terminate()
        self.assertEqual(source.status(), -signal.SIGKILL)
        source.peer.close_spare()
        source.stdio.close()
        self.assertEqual(os.stat(self.log).st_size, size)
        self.goes_on(source, row)

    def test_killed_one_resumes(self):
        """then=kill, and the snapshot fails elsewhere."""
        rank = self.steps()
        for point in ("captured", "written"):
            with self.subTest(point):
                self.prepare(rank, then="kill", rate=(1 << 20) if point == "captured" else 0)
                rank.peer.expect("snap_ready")
                self.freeze(rank)
                self.captured(rank)
                if point == "written":
                    rank.peer.expect("snap_written")
                rank.peer.send({"t": "resume", "seq": self.seq, "agent": AGENT})
                rank.peer.send({"t": "snap_cancel", "seq": self.seq})
                rank.peer.expect("snap_cancelled")
                self.nothing_left(rank)
                self.running(rank)
        self.finish(rank)

    def test_stop(self):
        rank = self.steps()
        row = self.snapshot(rank, then="stop")
        program = children_of(rank.init)[0]
        self.assertEqual(self.state(program), "T")
        self.assertEqual(row["files"][0]["size"], os.stat(self.log).st_size)  # nothing since
        rank.peer.send({"t": "resume", "seq": self.seq, "agent": AGENT})
        self.running(rank)
        self.finish(rank)
        self.assertEqual(row["kind"], "full")

    def state(self, pid):
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0]

    def test_direct(self):
        """Too little memory for a copy."""
        source = self.steps()
        row = self.snapshot(source, memory=1 << 20)
        self.assertTrue(row["ready"]["direct"])
        self.running(source)
        self.kill(source)
        self.goes_on(source, row)

    def test_rate(self):
        rank = self.steps()
        row = self.snapshot(rank, rate=8 << 20)
        seen = rank.peer.seen
        begin = [m["t"] for m in seen].index("snap_captured")
        shown = [m["bytes"] for m in seen[begin:] if m["t"] == "progress"]
        self.assertGreater(len(shown), 3)
        self.assertEqual(shown, sorted(shown))
        self.assertGreater(row["bytes"], 16 << 20)
        self.finish(rank)

    def test_progress_of_the_file_begins_anew(self):
        """What was copied is not told as written while the word to write is waited for."""
        rank = self.steps()
        self.prepare(rank)
        rank.peer.expect("snap_ready", 60)
        self.freeze(rank)
        self.captured(rank, write=False)
        looks = 5 * 0.2  # of the wrapper, at what was done
        self.assertFalse(select.select([rank.peer.sock], [], [], looks)[0])
        rank.peer.send({"t": "snap_write", "seq": self.seq})
        self.end(rank, {**rank.peer.expect("snap_written", 60), "rank": rank.number,
                        "name": rank.order["name"], "folder": rank.order["folder"]})
        self.finish(rank)

    def test_input(self):
        """What is unread is in the ghost; the rest is given again from stdin_bytes on."""
        for more in ({}, {"memory": 1 << 20}):
            with self.subTest(**more):
                lines = [b"line %d\n" % i for i in range(40)]
                source = self.run_rank("echo", tty=False)
                os.write(source.stdio.stdin, b"".join(lines[:2]))
                until(lambda: source.stdio.output.count(b"\n") == 2, "two lines read")
                source.proc.send_signal(signal.SIGUSR1)
                until(lambda: b"pausing\n" in source.stdio.text[source.stdio.err], "pause")
                os.write(source.stdio.stdin, b"".join(lines[2:10]))
                row = self.snapshot(source, **more)
                self.assertEqual(row["stdin_bytes"], len(b"".join(lines[:10])))
                # It goes on here; nothing is lost or doubled.
                os.write(source.stdio.stdin, b"".join(lines[10:20]))
                until(lambda: source.stdio.output.count(b"\n") == 20, "all lines read")
                self.assertEqual(source.stdio.output, b"".join(b"got " + x for x in lines[:20]))
                self.kill(source)
                rank = self.restart(row, tty=False)
                os.write(rank.stdio.stdin, b"".join(lines)[row["stdin_bytes"]:])
                self.go(rank)
                until(lambda: rank.stdio.output.count(b"\n") == 38, "the other lines read")
                again = self.snapshot(rank)
                self.assertEqual(again["stdin_bytes"], len(b"".join(lines)))
                self.assertEqual(rank.peer.input_bytes, again["stdin_bytes"])
                os.close(rank.stdio.stdin)
                rank.stdio.stdin = -1
                rank.peer.expect("exit")
                self.assertEqual(rank.status(), 0)
                rank.peer.close_spare()
                rank.stdio.close()
                self.assertEqual(rank.stdio.output, b"".join(b"got " + x for x in lines[2:]))

    def test_input_after_adoption(self):
        source = self.run_rank("echo", tty=False)
        os.write(source.stdio.stdin, b"one\n")
        until(lambda: b"got one\n" in source.stdio.output, "a line read")
        rank = self.adopt(source)
        os.write(source.stdio.stdin, b"two\n")
        until(lambda: b"got two\n" in rank.stdio.output, "another line read")
        self.assertEqual(self.snapshot(rank)["stdin_bytes"], 8)
        self.kill(rank)

    def test_files_of_others(self):
        """A rank has a file open for reading that another one makes longer at any time."""
        path = os.path.join(self.folder, "shared")
        with open(path, "w") as f:
            f.write("a")
        source = self.run_rank("reads", path)
        self.running(source)
        self.prepare(source)
        source.peer.expect("snap_ready")
        with open(path, "a") as f:
            f.write("b")
        self.freeze(source)
        self.captured(source)
        row = source.peer.expect("snap_written")
        self.assertEqual(row["files"], [])
        row.update(rank=0, name=source.order["name"], folder=source.order["folder"])
        with open(path, "a") as f:  # before the writer is frozen
            f.write("c")
        row["files"] = [{"path": path, "size": 3}]
        self.end(source, row)
        self.kill(source)
        with open(path, "a") as f:
            f.write("after the snapshot")
        rank = self.restart(row)
        self.go(rank)
        self.running(rank)
        rank.proc.send_signal(signal.SIGUSR2)
        rank.peer.expect("exit")
        self.assertEqual(rank.status(), 7)
        rank.peer.close_spare()
        rank.stdio.close()
        self.assertTrue(rank.stdio.output.endswith(b"read 3: abc\nend\n"), rank.stdio.output[-99:])

    def test_longer_files(self):
        source = self.steps()
        row = self.snapshot(source)
        self.running(source)
        self.kill(source)
        with open(self.log, "rb") as f:
            longer = f.read()
        rank = self.restart(row, GHOST_RESTART_KEEP=".longer")
        self.go(rank)
        self.running(rank)
        with open(self.log + ".longer", "rb") as f:
            self.assertEqual(f.read(), longer)
        self.finish(rank, source)

    # --- small files that are open for writing ---

    def put(self, path, text, mode=0o640):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, mode)

    def text(self, path):
        with open(path) as f:
            return f.read()

    def writes(self, *paths, number=0):
        rank = self.run_rank("writes", *paths, number=number)
        self.running(rank)
        return rank

    def found(self, row, *texts, **environment):
        """The rank goes on and finds this in its files."""
        rank = self.restart(row, **environment)
        self.go(rank)
        self.running(rank)
        rank.proc.send_signal(signal.SIGUSR2)
        rank.peer.expect("exit")
        self.assertEqual(rank.status(), 7)
        rank.peer.close_spare()
        rank.stdio.close()
        lines = "".join(f"read {len(text)}: {text}\n" for text in texts)
        self.assertTrue(rank.stdio.output.decode().endswith(lines + "end\n"),
                        rank.stdio.output[-200:])

    def test_small_files(self):
        """What they were at the snapshot, whatever has become of them."""
        path = os.path.join(self.folder, "data", "small")
        self.put(path, "as it was")
        for more in ({}, {"memory": 1 << 20}, {"compress": "zstd"}):
            source = self.writes(path)
            row = self.snapshot(source, **more)
            self.kill(source)
            for text in (None, "", "short", "AS IT WAS", "as it was, and more"):
                with self.subTest(f"{more} {text}"):
                    os.unlink(path)
                    if text is not None:
                        self.put(path, text, 0o600)
                    self.found(row, "as it was")
                    self.assertEqual(self.text(path), "as it was")
                    self.assertEqual(os.stat(path).st_mode & 0o7777, 0o640)
                    self.assertEqual(os.listdir(os.path.dirname(path)), ["small"])

    def test_released_files(self):
        """What a rank closes or removes between the first look at it and its stop, it does not look for."""
        data = os.path.join(self.folder, "data")
        file, pipe = os.path.join(data, "file"), os.path.join(data, "pipe")
        for program, paths, closes in ("reads", [file, data], True), ("writes", [file, pipe], True), \
                ("reads", [file], False), ("writes", [file], False):
            with self.subTest(f"{program} {closes}"):
                self.put(file, "as it was")
                os.mkfifo(pipe)
                source = self.run_rank(program, *paths)
                self.running(source)
                self.prepare(source)
                source.peer.expect("snap_ready", 60)
                if closes:
                    source.proc.send_signal(signal.SIGUSR1)
                    until(lambda: b"closed" in source.stdio.output, "the files are closed")
                os.unlink(pipe)
                os.unlink(file)
                if closes:
                    os.rmdir(data)
                self.freeze(source)
                self.captured(source)
                row = source.peer.expect("snap_written", 60)
                row.update(rank=source.number, name=source.order["name"], folder=source.order["folder"])
                self.end(source, row)
                self.kill(source)
                self.found(row, *([] if closes else ["as it was"]))

    def test_small_files_are_kept(self):
        path = os.path.join(self.folder, "data", "small")
        for text in ("short", "AS IT WAS", "as it was, and more"):
            with self.subTest(text):
                self.put(path, "as it was")
                source = self.writes(path)
                row = self.snapshot(source)
                self.kill(source)
                self.put(path, text)
                self.found(row, "as it was", GHOST_RESTART_KEEP=".kept")
                self.assertEqual(self.text(path + ".kept"), text)
                os.unlink(path + ".kept")

    def test_small_files_that_cannot_be(self):
        """One that cannot be right again: nothing at all is changed."""
        small, big = (os.path.join(self.folder, place, "file") for place in ("one", "other"))
        self.put(small, "as it was")
        self.put(big, "x" * ((64 << 10) + 1))
        source = self.writes(small, big)
        row = self.snapshot(source)
        self.kill(source)
        self.put(small, "changed")
        os.rename(big, big + ".away")
        self.cannot_restart(row, big, "has been removed since")
        self.assertEqual(self.text(small), "changed")
        self.assertFalse(os.path.exists(big))
        os.rename(big + ".away", big)
        os.unlink(small)
        os.rmdir(os.path.dirname(small))
        with open(big, "a") as f:
            f.write("longer")
        self.cannot_restart(row, small, "No such file")
        self.assertEqual(os.stat(big).st_size, (64 << 10) + 7)
        # A folder that nobody can write to.
        os.mkdir(os.path.dirname(small))
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", os.path.dirname(small)],
                       check=True)
        try:
            self.cannot_restart(row, small, "Read-only")
        finally:
            subprocess.run(["umount", os.path.dirname(small)], check=True)
        self.assertEqual(os.stat(big).st_size, (64 << 10) + 7)
        self.found(row, "as it was", "x" * 63)
        self.assertEqual(os.stat(big).st_size, (64 << 10) + 1)

    def test_larger_files_that_are_asked_for(self):
        path = os.path.join(self.folder, "data", "large")
        was = "as it was " * (300 << 10)
        self.put(path, was)
        source = self.writes(path)
        few = self.snapshot(source, carried=2 << 20)
        row = self.snapshot(source, carried=4 << 20)
        self.kill(source)
        os.unlink(path)
        self.cannot_restart(few, path, "has been removed since")
        for text in (None, was.upper()):
            with self.subTest(text and text[:9]):
                if text is not None:
                    self.put(path, text)
                self.found(row, was[:63])
                self.assertEqual(self.text(path), was)

    def test_snapshots_without_contents(self):
        """Of an older Ghost: files are cut back only."""
        path = os.path.join(self.folder, "data", "small")
        self.put(path, "as it was")
        source = self.writes(path)
        row = self.snapshot(source)
        self.kill(source)
        self.manifest(row, copies=False)
        os.unlink(path)
        self.cannot_restart(row, path, "has been removed since")
        self.put(path, "AS IT WAS, and more")
        self.found(row, "AS IT WAS")

    def test_small_files_of_several(self):
        """What the one that froze last has is right for all, in whatever order they come."""
        path = os.path.join(self.folder, "data", "shared")
        self.put(path, "at first")
        ranks = [self.writes(path, number=0), self.writes(path, number=1),
                 self.run_rank("reads", path, number=2)]
        self.running(ranks[2])
        rows = []
        for rank, change in zip(ranks, ("1 stands later", "that reads", "that is over")):
            rows.append(self.snapshot(rank, again=rows != []))
            with open(path, "w") as f:
                f.write(change)
        for rank in ranks:
            self.kill(rank)
        self.assertEqual(rows[2]["files"], [])
        self.manifest(*rows)
        for row in (rows[0], rows[1], rows[2]):
            for text in (None, "at first", "1 STANDS LATER", "1 stands later, and more"):
                with self.subTest(f"{row['rank']} {text}"):
                    os.unlink(path)
                    if text is not None:
                        self.put(path, text)
                    self.found(row, "1 stands later")
                    self.assertEqual(self.text(path), "1 stands later")

    def cannot_restart(self, row, *parts, begin=None, **environment):
        rank = (begin or self.look_at)(row, **environment)
        answer = rank.peer.expect("failed")
        for part in parts:
            self.assertIn(part, answer["why"])
        rank.peer.send({"t": "abort", "seq": 0})
        self.assertEqual(rank.status(), 1)

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
        heir = self.adopt(rank)
        heir.peer.send({"t": "resume", "seq": 0, "agent": AGENT})
        self.running(heir)
        self.finish(heir, adopted=True)

    # --- failures ---

    def nothing_left(self, rank):
        folder = getattr(rank, "order", {}).get("folder")
        self.assertEqual(os.listdir(folder) if folder else [], [])

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
        self.kill(rank)
        again = self.restart(row)
        self.go(again)
        self.running(again)
        self.finish(again, rank)

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

    def woken(self, rank):
        """The rank's agent got its signal and the rank runs; only the end tells of the signal."""
        self.running(rank)
        self.finish(rank)

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
                rank.proc.send_signal(signal.SIGUSR2)
                rank.peer.expect("exit", skip=("progress", "snap_ready", "failed", "snap_written",
                                               "stdin_closed"))
                self.assertEqual(rank.status(), 7)
                rank.peer.close_spare()
                rank.stdio.close()
                if point != "written":
                    self.nothing_left(rank)

    def criu_of(self, rank):
        """Started by one of the wrapper's threads."""
        for thread in os.listdir(f"/proc/{rank.proc.pid}/task"):
            with open(f"/proc/{rank.proc.pid}/task/{thread}/children") as f:
                for pid in f.read().split():
                    if comm(pid) == "criu":
                        return int(pid)
        return 0

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
                heir = self.adopt(rank)
                if point != "written":
                    self.nothing_left(rank)
                # As the node agent does for whoever had closed.
                heir.peer.send({"t": "resume", "seq": self.seq, "agent": AGENT})
                heir.peer.send({"t": "snap_cancel", "seq": self.seq})
                heir.peer.expect("snap_cancelled")
                self.running(heir)
                row = self.snapshot(heir)
                self.running(heir)
                self.kill(heir)
                again = self.restart(row)
                self.go(again)
                self.running(again)
                self.finish(again, heir)

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
                    rank = self.adopt(rank)
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
        self.kill(rank)
        again = self.restart(row)
        self.go(again)
        self.running(again)
        self.finish(again, rank)

    def adopt(self, source):
        source.proc.kill()
        source.status()
        while source.peer.receive() is not None:
            pass
        ours, theirs = pair()
        spare, source.peer.spare = source.peer.spare, []
        source.stdio.given = tuple(spare[:3])
        rank = Rank([WRAPPER, "--adopt", "--rank", "0", "--init", str(source.init),
                     "--control-fd", "3"], self.agent.environment(rank=0, GHOST_CRIU=CRIU),
                    control=theirs.fileno(), stdio=source.stdio)
        theirs.close()
        self.ranks.append(rank)
        rank.peer, rank.init = Peer(ours), source.init
        self.peers.append(rank.peer)
        rank.peer.send({"t": "adopt", "rank": 0, "init": source.init,
                        "stdin_bytes": source.peer.input_bytes}, spare[3:])
        for fd in spare[3:]:
            os.close(fd)
        self.assertEqual(rank.peer.expect("hello")["mode"], "adopt")
        return rank


if __name__ == "__main__":
    be_subreaper()
    unittest.main(argv=sys.argv[:1] + sys.argv[5:], verbosity=2)
