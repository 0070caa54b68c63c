// SPDX-License-Identifier: BSD-3-Clause
// A small coordinator of our own, for the `ghost` command.
#pragma once

#include <filesystem>
#include <fmt/format.h>
#include <functional>
#include <gtest/gtest.h>
#include <mutex>
#include <poll.h>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#include "base/control_socket.hpp"
#include "pmix-plugin/protocol/client_coordinator.hpp"
#include "tests/json_packet.hpp"

namespace ghost::tools {

// A coordinator: answers `ps`, and hands every other request to `reply`; without one it closes
// whatever comes, as mpirun does at its end.
class FakeCoordinator {
  public:
    static constexpr int limit_ms = 10000;
    using Reply = std::function<void(const ControlSocket&, const Json&)>;

    FakeCoordinator(const std::string& folder, pid_t pid, std::string job, Reply reply = nullptr)
        : pid_(pid), job_(std::move(job)), reply_(std::move(reply)) {
        std::string path = fmt::format("{}/ompi.somewhere.{}/pid.{}", folder, ::geteuid(), pid);
        std::filesystem::create_directories(path);
        auto listener = ControlListener::listen(path + "/ghost.sock");
        EXPECT_TRUE(listener.ok()) << listener.error().message();
        listener_ = std::move(*listener);
        auto stop = control_pair();
        stop_here_ = std::move(stop->first);
        stop_there_ = std::move(stop->second);
        thread_ = std::thread([this] { serve(); });
    }
    ~FakeCoordinator() {
        stop_here_.close();
        thread_.join();
    }

    // From now on `ps` says this too, or in place of what it said.
    void say(const Json& more) {
        std::lock_guard lock(mutex_);
        more_.update(more);
    }
    std::vector<Json> requests() {
        std::lock_guard lock(mutex_);
        return requests_;
    }

  private:
    void serve() {
        for (;;) {
            pollfd p[2] = {{listener_.fd(), POLLIN, 0}, {stop_there_.fd(), POLLIN, 0}};
            ::poll(p, 2, -1);
            if (p[1].revents != 0) return;
            auto client = listener_.accept();
            if (client.ok()) talk(*client);
        }
    }
    void talk(const ControlSocket& client) {
        for (;;) {
            auto message = client.receive(limit_ms);
            if (!message.ok() || !reply_) return;
            const Json request = body_of(*message);
            if (type_of<plugin::ToCoordinator>(plugin::to_coordinator, request) ==
                plugin::ToCoordinator::ps) {
                (void)send_json(client, {{"t", "result"}, {"exit", 0}, {"result", info()}});
                continue;
            }
            {
                std::lock_guard lock(mutex_);
                requests_.push_back(request);
            }
            return reply_(client, request);
        }
    }

    Json info() {
        Json ranks = {{{"rank", 0}, {"node", "gn1"}, {"running", true}},
                      {{"rank", 1}, {"node", "gn2"}, {"running", true}}};
        Json nodes = {{{"name", "gn1"}, {"alive", true}}, {{"name", "gn2"}, {"alive", true}}};
        Json out = {{"job", job_}, {"pid", pid_},    {"running", true},
                    {"epoch", 4},  {"nodes", nodes}, {"ranks", ranks}};
        std::lock_guard lock(mutex_);
        out.update(more_);
        return out;
    }

    pid_t pid_;
    std::string job_;
    Reply reply_;
    ControlListener listener_;
    ControlSocket stop_here_, stop_there_;
    std::mutex mutex_;  // of the next two
    Json more_ = Json::object();
    std::vector<Json> requests_;
    std::thread thread_;
};

}  // namespace ghost::tools
