// SPDX-License-Identifier: BSD-3-Clause
// Control sockets carry texts and descriptors, and report a closed other end.
#include "base/control_socket.hpp"

#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/clock.hpp"

namespace ghost {
namespace {

TEST(ControlSocket, CarriesTextAndDescriptor) {
    auto pair = control_pair();
    ASSERT_TRUE(pair.ok());
    int pipe_ends[2];
    ASSERT_EQ(pipe(pipe_ends), 0);
    Fd reader(pipe_ends[0]), writer(pipe_ends[1]);
    ASSERT_TRUE(pair->first.send_text("{\"rank\": 3}", {writer.get()}).ok());
    auto message = pair->second.receive(1000);
    ASSERT_TRUE(message.ok());
    EXPECT_EQ(message->text, "{\"rank\": 3}");
    ASSERT_EQ(message->fds.size(), 1u);
    ASSERT_EQ(write(message->fds[0].get(), "x", 1), 1);
    char got = 0;
    ASSERT_EQ(read(reader.get(), &got, 1), 1);
    EXPECT_EQ(got, 'x');
}

TEST(ControlSocket, ClosedPeerIsPeerLost) {
    auto pair = control_pair();
    ASSERT_TRUE(pair.ok());
    pair->first.close();
    auto message = pair->second.receive(1000);
    ASSERT_FALSE(message.ok());
    EXPECT_EQ(message.error().code, Code::peer_lost);
}

TEST(ControlSocket, NothingInTimeIsTimeout) {
    auto pair = control_pair();
    ASSERT_TRUE(pair.ok());
    auto message = pair->second.receive(1);
    ASSERT_FALSE(message.ok());
    EXPECT_EQ(message.error().code, Code::timeout);
}

TEST(ControlSocket, PathIsPrivateAndRemoved) {
    std::string path = testing::TempDir() + "/ghost-control-" + std::to_string(getpid());
    {
        auto listener = ControlListener::listen(path);
        ASSERT_TRUE(listener.ok()) << listener.error().message();
        struct stat st {};
        ASSERT_EQ(stat(path.c_str(), &st), 0);
        EXPECT_EQ(st.st_mode & 0777, 0600u);
        auto client = ControlSocket::connect(path);
        ASSERT_TRUE(client.ok());
        auto server = listener->accept();
        ASSERT_TRUE(server.ok());
        ASSERT_TRUE(client->send_text("{}").ok());
        EXPECT_TRUE(server->receive(1000).ok());
    }
    struct stat st {};
    EXPECT_NE(stat(path.c_str(), &st), 0);
}

TEST(ControlSocket, MalformedPacketIsCorrupt) {
    auto pair = control_pair();
    ASSERT_TRUE(pair.ok());
    ASSERT_EQ(write(pair->first.fd(), "{not json", 9), 9);
    auto message = pair->second.receive(1000);
    ASSERT_FALSE(message.ok());
    EXPECT_EQ(message.error().code, Code::corrupt);
}

// Nobody accepts: connect(2) alone would wait for ever.
TEST(ControlSocket, FullBacklogIsBusyInTime) {
    const std::string address = "@ghost-control-full-" + std::to_string(getpid());
    auto listener = ControlListener::listen(address);
    ASSERT_TRUE(listener.ok());
    ASSERT_EQ(::listen(listener->fd(), 0), 0);
    auto first = ControlSocket::connect(address);
    ASSERT_TRUE(first.ok());
    const int64_t begin = monotonic_us();
    auto second = ControlSocket::connect(address);
    EXPECT_LT(monotonic_us() - begin, 5'000'000);
    ASSERT_FALSE(second.ok());
    EXPECT_EQ(second.error().code, Code::busy);
}

TEST(ControlSocket, PathMayBeLong) {
    std::string folder = testing::TempDir() + "/ghost-control-" + std::to_string(getpid());
    const std::string top = folder;
    for (int i = 0; i < 4; i++) folder += "/" + std::string(60, 'x');
    std::filesystem::create_directories(folder);
    {
        auto listener = ControlListener::listen(folder + "/ghost.sock");
        ASSERT_TRUE(listener.ok()) << listener.error().message();
        EXPECT_TRUE(std::filesystem::exists(folder + "/ghost.sock"));
        auto client = ControlSocket::connect(folder + "/ghost.sock");
        ASSERT_TRUE(client.ok()) << client.error().message();
        EXPECT_TRUE(listener->accept().ok());
    }
    EXPECT_FALSE(std::filesystem::exists(folder + "/ghost.sock"));
    std::filesystem::remove_all(top);
}

// A child of another user that has an abstract address until it is told to end.
class Squatter {
  public:
    explicit Squatter(const std::string& name) {
        int ready[2], end[2];
        if (pipe(ready) != 0 || pipe(end) != 0) return;
        pid_ = fork();
        if (pid_ == 0) {
            ::close(end[1]);
            if (setresgid(65534, 65534, 65534) != 0 || setresuid(65534, 65534, 65534) != 0)
                _exit(1);
            const auto taken = ControlListener::listen(name);
            const char said = taken.ok() ? 'y' : 'n';
            char none = 0;
            if (write(ready[1], &said, 1) == 1 && read(end[0], &none, 1) == 0) _exit(0);
            _exit(1);
        }
        ::close(ready[1]);
        ::close(end[0]);
        end_.reset(end[1]);
        char said = 0;
        taken_ = read(ready[0], &said, 1) == 1 && said == 'y';
        ::close(ready[0]);
    }
    ~Squatter() {
        end_.reset();
        if (pid_ > 0) waitpid(pid_, nullptr, 0);
    }
    bool taken() const { return taken_; }

  private:
    pid_t pid_ = 0;
    Fd end_;
    bool taken_ = false;
};

// They are closed on the way to the next one that is ours, and are a line of the log together.
TEST(ControlSocket, StrangersCostALine) {
    if (geteuid() != 0) GTEST_SKIP() << "needs root to be two users";
    const std::string log = testing::TempDir() + "/ghost-control-log-" + std::to_string(getpid());
    const std::string address = "@ghost-control-knocks-" + std::to_string(getpid());
    auto listener = ControlListener::listen(address);
    ASSERT_TRUE(listener.ok());
    const pid_t stranger = fork();
    if (stranger == 0) {
        if (setresgid(65534, 65534, 65534) != 0 || setresuid(65534, 65534, 65534) != 0) _exit(1);
        for (int i = 0; i < 50; i++) (void)ControlSocket::connect(address).ok();
        _exit(0);
    }
    int status = 0;
    waitpid(stranger, &status, 0);
    ASSERT_EQ(status, 0);
    auto client = ControlSocket::connect(address);
    ASSERT_TRUE(client.ok());
    ASSERT_EQ(setenv("GHOST_LOG", log.c_str(), 1), 0);
    auto server = listener->accept();
    EXPECT_EQ(listener->accept().error().code, Code::busy);
    unsetenv("GHOST_LOG");
    ASSERT_TRUE(server.ok()) << server.error().message();
    EXPECT_EQ(server->peer_pid(), getpid());
    std::ifstream file(log);
    std::string first, second;
    EXPECT_TRUE(std::getline(file, first));
    EXPECT_NE(first.find("another user"), std::string::npos) << first;
    EXPECT_FALSE(std::getline(file, second)) << second;
    std::filesystem::remove(log);
}

TEST(ControlSocket, StrangersNamesArePassedOver) {
    if (geteuid() != 0) GTEST_SKIP() << "needs root to be two users";
    const std::string folder = "@ghost-control-" + std::to_string(getpid()) + "/";
    const std::string address = folder + "a:b:c";
    auto listener = std::make_unique<Result<ControlListener>>(ControlListener::listen(address));
    ASSERT_TRUE(listener->ok());
    EXPECT_EQ(ControlListener::listen(address).error().code, Code::busy);  // our own
    listener.reset();
    Squatter squatter(folder + "a");
    ASSERT_TRUE(squatter.taken());
    EXPECT_EQ(ControlSocket::connect(address).error().code, Code::refused);
    listener = std::make_unique<Result<ControlListener>>(ControlListener::listen(address));
    ASSERT_TRUE(listener->ok()) << listener->error().message();
    auto client = ControlSocket::connect(address);
    EXPECT_TRUE(client.ok()) << client.error().message();
    EXPECT_TRUE((*listener)->accept().ok());
    EXPECT_EQ(ControlListener::listen(address).error().code, Code::busy);
}

}  // namespace
}  // namespace ghost
