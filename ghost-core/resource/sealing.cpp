// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/resource/sealing.hpp"

#include <cstring>
#include <sodium.h>
#include <string_view>

namespace ghost::core {
namespace {

constexpr std::array<unsigned char, 8> hello_mark = {'G', 'H', 'O', 'S', 'T', 'N', '0', '2'};
constexpr uint32_t last_bit = 1U << 31;

uint32_t ciphers_here() {
    return cipher_chacha20 | (crypto_aead_aes256gcm_is_available() != 0 ? cipher_aes : 0);
}

const unsigned char* bytes(const void* at) {
    return static_cast<const unsigned char*>(at);
}

unsigned char* bytes(void* at) {
    return static_cast<unsigned char*>(at);
}

}  // namespace

PassingKey::PassingKey() {
    static_assert(sizeof own_ == crypto_scalarmult_SCALARBYTES);
    static_assert(sizeof shown_ == crypto_scalarmult_BYTES);
    randombytes_buf(own_.data(), own_.size());
    crypto_scalarmult_base(shown_.data(), own_.data());
}

PassingKey::~PassingKey() {
    sodium_memzero(own_.data(), own_.size());
}

bool PassingKey::agree(const std::array<unsigned char, 32>& theirs,
                       std::array<unsigned char, 32>& out) const {
    return crypto_scalarmult(out.data(), own_.data(), theirs.data()) == 0;
}

Greeting::Greeting(Side self, std::string token, const std::string& secret,
                   std::shared_ptr<const PassingKey> key, uint32_t ciphers)
    : self_(self), token_(std::move(token)), key_(std::move(key)) {
    crypto_generichash(secret_.data(), secret_.size(), bytes(secret.data()), secret.size(), nullptr,
                       0);
    mine_.mark = hello_mark;
    mine_.key = key_->shown();
    mine_.ciphers = ciphers != 0 ? ciphers : ciphers_here();
    randombytes_buf(mine_.nonce.data(), mine_.nonce.size());
}

Greeting::~Greeting() {
    sodium_memzero(secret_.data(), secret_.size());
    sodium_memzero(agreed_.data(), agreed_.size());
}

bool Greeting::take(const Hello& theirs) {
    theirs_ = theirs;
    return theirs.mark == hello_mark && (theirs.ciphers & cipher_chacha20) != 0;
}

// Each part has its end: a label its NUL, a token its length, all else one size.
SealKey Greeting::make(const char* label, bool agreed) const {
    SealKey out{};
    crypto_generichash_state state;
    crypto_generichash_init(&state, secret_.data(), secret_.size(), out.size());
    crypto_generichash_update(&state, bytes(label), std::strlen(label) + 1);
    const uint64_t length = token_.size();
    crypto_generichash_update(&state, bytes(&length), sizeof length);
    crypto_generichash_update(&state, bytes(token_.data()), token_.size());
    const bool source = self_ == Side::source;
    crypto_generichash_update(&state, bytes(source ? &mine_ : &theirs_), sizeof(Hello));
    crypto_generichash_update(&state, bytes(source ? &theirs_ : &mine_), sizeof(Hello));
    if (agreed) crypto_generichash_update(&state, agreed_.data(), agreed_.size());
    crypto_generichash_final(&state, out.data(), out.size());
    return out;
}

Proof Greeting::proof_of(Side side) const {
    return make(side == Side::source ? "proof of source" : "proof of target", false);
}

bool Greeting::proves(const Proof& theirs) const {
    const Proof wanted = proof_of(self_ == Side::source ? Side::target : Side::source);
    return sodium_memcmp(theirs.data(), wanted.data(), wanted.size()) == 0;
}

uint32_t Greeting::cipher() const {
    return (mine_.ciphers & theirs_.ciphers & cipher_aes) != 0 ? cipher_aes : cipher_chacha20;
}

SealKey Greeting::key_of(Side writer) const {
    return make(writer == Side::source ? "key of source" : "key of target", true);
}

struct Seal::Cipher {
    uint32_t which = cipher_chacha20;
    SealKey key{};
    crypto_aead_aes256gcm_state aes{};  // made of the key
};

Seal::Seal(uint32_t cipher, const SealKey& key) : cipher_(std::make_unique<Cipher>()) {
    static_assert(tag_bytes == crypto_aead_aes256gcm_ABYTES);
    static_assert(tag_bytes == crypto_aead_chacha20poly1305_ietf_ABYTES);
    static_assert(crypto_aead_aes256gcm_NPUBBYTES == crypto_aead_chacha20poly1305_ietf_NPUBBYTES);
    cipher_->which = cipher;
    if (cipher == cipher_aes)
        crypto_aead_aes256gcm_beforenm(&cipher_->aes, key.data());
    else
        cipher_->key = key;
}

Seal::~Seal() {
    sodium_memzero(cipher_->key.data(), cipher_->key.size());
    sodium_memzero(&cipher_->aes, sizeof cipher_->aes);
}

std::array<unsigned char, 12> Seal::nonce() {
    std::array<unsigned char, 12> out{};
    std::memcpy(out.data(), &number_, sizeof number_);
    number_++;
    return out;
}

void Seal::close(const char* from, size_t size, bool last, char* out) {
    const uint32_t head = static_cast<uint32_t>(size) | (last ? last_bit : 0);
    std::memcpy(out, &head, sizeof head);
    const auto number = nonce();
    auto* to = bytes(static_cast<void*>(out + head_bytes));
    if (cipher_->which == cipher_aes)
        crypto_aead_aes256gcm_encrypt_afternm(to, nullptr, bytes(from), size, bytes(&head),
                                              sizeof head, nullptr, number.data(), &cipher_->aes);
    else
        crypto_aead_chacha20poly1305_ietf_encrypt(to, nullptr, bytes(from), size, bytes(&head),
                                                  sizeof head, nullptr, number.data(),
                                                  cipher_->key.data());
}

Seal::Head Seal::head_of(const char* record) {
    uint32_t head = 0;
    std::memcpy(&head, record, sizeof head);
    return {head & ~last_bit, (head & last_bit) != 0};
}

bool Seal::open(const char* record, char* to) {
    broken_ = broken_ || !open_next(record, to);
    return !broken_;
}

bool Seal::open_next(const char* record, char* to) {
    const auto number = nonce();
    const auto* sealed = bytes(record + head_bytes);
    const size_t size = head_of(record).size + tag_bytes;
    auto* out = bytes(static_cast<void*>(to));
    if (cipher_->which == cipher_aes)
        return crypto_aead_aes256gcm_decrypt_afternm(out, nullptr, nullptr, sealed, size,
                                                     bytes(record), head_bytes, number.data(),
                                                     &cipher_->aes) == 0;
    return crypto_aead_chacha20poly1305_ietf_decrypt(out, nullptr, nullptr, sealed, size,
                                                     bytes(record), head_bytes, number.data(),
                                                     cipher_->key.data()) == 0;
}

}  // namespace ghost::core
