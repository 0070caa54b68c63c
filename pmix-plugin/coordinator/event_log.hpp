// SPDX-License-Identifier: BSD-3-Clause
// The job's event log: what the operations and the coordinator tell of, each as one Event
// (events/event.hpp), written by a thread of its own (events/writer.hpp).
//
// It is told after the act: nothing of it stands between a rank's stop and its going on.
#pragma once

#include <deque>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "pmix-plugin/coordinator/settings.hpp"
#include "pmix-plugin/events/event.hpp"
#include "pmix-plugin/events/writer.hpp"
#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"

namespace ghost::plugin {

struct Continuation;
struct DrainResult;
struct Grow;
struct Leave;
struct Mend;
struct Move;
struct Request;
struct Restart;
struct SnapshotRun;

// Loop thread only; owned by the coordinator.
class EventLog {
  public:
    EventLog(CoordinatorRuntime& adapter, const CoordinatorSettings& settings)
        : adapter_(adapter), settings_(settings), writer_(settings.threads) {}

    // Ranks run: where they are.
    void started(uint64_t epoch);
    void rank_ended(RankId rank, int status);
    // mpirun ends. Later calls do nothing.
    void ended();

    // --- operations: each has begun to do something, and has come to its end ---
    void begun(const Move& move);
    void over(const Move& move);
    void begun(const SnapshotRun& run);
    void over(const SnapshotRun& run);
    void begun(const Grow& grow);
    void over(const Grow& grow);
    void begun(const Restart&) {}
    void over(const Restart& restart);
    void begun(const Leave&) {}
    void over(const Leave& leave);
    void begun(const Mend&) {}
    void over(const Mend&) {}
    void begun(const Continuation&) {}
    void over(const Continuation&) { add(make_event(EventKind::continued)); }

    // Snapshots are so far apart from now on, for each costs so much, and the mean time between
    // failures: µs.
    void interval(int64_t us, int64_t cost_us, int64_t mtbf_us);

    void asked(const Request& request);
    void cancelled(uint64_t id, const std::string& what);
    void draining(uint64_t id, const std::string& node, const std::vector<std::string>& to);
    void over(uint64_t id, const std::string& node, const DrainResult& result);
    // With these ranks.
    void node_lost(const std::string& node, const std::vector<RankId>& ranks);
    // By this signal; 0: it gave up. The job ends because of it.
    void rank_lost(RankId rank, const std::string& node, int signal);

  private:
    Event start_event() const;
    void add(const Event& event);
    void open_beside(const std::string& folder);
    void tell_ended();

    CoordinatorRuntime& adapter_;
    const CoordinatorSettings& settings_;
    EventWriter writer_;
    bool opened_ = false, ended_ = false;
    std::string beside_;               // folder of snapshots that has the log, too
    std::deque<std::string> waiting_;  // for that
    uint64_t epoch_ = 0;
    size_t bytes_ = 0;                               // since the file is this one
    std::set<RankId> told_;                          // of whose end is told, or just about to be
    std::map<int, std::vector<RankId>> just_ended_;  // by status
    std::optional<TimerId> gather_;
};

}  // namespace ghost::plugin
