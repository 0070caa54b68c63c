// SPDX-License-Identifier: BSD-3-Clause
// restless [--seconds T] [--iterations N] [--until-file PATH] [--dir DIR] [--seed S]
//
// Ranks that do what programs may do, at random: between messages that are checked each forks,
// starts programs, is suspended or traced by a child of its own, opens and removes files, maps and
// unmaps memory, and is late, so that the others wait for it anywhere in MPI. Rank 0 leaves the
// number of the round in DIR/round; at the end it prints "restless: N rounds, E errors". Ends 1 on
// any error.
#include <cerrno>
#include <deque>
#include <fcntl.h>
#include <random>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "tests/mpi/pattern.hpp"

namespace {

using Random = std::mt19937_64;

uint64_t below(Random& random, uint64_t limit) {
    return random() % limit;
}

// Children that sleep and end with a status that is looked at; four at most.
class Children {
  public:
    explicit Children(Random& random) : random_(random) {}

    // A copy of the rank, without exec.
    void fork_one() {
        const int status = static_cast<int>(below(random_, 100));
        const auto time = static_cast<useconds_t>(below(random_, 200000));
        const pid_t pid = fork();
        if (pid == 0) {
            usleep(time);
            _exit(status);
        }
        add(pid, status);
    }
    void exec_one() {
        const int status = static_cast<int>(below(random_, 100));
        const std::string command =
            "sleep 0." + std::to_string(below(random_, 3)) + "; exit " + std::to_string(status);
        char name[] = "sh", option[] = "-c";
        char* const words[] = {name, option, const_cast<char*>(command.c_str()), nullptr};
        pid_t pid = -1;
        if (posix_spawn(&pid, "/bin/sh", nullptr, nullptr, words, environ) != 0) pid = -1;
        add(pid, status);
    }
    // The child stops its parent, and lets it go on.
    void suspend_parent() {
        const auto time = static_cast<useconds_t>(1000 + below(random_, 60000));
        const pid_t pid = fork();
        if (pid == 0) {
            kill(getppid(), SIGSTOP);
            usleep(time);
            kill(getppid(), SIGCONT);
            _exit(0);
        }
        add(pid, 0);
    }
    // The child traces its parent for a while, as a debugger that was attached does.
    void trace_parent() {
        const auto time = static_cast<useconds_t>(1000 + below(random_, 60000));
        const pid_t pid = fork();
        if (pid == 0) {
            // criu may trace it just now: then it cannot, which is as good
            if (ptrace(PTRACE_SEIZE, getppid(), nullptr, nullptr) == 0) usleep(time);
            _exit(0);
        }
        add(pid, 0);
    }
    uint64_t wait_for_all() {
        while (!all_.empty()) wait_for_oldest();
        return errors_;
    }

  private:
    struct Child {
        pid_t pid;
        int status;
    };
    void add(pid_t pid, int status) {
        if (pid > 0)
            all_.push_back({pid, status});
        else
            errors_++;
        if (all_.size() > 4) wait_for_oldest();
    }
    void wait_for_oldest() {
        const Child child = all_.front();
        all_.pop_front();
        int status = -1;
        pid_t got = 0;
        while ((got = waitpid(child.pid, &status, 0)) < 0 && errno == EINTR) continue;
        if (got == child.pid && WIFEXITED(status) && WEXITSTATUS(status) == child.status) return;
        std::fprintf(stderr, "child %d: waitpid %d, status %#x, expected exit %d\n", child.pid, got,
                     static_cast<unsigned>(status), child.status);
        errors_++;
    }

    Random& random_;
    std::deque<Child> all_;
    uint64_t errors_ = 0;
};

// Files and mappings whose bytes are known, each checked when it goes.
class Things {
  public:
    Things(Random& random, std::string prefix) : random_(random), prefix_(std::move(prefix)) {}

    void make_file() {
        const uint64_t number = count_++;
        const std::string name = prefix_ + std::to_string(number);
        File file{open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600), name,
                  below(random_, 30000), number};
        std::vector<char> bytes(file.bytes);
        mpitest::fill(bytes.data(), bytes.size(), mpitest::mix(number));
        if (write(file.fd, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
            complain("write", file.name);
        if (below(random_, 2) == 0) remove(file);
        files_.push_back(file);
        if (files_.size() > 6) drop_file();
    }
    void rename_file() {
        if (files_.empty() || files_.back().name.empty()) return make_file();
        const std::string name = prefix_ + "renamed." + std::to_string(count_++);
        if (rename(files_.back().name.c_str(), name.c_str()) != 0) complain("rename", name);
        files_.back().name = name;
    }
    void remove_file() {
        if (files_.empty()) return make_file();
        remove(files_[below(random_, files_.size())]);
    }
    void map() {
        const size_t bytes = 4096 * (1 + below(random_, 200));
        void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED) return complain("mmap", "memory");
        const uint64_t number = count_++;
        mpitest::fill(at, bytes, mpitest::mix(number));
        maps_.push_back({at, bytes, number});
        if (maps_.size() > 6) unmap();
    }
    uint64_t drop_all() {
        while (!files_.empty()) drop_file();
        while (!maps_.empty()) unmap();
        return errors_;
    }

  private:
    struct File {
        int fd;
        std::string name;  // empty: removed
        uint64_t bytes, number;
    };
    struct Map {
        void* at;
        size_t bytes;
        uint64_t number;
    };
    void complain(const char* what, const std::string& name) {
        std::fprintf(stderr, "%s %s: %s\n", what, name.c_str(), std::strerror(errno));
        errors_++;
    }
    void remove(File& file) {
        if (!file.name.empty() && unlink(file.name.c_str()) != 0) complain("unlink", file.name);
        file.name.clear();
    }
    void drop_file() {
        File file = files_.front();
        files_.pop_front();
        std::vector<char> bytes(file.bytes + 1);
        const ssize_t got = pread(file.fd, bytes.data(), bytes.size(), 0);
        if (got != static_cast<ssize_t>(file.bytes) ||
            mpitest::wrong(bytes.data(), file.bytes, mpitest::mix(file.number)) != 0)
            complain("contents of", file.name);
        remove(file);
        close(file.fd);
    }
    void unmap() {
        const Map map = maps_.front();
        maps_.pop_front();
        if (mpitest::wrong(map.at, map.bytes, mpitest::mix(map.number)) != 0)
            complain("contents of", "memory");
        munmap(map.at, map.bytes);
    }

    Random& random_;
    const std::string prefix_;
    std::deque<File> files_;
    std::deque<Map> maps_;
    uint64_t count_ = 0, errors_ = 0;
};

void do_something(Random& random, Children& children, Things& things) {
    switch (below(random, 24)) {
        case 0:
            return children.fork_one();
        case 1:
            return children.exec_one();
        case 2:
            return children.suspend_parent();
        case 3:
            return children.trace_parent();
        case 4:
        case 5:
            return things.make_file();
        case 6:
            return things.rename_file();
        case 7:
            return things.remove_file();
        case 8:
        case 9:
            return things.map();
        case 10:
        case 11:
            usleep(static_cast<useconds_t>(below(random, 50000)));
            return;
        default:
            return;
    }
}

size_t say_something(const mpitest::Round& round) {
    using namespace mpitest;
    constexpr size_t (*steps[])(const Round&) = {
        blocking_exchange,   nonblocking_storm,  wildcard_fan_in,
        persistent_requests, derived_types,      late_receives,
        collectives,         vector_collectives, communicators};
    return steps[mix(round.number) % std::size(steps)](round);
}

void leave_number(const std::string& name, uint64_t number) {
    char text[32];
    const int length =
        std::snprintf(text, sizeof text, "%20llu\n", static_cast<unsigned long long>(number));
    const int fd = open(name.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || pwrite(fd, text, static_cast<size_t>(length), 0) != length)
        std::fprintf(stderr, "%s: %s\n", name.c_str(), std::strerror(errno));
    close(fd);
}

}  // namespace

int main(int argc, char** argv) {
    mpitest::World world(&argc, &argv);
    mpitest::Options options(argc, argv);
    const std::string folder = options.text("--dir", ".");
    Random random(mpitest::mix(static_cast<uint64_t>(options.number("--seed", 1))) +
                  static_cast<uint64_t>(world.rank));
    Children children(random);
    Things things(random, folder + "/of-rank-" + std::to_string(world.rank) + ".");
    mpitest::Limit limit(options, 30);
    uint64_t errors = 0, number = 0;
    while (world.agree(!limit.reached(number))) {
        do_something(random, children, things);
        errors += say_something({world, number, number % 8 == 0 ? size_t{1} << 20 : size_t{70000}});
        if (world.rank == 0) leave_number(folder + "/round", number);
        ++number;
    }
    errors += children.wait_for_all();
    errors += things.drop_all();
    world.say_end("restless", number, "rounds", world.sum(errors));
    MPI_Finalize();
    return errors == 0 ? 0 : 1;
}
