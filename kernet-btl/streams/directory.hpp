// SPDX-License-Identifier: BSD-3-Clause
// The directory of streams, as one manager has it: distributed, replicated, versioned
// (RR-4987, 3.1).
//
// Every stream has a *home*, the live manager that comes first by a hash of both (rendezvous
// hashing), which alone changes its entry. A change counts when every live manager that keeps a
// replica has taken it: those of the nodes acting on the stream, and as many of the next by hash
// as make a quorum. When the home goes, the next one by hash asks all for what they have (which
// fences off what the old one may still write), takes the latest, and goes on.
//
// Pure logic: no I/O, no clock, no thread; one caller at a time. Messages may be lost when a
// manager is, and are otherwise in order between two managers. A manager that sees less than half
// of those that have not gone for good changes nothing.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "kernet-btl/streams/messages.hpp"

namespace kernet {

// What the directory needs around it.
class DirectoryPort {
  public:
    virtual ~DirectoryPort() = default;
    // To another manager, a message of between_managers; lost if there is no connection.
    virtual void send(int manager, const std::string& message) = 0;
    // A request of this node has been carried out (entry: its state then) or not. `socket` is the
    // number of the socket concerned.
    virtual void answer(uint64_t token, const Status& status, uint16_t socket,
                        const Entry* entry) = 0;
    // The replica here is new or has changed: the location map of the processes acting on it.
    virtual void changed(const Entry& entry) = 0;
};

class Directory {
  public:
    // self: this manager's number, below `managers`. incarnation: differs between two lives of it.
    Directory(int self, int managers, uint64_t incarnation, DirectoryPort& port);
    Directory(const Directory&) = delete;
    Directory& operator=(const Directory&) = delete;

    // --- the view of the other managers ---
    void manager_up(int manager);
    // No connection. gone: it is known to have ended, so it no longer counts for a quorum.
    void manager_lost(int manager, bool gone);
    // Its processes are lost for good as well; until manager_up().
    void node_left(int node);
    bool quorum() const { return is_quorum(live_); }
    int home(StreamId id) const;

    // --- requests of this node; the answer comes by the port, also from inside this call ---
    // token 0: no answer is wanted. limit: number of ticks after which it ends with Code::timeout.
    void request(uint64_t token, Change change, uint32_t limit = 50);
    // Call regularly, every 200 ms: asks again where an answer may have been lost.
    void tick();

    void receive(int from, std::string_view message);
    const std::map<StreamId, Entry>& replicas() const { return replicas_; }
    // Streams of which something is remembered, with replicas and without: of those that have
    // ended, or are others', only so many.
    size_t remembered() const { return fences_.size(); }

  private:
    struct Pending {  // origin's side
        uint64_t token = 0;
        Change change;
        uint32_t ticks_left = 0;
    };
    struct Work {  // home's side
        int from = -1;
        std::string request;
        Change change;
    };
    // What the home does with one stream.
    enum class Step : uint8_t {
        unowned,     // nothing known yet, or another manager took over
        collecting,  // asks all live managers what they have
        idle,        // the entry is here and is the latest
        writing,     // waits for the replicas to take `next`
    };
    struct Owner {
        Step step = Step::unowned;
        uint64_t nonce = 0;  // of the step, so that late answers are known
        uint64_t term = 0;
        std::set<int> waiting, agreed;
        std::set<int> holders;  // managers that have a replica
        Entry entry;            // id 0: no such stream
        Entry next;
        std::optional<Work> current;
        Status result;  // of `current`, and the socket concerned
        uint16_t socket = 0;
        std::deque<Work> queue;
    };

    // directory.cpp
    template <typename Message>
    void post(int to, ManagerMessage type, Message message);
    void run();
    void handle(int from, const ghost::schema::Received& message);
    void ask_home(const std::string& request, const Pending& pending);
    void on_answer(const HomeAnswer& message);
    void on_get(int from, const GetEntry& message);
    void on_put(int from, const PutEntry& message);
    void on_drop(const DropEntry& message);
    bool store(const Entry& entry);
    uint64_t& fence_of(StreamId id);
    void forget_fences();
    void forget_tombstones();
    void view_changed();
    void replicate_again();
    void sweep_left_nodes();
    void ask_on_own_account(const Change& change);
    std::vector<int> by_hash(StreamId id) const;
    bool is_quorum(const std::set<int>& managers) const;
    std::set<int> keepers(const Entry& entry) const;

    // directory_home.cpp
    bool change(Owner& owner, Step next);
    void on_ask(int from, const AskHome& message);
    void on_have(int from, const HaveEntry& message);
    void on_took(int from, const TookEntry& message);
    void advance(StreamId id, Owner& owner);
    void collect(StreamId id, Owner& owner);
    void collected(StreamId id, Owner& owner);
    void begin(StreamId id, Owner& owner, Work work);
    void write(StreamId id, Owner& owner);
    void written(StreamId id, Owner& owner);
    void step_down(Owner& owner);
    void overtaken(StreamId id, uint64_t term);
    void reply(const Work& work, const Status& status, uint16_t socket, const Entry* entry);
    void home_tick();
    void home_lost(int manager);

    const int self_;
    const int managers_;
    const uint64_t incarnation_;
    DirectoryPort& port_;
    std::set<int> live_;     // connected, and this one
    std::set<int> members_;  // not gone
    std::set<int> left_;     // nodes whose processes are lost
    std::map<StreamId, Entry> replicas_;
    std::map<StreamId, uint64_t> fences_;  // writes of lower terms are refused
    std::deque<StreamId> bare_;            // fences that may have no replica, the oldest first
    std::deque<StreamId> tombstones_;
    std::map<std::string, Pending> pending_;
    std::map<StreamId, Owner> owners_;
    std::deque<ghost::schema::Received> inbox_;     // of messages to this manager itself
    std::map<int, ghost::schema::Reader> readers_;  // of what the others say
    bool running_ = false;
    uint64_t counter_ = 0;
};

template <typename Message>
void Directory::post(int to, ManagerMessage type, Message message) {
    const auto& which = between_managers.messages[static_cast<size_t>(type)];
    if (to != self_) return port_.send(to, ghost::schema::encode_as(which, &message));
    inbox_.emplace_back(which, std::make_shared<Message>(std::move(message)));
}

}  // namespace kernet
