// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/engine/holder.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <list>
#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/child.hpp"
#include "base/clock.hpp"
#include "ghost-core/engine/holder_messages.hpp"

namespace ghost::core {
namespace {

constexpr int answer_ms = 10000;
constexpr int64_t start_limit_us = 5'000'000;
constexpr size_t spares_kept = 2;
constexpr unsigned touching_threads = 2;

std::string folder() {
    return fmt::format("/run/ghost-{}", geteuid());
}

// Private to the user, or whoever has made it first could read processes' memory.
Status make_folder() {
    const auto path = folder();
    if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return sys_error("make folder", path);
    struct stat info {};
    if (lstat(path.c_str(), &info) != 0 || !S_ISDIR(info.st_mode) || info.st_uid != geteuid() ||
        (info.st_mode & 077) != 0)
        return make_error(Code::refused, "use folder", path, "it is not private");
    return {};
}

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
    void run();

  private:
    struct Client {
        ControlSocket socket;
        schema::Reader reader{to_holder, "a client of the holder"};
    };
    struct Answer {
        template <typename T>
        Answer(const T& message, int memory = -1)  // NOLINT: implicit
            : text(encode(message)), fd(memory) {}
        std::string text;
        int fd;
    };
    void accept();
    bool serve(Client& client);
    Answer answer(const schema::Received& request, std::vector<Fd>& fds);
    Answer spare(uint64_t bytes);
    Answer keep(const KeepGhost& request, std::vector<Fd>& fds);
    Answer get(const std::string& name);
    Answer list() const;
    Answer drop(const std::string& name);
    Answer stop();
    void give_up(std::list<Held>::iterator held);
    std::list<Held>::iterator find(const std::string& name);

    ControlListener listener_;
    std::list<Client> clients_;
    std::list<Held> ghosts_;  // the newest first
    std::list<Fd> spares_;
    Fd lent_;  // a spare that is being sent
    bool stopping_ = false;
};

void Server::run() {
    while (!stopping_) {
        std::vector<pollfd> polled = {{listener_.fd(), POLLIN, 0}};
        for (const auto& client : clients_) polled.push_back({client.socket.fd(), POLLIN, 0});
        if (poll(polled.data(), polled.size(), -1) < 0) continue;
        size_t at = 1;
        for (auto client = clients_.begin(); client != clients_.end(); at++) {
            const bool stays = polled[at].revents == 0 || serve(*client);
            client = stays ? std::next(client) : clients_.erase(client);
        }
        if (polled[0].revents != 0) accept();
    }
}

void Server::accept() {
    if (auto socket = listener_.accept(); socket.ok()) clients_.push_back({std::move(*socket)});
}

bool Server::serve(Client& client) {
    auto packet = client.socket.receive(0);
    if (!packet) return packet.error().code == Code::timeout;
    std::string complaint;
    const auto request = client.reader.read(packet->text, complaint);
    if (!request) return complaint.empty() || client.socket.send_text(complaint).ok();
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
    stopping_ = true;
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

// An object, whatever was said of the ghost.
Json about_of(const schema::Raw& raw) {
    Json about = Json::parse(raw.text, nullptr, false);
    return about.is_object() ? about : Json::object();
}

}  // namespace

std::string holder_address() {
    return folder() + "/holder.sock";
}

Status serve_holder() {
    GHOST_TRY(make_folder());
    const auto lock_path = folder() + "/holder.lock";
    const Fd lock(open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!lock) return sys_error("open", lock_path);
    if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0)
        return make_error(Code::busy, "hold ghosts", holder_address(), "there is a holder already");
    unlink(holder_address().c_str());  // of one that was killed
    auto listener = ControlListener::listen(holder_address());
    if (!listener) return listener.error();
    Server(std::move(*listener)).run();
    return {};
}

Result<HolderClient> HolderClient::connect(const std::vector<std::string>& start) {
    auto socket = ControlSocket::connect(holder_address());
    if (!socket && start.empty())
        return make_error(Code::not_found, "find ghosts in memory", holder_address(),
                          "there is no holder");
    if (!socket) {
        GHOST_TRY(Child::start_orphan({.argv = start,
                                       .folder = "/",
                                       .place = ChildRequest::Place::own_session,
                                       .signals = ChildRequest::Signals::unblocked}));
        for (const int64_t limit = monotonic_us() + start_limit_us; !socket;) {
            if (monotonic_us() > limit) return socket.error();
            usleep(1000);
            socket = ControlSocket::connect(holder_address());
        }
    }
    return HolderClient(std::move(*socket));
}

Result<HolderClient::Reply> HolderClient::ask(const std::string& request,
                                              std::initializer_list<FromHolder> answers,
                                              const std::vector<int>& fds) {
    const auto failed = [](const Error& why) {
        if (why.code == Code::timeout) return why;
        return make_error(Code::peer_lost, "keep ghosts in memory", {},
                          "the holder has ended, and every ghost it kept is gone (the next "
                          "checkpoint to memory starts another holder)");
    };
    if (auto sent = socket_.send_text(request, fds); !sent.ok()) return failed(sent.error());
    auto packet = socket_.receive(answer_ms);
    if (!packet) return failed(packet.error());
    std::string complaint;
    auto reply = schema::Reader(from_holder, "the holder").read(packet->text, complaint);
    if (reply && reply->is<Complaint>())
        return make_error(Code::not_found, "keep ghosts in memory", {}, reply->as<Complaint>().why);
    if (!reply || std::ranges::find(answers, reply->type<FromHolder>()) == answers.end())
        return make_error(Code::corrupt, "understand what the holder answers to", request);
    return Reply{std::move(*reply), std::move(packet->fds)};
}

Result<std::shared_ptr<MemoryBuffer>> HolderClient::room(uint64_t bytes) {
    auto reply = ask(encode(AskSpare{bytes}), {FromHolder::spare, FromHolder::none});
    if (!reply) return reply.error();
    std::shared_ptr<MemoryBuffer> out;
    if (!reply->fds.empty()) {
        auto adopted = MemoryBuffer::adopt(std::move(reply->fds.front()));
        if (!adopted) return adopted.error();
        out = std::move(*adopted);
        out->clear();
    } else {
        out = std::make_shared<MemoryBuffer>(MemoryBuffer::Kind::shared);
    }
    GHOST_TRY(out->populate(bytes, touching_threads));
    return out;
}

Status HolderClient::keep(const std::string& name, MemoryBuffer& buffer, const Json& about) {
    auto layout = buffer.layout();
    if (!layout) return layout.error();
    const KeepGhost request{name, buffer.size(), layout->count, layout->at, {about.dump()}};
    auto reply = ask(encode(request), {FromHolder::kept}, {buffer.fd()});
    return reply ? Status() : reply.error();
}

Result<std::shared_ptr<MemoryBuffer>> HolderClient::get(const std::string& name, Kept* what) {
    auto reply = ask(encode(GetGhost{name}), {FromHolder::ghost});
    if (!reply) return reply.error();
    if (reply->fds.empty()) return make_error(Code::corrupt, "get a ghost from memory", name);
    // Another description than the holder's, for a lock of its own.
    const Fd& lent = reply->fds.front();
    Fd own(open(fmt::format("/proc/self/fd/{}", lent.get()).c_str(), O_RDWR | O_CLOEXEC));
    if (!own || flock(own.get(), LOCK_SH) != 0) return sys_error("get a ghost from memory", name);
    auto adopted = MemoryBuffer::adopt(std::move(own));
    if (!adopted) return adopted.error();
    const auto& ghost = reply->message.as<LentGhost>();
    GHOST_TRY((*adopted)->set_layout({ghost.parts_at, ghost.parts}, ghost.bytes));
    if (what != nullptr) *what = {ghost.name, ghost.bytes, about_of(ghost.about)};
    return std::shared_ptr<MemoryBuffer>(std::move(*adopted));
}

Result<std::vector<HolderClient::Kept>> HolderClient::list() {
    auto reply = ask(encode(ListGhosts{}), {FromHolder::list});
    if (!reply) return reply.error();
    std::vector<Kept> out;
    for (const ListedGhost& one : reply->message.as<GhostList>().ghosts)
        out.push_back({one.name, one.bytes, about_of(one.about)});
    return out;
}

Status HolderClient::drop(const std::string& name) {
    auto reply = ask(encode(DropGhost{name}), {FromHolder::dropped});
    return reply ? Status() : reply.error();
}

Status HolderClient::stop() {
    auto reply = ask(encode(StopHolder{}), {FromHolder::stopped});
    return reply ? Status() : reply.error();
}

}  // namespace ghost::core
