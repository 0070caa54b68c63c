// SPDX-License-Identifier: BSD-3-Clause
// A rank agent with a fake node agent, a fake data path and a fake PMIx client.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <mutex>
#include <optional>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/control_socket.hpp"
#include "kernet-btl/agent/agent.hpp"
#include "kernet-btl/agent/agent_ports.hpp"
#include "kernet-btl/agent/messages.hpp"
#include "tests/json_packet.hpp"

namespace agent_test {

using ghost::Code;
using ghost::ControlListener;
using ghost::ControlSocket;
using ghost::Fd;
using ghost::Json;
using ghost::make_error;

using kernet::FromRank;
using kernet::Location;
using kernet::Result;
using kernet::Status;

constexpr int limit_ms = 10000;

// What the agent did, in order; shared by the fakes.
class Journal {
  public:
    void add(std::string line) {
        std::lock_guard lock(mutex_);
        lines_.push_back(std::move(line));
        changed_.notify_all();
    }
    std::vector<std::string> lines() {
        std::lock_guard lock(mutex_);
        return lines_;
    }
    bool wait_for(const std::string& line, size_t count = 1) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, std::chrono::milliseconds(limit_ms), [&] {
            return static_cast<size_t>(std::count(lines_.begin(), lines_.end(), line)) >= count;
        });
    }
    size_t count(const std::string& line) {
        std::lock_guard lock(mutex_);
        return std::count(lines_.begin(), lines_.end(), line);
    }
    ptrdiff_t position(const std::string& line) {
        std::lock_guard lock(mutex_);
        return std::find(lines_.begin(), lines_.end(), line) - lines_.begin();
    }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<std::string> lines_;
};

struct Script {  // what the fakes answer; set before the step that needs it
    Journal journal;
    std::mutex mutex;
    std::optional<ghost::Error> gate_error;
    uint32_t gate_tag = 0;
    int attach_failures = 0;
    int wakeup_failures = 0;
    bool supported = true;
    bool stays = false;
    bool program = false;  // it uses ghost_mpi.h
    bool holds = false;    // by that
    std::function<void(uint32_t)> unknown_location;
    Fd service{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
};

class FakeProgram final : public kernet::ProgramPort {
  public:
    explicit FakeProgram(Script& script) : script_(script) {}
    bool begin_stop() override {
        std::lock_guard lock(script_.mutex);
        if (!script_.holds) script_.journal.add("program begin");
        return !script_.holds;
    }
    void before_stop() override { script_.journal.add("program before"); }
    void after_stop(bool elsewhere) override {
        script_.journal.add(elsewhere ? "program after, elsewhere" : "program after");
    }
    void end_stop() override { script_.journal.add("program end"); }

  private:
    Script& script_;
};

class FakeData final : public kernet::DataPort {
  public:
    explicit FakeData(Script& script) : script_(script) {
        here_.rank = 3;
        here_.node = 1;
        here_.node_name = "gn1";
        here_.attached = true;
        here_.unix_name = "@here";
    }
    Location location() const override { return here_; }
    int service_fd() const override { return here_.attached ? script_.service.get() : -1; }
    void service() override {
        eventfd_t n = 0;
        eventfd_read(script_.service.get(), &n);
        if (n >= 100) script_.unknown_location(static_cast<uint32_t>(n) - 100);
        script_.journal.add("service");
    }
    void close_gate() override { script_.journal.add("close_gate"); }
    void open_gate() override { script_.journal.add("open_gate"); }
    bool stays() const override { return script_.stays; }
    void suspend_all() override {
        here_.attached = false;
        script_.journal.add("suspend_all");
    }
    Status begin_life(const std::string& life) override {
        script_.journal.add("begin_life " + life);
        return {};
    }
    Status wakeup_all(int node, const std::string& name, uint64_t epoch,
                      const std::vector<Location>& peers) override {
        if (script_.wakeup_failures > 0) {
            --script_.wakeup_failures;
            return make_error(Code::io, "listen");
        }
        here_.node = node;
        here_.node_name = name;
        here_.epoch = epoch;
        here_.attached = true;
        script_.journal.add("wakeup_all " + name + " peers " + std::to_string(peers.size()));
        return {};
    }
    void set_location(const Location& l) override {
        script_.journal.add("location of " + std::to_string(l.rank) + " epoch " +
                            std::to_string(l.epoch));
    }
    void on_unknown_location(std::function<void(uint32_t)> handler) override {
        script_.unknown_location = std::move(handler);
    }

  private:
    Script& script_;
    Location here_;
};

class FakePmix final : public kernet::PmixPort {
  public:
    explicit FakePmix(Script& script) : script_(script) {}
    Status supported() override {
        if (script_.supported) return {};
        return make_error(Code::unsupported, "use the PMIx client", "libpmix 5.0.0");
    }
    Result<uint32_t> gate() override {
        script_.journal.add("pmix gate");
        std::lock_guard lock(script_.mutex);
        if (script_.gate_error) return *script_.gate_error;
        return script_.gate_tag;
    }
    Status ungate() override {
        script_.journal.add("pmix ungate");
        return {};
    }
    Status close() override {
        script_.journal.add("pmix close");
        return {};
    }
    Status attach(const std::string& uri, bool resend,
                  const std::function<void()>& meanwhile) override {
        meanwhile();
        script_.journal.add("pmix attach " + uri + (resend ? " resend" : ""));
        std::lock_guard lock(script_.mutex);
        if (script_.attach_failures > 0) {
            --script_.attach_failures;
            return make_error(Code::internal, "PMIx attach", uri);
        }
        return {};
    }
    Status recommit() override {
        script_.journal.add("pmix recommit");
        return {};
    }
    void forked() override {}

  private:
    Script& script_;
};

inline std::optional<FromRank> type_of(const Json& body) {
    return ghost::type_of<FromRank>(kernet::from_rank, body);
}

inline Location place(uint32_t rank, uint64_t epoch) {
    Location l;
    l.rank = rank;
    l.epoch = epoch;
    l.node = 2;
    l.node_name = "gn2";
    l.attached = true;
    l.unix_name = "@ghost/0/1/r" + std::to_string(rank);
    return l;
}

class AgentTest : public ::testing::Test {
  protected:
    void SetUp() override {
        static std::atomic<int> number{0};
        config_.job = "77";
        config_.rank = 3;
        config_.secret = std::string(64, 'a');
        config_.life = "11fe";
        config_.node_socket =
            "@ghost-agent-test/" + std::to_string(getpid()) + "/" + std::to_string(++number);
        config_.wait_slice_ms = 20;
        config_.silent_slices = 3;
        config_.gone_looks = 3;
        config_.connect_pause_ms = 5;
        config_.connect_limit_ms = 500;
        config_.reconnect_pause_ms = 20;
        open_node_agent();
    }

    // A gated agent opens, a suspended one gives up, and then it can stop.
    void TearDown() override {
        close_node_agent();
        agent_.reset();
    }

    void open_node_agent() {
        auto listener = ControlListener::listen(config_.node_socket);
        ASSERT_TRUE(listener.ok()) << listener.error().message();
        listener_ = std::move(*listener);
    }

    void close_node_agent() {
        control_.close();
        listener_.close();
    }

    void start_agent() {
        kernet::AgentPorts ports;
        ports.data = std::make_unique<FakeData>(script_);
        ports.pmix = std::make_unique<FakePmix>(script_);
        if (script_.program) ports.program = std::make_unique<FakeProgram>(script_);
        ports.give_up = [this](int status) {
            script_.journal.add("give up " + std::to_string(status));
        };
        auto agent = kernet::RankAgent::start(std::move(ports), config_);
        ASSERT_TRUE(agent.ok()) << agent.error().message();
        agent_ = std::move(*agent);
    }

    bool somebody_connects() {
        pollfd p{listener_.fd(), POLLIN, 0};
        return ::poll(&p, 1, limit_ms) == 1;
    }

    // Takes the agent's connection and returns its hello. One that has waited long for its signal
    // may have asked already, and be gone again.
    Json accept_hello() {
        while (somebody_connects()) {
            auto socket = listener_.accept();
            if (!socket) break;
            auto message = socket->receive(limit_ms);
            if (!message && message.error().code == Code::peer_lost) continue;
            control_ = std::move(*socket);
            EXPECT_TRUE(message.ok()) << message.error().message();
            return message ? body_of(*message) : Json::object();
        }
        return {};
    }

    Json receive() {
        auto message = control_.receive(limit_ms);
        EXPECT_TRUE(message.ok()) << message.error().message();
        return message ? body_of(*message) : Json::object();
    }

    void send(const Json& body) { ASSERT_TRUE(send_json(control_, body).ok()); }

    void start_attached() {
        start_agent();
        Json hello = accept_hello();
        ASSERT_EQ(type_of(hello), FromRank::hello);
        tid_ = hello.value("tid", 0);
        send({{"t", "welcome"},
              {"node", 1},
              {"node_name", "gn1"},
              {"life", "11fe"},
              {"epoch", 0},
              {"state", "started"},
              {"seq", 0},
              {"uri", ""},
              {"resend", false},
              {"peers", Json::array()}});
    }

    // Up to the end of file that means "ready".
    void suspend(int seq) {
        send({{"t", "gate"}, {"seq", seq}});
        Json gated = receive();
        ASSERT_EQ(gated.value("rc", -9), 0) << gated.dump();
        send({{"t", "close"}, {"seq", seq}});
        auto end = control_.receive(limit_ms);
        ASSERT_FALSE(end.ok());
        ASSERT_EQ(end.error().code, Code::peer_lost);
    }

    // Once more than it has opened until now.
    bool opens_within(int ms) {
        const size_t before = script_.journal.count("open_gate");
        const int64_t end = ghost::monotonic_us() + ms * 1000;
        while (script_.journal.count("open_gate") == before && ghost::monotonic_us() < end)
            usleep(1000);
        return script_.journal.count("open_gate") != before;
    }

    void wake() { ASSERT_EQ(syscall(SYS_tgkill, getpid(), tid_, SIGRTMAX - 2), 0); }

    Json welcome(int seq, const char* state, bool resend) {
        return {{"t", "welcome"},
                {"node", 2},
                {"node_name", "gn2"},
                {"life", "11fe"},
                {"epoch", 5},
                {"state", state},
                {"seq", seq},
                {"uri", "n.0;tcp4://127.0.0.1:1"},
                {"resend", resend},
                {"peers", Json::array({to_json(place(0, 4)), to_json(place(1, 4))})}};
    }

    Script script_;
    kernet::AgentConfig config_;
    ControlListener listener_;
    ControlSocket control_;
    std::unique_ptr<kernet::RankAgent> agent_;
    pid_t tid_ = 0;
};

}  // namespace agent_test
