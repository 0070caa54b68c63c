// SPDX-License-Identifier: BSD-3-Clause
// What the two sides of a live migration say to each other, and those of any migration ahead of the
// ghost. Private to ghost-core/engine.
//
// Messages: a fixed head, then `bytes` of payload; each with its own checksum. Both sides are of
// the same architecture (the ghost's head is checked first), so structures go as they are.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "ghost-core/criu/ptrace_session.hpp"
#include "ghost-core/criu/kernel_state.hpp"
#include "ghost-core/resource/resource.hpp"

namespace ghost::core {

enum class LiveMessageType : uint32_t {
    // source to target
    ghost = 1,  // a piece of a ghost with the skeleton and the first round
    ghost_end,  // all of it
    clock,      // answer to ask_clock: ClockSample
    mappings,   // of a process: count of OwnMapping, number: heap end
    pages,      // of a process: count of PageRun, then contents
    zero,       // of a process: count of PageRun that hold zeros now, or are no longer there
    missing,    // of a process: count of PageRun that follow when it runs, in the last round
    sync,       // end of a round
    last,       // end of the last round: state follows
    state,      // of a process: count of threads; ThreadState… packed, then OpenFile…
    placement,  // how the threads are scheduled by now, as in the ghost (placement.hpp)
    settled,    // all state has come: say ready or refused
    commit,     // go on with it
    anew,       // end what is held; another ghost follows
    give_up,    // end what is held; nothing follows; payload: why
    deferred,   // of a process: contents of the PageRun that was wanted, the first of the payload
    // target to source
    ask_clock,
    held,    // the tree is there
    synced,  // after sync: count of PageRun that had no place
    ready,
    released,  // payload: ReleaseTimes
    want,      // of a process: one PageRun, of what was missing
    complete,  // payload: DeferredStats; all pages are there
    refused,   // payload: why; what was held is gone
    // source to target, ahead of it all: what the tree needs; say ready or refused (preflight.hpp)
    needs,
    // behind it, where exclusive locks of files go along (lock_handover.hpp): source to target
    lowered,  // they are shared ones now
    dropped,
    // target to source, which has heard `held`
    shared,
    taken,
    // source to target, in the last round: fields of the metadata as of the last stop
    metadata,
};

struct Head {
    uint32_t type = 0;
    int32_t inner_pid = 0;
    uint64_t count = 0;     // meaning by type
    uint64_t number = 0;    // meaning by type
    uint64_t bytes = 0;     // of payload
    uint64_t checksum = 0;  // XXH3-64 of the payload, seeded with that of what is before
};
static_assert(sizeof(Head) == 40);

inline constexpr uint64_t message_limit = 64 << 20;

// Pages that could not be made here: the source sends them again.
struct FailedRun {
    int64_t inner = 0;
    PageRun run;
};

struct ClockSample {
    int64_t monotonic_ns = 0, boottime_ns = 0;  // as the tree sees them
};
// What the tree's clocks are ahead of this machine's, time_namespaces(7); zeros if it has gone.
ClockSample tree_offsets(pid_t root);

struct ReleaseTimes {
    int64_t mappings = 0, pages = 0, state = 0, release = 0;  // µs
};

struct DeferredStats {
    uint64_t faults = 0, demand_bytes = 0;
    int64_t longest_us = 0;
};

// One thread at a time.
class LiveLink {
  public:
    explicit LiveLink(Resource& link) : link_(link) {}

    struct Message {
        Head head;
        std::string payload;
        LiveMessageType type() const { return static_cast<LiveMessageType>(head.type); }
        // Its first `count` of a type; corrupt if there are fewer.
        template <typename T>
        Result<std::vector<T>> list() const {
            if (head.count > payload.size() / sizeof(T)) return damaged();
            std::vector<T> out(head.count);
            std::memcpy(out.data(), payload.data(), head.count * sizeof(T));
            return out;
        }
        Error damaged() const;
    };

    Status send(LiveMessageType type, int inner_pid = 0, uint64_t count = 0, uint64_t number = 0,
                std::vector<iovec> payload = {});
    Status send_text(LiveMessageType type, std::string_view text);
    // peer_lost when the other side has hung up; corrupt.
    Result<Message> receive();
    // The same; an answer of the other side that it gives up is its error.
    Result<Message> expect(LiveMessageType type);

    void interrupt() { link_.interrupt(); }  // it ends for both sides
    uint64_t sent() const { return sent_; }

  private:
    Resource& link_;
    uint64_t sent_ = 0;
};

// The ghost at the begin, as a resource of its own.
class GhostPart : public Resource {
  public:
    explicit GhostPart(LiveLink& link) : link_(link) {}
    ResourceClass class_id() const override { return ResourceClass::network; }
    Status init() override { return {}; }
    Status write(const void* data, size_t size) override;
    Status write_gather(iovec* pieces, size_t count) override;
    Result<size_t> read(void* data, size_t size) override;
    Status finalize() override;
    // Another one follows in place of the rest of this one.
    bool begins_anew() const { return anew_; }
    // Nothing follows; why, in the source's words.
    const std::optional<std::string>& given_up() const { return given_up_; }

  private:
    LiveLink& link_;
    bool anew_ = false;
    std::optional<std::string> given_up_;
    std::string piece_;
    size_t used_ = 0;
    bool ended_ = false;
};

std::string pack(const std::vector<ThreadState>& threads);
Result<std::vector<ThreadState>> unpack_threads(const LiveLink::Message& message,
                                                std::string_view& rest);

// Calls the probe of set_live_probe().
void at_point(const char* point);

}  // namespace ghost::core
