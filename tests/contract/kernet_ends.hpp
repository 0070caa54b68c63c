// SPDX-License-Identifier: BSD-3-Clause
// Two ends of a stream as the suites of links and streams use them: endpoints with their agents and
// applications, in one process.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <poll.h>
#include <random>
#include <set>
#include <string>
#include <thread>

#include "base/clock.hpp"
#include "kernet-btl/wire/handshake.hpp"
#include "tests/contract/kernet_messages.hpp"

namespace kernet_test {

using kernet::Endpoint;
using kernet::EndpointConfig;
using kernet::Location;
using kernet::Stream;
using kernet::StreamHub;

inline constexpr int64_t limit_us = 240'000'000;  // without any progress

// Any number into one that looks random.
uint64_t mix(uint64_t x);
// GHOST_TEST_SLOWER, or 1.
int times_slower();
// GHOST_TEST_MESSAGES, or so many, or a million (GHOST_TEST_LONG); fewer where everything is
// slower, and then said.
int64_t message_count(int64_t usual);
// The message of that rank with that number; sizes from 0 to 1 MB, mostly small, so that many
// messages are affordable.
void fill(Stream::Message& message, uint32_t rank, uint64_t index);
EndpointConfig config_of(uint32_t rank, const std::string& job, bool shm, bool tcp,
                         const std::string& filters = "");
// HELLO of that rank to rank 0 of its job, the first one that is ever heard.
kernet::wire::Hello hello_of(const EndpointConfig& from);
// Copies of descriptors that are others' own have numbers from here on.
constexpr int copies_from = 512;
// Shuts some connected sockets of this process, as a broken network would.
void cut_links(std::mt19937& random);
// So many times rarer something happens to links of which the first named takes its time to be
// made: there must be time for one in between.
int rarer(const std::string& links);
// Descriptors, and 1000 for each shared mapping of ours, of this process.
int held();

// The most memory that this process has had since.
class MemoryPeak {
  public:
    MemoryPeak();
    // Bytes more than at first. 0 where it cannot be told: the kernel does not say, or a sanitizer
    // keeps what has been given back.
    size_t grown() const;

  private:
    size_t before_ = 0;  // 0: cannot be told
};

// Two ends hold no more than that, however many messages they exchange: what waits for a link, what
// is in one, and what has come and is not taken.
inline constexpr size_t most_memory = 128'000'000;

// One process's worth: an endpoint, the thread that serves it, the thread that sends and receives.
class Side {
  public:
    Side(const EndpointConfig& config, int64_t messages) : rank_(config.rank), messages_(messages) {
        auto made = Endpoint::create(config);
        if (!made) ADD_FAILURE() << made.error().message();
        endpoint_ = std::move(*made);
        hub_ = std::make_unique<StreamHub>(*endpoint_);
    }
    ~Side() { stop(); }

    Endpoint& endpoint() { return *endpoint_; }
    Location location() { return endpoint_->location(); }
    void begin(const Location& peer) {
        endpoint_->set_location(peer);
        agent_ = std::thread([this] { serve(); });
        application_ = std::thread([this] { run(); });
    }
    void stop() {
        give_up_ = true;
        endpoint_->open_gate();
        if (application_.joinable()) application_.join();
        ending_ = true;
        if (agent_.joinable()) agent_.join();
    }
    // Sends only so many for now, however quick it is.
    void hold_at(int64_t messages) { hold_ = messages; }
    bool done() const { return received_ == messages_ && sent_ == messages_; }
    int64_t received() const { return received_; }
    bool wrong() const { return wrong_; }
    // Whether messages went by that link at some time.
    bool went_by(const std::string& link) {
        std::lock_guard lock(names_mutex_);
        return names_.count(link) > 0;
    }

    // Moves: asks the agent's thread to suspend; then to wake up at `node` with `epoch`.
    void suspend() { order(1); }
    // Suspended: its job is restarted.
    void begin_life(const std::string& life) {
        auto begun = endpoint_->begin_life(life);
        if (!begun) ADD_FAILURE() << begun.error().message();
    }
    void wake(const std::string& node, uint64_t epoch, const Location& peer) {
        node_ = node;
        epoch_ = epoch;
        peer_ = peer;
        order(2);
    }

  private:
    void order(int what) {
        order_.store(what, std::memory_order_release);
        while (order_.load(std::memory_order_acquire) != 0) std::this_thread::yield();
    }
    void serve() {
        while (!ending_) {
            const int what = order_.load(std::memory_order_acquire);
            if (what == 1) {
                endpoint_->close_gate();
                endpoint_->suspend_all();
                EXPECT_EQ(endpoint_->service_fd(), -1);
            } else if (what == 2) {
                auto woken = endpoint_->wakeup_all(0, node_, epoch_, {peer_});
                if (!woken) ADD_FAILURE() << woken.error().message();
                endpoint_->open_gate();
            }
            if (what) order_.store(0, std::memory_order_release);
            pollfd fd{endpoint_->service_fd(), POLLIN, 0};
            poll(&fd, 1, 1);
            endpoint_->service();
        }
    }
    void note_link() {
        kernet::Gate::Holder inside(endpoint_->data().gate());
        const char* name = endpoint_->data().attach(1 - rank_).link_name();
        if (name == last_name_) return;
        last_name_ = name;
        std::lock_guard lock(names_mutex_);
        names_.insert(name);
    }
    void run() {
        Stream& stream = hub_->attach(1 - rank_);
        Stream::Message message, expected;
        while (!give_up_) {
            if (sent_ < std::min<int64_t>(messages_, hold_) && stream.backlog() < 2'000'000) {
                fill(message, rank_, static_cast<uint64_t>(sent_.load()));
                stream.send(std::move(message));
                sent_++;
            }
            note_link();
            if (hub_->progress() == 0 && sent_ == messages_) std::this_thread::yield();
            while (!wrong_ && stream.recv(message)) {
                fill(expected, 1 - rank_, static_cast<uint64_t>(received_.load()));
                if (message != expected) {
                    wrong_ = true;
                    ADD_FAILURE() << "message " << received_ << " of rank " << 1 - rank_
                                  << " is wrong: " << message.size() << " bytes, expected "
                                  << expected.size();
                }
                received_++;
            }
        }
    }

    uint32_t rank_;
    int64_t messages_;
    std::unique_ptr<Endpoint> endpoint_;
    std::unique_ptr<StreamHub> hub_;
    std::thread agent_, application_;
    std::atomic<bool> give_up_{false}, ending_{false}, wrong_{false};
    std::atomic<int64_t> sent_{0}, received_{0}, hold_{INT64_MAX};
    std::atomic<int> order_{0};
    std::string node_;
    uint64_t epoch_ = 0;
    Location peer_;
    const char* last_name_ = nullptr;  // the application's thread
    std::mutex names_mutex_;
    std::set<std::string> names_;
};

// Two that send each other everything, however long the machine takes for it.
class Exchange {
  public:
    Exchange(const Side& a, const Side& b) : a_(a), b_(b) {}
    // False: both have all, one has got something wrong, or nothing has come for limit_us.
    bool goes_on();

  private:
    const Side& a_;
    const Side& b_;
    int64_t received_ = -1, since_ = 0;
};

// Each sends the other everything, or nothing comes any more.
void until_both_have_all(Side& a, Side& b);

// An endpoint whose agent serves it and whose application enters it only when the test does.
class Idler {
  public:
    explicit Idler(const EndpointConfig& config) : side_(config) {
        agent_ = std::thread([this] {
            while (!ending_) {
                // waits without the mutex: whoever asks for it would never get it otherwise
                pollfd fd{side_.endpoint->service_fd(), POLLIN, 0};
                poll(&fd, 1, 1);
                std::lock_guard lock(mutex_);
                const int64_t begun = ghost::monotonic_us();
                side_.endpoint->service();
                served_ = begun;
            }
        });
    }
    ~Idler() {
        ending_ = true;
        agent_.join();
    }
    // Whether the agent has done all that was due at that time.
    bool served_since(int64_t us) const { return served_ >= us; }
    Location location() { return side_.endpoint->location(); }
    Endpoint& endpoint() { return *side_.endpoint; }
    StreamHub& hub() { return *side_.hub; }
    void move_to(const std::string& node, uint64_t epoch, const Location& peer) {
        std::lock_guard lock(mutex_);
        side_.endpoint->close_gate();
        side_.endpoint->suspend_all();
        auto woken = side_.endpoint->wakeup_all(0, node, epoch, {peer});
        if (!woken) ADD_FAILURE() << woken.error().message();
        side_.endpoint->open_gate();
    }

  private:
    struct Made {
        explicit Made(const EndpointConfig& config) {
            auto made = Endpoint::create(config);
            if (!made) ADD_FAILURE() << made.error().message();
            endpoint = std::move(*made);
            hub = std::make_unique<StreamHub>(*endpoint);
        }
        std::unique_ptr<Endpoint> endpoint;
        std::unique_ptr<StreamHub> hub;
    };
    Made side_;
    std::mutex mutex_;  // the agent's work
    std::atomic<bool> ending_{false};
    std::atomic<int64_t> served_{0};  // when the agent's last round began
    std::thread agent_;
};

}  // namespace kernet_test
