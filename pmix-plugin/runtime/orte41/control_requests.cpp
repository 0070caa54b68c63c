// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/runtime/orte41/control_requests.hpp"

#include "base/log.hpp"
#include "pmix-plugin/protocol/client_coordinator.hpp"
#include "pmix-plugin/runtime/orte41/job.hpp"
#include "pmix-plugin/runtime/pmix/job_control.h"
#include "pmix-plugin/runtime/orte41/loop.hpp"

namespace ghost::plugin::orte41 {

namespace {

constexpr NodeId mpirun = 0;

// What PMIx's thread posts to ORTE's may arrive when we are gone.
ControlRequests*& present() {
    static ControlRequests* the_requests = nullptr;
    return the_requests;
}

}  // namespace

ControlRequests::ControlRequests(RmlMessenger& messenger) : messenger_(messenger) {
    present() = this;
    messenger_.add_handler([this](NodeId from, const schema::Received& m) { message(from, m); });
    ghost_pmix_on_job_control(from_pmix, nullptr);
}

ControlRequests::~ControlRequests() {
    ghost_pmix_on_job_control(nullptr, nullptr);
    present() = nullptr;
}

void ControlRequests::on_request(std::function<void(RuntimeAdapter::JobControl)> handler) {
    handler_ = std::move(handler);
}

void ControlRequests::from_pmix(void*, const char* space, const char* then,
                                void* request) noexcept {
    post_to_orte([space = std::string(space), then = std::string(then), request] {
        if (present())
            present()->heard(space, then, request);
        else
            ghost_pmix_answer_job_control(request, job_has_ended);
    });
}

void ControlRequests::heard(const std::string& space, const std::string& then, void* request) {
    const bool from_rank = space == app_name();
    if (ORTE_PROC_IS_HNP) {
        take(from_rank, then, [request](const std::string& why) {
            ghost_pmix_answer_job_control(request, why.c_str());
        });
        return;
    }
    open_[++last_] = request;
    messenger_.tell(mpirun, JobControlAsked{last_, from_rank, then});
}

void ControlRequests::message(NodeId from, const schema::Received& m) {
    if (m.is<JobControlAsked>() && ORTE_PROC_IS_HNP) {
        const auto& asked = m.as<JobControlAsked>();
        take(asked.rank, asked.then, [this, from, id = asked.id](const std::string& why) {
            messenger_.tell(from, JobControlDone{id, why});
        });
    } else if (m.is<JobControlDone>() && from == mpirun) {
        const auto found = open_.find(m.as<JobControlDone>().id);
        if (found == open_.end()) return;
        ghost_pmix_answer_job_control(found->second, m.as<JobControlDone>().why.c_str());
        open_.erase(found);
    }
}

void ControlRequests::take(bool from_rank, const std::string& then, Answer answer) {
    log::debug("a snapshot is asked for by a {}", from_rank ? "rank" : "tool");
    if (!handler_) return answer("this job takes no snapshots");
    if (!from_rank) return handler_({then, std::move(answer)});
    answer("");
    handler_({then, [](const std::string& why) {
                  if (!why.empty())
                      log::warning("the snapshot a rank asked for was not taken: {}", why);
              }});
}

}  // namespace ghost::plugin::orte41
