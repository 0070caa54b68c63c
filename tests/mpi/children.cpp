// SPDX-License-Identifier: BSD-3-Clause
// children --how HOW [--seconds T] [--iterations N] [--until-file PATH]
//
// The ranks meet again and again; the last one has a child, made in one of the ways of HOW, that
// adds one to each number it is sent, or makes one each round and waits for its end:
//   fork        a copy of the rank that answers over pipes
//   exec        a program started by fork() and exec(), /bin/cat over pipes
//   posix_spawn the same by posix_spawn()
//   daemon      a copy of the rank that has left its session and its parent
//   popen       a shell that takes a line each round
//   system      system() each round
//   fork_exit   a copy of the rank each round, which ends by exit()
// Each rank looks each round whether /proc shows the processes as it knows them.
// Rank 0 prints a line a round and at the end "children: N rounds, E errors". Ends 1 on any error.
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <memory>
#include <spawn.h>
#include <sys/wait.h>
#include <utility>

#include "tests/mpi/common.hpp"

namespace {

int ended(pid_t pid) {
    int status = -1;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// Of /proc/PID/stat: PID, and the number of its parent; nothing if it is not there.
std::pair<pid_t, pid_t> shown(pid_t pid) {
    std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
    std::pair<pid_t, pid_t> out;
    std::string name, state;
    in >> out.first >> name >> state >> out.second;
    return out;
}

// Number of errors: this process by name, number and thread, its parent, what has been open since
// the first round.
int look_at_proc() {
    static const int status = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    char text[4096] = {};
    if (pread(status, text, sizeof text - 1, 0) <= 0) return 1;
    const auto* line = std::strstr(text, "\nPid:");
    char self[64] = {}, thread[64] = {};
    const bool good = readlink("/proc/self", self, sizeof self - 1) > 0 &&
                      readlink("/proc/thread-self", thread, sizeof thread - 1) > 0 &&
                      std::atoi(self) == getpid() &&
                      thread == std::to_string(getpid()) + "/task/" + std::to_string(gettid()) &&
                      shown(getpid()) == std::pair(getpid(), getppid()) &&
                      shown(getppid()).first == getppid() && line != nullptr &&
                      std::atoi(line + std::strlen("\nPid:")) == getpid();
    return good ? 0 : 1;
}

class Child {
  public:
    virtual ~Child() = default;
    // Number of errors.
    virtual int round(uint32_t number) = 0;
    virtual int end() { return 0; }
};

// A child at the other end of two pipes.
class Echo : public Child {
  public:
    explicit Echo(const std::string& how) : adds_(how == "fork" || how == "daemon") {
        int to[2], from[2];
        if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0) std::abort();
        if (how == "posix_spawn") {
            spawn(to[0], from[1]);
        } else {
            pid_ = fork();
            if (pid_ == 0) {
                close(to[1]);
                close(from[0]);
                be(how, to[0], from[1]);
            }
        }
        close(to[0]);
        close(from[1]);
        to_ = to[1];
        from_ = from[0];
        if (how == "daemon") errors_ += ended(std::exchange(pid_, -1)) == 0 ? 0 : 1;
    }
    int round(uint32_t number) override {
        uint32_t answer = 0;
        const bool done = write(to_, &number, sizeof number) == sizeof number &&
                          read(from_, &answer, sizeof answer) == sizeof answer;
        return done && answer == number + (adds_ ? 1 : 0) ? 0 : 1;
    }
    int end() override {
        close(to_);
        char none = 0;
        errors_ += read(from_, &none, 1) == 0 ? 0 : 1;
        if (pid_ > 0) errors_ += shown(pid_) == std::pair(pid_, getpid()) ? 0 : 1;
        if (pid_ > 0) errors_ += ended(pid_) == (adds_ ? 7 : 0) ? 0 : 1;
        return errors_;
    }

  private:
    [[noreturn]] static void be(const std::string& how, int in, int out) {
        if (how == "daemon") {
            setsid();
            if (fork() != 0) _exit(0);
        }
        if (how == "exec") {
            dup2(in, 0);
            dup2(out, 1);
            execl("/bin/cat", "cat", nullptr);
            _exit(1);
        }
        for (uint32_t number = 0; read(in, &number, sizeof number) == sizeof number;) {
            number++;
            if (write(out, &number, sizeof number) != sizeof number) _exit(8);
        }
        _exit(7);
    }
    void spawn(int in, int out) {
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, in, 0);
        posix_spawn_file_actions_adddup2(&actions, out, 1);
        char name[] = "cat";
        char* const words[] = {name, nullptr};
        if (posix_spawn(&pid_, "/bin/cat", &actions, nullptr, words, environ) != 0) std::abort();
        posix_spawn_file_actions_destroy(&actions);
    }

    const bool adds_;
    pid_t pid_ = -1;
    int to_ = -1, from_ = -1, errors_ = 0;
};

class Shell : public Child {
  public:
    Shell()
        : shell_(
              popen("n=0; while read word; do n=$((n + 1)); done; exit $((n > 0 ? 5 : 6))", "w")) {}
    int round(uint32_t number) override {
        return std::fprintf(shell_, "%u\n", number) > 0 && std::fflush(shell_) == 0 ? 0 : 1;
    }
    int end() override { return WEXITSTATUS(pclose(shell_)) == 5 ? 0 : 1; }

  private:
    FILE* shell_;
};

class EachRound : public Child {
  public:
    explicit EachRound(bool shell) : shell_(shell) {}
    int round(uint32_t number) override {
        const int status = static_cast<int>(number % 50);
        if (shell_) {
            const std::string command = "sleep 0.02; exit " + std::to_string(status);
            return WEXITSTATUS(std::system(command.c_str())) == status ? 0 : 1;
        }
        const pid_t pid = fork();
        if (pid == 0) {
            usleep(20000);
            std::exit(status);
        }
        return ended(pid) == status ? 0 : 1;
    }

  private:
    const bool shell_;
};

std::unique_ptr<Child> make(const std::string& how) {
    if (how == "popen") return std::make_unique<Shell>();
    if (how == "system" || how == "fork_exit") return std::make_unique<EachRound>(how == "system");
    return std::make_unique<Echo>(how);
}

}  // namespace

int main(int argc, char** argv) {
    mpitest::World world(&argc, &argv);
    mpitest::Options options(argc, argv);
    std::unique_ptr<Child> child;
    if (world.rank == world.size - 1) child = make(options.text("--how", "fork"));
    mpitest::Limit limit(options, 3);
    uint64_t errors = 0;
    uint32_t number = 0;
    while (world.agree(!limit.reached(number))) {
        errors += world.sum((child ? child->round(number) : 0) + look_at_proc());
        if (world.rank == 0) {
            std::printf("round %u: %llu errors\n", number, static_cast<unsigned long long>(errors));
            std::fflush(stdout);
        }
        usleep(10000);
        ++number;
    }
    errors += world.sum(child ? child->end() : 0);
    world.say_end("children", number, "rounds", errors);
    MPI_Finalize();
    return errors == 0 ? 0 : 1;
}
