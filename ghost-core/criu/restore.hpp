// SPDX-License-Identifier: BSD-3-Clause
// Makes a tree from a skeleton with criu, while its pages are filled in by others.
#pragma once

#include <functional>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/child.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "ghost-core/memory/userfault.hpp"
#include "ghost-core/criu/criu.hpp"
#include "ghost-core/criu/image_stream.hpp"
#include "ghost-core/criu/skeleton_store.hpp"

namespace ghost::core {

// What the threads of one import tell each other: the first failure, and that all pages are in.
// Any thread.
class ImportState {
  public:
    ImportState();
    void fail(Error error);
    void finish_pages();
    std::optional<Error> failure();
    bool pages_finished();
    int fd() const { return event_.get(); }  // readable after any of these

  private:
    std::mutex mutex_;
    Fd event_;
    std::optional<Error> failure_;
    bool pages_finished_ = false;
};

// What that clock shows (clock_gettime(2)).
int64_t now_ns(clockid_t clock);

// How far a tree's clocks are ahead of this machine's.
struct ClockShift {
    int64_t monotonic_ns = 0, boottime_ns = 0;
};

struct RestoreRequest {
    CriuSettings criu;
    std::vector<std::pair<int, std::string>> inherit;  // descriptor here, criu key
    // The tree's clocks show this at any time, instead of going on from the skeleton's.
    std::optional<ClockShift> clocks;
    pid_t plain_root = 0;  // number of the root of a tree without a PID name space of its own
    bool keep_userfaults = false;  // for userfaults()
    // Told the tree's first process, once, before criu has all it needs to make it.
    std::function<void(pid_t)> tells_root = {};
    // Called whenever criu has come on: it asks for another image, or has made another process.
    std::function<void()> gets_on = {};
};

// Owned and used by one thread, which becomes the parent of the tree.
class Restorer {
  public:
    Restorer(RestoreRequest request, SkeletonStore& skeleton, FaultServer& filler,
             ImportState& state);
    ~Restorer();
    Restorer(const Restorer&) = delete;
    Restorer& operator=(const Restorer&) = delete;

    // Starts criu, which then waits for the skeleton.
    Status start();
    // Serves criu and the memory until the tree exists and all pages are in (or state fails);
    // `tick` is called every few ms. Then every thread of the tree is stopped and the userfaultfds
    // are closed. The result is the tree's init, a child of this process. After an error nothing
    // is left.
    Result<pid_t> run(const std::function<void()>& tick);

    // After run(), if it was asked for: the userfaultfds of the processes by their inner pids, made
    // with all privileges; nothing is registered with them.
    std::map<int, Fd> userfaults() { return std::move(userfaults_); }

    int64_t tree_made_us() const { return tree_made_us_; }  // monotonic; when criu was through

  private:
    struct Transfer {
        Fd pipe;
        std::string_view rest;
    };

    Status turn();
    void step();
    void look_for_root();
    Status serve_request();
    Status answer_waiting();
    Status feed(Transfer& transfer);
    Status lazy_message();
    Status check_criu();
    void blame_criu(Status& status);
    Status check_limit();
    void clean_up();
    void let_memory_go(pid_t root);

    RestoreRequest request_;
    SkeletonStore& skeleton_;
    FaultServer& filler_;
    ImportState& state_;
    CriuSocket images_, lazy_;
    std::optional<Child> criu_;
    std::vector<pid_t> children_before_;
    std::string waiting_;  // name of the file criu waits for
    std::list<Transfer> transfers_;
    std::string clocks_, locks_;  // images that take the place of the skeleton's
    uint64_t progress_ = 0;
    uint64_t steps_ = 0;  // of criu
    int64_t deadline_ = 0;
    std::map<int, Fd> userfaults_;
    int64_t tree_made_us_ = 0;
};

// Waits until every thread of the tree is in state T; timeout otherwise.
Status wait_stopped(pid_t root, int64_t deadline_us);

// SIGKILL to the init of a tree, which ends all of it, and reaps it if it is a child of ours.
void kill_and_reap(pid_t root);

}  // namespace ghost::core
