// SPDX-License-Identifier: BSD-3-Clause
// Two network namespaces with cables between them, on which frames can get lost without a word.
// They end with the process. Needs root.
#pragma once

#include <cstdlib>
#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <string>
#include <unistd.h>

#include "base/fd.hpp"

namespace kernet_test {

class Networks {
  public:
    // cables: of either kind of address, of which there is one at each end. Interfaces are cable0,
    // cable1, …
    explicit Networks(int cables = 1) : home_(this_network()) {
        for (ghost::Fd& network : networks_) {
            if (unshare(CLONE_NEWNET) == 0) network = this_network();
            if (!network || !run("ip link set lo up")) return;
        }
        ready_ = true;
        for (int cable = 0; cable < cables; cable++) ready_ = ready_ && lay(cable);
        enter(home_);
    }
    ~Networks() { enter(home_); }
    // False: namespaces or veth are not to be had here.
    bool ready() const { return ready_; }

    static std::string ip4(int cable, int which) {
        return fmt::format("10.9.{}.{}", 8 + cable, which + 1);
    }
    static std::string ip6(int cable, int which) {
        return fmt::format("fd09::{}:{}", 8 + cable, which + 1);
    }

    // What is made inside one of the two, threads included, lives there.
    template <typename Make>
    auto inside(int which, Make&& make) {
        enter(networks_[which]);
        auto made = make();
        enter(home_);
        return made;
    }
    // false: from now on every frame of that cable goes to a station that is not there.
    bool connect(bool on, int cable = 0) {
        bool done = true;
        for (int i = 0; i < 2; i++) {
            for (const std::string& to : {ip4(cable, 1 - i), ip6(cable, 1 - i)}) {
                const std::string command =
                    fmt::format("ip neigh replace {} lladdr {} nud permanent dev cable{}", to,
                                on ? station(cable, 1 - i) : station(cable, 7), cable);
                done = inside(i, [&] { return run(command); }) && done;
            }
        }
        return done;
    }

  private:
    static bool run(const std::string& command) { return std::system(command.c_str()) == 0; }
    static ghost::Fd this_network() {
        return ghost::Fd(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    }
    static std::string station(int cable, int which) {
        return fmt::format("02:00:00:00:{:02x}:{:02x}", cable, which + 1);
    }
    static bool enter(const ghost::Fd& network) { return setns(network.get(), CLONE_NEWNET) == 0; }

    bool lay(int cable) {
        const std::string other = fmt::format("/proc/{}/fd/{}", getpid(), networks_[0].get());
        bool laid = enter(networks_[1]) &&
                    run(fmt::format("ip link add cable{0} address {1} type veth peer name far "
                                    "address {2} && ip link set far netns {3} name cable{0}",
                                    cable, station(cable, 1), station(cable, 0), other));
        for (int i = 0; i < 2; i++) {
            laid = laid && enter(networks_[i]) &&
                   run(fmt::format("ip addr add {}/24 dev cable{}", ip4(cable, i), cable)) &&
                   run(fmt::format("ip addr add {}/112 dev cable{} nodad", ip6(cable, i), cable)) &&
                   run(fmt::format("ip link set cable{} up", cable));
        }
        return laid && connect(true, cable);
    }

    ghost::Fd home_;
    ghost::Fd networks_[2];
    bool ready_ = false;
};

}  // namespace kernet_test
