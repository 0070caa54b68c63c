"""Programs of the matrix (tests/process/matrix.py) as ranks: each is moved, and saved and made again.

A rank that cannot be carried is to be refused by name, and to go on as if nothing had happened.
With GHOST_TEST_USER=NAME the jobs are that user's: what only root can carry is to be refused as well.

usage: rank_matrix.py [CASE...]      without cases: those that matrix_subject lists for ranks
"""
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

from suite import USER, Lab, give, until

SUBJECT = os.path.abspath("tests/process/matrix_rank")
LIMIT = 120
AT_ONCE = 16 if USER else 48  # ranks of a job; stops of a user wait for their turn
lab = Lab(2)
on = lab.on
live = []


def text(*path):
    try:
        with open(os.path.join(*path)) as file:
            return file.read().strip()
    except OSError:
        return ""


class Job:
    """One rank for each case, on gn1."""

    def __init__(self, folder, cases, options=()):
        self.cases = cases
        self.folder = give(tempfile.mkdtemp(dir=folder))
        self.shots = os.path.join(self.folder, "shots")
        words = ["mpirun", "--mca", "ghost", "1", "--mca", "ghost_checkpoint_dir", self.shots,
                 *options]
        for number, case in enumerate(cases):
            words += [":"] * (number > 0) + ["-np", "1", "--host", "gn1:%d,gn2:%d" % (
                len(cases), len(cases)), SUBJECT, case, self.folder]
        self.start("gn1", words)

    def wait_ready(self):
        until(lambda: all(self.has(case, "ready") for case in self.cases), "all ranks are ready", LIMIT, self.process,
              self.said)
        return self

    def start(self, node, words):
        self.out = open(os.path.join(self.folder, "out"), "a")
        pid = os.path.join(self.folder, "pid")
        noted = ["sh", "-c", 'echo $$ > "$0"; exec "$@"', pid, *words]
        self.process = subprocess.Popen(lab.words(node, *noted), stdin=subprocess.DEVNULL,
                                        stdout=self.out,
                                        stderr=subprocess.STDOUT, start_new_session=True)
        live.append(self.process)

    def save(self):
        return on("gn1", "ghost", "checkpoint", text(self.folder, "pid"), "--then", "kill")

    def has(self, case, what):
        return os.path.exists(os.path.join(self.folder, "%s.%s" % (case, what)))

    def said(self):
        return text(self.folder, "out")[-800:]

    def finish(self):
        """{case: what it found}"""
        for case in self.cases:
            open(os.path.join(self.folder, case + ".go"), "w").close()
        self.process.wait(LIMIT)
        return {case: text(self.folder, case + ".result") or "no answer: " + self.said()
                for case in self.cases}


def refusal_missing(done, refused):
    """What is wrong with a refusal; empty: nothing."""
    if done.returncode != 1:
        return "not refused, status %d: %s%s" % (done.returncode, done.stdout, done.stderr)
    said = done.stdout + done.stderr
    if re.search("(?i)criu", said):
        return "in criu's words: " + said
    return "" if refused.replace("import: ", "") in said else "refused otherwise: " + said


def grow(job, more):
    """Others write to the file of `grown`."""
    if "grown" in job.cases:
        with open(os.path.join(job.folder, "grown.data"), "a") as file:
            file.write(more)


def moves(folder, rows, options):
    """{case: what is wrong} of one job whose ranks go to gn2 one after the other."""
    job = Job(folder, list(rows), options).wait_ready()
    grow(job, "xxxxxx of others")
    wrong = {}

    def migrate(*ranks):
        return on("gn1", "ghost", "migrate", "--rank", ",".join(map(str, ranks)), "--to", "gn2")

    # one request for all that can move; one each if that fails, to find out which cannot
    together = migrate(*(rank for rank, refused in enumerate(rows.values()) if not refused))
    for rank, (case, refused) in enumerate(rows.items()):
        if refused:
            wrong[case] = refusal_missing(migrate(rank), refused)
        elif together.returncode != 0 and (done := migrate(rank)).returncode != 0:
            wrong[case] = "not moved: " + done.stdout + done.stderr
    for case, result in job.finish().items():
        wrong[case] = wrong.get(case) or ("" if result == "ok" else result)
    return wrong


def snapshots(folder, rows, options):
    """The same of one job that is saved, ended, and made again on gn2."""
    cases = [case for case, refused in rows.items() if not refused]
    if not cases:
        return {}
    job = Job(folder, cases, options).wait_ready()
    grow(job, "xxxxxx of others")
    done = job.save()
    if done.returncode != 0:
        return dict.fromkeys(cases, "not saved: " + done.stdout + done.stderr)
    job.process.wait(LIMIT)
    grow(job, ", after the snapshot")  # a restart takes that back
    job.start("gn2", ["ghost", "restart", job.shots, "--host", "gn2:%d" % len(cases)])
    return {case: "" if result == "ok" else result for case, result in job.finish().items()}


def refused_snapshots(folder, rows):
    """The same of jobs with one such rank each: they are not saved, and go on. All start at once."""
    jobs = {case: Job(folder, [case]) for case in rows}
    wrong = {}
    for case, job in jobs.items():
        wrong[case] = refusal_missing(job.wait_ready().save(), rows[case])
    for case, job in jobs.items():
        result = job.finish()[case]
        wrong[case] = wrong[case] or ("" if result == "ok" else result)
    return wrong


def main():
    listed = subprocess.run([SUBJECT, "--list"], capture_output=True, text=True, check=True).stdout
    rows, options = {}, {}
    for name, _, refused, ranks, of_user in (line.split("\t") for line in listed.splitlines()):
        how, _, why = ranks.partition(": ")
        if name not in sys.argv[1:] if sys.argv[1:] else how == "not":
            continue
        refused = "" if refused.startswith("sees: ") else refused
        if USER and of_user.startswith("not: "):
            print("ok %s # SKIP of root alone: %s" % (name, of_user[5:]))
            continue
        if USER and of_user:
            refused = of_user
        rows[name] = refused
        options[name] = ("--mca", why, "1") if how == "with" else ()
    folder = tempfile.mkdtemp(prefix="ranks.", dir=os.path.abspath("tests/net"))
    os.chmod(folder, 0o755)
    bad = 0

    def tell(how, outcome):
        nonlocal bad
        for case, wrong in outcome.items():
            bad += bool(wrong)
            print("%s %s_%s%s" % ("not ok" if wrong else "ok", how, case, wrong and ": " + wrong))

    try:
        for node in ("gn1", "gn2"):
            assert on(node, SUBJECT, "--serve", user="").returncode == 0, "no services"
        for wanted in sorted(set(options.values())):
            names = [name for name in rows if options[name] == wanted]
            for part in (names[i:i + AT_ONCE] for i in range(0, len(names), AT_ONCE)):
                of_part = {case: rows[case] for case in part}
                tell("move", moves(folder, of_part, wanted))
                tell("snapshot", snapshots(folder, of_part, wanted))
                tell("snapshot", refused_snapshots(folder, {
                    case: refused for case, refused in of_part.items()
                    if refused and not refused.startswith("import: ")}))
    finally:
        for process in live:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if bad else 0


with lab:
    sys.exit(main())
