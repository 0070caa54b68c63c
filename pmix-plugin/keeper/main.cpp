// SPDX-License-Identifier: BSD-3-Clause
// ghost-keeper DAEMON ADDRESS PORT LIMIT
//
// DAEMON is the process that starts it; mpirun listens at ADDRESS and PORT; LIMIT, in microseconds,
// is how long the daemon may be stopped, or mpirun's node silent. See keeper.hpp.
#include <arpa/inet.h>
#include <cstdio>
#include <cstdlib>
#include <unistd.h>

#include "base/log.hpp"
#include "base/addresses.hpp"
#include "pmix-plugin/keeper/keeper.hpp"

namespace {

bool parse(const char* address, int port, sockaddr_storage& out) {
    auto& four = reinterpret_cast<sockaddr_in&>(out);
    auto& six = reinterpret_cast<sockaddr_in6&>(out);
    const auto number = htons(static_cast<uint16_t>(port));
    if (inet_pton(AF_INET, address, &four.sin_addr) == 1) {
        out.ss_family = AF_INET;
        four.sin_port = number;
        return true;
    }
    out.ss_family = AF_INET6;
    six.sin6_port = number;
    return inet_pton(AF_INET6, address, &six.sin6_addr) == 1;
}

}  // namespace

int main(int argc, char** argv) {
    sockaddr_storage mpirun{};
    const pid_t daemon = argc == 5 ? std::atoi(argv[1]) : 0;
    const int64_t limit_us = argc == 5 ? std::atoll(argv[4]) : 0;
    if (daemon <= 0 || limit_us <= 0 || !parse(argv[2], std::atoi(argv[3]), mpirun)) {
        std::fprintf(stderr, "usage: ghost-keeper DAEMON ADDRESS PORT LIMIT\n");
        return 2;
    }
    ghost::log::setup("keeper on " + ghost::host_name(), ghost::log::level_from_environment());
    if (getppid() != daemon) return 0;  // it has ended meanwhile
    const auto kept = ghost::plugin::Keeper(daemon, mpirun, limit_us).run();
    if (!kept) ghost::log::error("{}", kept.error().message());
    return kept ? 0 : 1;
}
