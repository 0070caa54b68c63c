// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/streams/node.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <sodium.h>
#include <sys/eventfd.h>
#include <utility>

#include "base/clock.hpp"
#include "base/log.hpp"
#include "kernet-btl/streams/handle.hpp"

namespace kernet {

namespace {

using ghost::Code;
using ghost::make_error;

// Longer messages are received straight into their place.
constexpr size_t bulk_above = 32 * 1024;
constexpr uint8_t tag_stream = 1;
constexpr size_t max_orphans = 4096;
constexpr int64_t back_off_us = 100, longest_back_off_us = 500;

ghost::Error no_socket(uint32_t socket) {
    return make_error(Code::not_found, "find socket", std::to_string(socket));
}

size_t size_of(const iovec* parts, size_t count) {
    size_t size = 0;
    for (size_t i = 0; i < count; i++) size += parts[i].iov_len;
    return size;
}

BodyPtr gather(BodyStore& store, const iovec* parts, size_t count, size_t size) {
    BodyPtr body = store.get(size);
    uint8_t* at = body->bytes.get();
    for (size_t i = 0; i < count; i++) {
        if (parts[i].iov_len > 0) std::memcpy(at, parts[i].iov_base, parts[i].iov_len);
        at += parts[i].iov_len;
    }
    return body;
}

// Returns what went into the parts.
size_t scatter(const uint8_t* bytes, size_t size, const iovec* parts, size_t count, size_t from) {
    size_t done = 0;
    for (size_t i = 0; i < count && done < size; i++) {
        if (from >= parts[i].iov_len) {
            from -= parts[i].iov_len;
            continue;
        }
        const size_t some = std::min(parts[i].iov_len - from, size - done);
        std::memcpy(static_cast<uint8_t*>(parts[i].iov_base) + from, bytes + done, some);
        done += some;
        from = 0;
    }
    return done;
}

}  // namespace

Node::~Node() {
    if (path_) {
        std::vector<uint32_t> mine;
        {
            Gate::Holder inside(gate());
            for (const auto& [socket, slot] : slots_) mine.push_back(socket);
        }
        for (uint32_t socket : mine) {
            if (Status left = unattach(socket, 0); !left) {
                ghost::log::debug("kernet: {}", left.error().message());
            }
        }
        path_->drain(100'000);
    }
    ending_ = true;
    const uint64_t one = 1;
    if (thread_.joinable() && ::write(bell_.get(), &one, sizeof one) > 0) thread_.join();
    if (path_) path_->unattach_all();
}

// --- streams ---

uint32_t Node::add_class(const StreamClass& properties) {
    std::lock_guard lock(classes_mutex_);
    classes_.push_back(properties);
    return static_cast<uint32_t>(classes_.size() - 1);
}

Result<StreamId> Node::create(uint32_t class_descriptor) {
    StreamClass properties;
    {
        std::lock_guard lock(classes_mutex_);
        if (class_descriptor >= classes_.size()) {
            return make_error(Code::not_found, "find stream class",
                              std::to_string(class_descriptor));
        }
        properties = classes_[class_descriptor];
    }
    return create(properties);
}

Result<StreamId> Node::create(const StreamClass& properties) {
    Change change;
    change.operation = Operation::create;
    randombytes_buf(&change.id, sizeof change.id);
    if (change.id == 0) change.id = 1;
    change.type = properties.type;
    change.sockets = properties.sockets;
    change.class_name = properties.name;
    change.filters = properties.filters;
    GHOST_TRY(ask(change, nullptr));
    return change.id;
}

Status Node::destroy(StreamId stream) {
    Change change;
    change.operation = Operation::destroy;
    change.id = stream;
    GHOST_TRY(ask(change, nullptr));
    return {};
}

Result<Entry> Node::look(StreamId stream) {
    Change change;
    change.id = stream;
    std::optional<Entry> entry;
    GHOST_TRY(ask(change, &entry));
    if (!entry) return make_error(Code::internal, "look up a stream");
    return std::move(*entry);
}

// --- sockets ---

Node::Slot* Node::slot(uint32_t socket) {
    const auto found = slots_.find(socket);
    return found == slots_.end() || found->second.leaving ? nullptr : &found->second;
}

Result<uint32_t> Node::attach(StreamId stream, uint8_t role) {
    Change change;
    change.operation = Operation::attach;
    change.id = stream;
    change.role = role;
    return join(std::move(change), nullptr, false);
}

// Asks for a socket of a stream here, attached or woken up. What comes of the stream between the
// answer and the socket being here is the socket's as well.
Result<uint32_t> Node::join(Change change, const Json* state, bool bytes) {
    change.where = endpoint_->location();
    {
        Gate::Holder inside(gate());
        joining_.insert(change.id);
    }
    std::optional<Entry> entry;
    auto answer = ask(change, &entry);
    Result<uint32_t> socket = make_error(Code::internal, "attach to a stream");
    if (!answer) {
        socket = answer.error();
    } else if (entry) {
        socket = adopt(*entry, answer->socket, state, bytes);
    }
    Gate::Holder inside(gate());
    joining_.erase(joining_.find(change.id));
    return socket;
}

bool Node::has_part_in(StreamId stream) const {
    const auto first = by_stream_.lower_bound({stream, 0});
    return (first != by_stream_.end() && first->first.first == stream) ||
           joining_.count(stream) > 0;
}

// The socket is this process's: from the answer of the managers, or a map that came meanwhile.
Result<uint32_t> Node::adopt(const Entry& entry, uint16_t number, const Json* state, bool bytes) {
    if (number >= entry.sockets.size() || entry.sockets[number].state != SocketState::attached) {
        return make_error(Code::peer_lost, "attach to", fmt::format("stream {:016x}", entry.id),
                          "the socket was given up again");
    }
    Gate::Holder inside(gate());
    Slot made;
    made.stream = StreamSocket::make(*this, entry, number, config_.keep_bytes);
    made.bytes = bytes;
    if (state && !made.stream->restore(*state)) {
        return make_error(Code::corrupt, "wake up a socket from its handle");
    }
    StreamSocket& stream = *made.stream;
    const uint32_t socket = next_slot_++;
    by_stream_[{entry.id, number}] = socket;
    slots_[socket] = std::move(made);
    stream.begin();
    if (const auto map = maps_.find(entry.id); map != maps_.end()) {
        stream.update(map->second);
    } else {
        maps_.emplace(entry.id, entry);
    }
    for (Orphan& orphan : std::exchange(orphans_, {})) {
        dispatch(orphan.message.header, std::move(orphan.message.body));
    }
    run_local();
    return socket;
}

void Node::remove(uint32_t socket) {
    const auto found = slots_.find(socket);
    if (found == slots_.end()) return;
    const StreamSocket& stream = *found->second.stream;
    const StreamId id = stream.entry().id;
    by_stream_.erase({id, stream.number()});
    slots_.erase(found);
    if (!has_part_in(id)) maps_.erase(id);
    woken();
}

Status Node::wait(uint32_t socket, int64_t timeout_us) {
    return block(timeout_us, [&]() -> std::optional<Status> {
        Slot* mine = slot(socket);
        if (!mine) return no_socket(socket);
        if (mine->stream->entry().ready()) return Status{};
        if (mine->stream->end() != StreamEnd::none) {
            return end_status(*mine->stream, "wait for the other sockets");
        }
        return std::nullopt;
    });
}

Status Node::end_status(const StreamSocket& stream, const char* tried) const {
    static constexpr const char* why[] = {"", "the other end has left",
                                          "the process or node of the other end is gone",
                                          "it was destroyed", "this node was away for too long"};
    return make_error(Code::peer_lost, tried, fmt::format("stream {:016x}", stream.entry().id),
                      why[static_cast<int>(stream.end())]);
}

// --- suspend, wakeup, unattach ---

Result<std::string> Node::make_handle(const StreamSocket& stream, uint64_t key,
                                      const Slot& slot) const {
    Handle handle{stream.entry().id, stream.number(), key, slot.bytes, stream.save(), {}};
    if (slot.rest) {
        const uint8_t* bytes = slot.rest->bytes.get();
        handle.rest.emplace(Json::binary_t({bytes + slot.offset, bytes + slot.rest->size}));
    }
    return seal_handle(handle, cluster_, secret_);
}

Result<std::string> Node::suspend(uint32_t socket) {
    Change change;
    change.operation = Operation::suspend;
    randombytes_buf(&change.key, sizeof change.key);
    {
        Gate::Holder inside(gate());
        Slot* mine = slot(socket);
        if (!mine) return no_socket(socket);
        mine->leaving = true;
        mine->stream->stop();
        change.id = mine->stream->entry().id;
        change.socket = mine->stream->number();
        change.incarnation = mine->stream->incarnation();
        change.farewells = mine->stream->farewells(true);
    }
    auto answer = ask(change, nullptr);
    Gate::Holder inside(gate());
    Slot& mine = slots_.at(socket);
    if (!answer) {
        mine.leaving = false;
        mine.stream->go_on();
        run_local();
        return answer.error();
    }
    auto handle = make_handle(*mine.stream, change.key, mine);
    remove(socket);
    return handle;
}

Result<uint32_t> Node::wakeup(const std::string& sealed) {
    const auto handle = open_handle(sealed, cluster_, secret_);
    if (!handle) return handle.error();
    Change change;
    change.operation = Operation::wakeup;
    change.id = handle->stream;
    change.socket = handle->socket;
    change.key = handle->key;
    auto socket = join(std::move(change), &handle->state, handle->bytes);
    if (socket && handle->rest) {
        Gate::Holder inside(gate());
        slots_.at(*socket).rest = make_body(handle->rest->data(), handle->rest->size());
    }
    return socket;
}

Status Node::unattach(uint32_t socket, int64_t linger_us) {
    if (linger_us != 0) {
        Status taken = block(linger_us, [&]() -> std::optional<Status> {
            Slot* mine = slot(socket);
            if (!mine) return no_socket(socket);
            if (mine->stream->all_taken() || mine->stream->end() != StreamEnd::none) {
                return Status{};
            }
            return std::nullopt;
        });
        if (!taken) return taken;
    }
    Change change;
    change.operation = Operation::unattach;
    {
        Gate::Holder inside(gate());
        Slot* mine = slot(socket);
        if (!mine) return no_socket(socket);
        mine->leaving = true;
        mine->stream->tick();  // what has been taken is said
        mine->stream->stop();
        change.id = mine->stream->entry().id;
        change.socket = mine->stream->number();
        change.incarnation = mine->stream->incarnation();
        change.farewells = mine->stream->farewells(false);
    }
    const auto answer = ask(change, nullptr);
    Gate::Holder inside(gate());
    const bool over = slots_.at(socket).stream->end() != StreamEnd::none;
    remove(socket);
    if (!answer && !over && answer.error().code != Code::not_found) return answer.error();
    return {};
}

// --- sending and receiving ---

int Node::progress() {
    Gate::Holder inside(gate());
    return progress_inside();
}

int Node::progress_inside() {
    const int events = path_->progress_inside();
    run_local();
    return events;
}

// Sleeps until something may have come since changes_ was `seen`: on a link, or as woken() says.
// False if only time has passed, which rings need: they wake nobody.
bool Node::back_off(uint64_t seen, int64_t longest_us) {
    std::vector<pollfd> readable{{wake_fd_.get(), POLLIN, 0}};
    {
        Gate::Holder inside(gate());
        path_->begin_sleep(readable);
    }
    backing_off_.fetch_add(1);
    bool woke = changes_.load() != seen;
    const timespec time{0, longest_us * 1000};
    if (!woke) woke = ppoll(readable.data(), readable.size(), &time, nullptr) > 0;
    backing_off_.fetch_sub(1);
    uint64_t word = 0;
    if (readable[0].revents && ::read(wake_fd_.get(), &word, sizeof word) < 0) woke = false;
    Gate::Holder inside(gate());
    path_->end_sleep();
    return woke;
}

// With more processes than processors the other one may wait for this one's, and looking only keeps
// it from answering: after a call that looked in vain only every sixteenth does.
int64_t Node::spin_time() {
    const uint32_t in_vain = in_vain_.load(std::memory_order_relaxed);
    if (in_vain % 16 == 0) return config_.spin_us;
    in_vain_.store(in_vain + 1, std::memory_order_relaxed);
    return 0;
}

// Attempts until one gives a result. First it looks all the time, then it backs off. Where there
// are rings it first gives the processor away between two looks, for longer than that takes (100 µs
// and the timer's slack of 50): otherwise two that wait for each other in turns would never find
// each other awake again once one of them has slept.
template <typename Attempt>
Status Node::block(int64_t timeout_us, Attempt attempt) {
    int64_t began = 0, spin_us = 0;
    for (int64_t time = back_off_us;;) {
        const uint64_t seen = changes_.load(std::memory_order_acquire);
        int64_t yield_us = 0;
        {
            Gate::Holder inside(gate());
            std::optional<Status> result = attempt();
            if (!result) {
                progress_inside();
                result = attempt();
            }
            if (result && spin_us > 0) in_vain_.store(0, std::memory_order_relaxed);
            if (result) return *result;
            if (path_->has_quick()) yield_us = config_.yield_us;
        }
        const int64_t now = ghost::monotonic_us();
        if (timeout_us == 0) return make_error(Code::busy, "do at once");
        if (began == 0) {
            began = now;
            spin_us = spin_time();
        }
        if (timeout_us > 0 && now - began >= timeout_us) {
            return make_error(Code::timeout, "wait for a stream");
        }
        active_at_.store(now, std::memory_order_relaxed);
        if (now - began < spin_us) continue;
        if (std::exchange(spin_us, 0) > 0) in_vain_.fetch_add(1, std::memory_order_relaxed);
        if (now - began < yield_us) {
            sched_yield();
            continue;
        }
        time = back_off(seen, time) ? back_off_us : std::min(time * 2, longest_back_off_us);
    }
}

Status Node::send(uint32_t socket, const iovec* parts, size_t count, int64_t timeout_us) {
    const size_t size = size_of(parts, count);
    if (size > max_stream_message) {
        return make_error(Code::invalid, "send so long a message", std::to_string(size));
    }
    return block(timeout_us, [&]() -> std::optional<Status> {
        Slot* mine = slot(socket);
        if (!mine) return no_socket(socket);
        StreamSocket& stream = *mine->stream;
        if (!(stream.role() & role_writer)) {
            return make_error(Code::invalid, "send", {}, "the socket is only a reader");
        }
        if (stream.end() != StreamEnd::none) return end_status(stream, "send");
        if (!stream.may_send(size)) return std::nullopt;
        stream.send(gather(*bodies_, parts, count, size));
        run_local();
        return Status{};
    });
}

bool Node::copy_out(Slot& slot, const iovec* parts, size_t count, size_t& size, Status& status) {
    const size_t room = size_of(parts, count);
    status = {};
    if (!slot.bytes) {
        if (!slot.rest) slot.rest = slot.stream->take();
        if (!slot.rest) return false;
        size = slot.rest->size - slot.offset;
        if (size > room) {
            status = ghost::sys_error_of(EMSGSIZE, "receive a message larger than the buffer", "",
                                         Code::invalid);
            return true;
        }
        scatter(slot.rest->bytes.get() + slot.offset, size, parts, count, 0);
        slot.rest.reset();
        slot.offset = 0;
        return true;
    }
    size = 0;
    while (size < room) {
        if (!slot.rest) slot.rest = slot.stream->take();
        if (!slot.rest) break;
        const size_t some = scatter(slot.rest->bytes.get() + slot.offset,
                                    slot.rest->size - slot.offset, parts, count, size);
        size += some;
        slot.offset += some;
        if (slot.offset < slot.rest->size) break;
        slot.rest.reset();
        slot.offset = 0;
    }
    return size > 0 || room == 0;
}

Status Node::receive(uint32_t socket, const iovec* parts, size_t count, int64_t timeout_us,
                     size_t& size) {
    bool counted = false;
    size = 0;
    Status result = block(timeout_us, [&]() -> std::optional<Status> {
        Slot* mine = slot(socket);
        if (!mine) return no_socket(socket);
        StreamSocket& stream = *mine->stream;
        if (!(stream.role() & role_reader)) {
            return make_error(Code::invalid, "receive", {}, "the socket is only a writer");
        }
        if (!counted) {
            counted = true;
            mine->waiting++;
        }
        Status status;
        if (copy_out(*mine, parts, count, size, status)) return status;
        if (stream.end() != StreamEnd::none) return end_status(stream, "receive");
        stream.wanted(mine->waiting);
        run_local();
        return std::nullopt;
    });
    if (!counted) return result;
    Gate::Holder inside(gate());
    Slot* mine = slot(socket);
    if (!mine) return result;
    mine->waiting--;
    // One that only looks leaves its wish behind, so that looking again finds something.
    if (timeout_us != 0 && mine->waiting == 0 && !result) mine->stream->wanted(0);
    return result;
}

Status Node::set_byte_mode(uint32_t socket, bool on) {
    Gate::Holder inside(gate());
    Slot* mine = slot(socket);
    if (!mine) return no_socket(socket);
    mine->bytes = on;
    return {};
}

unsigned Node::readiness(Slot& slot) {
    StreamSocket& stream = *slot.stream;
    const bool end = stream.end() != StreamEnd::none;
    unsigned ready = 0;
    if (end) ready |= ready_end;
    if (stream.role() & role_reader && (slot.rest || stream.readable() || end)) ready |= ready_read;
    if (stream.role() & role_writer && (stream.may_send(1) || end)) ready |= ready_write;
    return ready;
}

size_t Node::poll(Polled* sockets, size_t count, int64_t timeout_us) {
    uint64_t ignored;
    if (signalled_ && ::read(changed_fd_.get(), &ignored, sizeof ignored) > 0) signalled_ = false;
    size_t found = 0;
    const Status polled = block(timeout_us, [&]() -> std::optional<Status> {
        found = 0;
        for (size_t i = 0; i < count; i++) {
            Slot* mine = slot(sockets[i].socket);
            sockets[i].ready = mine ? readiness(*mine) : ~0u;
            if (mine && sockets[i].wanted & ready_read && !(sockets[i].ready & ready_read) &&
                mine->stream->role() & role_reader) {
                mine->stream->wanted(std::max<size_t>(mine->waiting, 1));
            }
            if (sockets[i].ready & (sockets[i].wanted | ready_end)) found++;
        }
        run_local();
        return found > 0 ? std::optional<Status>(Status{}) : std::nullopt;
    });
    return polled ? found : 0;
}

// --- what streams send ---

void Node::send_message(uint32_t process, const wire::StreamHeader& header, const BodyPtr& body) {
    if (process == process_) {
        local_.push_back({header, body});
        return;
    }
    Socket*& peer = peers_[process];
    if (!peer) peer = &path_->attach(process);
    if (peer->state() == SocketState::unattached) return;
    const size_t size = body ? body->size : 0;
    if (size > bulk_above) {
        peer->send_bulk(tag_stream, &header, sizeof header, body->bytes.get(), size,
                        new BodyPtr(body));
        return;
    }
    uint8_t* room = peer->reserve(sizeof header + size);
    std::memcpy(room, &header, sizeof header);
    if (size > 0) std::memcpy(room + sizeof header, body->bytes.get(), size);
    peer->commit(sizeof header + size, tag_stream);
}

// Messages between sockets of this process: one after the other, never inside each other.
void Node::run_local() {
    if (running_local_) return;
    running_local_ = true;
    while (!local_.empty()) {
        Local message = std::move(local_.front());
        local_.pop_front();
        dispatch(message.header, std::move(message.body));
    }
    running_local_ = false;
}

void Node::know(const Location& where) {
    if (where.rank != process_) endpoint_->set_location(where);
}

void Node::woken() {
    changes_.fetch_add(1);
    const uint64_t one = 1;
    if (fd_used_.load(std::memory_order_relaxed) && !signalled_.exchange(true) &&
        ::write(changed_fd_.get(), &one, sizeof one) < 0) {
        ghost::log::error("kernet: {}", ghost::sys_error("write to an eventfd").message());
    }
    const uint64_t callers = backing_off_.load();
    if (callers > 0 && ::write(wake_fd_.get(), &callers, sizeof callers) < 0) {
        ghost::log::error("kernet: {}", ghost::sys_error("write to an eventfd").message());
    }
    if (sleepers_.load(std::memory_order_acquire) == 0) return;
    std::lock_guard lock(wait_mutex_);
    wait_.notify_all();
}

void Node::dispatch(const wire::StreamHeader& header, BodyPtr body) {
    const auto found = by_stream_.find({header.stream, header.to});
    if (found != by_stream_.end()) {
        slots_.at(found->second).stream->receive(header, std::move(body));
        return;
    }
    if (orphans_.size() < max_orphans) {
        orphans_.push_back({{header, std::move(body)}, ghost::monotonic_us()});
    }
}

void Node::deliver(Socket&, uint8_t, uint8_t* bytes, size_t size) {
    wire::StreamHeader header;
    if (size < sizeof header) return;
    std::memcpy(static_cast<void*>(&header), bytes, sizeof header);
    dispatch(header, make_body(bytes + sizeof header, size - sizeof header));
}

uint8_t* Node::place(Socket& socket, uint8_t, const uint8_t*, size_t head_size, size_t size) {
    if (size > max_stream_message || head_size != sizeof(wire::StreamHeader)) return nullptr;
    BodyPtr& body = arriving_[&socket];
    body = bodies_->get(size);
    return body->bytes.get();
}

void Node::placed(Socket& socket, uint8_t, const uint8_t* head, size_t, uint8_t*, size_t) {
    wire::StreamHeader header;
    std::memcpy(static_cast<void*>(&header), head, sizeof header);
    dispatch(header, std::move(arriving_[&socket]));
}

void Node::released(Socket&, void* token) {
    delete static_cast<BodyPtr*>(token);
}

}  // namespace kernet
