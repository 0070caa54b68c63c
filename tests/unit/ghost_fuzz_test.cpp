// SPDX-License-Identifier: BSD-3-Clause
// Strangers at the listeners of ghosts; tests/fuzz/short_run.cpp is the short run of the targets.
#include <gtest/gtest.h>

#include <netinet/in.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

#include "base/fd.hpp"
#include "ghost-core/resource/network.hpp"
#include "tests/fuzz/mutator.hpp"

namespace ghost::fuzz {
namespace {

// A stranger who sends anything: the listener drops him and takes the next one.
TEST(FuzzHandshake, UnauthenticatedPeerIsDropped) {
    core::NetworkOptions options;
    options.operation_ms = 2000;
    auto listener = core::NetworkListener::listen("secret", options);
    ASSERT_TRUE(listener.ok());
    std::thread strangers([&] {
        Mutator mutator(first_seed());
        for (int i = 0; i < 40; i++) {
            const Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
            sockaddr_in to{};
            to.sin_family = AF_INET;
            to.sin_port = htons(static_cast<uint16_t>(listener->port()));
            to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
            if (connect(fd.get(), reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) continue;
            Bytes bytes(mutator.number(300));
            for (auto& byte : bytes) byte = static_cast<uint8_t>(mutator.number(256));
            if (send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) < 0) continue;
            shutdown(fd.get(), SHUT_WR);
        }
        auto good = core::NetworkResource::connect("127.0.0.1", listener->port(), listener->token(),
                                                   "secret", options);
        EXPECT_TRUE(good.ok());
    });
    auto accepted = listener->accept(20000);
    EXPECT_TRUE(accepted.ok());
    strangers.join();
}

}  // namespace
}  // namespace ghost::fuzz
