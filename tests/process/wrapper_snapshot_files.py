"""Files of ranks in snapshots: put back, cut back, carried, or refused."""

import os
import signal
import subprocess

from suite import until
from wrapper_snapshot_case import SnapshotCase


class Files(SnapshotCase):
    def found(self, row, *texts, **environment):
        """The rank goes on and finds this in its files."""
        rank = self.restart(row, **environment)
        self.go(rank)
        self.running(rank)
        self.ends(rank)
        lines = "".join(f"read {len(text)}: {text}\n" for text in texts)
        self.assertTrue(rank.stdio.output.decode().endswith(lines + "end\n"),
                        rank.stdio.output[-200:])

    def writes(self, *paths, number=0):
        rank = self.run_rank("writes", *paths, number=number)
        self.running(rank)
        return rank

    def text(self, path):
        with open(path) as f:
            return f.read()

    def put(self, path, text, mode=0o640):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, mode)

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
        self.found(row, "abc")

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
