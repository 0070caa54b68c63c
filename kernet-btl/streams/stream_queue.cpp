// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/streams/stream_queue.hpp"

#include <algorithm>
#include <cstring>
#include <ctime>

#include "base/log.hpp"
#include "kernet-btl/streams/handle.hpp"

namespace kernet {

namespace {

using wire::StreamKind;

#pragma pack(push, 1)
struct Announcement {
    uint64_t id;
    int64_t stamp;
};
struct Reader {
    uint32_t incarnation;
    uint16_t socket;
};
struct HelloHead {
    uint64_t wanted;
};
#pragma pack(pop)

// Nanoseconds since 1970: fine enough that of two sends, one after the other, the later is later.
int64_t now_ns() {
    timespec t{};
    clock_gettime(CLOCK_REALTIME, &t);
    return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

template <typename T>
bool read(const BodyPtr& body, T& out) {
    if (!body || body->size < sizeof out) return false;
    std::memcpy(static_cast<void*>(&out), body->bytes.get(), sizeof out);
    return true;
}

}  // namespace

// --- the map ---

void QueueSocket::mapped() {
    forget_the_gone();
    look_after_lanes();
    say_what_came();
    // Also when the orderer is the same: what it had a writer give that is gone, was not given.
    say_all();
    for (Give& order : std::exchange(early_, {})) give(std::move(order));
    match();
}

void QueueSocket::resume_all() {
    for (auto& [writer, source] : sources_) source.incarnation = 0;
    say_what_came();
    say_all();
}

uint16_t QueueSocket::orderer() const {
    for (size_t number = 0; number < entry_.sockets.size(); number++) {
        if (entry_.sockets[number].state == SocketState::attached) {
            return static_cast<uint16_t>(number);
        }
    }
    return UINT16_MAX;
}

void QueueSocket::tell_orderer(StreamKind kind, uint64_t number, const BodyPtr& body) {
    tell(orderer(), kind, number, body);
}

void QueueSocket::say_all() {
    auto body = std::make_shared<Body>(sizeof(HelloHead) + pool_.size() * sizeof(Announcement));
    uint8_t* at = body->bytes.get();
    const HelloHead head{outstanding_};
    std::memcpy(at, &head, sizeof head);
    at += sizeof head;
    for (const auto& [id, item] : pool_) {
        const Announcement announcement{id, item.stamp};
        std::memcpy(at, &announcement, sizeof announcement);
        at += sizeof announcement;
    }
    tell_orderer(StreamKind::hello, 0, body);
}

void QueueSocket::received(const wire::StreamHeader& header, BodyPtr body) {
    switch (header.kind) {
        case StreamKind::data:
            return on_data(header, std::move(body));
        case StreamKind::ack:
            return on_taken(header.from, header.number);
        case StreamKind::resume:
            return on_resume(header.from, header.number);
        case StreamKind::give:
            return on_give(header, body);
        case StreamKind::hello:
            return on_hello(header, body);
        case StreamKind::announce: {
            Announcement announcement;
            if (!read(body, announcement)) return;
            offers_.insert({announcement.stamp, header.from, announcement.id});
            return match();
        }
        case StreamKind::ask:
        case StreamKind::unask:
            return on_want(header);
        case StreamKind::not_given: {
            Reader reader;
            if (!read(body, reader)) return;
            const SocketEntry* socket = attached(reader.socket);
            if (!socket || socket->incarnation != reader.incarnation) return;
            hungry_.push_front(reader.socket);
            return match();
        }
    }
}

// --- writer ---

void QueueSocket::send(BodyPtr body) {
    stamp_ = std::max(stamp_ + 1, now_ns());
    kept_bytes_ += body->size + 1;
    Item& item = pool_[++sent_];
    item = {sent_, stamp_, std::move(body)};
    announce(item);
}

void QueueSocket::announce(const Item& item) {
    const Announcement announcement{item.id, item.stamp};
    tell_orderer(StreamKind::announce, 0, make_body(&announcement, sizeof announcement));
}

// Only of the orderer this socket has told what it has: an earlier one may give what a later one
// has given already.
void QueueSocket::on_give(const wire::StreamHeader& header, const BodyPtr& body) {
    Reader reader;
    if (header.from != orderer() || !read(body, reader)) return;
    const auto found = pool_.find(header.number);
    if (found == pool_.end()) {
        return tell_orderer(StreamKind::not_given, 0, make_body(&reader, sizeof reader));
    }
    Give order{std::move(found->second), reader.socket, reader.incarnation};
    pool_.erase(found);
    give(std::move(order));
}

void QueueSocket::give(Give order) {
    const SocketEntry* socket = attached(order.reader);
    const uint32_t known =
        order.reader < entry_.sockets.size() ? entry_.sockets[order.reader].incarnation : 0;
    if (known < order.incarnation) {  // the orderer has a newer map
        early_.push_back(std::move(order));
        return;
    }
    if (!socket || known != order.incarnation) return offer_again(std::move(order.item));
    Lane& lane = lanes_[order.reader];
    if (lane.incarnation != known) {
        take_back(lane, 0);
        lane = Lane{};
        lane.incarnation = known;
    }
    lane.given++;
    lane.untaken.push_back(std::move(order.item));
    if (lane.ready) tell(order.reader, StreamKind::data, lane.given, lane.untaken.back().body);
}

void QueueSocket::offer_again(Item item) {
    const auto [back, added] = pool_.emplace(item.id, std::move(item));
    announce(back->second);
}

void QueueSocket::drop_taken(Lane& lane, uint64_t number) {
    if (number > lane.given) return;
    while (!lane.untaken.empty() && lane.given - lane.untaken.size() < number) {
        kept_bytes_ -= lane.untaken.front().body->size + 1;
        lane.untaken.pop_front();
    }
    host_.woken();
}

void QueueSocket::on_taken(uint16_t reader, uint64_t number) {
    const auto lane = lanes_.find(reader);
    if (lane != lanes_.end()) drop_taken(lane->second, number);
}

// The reader has received so much of what was given to it; the rest goes to it again.
void QueueSocket::on_resume(uint16_t reader, uint64_t number) {
    const auto found = lanes_.find(reader);
    if (found == lanes_.end()) return;
    Lane& lane = found->second;
    lane.ready = true;
    uint64_t at = lane.given - lane.untaken.size();
    for (const Item& item : lane.untaken) {
        if (++at > number) tell(reader, StreamKind::data, at, item.body);
    }
}

// What was given to readers that are suspended or gone and has not reached them is to be given
// again: how far they had got is in the map.
void QueueSocket::look_after_lanes() {
    for (auto at = lanes_.begin(); at != lanes_.end();) {
        Lane& lane = at->second;
        const SocketEntry& reader = entry_.sockets[at->first];
        if (reader.state == SocketState::attached && reader.incarnation == lane.incarnation) {
            ++at;
            continue;
        }
        const auto farewell = reader.farewells.find(number_);
        const bool known =
            farewell != reader.farewells.end() && farewell->second.incarnation == lane.incarnation;
        take_back(lane, known ? farewell->second.count : 0);
        at = lanes_.erase(at);
    }
}

void QueueSocket::take_back(Lane& lane, uint64_t received) {
    drop_taken(lane, received);
    for (Item& item : lane.untaken) offer_again(std::move(item));
    lane.untaken.clear();
}

// --- reader ---

void QueueSocket::wanted(size_t callers) {
    const size_t coming = inbox_.size() + outstanding_;
    if (coming < callers) {
        outstanding_ += callers - coming;
        tell_orderer(StreamKind::ask, callers - coming);
    } else if (callers < outstanding_) {
        tell_orderer(StreamKind::unask, outstanding_ - callers);
        outstanding_ = callers;
    }
}

void QueueSocket::on_data(const wire::StreamHeader& header, BodyPtr body) {
    Source& source = sources_[header.from];
    if (header.number <= source.received) return;  // sent again
    if (header.number != source.received + 1) {
        return tell(header.from, StreamKind::resume, source.received);
    }
    source.received++;
    if (outstanding_ > 0) outstanding_--;
    inbox_.push_back({header.from, std::move(body)});
    host_.woken();
}

BodyPtr QueueSocket::take() {
    if (inbox_.empty()) return nullptr;
    Arrived arrived = std::move(inbox_.front());
    inbox_.pop_front();
    if (arrived.writer >= 0) {
        const auto writer = static_cast<uint16_t>(arrived.writer);
        tell(writer, StreamKind::ack, ++sources_[writer].taken);
    }
    return std::move(arrived.body);
}

// To writers that have been woken up somewhere, which do not know what was on its way.
void QueueSocket::say_what_came() {
    for (size_t number = 0; number < entry_.sockets.size(); number++) {
        const auto writer = static_cast<uint16_t>(number);
        const SocketEntry* socket = attached(writer);
        if (!socket || socket->incarnation < 2) continue;
        Source& source = sources_[writer];
        if (source.incarnation == socket->incarnation) continue;
        source.incarnation = socket->incarnation;
        tell(writer, StreamKind::resume, source.received);
        tell(writer, StreamKind::ack, source.taken);
    }
}

Farewells QueueSocket::farewells(bool suspended) const {
    Farewells out;
    for (const auto& [writer, source] : sources_) {
        const uint64_t count = suspended ? source.received : source.taken;
        if (count > 0) out[writer] = {incarnation_, count};
    }
    return out;
}

// --- orderer ---

void QueueSocket::on_hello(const wire::StreamHeader& header, const BodyPtr& body) {
    HelloHead head;
    if (!read(body, head)) return;
    forget(header.from);
    const SocketEntry* from = attached(header.from);
    incarnations_[header.from] = from->incarnation;
    for (size_t at = sizeof head; at + sizeof(Announcement) <= body->size;
         at += sizeof(Announcement)) {
        Announcement announcement;
        std::memcpy(static_cast<void*>(&announcement), body->bytes.get() + at, sizeof announcement);
        offers_.insert({announcement.stamp, header.from, announcement.id});
    }
    for (uint64_t i = 0; i < std::min<uint64_t>(head.wanted, 1024); i++) {
        hungry_.push_back(header.from);
    }
    match();
}

void QueueSocket::on_want(const wire::StreamHeader& header) {
    const uint64_t count = std::min<uint64_t>(header.number, 1024);
    for (uint64_t i = 0; i < count; i++) {
        if (header.kind == StreamKind::ask) {
            hungry_.push_back(header.from);
            continue;
        }
        const auto last = std::find(hungry_.rbegin(), hungry_.rend(), header.from);
        if (last != hungry_.rend()) hungry_.erase(std::next(last).base());
    }
    match();
}

void QueueSocket::forget(uint16_t socket) {
    std::erase(hungry_, socket);
    std::erase_if(offers_, [socket](const Offer& offer) { return std::get<1>(offer) == socket; });
    incarnations_.erase(socket);
}

void QueueSocket::forget_the_gone() {
    std::vector<uint16_t> gone;
    for (const auto& [number, incarnation] : incarnations_) {
        const SocketEntry* socket = attached(number);
        if (!socket || socket->incarnation != incarnation) gone.push_back(number);
    }
    for (uint16_t number : gone) forget(number);
}

// The oldest message (LIFO: the newest) to the reader that has waited longest.
void QueueSocket::match() {
    if (matching_ || orderer() != number_) return;
    matching_ = true;
    while (!offers_.empty() && !hungry_.empty()) {
        const auto offer =
            entry_.type == StreamType::fifo ? offers_.begin() : std::prev(offers_.end());
        const auto [stamp, writer, id] = *offer;
        offers_.erase(offer);
        const uint16_t number = hungry_.front();
        const SocketEntry* socket = attached(number);
        if (!attached(writer)) continue;
        hungry_.pop_front();
        if (!socket) {
            offers_.insert({stamp, writer, id});
            continue;
        }
        const Reader reader{socket->incarnation, number};
        tell(writer, StreamKind::give, id, make_body(&reader, sizeof reader));
    }
    matching_ = false;
}

// --- handles ---

nlohmann::json QueueSocket::save() const {
    using Json = nlohmann::json;
    const auto bytes = [](const BodyPtr& body) {
        return Json::binary({body->bytes.get(), body->bytes.get() + body->size});
    };
    const auto item_json = [&](const Item& item) {
        return Json{item.id, item.stamp, bytes(item.body)};
    };
    Json pool = Json::array(), lanes = Json::array(), inbox = Json::array();
    for (const auto& [id, item] : pool_) pool.push_back(item_json(item));
    for (const Give& order : early_) pool.push_back(item_json(order.item));
    for (const auto& [reader, lane] : lanes_) {
        Json untaken = Json::array();
        for (const Item& item : lane.untaken) untaken.push_back(item_json(item));
        lanes.push_back({reader, lane.incarnation, lane.given, untaken});
    }
    for (const Arrived& arrived : inbox_) inbox.push_back(bytes(arrived.body));
    return {{"sent", sent_}, {"stamp", stamp_}, {"pool", pool}, {"lanes", lanes}, {"inbox", inbox}};
}

bool QueueSocket::restore_item(const nlohmann::json& json, Item& item) {
    if (!json.is_array() || json.size() != 3 || !read_whole(json[0], item.id) ||
        !read_whole(json[1], item.stamp) || !read_body(json[2], item.body)) {
        return false;
    }
    kept_bytes_ += item.body->size + 1;
    return item.id > 0 && item.id <= sent_;
}

bool QueueSocket::restore_lane(const nlohmann::json& json) {
    uint16_t reader = 0;
    if (!json.is_array() || json.size() != 4 || !read_whole(json[0], reader) ||
        reader >= entry_.sockets.size() || lanes_.count(reader) > 0 || !json[3].is_array()) {
        return false;
    }
    Lane& lane = lanes_[reader];
    lane.ready = false;
    if (!read_whole(json[1], lane.incarnation) || !read_whole(json[2], lane.given)) return false;
    for (const auto& item : json[3]) {
        if (!restore_item(item, lane.untaken.emplace_back())) return false;
    }
    return lane.untaken.size() <= lane.given;
}

bool QueueSocket::restore(const nlohmann::json& state) {
    if (!state.is_object()) return false;
    for (const char* field : {"sent", "stamp", "pool", "lanes", "inbox"}) {
        if (!state.contains(field)) return false;
    }
    if (!read_whole(state["sent"], sent_) || !read_whole(state["stamp"], stamp_)) return false;
    for (const char* field : {"pool", "lanes", "inbox"}) {
        if (!state[field].is_array()) return false;
    }
    for (const auto& json : state["pool"]) {
        Item item;
        if (!restore_item(json, item) || !pool_.emplace(item.id, item).second) return false;
    }
    for (const auto& json : state["lanes"]) {
        if (!restore_lane(json)) return false;
    }
    for (const auto& json : state["inbox"]) {
        if (!read_body(json, inbox_.emplace_back().body)) return false;
    }
    return true;
}

}  // namespace kernet
