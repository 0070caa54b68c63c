#include "pmix-plugin/orte4/fences.hpp"

#include "base/log.hpp"
#include "pmix-plugin/orte4/job.hpp"
#include "pmix-plugin/orte4/pmix_server.h"

namespace ghost::plugin::orte4 {

namespace {

orte_grpcomm_coll_t* open_fence(bool create) {
    orte_grpcomm_signature_t* signature = wildcard_signature(app_jobid());
    orte_grpcomm_coll_t* fence = orte_grpcomm_base_get_tracker(signature, create);
    OBJ_RELEASE(signature);
    return fence;
}

// One contribution without data, as a daemon of one late rank makes it, and as mpirun makes it to
// itself so that ORTE looks at the fence again.
void contribute() {
    opal_buffer_t* buffer = OBJ_NEW(opal_buffer_t);
    orte_grpcomm_signature_t* signature = wildcard_signature(app_jobid());
    opal_dss.pack(buffer, &signature, 1, ORTE_SIGNATURE);
    orte_process_name_t* to = ORTE_PROC_IS_HNP ? ORTE_PROC_MY_NAME : ORTE_PROC_MY_PARENT;
    orte_rml.send_buffer_nb(orte_coll_conduit, to, buffer, ORTE_RML_TAG_ALLGATHER_DIRECT,
                            orte_rml_send_callback, nullptr);
    OBJ_RELEASE(signature);
}

// ORTE compares the two numbers only when a contribution arrives, and only for equality.
void complete_if_due(orte_grpcomm_coll_t& fence) {
    if (fence.nreported == 0 || fence.nreported < fence.nexpected) return;
    fence.nexpected = fence.nreported + 1;
    contribute();
}

}  // namespace

bool FenceHold::hold() {
    if (held_) return true;
    orte_grpcomm_coll_t* fence = open_fence(true);
    if (!fence || (fence->nreported > 0 && fence->nreported >= fence->nexpected)) return false;
    ++fence->nexpected;
    held_ = true;
    return true;
}

void FenceHold::release() {
    if (!held_) return;
    held_ = false;
    orte_grpcomm_coll_t* fence = open_fence(false);
    if (!fence) {
        log::error("the held fence is gone");
        return;
    }
    --fence->nexpected;
    complete_if_due(*fence);
}

void FenceHold::settle(int votes) {
    if (!held_) return;
    held_ = false;
    orte_grpcomm_coll_t* fence = open_fence(false);
    if (!fence) {
        log::error("the held fence is gone");
        return;
    }
    log::debug("fence: {} of {} contributions, {} votes", fence->nreported, fence->nexpected,
               votes);
    fence->nexpected = static_cast<size_t>(votes);
    complete_if_due(*fence);
}

bool LateCallers::contribute_if_called(RankId rank) {
    if (ghost_pmix_late_called(app_name().c_str(), rank) != 1) return false;
    log::debug("rank {} calls the fence it came late to", rank);
    contribute();
    return true;
}

void LateCallers::add(RankId rank) {
    waiting_.insert(rank);
    look();
}

bool LateCallers::remove(RankId rank) {
    if (waiting_.erase(rank) == 0) return false;
    return !contribute_if_called(rank);
}

void LateCallers::look() {
    constexpr int64_t every_us = 2'000;
    if (looking_) return;
    looking_ = true;
    loop_.after(every_us, [this] {
        looking_ = false;
        if (!app_job()) waiting_.clear();
        std::erase_if(waiting_, [this](RankId rank) { return contribute_if_called(rank); });
        if (!waiting_.empty()) look();
    });
}

}  // namespace ghost::plugin::orte4
