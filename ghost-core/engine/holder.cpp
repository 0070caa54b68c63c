// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/engine/holder.hpp"

#include <algorithm>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/child.hpp"
#include "base/clock.hpp"
#include "base/json_text.hpp"
#include "base/own_file.hpp"
#include "ghost-core/engine/holder_messages.hpp"

namespace ghost::core {
namespace {

constexpr int answer_ms = 10000;
constexpr int64_t start_limit_us = 5'000'000;
constexpr unsigned touching_threads = 2;

using schema::Complaint;
using schema::encode;

// An object, whatever was said of the ghost.
Json about_of(const schema::Raw& raw) {
    Json about = parse_json(raw.text);
    return about.is_object() ? about : Json::object();
}

}  // namespace

Result<std::string> holder_address() {
    auto folder = private_folder();
    if (folder) *folder += "/holder.sock";
    return folder;
}

Result<HolderClient> HolderClient::connect(const std::vector<std::string>& start) {
    const auto address = holder_address();
    if (!address) return address.error();
    auto socket = ControlSocket::connect(*address);
    if (!socket && start.empty())
        return make_error(Code::not_found, "find ghosts in memory", *address, "there is no holder");
    if (!socket) {
        GHOST_TRY(Child::start_orphan({.argv = start,
                                       .folder = "/",
                                       .place = ChildRequest::Place::own_session,
                                       .signals = ChildRequest::Signals::unblocked}));
        for (const int64_t limit = monotonic_us() + start_limit_us; !socket;) {
            if (monotonic_us() > limit) return socket.error();
            usleep(1000);
            socket = ControlSocket::connect(*address);
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
    const KeepGhost request{name,
                            buffer.size(),
                            layout->count,
                            layout->at,
                            {about.dump(-1, ' ', false, Json::error_handler_t::replace)}};
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
