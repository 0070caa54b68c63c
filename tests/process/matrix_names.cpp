// SPDX-License-Identifier: BSD-3-Clause
// Cases: files whose names are not what they were opened by, or are others elsewhere: removed files
// and folders, those below /proc.
#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <semaphore.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "tests/process/matrix_subject.hpp"

namespace matrix {
namespace {

constexpr size_t most_text = 4096;

std::string text_at(int fd, off_t at = 0) {
    std::string out(most_text, '\0');
    const ssize_t got = pread(fd, out.data(), out.size(), at);
    out.resize(got > 0 ? static_cast<size_t>(got) : 0);
    return out;
}

const std::string program = std::string(program_invocation_short_name) + "\n";

// The number of this process as /proc has it.
std::string number_in_proc() {
    std::array<char, 32> out{};
    return readlink("/proc/self", out.data(), out.size() - 1) > 0 ? out.data() : "";
}

// A child that lives as long as this process.
pid_t lasting_child() {
    int ends[2];
    need(pipe(ends) == 0, "pipe");
    const pid_t child = fork();
    need(child >= 0, "fork");
    if (child != 0) {
        close(ends[0]);
        return child;
    }
    close(ends[1]);
    char word = 0;
    _exit(read(ends[0], &word, 1) == 0 ? 0 : 1);
}

Check own_proc(const std::string&) {
    static const int first = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    static const int stat = fcntl(first, F_DUPFD_CLOEXEC, 77);
    static const int shared = dup(stat);
    static const int score = open("/proc/self/oom_score_adj", O_RDWR);
    static const int memory = open("/proc/self/mem", O_RDWR);
    static const int tasks = open("/proc/self/task", O_RDONLY | O_DIRECTORY);
    static const int leader = open("/proc/thread-self/comm", O_RDWR);
    static const int network = open("/proc/self/net/dev", O_RDONLY);
    static const int all = open("/proc", O_RDONLY | O_DIRECTORY);
    static const int load = open("/proc/loadavg", O_RDONLY);
    static volatile int value = 4711;
    need(stat == 77 && shared >= 0 && score >= 0 && memory >= 0 && tasks >= 0 && leader >= 0 &&
             network >= 0 && all >= 0 && load >= 0,
         "open");
    need(lseek(stat, 5, SEEK_SET) == 5, "seek");
    return []() -> std::string {
        if (lseek(shared, 0, SEEK_CUR) != 5) return "copies do not share their offset";
        if ((fcntl(stat, F_GETFD) & FD_CLOEXEC) == 0) return "close-on-exec is lost";
        const auto number = number_in_proc();
        if (text_at(stat).rfind(number + " (", 0) != 0) return "stat is " + text_at(stat);
        if (faccessat(tasks, number.c_str(), F_OK, 0) != 0) return "task is another's";
        if (write(score, "7", 1) != 1) return "oom_score_adj cannot be written";
        int found = 0;
        if (pread(memory, &found, sizeof found, reinterpret_cast<off_t>(&value)) != sizeof found ||
            found != 4711)
            return "mem is another's";
        if (text_at(leader) != program) return "a thread's comm is " + text_at(leader);
        if (text_at(network).find("lo:") == std::string::npos) return "net/dev cannot be read";
        if (faccessat(all, number.c_str(), F_OK, 0) != 0) return "/proc is another's";
        if (number != std::to_string(getpid())) return "getpid() says another number than /proc";
        return text_at(load).empty() ? "loadavg cannot be read" : "";
    };
}

// A process that watches its child, and the child its parent.
Check proc_of_tree(const std::string&) {
    static const auto before = number_in_proc();
    static const int mine = open("/proc/self/stat", O_RDONLY);
    int reply[2];
    need(pipe(reply) == 0, "pipe");
    static const pid_t child = fork();
    need(child >= 0, "fork");
    if (child == 0) {
        const auto its = number_in_proc();
        const int parents = open(("/proc/" + before + "/comm").c_str(), O_RDONLY);
        if (write(reply[1], its.c_str(), its.size() + 1) < 0) _exit(1);
        for (;;) {
            usleep(10000);
            if (parents >= 0 && getppid() == 1) _exit(0);
        }
    }
    std::array<char, 32> its{};
    need(read(reply[0], its.data(), its.size() - 1) > 0, "read");
    static const int folder =
        open((std::string("/proc/") + its.data()).c_str(), O_RDONLY | O_DIRECTORY);
    static const int comm = open((std::string("/proc/") + its.data() + "/comm").c_str(), O_RDONLY);
    need(folder >= 0 && comm >= 0 && mine >= 0, "open");
    return []() -> std::string {
        if (text_at(mine).rfind(number_in_proc() + " (", 0) != 0) return "its own is another's";
        if (text_at(comm) != program) return "the child's comm is " + text_at(comm);
        const int status = openat(folder, "status", O_RDONLY);
        const auto line = "\nPPid:\t" + number_in_proc() + "\n";
        return text_at(status).find(line) != std::string::npos ? "" : "the child's is another's";
    };
}

Check proc_folder(const std::string&) {
    need(chdir("/proc/self") == 0, "chdir");
    return []() -> std::string {
        const int fd = open("stat", O_RDONLY);
        return text_at(fd).rfind(number_in_proc() + " (", 0) == 0 ? "" : "another's folder";
    };
}

// Refused: criu opens files before there are other threads.
Check proc_of_thread(const std::string&) {
    static std::string path;
    int ready[2];
    need(pipe(ready) == 0, "pipe");
    std::thread([&ready] {
        static const int fd = open("/proc/thread-self/stat", O_RDONLY);
        if (write(ready[1], "y", fd >= 0 ? 1 : 0) == 1) pause();
    }).detach();
    char there = 0;
    need(read(ready[0], &there, 1) == 1, "open");
    return [] { return std::string(); };
}

// Refused: by its number on the node, in the node's /proc, which lies below the tree's.
Check proc_of_others(const std::string&) {
    need(umount2("/proc", MNT_DETACH) == 0, "umount");
    static const int fd = open("/proc/self/stat", O_RDONLY);
    need(mount("proc", "/proc", "proc", 0, nullptr) == 0, "mount");
    need(fd >= 0, "open");
    return [] { return std::string(); };
}

// Every tree has one.
Check proc_of_init(const std::string&) {
    static const int fd = open("/proc/1/comm", O_RDONLY);
    need(fd >= 0, "open");
    return [] { return std::string(text_at(fd).empty() ? "it is gone" : ""); };
}

// Refused.
Check proc_of_ended(const std::string&) {
    int reply[2];
    need(pipe(reply) == 0, "pipe");
    const pid_t child = fork();
    need(child >= 0, "fork");
    if (child == 0) {
        const auto its = number_in_proc();
        const bool said = write(reply[1], its.c_str(), its.size() + 1) > 0;
        pause();
        _exit(said ? 0 : 1);
    }
    std::array<char, 32> its{};
    need(read(reply[0], its.data(), its.size() - 1) > 0, "read");
    static const int fd = open((std::string("/proc/") + its.data() + "/stat").c_str(), O_RDONLY);
    need(fd >= 0 && kill(child, SIGKILL) == 0 && waitpid(child, nullptr, 0) == child, "kill");
    return [] { return std::string(); };
}

Check name_space_files(const std::string&) {
    static const int network = open("/proc/self/ns/net", O_RDONLY);
    need(network >= 0, "open");
    return []() -> std::string {
        struct stat held {
        }, own{};
        if (fstat(network, &held) != 0 || stat("/proc/self/ns/net", &own) != 0) return "no stat";
        return held.st_ino == own.st_ino ? "" : "another name space";
    };
}

Check removed_folder(const std::string& folder) {
    static const std::string above = folder + "/removed", path = above + "/sub";
    need(mkdir(above.c_str(), 0755) == 0 && mkdir(path.c_str(), 0750) == 0, "mkdir");
    static const int other = open(above.c_str(), O_RDONLY | O_DIRECTORY);
    need(chdir(path.c_str()) == 0 && rmdir(path.c_str()) == 0 && rmdir(above.c_str()) == 0 &&
             other >= 0,
         "remove");
    return []() -> std::string {
        std::array<char, PATH_MAX> name{};
        if (getcwd(name.data(), name.size()) != nullptr) return "the working folder is there again";
        if (open("file", O_WRONLY | O_CREAT, 0600) >= 0) return "a file could be made in it";
        struct stat info {};
        if (fstat(other, &info) != 0 || !S_ISDIR(info.st_mode)) return "the other one is none";
        return access(above.c_str(), F_OK) != 0 ? "" : "a folder has a name again";
    };
}

// Everything else that can be open without a name.
Check removed_others(const std::string& folder) {
    const std::string above = folder + "/removed_others", pipe_path = above + "/fifo";
    static const std::string inner = above + "/sub/file";
    need(mkdir(above.c_str(), 0755) == 0 && mkdir((above + "/sub").c_str(), 0755) == 0 &&
             mkfifo(pipe_path.c_str(), 0600) == 0,
         "mkdir");
    static const int fifo = open(pipe_path.c_str(), O_RDWR);
    static const int file = open(inner.c_str(), O_RDWR | O_CREAT, 0600);
    static const int again = open(inner.c_str(), O_RDONLY);
    static const int nameless = open(folder.c_str(), O_TMPFILE | O_RDWR, 0600);
    need(write(fifo, "pipe", 4) == 4 && write(file, "file", 4) == 4 &&
             write(nameless, "nameless", 8) == 8,
         "write");
    need(unlink(pipe_path.c_str()) == 0 && unlink(inner.c_str()) == 0 &&
             rmdir((above + "/sub").c_str()) == 0 && rmdir(above.c_str()) == 0,
         "remove");
    return []() -> std::string {
        std::array<char, 5> piped{};
        if (read(fifo, piped.data(), 4) != 4 || std::strcmp(piped.data(), "pipe") != 0)
            return "what was in a fifo is lost";
        if (text_at(file) != "file" || text_at(again) != "file") return "a file in a folder";
        if (pwrite(file, "F", 1, 0) != 1 || text_at(again) != "File") return "two files now";
        if (text_at(nameless) != "nameless") return "O_TMPFILE";
        return access(inner.c_str(), F_OK) != 0 ? "" : "it has a name again";
    };
}

// A name that is another file's now, while the first one has another.
Check name_taken(const std::string& folder) {
    static const std::string first = folder + "/name_taken.a", last = folder + "/name_taken.b";
    static const int fd = open(first.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
    need(write(fd, "first", 5) == 5 && rename(first.c_str(), last.c_str()) == 0 &&
             link(last.c_str(), first.c_str()) == 0,
         "link");
    static const int by_first = open(first.c_str(), O_RDONLY);
    need(unlink(first.c_str()) == 0, "unlink");
    static const int other = open(first.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
    static const int gone = open(first.c_str(), O_RDWR);
    need(write(other, "other", 5) == 5 && unlink(first.c_str()) == 0, "write");
    need(close(open(first.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600)) == 0, "create");
    return []() -> std::string {
        if (text_at(fd) != "first" || text_at(by_first) != "first") return "the linked one";
        if (text_at(other) != "other" || text_at(gone) != "other") return "the one without a name";
        struct stat named {
        }, held{};
        if (stat(last.c_str(), &named) != 0 || fstat(by_first, &held) != 0) return "no stat";
        if (named.st_ino != held.st_ino) return "it is another file";
        return stat(first.c_str(), &named) == 0 && named.st_size == 0 ? "" : "the newest one";
    };
}

// As whoever writes under one name and gives it another one when all is there.
Check other_name(const std::string& folder) {
    static const std::string first = folder + "/other_name.tmp", last = folder + "/other_name.data";
    static const int fd = open(first.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
    need(write(fd, "0123456789", 10) == 10, "write");
    static auto* const mapped =
        static_cast<char*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    need(mapped != MAP_FAILED && link(first.c_str(), last.c_str()) == 0 &&
             unlink(first.c_str()) == 0,
         "link");
    return []() -> std::string {
        struct stat held {
        }, named{};
        if (fstat(fd, &held) != 0 || stat(last.c_str(), &named) != 0) return "it has no name";
        if (held.st_ino != named.st_ino) return "it is another file";
        if (access(first.c_str(), F_OK) == 0) return "its first name is back";
        mapped[0] = 'x';
        return lseek(fd, 0, SEEK_CUR) == 10 && text_at(fd) == "x123456789" ? "" : "other content";
    };
}

// Refused: nothing says where its other name is.
Check name_elsewhere(const std::string& folder) {
    const std::string sub = folder + "/name_elsewhere.sub", path = folder + "/name_elsewhere.tmp";
    static const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
    need(mkdir(sub.c_str(), 0755) == 0 && link(path.c_str(), (sub + "/name").c_str()) == 0 &&
             unlink(path.c_str()) == 0 && fd >= 0,
         "link");
    return [] { return std::string(); };
}

Check named_semaphore(const std::string&) {
    sem_unlink("/ghost_matrix");  // of a run before
    static sem_t* const semaphore = sem_open("/ghost_matrix", O_CREAT | O_EXCL, 0600, 3);
    need(semaphore != SEM_FAILED, "sem_open");
    return [] { return std::string(); };
}

// Refused: an import needs some above it.
Check highest_descriptor(const std::string&) {
    rlimit limit{};
    need(getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit");
    limit.rlim_cur = limit.rlim_max;
    need(setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit");
    static const int fd = dup2(0, static_cast<int>(limit.rlim_max) - 1);
    need(fd >= 0, "dup2");
    return [] { return std::string(); };
}

// Above the limit that the importer has, but may raise.
Check high_descriptor(const std::string& folder) {
    rlimit limit{};
    need(getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit");
    limit.rlim_cur = limit.rlim_max;
    need(setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit");
    const auto path = folder + "/high_descriptor.data";
    static const int file = open(path.c_str(), O_RDWR | O_CREAT, 0600);
    static const int fd = fcntl(file, F_DUPFD, 12'345);
    need(fd == 12'345, "fcntl");
    return []() -> std::string { return write(fd, "x", 1) == 1 ? "" : "it is lost"; };
}

// More room than criu takes by itself, and holes stay holes. Only some of it is written.
Check large_removed(const std::string& folder) {
    constexpr off_t large = (off_t{1} << 30) + (64 << 20), step = 16 << 20, end = off_t{16} << 30;
    const auto path = folder + "/large_removed.data";
    static const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
    static std::string block(1 << 20, '\0');
    need(fd >= 0 && unlink(path.c_str()) == 0 && fallocate(fd, 0, 0, large) == 0, "open");
    for (off_t at = 0; at < large; at += step) {
        std::memcpy(block.data(), &at, sizeof at);
        need(pwrite(fd, block.data(), block.size(), at) == static_cast<ssize_t>(block.size()),
             "write");
    }
    need(pwrite(fd, "end", 3, end) == 3, "write");
    return []() -> std::string {
        struct stat info {};
        if (fstat(fd, &info) != 0 || info.st_size != end + 3) return "its size differs";
        if (info.st_blocks * 512 > large + step) return "its hole is filled";
        for (off_t at = 0; at < large; at += step) {
            off_t found = -1;
            if (pread(fd, &found, sizeof found, at) != sizeof found || found != at)
                return differs("a block", found, at);
        }
        return text_at(fd, end) == "end" ? "" : "its end differs";
    };
}

// A program that was built anew while it runs.
Check removed_program(const std::string& folder) {
    const auto path = folder + "/removed_program.exe";
    need(std::system(("cp /bin/sleep " + path).c_str()) == 0, "cp");
    static const pid_t child = fork();
    need(child >= 0, "fork");
    if (child == 0) {
        execl(path.c_str(), "sleep", "1000", nullptr);
        _exit(127);
    }
    std::array<char, PATH_MAX> exe{};
    const auto link = "/proc/self/task/" + number_in_proc() + "/children";
    std::string number;
    for (int i = 0; i < 1000 && path != exe.data(); i++) {
        usleep(10000);
        const int fd = open(link.c_str(), O_RDONLY);
        number = text_at(fd);
        close(fd);
        if (number.find(' ') != std::string::npos) number.resize(number.find(' '));
        exe.fill('\0');
        if (readlink(("/proc/" + number + "/exe").c_str(), exe.data(), exe.size() - 1) < 0)
            continue;
    }
    need(path == exe.data() && unlink(path.c_str()) == 0, "exec");
    return []() -> std::string {
        int status = 0;
        if (waitpid(child, &status, WNOHANG) != 0) return "it has ended";
        kill(child, SIGTERM);
        waitpid(child, &status, 0);
        return WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM ? "" : "it ended otherwise";
    };
}

int open_process(pid_t pid) {
    return static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
}

Check process_descriptors(const std::string&) {
    static const pid_t child = lasting_child();
    static const int its = open_process(child), own = open_process(getpid());
    need(its >= 0 && own >= 0, "pidfd_open");
    return []() -> std::string {
        if (syscall(SYS_pidfd_send_signal, own, 0, nullptr, 0) != 0) return "its own is lost";
        siginfo_t info{};
        if (syscall(SYS_pidfd_send_signal, its, SIGTERM, nullptr, 0) != 0)
            return "a child's is lost";
        return waitid(P_PID, static_cast<id_t>(child), &info, WEXITED) == 0 &&
                       info.si_status == SIGTERM
                   ? ""
                   : "it was of another process";
    };
}

}  // namespace

const std::vector<Case> name_cases = {
    {"own_proc", "its own files and folders below /proc", nullptr, own_proc},
    {"proc_of_tree", "those of other processes of the tree", nullptr, proc_of_tree},
    {"proc_folder", "a working folder below /proc", nullptr, proc_folder},
    {"proc_of_thread", "files below /proc of a thread other than the first",
     "is of a thread other than the first", proc_of_thread},
    {"proc_of_others", "files below /proc of a process outside the tree",
     "is of another /proc than the tree's own", proc_of_others},
    {"proc_of_init", "files below /proc/1, its own init", nullptr, proc_of_init},
    {"proc_of_ended", "files below /proc of a process that has ended", "which has ended",
     proc_of_ended},
    {"name_space_files", "descriptors of its name spaces", nullptr, name_space_files},
    {"removed_folder", "removed folders: working folder and descriptors", nullptr, removed_folder},
    {"removed_others", "removed fifos, files in removed folders, O_TMPFILE", nullptr,
     removed_others},
    {"name_taken", "removed files whose name is another file's now", nullptr, name_taken},
    {"other_name", "files whose first name is gone while another one in the folder remains",
     nullptr, other_name},
    {"name_elsewhere", "the same where the other name is in another folder",
     "has been removed, and its other name is not in the same folder", name_elsewhere},
    {"named_semaphore", "named POSIX semaphores", "import: /dev/shm/sem.ghost_matrix: is missing",
     named_semaphore},
    {"high_descriptor", "descriptors above the importer's soft limit", nullptr, high_descriptor},
    {"highest_descriptor", "descriptors up to the last one of the hard limit", "an import needs",
     highest_descriptor},
    {"large_removed", "files of more than 1 GiB without a name, their holes too", nullptr,
     large_removed},
    {"removed_program", "programs whose file has been removed", nullptr, removed_program},
    {"pidfd", "descriptors of processes of the tree", nullptr, process_descriptors},
};

}  // namespace matrix
