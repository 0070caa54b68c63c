// SPDX-License-Identifier: BSD-3-Clause
// Strangers at the listeners of ghosts; tests/fuzz/short_run.cpp is the short run of the targets.
#include <gtest/gtest.h>

#include <netinet/in.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

#include "base/fd.hpp"
#include "ghost-core/criu/protobuf.hpp"
#include "ghost-core/resource/network.hpp"
#include "tests/fuzz/mutator.hpp"
#include "tools/ghost_skeleton.hpp"

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

// An image of CRIU with one message.
std::string image_of(const std::string& message) {
    const auto size = static_cast<uint32_t>(message.size());
    return std::string(8, 'm') + std::string(reinterpret_cast<const char*>(&size), sizeof size) +
           message;
}

// What `ghost inspect` keeps of a ghost does not grow with what that unpacks to.
TEST(FuzzSkeleton, WhatIsKeptIsBounded) {
    tools::SkeletonFiles files;
    int file = 0;
    const auto add = [&](const std::string& name, const std::string& contents) {
        files.open(file, name);
        for (size_t at = 0; at < contents.size(); at += 1 << 20)
            files.data(file, std::string_view(contents).substr(at, 1 << 20));
        ++file;
    };
    const auto core = [](const std::string& comm) {
        return image_of(core::proto_text(3, core::proto_text(6, comm)));
    };
    std::string tree(8, 'm');
    for (const int pid : {1, 1, 1, 99})
        tree += image_of(core::proto_number(1, static_cast<uint64_t>(pid))).substr(8);
    add("pstree.img", tree);
    add("core-1.img", core(std::string(8 << 20, 'n')));
    const std::string filler(16 << 20, 'f');
    for (int pid = 2; pid < 12; ++pid) add("core-" + std::to_string(pid) + ".img", filler);
    add("core-99.img", core(std::string(1 << 20, 'l')));
    const auto processes = files.processes();
    ASSERT_EQ(processes.size(), 4U);
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(processes[i].name, std::string(15, 'n'));
    EXPECT_EQ(processes[3].name, "");  // nothing of it was kept
    EXPECT_EQ(files.sizes().at("core-11.img"), filler.size());
}

}  // namespace
}  // namespace ghost::fuzz
