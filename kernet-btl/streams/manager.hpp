// SPDX-License-Identifier: BSD-3-Clause
// The stream manager of a node (RR-4987, 3.1): its processes' requests, its part of the directory,
// the location maps it gives to the processes acting on a stream, and their channels.
//
// Belongs to `kernetd`, or to whatever else runs on a node for the length of a job: it needs an
// event loop (fd(), service()) and a Channel to the other managers. It is not on the path of any
// data. One thread.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <sys/types.h>
#include <vector>

#include "base/control_socket.hpp"
#include "kernet-btl/streams/channel.hpp"
#include "kernet-btl/streams/directory.hpp"

namespace kernet {

inline constexpr uint16_t channel_directory = 1;
inline constexpr uint16_t first_user_channel = 16;
// A process's number: that of its node's manager, then one of its own.
inline constexpr uint32_t process_bits = 20;

struct ManagerConfig {
    int self = 0;
    std::vector<std::string> node_names;
    std::string cluster;
    std::string secret_hex;
    std::string address;           // Unix socket for processes; "@name" or a path
    std::string if_include;        // network interfaces of the processes' links; see EndpointConfig
    std::string filters;           // of all streams; see EndpointConfig
    int64_t grace_us = 5'000'000;  // how long a node may be away before its sockets are lost
};

// Where processes find their node's manager if nobody says otherwise ($KERNET_MANAGER).
std::string default_manager_address();

class Manager final : public ChannelListener, private DirectoryPort {
  public:
    // Takes processes from the first service() on: at config.address, or those that have come to
    // `listening` if that is valid. Code::invalid, Code::io.
    static Result<std::unique_ptr<Manager>> create(const ManagerConfig& config,
                                                   ghost::ControlListener listening = {});
    ~Manager() override;
    // Before the first service(); outlives this object or is taken away by nullptr.
    void set_channel(Channel* channel) { channel_ = channel; }

    int fd() const { return epoll_.get(); }
    void service();
    // It is known of every node whether it can be reached: requests are carried out from now on.
    bool settled() const { return settled_; }
    // The processes connected, as this process sees their ids. How often that has changed so far.
    std::vector<pid_t> processes() const;
    uint64_t processes_changed() const { return processes_changed_; }
    // Streams whose changes processes here are told.
    size_t followed() const { return interested_.size(); }

    // ChannelListener
    bool message(int from, uint16_t channel, uint16_t type, std::string_view bytes) override;
    void delivered(uint64_t number, const Status& status) override;
    void node_changed(int node, NodeState state) override;

  private:
    struct Client {
        ghost::ControlSocket socket;
        uint32_t process = 0;  // 0: it has not said hello
        ghost::schema::Reader reader{to_manager, "a process"};
        std::deque<std::string> waiting;
        std::set<uint16_t> channels;
        bool broken = false;
    };
    struct Asked {
        uint32_t process = 0;
        uint64_t number = 0;  // the process's own, of the request
    };

    explicit Manager(const ManagerConfig& config);
    // DirectoryPort
    void send(int manager, const std::string& message) override;
    void answer(uint64_t token, const Status& status, uint16_t socket, const Entry* entry) override;
    void changed(const Entry& entry) override;

    Status open(ghost::ControlListener listening);
    void accept_all();
    void watch_listener();
    void client_event(int fd, uint32_t events);
    bool take(Client& client, const std::string& packet);
    void hello(Client& client, const ProcessHello& message);
    void ask(Client& client, const AskManager& message);
    void channel_open(Client& client, const OpenChannel& message);
    void channel_send(Client& client, const SendByChannel& message);
    void list_nodes(Client& client, const ListNodes& message);
    bool give(int from, uint16_t channel, uint16_t type, std::string_view bytes);
    template <typename Message>
    void tell(Client& client, const Message& message) {
        send_text(client, ghost::schema::encode(message));
    }
    void send_text(Client& client, std::string text);
    void flush(Client& client);
    void refuse(Client& client, uint64_t number, const ghost::Error& error);
    void drop_broken();
    void process_lost(uint32_t process);
    void tick();
    void settle();
    void sweep_processes();
    Client* client_of(uint32_t process);

    ManagerConfig config_;
    Channel* channel_ = nullptr;
    Directory directory_;
    ghost::Fd lock_;  // of the path it listens at
    ghost::ControlListener listener_;
    ghost::Fd epoll_, timer_;
    std::map<int, Client> clients_;          // by descriptor
    std::map<uint32_t, int> by_process_;     // descriptor
    std::map<uint16_t, uint32_t> channels_;  // who takes their messages
    std::map<uint64_t, Asked> asked_;
    std::map<StreamId, std::set<uint32_t>> interested_;
    std::map<int, int64_t> away_since_;
    uint64_t token_ = 0;
    uint32_t next_process_ = 0;
    uint64_t processes_changed_ = 0;
    int64_t began_at_ = 0;
    bool settled_ = false;
    bool listener_watched_ = true;
};

}  // namespace kernet
