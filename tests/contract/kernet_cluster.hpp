// SPDX-License-Identifier: BSD-3-Clause
// Stream managers of a few nodes on this machine's loopback, as real kernetd processes.
#pragma once

#include <gtest/gtest.h>

#include <arpa/inet.h>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <map>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "base/fd.hpp"
#include "tests/free_port.h"

namespace kernettest {

inline uint16_t free_port() {
    const uint16_t port = ::free_port();
    EXPECT_NE(port, 0);
    return port;
}

class Cluster {
  public:
    explicit Cluster(int nodes, double grace = 1, std::string filters = {})
        : grace_(grace), filters_(std::move(filters)), pids_(static_cast<size_t>(nodes), -1) {
        char name[] = "/tmp/kernet-test.XXXXXX";
        folder_ = mkdtemp(name);
        std::ofstream list(folder_ + "/nodes");
        for (int i = 0; i < nodes; i++) list << name_of(i) << " 127.0.0.1 " << free_port() << "\n";
        std::ofstream(folder_ + "/secret") << std::string(64, 'd') << "\n";
        std::filesystem::permissions(folder_ + "/secret", std::filesystem::perms::owner_read);
        list.close();
        for (int i = 0; i < nodes; i++) launch(i);
        for (int i = 0; i < nodes; i++) await(i);
    }
    ~Cluster() {
        for (size_t i = 0; i < pids_.size(); i++) end(static_cast<int>(i), SIGTERM);
        std::filesystem::remove_all(folder_);
    }
    static std::string name_of(int node) { return std::string(1, static_cast<char>('a' + node)); }
    std::string address(int node) const {
        return fmt::format("@kernet-test/{}/{}", folder_, name_of(node));
    }
    void start(int node) {
        launch(node);
        await(node);
    }
    // -1: it was not running
    int end(int node, int signal) {
        pid_t& pid = pids_[static_cast<size_t>(node)];
        if (pid <= 0) return -1;
        int status = -1;
        kill(pid, signal);
        waitpid(pid, &status, 0);
        pid = -1;
        return status;
    }
    const std::string& folder() const { return folder_; }

  private:
    void launch(int node) {
        const char* program = std::getenv("KERNETD");
        const std::string path = program ? program : "kernet-btl/kernetd/kernetd";
        const std::vector<std::string> words{path,
                                             "--node",
                                             name_of(node),
                                             "--nodes",
                                             folder_ + "/nodes",
                                             "--secret",
                                             folder_ + "/secret",
                                             "--socket",
                                             address(node),
                                             "--interfaces",
                                             "lo",
                                             "--grace",
                                             fmt::format("{}", grace_),
                                             "--filters",
                                             filters_};
        int ends[2];
        ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
        const pid_t pid = fork();
        if (pid == 0) {
            dup2(ends[1], 1);
            std::vector<char*> argv;
            for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
            argv.push_back(nullptr);
            execv(path.c_str(), argv.data());
            _exit(127);
        }
        close(ends[1]);
        said_[node].reset(ends[0]);
        pids_[static_cast<size_t>(node)] = pid;
    }
    void await(int node) {
        pollfd fd{said_[node].get(), POLLIN, 0};
        ASSERT_EQ(poll(&fd, 1, 20'000), 1) << "kernetd does not get ready";
        char line[100];
        ASSERT_GT(read(fd.fd, line, sizeof line), 0) << "kernetd has ended";
    }
    double grace_;
    std::string filters_;
    std::string folder_;
    std::vector<pid_t> pids_;
    std::map<int, ghost::Fd> said_;
};

}  // namespace kernettest
