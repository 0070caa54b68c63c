// SPDX-License-Identifier: BSD-3-Clause
// A tree {init, ghost_subject} in a PID name space of its own, as the tests start, move and ask it.
#pragma once

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <gtest/gtest.h>
#include <optional>
#include <poll.h>
#include <sched.h>
#include <string>
#include <thread>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/proc.hpp"
#include "ghost-core/engine/migration.hpp"
#include "ghost-core/resource/network.hpp"

namespace ghost::core::test {

struct Pipe {
    Fd out, in;  // read end, write end
};

inline Pipe make_pipe() {
    int ends[2] = {-1, -1};
    EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
    return {Fd(ends[0]), Fd(ends[1])};
}

inline std::string pipe_key(int fd) {
    struct stat info {};
    fstat(fd, &info);
    return fmt::format("pipe:[{}]", info.st_ino);
}

// A folder, on tmpfs unless another place is named, gone with the object.
class WorkFolder {
  public:
    explicit WorkFolder(const std::string& parent = "/dev/shm")
        : path_(parent + "/ghost-test.XXXXXX") {
        EXPECT_NE(mkdtemp(path_.data()), nullptr);
    }
    ~WorkFolder() { std::filesystem::remove_all(path_); }
    WorkFolder(const WorkFolder&) = delete;
    WorkFolder& operator=(const WorkFolder&) = delete;
    const std::string& path() const { return path_; }

  private:
    std::string path_;
};

inline std::string criu_program() {
    if (const char* path = std::getenv("GHOST_CRIU")) return path;
    if (access("criu/sbin/criu", X_OK) == 0)
        return std::filesystem::current_path() / "criu/sbin/criu";
    return "criu";
}

// Whether tasks live on, stopped, when this build of criu is killed while it works on them (a
// change in packaging/criu/patches, told by a text of it).
inline bool survives_kill(const std::string& program) {
    std::ifstream file(program);
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    return bytes.find("Can't settle task") != std::string::npos;
}

// Why trees cannot be dumped here; empty if they can.
inline std::string skip_reason() {
    if (geteuid() != 0) return "needs root";
    static const Status warm = [] {
        const WorkFolder folder;
        return warm_up({criu_program(), folder.path(), 20});
    }();
    return warm.ok() ? "" : warm.error().message();
}

inline std::string subject_program() {
    const char* folder = std::getenv("GHOST_TEST_PROGRAMS");
    return std::string(folder != nullptr ? folder : "tests/process") + "/ghost_subject";
}

// The resource of a migration within this process, both ends.
struct Connection {
    std::unique_ptr<NetworkResource> source, target;
};

inline Connection connect(const std::string& secret) {
    Connection out;
    auto listener = NetworkListener::listen(secret);
    EXPECT_TRUE(listener.ok());
    std::thread source([&] {
        auto made =
            NetworkResource::connect("127.0.0.1", listener->port(), listener->token(), secret);
        EXPECT_TRUE(made.ok()) << made.error().message();
        if (made) out.source = std::move(*made);
    });
    auto target = listener->accept(5000);
    source.join();
    EXPECT_TRUE(target.ok());
    if (target) out.target = std::move(*target);
    return out;
}

// Kills and reaps a tree of ours; root becomes 0. Nothing happens if it is 0 already.
inline void end_tree(pid_t& root) {
    if (root <= 0) return;
    kill(root, SIGKILL);
    while (waitpid(root, nullptr, 0) < 0 && errno == EINTR) {
    }
    root = 0;
}

// Owner of a running, stopped or held tree: killed and reaped at the end.
class Tree {
  public:
    Tree() = default;
    Tree(Tree&&) = default;
    ~Tree() { end(); }

    // The subject, once it is whole: its sessions, threads and descriptors are there.
    static std::unique_ptr<Tree> start(int megabytes) {
        // where a criu that is killed in a restore leaves the subject's file
        static const WorkFolder folder("/tmp");
        auto tree =
            start_program(subject_program(), {"init", std::to_string(megabytes), folder.path()});
        tree->healthy();
        return tree;
    }

    // Any program as the init; it may not even be loaded yet.
    static std::unique_ptr<Tree> start_program(const std::string& program,
                                               const std::vector<std::string>& words) {
        auto tree = std::make_unique<Tree>();
        Pipe in = make_pipe(), out = make_pipe();
        std::vector<char*> argv = {const_cast<char*>(program.c_str())};
        for (const auto& word : words) argv.push_back(const_cast<char*>(word.c_str()));
        argv.push_back(nullptr);
        const auto pid = static_cast<pid_t>(
            syscall(SYS_clone, SIGCHLD | CLONE_NEWPID, nullptr, nullptr, nullptr, 0L));
        if (pid == 0) {
            dup2(in.out.get(), 0);
            dup2(out.in.get(), 1);
            const int null = open("/dev/null", O_RDWR);
            dup2(null, 2);
            close_range(3, ~0U, 0);
            execv(argv[0], argv.data());
            _exit(127);
        }
        tree->root = pid;
        tree->stdin_ = std::move(in.in);
        tree->stdout_ = std::move(out.out);
        return tree;
    }

    std::vector<std::string> keys() const {
        return {pipe_key(stdin_.get()), pipe_key(stdout_.get())};
    }

    // The tree's own verdict: a growing number, or the error it found. Nothing: no answer in time.
    std::optional<std::string> ask(int timeout_ms = 5000, const std::string& what = "check\n") {
        if (write(stdin_.get(), what.data(), what.size()) != static_cast<ssize_t>(what.size()))
            return std::nullopt;
        return listen(timeout_ms);
    }
    std::optional<std::string> listen(int timeout_ms) {
        std::string line;
        const int64_t limit = monotonic_us() + timeout_ms * int64_t{1000};
        for (char byte = 0; monotonic_us() < limit;) {
            pollfd ready{stdout_.get(), POLLIN, 0};
            if (poll(&ready, 1, 10) <= 0) continue;
            if (read(stdout_.get(), &byte, 1) != 1) return std::nullopt;
            if (byte == '\n') return line;
            line += byte;
        }
        return std::nullopt;
    }

    // Its count of work done; fails the test if it is not whole.
    uint64_t healthy() {
        const auto answer = ask();
        if (!answer || !answer->starts_with("beats ")) {
            ADD_FAILURE() << "tree says: " << answer.value_or("nothing");
            return 0;
        }
        return std::stoull(answer->substr(6));
    }

    // New pipe ends for an import; the tree's ends are given back and closed by the caller.
    std::pair<Fd, Fd> plug() {
        Pipe in = make_pipe(), out = make_pipe();
        stdin_ = std::move(in.in);
        stdout_ = std::move(out.out);
        return {std::move(in.out), std::move(out.in)};
    }

    void end() { end_tree(root); }

    pid_t root = 0;

  private:
    Fd stdin_, stdout_;
};

// An export, checkpoint or live move of a tree, with the keys of its descriptors as metadata.
template <typename Request, typename AnyTree>
Request request_for(const AnyTree& tree, const WorkFolder& folder) {
    Request out;
    out.root = tree.root;
    out.externals = tree.keys();
    out.metadata = {{"keys", tree.keys()}};
    out.criu = {criu_program(), folder.path(), 20};
    return out;
}

// Makes the tree of such a ghost, which is held.
inline Result<HeldTree> hold_in(const WorkFolder& folder, Importer& importer, Tree& tree) {
    const auto keys = importer.metadata().at("keys").get<std::vector<std::string>>();
    auto [input, output] = tree.plug();
    auto held = importer.hold({criu_program(), folder.path(), 20},
                              {{input.get(), keys.at(0)}, {output.get(), keys.at(1)}});
    if (held) tree.root = held->root;
    return held;
}

// The criu that is a child of ours; 0: none.
inline pid_t our_criu() {
    for (const pid_t child : children_of(getpid())) {
        const auto status = read_status(fmt::format("/proc/{}", child));
        if (status && status->name == "criu") return child;
    }
    return 0;
}

// Kills criu with SIGKILL some time after it has appeared as a child of ours.
class CriuKiller {
  public:
    explicit CriuKiller(int after_us) : thread_([this, after_us] { run(after_us); }) {}
    ~CriuKiller() {
        done_ = true;
        thread_.join();
    }

  private:
    void run(int after_us) {
        while (!done_) {
            if (const pid_t criu = our_criu(); criu != 0) {
                usleep(static_cast<useconds_t>(after_us));
                kill(criu, SIGKILL);  // not reaped yet, or a stopped number: harmless
                return;
            }
            usleep(100);
        }
    }
    std::atomic<bool> done_ = false;
    std::thread thread_;
};

}  // namespace ghost::core::test
