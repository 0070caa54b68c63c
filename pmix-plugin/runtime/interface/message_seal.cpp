// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/runtime/interface/message_seal.hpp"

#include <cstring>
#include <fmt/format.h>
#include <sodium.h>

namespace ghost::plugin {
namespace {

constexpr size_t head_bytes = 16, tag_bytes = crypto_aead_xchacha20poly1305_ietf_ABYTES;
using Nonce = std::array<unsigned char, crypto_aead_xchacha20poly1305_ietf_NPUBBYTES>;
static_assert(sizeof(Nonce) == head_bytes + 2 * sizeof(uint32_t));

const unsigned char* bytes(const char* at) {
    return reinterpret_cast<const unsigned char*>(at);
}
unsigned char* bytes(char* at) {
    return reinterpret_cast<unsigned char*>(at);
}

// All that distinguishes a message; so it is authenticated too.
Nonce nonce_of(const char* head, uint32_t from, uint32_t to) {
    Nonce out;
    std::memcpy(out.data(), head, head_bytes);
    std::memcpy(out.data() + head_bytes, &from, sizeof from);
    std::memcpy(out.data() + head_bytes + sizeof from, &to, sizeof to);
    return out;
}

bool open_as(const Nonce& nonce, std::string_view sealed, const unsigned char* key,
             std::string& out) {
    out.resize(sealed.size() - head_bytes - tag_bytes);
    return crypto_aead_xchacha20poly1305_ietf_decrypt(
               bytes(out.data()), nullptr, nullptr, bytes(sealed.data() + head_bytes),
               sealed.size() - head_bytes, nullptr, 0, nonce.data(), key) == 0;
}

}  // namespace

MessageSeal::MessageSeal(uint32_t self, const std::string& secret, const std::string& life)
    : self_(self) {
    [[maybe_unused]] const int fastest = sodium_init();  // without it all is right, but slower
    const std::string purpose = "ghost messages between daemons " + life;
    Key hashed{};
    crypto_generichash(hashed.data(), hashed.size(), bytes(secret.data()), secret.size(), nullptr,
                       0);
    crypto_generichash(key_.data(), key_.size(), bytes(purpose.data()), purpose.size(),
                       hashed.data(), hashed.size());
    sodium_memzero(hashed.data(), hashed.size());
    randombytes_buf(drawn_.data(), drawn_.size());
}

MessageSeal::~MessageSeal() {
    sodium_memzero(key_.data(), key_.size());
}

std::string MessageSeal::close(uint32_t to, std::string_view text) {
    const uint64_t counter = ++sent_[to];
    std::string out(head_bytes + text.size() + tag_bytes, 0);
    std::memcpy(out.data(), drawn_.data(), drawn_.size());
    std::memcpy(out.data() + drawn_.size(), &counter, sizeof counter);
    const Nonce nonce = nonce_of(out.data(), self_, to);
    crypto_aead_xchacha20poly1305_ietf_encrypt(bytes(out.data() + head_bytes), nullptr,
                                               bytes(text.data()), text.size(), nullptr, 0, nullptr,
                                               nonce.data(), key_.data());
    return out;
}

Result<std::string> MessageSeal::open(uint32_t from, std::string_view sealed) {
    const auto refused = [&](const char* why) {
        return make_error(Code::refused, "read a message of", fmt::format("daemon {}", from), why);
    };
    if (sealed.size() < head_bytes + tag_bytes) return refused("it is too short");
    std::string text;
    uint32_t to = self_;
    if (!open_as(nonce_of(sealed.data(), from, to), sealed, key_.data(), text)) {
        to = everybody;
        if (!open_as(nonce_of(sealed.data(), from, to), sealed, key_.data(), text))
            return refused("nobody of this life of the job has sent it so");
    }
    Heard now;
    std::memcpy(now.drawn.data(), sealed.data(), now.drawn.size());
    std::memcpy(&now.counter, sealed.data() + now.drawn.size(), sizeof now.counter);
    Heard& last = heard_[{from, to}];
    if (last.counter == 0) last.drawn = now.drawn;
    if (now.drawn != last.drawn || now.counter <= last.counter)
        return refused("it, or a later one, has come before");
    last.counter = now.counter;
    return text;
}

}  // namespace ghost::plugin
