#include "pmix-plugin/runtime/orte41/messenger.hpp"

#include <cstdlib>

#include "base/log.hpp"
#include "pmix-plugin/runtime/orte41/job.hpp"
#include "pmix-plugin/runtime/orte41/orte_headers.hpp"

namespace ghost::plugin::orte41 {

namespace {

constexpr orte_rml_tag_t tag = 178;  // above ORTE_RML_TAG_MAX; docs/PROTOCOL.md

// RML calls back with a plain pointer for as long as mpirun lives, so the receiver is asked here.
std::function<void(NodeId, const char*)>& receiver() {
    static std::function<void(NodeId, const char*)> the_receiver;
    return the_receiver;
}

void received(int, orte_process_name_t* sender, opal_buffer_t* buffer, orte_rml_tag_t,
              void*) noexcept {
    char* text = nullptr;
    uint32_t from = sender->vpid;
    int32_t count = 1;
    // A daemon that relays a broadcast hands it to itself under its own name (grpcomm/direct), so
    // every message says itself whose it is.
    if (opal_dss.unpack(buffer, &from, &count, OPAL_UINT32) == OPAL_SUCCESS &&
        opal_dss.unpack(buffer, &text, &count, OPAL_STRING) == OPAL_SUCCESS && text && receiver())
        receiver()(from, text);
    free(text);
}

// A string that is not UTF-8 (a path in an error text) must not stop the message.
opal_buffer_t* pack(const Json& message) {
    std::string text = message.dump(-1, ' ', false, Json::error_handler_t::replace);
    char* raw = text.data();
    opal_buffer_t* buffer = OBJ_NEW(opal_buffer_t);
    uint32_t self = ORTE_PROC_MY_NAME->vpid;
    opal_dss.pack(buffer, &self, 1, OPAL_UINT32);
    opal_dss.pack(buffer, &raw, 1, OPAL_STRING);
    return buffer;
}

}  // namespace

Messenger::Messenger() {
    static bool posted = false;
    receiver() = [this](NodeId from, const char* text) { deliver(from, text); };
    if (!posted)
        orte_rml.recv_buffer_nb(ORTE_NAME_WILDCARD, tag, ORTE_RML_PERSISTENT, received, nullptr);
    posted = true;
}

void Messenger::send(NodeId to, const Json& message) const {
    opal_buffer_t* buffer = pack(message);
    orte_process_name_t name{ORTE_PROC_MY_NAME->jobid, to};
    const int rc = orte_rml.send_buffer_nb(orte_mgmt_conduit, &name, buffer, tag,
                                           orte_rml_send_callback, nullptr);
    if (rc == ORTE_SUCCESS) return;
    log::warning("message {} to daemon {} not sent: error {}", message.value("t", "?"), to, rc);
    OBJ_RELEASE(buffer);
}

void Messenger::broadcast(const Json& message) const {
    opal_buffer_t* buffer = pack(message);
    orte_grpcomm_signature_t* everybody = wildcard_signature(ORTE_PROC_MY_NAME->jobid);
    const int rc = orte_grpcomm.xcast(everybody, tag, buffer);
    if (rc != ORTE_SUCCESS)
        log::warning("message {} to all daemons not sent: error {}", message.value("t", "?"), rc);
    OBJ_RELEASE(buffer);
    OBJ_RELEASE(everybody);
}

void Messenger::add_handler(std::function<void(NodeId, const Json&)> handler) {
    handlers_.push_back(std::move(handler));
}

void Messenger::stop() {
    handlers_.clear();
    receiver() = nullptr;
}

void Messenger::deliver(NodeId from, const char* text) const {
    const Json message = Json::parse(text, nullptr, false);
    if (!message.is_object()) {
        log::warning("message from daemon {} is no JSON object", from);
        return;
    }
    const auto handlers = handlers_;  // one of them may stop us
    for (const auto& handler : handlers) {
        try {
            handler(from, message);
        } catch (const std::exception& failure) {
            log::error("message from daemon {}: {}", from, failure.what());
        }
    }
}

}  // namespace ghost::plugin::orte41
