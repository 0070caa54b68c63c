// SPDX-License-Identifier: BSD-3-Clause
// Every fault point (base/fault.hpp) with every kind of fault that it has: a self-checking job of
// two ranks on a virtual cluster of four nodes, mpirun and rank 0 on gn1, rank 1 on gn2, an
// operation on rank 1 with one fault planted in one process. Either the operation is done; or it is
// refused in words, and the job goes on unharmed and moves the rank the next time; or, where the
// rank itself or its node was struck, the job ends within 15 s with a message. Afterwards each node
// has the processes, mounts and files that it had before.
//
// A representative part; with GHOST_TEST_FAULTS=all, or at length, all of them (make fault). At the
// end a table: what became of the job, and milliseconds. Needs root; else every case is skipped.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <sys/stat.h>

#include "base/fault.hpp"
#include "tests/net/on_lab.hpp"
#include "tests/rounds.hpp"

namespace {

namespace fault = ghost::fault;
using fault::Kind;
using fault::Point;
using nettest::Background;
using nettest::Finished;
using nettest::Job;
using nettest::Words;

enum class What { move, live, snapshot, restart };
constexpr std::array<const char*, 4> what_names = {"move", "live", "snapshot", "restart"};

// An operation that passes the point, and the node on which it does.
struct Way {
    Point point;
    What what;
    const char* node;
    bool back = false;  // the rank's way back: the target fails before
};

using P = Point;
constexpr const char *root = "gn1", *source = "gn2", *target = "gn3", *spare = "gn4";
constexpr const char* hosts = "gn1:1,gn2:1,gn3:1,gn4:1";
constexpr Way ways[] = {
    {P::coordinator_prepares, What::move, root},
    {P::coordinator_connects, What::move, root},
    {P::coordinator_gates, What::move, root},
    {P::coordinator_decides, What::move, root},
    {P::coordinator_decides, What::live, root},
    {P::coordinator_goes, What::move, root},
    {P::coordinator_snap_prepares, What::snapshot, root},
    {P::coordinator_snap_gates, What::snapshot, root},
    {P::coordinator_snap_closes, What::snapshot, root},
    {P::coordinator_snap_completes, What::snapshot, root},
    {P::coordinator_snap_ends, What::snapshot, root},
    {P::coordinator_restart_checks, What::restart, root},
    {P::coordinator_restart_goes, What::restart, root},
    {P::node_prepares, What::move, target},
    {P::node_connects, What::move, source},
    {P::node_gates, What::move, source},
    {P::node_closes, What::move, source},
    {P::node_exports, What::move, source},
    {P::node_exports, What::live, source},
    {P::node_holds, What::move, target},
    {P::node_leaves, What::move, source},
    {P::node_joins, What::move, target},
    {P::node_goes, What::move, target},
    {P::node_snap_prepares, What::snapshot, source},
    {P::node_snap_freezes, What::snapshot, source},
    {P::node_snap_writes, What::snapshot, source},
    {P::node_snap_ends, What::snapshot, source},
    {P::node_restart_imports, What::restart, source},
    {P::node_returns, What::move, source, true},
    {P::wrapper_resumes, What::move, source, true},
    {P::agent_wakes, What::move, source, true},
    {P::wrapper_connects, What::move, source},
    {P::wrapper_exports, What::move, source},
    {P::wrapper_exported, What::move, source},
    {P::wrapper_exported, What::live, source},
    {P::wrapper_leaves, What::move, source},
    {P::wrapper_prepares, What::move, target},
    {P::wrapper_prepares, What::restart, source},
    {P::wrapper_imports, What::move, target},
    {P::wrapper_holds, What::move, target},
    {P::wrapper_holds, What::restart, source},
    {P::wrapper_goes, What::move, target},
    {P::wrapper_goes, What::restart, source},
    {P::wrapper_snap_prepares, What::snapshot, source},
    {P::wrapper_snap_freezes, What::snapshot, source},
    {P::wrapper_snap_captured, What::snapshot, source},
    {P::wrapper_snap_written, What::snapshot, source},
    {P::init_exported, What::move, source},
    {P::init_held, What::move, target},
    {P::init_held, What::restart, source},
    {P::init_goes, What::move, target},
    {P::init_snap_captured, What::snapshot, source},
    {P::agent_gates, What::move, source},
    {P::agent_gates, What::snapshot, source},
    {P::agent_closes, What::move, source},
    {P::agent_wakes, What::move, target},
    {P::agent_wakes, What::snapshot, source},
    {P::agent_attaches, What::move, target},
    {P::agent_attaches, What::live, source},
    {P::agent_attaches, What::restart, source},
    {P::criu_dumps, What::move, source},
    {P::criu_dumps, What::live, source},
    {P::criu_dumps, What::snapshot, source},
    {P::criu_dumped, What::move, source},
    {P::criu_restores, What::move, target},
    {P::criu_restores, What::live, target},
    {P::criu_restores, What::restart, source},
    {P::pages_sent_first, What::move, source},
    {P::pages_sent_last, What::move, source},
    {P::pages_sent_last, What::live, source},
    {P::pages_received_first, What::move, target},
    {P::pages_received_last, What::move, target},
    {P::pages_received_last, What::live, target},
    {P::pages_sent_round, What::live, source},
    {P::pages_received_round, What::live, target},
};

struct Case {
    Way way;
    Kind kind;

    const fault::PointRow& row() const { return fault::points[static_cast<size_t>(way.point)]; }
    std::string line() const {
        const char* what = way.back ? "back" : what_names[static_cast<size_t>(way.what)];
        return row().title() + " (" + what + ")";
    }
    const char* kind_name() const { return fault::kind_names[static_cast<size_t>(kind)]; }
    // Of what is struck the rank, or the job, cannot live on.
    bool may_end() const;
};

bool Case::may_end() const {
    const std::string party = row().party;
    if (way.what == What::restart) return true;  // as a whole; it can be restarted again
    const bool decided =
        way.point == P::node_joins || way.point == P::node_goes || way.point == P::wrapper_goes;
    if (kind == Kind::die)
        return party == "coordinator" || party == "init" || party == "agent" || decided ||
               (party == "node" && way.node == source);
    if (kind == Kind::hang) return decided;  // it is waited for, but not for ever
    // A copy whose wrapper hears nobody does not run, and the decision may be quicker than that.
    // A rank of which its server has let go, and that is not told why, has lost it for good.
    if (kind == Kind::cut)
        return decided || way.point == P::node_holds || way.point == P::node_closes;
    // A step of the rank's own way back that fails is its end.
    return kind == Kind::error &&
           (way.point == P::agent_wakes || way.point == P::agent_attaches || decided);
}

constexpr Case few[] = {
    {{P::coordinator_decides, What::move, root}, Kind::error},
    {{P::coordinator_snap_closes, What::snapshot, root}, Kind::slow},
    {{P::node_prepares, What::move, target}, Kind::cut},
    {{P::wrapper_exported, What::move, source}, Kind::die},
    {{P::agent_gates, What::move, source}, Kind::hang},
    {{P::criu_dumps, What::move, source}, Kind::die},
    {{P::pages_sent_last, What::move, source}, Kind::cut},
    {{P::init_held, What::move, target}, Kind::die},
    {{P::node_holds, What::move, target}, Kind::die},
    {{P::wrapper_holds, What::restart, source}, Kind::die},
};

bool all_of_them() {
    const char* asked = std::getenv("GHOST_TEST_FAULTS");
    return ghost::test::at_length() || (asked != nullptr && std::string(asked) == "all");
}

std::vector<Case> cases() {
    if (!all_of_them()) return {std::begin(few), std::end(few)};
    std::vector<Case> out;
    for (const Way& way : ways)
        for (size_t kind = 0; kind < fault::kind_names.size(); ++kind)
            if (Case one{way, static_cast<Kind>(kind)}; one.row().has(one.kind)) out.push_back(one);
    return out;
}

int64_t now_ms() {
    using namespace std::chrono;
    return duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count();
}

// What a node has: processes but for those that look, mounts, files, sockets with a name. Open
// MPI's session folder is its own: one of an mpirun that was killed stays, as without Ghost.
constexpr const char* inventory = R"(
ps -eo ppid=,pid=,comm= | awk -v me=$$ '$1 != me && $2 != me {print "process", $3}' | sort
awk '{print "mount", $2, $3}' /proc/self/mounts | sort
find /dev/shm /tmp /run/ghost-0 -mindepth 1 2>/dev/null | grep -v /tmp/ompi | sed 's/^/file /' | sort
awk '$8 ~ /^@?ghost/ {print "socket", $8}' /proc/net/unix | sed 's/\.[0-9]*$//' | sort -u)";

using Inventory = std::multiset<std::string>;

std::string difference(const Inventory& more, const Inventory& less) {
    std::vector<std::string> only;
    std::ranges::set_difference(more, less, std::back_inserter(only));
    std::string out;
    for (const auto& line : only) out += "   " + line + "\n";
    return out;
}

struct Outcome {
    std::string what;
    int64_t ms = 0;
};

// A job with its rank at home, and what nodes have then.
class FaultJob : public nettest::OnLab {
  protected:
    static void SetUpTestSuite();
    static void TearDownTestSuite();
    void SetUp() override;
    void TearDown() override;

    void start();
    void bring_home();
    Inventory looks(const std::string& node);
    void expect_nothing_left();
    void end_job();
    Job& job() { return *job_; }
    bool went_on() { return job_ && job_->mpirun().running(); }

    static inline std::unique_ptr<Job> job_;
    static inline std::string folder_;                      // of the suite
    static inline std::map<std::string, Inventory> empty_;  // what nodes have without a job
    static inline std::map<std::string, Inventory> home_;   // with it, the rank at home
    static inline std::unique_ptr<nettest::Scratch> shared_;
};

class FaultMatrix : public FaultJob, public ::testing::WithParamInterface<Case> {
  protected:
    static void TearDownTestSuite();
    void TearDown() override;

    const Case& fault() const { return GetParam(); }
    void plant() const;
    std::string struck() const { return nettest::contents(planted_ + ".struck"); }
    Words command() const;
    bool wait_for_end(const std::function<bool()>& over);
    void let_go_on();
    void on_rank();
    void on_restart();
    void judge(const Finished& end, int64_t began);
    void expect_ended();
    void expect_told(const std::string& err) const;
    void expect_refused(const Finished& end);
    void goes_on();
    void note(const char* what) { table_[fault().line()][fault().kind] = {what, took_}; }

    static inline std::map<std::string, std::map<Kind, Outcome>> table_;
    std::string planted_;
    int64_t took_ = 0, began_ = 0;
    bool hangs_ = false;
};

const Words nodes = {root, source, target, spare};

void FaultJob::SetUpTestSuite() {
    make_lab(4);
    shared_ = std::make_unique<nettest::Scratch>();
    folder_ = shared_->path("faults");
    ::mkdir(folder_.c_str(), 0700);
}

void FaultJob::TearDownTestSuite() {
    job_.reset();
    shared_.reset();
    empty_.clear();
    OnLab::TearDownTestSuite();
}

void FaultMatrix::TearDownTestSuite() {
    FaultJob::TearDownTestSuite();
    std::printf("%-42s", "");
    for (const char* kind : fault::kind_names) std::printf("%-15s", kind);
    for (const auto& [line, kinds] : table_) {
        std::printf("\n%-42s", line.c_str());
        for (size_t kind = 0; kind < fault::kind_names.size(); ++kind) {
            const auto found = kinds.find(static_cast<Kind>(kind));
            const bool has = found != kinds.end();
            const std::string cell =
                has ? found->second.what + " " + std::to_string(found->second.ms) : "-";
            std::printf("%-15s", cell.c_str());
        }
    }
    std::printf("\n");
}

Inventory FaultJob::looks(const std::string& node) {
    std::istringstream list(lab().as_root(node, {"sh", "-c", inventory}).out);
    Inventory out;
    for (std::string line; std::getline(list, line);) out.insert(line);
    return out;
}

void FaultJob::SetUp() {
    OnLab::SetUp();
    if (IsSkipped()) return;
    if (empty_.empty())
        for (const auto& node : nodes) empty_[node] = looks(node);
}

void FaultMatrix::plant() const {
    std::ofstream(planted_) << fault().kind_name() << "\n";
    if (fault().way.back) std::ofstream(folder_ + "/wrapper:holds@" + target) << "error\n";
}

void FaultJob::start() {
    Words words{
        "env", "GHOST_FAULTS=" + folder_, "mpirun", "-np", "2", "--host", hosts, "--mca", "ghost",
        "1"};
    for (const auto& word : {nettest::program("pattern"), std::string("--until-file"),
                             shared_->path("stop"), std::string("--max-bytes"),
                             std::string("70000"), std::string("--memory"), std::string("16")})
        words.push_back(word);
    std::remove(shared_->path("stop").c_str());
    job_ = std::make_unique<Job>(lab(), words);
    ASSERT_TRUE(job().wait_for("round 0:")) << job().mpirun().err();
    home_.clear();
    const Finished saved =
        lab().on("gn1", {"ghost", "checkpoint", "--to", shared_->path("snapshots")});
    ASSERT_EQ(saved.status, 0) << saved.err;
}

void FaultJob::bring_home() {
    if (!went_on()) {
        ASSERT_NO_FATAL_FAILURE(start());
    }
    if (job().node_of(1) != source) expect_moved(job(), 1, source);
    if (home_.empty())
        for (const auto& node : nodes) home_[node] = looks(node);
}

Words FaultMatrix::command() const {
    const What what = fault().way.what;
    if (what == What::snapshot) return {"ghost", "checkpoint", "--to", shared_->path("snapshots")};
    return {"ghost", "migrate", "--rank", "1",
            "--to",  target,    "--mode", what == What::live ? "live" : "stop",
            "--json"};
}

// The process that hangs goes on. Its number is what the node knows it by, or what its name space
// does, then it is the rank.
void FaultMatrix::let_go_on() {
    std::istringstream said(struck());
    std::string kind, pid;
    std::getline(said, kind);
    std::getline(said, pid);
    if (!std::exchange(hangs_, false) || pid.empty()) return;
    if (std::string(fault().row().party) == "agent")
        lab().as_root(fault().way.node, {"pkill", "-CONT", "-x", "pattern"});
    else
        lab().as_root(fault().way.node, {"kill", "-CONT", pid});
}

// Who hangs does so until that is over, or nobody can wait any more.
bool FaultMatrix::wait_for_end(const std::function<bool()>& over) {
    const bool coordinator = std::string(fault().row().party) == "coordinator";
    const double hang = coordinator ? 3 : 25;
    hangs_ = fault().kind == Kind::hang;
    if (hangs_ && !nettest::poll_until(hang, over)) let_go_on();
    const bool ended = nettest::poll_until(70, over);
    let_go_on();
    return ended;
}

void FaultMatrix::judge(const Finished& end, int64_t began) {
    took_ = now_ms() - began;
    // Of a job that ends with the operation.
    const bool may_end = fault().may_end();
    const std::string party = fault().row().party;
    const bool must_end = (fault().kind == Kind::die && (party == "agent" || party == "init")) ||
                          (fault().kind == Kind::error && party == "agent");
    if (may_end)
        nettest::poll_until(end.status != 0 || must_end ? 15 : 3, [&] { return !went_on(); });
    if (!went_on()) {
        note("ended");
        EXPECT_TRUE(may_end) << job().mpirun().err() << end.err << end.out;
        return expect_ended();
    }
    note(end.status == 0 ? "went on" : "refused");
    if (end.status != 0) expect_refused(end);
    ASSERT_NO_FATAL_FAILURE(goes_on());
}

void FaultMatrix::expect_refused(const Finished& end) {
    const std::string said = end.err + end.out;
    // Of a rank whose daemon stands still nobody knows how it is, nor of a job whose mpirun does.
    const bool hangs = fault().kind == Kind::hang;
    const bool unknown = hangs && end.status == 3;
    const bool suspended = hangs && std::string(fault().row().party) == "coordinator";
    EXPECT_EQ(end.status, unknown ? 3 : 1) << said;
    EXPECT_NE(said.find(suspended ? "what was asked for may still be done"
                        : unknown ? "did not confirm that the rank goes on"
                                  : "unharmed"),
              std::string::npos)
        << said;
}

void FaultMatrix::expect_ended() {
    const Finished end = job().finish(20);
    EXPECT_LE(now_ms() - began_, 15000 + took_) << end.err;
    EXPECT_NE(end.status, 0) << end.err;
    std::printf("   status %d: %s\n", end.status, end.err.c_str());
    if (std::string(fault().row().party) != "coordinator") expect_told(end.err);
    job_.reset();
}

// Which rank or node it was, if anything was heard, and what to do: of a restart where it is from.
void FaultMatrix::expect_told(const std::string& err) const {
    const auto says = [&err](const char* what) { return err.find(what) != std::string::npos; };
    EXPECT_TRUE(says("rank 1") || says("node gn") || says("nothing was heard for")) << err;
    const size_t ways = nettest::count_of(err, "`ghost restart ") +
                        nettest::count_of(err, "could not be restarted from ");
    EXPECT_EQ(ways, 1U) << err;
}

// It is as if nothing had happened: it computes right, and moves.
void FaultMatrix::goes_on() {
    ASSERT_NO_FATAL_FAILURE(expect_goes_on(job(), 2));
    const bool lost_node =
        std::string(fault().row().party) == "node" &&
        (fault().kind == Kind::die ||
         job().mpirun().err().find("hosts no rank: given up") != std::string::npos);
    if (lost_node || job().node_of(1) == source) expect_moved(job(), 1, spare);
    if (lost_node) return end_job();
    ASSERT_NO_FATAL_FAILURE(expect_moved(job(), 1, source));
    ASSERT_NO_FATAL_FAILURE(expect_goes_on(job(), 1));
}

void FaultJob::end_job() {
    nettest::touch(shared_->path("stop"));
    expect_clean(job().finish(), "pattern:");
    job_.reset();
}

// What is still at work gets some time.
void FaultJob::expect_nothing_left() {
    const auto& before = went_on() ? home_ : empty_;
    for (const auto& node : nodes) {
        Inventory now;
        const Inventory& then = before.at(node);
        nettest::poll_until(10, [&] { return (now = looks(node)) == then; });
        EXPECT_EQ(difference(now, then), "") << "left on " << node;
        EXPECT_EQ(difference(then, now), "") << "lacking on " << node;
    }
}

void FaultMatrix::on_rank() {
    ASSERT_NO_FATAL_FAILURE(bring_home());
    plant();
    began_ = now_ms();
    Background asked = lab().start_on("gn1", command());
    EXPECT_TRUE(wait_for_end([&] { return !asked.running(); }));
    const Finished end = asked.finish(1);
    EXPECT_FALSE(struck().empty()) << "nobody passed " << planted_ << "\n" << end.err << end.out;
    judge(end, began_);
}

// The job begins again, or says why not; then it does without the fault.
void FaultMatrix::on_restart() {
    ASSERT_NO_FATAL_FAILURE(bring_home());
    const std::string shots = shared_->path("snapshots");
    const Finished saved =
        lab().on("gn1", {"ghost", "checkpoint", "--to", shots, "--then", "kill"});
    ASSERT_EQ(saved.status, 0) << saved.err;
    EXPECT_EQ(job().finish().status, 85);
    plant();
    const Words words{"env", "GHOST_FAULTS=" + folder_, "ghost", "restart", shots, "--host", hosts};
    began_ = now_ms();
    job_ = std::make_unique<Job>(lab(), words);
    const auto begun = [&] { return nettest::count_of(job().mpirun().out(), "round ") > 1; };
    EXPECT_TRUE(wait_for_end([&] { return begun() || !went_on(); }));
    took_ = now_ms() - began_;
    EXPECT_FALSE(struck().empty()) << "nobody passed " << planted_ << job().mpirun().err();
    if (!begun()) {
        note("refused");
        expect_ended();
        job_ = std::make_unique<Job>(lab(), words);
        EXPECT_TRUE(nettest::poll_until(30, [&] { return begun() || !went_on(); }));
    } else {
        note("went on");
    }
    ASSERT_TRUE(went_on()) << job().finish().err;
    end_job();
}

TEST_P(FaultMatrix, Strikes) {
    planted_ = folder_ + "/" + fault().row().title() + "@" + fault().way.node;
    fault().way.what == What::restart ? on_restart() : on_rank();
    if (HasFatalFailure() || HasNonfatalFailure()) note("FAILED");
    if (!HasFatalFailure()) expect_nothing_left();
}

void FaultMatrix::TearDown() {
    std::remove(planted_.c_str());
    std::remove((planted_ + ".struck").c_str());
    std::remove((folder_ + "/wrapper:holds@" + target + ".struck").c_str());
    if (HasFailure()) table_[fault().line()][fault().kind].what = "FAILED";
    FaultJob::TearDown();
}

// What went wrong is not the next one's.
void FaultJob::TearDown() {
    if (!HasFailure()) return;
    if (job_) std::printf("%s\n", job().mpirun().err().c_str());
    job_.reset();
}

std::string name_of(const ::testing::TestParamInfo<Case>& info) {
    std::string out = info.param.line() + "_" + info.param.kind_name();
    std::erase(out, ')');
    std::ranges::replace_if(
        out, [](char c) { return std::isalnum(c) == 0; }, '_');
    return out;
}

INSTANTIATE_TEST_SUITE_P(Points, FaultMatrix, ::testing::ValuesIn(cases()), name_of);

// A node that is gone without a drain: whatever its processes and its network have still to say.
class LostNode : public FaultJob, public ::testing::WithParamInterface<bool> {};

TEST_P(LostNode, EndsTheJobInTime) {
    const bool cut = GetParam();
    ASSERT_NO_FATAL_FAILURE(bring_home());
    const std::string shots = path("snapshots");
    const Finished saved = lab().on("gn1", {"ghost", "checkpoint", "--to", shots});
    ASSERT_EQ(saved.status, 0) << saved.err;
    const int64_t began = now_ms();
    cut ? lab().cut(source) : lab().switch_off(source);
    const Finished end = job().finish(60);
    const int64_t took = now_ms() - began;
    EXPECT_LE(took, 15000) << end.err;
    EXPECT_EQ(end.status, 1) << end.err;  // and not that of the launcher (ssh), which ends as well
    EXPECT_EQ(nettest::count_of(end.err, "ghost: node gn2 is lost"), 1U) << end.err;
    EXPECT_NE(end.err.find("`ghost restart " + shots), std::string::npos) << end.err;
    std::printf("   %lld ms: %s\n", static_cast<long long>(took), end.err.c_str());
    job_.reset();
    lab().repair();
    if (cut) expect_nothing_left();
}

INSTANTIATE_TEST_SUITE_P(Ways, LostNode, ::testing::Bool(), [](const auto& info) {
    return std::string(info.param ? "CutOff" : "SwitchedOff");
});

// Each point is passed by something here.
TEST(FaultPoints, AllHaveAWay) {
    for (const auto& row : fault::points)
        EXPECT_TRUE(std::ranges::any_of(ways, [&](const Way& way) {
            return way.point == row.point;
        })) << row.title();
}

}  // namespace

int main(int argc, char** argv) {
    return nettest::run_suites(argc, argv);
}
