// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/resource/sealing.hpp"

#include <cstring>
#include <new>
#include <openssl/evp.h>
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

// libcrypto's: twice as fast as libsodium's AES and four times as its ChaCha20 on processors with
// wide registers (benchmarks/micro/sealed_move), and the bytes are the same.
struct Seal::Cipher {
    struct Freed {
        void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
    };
    std::unique_ptr<EVP_CIPHER_CTX, Freed> context{EVP_CIPHER_CTX_new()};
};

Seal::Seal(uint32_t cipher, const SealKey& key, Use use) : cipher_(std::make_unique<Cipher>()) {
    const EVP_CIPHER* which = cipher == cipher_aes ? EVP_aes_256_gcm() : EVP_chacha20_poly1305();
    auto* context = cipher_->context.get();
    if (context == nullptr || EVP_CipherInit_ex(context, which, nullptr, key.data(), nullptr,
                                                use == Use::close ? 1 : 0) != 1)
        throw std::bad_alloc();
}

Seal::~Seal() = default;

std::array<unsigned char, 12> Seal::nonce() {
    std::array<unsigned char, 12> out{};
    std::memcpy(out.data(), &number_, sizeof number_);
    number_++;
    return out;
}

// The head is authenticated, the bytes are sealed or opened; the tag is the caller's.
bool Seal::pass(const void* head, const char* from, size_t size, char* to) {
    auto* context = cipher_->context.get();
    const auto number = nonce();
    int done = 0;
    return EVP_CipherInit_ex(context, nullptr, nullptr, nullptr, number.data(), -1) == 1 &&
           EVP_CipherUpdate(context, nullptr, &done, bytes(head), head_bytes) == 1 &&
           (size == 0 || EVP_CipherUpdate(context, bytes(static_cast<void*>(to)), &done,
                                          bytes(from), static_cast<int>(size)) == 1);
}

bool Seal::close(const char* from, size_t size, bool last, char* out) {
    const uint32_t head = static_cast<uint32_t>(size) | (last ? last_bit : 0);
    std::memcpy(out, &head, sizeof head);
    char* const to = out + head_bytes;
    auto* tag = bytes(static_cast<void*>(to + size));
    int rest = 0;
    return pass(&head, from, size, to) &&
           EVP_CipherFinal_ex(cipher_->context.get(), tag, &rest) == 1 &&
           EVP_CIPHER_CTX_ctrl(cipher_->context.get(), EVP_CTRL_AEAD_GET_TAG, tag_bytes, tag) == 1;
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
    const char* sealed = record + head_bytes;
    const size_t size = head_of(record).size;
    std::array<unsigned char, tag_bytes> tag{};
    std::memcpy(tag.data(), sealed + size, tag.size());
    unsigned char none = 0;
    int rest = 0;
    return pass(record, sealed, size, to) &&
           EVP_CIPHER_CTX_ctrl(cipher_->context.get(), EVP_CTRL_AEAD_SET_TAG, tag_bytes,
                               tag.data()) == 1 &&
           EVP_CipherFinal_ex(cipher_->context.get(), &none, &rest) == 1;
}

}  // namespace ghost::core
