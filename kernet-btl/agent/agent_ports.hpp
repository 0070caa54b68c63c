// SPDX-License-Identifier: BSD-3-Clause
// What the rank agent drives: the data path and the PMIx client, each behind a narrow interface, so
// that the agent can be tested without peers and without a PMIx server.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "kernet-btl/transport/location.hpp"

namespace kernet {

class Endpoint;

// The control side of kernet::Endpoint, same meaning call by call; only the agent's thread calls.
class DataPort {
  public:
    virtual ~DataPort() = default;
    virtual Location location() const = 0;
    virtual int service_fd() const = 0;
    virtual void service() = 0;
    virtual void close_gate() = 0;
    virtual void open_gate() = 0;
    // The gate must be closed. Something the rank does now needs it where it is.
    virtual bool stays() const = 0;
    virtual void suspend_all() = 0;
    virtual Status begin_life(const std::string& life) = 0;
    virtual Status wakeup_all(int node, const std::string& node_name, uint64_t epoch,
                              const std::vector<Location>& peers) = 0;
    virtual void set_location(const Location& location) = 0;
    virtual void on_unknown_location(std::function<void(uint32_t rank)> handler) = 0;
};

// The PMIx client (agent_pmix.h).
class PmixPort {
  public:
    virtual ~PmixPort() = default;
    // Can the client be moved at all? Code::unsupported with the reason if not.
    virtual Status supported() = 0;
    // 0: outside PMIx, else the tag of the call the process waits in. Code::busy: try again.
    virtual Result<uint32_t> gate() = 0;
    virtual Status ungate() = 0;
    virtual Status close() = 0;
    // Blocks the thread; `meanwhile` is called about every half millisecond.
    virtual Status attach(const std::string& uri, bool resend,
                          const std::function<void()>& meanwhile) = 0;
    virtual Status recommit() = 0;
    // In a child of the process, after fork(2): gives up its copy. Async-signal-safe.
    virtual void forked() = 0;
};

// What the program says by ghost_mpi.h, which has these calls too; nothing.
class ProgramPort {
  public:
    virtual ~ProgramPort() = default;
    virtual bool begin_stop() { return true; }  // false: it does not want to be stopped now
    virtual void before_stop() {}
    virtual void after_stop(bool /*elsewhere*/) {}
    virtual void end_stop() {}  // after each that began
};

struct AgentPorts {
    std::unique_ptr<DataPort> data;
    std::unique_ptr<PmixPort> pmix;
    std::unique_ptr<ProgramPort> program = std::make_unique<ProgramPort>();
    // Ends the process when it can neither go on nor be reached; does not return in a rank.
    std::function<void(int status)> give_up;
};

// The real ones. `endpoint` must outlive the ports.
AgentPorts real_ports(Endpoint& endpoint, int pmix_limit_ms);

}  // namespace kernet
