// SPDX-License-Identifier: BSD-3-Clause
// Runs what blocks (criu, the network) on a thread of its own, so that the wrapper's loop goes on.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <variant>

#include "base/fd.hpp"
#include "pmix-plugin/protocol/node_wrapper.hpp"

namespace ghost::plugin {

// What a job says to the node agent; the first: nothing.
using Outgoing = std::variant<std::monostate, Ready, Connected, Sketched, Converged, Exported,
                              Checked, Held, Failed, SnapReady, Still, SnapCaptured, Written>;
// Its packet.
std::string encode(const Outgoing& message);
// The answer to a message that is for another kind of wrapper.
std::string not_for_this_wrapper(const schema::Received& message);

// One job at a time. Owned by the main thread, which calls everything but what the job does.
class Worker {
  public:
    Worker();
    ~Worker();
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

    // The job's result is the message to answer with. busy() must be false.
    void start(std::function<Outgoing()> job);
    bool busy() const { return thread_.joinable(); }
    // Readable when the job has ended, or has said something since the last heard().
    int fd() const { return done_.get(); }
    // What the job has said, one after the other; then nothing. When everything was heard and
    // ended() is true, call finish().
    std::optional<Outgoing> heard();
    bool ended() const { return ended_; }
    // Waits for the job's end and gives its answer.
    Outgoing finish();
    // Breaks the connection the job uses, or will say it uses: it fails soon. criu is never
    // killed, which would leave a tree in pieces.
    void interrupt();
    // Whether more was done since the last call; then both are set.
    bool progress(uint64_t& bytes, uint64_t& total);

    // From the job: a message of its own before its answer; how far it is; that something else was
    // done; which socket it works on (-1: none any more).
    void say(Outgoing message);
    void note(uint64_t bytes, uint64_t total);
    void gets_on() { steps_++; }
    void uses(int socket);

  private:
    std::thread thread_;
    Fd done_;
    Outgoing answer_;
    std::atomic<uint64_t> bytes_{0}, total_{0};
    std::atomic<uint64_t> steps_{0};
    uint64_t told_ = 0, told_steps_ = 0;
    std::atomic<bool> ended_{false};
    std::mutex mutex_;  // of those below
    std::deque<Outgoing> said_;
    int socket_ = -1;
    bool interrupted_ = false;
};

}  // namespace ghost::plugin
