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

ghost::Error error_of(const nlohmann::json& json) {
    const int code = json.value("code", static_cast<int>(Code::internal));
    return {code >= 0 && code <= static_cast<int>(Code::internal) ? static_cast<Code>(code)
                                                                  : Code::corrupt,
            json.value("tried", ""), json.value("object", ""), json.value("sys", 0)};
}

bool from_hex(const std::string& hex, std::string& bytes) {
    bytes.resize(hex.size() / 2);
    size_t got = 0;
    return sodium_hex2bin(reinterpret_cast<uint8_t*>(bytes.data()), bytes.size(), hex.data(),
                          hex.size(), nullptr, &got, nullptr) == 0 &&
           got * 2 == hex.size();
}

std::string to_hex(std::string_view bytes) {
    std::string hex(bytes.size() * 2 + 1, '\0');
    sodium_bin2hex(hex.data(), hex.size(), reinterpret_cast<const uint8_t*>(bytes.data()),
                   bytes.size());
    hex.pop_back();
    return hex;
}

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
    Json hello{{"t", "hello"}};
    if (process) hello["process"] = process;
    GHOST_TRY(socket->send(hello));
    return socket;
}

Status Node::begin() {
    auto socket = connect(0);
    if (!socket) return socket.error();
    auto answer = socket->receive(welcome_ms);
    if (!answer) return answer.error();
    const Json& welcome = answer->body;
    if (welcome.value("t", "") != "welcome") {
        return make_error(Code::corrupt, "be welcomed by the stream manager");
    }
    manager_ = std::move(*socket);
    welcomed_ = true;
    EndpointConfig config;
    process_ = config.rank = welcome.value("process", 0u);
    number_ = config.node = welcome.value("node", -1);
    name_ = config.node_name = welcome.value("node_name", "");
    cluster_ = welcome.value("cluster", "");
    config.job = "kernet." + cluster_;
    secret_ = config.secret_hex = welcome.value("secret", "");
    config.if_include = welcome.value("if_include", "");
    config.filters = welcome.value("filters", "");
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
            try {
                on_message(message->body);
            } catch (const Json::exception& wrong) {
                ghost::log::error("kernet: message of the manager dropped: {}", wrong.what());
            }
            continue;
        }
        if (message.error().code != Code::timeout) manager_gone();
        return;
    }
}

void Node::on_message(const Json& message) {
    const std::string type = message.value("t", "");
    if (message.contains("entry")) {
        auto entry = entry_from_json(message.at("entry"));
        if (entry) {
            take_map(*entry);
        } else {
            ghost::log::error("kernet: {}", entry.error().message());
        }
    }
    if (type == "answer") {
        std::lock_guard lock(manager_mutex_);
        const auto found = calls_.find(message.at("n").get<uint64_t>());
        if (found == calls_.end()) return;
        found->second->answer = message;
        found->second->done = true;
        answered_.notify_all();
    } else if (type == "welcome") {
        welcome_again(message);
    } else if (type == "message") {
        ChannelMessage arrived{
            message.at("from").get<std::string>(), message.at("type").get<uint16_t>(), {}};
        if (!from_hex(message.at("bytes").get<std::string>(), arrived.bytes)) return;
        {
            std::lock_guard lock(channels_mutex_);
            channels_[message.at("channel").get<uint16_t>()].push_back(std::move(arrived));
        }
        woken();
    }
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
void Node::welcome_again(const Json& welcome) {
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
    welcomed_ = welcome.value("process", 0u) == process_;
    if (!welcomed_) return;
    ghost::log::info("kernet: the stream manager of this node is back");
    for (StreamId id : streams) {
        Change look;
        look.id = id;
        if (!manager_.send({{"t", "ask"}, {"n", next_call_++}, {"change", to_json(look)}})) return;
    }
    for (uint16_t channel : channels) {
        if (!manager_.send({{"t", "channel"}, {"n", next_call_++}, {"channel", channel}})) return;
    }
}

// --- requests ---

Result<nlohmann::json> Node::call(Json message) {
    Call call;
    std::unique_lock lock(manager_mutex_);
    const auto gone = [] {
        return ghost::sys_error_of(ENOTCONN, "reach the stream manager of this node", "",
                                   Code::peer_lost);
    };
    if (!welcomed_) return gone();
    const uint64_t number = next_call_++;
    message["n"] = number;
    // It may have ended without our having noticed.
    if (const Status sent = manager_.send(message); !sent)
        return sent.error().code == Code::peer_lost ? gone() : sent.error();
    calls_[number] = &call;
    const bool done = answered_.wait_for(lock, std::chrono::microseconds(config_.call_limit_us),
                                         [&] { return call.done; });
    calls_.erase(number);
    if (!done) return make_error(Code::timeout, "wait for the stream manager of this node");
    if (call.answer.is_null()) {
        return ghost::sys_error_of(ENOTCONN,
                                   "finish a request: the stream manager of this node has ended",
                                   "", Code::peer_lost);
    }
    if (call.answer.contains("error")) return error_of(call.answer["error"]);
    return std::move(call.answer);
}

Result<nlohmann::json> Node::ask(const Change& change, std::optional<Entry>* entry) {
    auto answer = call({{"t", "ask"}, {"change", to_json(change)}});
    if (!answer) return answer.error();
    if (entry && answer->contains("entry")) {
        auto read = entry_from_json(answer->at("entry"));
        if (!read) return read.error();
        *entry = std::move(*read);
    }
    return answer;
}

// --- channels ---

Result<std::vector<std::pair<std::string, std::string>>> Node::nodes() {
    auto answer = call({{"t", "nodes"}});
    if (!answer) return answer.error();
    std::vector<std::pair<std::string, std::string>> out;
    for (const Json& node : answer->value("nodes", Json::array())) {
        out.emplace_back(node.at(0).get<std::string>(), node.at(1).get<std::string>());
    }
    return out;
}

Status Node::open_channel(uint16_t channel) {
    GHOST_TRY(call({{"t", "channel"}, {"channel", channel}}));
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
    GHOST_TRY(call({{"t", "send"},
                    {"node", node},
                    {"channel", channel},
                    {"type", type},
                    {"bytes", to_hex(bytes)}}));
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
