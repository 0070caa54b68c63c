// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/runtime/orte41/messenger.hpp"

#include <cstdlib>
#include <functional>

#include "base/log.hpp"
#include "pmix-plugin/runtime/orte41/job.hpp"
#include "pmix-plugin/runtime/orte41/orte_headers.hpp"

namespace ghost::plugin::orte41 {

namespace {

constexpr orte_rml_tag_t tag = 178;  // above ORTE_RML_TAG_MAX; docs/PROTOCOL.md

// RML calls back with a plain pointer for as long as mpirun lives, so the receiver is asked here.
using Receiver = std::function<void(NodeId, const std::string& life, const char* text)>;
Receiver& receiver() {
    static Receiver the_receiver;
    return the_receiver;
}

std::string own_life() {
    return app_variable("GHOST_LIFE");
}

void received(int, orte_process_name_t* sender, opal_buffer_t* buffer, orte_rml_tag_t,
              void*) noexcept {
    char* text = nullptr;
    char* life = nullptr;
    uint32_t from = sender->vpid;
    int32_t count = 1;
    // A daemon that relays a broadcast hands it to itself under its own name (grpcomm/direct), so
    // every message says itself whose it is.
    if (opal_dss.unpack(buffer, &from, &count, OPAL_UINT32) == OPAL_SUCCESS &&
        opal_dss.unpack(buffer, &text, &count, OPAL_STRING) == OPAL_SUCCESS && text &&
        opal_dss.unpack(buffer, &life, &count, OPAL_STRING) == OPAL_SUCCESS && life && receiver())
        receiver()(from, life, text);
    free(text);
    free(life);
}

opal_buffer_t* pack(const std::string& packet) {
    const std::string of = own_life();
    char* raw = const_cast<char*>(packet.c_str());
    char* life = const_cast<char*>(of.c_str());
    opal_buffer_t* buffer = OBJ_NEW(opal_buffer_t);
    uint32_t self = ORTE_PROC_MY_NAME->vpid;
    opal_dss.pack(buffer, &self, 1, OPAL_UINT32);
    opal_dss.pack(buffer, &raw, 1, OPAL_STRING);
    opal_dss.pack(buffer, &life, 1, OPAL_STRING);
    return buffer;
}

}  // namespace

RmlMessenger::RmlMessenger() : inbox_(own_life) {
    static bool posted = false;
    receiver() = [this](NodeId from, const std::string& life, const char* text) {
        deliver(from, life, text);
    };
    if (!posted)
        orte_rml.recv_buffer_nb(ORTE_NAME_WILDCARD, tag, ORTE_RML_PERSISTENT, received, nullptr);
    posted = true;
}

namespace {

// Daemons that have been told to end are gone one by one, with words of ORTE's about each message
// that does not reach them.
bool nobody_listens() {
    return orte_orteds_term_ordered || orte_finalizing;
}

}  // namespace

void RmlMessenger::send(NodeId to, const std::string& packet) const {
    if (nobody_listens()) return;
    opal_buffer_t* buffer = pack(packet);
    orte_process_name_t name{ORTE_PROC_MY_NAME->jobid, to};
    const int rc = orte_rml.send_buffer_nb(orte_mgmt_conduit, &name, buffer, tag,
                                           orte_rml_send_callback, nullptr);
    if (rc == ORTE_SUCCESS) return;
    log::warning("message {} to daemon {} not sent: error {}", packet.substr(0, 60), to, rc);
    OBJ_RELEASE(buffer);
}

void RmlMessenger::broadcast(const std::string& packet) const {
    if (nobody_listens()) return;
    opal_buffer_t* buffer = pack(packet);
    orte_grpcomm_signature_t* everybody = wildcard_signature(ORTE_PROC_MY_NAME->jobid);
    const int rc = orte_grpcomm.xcast(everybody, tag, buffer);
    if (rc != ORTE_SUCCESS)
        log::warning("message {} to all daemons not sent: error {}", packet.substr(0, 60), rc);
    OBJ_RELEASE(buffer);
    OBJ_RELEASE(everybody);
}

void RmlMessenger::stop() {
    inbox_.clear();
    receiver() = nullptr;
}

void RmlMessenger::deliver(NodeId from, const std::string& life, const char* text) {
    try {
        if (const std::string answer = inbox_.deliver(from, life, text); !answer.empty())
            send(from, answer);
    } catch (const std::exception& failure) {
        log::error("message from daemon {}: {}", from, failure.what());
    }
}

}  // namespace ghost::plugin::orte41
