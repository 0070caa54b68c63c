// SPDX-License-Identifier: BSD-3-Clause
// The process that holds ghosts in a node's memory.
#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <filesystem>
#include <iterator>
#include <list>
#include <map>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/loop.hpp"
#include "base/own_file.hpp"
#include "ghost-core/engine/holder.hpp"

namespace ghost::core {
namespace {

constexpr size_t spares_kept = 2;
constexpr int clients_a_turn = 32;

uint64_t size_of(const Fd& fd) {
    struct stat info {};
    return fstat(fd.get(), &info) == 0 ? static_cast<uint64_t>(info.st_size) : 0;
}

using schema::Complaint;
using schema::encode;

struct Held {
    std::string name;
    uint64_t bytes = 0;
    MemoryBuffer::Layout layout;
    schema::Raw about;
    Fd memory;
};

class Server {
  public:
    explicit Server(ControlListener listener) : listener_(std::move(listener)) {}
    Status run();

  private:
    struct Client {
        ControlSocket socket;
        schema::Reader reader{to_holder, "a client of the holder"};
        Loop::Watch watch = {};
    };
    struct Answer {
        template <typename T>
        Answer(const T& message, int memory = -1)  // NOLINT: implicit
            : text(encode(message)), fd(memory) {}
        std::string text;
        int fd;
    };
    void wait();
    void look();
    void let_in();
    bool serve(uint64_t id, Client& client);
    void ready(uint64_t id);
    Answer answer(const schema::Received& request, std::vector<Fd>& fds);
    Answer spare(uint64_t bytes);
    Answer keep(const KeepGhost& request, std::vector<Fd>& fds);
    Answer get(const std::string& name);
    Answer list() const;
    Answer drop(const std::string& name);
    Answer stop();
    void give_up(std::list<Held>::iterator held);
    std::list<Held>::iterator find(const std::string& name);

    Loop loop_;
    ControlListener listener_;
    Loop::Watch come_, time_;
    std::map<uint64_t, Client> clients_;
    uint64_t last_id_ = 0;
    std::list<Held> ghosts_;  // the newest first
    std::list<Fd> spares_;
    Fd lent_;  // a spare that is being sent
};

Status Server::run() {
    wait();
    return loop_.run();
}

// For the next one, unless nobody is let in, and for the time at which that or somebody's changes.
void Server::wait() {
    const int64_t now = monotonic_us(), wakes = listener_.door().wakes_at(now);
    const bool open = listener_.door().is_open(now);
    if (!open) come_.reset();
    if (open && !come_) come_ = loop_.on_readable(listener_.fd(), [this] { let_in(); });
    time_.reset();
    if (wakes != 0) time_ = loop_.after(std::max<int64_t>(wakes - now, 0), [this] { look(); });
}

void Server::let_in() {
    for (int i = 0; i < clients_a_turn; i++) {
        auto socket = listener_.accept();
        if (!socket) break;
        const uint64_t id = ++last_id_;
        if (const auto out = listener_.door().enter(id, {}, monotonic_us())) clients_.erase(*out);
        Client& client = clients_[id];
        client.socket = std::move(*socket);
        client.watch = loop_.on_readable(client.socket.fd(), [this, id] { ready(id); });
        ready(id);  // who spoke at once is done with at once
    }
    wait();
}

void Server::ready(uint64_t id) {
    if (serve(id, clients_.at(id))) return;
    listener_.door().leave(id);
    clients_.erase(id);
    wait();
}

void Server::look() {
    for (const uint64_t id : listener_.door().late(monotonic_us())) {
        listener_.door().leave(id);
        clients_.erase(id);
    }
    wait();
}

bool Server::serve(uint64_t id, Client& client) {
    auto packet = client.socket.receive(0);
    if (!packet) return packet.error().code == Code::timeout;
    std::string complaint;
    const auto request = client.reader.read(packet->text, complaint);
    if (!request) return complaint.empty() || client.socket.send_text(complaint).ok();
    listener_.door().leave(id);
    const Answer reply = answer(*request, packet->fds);
    const auto fds = reply.fd >= 0 ? std::vector<int>{reply.fd} : std::vector<int>{};
    const bool sent = client.socket.send_text(reply.text, fds).ok();
    lent_.reset();
    return sent;
}

Server::Answer Server::answer(const schema::Received& request, std::vector<Fd>& fds) {
    switch (request.type<ToHolder>()) {
        case ToHolder::spare:
            return spare(request.as<AskSpare>().bytes);
        case ToHolder::keep:
            return keep(request.as<KeepGhost>(), fds);
        case ToHolder::get:
            return get(request.as<GetGhost>().name);
        case ToHolder::list:
            return list();
        case ToHolder::drop:
            return drop(request.as<DropGhost>().name);
        case ToHolder::stop:
            return stop();
    }
    return Complaint{"a bug: a request without an answer"};
}

Server::Answer Server::stop() {
    loop_.stop();
    return HolderStopped{};
}

// The smallest that is large enough, else the largest.
Server::Answer Server::spare(uint64_t bytes) {
    if (spares_.empty()) return NoSpare{};
    spares_.sort([](const Fd& a, const Fd& b) { return size_of(a) < size_of(b); });
    auto best = std::find_if(spares_.begin(), spares_.end(),
                             [&](const Fd& fd) { return size_of(fd) >= bytes; });
    if (best == spares_.end()) best = std::prev(spares_.end());
    lent_ = std::move(*best);
    spares_.erase(best);
    return {LentSpare{size_of(lent_)}, lent_.get()};
}

Server::Answer Server::keep(const KeepGhost& request, std::vector<Fd>& fds) {
    if (request.name.empty() || fds.size() != 1)
        return Complaint{"a ghost needs a name and its memory"};
    if (request.bytes == 0 || request.bytes > size_of(fds.front()))
        return Complaint{"a ghost's memory is shorter than the ghost"};
    if (const auto old = find(request.name); old != ghosts_.end()) give_up(old);
    ghosts_.push_front({request.name,
                        request.bytes,
                        {request.parts_at, request.parts},
                        request.about,
                        std::move(fds.front())});
    return GhostKept{};
}

Server::Answer Server::get(const std::string& name) {
    const auto held = name.empty() ? ghosts_.begin() : find(name);
    if (held == ghosts_.end()) return Complaint{"no ghost " + (name.empty() ? "at all" : name)};
    return {LentGhost{held->name, held->bytes, held->layout.count, held->layout.at, held->about},
            held->memory.get()};
}

Server::Answer Server::list() const {
    GhostList all;
    for (const auto& held : ghosts_) all.ghosts.push_back({held.name, held.bytes, held.about});
    return all;
}

Server::Answer Server::drop(const std::string& name) {
    const auto held = find(name);
    if (held == ghosts_.end()) return Complaint{"no ghost " + name};
    ghosts_.erase(held);
    spares_.clear();  // who drops wants the memory back
    return GhostDropped{};
}

// A ghost that is being restarted from this memory must not be written over.
void Server::give_up(std::list<Held>::iterator held) {
    Fd memory = std::move(held->memory);
    ghosts_.erase(held);
    // Who reads it holds a shared lock (get()).
    if (flock(memory.get(), LOCK_EX | LOCK_NB) != 0) return;
    flock(memory.get(), LOCK_UN);
    spares_.push_back(std::move(memory));
    while (spares_.size() > spares_kept) spares_.pop_front();
}

std::list<Held>::iterator Server::find(const std::string& name) {
    return std::find_if(ghosts_.begin(), ghosts_.end(),
                        [&](const Held& held) { return held.name == name; });
}

}  // namespace

Status serve_holder() {
    const auto address = holder_address();
    if (!address) return address.error();
    const auto folder = std::filesystem::path(*address).parent_path().string();
    const auto lock = open_own_file(folder + "/holder.lock", O_RDWR | O_CREAT);
    if (!lock) return lock.error();
    if (flock(lock->get(), LOCK_EX | LOCK_NB) != 0)
        return make_error(Code::busy, "hold ghosts", *address, "there is a holder already");
    unlink(address->c_str());  // of one that was killed
    auto listener = ControlListener::listen(*address);
    if (!listener) return listener.error();
    return Server(std::move(*listener)).run();
}

}  // namespace ghost::core
