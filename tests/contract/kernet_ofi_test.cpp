// SPDX-License-Identifier: BSD-3-Clause
// What link `ofi` is to keep libfabric from doing to the program: ending it by SIGPIPE. libfabric
// wakes itself by plain writes to pairs of sockets, and a write to one that has been closed
// meanwhile raises the signal. That it comes cannot be brought about from outside; that it could
// not end the process can be looked at, in each of those writes.
#include <gtest/gtest.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <vector>

#include "base/pipe_signal.hpp"
#include "kernet-btl/link/ofi.hpp"
#include "tests/contract/kernet_ends.hpp"

namespace {

std::atomic<int> writes_of_libfabric{0}, without_block{0};

void look_at_write(const void* caller) {
    Dl_info where{};
    if (!dladdr(caller, &where) || !where.dli_fname || !strstr(where.dli_fname, "libfabric"))
        return;
    writes_of_libfabric++;
    sigset_t mask;
    pthread_sigmask(SIG_BLOCK, nullptr, &mask);
    if (sigismember(&mask, SIGPIPE) != 1) without_block++;
}

using namespace kernet_test;

TEST(KernetOfi, LibfabricWriteRaisesNoSigpipe) {
    if (auto usable = kernet::ofi_usable(); !usable) GTEST_SKIP() << usable.error().message();
    const int64_t messages = message_count(1000);
    EndpointConfig of_a = config_of(0, "ofi-pipe", false, true),
                   of_b = config_of(1, "ofi-pipe", false, true);
    of_a.links = of_b.links = "ofi";
    {
        Side a(of_a, messages), b(of_b, messages);
        const Location at_a = a.location(), at_b = b.location();
        a.begin(at_b);
        b.begin(at_a);
        std::mt19937 random(3);
        const int64_t end = ghost::monotonic_us() + limit_us * times_slower();
        for (int cuts = 0; !(a.done() && b.done()) && ghost::monotonic_us() < end; cuts++) {
            usleep(static_cast<unsigned>(times_slower()) * 10'000);
            if (cuts < 30) cut_links(random);
        }
        EXPECT_EQ(a.received(), messages);
        EXPECT_EQ(b.received(), messages);
        EXPECT_TRUE(a.went_by("ofi"));
        a.stop();
        b.stop();
    }
    EXPECT_GT(writes_of_libfabric.load(), 0);
    EXPECT_EQ(without_block.load(), 0);
}

// An end closes what libfabric has left of its connections, and nothing that is somebody else's.
TEST(KernetOfi, DuplicatedSocketsStayOpen) {
    if (auto usable = kernet::ofi_usable(); !usable) GTEST_SKIP() << usable.error().message();
    EndpointConfig of_a = config_of(0, "ofi-copies", false, true),
                   of_b = config_of(1, "ofi-copies", false, true);
    of_a.links = of_b.links = "ofi";
    Side a(of_a, 100), b(of_b, 100);
    until_both_have_all(a, b);
    std::vector<ghost::Fd> copies;
    for (int fd = 3; fd < copies_from; fd++) {
        sockaddr_storage peer;
        socklen_t size = sizeof peer;
        if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) != 0) continue;
        if (peer.ss_family == AF_UNIX) continue;
        copies.emplace_back(fcntl(fd, F_DUPFD_CLOEXEC, copies_from));
        ASSERT_TRUE(copies.back().valid());
    }
    EXPECT_GE(copies.size(), 2U);
    EXPECT_TRUE(a.went_by("ofi"));
    a.suspend();
    b.suspend();
    for (const ghost::Fd& copy : copies) EXPECT_NE(fcntl(copy.get(), F_GETFD), -1) << copy.get();
    a.stop();
    b.stop();
}

// Of a test's own process, whose end would be the test's.
TEST(PipeSignalBlock, WriteToClosedPipeIsAnError) {
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    close(ends[0]);
    {
        const ghost::PipeSignalBlock no_signal;
        EXPECT_EQ(::write(ends[1], "x", 1), -1);
        EXPECT_EQ(errno, EPIPE);
    }
    sigset_t pending, mask;
    sigpending(&pending);
    EXPECT_EQ(sigismember(&pending, SIGPIPE), 0);
    pthread_sigmask(SIG_BLOCK, nullptr, &mask);
    EXPECT_EQ(sigismember(&mask, SIGPIPE), 0);
    close(ends[1]);
}

TEST(PipeSignalBlock, PendingSignalStaysPending) {
    sigset_t pipe, before, pending;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, &before);
    raise(SIGPIPE);
    { const ghost::PipeSignalBlock no_signal; }
    sigpending(&pending);
    EXPECT_EQ(sigismember(&pending, SIGPIPE), 1);
    const timespec now{};
    EXPECT_EQ(sigtimedwait(&pipe, nullptr, &now), SIGPIPE);
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace

// Instead of the C library's, for the whole program.
extern "C" __attribute__((visibility("default"))) ssize_t write(int fd, const void* bytes,
                                                                size_t size) {
    static const auto next =
        reinterpret_cast<ssize_t (*)(int, const void*, size_t)>(dlsym(RTLD_NEXT, "write"));
    look_at_write(__builtin_return_address(0));
    return next(fd, bytes, size);
}
