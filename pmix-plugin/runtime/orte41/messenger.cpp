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

// above ORTE_RML_TAG_MAX; docs/PROTOCOL.md
constexpr orte_rml_tag_t message_tag = 178, secret_tag = 179;
constexpr size_t most_waiting = 4096;  // messages that came before the secret

// RML calls back with a plain pointer for as long as mpirun lives, so the receivers are asked here.
using Receiver = std::function<void(NodeId, const std::string& bytes)>;
struct Receivers {
    Receiver message, secret;
};
Receivers& receivers() {
    static Receivers the_receivers;
    return the_receivers;
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

void received_message(int, orte_process_name_t* sender, opal_buffer_t* buffer, orte_rml_tag_t,
                      void*) noexcept {
    uint32_t from = sender->vpid;
    int32_t count = 1;
    std::string sealed;
    // A daemon that relays a broadcast hands it to itself under its own name (grpcomm/direct), so
    // every message says itself whose it is.
    if (opal_dss.unpack(buffer, &from, &count, OPAL_UINT32) != OPAL_SUCCESS ||
        !unpack(buffer, sealed) || !receivers().message)
        return;
    receivers().message(from, sealed);
}

void received_secret(int, orte_process_name_t* sender, opal_buffer_t* buffer, orte_rml_tag_t,
                     void*) noexcept {
    std::string bytes;
    if (sender->jobid != ORTE_PROC_MY_NAME->jobid || !unpack(buffer, bytes) || !receivers().secret)
        return;
    receivers().secret(sender->vpid, bytes);
}

opal_buffer_t* packed(const std::string& sealed) {
    opal_buffer_t* buffer = OBJ_NEW(opal_buffer_t);
    uint32_t self = ORTE_PROC_MY_NAME->vpid;
    opal_dss.pack(buffer, &self, 1, OPAL_UINT32);
    pack_bytes(buffer, sealed);
    return buffer;
}

// Daemons that have been told to end are gone one by one, with words of ORTE's about each message
// that does not reach them.
bool nobody_listens() {
    return orte_orteds_term_ordered || orte_finalizing;
}

bool send_buffer(NodeId to, opal_buffer_t* buffer, orte_rml_tag_t tag, const char* what) {
    orte_process_name_t name{ORTE_PROC_MY_NAME->jobid, to};
    const int rc = orte_rml.send_buffer_nb(orte_mgmt_conduit, &name, buffer, tag,
                                           orte_rml_send_callback, nullptr);
    if (rc == ORTE_SUCCESS) return true;
    log::warning("{} to daemon {} not sent: error {}", what, to, rc);
    OBJ_RELEASE(buffer);
    return false;
}

void send_plain(NodeId to, const std::string& bytes) {
    opal_buffer_t* buffer = OBJ_NEW(opal_buffer_t);
    pack_bytes(buffer, bytes);
    send_buffer(to, buffer, secret_tag, "what the job's secret is asked for or given with");
}

}  // namespace

RmlMessenger::RmlMessenger(std::function<void(const std::string&)> doubtful)
    : doubtful_(std::move(doubtful)), inbox_([this] { return job_ ? job_->life : std::string(); }) {
    static bool posted = false;
    receivers() = {[this](NodeId from, const std::string& bytes) { received(from, bytes); },
                   [this](NodeId from, const std::string& bytes) { asked_or_told(from, bytes); }};
    if (std::exchange(posted, true)) return;
    orte_rml.recv_buffer_nb(ORTE_NAME_WILDCARD, message_tag, ORTE_RML_PERSISTENT, received_message,
                            nullptr);
    orte_rml.recv_buffer_nb(ORTE_NAME_WILDCARD, secret_tag, ORTE_RML_PERSISTENT, received_secret,
                            nullptr);
}

// --- the secret ---

bool RmlMessenger::has_secret() {
    if (seal_) return true;
    if (auto job = kept_secret()) {
        take_secret(std::move(*job));
        return true;
    }
    if (asker_ || ORTE_PROC_IS_HNP) return false;
    if (const std::string key = app_variable(launched_key_variable); !key.empty()) {
        asker_ = std::make_unique<SecretAsker>(key);
        send_plain(0, asker_->key());
    }
    return false;
}

void RmlMessenger::asked_or_told(NodeId from, const std::string& bytes) {
    if (ORTE_PROC_IS_HNP) return give_secret(from, bytes);
    if (from != 0 || !asker_ || seal_) return;
    auto job = asker_->take(bytes);
    if (!job) return log::error("{}", job.error().message());
    take_secret(std::move(*job));
}

// In mpirun. Where a launch agent has handed it on nobody need ask.
void RmlMessenger::give_secret(NodeId to, const std::string& key) {
    if (to == 0 || !daemon_object(to) || !has_secret() ||
        app_variable(launched_key_variable).empty())
        return refuse(to, "it asks for the job's secret, which it should have");
    if (!giver_) giver_ = std::make_unique<SecretGiver>(*job_);
    const auto answer = giver_->give(to, key);
    if (answer) return send_plain(to, *answer);
    if (answer.error().code == Code::refused) return doubtful_(answer.error().message());
    refuse(to, answer.error().message());
}

void RmlMessenger::take_secret(JobSecret job) {
    seal_ = std::make_unique<MessageSeal>(ORTE_PROC_MY_NAME->vpid, job.secret, job.life);
    job_ = std::move(job);
    for (const Waiting& one : std::exchange(to_send_, {})) send(one.peer, one.bytes);
    for (const Waiting& one : std::exchange(to_read_, {})) received(one.peer, one.bytes);
}

// --- messages ---

void RmlMessenger::refuse(NodeId from, const std::string& why) {
    if (refused_.insert(from).second)
        log::warning("a message from daemon {} is not taken: {}", from, why);
}

void RmlMessenger::received(NodeId from, const std::string& sealed) {
    if (has_secret()) {
        const auto text = seal_->open(from, sealed);
        return text ? deliver(from, *text) : refuse(from, text.error().message());
    }
    if (to_read_.size() < most_waiting) return to_read_.push_back({from, sealed});
    refuse(from, "too many have come before the job's secret");
}

void RmlMessenger::send(NodeId to, const std::string& packet) {
    if (nobody_listens()) return;
    // ORTE would take it for a daemon that has failed.
    if (ORTE_PROC_IS_HNP && !way_to(to))
        return log::debug("no message to daemon {}, which takes no part", to);
    if (!has_secret()) return to_send_.push_back({to, packet});
    const std::string what = "message " + packet.substr(0, 60);
    send_buffer(to, packed(seal_->close(to, packet)), message_tag, what.c_str());
}

void RmlMessenger::broadcast(const std::string& packet) {
    if (nobody_listens() || !has_secret()) return;  // mpirun has it
    opal_buffer_t* buffer = packed(seal_->close(MessageSeal::everybody, packet));
    orte_grpcomm_signature_t* everybody = wildcard_signature(ORTE_PROC_MY_NAME->jobid);
    const int rc = orte_grpcomm.xcast(everybody, message_tag, buffer);
    if (rc != ORTE_SUCCESS)
        log::warning("message {} to all daemons not sent: error {}", packet.substr(0, 60), rc);
    OBJ_RELEASE(buffer);
    OBJ_RELEASE(everybody);
}

void RmlMessenger::stop() {
    inbox_.clear();
    receivers() = {};
}

void RmlMessenger::deliver(NodeId from, const std::string& text) {
    try {
        if (const std::string answer = inbox_.deliver(from, job_->life, text); !answer.empty())
            send(from, answer);
    } catch (const std::exception& failure) {
        log::error("message from daemon {}: {}", from, failure.what());
    }
}

}  // namespace ghost::plugin::orte41
