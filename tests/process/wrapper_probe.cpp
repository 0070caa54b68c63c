// SPDX-License-Identifier: BSD-3-Clause
// What the parity test runs as a rank: each word of the command line is one behaviour.
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <fstream>
#include <iostream>
#include <mpi.h>
#include <poll.h>
#include <sched.h>
#include <string>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>
#include <vector>

namespace {

[[noreturn]] void die(int s) {
    rlimit none{0, 0};
    setrlimit(RLIMIT_CORE, &none);
    std::signal(s, SIG_DFL);
    raise(s);
    _exit(99);
}

void print_descriptors() {
    DIR* dir = opendir("/proc/self/fd");
    while (dirent* e = readdir(dir)) {
        int fd = std::atoi(e->d_name);
        if (e->d_name[0] == '.' || fd == dirfd(dir)) continue;
        char target[256] = {};
        if (readlink(("/proc/self/fd/" + std::string(e->d_name)).c_str(), target, 255) < 0)
            continue;
        // "pipe:[4711]": what it is, without its number.
        const std::string kind = std::string(target).substr(0, std::string(target).find('['));
        std::printf("fd %d %.8s tty %d\n", fd, kind.c_str(), isatty(fd));
    }
    closedir(dir);
}

void print_terminal() {
    termios t{};
    if (tcgetattr(1, &t) != 0) return;
    std::printf("terminal %x %x %x %x\n", t.c_iflag, t.c_oflag, t.c_cflag, t.c_lflag);
    std::ifstream tty("/dev/tty");
    std::printf("controlling %d\n", tty.good());
}

void print_state() {
    print_descriptors();
    print_terminal();
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        if (line.starts_with("Sig") || line.starts_with("Shd") || line.starts_with("Cap") ||
            line.starts_with("Umask") || line.starts_with("Cpus_allowed:")) {
            if (!line.starts_with("SigQ")) std::printf("%s\n", line.c_str());
        }
    }
    std::ifstream limits("/proc/self/limits");
    std::cout << limits.rdbuf();
    char cwd[512];
    std::printf("directory %s\n", getcwd(cwd, sizeof cwd));
    std::printf("group leader %d nice %d\n", getpgrp() == getpid(), getpriority(PRIO_PROCESS, 0));
}

void interleave() {
    for (int i = 0; i < 200; ++i) {
        dprintf(1, "o%d ", i);
        dprintf(2, "e%d ", i);
    }
}

void flood(long size) {
    std::string line;
    for (int i = 0; i < 4096; ++i) line += static_cast<char>(i % 64 == 63 ? '\n' : 'a' + i % 26);
    for (long done = 0; done < size; done += 4096) {
        if (std::fwrite(line.data(), 1, line.size(), stdout) != line.size()) _exit(98);
    }
}

void say(int s) {
    std::string text = std::string("SIG") + sigabbrev_np(s) + "\n";
    if (write(1, text.data(), text.size()) < 0) _exit(98);
}

void wait_for_signals() {
    for (int s : {SIGUSR1, SIGUSR2, SIGCONT, SIGALRM}) std::signal(s, say);
    std::puts("ready");
    std::fflush(stdout);
    for (;;) pause();
}

volatile sig_atomic_t g_end = 0, g_woken = 0, g_pause = 0;

void on_signal(int s) {
    if (s == SIGUSR2) g_end = 1;
    if (s == SIGUSR1) g_pause = !g_pause;
    if (s == SIGRTMAX - 2) g_woken = 1;
}

// Counts, and keeps memory whose contents are checked at the end. Pauses after each burst of lines,
// and from one SIGUSR1 to the next.
int count(long burst) {
    for (int s : {SIGUSR1, SIGUSR2, SIGRTMAX - 2}) std::signal(s, on_signal);
    std::vector<uint32_t> memory(4 << 20);
    for (size_t i = 0; i < memory.size(); ++i) memory[i] = static_cast<uint32_t>(i * 2654435761u);
    std::printf("tty %d\n", isatty(1));
    for (int i = 0; g_end == 0; ++i) {
        std::printf("count %d\n", i);
        std::fflush(stdout);
        if (i % burst == 0) usleep(1000);
        if (g_pause == 0) continue;
        std::puts("resting");
        std::fflush(stdout);
        while (g_pause != 0 && g_end == 0) usleep(1000);
    }
    bool right = isatty(1) == 1;
    for (size_t i = 0; i < memory.size(); ++i) {
        right = right && memory[i] == static_cast<uint32_t>(i * 2654435761u);
    }
    std::printf("sum %s, %s\nend\n", right ? "right" : "WRONG", g_woken != 0 ? "woken" : "asleep");
    std::fflush(stdout);
    return 7;
}

// Counts like count(), into a file too, and every step changes a little of the memory: whoever goes
// on from a snapshot must find all three as they were then.
int steps(const char* path, long pause_us) {
    for (int s : {SIGUSR1, SIGUSR2, SIGRTMAX - 2}) std::signal(s, on_signal);
    constexpr size_t words = 4 << 20, stride = 1021;  // about a word of every page
    std::vector<uint32_t> memory(words);
    for (size_t i = 0; i < words; ++i) memory[i] = static_cast<uint32_t>(i * 2654435761u);
    FILE* file = std::fopen(path, "w");
    size_t at = 0, done = 0;
    for (; g_end == 0; ++done) {
        std::printf("count %zu\n", done);
        std::fflush(stdout);
        std::fprintf(file, "step %zu\n", done);
        std::fflush(file);
        for (int k = 0; k < 16; ++k, at = (at + stride) % words) ++memory[at];
        usleep(static_cast<useconds_t>(pause_us));
    }
    std::vector<uint32_t> hits(words);
    at = 0;
    for (size_t i = 0; i < done * 16; ++i, at = (at + stride) % words) ++hits[at];
    bool right = true;
    for (size_t i = 0; i < words; ++i) {
        right = right && memory[i] == static_cast<uint32_t>(i * 2654435761u) + hits[i];
    }
    std::fprintf(file, "end %zu\n", done);
    std::fclose(file);
    std::printf("sum %s, %s\nend\n", right ? "right" : "WRONG", g_woken != 0 ? "woken" : "asleep");
    std::fflush(stdout);
    return 7;
}

// Counts, and has files open that others write; ends with what is in them. After SIGUSR1 without
// them ("closed").
int reads(char** paths, const char* mode) {
    for (int s : {SIGUSR1, SIGUSR2, SIGRTMAX - 2}) std::signal(s, on_signal);
    std::vector<FILE*> files;
    for (; *paths != nullptr; ++paths) files.push_back(std::fopen(*paths, mode));
    for (int i = 0; g_end == 0; ++i) {
        if (g_pause != 0) {
            g_pause = 0;
            for (FILE* file : files) std::fclose(file);
            files.clear();
            std::puts("closed");
        }
        std::printf("count %d\n", i);
        std::fflush(stdout);
        usleep(1000);
    }
    for (FILE* file : files) {
        char text[64] = {};
        const size_t size = std::fread(text, 1, sizeof text - 1, file);
        std::printf("read %zu: %s\n", size, text);
    }
    std::printf("end\n");
    return 7;
}

// Gives back lines; after SIGUSR1 it reads no more until it was moved.
int echo() {
    struct sigaction action {};
    action.sa_handler = on_signal;
    for (int s : {SIGUSR1, SIGRTMAX - 2}) sigaction(s, &action, nullptr);
    std::string line;
    for (;;) {
        if (g_pause != 0) {
            g_pause = 0;
            dprintf(2, "pausing\n");
            while (g_woken == 0) usleep(1000);
        }
        char c = 0;
        pollfd p{0, POLLIN, 0};  // with a limit: the signal may come just before the wait
        if (poll(&p, 1, 20) <= 0) continue;
        ssize_t n = read(0, &c, 1);
        if (n == 0) return 0;
        if (n < 0) return 1;
        line += c;
        if (c != '\n') continue;
        dprintf(1, "got %s", line.c_str());
        line.clear();
    }
}

// Holds a connection that leads out of the rank: to the node agent, which the test is.
void hold_socket() {
    const char* name = std::getenv("GHOST_NODE_SOCKET");
    sockaddr_un sa{};
    sa.sun_family = AF_UNIX;
    size_t length = std::strlen(name);
    std::memcpy(sa.sun_path, name, length);
    sa.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    if (connect(fd, reinterpret_cast<sockaddr*>(&sa),
                static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length)) != 0) {
        _exit(97);
    }
    std::signal(SIGRTMAX - 2, on_signal);
    std::puts("ready");
    std::fflush(stdout);
    for (;;) pause();
}

int with_mpi(const std::string& what, int number) {
    MPI_Init(nullptr, nullptr);
    int rank = 0, sum = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (what == "mpi-abort") MPI_Abort(MPI_COMM_WORLD, number);
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    std::printf("rank %d of sum %d\n", rank, sum);
    MPI_Finalize();
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    std::string what = argc > 1 ? argv[1] : "";
    long number = argc > 2 ? std::atol(argv[2]) : 0;
    if (what == "exit") return static_cast<int>(number);
    if (what == "die") die(static_cast<int>(number));
    if (what == "state") print_state();
    if (what == "flood") flood(number);
    if (what == "interleave") interleave();
    if (what == "count") return count(number > 0 ? number : 50);
    if (what == "steps") return steps(argv[2], argc > 3 ? std::atol(argv[3]) : 1000);
    if (what == "reads") return reads(argv + 2, "r");
    if (what == "writes") return reads(argv + 2, "r+");
    if (what == "echo") return echo();
    if (what == "socket") hold_socket();
    if (what == "lines") std::cout << "one\ntwo" << std::flush, _exit(0);
    if (what == "signals") wait_for_signals();
    if (what == "ticks") {
        std::printf("%d\n", getpid());
        std::fflush(stdout);
        for (;;) usleep(10000);
    }
    if (what == "wait" || what == "stubborn") {
        if (what == "stubborn") std::signal(SIGTERM, SIG_IGN);
        std::puts("ready");
        std::fflush(stdout);
        for (;;) pause();
    }
    if (what.starts_with("mpi-")) return with_mpi(what, static_cast<int>(number));
    return 0;
}
