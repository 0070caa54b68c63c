// SPDX-License-Identifier: BSD-3-Clause
// What is asked for by PMIx_Job_control_nb(), snapshots, moves and drains: on any node, carried to
// mpirun.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "pmix-plugin/runtime/orte41/messenger.hpp"
#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"

struct ghost_job_control;

namespace ghost::plugin::orte41 {

// ORTE's main thread only; one in a process, from then on this node's PMIx server accepts such
// requests. A rank is answered when mpirun has heard it: it cannot be stopped while it waits for an
// answer. A tool is answered when it is done or has failed.
class ControlRequests {
  public:
    explicit ControlRequests(RmlMessenger& messenger);
    ~ControlRequests();
    ControlRequests(const ControlRequests&) = delete;
    ControlRequests& operator=(const ControlRequests&) = delete;

    // mpirun: who does it. Without one every request is refused.
    void on_request(std::function<void(RuntimeAdapter::JobControl)> handler);

  private:
    using Answer = std::function<void(const std::string& why)>;

    static void from_pmix(void* self, const ghost_job_control* asked, void* request) noexcept;
    // A request of this node: `of` is the name space of the targets, empty if there is none.
    void heard(bool from_rank, const std::string& of, ControlOrder order, void* request);
    void message(NodeId from, const schema::Received& message);
    // mpirun: hands it on.
    void take(bool from_rank, const ControlOrder& order, Answer answer);

    RmlMessenger& messenger_;
    std::function<void(RuntimeAdapter::JobControl)> handler_;
    std::map<uint64_t, void*> open_;  // requests that wait for mpirun's answer
    uint64_t last_ = 0;
};

}  // namespace ghost::plugin::orte41
