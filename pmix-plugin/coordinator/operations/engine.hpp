// SPDX-License-Identifier: BSD-3-Clause
// Carries operations out: one queue of requests from everybody (a client, a signal, PMIx, the
// schedule), those on different ranks at the same time, and every message to the one it belongs to.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "pmix-plugin/coordinator/operations/operation.hpp"

namespace ghost::plugin {

// Which ranks a request is about. No two operations are in one rank at the same time.
struct Scope {
    bool all = false;  // every rank of the job
    std::set<RankId> ranks;
    // It goes by the steps that all daemons answer together (a snapshot, a restart): one at a time.
    bool steps = false;

    bool meets(const Scope& other) const;
};

using Operations = std::vector<std::unique_ptr<Operation>>;
inline Operations one_operation(std::unique_ptr<Operation> operation) {
    Operations out;
    out.push_back(std::move(operation));
    return out;
}

// What somebody has asked for: operations, one after the other.
struct Request {
    uint64_t id = 0;     // as `ghost cancel` names it; several may have one; 0: not to be undone
    uint64_t owner = 0;  // the client who asked; 0: nobody who could leave
    std::string what;    // for the user
    Scope scope;
    // Which nodes it would burden if it began now; none: no node.
    std::function<std::set<NodeId>()> burdens;
    // Others with its id have begun: it is carried out whether or not its owner stays.
    std::function<bool()> begun;
    // The next operations, which go on at the same time; none: that was all. Called again when all
    // those before are over.
    std::function<Operations()> next;
    // It does not begin, or not go on; the reason is a sentence. Called when mpirun ends or it is
    // undone, too, if the last operation is over: then there may be nothing to say.
    std::function<void(const std::string& why)> refuse;
};

// Loop thread only; owned by the coordinator.
class Engine {
  public:
    // How many requests are carried out at the same time, at most: of all, and at each node.
    struct Limits {
        size_t at_once = 1;
        std::function<size_t(NodeId)> at_node = nullptr;  // none: no limit
    };
    // `asked` is told of every request of a client that is taken.
    Engine(EventLoop& loop, Limits limits, std::function<void(const Request&)> asked)
        : loop_(loop), limits_(std::move(limits)), asked_(std::move(asked)) {}
    ~Engine() { stop(job_has_ended); }

    // False: too many wait already (nothing of the request is called).
    bool add(Request request);
    // Refuses it then; of several all or none.
    void ask(Request request);
    void ask(std::vector<Request> requests);
    // What became of one that was to be undone.
    struct Undone {
        uint64_t id = 0;
        std::string what;
        bool undone = false;  // false: it has happened already
    };
    // Undoes what has this id; 0: all that has one. `over` is called when it has come to its end.
    void undo(uint64_t id, std::function<void(const std::vector<Undone>&)> over);
    // Forgets what `owner` has waiting, unless part of it has begun; what has begun goes on.
    void drop(uint64_t owner);
    // Of what has this id and waits nobody is told any more; how many requests that were.
    size_t forget(uint64_t id) {
        return std::erase_if(waiting_, [id](const Request& r) { return r.id == id; });
    }
    // Part of what has this id is just being undone.
    bool is_undone(uint64_t id) const {
        return std::ranges::any_of(
            running_, [id](const Running& r) { return r.undone && r.request.id == id; });
    }
    // False: no operation has this number.
    bool message(NodeId from, const schema::Received& m);
    void node_lost(NodeId node);
    // False: no operation under way ends the ranks and starts them anew.
    bool lost(const std::string& why);
    // All ranks are lost: ends every operation, and begins this request; what waits goes on
    // waiting.
    void interrupt(const std::string& why, Request request);
    // Ends all operations; nothing begins any more. Later calls do nothing.
    void stop(const std::string& why);

    size_t unfinished() const { return waiting_.size() + running_.size(); }
    // A rank's node after what is decided: `node` is where the runtime has it.
    NodeId node_of(RankId rank, NodeId node) const;
    // Where a rank that is moved now is to go.
    std::optional<NodeId> target_of(RankId rank) const;
    // Of every operation under way, in the order in which they began.
    void show(Json& ps) const;

    uint64_t next_number() { return ++last_seq_; }
    // One of them is over.
    void ended() { soon(); }

  private:
    struct Running {
        Request request;
        std::set<NodeId> burdened;
        bool undone = false;  // nothing more of it begins
        Operations operations;
        bool is_over() const {
            return std::ranges::all_of(operations, [](const auto& o) { return o->is_over(); });
        }
    };

    // Those that have begun and are not over, in that order.
    std::vector<Operation*> under_way() const {
        std::vector<Operation*> out;
        for (const Running& running : running_)
            for (const auto& one : running.operations)
                if (!one->is_over()) out.push_back(one.get());
        return out;
    }
    bool is_full() const;
    // Somebody waits now.
    void wake();
    void soon();
    void step();
    void begin_waiting();
    bool may_begin(const Request& request, const std::deque<Request>& before) const;
    bool room_at(const std::set<NodeId>& nodes) const;
    void go_on(Running& running);
    void tell_undone();
    void stop_all(const std::string& why);

    EventLoop& loop_;
    const Limits limits_;
    std::function<void(const Request&)> asked_;
    std::deque<Request> waiting_;
    std::list<Running> running_;
    struct Undoing {
        std::set<uint64_t> ids;  // that run
        std::vector<Undone> all;
        std::function<void(const std::vector<Undone>&)> over;
    };
    std::list<Undoing> undoing_;
    uint64_t last_seq_ = 0;
    bool stopped_ = false;
    bool beginning_ = false;  // what is added then waits its turn
    std::optional<TimerId> soon_;
};

}  // namespace ghost::plugin
