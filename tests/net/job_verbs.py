"""What a user does with snapshots of jobs beside taking them and restarting: ending or stopping the job
after one, signals, input from a file, --replace and the refusal without it, --keep-longer, memory of the
nodes and bringing it together; and what a user is told who is not root. See snapshots.py, whose laboratory this is."""
import json
import os
import re
import subprocess
import sys

import snapshots
from snapshots import Job, Ledger, lab, on, until
from suite import UID, as_user, cases_in, good

TALK = os.path.abspath("tests/mpi/talk")


def mpirun(job):
    """The job's own mpirun on its node, by the number `ghost ps` knows."""
    return json.loads(good(on(job.node, "ghost", "ps", "--json")))["jobs"][0]["pid"]


def tell(job, name):
    good(on(job.node, "kill", "-" + name, str(mpirun(job))))


def refused(done, *words):
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    for word in words:
        assert word in done.stderr, (word, done.stderr)


def case_then_kill(folder):
    job = Ledger(folder)
    job.reach(60)
    made = job.snapshot("--then", "kill")
    there = good(on(job.node, "ps", "-eo", "stat=,comm="))
    assert made["ended"] and not re.search("^[^Z].*mpirun$", there, re.M), (made, there)
    assert job.process.wait(30) == 85, job.text()
    assert "ended after its snapshot" in job.text(), job.text()[-500:]
    assert os.path.isdir(made["snapshot"])
    job.restart("gn3:2,gn4:2")
    job.finish()


def case_then_stop(folder):
    job = Ledger(folder)
    job.reach(60)
    made = job.snapshot("--then", "stop")
    step = job.step()
    with open(os.path.join(made["snapshot"], "manifest.json")) as file:
        saved = {row["path"]: row["size"] for row in json.load(file)["files"]}
    now = {path: os.path.getsize(path) for path in saved}
    assert saved and saved == now, ("it ran on beyond what was saved", saved, now)
    assert "stopped" in good(on(job.node, "ghost", "ps"))
    refused(job.checkpoint(), "stopped")
    assert job.step() <= step + 10, "it runs"
    tell(job, "CONT")
    job.finish()


def case_signal(folder):
    job = Ledger(folder)
    job.reach(40)
    tell(job, "URG")
    until(job.complete, "a snapshot by signal")
    assert "snapshot" in good(on(job.node, "ghost", "ps"))
    job.kill()
    job.restart("gn3:4", options=["--mca", "ghost_checkpoint_signal", "USR2"])
    job.reach(80)
    tell(job, "USR2")  # would end the ranks
    until(lambda: len(job.complete()) == 2, "a snapshot by the other signal")
    job.finish()


def case_replace(folder):
    job = Ledger(folder)
    job.reach(60)
    job.snapshot()
    # from another node, and from its own
    refused(on("gn3", "ghost", "restart", job.shots, "--host", "gn3:4"), "still runs")
    refused(on("gn1", "ghost", "restart", job.shots, "--host", "gn3:4"), "--replace")
    first = job.process
    job.restart("gn1:2,gn3:2", options=["--replace"])
    assert first.wait(30) != 0
    job.finish()


def case_keep_longer(folder):
    job = Ledger(folder)
    job.reach(60)
    name = job.snapshot()["name"]
    job.reach(150)
    job.kill()
    job.restart("gn3:2,gn4:2", options=["--keep-longer"])
    kept = os.path.join(job.data, "rank-0.after-" + name)
    until(lambda: os.path.exists(kept), "the longer file")
    longer = os.path.getsize(kept)
    text = job.result()
    with open(os.path.join(job.data, "rank-0"), "rb") as file, open(kept, "rb") as old:
        assert file.read(longer) == old.read(), "what was computed twice differs"
    for rank in range(4):
        path = os.path.join(job.data, "rank-%d.after-%s" % (rank, name))
        if os.path.exists(path):
            os.unlink(path)
    assert " 0 errors" in text


class Reader(Job):
    """A job that reads a file on its standard input."""

    def __init__(self, folder, path):
        self.input = path
        super().__init__(folder, [TALK, "--stdin"], ranks=2, hosts="gn1:1,gn2:1")

    def start(self, node, words):
        if words[0] == "ghost":
            return super().start(node, words)
        self.runs, self.node = 1, node
        self.out_path = os.path.join(self.folder, "out", "1")
        with open(self.out_path, "w") as out, open(self.input) as file:
            self.process = subprocess.Popen(
                lab.words(node, *words), stdin=file, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True)
        snapshots.live.append(self)


def case_input(folder):
    path = os.path.join(folder, "input")
    lines = 400000
    with open(path, "w") as file:
        for number in range(lines):
            file.write("%d %s\n" % (number, "x" * (number % 90)))
    job = Reader(folder, path)
    until(lambda: "in: 2000 " in job.text(), "the first lines")
    made = job.snapshot()
    with open(os.path.join(made["snapshot"], "manifest.json")) as file:
        said = json.load(file)["stdin"]
    assert said["path"] == path and 0 < said["offset"] < os.path.getsize(path), said
    job.kill()
    job.restart("gn3:1,gn4:1")
    text = job.result()
    assert "in end %d %d" % (lines, os.path.getsize(path)) in text, text[-300:]


def case_memory_of_the_nodes(folder):
    job = Ledger(folder)
    job.reach(60)
    made = job.snapshot("--to", "memory")
    assert made["snapshot"].startswith("/dev/shm/"), made
    job.kill()
    refused(on("gn1", "ghost", "restart", "--from", "memory", "--host", "gn1:2,gn2:2"), "gn2",
            "ghost gather")
    together = os.path.join(folder, "together")
    good(on("gn1", "ghost", "gather", made["snapshot"], "--to", together))
    job.restart("gn3:2,gn4:2", what=together)
    job.finish()


def case_memory_of_one_node(folder):
    job = Ledger(folder, hosts="gn1:4")
    job.reach(60)
    job.snapshot("--to", "memory")
    job.reach(100)
    job.kill()
    job.start("gn1", ["ghost", "restart", "--from", "memory", "--bind-to", "none", "--host", "gn1:4"])
    job.finish()


def case_disk_and_memory(folder):
    job = Ledger(folder, mca=[("ghost_checkpoint_to", "both")])
    job.reach(60)
    job.snapshot()
    job.reach(90)
    made = job.snapshot()
    assert made["kind"] == "incremental" and made["second"].startswith("/dev/shm/"), made
    assert os.path.basename(made["snapshot"]) == os.path.basename(made["second"]), made
    job.kill()
    together = os.path.join(folder, "together")
    good(on("gn1", "ghost", "gather", made["second"], "--to", together))
    good(on("gn1", "ghost", "verify", together))
    job.restart("gn3:2,gn4:2", what=together)
    job.reach(120)
    job.kill()
    job.restart("gn2:2,gn3:2", what=made["snapshot"])
    job.finish()


def case_one_memory_is_full(folder):
    """In both or in neither; the job goes on."""
    # found, and used, as the one there is, unless there is one
    place = "/dev/shm/ghost-snapshots-%d." % UID
    place = (on("gn1", "sh", "-c", "ls -d %s*" % place).stdout.split() or [place + "full"])[0]
    good(on("gn2", "mkdir", "-p", "-m", "700", place))
    good(on("gn2", "mount", "-t", "tmpfs", "-o", "size=2m,mode=700,uid=%d" % UID, "tmpfs", place, user=""))
    good(on("gn1", "mkdir", "-p", "-m", "700", place))

    def there(node):
        return {name for name in good(on(node, "ls", place)).split() if "-" in name}
    before = there("gn1")
    job = Ledger(folder, extra=("--memory", "16"), mca=[("ghost_compress", "none")])
    job.reach(60)
    made = job.checkpoint("--to", "both")
    assert made.returncode == 1 and place in made.stderr and "space" in made.stderr, made.stderr
    assert job.complete() == [], job.complete()
    until(lambda: there("gn1") == before and not there("gn2"), "what was begun to be removed")
    good(on("gn2", "umount", place, user=""))
    made = job.snapshot("--to", "both")
    assert len(job.complete()) == 1 and made["second"].startswith(place), made
    job.finish()


def case_without_privilege(folder):
    """Of a user who cannot have a user name space: the job runs, unmovable; a restart begins nothing."""
    user = [*as_user(65534), "env", "HOME=/tmp"]
    job = ["mpirun", "-np", "1", "--mca", "ghost", "1"]
    run = on("gn1", *user, *job, "echo", "runs", user="")
    assert good(run) == "runs\n" and "by a user who is not root" in run.stderr, run.stderr
    assert "the user is nobody" in run.stderr, run.stderr
    run = on("gn1", *user, "OMPI_MCA_ghost_restart=" + folder, *job, "echo", "runs", user="")
    assert run.returncode == 1 and run.stdout == "", run
    assert "make a user name space: the user is nobody" in run.stderr, run.stderr


if __name__ == "__main__":
    sys.exit(snapshots.main(cases_in(globals()), sys.argv[1:]))
