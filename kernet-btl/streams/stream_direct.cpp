// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/streams/stream_direct.hpp"

#include <algorithm>

#include "base/log.hpp"
#include "kernet-btl/streams/handle.hpp"

namespace kernet {

namespace {

using wire::StreamKind;

// An acknowledgement goes by itself after so much; else with the next message or by tick().
constexpr size_t acknowledge_bytes = 256 * 1024;
constexpr uint64_t acknowledge_messages = 64;

}  // namespace

void DirectSocket::mapped() {
    const SocketEntry* other = attached(other_);
    const uint32_t incarnation = other ? other->incarnation : 0;
    if (incarnation == other_incarnation_) return;
    other_incarnation_ = incarnation;
    resumed_ = false;
    if (other) say_where_we_are();
}

void DirectSocket::say_where_we_are() {
    tell(other_, StreamKind::resume, received_);
}

void DirectSocket::send(BodyPtr body) {
    kept_bytes_ += body->size + 1;  // so that a message of no bytes is something kept
    kept_.push_back(body);
    sent_++;
    if (!resumed_) return;
    const uint64_t taken = received_ - inbox_.size();
    told_ = taken;
    untold_bytes_ = 0;
    tell(other_, StreamKind::data, sent_, body, static_cast<uint32_t>(taken));
}

BodyPtr DirectSocket::take() {
    if (inbox_.empty()) return nullptr;
    BodyPtr body = std::move(inbox_.front());
    inbox_.pop_front();
    untold_bytes_ += body->size;
    if (untold_bytes_ >= acknowledge_bytes ||
        received_ - inbox_.size() - told_ >= acknowledge_messages) {
        acknowledge();
    }
    return body;
}

void DirectSocket::acknowledge() {
    const uint64_t taken = received_ - inbox_.size();
    if (taken == told_ || !resumed_) return;
    told_ = taken;
    untold_bytes_ = 0;
    tell(other_, StreamKind::ack, taken);
}

void DirectSocket::tick() {
    acknowledge();
}

void DirectSocket::received(const wire::StreamHeader& header, BodyPtr body) {
    switch (header.kind) {
        case StreamKind::resume:
            return resume(header.number);
        case StreamKind::ack:
            return acknowledged(header.number);
        case StreamKind::data:
            break;
        default:
            return;
    }
    const auto behind = static_cast<uint32_t>(static_cast<uint32_t>(sent_) - header.ack);
    acknowledged(sent_ - behind);
    if (header.number <= received_) return;  // sent again
    if (header.number != received_ + 1) return say_where_we_are();
    received_++;
    inbox_.push_back(std::move(body));
    host_.woken();
}

// The other end is where it is now, and has received so much: the rest goes there.
void DirectSocket::resume(uint64_t seen) {
    if (seen > sent_ || seen + kept_.size() < sent_) {
        ghost::log::error(
            "kernet: socket {} of stream {:016x}: the other end has seen {} of {}, "
            "{} kept",
            number_, entry_.id, seen, sent_, kept_.size());
        return;
    }
    acknowledged(seen);
    resumed_ = true;
    uint64_t number = sent_ - kept_.size();
    for (const BodyPtr& body : kept_) {
        tell(other_, StreamKind::data, ++number, body,
             static_cast<uint32_t>(received_ - inbox_.size()));
    }
}

void DirectSocket::acknowledged(uint64_t number) {
    if (number > sent_) return;
    bool some = false;
    while (!kept_.empty() && sent_ - kept_.size() < number) {
        kept_bytes_ -= kept_.front()->size + 1;
        kept_.pop_front();
        some = true;
    }
    if (some) host_.woken();
}

nlohmann::json DirectSocket::save() const {
    nlohmann::json kept = nlohmann::json::array(), inbox = nlohmann::json::array();
    const auto bytes = [](const BodyPtr& body) {
        return nlohmann::json::binary({body->bytes.get(), body->bytes.get() + body->size});
    };
    for (const BodyPtr& body : kept_) kept.push_back(bytes(body));
    for (const BodyPtr& body : inbox_) inbox.push_back(bytes(body));
    return {{"sent", sent_}, {"received", received_}, {"kept", kept}, {"inbox", inbox}};
}

bool DirectSocket::restore(const nlohmann::json& state) {
    const auto number = [&state](const char* field, uint64_t& out) {
        const auto found = state.find(field);
        return found != state.end() && read_whole(*found, out);
    };
    const auto messages = [&state](const char* field, std::deque<BodyPtr>& out) {
        const auto found = state.find(field);
        if (found == state.end() || !found->is_array()) return false;
        return std::all_of(found->begin(), found->end(), [&out](const nlohmann::json& item) {
            return read_body(item, out.emplace_back());
        });
    };
    if (!state.is_object() || !number("sent", sent_) || !number("received", received_) ||
        !messages("kept", kept_) || !messages("inbox", inbox_)) {
        return false;
    }
    for (const BodyPtr& body : kept_) kept_bytes_ += body->size + 1;
    told_ = received_;
    return kept_.size() <= sent_ && inbox_.size() <= received_;
}

}  // namespace kernet
