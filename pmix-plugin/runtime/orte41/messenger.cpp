// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/runtime/orte41/messenger.hpp"

#include <cstdlib>
#include <functional>
#include <optional>
#include <utility>

#include "base/log.hpp"
#include "pmix-plugin/runtime/orte41/job.hpp"
#include "pmix-plugin/runtime/orte41/orte_headers.hpp"

namespace ghost::plugin::orte41 {

namespace {

constexpr orte_rml_tag_t tag = 178;  // above ORTE_RML_TAG_MAX; docs/PROTOCOL.md

// What came: the life of one who does not seal, and the bytes.
using Receiver =
    std::function<void(NodeId, const std::optional<std::string>& life, const std::string& text)>;
// RML calls back with a plain pointer for as long as mpirun lives, so the receiver is asked here.
Receiver& receiver() {
    static Receiver the_receiver;
    return the_receiver;
}

bool unpack(opal_buffer_t* buffer, std::string& out) {
    int32_t count = 1;
    uint32_t size = 0;
    if (opal_dss.unpack(buffer, &size, &count, OPAL_UINT32) != OPAL_SUCCESS ||
        size > buffer->bytes_used)
        return false;
    out.resize(size);
    count = static_cast<int32_t>(size);
    return size == 0 || opal_dss.unpack(buffer, out.data(), &count, OPAL_BYTE) == OPAL_SUCCESS;
}

void pack_bytes(opal_buffer_t* buffer, const std::string& bytes) {
    auto size = static_cast<uint32_t>(bytes.size());
    opal_dss.pack(buffer, &size, 1, OPAL_UINT32);
    if (size > 0) opal_dss.pack(buffer, bytes.data(), static_cast<int32_t>(size), OPAL_BYTE);
}

void received(int, orte_process_name_t* sender, opal_buffer_t* buffer, orte_rml_tag_t,
              void*) noexcept {
    uint32_t from = sender->vpid;
    uint8_t sealed = 0;
    int32_t count = 1, one = 1;
    std::string life, text;
    // A daemon that relays a broadcast hands it to itself under its own name (grpcomm/direct), so
    // every message says itself whose it is.
    if (opal_dss.unpack(buffer, &from, &count, OPAL_UINT32) != OPAL_SUCCESS ||
        opal_dss.unpack(buffer, &sealed, &one, OPAL_UINT8) != OPAL_SUCCESS ||
        !unpack(buffer, life) || !unpack(buffer, text) || !receiver())
        return;
    receiver()(from, sealed != 0 ? std::nullopt : std::optional(life), text);
}

opal_buffer_t* pack(MessageSeal* seal, NodeId to, const std::string& life,
                    const std::string& packet) {
    opal_buffer_t* buffer = OBJ_NEW(opal_buffer_t);
    uint32_t self = ORTE_PROC_MY_NAME->vpid;
    uint8_t sealed = seal ? 1 : 0;
    opal_dss.pack(buffer, &self, 1, OPAL_UINT32);
    opal_dss.pack(buffer, &sealed, 1, OPAL_UINT8);
    pack_bytes(buffer, seal ? std::string() : life);
    pack_bytes(buffer, seal ? seal->close(to, packet) : packet);
    return buffer;
}

}  // namespace

RmlMessenger::RmlMessenger() : inbox_([this] { return life(); }) {
    static bool posted = false;
    receiver() = [this](NodeId from, const std::optional<std::string>& life,
                        const std::string& text) {
        if (life.has_value() != (seal() == nullptr))  // never both
            return refuse(from, life ? "it is not sealed" : "it is sealed");
        if (seal()) return deliver_sealed(from, text);
        deliver(from, *life, text);
    };
    if (!posted)
        orte_rml.recv_buffer_nb(ORTE_NAME_WILDCARD, tag, ORTE_RML_PERSISTENT, received, nullptr);
    posted = true;
}

MessageSeal* RmlMessenger::seal() {
    if (!app_variable(launched_secret_variable).empty()) return nullptr;
    if (seal_) return seal_.get();
    auto job = kept_secret();
    if (!job) return nullptr;
    seal_ = std::make_unique<MessageSeal>(ORTE_PROC_MY_NAME->vpid, job->secret, job->life);
    job_ = std::move(*job);
    return seal_.get();
}

std::string RmlMessenger::life() {
    return seal() ? job_->life : app_variable("GHOST_LIFE");
}

void RmlMessenger::refuse(NodeId from, const std::string& why) {
    if (refused_.insert(from).second)
        log::warning("a message from daemon {} is not taken: {}", from, why);
}

void RmlMessenger::deliver_sealed(NodeId from, const std::string& sealed) {
    const auto text = seal_->open(from, sealed);
    if (!text) return refuse(from, text.error().message());
    deliver(from, life(), *text);
}

namespace {

// Daemons that have been told to end are gone one by one, with words of ORTE's about each message
// that does not reach them.
bool nobody_listens() {
    return orte_orteds_term_ordered || orte_finalizing;
}

}  // namespace

void RmlMessenger::send(NodeId to, const std::string& packet) {
    if (nobody_listens()) return;
    opal_buffer_t* buffer = pack(seal(), to, life(), packet);
    orte_process_name_t name{ORTE_PROC_MY_NAME->jobid, to};
    const int rc = orte_rml.send_buffer_nb(orte_mgmt_conduit, &name, buffer, tag,
                                           orte_rml_send_callback, nullptr);
    if (rc == ORTE_SUCCESS) return;
    log::warning("message {} to daemon {} not sent: error {}", packet.substr(0, 60), to, rc);
    OBJ_RELEASE(buffer);
}

void RmlMessenger::broadcast(const std::string& packet) {
    if (nobody_listens()) return;
    opal_buffer_t* buffer = pack(seal(), MessageSeal::everybody, life(), packet);
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

void RmlMessenger::deliver(NodeId from, const std::string& life, const std::string& text) {
    try {
        if (const std::string answer = inbox_.deliver(from, life, text); !answer.empty())
            send(from, answer);
    } catch (const std::exception& failure) {
        log::error("message from daemon {}: {}", from, failure.what());
    }
}

}  // namespace ghost::plugin::orte41
