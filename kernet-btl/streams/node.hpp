// SPDX-License-Identifier: BSD-3-Clause
// A process's part in streams: its connection to the node's stream manager, its endpoint for data,
// and the sockets attached to it. What kernet.h offers, in C++; docs/KERNET.md explains it.
//
// Any number of threads may call. One thread of its own answers links and manager, so that peers
// and moves never wait for the application. What is behind a socket number is touched inside the
// gate of the data path only; calls to the manager are made outside of it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <sys/uio.h>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/control_socket.hpp"
#include "kernet-btl/transport/datapath.hpp"
#include "kernet-btl/transport/endpoint.hpp"
#include "kernet-btl/streams/messages.hpp"
#include "kernet-btl/streams/stream_socket.hpp"

namespace kernet {

struct NodeConfig {
    std::string manager;                  // its address; "": default_manager_address()
    size_t keep_bytes = 8 * 1024 * 1024;  // of a socket, for the others, before send() waits
    int64_t call_limit_us = 15'000'000;   // a request to the managers
    // A waiting call looks so long (if that has been worth it lately); then, if messages may come
    // by a ring, which wakes nobody, it gives the processor away between two looks, so long; then
    // it sleeps.
    int64_t spin_us = 50, yield_us = 250;
    bool use_shm = true, use_tcp = true;
};

// What streams of a class have in common (RR-4987, section 4).
struct StreamClass {
    std::string name;
    StreamType type = StreamType::direct;
    uint16_t sockets = 2;  // 0: as many as ask (FIFO, LIFO)
    std::string filters;
};

enum SocketReady : unsigned {
    ready_read = 1,   // receive() gives something, or says why nothing more comes
    ready_write = 2,  // send() takes something, or says why nothing more goes
    ready_end = 4,    // the other end has left or is lost
};

struct ChannelMessage {
    std::string from;  // node
    uint16_t type = 0;
    std::string bytes;
};

class Node final : private StreamHost, private Receiver {
  public:
    // Code::io or not_found: there is no manager at that address.
    static Result<std::unique_ptr<Node>> open(const NodeConfig& config);
    // Gives all sockets back; what is not taken yet is lost.
    ~Node() override;
    Node(const Node&) = delete;
    Node& operator=(const Node&) = delete;

    uint32_t process() const { return process_; }
    const std::string& name() const { return name_; }
    // Readable when something has changed at a socket or a channel since poll() was last called.
    int fd() const {
        fd_used_ = true;
        return changed_fd_.get();
    }

    // --- streams ---
    uint32_t add_class(const StreamClass& properties);  // its descriptor
    Result<StreamId> create(uint32_t class_descriptor);
    Result<StreamId> create(const StreamClass& properties);
    Status destroy(StreamId stream);
    Result<Entry> look(StreamId stream);

    // --- sockets; numbers of this process. timeout_us < 0: for ever, 0: not at all ---
    Result<uint32_t> attach(StreamId stream, uint8_t role = role_reader | role_writer);
    // Until all sockets of the stream are attached. Code::timeout, peer_lost.
    Status wait(uint32_t socket, int64_t timeout_us);
    // The socket is no longer this process's; whoever has the handle, on any node, wakes it up.
    Result<std::string> suspend(uint32_t socket);
    Result<uint32_t> wakeup(const std::string& sealed);
    // For good. Waits until the other ends have taken what was sent (Code::timeout: the socket is
    // still attached); linger_us 0 drops it.
    Status unattach(uint32_t socket, int64_t linger_us);
    // One message. Code::busy (timeout 0) or timeout: nothing was sent; peer_lost: nobody will
    // receive; invalid; not_found.
    Status send(uint32_t socket, const iovec* parts, size_t count, int64_t timeout_us);
    // One message, whole: Code::invalid with its size in `size` if it does not fit. In byte mode
    // what is there, up to the room. peer_lost: nothing more will come.
    Status receive(uint32_t socket, const iovec* parts, size_t count, int64_t timeout_us,
                   size_t& size);
    Status set_byte_mode(uint32_t socket, bool on);
    // SocketReady bits, of each; waits until one has some of the wanted. Returns how many do.
    struct Polled {
        uint32_t socket = 0;
        unsigned wanted = 0;
        unsigned ready = 0;  // out; not_found: all bits
    };
    size_t poll(Polled* sockets, size_t count, int64_t timeout_us);

    // --- channels (section 5) ---
    Result<std::vector<std::pair<std::string, std::string>>> nodes();  // names and states
    Status open_channel(uint16_t channel);                             // one taker on a node
    // Until the taker's node has it. Code::refused: nobody takes it; peer_lost, not_found.
    Status send_channel(const std::string& node, uint16_t channel, uint16_t type,
                        std::string_view bytes);
    Result<ChannelMessage> receive_channel(uint16_t channel, int64_t timeout_us);

  private:
    using Json = nlohmann::json;
    struct Slot {
        std::unique_ptr<StreamSocket> stream;
        bool leaving = false;  // being suspended or unattached
        bool bytes = false;    // byte mode
        size_t waiting = 0;    // callers in receive()
        BodyPtr rest;          // byte mode: the message that is not all taken
        size_t offset = 0;     // of it, taken
    };
    struct Call {
        bool done = false;
        std::optional<ManagerAnswer> answer;
    };
    struct Local {
        wire::StreamHeader header;
        BodyPtr body;
    };
    struct Orphan {
        Local message;
        int64_t at = 0;
    };

    explicit Node(const NodeConfig& config) : config_(config) {}
    // node.cpp
    Status begin();
    Gate& gate() { return path_->gate(); }
    int progress();
    int progress_inside();
    void run_local();
    Slot* slot(uint32_t socket);
    template <typename Attempt>
    Status block(int64_t timeout_us, Attempt attempt);
    Result<uint32_t> join(Change change, const Json* state, bool bytes);
    Result<uint32_t> adopt(const Entry& entry, uint16_t number, const Json* state, bool bytes);
    bool has_part_in(StreamId stream) const;
    void remove(uint32_t socket);
    unsigned readiness(Slot& slot);
    Status end_status(const StreamSocket& stream, const char* tried) const;
    bool copy_out(Slot& slot, const iovec* parts, size_t count, size_t& size, Status& status);
    Result<std::string> make_handle(const StreamSocket& stream, uint64_t key,
                                    const Slot& slot) const;
    void take_map(const Entry& entry);
    void forget_process(uint32_t process);

    // StreamHost
    void send_message(uint32_t process, const wire::StreamHeader& header,
                      const BodyPtr& body) override;
    void know(const Location& where) override;
    void woken() override;
    bool back_off(uint64_t seen, int64_t longest_us);
    int64_t spin_time();
    // Receiver
    void deliver(Socket& socket, uint8_t tag, uint8_t* bytes, size_t size) override;
    uint8_t* place(Socket& socket, uint8_t tag, const uint8_t* head, size_t head_size,
                   size_t size) override;
    void placed(Socket& socket, uint8_t tag, const uint8_t* head, size_t head_size, uint8_t* body,
                size_t size) override;
    void released(Socket& socket, void* token) override;
    void dispatch(const wire::StreamHeader& header, BodyPtr body);

    // node_service.cpp: the thread, and requests to the manager
    Result<ghost::ControlSocket> connect(uint32_t process) const;
    void serve();
    void read_manager();
    void on_message(const ghost::schema::Received& message);
    void on_answer(const ManagerAnswer& message);
    void on_arrived(const ChannelArrived& message);
    void manager_gone();
    void find_manager_again();
    void welcome_again(const ManagerWelcome& welcome);
    void tick_sockets();
    // A request with a number of its own.
    template <typename Message>
    Result<ManagerAnswer> call(Message message) {
        return call_with([&message](uint64_t number) {
            message.n = number;
            return ghost::schema::encode(message);
        });
    }
    Result<ManagerAnswer> call_with(const std::function<std::string(uint64_t number)>& text);
    Result<ManagerAnswer> ask(const Change& change, std::optional<Entry>* entry);

    NodeConfig config_;
    uint32_t process_ = 0;
    int number_ = -1;
    std::string name_, cluster_, secret_;
    std::unique_ptr<Endpoint> endpoint_;
    DataPath* path_ = nullptr;
    ghost::Fd changed_fd_, bell_;
    std::thread thread_;
    std::atomic<bool> ending_{false};

    const std::shared_ptr<BodyStore> bodies_ = std::make_shared<BodyStore>();

    // Inside the gate.
    std::map<uint32_t, Slot> slots_;
    std::map<std::pair<StreamId, uint16_t>, uint32_t> by_stream_;
    uint32_t next_slot_ = 1;
    std::deque<Local> local_;
    bool running_local_ = false;
    std::multiset<StreamId> joining_;  // of sockets whose attach is on its way
    std::deque<Orphan> orphans_;       // for those
    std::unordered_map<uint32_t, Socket*> peers_;
    std::unordered_map<Socket*, BodyPtr> arriving_;
    std::map<StreamId, Entry> maps_;  // the latest that have come
    int64_t ticked_at_ = 0;

    // What callers sleep on.
    std::mutex wait_mutex_;
    std::condition_variable wait_;
    std::atomic<uint64_t> changes_{0};
    std::atomic<uint32_t> sleepers_{0};
    // Callers in back_off(), and what they sleep on beside links: a word for each of them.
    std::atomic<uint32_t> backing_off_{0};
    ghost::Fd wake_fd_;
    std::atomic<uint32_t> in_vain_{0};  // calls that looked and had to sleep, in a row
    std::atomic<int64_t> active_at_{0};
    mutable std::atomic<bool> fd_used_{false};
    std::atomic<bool> signalled_{false};

    // Requests to the manager.
    std::mutex manager_mutex_;
    std::condition_variable answered_;
    ghost::ControlSocket manager_;
    ghost::schema::Reader manager_says_{from_manager, "the stream manager"};  // the thread's
    bool welcomed_ = false;
    std::map<uint64_t, Call*> calls_;
    uint64_t next_call_ = 1;
    int64_t retry_at_ = 0;

    std::mutex classes_mutex_;
    std::vector<StreamClass> classes_;
    std::mutex channels_mutex_;
    std::map<uint16_t, std::deque<ChannelMessage>> channels_;
};

}  // namespace kernet
