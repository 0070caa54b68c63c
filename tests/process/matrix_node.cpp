// SPDX-License-Identifier: BSD-3-Clause
// Cases: what belongs to the node, and stays there.
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/process/matrix_subject.hpp"

namespace matrix {
namespace {

// Places of syslog, nscd and D-Bus; of a file as nscd shares it, by the fields of its head.
constexpr const char* log_place = "/run/systemd/journal/dev-log";
constexpr const char* names_place = "/run/nscd/socket";
constexpr const char* bus_place = "/run/dbus/system_bus_socket";
constexpr const char* shared_place = "/run/nscd/passwd";
// One that users may not open: who connects to the second is handed it over.
constexpr const char* closed_place = "/run/nscd/group";
constexpr const char* hand_place = "/run/nscd/hand";
constexpr size_t shared_bytes = 1 << 20;
struct SharedHead {
    int32_t version = 2, header_size = 88, gc_cycle = 4, certainly_running = 1;
    uint64_t timestamp = 1'700'000'000;
    uint32_t unused[4] = {};
    uint64_t module = 211;
};

template <typename Use>
int with_socket(int type, const char* place, Use&& use) {
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    std::strncpy(name.sun_path, place, sizeof name.sun_path - 1);
    const int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    if (fd >= 0 && use(fd, reinterpret_cast<sockaddr*>(&name), sizeof name) == 0) return fd;
    close(fd);
    return -1;
}

int connected(int type, const char* place) {
    return with_socket(type, place, connect);
}

int bound(int type, const char* place) {
    const std::string path = place;
    for (auto at = path.find('/', 1); at != std::string::npos; at = path.find('/', at + 1))
        mkdir(path.substr(0, at).c_str(), 0755);
    const int fd = with_socket(type, place, bind);
    if (fd >= 0 && type == SOCK_STREAM) listen(fd, 100);
    return fd;
}

// What a client library sees of a service that has ended, and of the one that is here.
std::string connects_anew(int type, const char* place, int old) {
    if (send(old, "x", 1, MSG_NOSIGNAL) >= 0) return "the old connection still takes something";
    char byte = 0;
    if (type == SOCK_STREAM && errno != EPIPE) return "not the end of a connection";
    if (type == SOCK_STREAM && read(old, &byte, 1) != 0) return "no end of file";
    const int fresh = connected(type, place);
    return fresh >= 0 && send(fresh, "x", 1, MSG_NOSIGNAL) == 1 ? "" : "it cannot connect anew";
}

Check services(const std::string&) {
    static const int log = connected(SOCK_DGRAM, log_place);
    need(log >= 0 && send(log, "x", 1, 0) == 1, "connect to a log");
    static const int names = connected(SOCK_STREAM, names_place);
    char answer = 0;
    need(names >= 0 && read(names, &answer, 1) == 1, "ask a service");
    return []() -> std::string {
        if (auto wrong = connects_anew(SOCK_DGRAM, log_place, log); !wrong.empty())
            return "syslog: " + wrong;
        if (auto wrong = connects_anew(SOCK_STREAM, names_place, names); !wrong.empty())
            return "nscd: " + wrong;
        return {};
    };
}

// Its answer was there and had not been read: it comes before the end.
Check service_answer(const std::string&) {
    static const int names = connected(SOCK_STREAM, names_place);
    pollfd ready{names, POLLIN, 0};
    need(names >= 0 && poll(&ready, 1, -1) == 1, "ask a service");
    return []() -> std::string {
        char answer = 0;
        if (read(names, &answer, 1) != 1 || answer != 'a') return "the answer is lost";
        return connects_anew(SOCK_STREAM, names_place, names);
    };
}

Check service_copy(const std::string&) {
    static const int fd = open(shared_place, O_RDONLY);
    static const auto* head = static_cast<const volatile SharedHead*>(
        mmap(nullptr, shared_bytes, PROT_READ, MAP_SHARED, fd, 0));
    need(head != MAP_FAILED && head->certainly_running == 1, "map what a service shares");
    return []() -> std::string {
        struct stat info {};
        if (fstat(fd, &info) != 0 || info.st_size != shared_bytes) return "another size";
        if (info.st_nlink != 0) return "it is the file of the node";
        if (head->certainly_running != 0 || head->timestamp != 0 || head->gc_cycle % 2 == 0)
            return "it does not look old";
        return head->module == 211 ? "" : "its head is lost";
    };
}

void hand_over(int client, int file) {
    char byte = 'f';
    iovec data{&byte, 1};
    alignas(cmsghdr) char space[CMSG_SPACE(sizeof file)] = {};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = space;
    message.msg_controllen = sizeof space;
    cmsghdr* const head = CMSG_FIRSTHDR(&message);
    *head = {CMSG_LEN(sizeof file), SOL_SOCKET, SCM_RIGHTS};
    std::memcpy(CMSG_DATA(head), &file, sizeof file);
    sendmsg(client, &message, MSG_NOSIGNAL);
    close(client);
}

int handed_over() {
    const int from = connected(SOCK_STREAM, hand_place);
    char byte = 0;
    int file = -1;
    iovec data{&byte, 1};
    alignas(cmsghdr) char space[CMSG_SPACE(sizeof file)] = {};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = space;
    message.msg_controllen = sizeof space;
    if (recvmsg(from, &message, MSG_CMSG_CLOEXEC) == 1)
        if (const cmsghdr* const head = CMSG_FIRSTHDR(&message))
            std::memcpy(&file, CMSG_DATA(head), sizeof file);
    close(from);
    return file;
}

// As nscd does it.
Check service_copy_handed(const std::string&) {
    const int file = handed_over();
    static const auto* head = static_cast<const volatile SharedHead*>(
        mmap(nullptr, shared_bytes, PROT_READ, MAP_SHARED, file, 0));
    need(head != MAP_FAILED && head->certainly_running == 1, "map what a service hands over");
    close(file);
    return []() -> std::string {
        if (head->certainly_running != 0 || head->timestamp != 0 || head->gc_cycle % 2 == 0)
            return "it does not look old";
        return head->module == 211 ? "" : "its head is lost";
    };
}

Check service_bus(const std::string&) {
    static const int bus = connected(SOCK_STREAM, bus_place);
    need(bus >= 0, "connect to a bus");
    return []() -> std::string { return send(bus, "x", 1, MSG_NOSIGNAL) == 1 ? "" : "closed"; };
}

// Each has to be found by itself, so there are as many cases.
Check node_memory(const std::string&) {
    static const int memory = shmget(IPC_PRIVATE, 8192, 0600);
    static char* area = static_cast<char*>(shmat(memory, nullptr, 0));
    need(memory >= 0 && area != reinterpret_cast<char*>(-1), "shmat");
    shmctl(memory, IPC_RMID, nullptr);
    std::strcpy(area, "shared");
    return []() -> std::string { return std::strcmp(area, "shared") == 0 ? "" : "its content"; };
}

Check node_semaphores(const std::string&) {
    static const int set = semget(IPC_PRIVATE, 2, 0600);
    need(set >= 0 && semctl(set, 1, SETVAL, 7) == 0, "semget");
    return []() -> std::string {
        const int value = semctl(set, 1, GETVAL);
        semctl(set, 0, IPC_RMID);
        return differs("the value", value, 7);
    };
}

Check node_queue(const std::string&) {
    static const int queue = msgget(IPC_PRIVATE, 0600);
    const struct {
        long type = 1;
        char text[2] = "q";
    } message;
    need(queue >= 0 && msgsnd(queue, &message, sizeof message.text, 0) == 0, "msgget");
    return []() -> std::string { return msgctl(queue, IPC_RMID, nullptr) == 0 ? "" : "gone"; };
}

bool share(const char* place, mode_t mode) {
    const SharedHead head;
    const int file = open(place, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    const bool there = file >= 0 && ftruncate(file, shared_bytes) == 0 &&
                       write(file, &head, sizeof head) == sizeof head;
    close(file);
    return there;
}

}  // namespace

void serve() {
    umask(0);  // for all users, as the real ones
    std::array<pollfd, 4> all = {pollfd{bound(SOCK_DGRAM, log_place), POLLIN, 0},
                                 pollfd{bound(SOCK_STREAM, names_place), POLLIN, 0},
                                 pollfd{bound(SOCK_STREAM, bus_place), POLLIN, 0},
                                 pollfd{bound(SOCK_STREAM, hand_place), POLLIN, 0}};
    const bool there = share(shared_place, 0644) && share(closed_place, 0600);
    if (!there || std::ranges::any_of(all, [](const pollfd& one) { return one.fd < 0; })) _exit(1);
    const int file = open(closed_place, O_RDONLY | O_CLOEXEC);
    if (daemon(0, 0) != 0) _exit(1);
    char byte = 0;
    while (poll(all.data(), all.size(), -1) > 0) {
        if (all[0].revents != 0 && read(all[0].fd, &byte, 1) < 0) break;
        for (size_t i = 1; i < all.size(); i++)
            if (all[i].revents != 0) {
                const int client = accept(all[i].fd, nullptr, nullptr);
                if (&all[i] == &all.back())
                    hand_over(client, file);
                else if (client < 0 || send(client, "a", 1, MSG_NOSIGNAL) != 1)
                    close(client);
            }
    }
    _exit(1);
}

const std::vector<Case> node_cases = {
    {"services", "connections to services whose clients connect anew: they find them closed",
     nullptr, services},
    {"service_answer", "what such a service has answered and was not read", nullptr,
     service_answer},
    {"service_copy", "files that nscd and sssd share: an old copy, so that they are mapped anew",
     nullptr, service_copy},
    {"service_copy_handed",
     "the same where the program may not open them, but nscd has handed them over", nullptr,
     service_copy_handed},
    {"service_bus", "connections to other services", "its other end is D-Bus, a service",
     service_bus},
    {"node_memory", "System V shared memory of the node (of ranks, or `ghost run --share-ipc`)",
     "it belongs to the node", node_memory},
    {"node_semaphores", "System V semaphores of the node", "it belongs to the node",
     node_semaphores},
    {"node_queue", "System V message queues of the node", "it belongs to the node", node_queue},
};

}  // namespace matrix
