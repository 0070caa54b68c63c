// SPDX-License-Identifier: BSD-3-Clause
#include "tests/contract/kernet_messages.hpp"

#include <cstring>

namespace kernet {

namespace {

// Longer messages are received straight into their place.
constexpr size_t bulk_above = 32 * 1024;
constexpr uint8_t tag_message = 1;
// A peer could announce any length; more than this is not believed.
constexpr size_t max_size = size_t{1} << 30;

}  // namespace

void Stream::send(Message message) {
    Gate::Holder inside(socket_.path().gate());
    if (message.size() <= bulk_above) {
        uint8_t* room = socket_.reserve(message.size());
        if (!message.empty()) std::memcpy(room, message.data(), message.size());
        socket_.commit(message.size(), tag_message);
        return;
    }
    auto* kept = new Message(std::move(message));  // until released()
    socket_.send_bulk(tag_message, nullptr, 0, kept->data(), kept->size(), kept);
}

bool Stream::recv(Message& message) {
    Gate::Holder inside(socket_.path().gate());
    if (inbox_.empty()) return false;
    message = std::move(inbox_.front());
    inbox_.pop_front();
    return true;
}

size_t Stream::backlog() {
    Gate::Holder inside(socket_.path().gate());
    return socket_.backlog();
}

void Stream::unattach() {
    Gate::Holder inside(socket_.path().gate());
    socket_.unattach();
}

Stream& StreamHub::stream_of(Socket& socket) {
    auto& slot = streams_[socket.peer()];
    if (!slot) slot = std::make_unique<Stream>(socket);
    return *slot;
}

Stream& StreamHub::attach(uint32_t peer) {
    Gate::Holder inside(path_.gate());
    return stream_of(path_.attach(peer));
}

void StreamHub::deliver(Socket& socket, uint8_t, uint8_t* bytes, size_t size) {
    stream_of(socket).inbox_.emplace_back(bytes, bytes + size);
}

uint8_t* StreamHub::place(Socket& socket, uint8_t, const uint8_t*, size_t, size_t size) {
    if (size > max_size) return nullptr;
    Stream::Message& arriving = stream_of(socket).arriving_;
    arriving.resize(size);
    return arriving.data();
}

void StreamHub::placed(Socket& socket, uint8_t, const uint8_t*, size_t, uint8_t*, size_t) {
    Stream& stream = stream_of(socket);
    stream.inbox_.push_back(std::move(stream.arriving_));
    stream.arriving_ = {};
}

void StreamHub::released(Socket&, void* token) {
    delete static_cast<Stream::Message*>(token);
}

}  // namespace kernet
