// SPDX-License-Identifier: BSD-3-Clause
// The stream manager of a daemon, on a thread of its own: what kernetd is elsewhere.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <sys/types.h>
#include <thread>
#include <vector>

#include "base/fd.hpp"
#include "kernet-btl/streams/channel.hpp"
#include "kernet-btl/streams/manager.hpp"

namespace ghost::plugin {

// Owned and called by the loop thread; manager and channel are the other thread's from start() to
// stop(). That one takes no signals and touches nothing of the runtime's.
class ManagerThread {
  public:
    ManagerThread() = default;
    ~ManagerThread() { stop(); }
    ManagerThread(const ManagerThread&) = delete;
    ManagerThread& operator=(const ManagerThread&) = delete;

    // Once. `processes` is where processes of this node have come to, `nodes` where other managers
    // do (net.nodes has all addresses).
    Status start(const kernet::ManagerConfig& config, const kernet::TcpChannelConfig& net,
                 ControlListener processes, std::vector<Fd> nodes);
    bool running() const { return thread_.joinable(); }
    // The node is no part of the job any more.
    void expel(int node);
    // Processes that are connected now, or have been a moment ago.
    std::vector<pid_t> processes() const;
    // Tells the others that this node leaves, and ends the thread. May be called twice.
    void stop();

  private:
    void work() noexcept;
    Status serve();
    void take_orders();

    std::unique_ptr<kernet::Manager> manager_;
    std::unique_ptr<kernet::TcpChannel> channel_;
    Fd bell_;
    std::thread thread_;
    std::atomic<bool> ending_{false};
    mutable std::mutex mutex_;  // of what follows
    std::deque<int> expelled_;
    std::vector<pid_t> processes_;
};

}  // namespace ghost::plugin
