// SPDX-License-Identifier: BSD-3-Clause
// Cases: files, pipes, sockets.
#include <arpa/inet.h>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/process/matrix_subject.hpp"

namespace matrix {
namespace {

std::string read_text(int fd, size_t size) {
    std::string out(size, '\0');
    size_t got = 0;
    while (got < size) {
        const ssize_t n = read(fd, out.data() + got, size - got);
        if (n <= 0) break;
        got += static_cast<size_t>(n);
    }
    out.resize(got);
    return out;
}

bool write_text(int fd, const std::string& text) {
    return write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

Check open_files(const std::string& folder) {
    static const std::string path = folder + "/open_files.data";
    static const int both = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0644);
    need(write_text(both, "0123456789"), "write");
    need(lseek(both, 4, SEEK_SET) == 4, "seek");
    static const int reader = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    need(read_text(reader, 7) == "0123456", "read");
    static const int copy = dup(reader);
    static const int odd = fcntl(reader, F_DUPFD, 77);
    return []() -> std::string {
        if (read_text(both, 2) != "45") return "an offset is lost";
        if (read_text(copy, 1) != "7" || read_text(odd, 1) != "8" || read_text(reader, 1) != "9")
            return "copies of a descriptor do not share their offset";
        if ((fcntl(reader, F_GETFD) & FD_CLOEXEC) == 0 || (fcntl(copy, F_GETFD) & FD_CLOEXEC) != 0)
            return "close-on-exec differs";
        return write_text(reader, "x") ? "a descriptor can write" : "";
    };
}

Check append(const std::string& folder) {
    static const std::string path = folder + "/append.data";
    static const int log = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0644);
    need(write_text(log, "first "), "write");
    return []() -> std::string {
        if (lseek(log, 0, SEEK_SET) != 0 || !write_text(log, "second")) return "cannot write";
        const int fd = open(path.c_str(), O_RDONLY);
        return read_text(fd, 100) == "first second" ? "" : "it was not appended";
    };
}

// The file goes on growing after the ghost was made, as a log does whose writer lives on.
Check grown(const std::string& folder) {
    static const std::string path = folder + "/grown.data";
    static const int log = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    need(write_text(log, "first "), "write");
    return []() -> std::string {
        if (!write_text(log, "second")) return "cannot write";
        const int fd = open(path.c_str(), O_RDONLY);
        return read_text(fd, 100) == "first second of others" ? "" : "not written where it was";
    };
}

Check unlinked(const std::string& folder) {
    static const std::string path = folder + "/unlinked.data";
    static const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
    static const std::string text(300000, 'u');
    need(write_text(fd, text) && unlink(path.c_str()) == 0, "unlinked file");
    return []() -> std::string {
        struct stat info {};
        fstat(fd, &info);
        if (info.st_nlink != 0 || access(path.c_str(), F_OK) == 0) return "it has a name again";
        lseek(fd, 0, SEEK_SET);
        return read_text(fd, text.size()) == text ? "" : "its content differs";
    };
}

// Somebody else tries: 0 the lock is held, 1 it is free.
int lock_is_free(const std::string& path, bool whole) {
    const pid_t child = fork();
    if (child == 0) {
        const int fd = open(path.c_str(), O_RDWR);
        struct flock range {};
        range.l_type = F_WRLCK;
        range.l_len = 100;
        const int got = whole ? flock(fd, LOCK_EX | LOCK_NB) : fcntl(fd, F_SETLK, &range);
        _exit(got == 0 ? 1 : 0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WEXITSTATUS(status);
}

Check locks(const std::string& folder) {
    static const std::string one = folder + "/locks.one", two = folder + "/locks.two";
    static const int whole = open(one.c_str(), O_RDWR | O_CREAT, 0644);
    static const int part = open(two.c_str(), O_RDWR | O_CREAT, 0644);
    struct flock range {};
    range.l_type = F_WRLCK;
    range.l_len = 100;
    need(flock(whole, LOCK_EX) == 0 && fcntl(part, F_SETLK, &range) == 0, "lock");
    return []() -> std::string {
        if (lock_is_free(one, true) != 0) return "flock is lost";
        return lock_is_free(two, false) == 0 ? "" : "fcntl's lock is lost";
    };
}

Check pipes(const std::string& folder) {
    static int ends[2];
    static const std::string text(50000, 'p');
    need(pipe(ends) == 0 && write_text(ends[1], text), "pipe");
    static const std::string path = folder + "/pipes.fifo";
    unlink(path.c_str());
    need(mkfifo(path.c_str(), 0600) == 0, "mkfifo");
    static const int fifo = open(path.c_str(), O_RDWR);
    need(write_text(fifo, "in the fifo"), "write");
    return []() -> std::string {
        if (read_text(ends[0], text.size()) != text) return "what was in a pipe is lost";
        if (read_text(fifo, 11) != "in the fifo") return "what was in a fifo is lost";
        return write_text(ends[1], "more") && read_text(ends[0], 4) == "more" ? "" : "broken";
    };
}

Check unix_sockets(const std::string& folder) {
    static int stream[2], packets[2], datagrams[2], listener, late[2];
    need(socketpair(AF_UNIX, SOCK_STREAM, 0, stream) == 0 &&
             socketpair(AF_UNIX, SOCK_SEQPACKET, 0, packets) == 0 &&
             socketpair(AF_UNIX, SOCK_DGRAM, 0, datagrams) == 0,
         "socketpair");
    need(write_text(stream[0], "stream") && write_text(packets[0], "one") &&
             write_text(packets[0], "two") && write_text(datagrams[1], "gram"),
         "write");
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    const std::string path = folder + "/unix_sockets.sock";
    std::strncpy(name.sun_path, path.c_str(), sizeof name.sun_path - 1);
    unlink(path.c_str());
    listener = socket(AF_UNIX, SOCK_STREAM, 0);
    need(bind(listener, reinterpret_cast<sockaddr*>(&name), sizeof name) == 0 &&
             listen(listener, 5) == 0,
         "listen");
    late[0] = socket(AF_UNIX, SOCK_STREAM, 0);
    need(connect(late[0], reinterpret_cast<sockaddr*>(&name), sizeof name) == 0, "connect");
    late[1] = accept(listener, nullptr, nullptr);
    need(write_text(late[0], "late"), "write");
    return []() -> std::string {
        if (read_text(stream[1], 6) != "stream") return "stream";
        char buffer[16];
        if (read(packets[1], buffer, sizeof buffer) != 3 ||
            read(packets[1], buffer, sizeof buffer) != 3 || std::memcmp(buffer, "two", 3) != 0)
            return "packets lost their borders";
        if (read(datagrams[0], buffer, sizeof buffer) != 4) return "datagram";
        if (read_text(late[1], 4) != "late") return "a connection by name";
        return write_text(late[1], "back") && read_text(late[0], 4) == "back" ? "" : "broken";
    };
}

sockaddr_in loopback(uint16_t port) {
    sockaddr_in out{};
    out.sin_family = AF_INET;
    out.sin_port = htons(port);
    out.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return out;
}

int listen_anywhere(sockaddr_in& address) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t size = sizeof address;
    address = loopback(0);
    need(bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0 && listen(fd, 5) == 0 &&
             getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0,
         "listen");
    return fd;
}

Check tcp_listening(const std::string&) {
    static sockaddr_in address;
    static const int listener = listen_anywhere(address);
    return []() -> std::string {
        const int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
            return "nobody listens";
        const int other = accept(listener, nullptr, nullptr);
        return write_text(fd, "hello") && read_text(other, 5) == "hello" ? "" : "broken";
    };
}

Check tcp_inside(const std::string&) {
    static int ends[2];
    sockaddr_in address;
    const int listener = listen_anywhere(address);
    ends[0] = socket(AF_INET, SOCK_STREAM, 0);
    need(connect(ends[0], reinterpret_cast<sockaddr*>(&address), sizeof address) == 0, "connect");
    ends[1] = accept(listener, nullptr, nullptr);
    close(listener);
    need(write_text(ends[0], "under way"), "write");
    return []() -> std::string {
        if (read_text(ends[1], 9) != "under way") return "what was under way is lost";
        return write_text(ends[1], "back") && read_text(ends[0], 4) == "back" ? "" : "broken";
    };
}

Check udp(const std::string&) {
    static sockaddr_in address = loopback(0);
    static const int fd = socket(AF_INET, SOCK_DGRAM, 0);
    socklen_t size = sizeof address;
    need(bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
             getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0,
         "bind");
    return []() -> std::string {
        sockaddr_in now{};
        socklen_t length = sizeof now;
        getsockname(fd, reinterpret_cast<sockaddr*>(&now), &length);
        if (now.sin_port != address.sin_port) return "another port";
        if (sendto(fd, "gram", 4, 0, reinterpret_cast<sockaddr*>(&now), length) != 4)
            return "cannot send";
        return read_text(fd, 4) == "gram" ? "" : "nothing comes";
    };
}

Check folders(const std::string& folder) {
    static const std::string sub = folder + "/folders.sub";
    mkdir(sub.c_str(), 0755);
    need(chdir(sub.c_str()) == 0, "chdir");
    umask(027);
    static const int here = open(".", O_RDONLY | O_DIRECTORY);
    return []() -> std::string {
        char path[4096] = {};
        if (getcwd(path, sizeof path) == nullptr || sub != path) return "another folder";
        if (umask(0) != 027) return "another umask";
        return openat(here, "file", O_WRONLY | O_CREAT, 0600) >= 0 ? "" : "a folder's descriptor";
    };
}

Check watches(const std::string& folder) {
    static const std::string path = folder + "/watches.data";
    const int file = open(path.c_str(), O_RDWR | O_CREAT, 0644);
    close(file);
    static const int fd = inotify_init1(IN_NONBLOCK);
    need(inotify_add_watch(fd, path.c_str(), IN_MODIFY) >= 0, "inotify");
    return []() -> std::string {
        const int file = open(path.c_str(), O_RDWR);
        if (!write_text(file, "changed")) return "cannot write";
        char buffer[512];
        return read(fd, buffer, sizeof buffer) > 0 ? "" : "the watch is gone";
    };
}

// One that watches what neither the program's words nor its open files lead to.
Check far_watch(const std::string& folder) {
    static const std::string path = folder + "/far/away/watches.data";
    for (const auto* part : {"/far", "/far/away"}) mkdir((folder + part).c_str(), 0755);
    close(open(path.c_str(), O_RDWR | O_CREAT, 0644));
    static const int fd = inotify_init1(IN_NONBLOCK);
    need(inotify_add_watch(fd, path.c_str(), IN_MODIFY) >= 0, "inotify");
    return []() -> std::string {
        const int file = open(path.c_str(), O_RDWR);
        char buffer[512];
        if (!write_text(file, "changed")) return "cannot write";
        return read(fd, buffer, sizeof buffer) > 0 ? "" : "the watch is gone";
    };
}

// As a library that has been replaced: only its mapping is left of it.
Check removed_mapping(const std::string& folder) {
    constexpr size_t page = 4096;
    const std::string path = folder + "/mapping.data";
    const int file = open(path.c_str(), O_RDWR | O_CREAT, 0644);
    need(write_text(file, std::string(2 * page, 'm')), "write");
    static char* const at =
        static_cast<char*>(mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0));
    need(at != MAP_FAILED && unlink(path.c_str()) == 0 && close(file) == 0, "map");
    at[0] = 'w';
    return []() -> std::string {
        return at[0] == 'w' && at[1] == 'm' && at[page + 7] == 'm' ? "" : "its content";
    };
}

// Refused: the node's sshd is outside of the tree.
Check tcp_outside(const std::string&) {
    static const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = loopback(22);
    need(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0, "connect");
    return [] { return std::string(); };
}

Check device(const std::string&) {
    static const int fd = open("/dev/fuse", O_RDWR);
    need(fd >= 0, "open /dev/fuse");
    return [] { return std::string(); };
}

}  // namespace

const std::vector<Case> file_cases = {
    {"open_files", "open files: offsets, copies, close-on-exec", nullptr, open_files},
    {"append", "files opened for appending", nullptr, append},
    {"grown",
     "files written to, also when they have grown since (a restart of ranks takes that back)",
     nullptr, grown},
    {"unlinked", "files without a name any more, with their content", nullptr, unlinked},
    {"locks", "flock and fcntl locks, exclusive ones", nullptr, locks},
    {"pipes", "pipes and fifos with what is in them", nullptr, pipes},
    {"unix_sockets", "Unix sockets inside the tree", nullptr, unix_sockets},
    {"tcp_listening", "listening TCP sockets", nullptr, tcp_listening},
    {"tcp_inside", "TCP connections inside the tree", nullptr, tcp_inside},
    {"udp", "bound UDP sockets", nullptr, udp},
    {"folders", "working folder, descriptors of folders, umask", nullptr, folders},
    {"inotify", "inotify watches", nullptr, watches},
    {"far_watch", "those of what lies deep below the program's folders", nullptr, far_watch},
    {"removed_mapping", "mapped files that have been removed or replaced", nullptr,
     removed_mapping},
    {"tcp_outside", "TCP connections to the outside", "its other end is outside", tcp_outside},
    {"device", "devices", "it is a device of this node", device},
};

}  // namespace matrix
