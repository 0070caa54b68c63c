// SPDX-License-Identifier: BSD-3-Clause
// A daemon's part in the streams of its job's processes (docs/PROTOCOL.md, "Streams of kernet.h"):
// the address at which they look for their node's stream manager, and that manager.
//
//   closed ─ the job is known ─► waiting ─ a process comes ─► asking ─┐
//                                   └──── the coordinator's word ─────┴► told ─ list ─► managing
//   and from each of them, when something fails, `failed`; at the end `stopped`
//
// Until the first process of the job comes to one of the daemons this is an address to listen at,
// and nothing else: no thread, no port, no connection.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <sys/types.h>

#include "base/control_socket.hpp"
#include "base/fd.hpp"
#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"
#include "pmix-plugin/streams/manager_thread.hpp"

namespace ghost::plugin {

enum class StreamsState {
    closed,    // the job's number is not known yet
    waiting,   // processes may come
    asking,    // one has: the coordinator is asked to begin
    told,      // managers may connect to this one; the list of them is awaited
    managing,  // the manager runs
    failed,    // no streams on this node: who comes is turned away
    stopped,
};

// Times are microseconds.
struct NodeStreamsSettings {
    int64_t listen_retry_us = 50'000;  // until the job's number is known
};

// Owned by the plugin; used on the loop only. The adapter must outlive it.
class NodeStreams {
  public:
    NodeStreams(StreamsRuntime& adapter, NodeStreamsSettings settings);
    ~NodeStreams();
    NodeStreams(const NodeStreams&) = delete;
    NodeStreams& operator=(const NodeStreams&) = delete;

    // Registers with the adapter and listens as soon as the job's number is known.
    void start();
    // Listens if that was not possible yet; before the first rank is forked. Idempotent.
    void listen_now();
    // Ends the manager. May be called twice.
    void stop();

    StreamsState state() const;
    // Why the tree under this init cannot leave the node: one of its processes has streams. Empty:
    // none has.
    std::string why_tied(pid_t init) const;

  private:
    class Impl;
    std::shared_ptr<Impl> impl_;
};

}  // namespace ghost::plugin
