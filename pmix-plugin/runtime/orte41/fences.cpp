// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/runtime/orte41/fences.hpp"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "base/log.hpp"
#include "pmix-plugin/runtime/orte41/job.hpp"
#include "pmix-plugin/runtime/pmix/pmix_server.h"

namespace ghost::plugin::orte41 {

namespace {

orte_grpcomm_coll_t* open_fence(bool create) {
    orte_grpcomm_signature_t* signature = wildcard_signature(app_jobid());
    orte_grpcomm_coll_t* fence = orte_grpcomm_base_get_tracker(signature, create);
    OBJ_RELEASE(signature);
    return fence;
}

// One contribution without data, as a daemon of one late rank makes it, and as mpirun makes it to
// itself so that ORTE looks at the call again.
void contribute(orte_grpcomm_signature_t* signature) {
    opal_buffer_t* buffer = OBJ_NEW(opal_buffer_t);
    opal_dss.pack(buffer, &signature, 1, ORTE_SIGNATURE);
    orte_process_name_t* to = ORTE_PROC_IS_HNP ? ORTE_PROC_MY_NAME : ORTE_PROC_MY_PARENT;
    orte_rml.send_buffer_nb(orte_coll_conduit, to, buffer, ORTE_RML_TAG_ALLGATHER_DIRECT,
                            orte_rml_send_callback, nullptr);
}

// ORTE compares the two numbers only when a contribution arrives, and only for equality.
void complete_if_due(orte_grpcomm_coll_t& call) {
    if (call.nreported == 0 || call.nreported < call.nexpected) return;
    call.nexpected = call.nreported + 1;
    contribute(call.sig);
}

// More contributions than can come: while the fence is held for several moves, ranks that have
// arrived call it from daemons that took no part before.
constexpr size_t out_of_reach = size_t{1} << 32;

// To be released by the caller.
orte_grpcomm_signature_t* signature_of(const NamedCall& call) {
    orte_grpcomm_signature_t* out = OBJ_NEW(orte_grpcomm_signature_t);
    out->sz = call.size();
    out->signature = static_cast<orte_process_name_t*>(calloc(out->sz, sizeof *out->signature));
    for (size_t i = 0; i < call.size(); ++i) {
        out->signature[i].jobid = call[i].first;
        out->signature[i].vpid = call[i].second;
    }
    return out;
}

bool all_known(const orte_grpcomm_signature_t& signature) {
    for (size_t i = 0; i < signature.sz; ++i)
        if (!is_known_process(signature.signature[i].jobid, signature.signature[i].vpid))
            return false;
    return true;
}

bool names(const orte_grpcomm_signature_t& signature, RankId rank) {
    for (size_t i = 0; i < signature.sz; ++i)
        if (signature.signature[i].jobid == app_jobid() &&
            signature.signature[i].vpid == static_cast<orte_vpid_t>(rank))
            return true;
    return false;
}

// Contributions a daemon waits for when these take part (orte/mca/grpcomm/base, get_tracker): its
// own and one through each of its children.
size_t contributions(const orte_grpcomm_coll_t& call) {
    const auto takes_part = [&](orte_vpid_t daemon) {
        return std::find(call.dmns, call.dmns + call.ndmns, daemon) != call.dmns + call.ndmns;
    };
    size_t count = takes_part(ORTE_PROC_MY_NAME->vpid) ? 1 : 0;
    opal_list_t children;
    OBJ_CONSTRUCT(&children, opal_list_t);
    orte_routed.get_routing_list(orte_rml.get_routed(orte_coll_conduit), &children);
    orte_namelist_t* child = nullptr;
    OPAL_LIST_FOREACH(child, &children, orte_namelist_t)
    if (takes_part(child->name.vpid)) ++count;
    OPAL_LIST_DESTRUCT(&children);
    return count;
}

// ORTE counts the daemons when it makes a tracker: one is made anew, to see what has become
// different. Contributions of late callers stay expected.
void recount(orte_grpcomm_coll_t* call) {
    opal_list_t* all = &orte_grpcomm_base.ongoing;
    opal_list_remove_item(all, &call->super);
    if (orte_grpcomm_coll_t* fresh = orte_grpcomm_base_get_tracker(call->sig, true)) {
        const size_t before = contributions(*call);
        log::debug(
            "a call of some processes: {} of {} contributions, {} of daemons, {} from now on",
            call->nreported, call->nexpected, before, fresh->nexpected);
        call->nexpected = call->nexpected + fresh->nexpected - before;
        std::swap(call->dmns, fresh->dmns);
        std::swap(call->ndmns, fresh->ndmns);
        opal_list_remove_item(all, &fresh->super);
        OBJ_RELEASE(fresh);
    }
    opal_list_append(all, &call->super);
}

// Calls this daemon has contributed to that name the rank, and which it has, or has not, called.
std::vector<NamedCall> contributed_calls(RankId rank, bool called) {
    std::vector<NamedCall> out;
    std::vector<ghost_pmix_name> names(64);
    for (size_t which = 0;; ++which) {
        size_t count = 0;
        while ((count = ghost_pmix_contributed_call(app_name().c_str(), rank, called ? 1 : 0, which,
                                                    names.data(), names.size())) > names.size())
            names.resize(count);
        if (count == 0) return out;
        NamedCall call;
        for (size_t i = 0; i < count; ++i) call.emplace_back(names[i].job, names[i].rank);
        out.push_back(std::move(call));
    }
}

// The fence that was held, if one was; from now on it is not.
orte_grpcomm_coll_t* let_go(bool& held) {
    if (!std::exchange(held, false)) return nullptr;
    orte_grpcomm_coll_t* fence = open_fence(false);
    if (!fence) log::error("the held fence is gone");
    return fence;
}

}  // namespace

bool is_known_process(uint32_t jobid, uint32_t rank) {
    orte_job_t* job = orte_get_job_data_object(jobid);
    auto* process = job ? item<orte_proc_t>(job->procs, static_cast<int>(rank)) : nullptr;
    return process && process->node && process->node->daemon;
}

void recount_calls_of(RankId rank) {
    std::vector<orte_grpcomm_coll_t*> calls;
    orte_grpcomm_coll_t* call = nullptr;
    OPAL_LIST_FOREACH(call, &orte_grpcomm_base.ongoing, orte_grpcomm_coll_t)
    if (call->sig && call->dmns && names(*call->sig, rank) && all_known(*call->sig))
        calls.push_back(call);
    for (auto* one : calls) recount(one);
}

void expect_late_call(const NamedCall& call, bool expected) {
    orte_grpcomm_signature_t* signature = signature_of(call);
    orte_grpcomm_coll_t* tracker =
        all_known(*signature) ? orte_grpcomm_base_get_tracker(signature, expected) : nullptr;
    OBJ_RELEASE(signature);
    if (!tracker) return;
    tracker->nexpected = expected ? tracker->nexpected + 1 : tracker->nexpected - 1;
    log::debug("a call of some processes waits for {} contributions", tracker->nexpected);
    if (!expected) complete_if_due(*tracker);
}

bool FenceHold::hold() {
    if (held_) return true;
    orte_grpcomm_coll_t* fence = open_fence(true);
    if (!fence || (fence->nreported > 0 && fence->nreported >= fence->nexpected)) return false;
    fence->nexpected += out_of_reach;
    held_ = true;
    return true;
}

void FenceHold::release() {
    orte_grpcomm_coll_t* fence = let_go(held_);
    if (!fence) return;
    fence->nexpected -= out_of_reach;
    complete_if_due(*fence);
}

void FenceHold::settle(int votes) {
    orte_grpcomm_coll_t* fence = let_go(held_);
    if (!fence) return;
    log::debug("fence: {} of {} contributions, {} votes", fence->nreported, fence->nexpected,
               votes);
    fence->nexpected = static_cast<size_t>(votes);
    complete_if_due(*fence);
}

bool LateCallers::contribute_if_called(RankId rank) {
    if (ghost_pmix_late_called(app_name().c_str(), rank) != 1) return false;
    log::debug("rank {} calls the fence it came late to", rank);
    orte_grpcomm_signature_t* everybody = wildcard_signature(app_jobid());
    contribute(everybody);
    OBJ_RELEASE(everybody);
    return true;
}

// True when none is left.
bool LateCallers::contribute_to_calls(RankId rank, std::vector<NamedCall>& calls) {
    for (const auto& made : contributed_calls(rank, true)) {
        const auto found = std::find(calls.begin(), calls.end(), made);
        if (found == calls.end()) continue;
        log::debug("rank {} makes the call of {} processes it came late to", rank, made.size());
        orte_grpcomm_signature_t* signature = signature_of(made);
        contribute(signature);
        OBJ_RELEASE(signature);
        calls.erase(found);
    }
    return calls.empty();
}

void LateCallers::expect(RankId rank) {
    ghost_pmix_expect(app_name().c_str(), rank);
    for (auto& call : expected_[rank] = contributed_calls(rank, false)) tell_(call, true);
}

void LateCallers::expect_no_more(RankId rank) {
    const auto found = expected_.find(rank);
    if (found == expected_.end()) return;
    for (auto& call : found->second) tell_(call, false);
    expected_.erase(found);
    ghost_pmix_expect_rank_no_more(app_name().c_str(), rank);
}

void LateCallers::add(RankId rank, bool late) {
    if (late) waiting_.insert(rank);
    if (const auto found = expected_.find(rank); found != expected_.end()) {
        if (!found->second.empty()) calls_[rank] = std::move(found->second);
        expected_.erase(found);
        ghost_pmix_expect_rank_no_more(app_name().c_str(), rank);
    }
    look();
}

bool LateCallers::remove(RankId rank) {
    if (const auto found = calls_.find(rank); found != calls_.end()) {
        if (!contribute_to_calls(rank, found->second))
            for (auto& call : found->second) tell_(call, false);
        calls_.erase(found);
    }
    if (waiting_.erase(rank) == 0) return false;
    return !contribute_if_called(rank);
}

void LateCallers::forget() {
    waiting_.clear();
    calls_.clear();
    expected_.clear();
}

void LateCallers::look() {
    constexpr int64_t every_us = 2'000;
    if (looking_ || (waiting_.empty() && calls_.empty())) return;
    looking_ = true;
    loop_.after(every_us, [this] {
        looking_ = false;
        if (!app_job()) {
            waiting_.clear();
            calls_.clear();
        }
        std::erase_if(waiting_, [](RankId rank) { return contribute_if_called(rank); });
        for (auto entry = calls_.begin(); entry != calls_.end();)
            entry = contribute_to_calls(entry->first, entry->second) ? calls_.erase(entry)
                                                                     : std::next(entry);
        look();
    });
}

}  // namespace ghost::plugin::orte41
