// SPDX-License-Identifier: BSD-3-Clause
// Those who connect to a port and do not prove themselves, many at once.
#pragma once

#include <gtest/gtest.h>

#include <arpa/inet.h>
#include <cerrno>
#include <ctime>
#include <netinet/in.h>
#include <string>
#include <sys/resource.h>
#include <sys/socket.h>
#include <vector>

#include "base/fd.hpp"

class Strangers {
  public:
    explicit Strangers(uint16_t port, std::string host = "127.0.0.1")
        : port_(port), host_(std::move(host)) {
        rlimit limit{};
        getrlimit(RLIMIT_NOFILE, &limit);
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    // So many more, each of which says that. (One that says nothing is not even accepted.) As many
    // as can: with a port's queue full, the next ones are not waited for.
    void come(int count, const std::string& words) {
        for (int i = 0; i < count; i++) {
            ghost::Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
            sockaddr_in to{};
            to.sin_family = AF_INET;
            to.sin_port = htons(port_);
            inet_pton(AF_INET, host_.c_str(), &to.sin_addr);
            const timeval moment{0, 100'000};
            setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &moment, sizeof moment);
            if (connect(fd.get(), reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) continue;
            drip(fd, words);
            all_.push_back(std::move(fd));
        }
    }
    // Each one that is there says that.
    void say(const std::string& words) {
        for (const ghost::Fd& fd : all_) drip(fd, words);
    }
    size_t came() const { return all_.size(); }
    // With whom the other end has not hung up.
    int kept() {
        int count = 0;
        for (const ghost::Fd& fd : all_) {
            char said[256];
            ssize_t got = 1;
            while (got > 0) {
                got = recv(fd.get(), said, sizeof said, MSG_DONTWAIT);
                if (got > 0) heard_ += static_cast<size_t>(got);
            }
            count += got < 0 && errno == EAGAIN;
        }
        return count;
    }

    // Bytes that it has said so far, as kept() has found.
    size_t heard() const { return heard_; }

  private:
    static void drip(const ghost::Fd& fd, const std::string& words) {
        if (words.empty()) return;
        if (send(fd.get(), words.data(), words.size(), MSG_NOSIGNAL | MSG_DONTWAIT) < 0) return;
    }

    uint16_t port_;
    std::string host_;
    std::vector<ghost::Fd> all_;
    size_t heard_ = 0;
};

// Processor time of this process so far.
inline int64_t processor_us() {
    timespec t{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return int64_t{t.tv_sec} * 1'000'000 + t.tv_nsec / 1000;
}
