// SPDX-License-Identifier: BSD-3-Clause
// The thread of a process's streams: links, the manager's maps and answers, and whatever is due
// when no caller is there to do it; and requests to the manager.
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <poll.h>
#include <sodium.h>
#include <sys/eventfd.h>

#include "base/clock.hpp"
#include "base/encoding.hpp"
#include "base/log.hpp"
#include "kernet-btl/streams/manager.hpp"
#include "kernet-btl/streams/node.hpp"

namespace kernet {

namespace {

using ghost::Code;
using ghost::make_error;

constexpr int64_t tick_us = 2'000;
constexpr int64_t active_us = 1'000'000;  // so long after the last traffic it looks often
constexpr int often_ms = 1, seldom_ms = 20;
constexpr int64_t orphan_us = 5'000'000;
constexpr int64_t reconnect_us = 100'000;
constexpr int welcome_ms = 10'000;

// Signals are for the threads of the program that uses us; a thread begins with its maker's mask.
struct SignalsBlocked {
    SignalsBlocked() {
        sigset_t all;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
    }
    ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before, nullptr); }
    sigset_t before;
};

// A channel's message is a packet of JSON, in hexadecimal digits.
constexpr size_t max_channel_bytes = 48 * 1024;

}  // namespace

// --- beginning ---

Result<std::unique_ptr<Node>> Node::open(const NodeConfig& config) {
    if (sodium_init() < 0) return make_error(Code::unsupported, "initialise libsodium");
    std::unique_ptr<Node> node(new Node(config));
    GHOST_TRY(node->begin());
    return node;
}

Result<ghost::ControlSocket> Node::connect(uint32_t process) const {
    auto socket = ghost::ControlSocket::connect(config_.manager.empty() ? default_manager_address()
                                                                        : config_.manager);
    if (!socket) return socket;
    GHOST_TRY(socket->send_text(ghost::schema::encode(ProcessHello{process})));
    return socket;
}

Status Node::begin() {
    auto socket = connect(0);
    if (!socket) return socket.error();
    auto answer = socket->receive(welcome_ms);
    if (!answer) return answer.error();
    std::string complaint;
    const auto message = manager_says_.read(answer->text, complaint);
    if (!message || !message->is<ManagerWelcome>()) {
        return make_error(Code::corrupt, "be welcomed by the stream manager");
    }
    const auto& welcome = message->as<ManagerWelcome>();
    manager_ = std::move(*socket);
    welcomed_ = true;
    EndpointConfig config;
    process_ = config.rank = welcome.process;
    number_ = config.node = welcome.node;
    name_ = config.node_name = welcome.node_name;
    cluster_ = welcome.cluster;
    config.job = "kernet." + cluster_;
    secret_ = config.secret_hex = welcome.secret;
    config.if_include = welcome.if_include;
    config.filters = welcome.filters;
    config.use_shm = config_.use_shm;
    config.use_tcp = config_.use_tcp;
    config.threads = true;
    auto made = Endpoint::create(config);
    if (!made) return made.error();
    endpoint_ = std::move(*made);
    path_ = &endpoint_->data();
    path_->set_receiver(this);
    changed_fd_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    bell_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    wake_fd_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE));
    if (!changed_fd_ || !bell_ || !wake_fd_) return ghost::sys_error("create an eventfd");
    const SignalsBlocked blocked;
    thread_ = std::thread([this] { serve(); });
    return {};
}

// --- the thread ---

void Node::serve() {
    while (!ending_) {
        const bool active =
            ghost::monotonic_us() - active_at_.load(std::memory_order_relaxed) < active_us;
        int manager;
        {
            std::lock_guard lock(manager_mutex_);
            manager = manager_.fd();
        }
        pollfd fds[] = {{endpoint_->service_fd(), POLLIN, 0},
                        {bell_.get(), POLLIN, 0},
                        {manager, POLLIN, 0}};  // -1 is passed over
        ::poll(fds, 3, active ? often_ms : seldom_ms);
        if (ending_) return;
        endpoint_->service();
        if (fds[2].revents) read_manager();
        find_manager_again();
        if (progress() > 0) {
            active_at_.store(ghost::monotonic_us(), std::memory_order_relaxed);
        }
        tick_sockets();
    }
}

void Node::tick_sockets() {
    const int64_t now = ghost::monotonic_us();
    if (now - ticked_at_ < tick_us) return;
    ticked_at_ = now;
    Gate::Holder inside(gate());
    for (auto& [socket, slot] : slots_) {
        if (!slot.leaving) slot.stream->tick();
    }
    if (maps_.size() > 2 * slots_.size() + 64) {  // of streams that were only looked at
        std::erase_if(maps_, [this](const auto& map) { return !has_part_in(map.first); });
    }
    while (!orphans_.empty() && now - orphans_.front().at > orphan_us) orphans_.pop_front();
    run_local();
}

void Node::read_manager() {
    for (;;) {
        auto message = manager_.receive(0);
        if (message) {
            std::string complaint;
            const auto read = manager_says_.read(message->text, complaint);
            if (!complaint.empty()) {
                std::lock_guard lock(manager_mutex_);
                (void)manager_.send_text(complaint);
            }
            if (read) on_message(*read);
            continue;
        }
        if (message.error().code != Code::timeout) manager_gone();
        return;
    }
}

void Node::on_message(const ghost::schema::Received& message) {
    switch (message.type<FromManager>()) {
        case FromManager::welcome:
            return welcome_again(message.as<ManagerWelcome>());
        case FromManager::answer:
            return on_answer(message.as<ManagerAnswer>());
        case FromManager::map:
            return take_map(as_meant(message.as<NewMap>().entry));
        case FromManager::message:
            return on_arrived(message.as<ChannelArrived>());
    }
}

void Node::on_answer(const ManagerAnswer& message) {
    if (message.entry) take_map(as_meant(*message.entry));
    std::lock_guard lock(manager_mutex_);
    const auto found = calls_.find(message.n);
    if (found == calls_.end()) return;
    found->second->answer = message;
    found->second->done = true;
    answered_.notify_all();
}

void Node::on_arrived(const ChannelArrived& message) {
    ChannelMessage arrived{message.from, message.type, {}};
    auto bytes = ghost::decode_hex(message.bytes);
    if (!bytes) return;
    arrived.bytes = std::move(*bytes);
    {
        std::lock_guard lock(channels_mutex_);
        channels_[message.channel].push_back(std::move(arrived));
    }
    woken();
}

// A new map of a stream: the sockets attached here learn where the others are, and a process that
// is gone is no longer waited for.
void Node::take_map(const Entry& entry) {
    Gate::Holder inside(gate());
    const auto known = maps_.find(entry.id);
    if (known != maps_.end() && known->second.version >= entry.version) return;
    for (const SocketEntry& socket : entry.sockets) {
        if (socket.state == SocketState::attached) know(socket.where);
    }
    const Entry before = std::exchange(maps_[entry.id], entry);
    for (auto at = by_stream_.lower_bound({entry.id, 0});
         at != by_stream_.end() && at->first.first == entry.id; ++at) {
        slots_.at(at->second).stream->update(entry);
    }
    run_local();
    for (size_t i = 0; i < before.sockets.size() && i < entry.sockets.size(); i++) {
        if (entry.sockets[i].lost && before.sockets[i].state == SocketState::attached) {
            forget_process(before.sockets[i].where.rank);
        }
    }
}

void Node::forget_process(uint32_t process) {
    if (process == process_) return;
    const auto peer = peers_.find(process);
    if (peer != peers_.end() && peer->second->state() != SocketState::unattached) {
        peer->second->unattach();
    }
    Location gone;
    gone.rank = process;
    gone.epoch = 1;  // processes are attached in epoch 0
    endpoint_->set_location(gone);
}

// Streams go on without a manager; what needs one fails until there is one again.
void Node::manager_gone() {
    ghost::log::warning("kernet: the stream manager of this node is gone");
    std::lock_guard lock(manager_mutex_);
    manager_.close();
    welcomed_ = false;
    for (auto& [number, call] : calls_) call->done = true;
    answered_.notify_all();
}

void Node::find_manager_again() {
    const int64_t now = ghost::monotonic_us();
    std::lock_guard lock(manager_mutex_);
    if (manager_.valid() || now < retry_at_) return;
    retry_at_ = now + reconnect_us;
    if (auto socket = connect(process_)) manager_ = std::move(*socket);
}

// There is a manager again. What has changed meanwhile comes as answers nobody waits for.
void Node::welcome_again(const ManagerWelcome& welcome) {
    std::vector<StreamId> streams;
    {
        Gate::Holder inside(gate());
        for (const auto& [id, entry] : maps_) streams.push_back(id);
    }
    std::vector<uint16_t> channels;
    {
        std::lock_guard lock(channels_mutex_);
        for (const auto& [channel, messages] : channels_) channels.push_back(channel);
    }
    std::lock_guard lock(manager_mutex_);
    welcomed_ = welcome.process == process_;
    if (!welcomed_) return;
    ghost::log::info("kernet: the stream manager of this node is back");
    for (StreamId id : streams) {
        Change look;
        look.id = id;
        const AskManager message{next_call_++, sent(look)};
        if (!manager_.send_text(ghost::schema::encode(message))) return;
    }
    for (uint16_t channel : channels) {
        const OpenChannel message{next_call_++, channel};
        if (!manager_.send_text(ghost::schema::encode(message))) return;
    }
}

// --- requests ---

Result<ManagerAnswer> Node::call_with(const std::function<std::string(uint64_t)>& text) {
    Call call;
    std::unique_lock lock(manager_mutex_);
    const auto gone = [] {
        return ghost::sys_error_of(ENOTCONN, "reach the stream manager of this node", "",
                                   Code::peer_lost);
    };
    if (!welcomed_) return gone();
    const uint64_t number = next_call_++;
    // It may have ended without our having noticed.
    if (const Status sent = manager_.send_text(text(number)); !sent)
        return sent.error().code == Code::peer_lost ? gone() : sent.error();
    calls_[number] = &call;
    const bool done = answered_.wait_for(lock, std::chrono::microseconds(config_.call_limit_us),
                                         [&] { return call.done; });
    calls_.erase(number);
    if (!done) return make_error(Code::timeout, "wait for the stream manager of this node");
    if (!call.answer) {
        return ghost::Error{Code::peer_lost,
                            "finish a request",
                            {},
                            "the stream manager of this node has ended",
                            ENOTCONN};
    }
    if (call.answer->error) return as_meant(*call.answer->error);
    return std::move(*call.answer);
}

Result<ManagerAnswer> Node::ask(const Change& change, std::optional<Entry>* entry) {
    auto answer = call(AskManager{0, sent(change)});
    if (answer && entry && answer->entry) *entry = as_meant(*answer->entry);
    return answer;
}

// --- channels ---

Result<std::vector<std::pair<std::string, std::string>>> Node::nodes() {
    auto answer = call(ListNodes{});
    if (!answer) return answer.error();
    std::vector<std::pair<std::string, std::string>> out;
    for (const SentNode& node : answer->nodes) out.emplace_back(node.name, node.state);
    return out;
}

Status Node::open_channel(uint16_t channel) {
    GHOST_TRY(call(OpenChannel{0, channel}));
    std::lock_guard lock(channels_mutex_);
    channels_[channel];
    return {};
}

Status Node::send_channel(const std::string& node, uint16_t channel, uint16_t type,
                          std::string_view bytes) {
    if (bytes.size() > max_channel_bytes) {
        return make_error(Code::invalid, "send so long a message by a channel",
                          std::to_string(bytes.size()));
    }
    GHOST_TRY(call(SendByChannel{0, node, channel, type, ghost::encode_hex(bytes)}));
    return {};
}

Result<ChannelMessage> Node::receive_channel(uint16_t channel, int64_t timeout_us) {
    const int64_t end = ghost::monotonic_us() + timeout_us;
    for (;;) {
        const uint64_t seen = changes_.load(std::memory_order_acquire);
        {
            std::lock_guard lock(channels_mutex_);
            const auto found = channels_.find(channel);
            if (found == channels_.end()) {
                return make_error(Code::not_found, "find channel", std::to_string(channel));
            }
            if (!found->second.empty()) {
                ChannelMessage message = std::move(found->second.front());
                found->second.pop_front();
                return message;
            }
        }
        const int64_t left = end - ghost::monotonic_us();
        if (timeout_us >= 0 && left <= 0) {
            return make_error(timeout_us == 0 ? Code::busy : Code::timeout,
                              "wait for a message by channel", std::to_string(channel));
        }
        std::unique_lock lock(wait_mutex_);
        sleepers_++;
        wait_.wait_for(lock, std::chrono::microseconds(timeout_us < 0 ? 100'000 : left),
                       [&] { return changes_.load(std::memory_order_acquire) != seen; });
        sleepers_--;
    }
}

}  // namespace kernet
