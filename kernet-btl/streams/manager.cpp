// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/streams/manager.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <fmt/format.h>
#include <sodium.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>

#include "base/clock.hpp"
#include "base/encoding.hpp"
#include "base/log.hpp"
#include "base/own_file.hpp"

namespace kernet {

namespace {

using ghost::Code;
using ghost::decode_hex;
using ghost::encode_hex;
using ghost::make_error;

constexpr int64_t tick_us = 200'000;
constexpr int64_t settle_limit_us = 2'000'000;
constexpr size_t max_waiting = 4096;  // messages for one process that does not read them
constexpr int accepted_at_once = 32;  // then others get their turn
constexpr int id_timer = -1, id_listener = -2;

// JSON holds text only.
uint64_t random_number() {
    uint64_t number;
    randombytes_buf(&number, sizeof number);
    return number;
}

}  // namespace

namespace {

// The socket that a manager left that was killed keeps nobody from listening; one that lives does.
Status take_address(const std::string& address, ghost::Fd& lock) {
    if (address.empty() || address[0] == '@') return {};
    auto own = ghost::open_own_file(address + ".lock", O_RDWR | O_CREAT);
    if (!own) return {};  // a folder that the user has named: it is for him to say what is there
    if (::flock(own->get(), LOCK_EX | LOCK_NB) != 0)
        return make_error(Code::busy, "listen at", address, "another manager does");
    struct stat there {};
    if (::lstat(address.c_str(), &there) == 0 && S_ISSOCK(there.st_mode)) ::unlink(address.c_str());
    lock = std::move(*own);
    return {};
}

}  // namespace

std::string default_manager_address() {
    const char* named = std::getenv("KERNET_MANAGER");
    if (named && *named) return named;
    // nobody else can make a socket there
    auto folder = ghost::private_folder();
    return folder ? *folder + "/kernet.sock" : "";
}

Manager::Manager(const ManagerConfig& config)
    : config_(config),
      directory_(config.self, static_cast<int>(config.node_names.size()), random_number(), *this) {}

Manager::~Manager() = default;

Result<std::unique_ptr<Manager>> Manager::create(const ManagerConfig& config,
                                                 ghost::ControlListener listening) {
    if (sodium_init() < 0) return make_error(Code::unsupported, "initialise libsodium");
    if (config.self < 0 || config.self >= static_cast<int>(config.node_names.size()) ||
        config.node_names.size() >= 1u << (32 - process_bits)) {
        return make_error(Code::invalid, "find this node among the nodes");
    }
    std::unique_ptr<Manager> manager(new Manager(config));
    GHOST_TRY(manager->open(std::move(listening)));
    return manager;
}

Status Manager::open(ghost::ControlListener listening) {
    listener_ = std::move(listening);
    if (!listener_.valid()) {
        GHOST_TRY(take_address(config_.address, lock_));
        auto made = ghost::ControlListener::listen(config_.address);
        if (!made) return made.error();
        listener_ = std::move(*made);
    }
    epoll_.reset(epoll_create1(EPOLL_CLOEXEC));
    timer_.reset(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    if (!epoll_ || !timer_) return ghost::sys_error("open the manager's descriptors");
    itimerspec every{{0, tick_us * 1000}, {0, 1}};
    timerfd_settime(timer_.get(), 0, &every, nullptr);
    epoll_event event{};
    event.events = EPOLLIN;
    for (auto [id, fd] : {std::pair(id_timer, timer_.get()), {id_listener, listener_.fd()}}) {
        event.data.fd = id;
        if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
            return ghost::sys_error("watch the manager's descriptors");
        }
    }
    // So that a manager that begins again does not give numbers of before.
    next_process_ = static_cast<uint32_t>(random_number()) & ((1u << process_bits) - 1);
    began_at_ = ghost::monotonic_us();
    return {};
}

void Manager::service() {
    epoll_event events[64];
    const int count = epoll_wait(epoll_.get(), events, 64, 0);
    for (int i = 0; i < count; i++) {
        const int id = events[i].data.fd;
        if (id == id_timer) {
            uint64_t ignored;
            if (::read(timer_.get(), &ignored, sizeof ignored) > 0) tick();
        } else if (id == id_listener) {
            accept_all();
        } else {
            client_event(id, events[i].events);
        }
    }
    settle();
    drop_broken();
    watch_listener();
}

// While nobody is let in it stays readable. It is looked at again in the next tick.
void Manager::watch_listener() {
    const bool open = listener_.door().is_open(ghost::monotonic_us());
    if (open == listener_watched_) return;
    listener_watched_ = open;
    epoll_event event{};
    event.events = open ? EPOLLIN : 0u;
    event.data.fd = id_listener;
    epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, listener_.fd(), &event);
}

// Until it has tried to reach all others, a manager may think it is alone.
void Manager::settle() {
    if (settled_ || !channel_) return;
    const bool late = ghost::monotonic_us() - began_at_ > settle_limit_us;
    for (int node = 0; node < static_cast<int>(config_.node_names.size()) && !late; node++) {
        if (channel_->state(node) == NodeState::unknown) return;
    }
    for (int node = 0; node < static_cast<int>(config_.node_names.size()); node++) {
        if (channel_->state(node) == NodeState::unknown) {
            node_changed(node, NodeState::unreachable);
        }
    }
    settled_ = true;
    for (auto& [fd, client] : clients_) client_event(fd, EPOLLIN);
}

// --- processes ---

void Manager::accept_all() {
    for (int i = 0; i < accepted_at_once; i++) {
        auto accepted = listener_.accept();
        if (!accepted) return;
        const int fd = accepted->fd();
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.fd = fd;
        if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) continue;
        const auto out =
            listener_.door().enter(static_cast<uint64_t>(fd), {}, ghost::monotonic_us());
        if (out) clients_.at(static_cast<int>(*out)).broken = true;
        clients_[fd].socket = std::move(*accepted);
        processes_changed_++;
        client_event(fd, 0);  // who spoke at once is done with at once
    }
}

std::vector<pid_t> Manager::processes() const {
    std::vector<pid_t> out;
    for (const auto& [fd, client] : clients_) out.push_back(client.socket.peer_pid());
    return out;
}

Manager::Client* Manager::client_of(uint32_t process) {
    const auto found = by_process_.find(process);
    return found == by_process_.end() ? nullptr : &clients_.at(found->second);
}

void Manager::client_event(int fd, uint32_t events) {
    const auto found = clients_.find(fd);
    if (found == clients_.end()) return;
    Client& client = found->second;
    if (events & EPOLLOUT) flush(client);
    while ((settled_ || client.process == 0) && !client.broken) {
        auto message = client.socket.receive(0);
        if (!message) {
            client.broken |= message.error().code != Code::timeout;
            return;
        }
        client.broken |= !take(client, message->text);
    }
    if (events & (EPOLLHUP | EPOLLERR)) client.broken = true;
}

bool Manager::take(Client& client, const std::string& packet) {
    std::string answer;
    const auto message = client.reader.read(packet, answer);
    const bool hello = message && message->is<ProcessHello>();
    if (client.process == 0 && !hello) return false;
    if (!answer.empty()) send_text(client, std::move(answer));
    if (!message) return true;
    switch (message->type<ToManager>()) {
        case ToManager::hello:
            this->hello(client, message->as<ProcessHello>());
            return client.process != 0;
        case ToManager::ask:
            ask(client, message->as<AskManager>());
            return true;
        case ToManager::channel:
            channel_open(client, message->as<OpenChannel>());
            return true;
        case ToManager::send:
            channel_send(client, message->as<SendByChannel>());
            return true;
        case ToManager::nodes:
            list_nodes(client, message->as<ListNodes>());
            return true;
    }
    return false;
}

// A process that had a number before this manager began again keeps it.
void Manager::hello(Client& client, const ProcessHello& message) {
    const auto own = static_cast<uint32_t>(config_.self) << process_bits;
    uint32_t process = message.process;
    if (client.process != 0 || (process != 0 && (process >> process_bits != own >> process_bits ||
                                                 by_process_.count(process)))) {
        client.broken = true;
        return;
    }
    while (process == 0 || by_process_.count(process)) {
        process = own | (++next_process_ & ((1u << process_bits) - 1));
        if (process == own) process = 0;
    }
    client.process = process;
    by_process_[process] = client.socket.fd();
    listener_.door().leave(static_cast<uint64_t>(client.socket.fd()));
    tell(client, ManagerWelcome{process, config_.cluster, config_.self,
                                config_.node_names[static_cast<size_t>(config_.self)],
                                config_.secret_hex, config_.if_include, config_.filters});
}

void Manager::ask(Client& client, const AskManager& message) {
    Change change = as_meant(message.change);
    if (change.operation == Operation::node_left || change.operation == Operation::lost) {
        return refuse(client, message.n, make_error(Code::refused, "speak for a node"));
    }
    change.where.rank = client.process;
    change.where.node = config_.self;
    asked_[++token_] = {client.process, message.n};
    directory_.request(token_, std::move(change));
}

void Manager::answer(uint64_t token, const Status& status, uint16_t socket, const Entry* entry) {
    const auto found = asked_.find(token);
    if (found == asked_.end()) return;
    const Asked asked = found->second;
    asked_.erase(found);
    Client* client = client_of(asked.process);
    if (!client) return;
    ManagerAnswer message{asked.number, socket, std::nullopt, std::nullopt, {}};
    if (!status) message.error = sent(status.error());
    if (entry) {
        message.entry = sent(*entry);
        const auto acts = [&](const SocketEntry& one) {
            return one.state == SocketState::attached && one.where.rank == asked.process;
        };
        if (std::any_of(entry->sockets.begin(), entry->sockets.end(), acts))
            interested_[entry->id].insert(asked.process);
    }
    tell(*client, message);
}

// The processes here that act on the stream, and those that did until now.
void Manager::changed(const Entry& entry) {
    std::set<uint32_t> now;
    for (const SocketEntry& socket : entry.sockets) {
        if (socket.state == SocketState::attached && socket.where.node == config_.self) {
            now.insert(socket.where.rank);
        }
    }
    std::set<uint32_t> told = now;
    const auto before = interested_.find(entry.id);
    if (before != interested_.end()) told.insert(before->second.begin(), before->second.end());
    Entry map = entry;
    map.answered.clear();
    const NewMap message{sent(map)};
    for (uint32_t process : told) {
        if (Client* client = client_of(process)) tell(*client, message);
    }
    if (now.empty()) {
        interested_.erase(entry.id);
    } else {
        interested_[entry.id] = std::move(now);
    }
}

void Manager::refuse(Client& client, uint64_t number, const ghost::Error& error) {
    tell(client, ManagerAnswer{number, 0, sent(error), std::nullopt, {}});
}

void Manager::send_text(Client& client, std::string text) {
    client.waiting.push_back(std::move(text));
    if (client.waiting.size() > max_waiting ||
        client.waiting.back().size() > ghost::control_packet_limit) {
        ghost::log::error("manager: process {} does not listen: given up", client.process);
        client.broken = true;
    }
    flush(client);
}

void Manager::flush(Client& client) {
    const bool before = !client.waiting.empty();
    while (!client.waiting.empty() && !client.broken) {
        const std::string& text = client.waiting.front();
        const ssize_t sent =
            ::send(client.socket.fd(), text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0 && errno == EAGAIN) break;
        if (sent < 0) client.broken = true;
        client.waiting.pop_front();
    }
    if (!before) return;
    epoll_event event{};
    event.events = EPOLLIN | (client.waiting.empty() ? 0u : uint32_t{EPOLLOUT});
    event.data.fd = client.socket.fd();
    epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, client.socket.fd(), &event);
}

void Manager::drop_broken() {
    for (auto at = clients_.begin(); at != clients_.end();) {
        if (!at->second.broken) {
            ++at;
            continue;
        }
        listener_.door().leave(static_cast<uint64_t>(at->first));
        const Client client = std::move(at->second);
        at = clients_.erase(at);
        processes_changed_++;
        for (uint16_t channel : client.channels) channels_.erase(channel);
        if (client.process == 0) continue;
        by_process_.erase(client.process);
        process_lost(client.process);
    }
}

void Manager::process_lost(uint32_t process) {
    ghost::log::info("manager: process {:x} has ended", process);
    std::vector<Change> changes;
    for (const auto& [id, entry] : directory_.replicas()) {
        for (size_t number = 0; number < entry.sockets.size(); number++) {
            const SocketEntry& socket = entry.sockets[number];
            if (socket.state != SocketState::attached || socket.where.rank != process) continue;
            Change change;
            change.operation = Operation::lost;
            change.id = id;
            change.socket = static_cast<uint16_t>(number);
            change.incarnation = socket.incarnation;
            changes.push_back(change);
        }
    }
    for (const Change& change : changes) directory_.request(0, change);
}

// Processes that ended while there was no manager here, or before they were told that they have a
// socket.
void Manager::sweep_processes() {
    if (ghost::monotonic_us() - began_at_ < config_.grace_us) return;
    std::set<uint32_t> missing;
    for (const auto& [id, entry] : directory_.replicas()) {
        for (const SocketEntry& socket : entry.sockets) {
            if (socket.state == SocketState::attached && socket.where.node == config_.self &&
                !by_process_.count(socket.where.rank)) {
                missing.insert(socket.where.rank);
            }
        }
    }
    for (uint32_t process : missing) process_lost(process);
}

// --- nodes ---

void Manager::send(int manager, const std::string& message) {
    if (Status sent = channel_->send(manager, channel_directory, 1, message, 0); !sent) {
        ghost::log::debug("manager: {}", sent.error().message());
    }
}

bool Manager::message(int from, uint16_t channel, uint16_t type, std::string_view bytes) {
    if (channel != channel_directory) return give(from, channel, type, bytes);
    directory_.receive(from, bytes);
    return true;
}

void Manager::node_changed(int node, NodeState state) {
    if (state == NodeState::up) {
        away_since_.erase(node);
        directory_.manager_up(node);
        return;
    }
    away_since_.emplace(node, ghost::monotonic_us());
    directory_.manager_lost(node, state == NodeState::gone);
}

void Manager::tick() {
    const int64_t now = ghost::monotonic_us();
    for (const auto& [node, since] : away_since_) {
        if (now - since > config_.grace_us) directory_.node_left(node);
    }
    for (const uint64_t late : listener_.door().late(now))
        clients_.at(static_cast<int>(late)).broken = true;
    if (!settled_) return;
    directory_.tick();
    sweep_processes();
}

// --- channels ---

void Manager::channel_open(Client& client, const OpenChannel& message) {
    const uint16_t channel = message.channel;
    if (channel < first_user_channel || !channels_.emplace(channel, client.process).second) {
        return refuse(
            client, message.n,
            make_error(Code::refused, "take messages of channel", std::to_string(channel),
                       fmt::format("below {} they are not yours, and each has one taker on a node",
                                   first_user_channel)));
    }
    client.channels.insert(channel);
    tell(client, ManagerAnswer{message.n, 0, std::nullopt, std::nullopt, {}});
}

void Manager::channel_send(Client& client, const SendByChannel& message) {
    const auto& [number, name, channel, type, hex] = message;
    const auto bytes = decode_hex(hex);
    const auto& names = config_.node_names;
    const auto node = std::find(names.begin(), names.end(), name) - names.begin();
    if (channel < first_user_channel || !bytes) {
        return refuse(client, number,
                      make_error(Code::invalid, "send by channel", std::to_string(channel)));
    }
    if (node == static_cast<long>(names.size())) {
        return refuse(client, number, make_error(Code::not_found, "find node", name));
    }
    asked_[++token_] = {client.process, number};
    if (node == config_.self) {
        const bool taken = give(config_.self, channel, type, *bytes);
        return delivered(token_, taken ? Status{}
                                       : make_error(Code::refused, "deliver to", name,
                                                    "nobody takes messages of this channel"));
    }
    const Status sent = channel_->send(static_cast<int>(node), channel, type, *bytes, token_);
    if (!sent) delivered(token_, sent);
}

void Manager::delivered(uint64_t number, const Status& status) {
    answer(number, status, 0, nullptr);
}

bool Manager::give(int from, uint16_t channel, uint16_t type, std::string_view bytes) {
    const auto taker = channels_.find(channel);
    Client* client = taker == channels_.end() ? nullptr : client_of(taker->second);
    if (!client || client->broken) return false;
    tell(*client, ChannelArrived{config_.node_names[static_cast<size_t>(from)], channel, type,
                                 encode_hex(bytes)});
    return !client->broken;
}

void Manager::list_nodes(Client& client, const ListNodes& message) {
    ManagerAnswer answer{message.n, 0, std::nullopt, std::nullopt, {}};
    for (size_t node = 0; node < config_.node_names.size(); node++) {
        answer.nodes.push_back(
            {config_.node_names[node], node_state_name(channel_->state(static_cast<int>(node)))});
    }
    tell(client, answer);
}

}  // namespace kernet
