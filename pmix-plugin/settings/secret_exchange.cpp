// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/settings/secret_exchange.hpp"

#include <fmt/format.h>
#include <sodium.h>
#include <utility>

#include "base/encoding.hpp"

namespace ghost::plugin {
namespace {

constexpr size_t nonce_bytes = crypto_box_NONCEBYTES,
                 more_bytes = nonce_bytes + crypto_box_MACBYTES;
static_assert(crypto_box_PUBLICKEYBYTES == 32 && crypto_box_SECRETKEYBYTES == 32);
static_assert(crypto_box_SEEDBYTES == 32);

const unsigned char* bytes_of(std::string_view text) {
    return reinterpret_cast<const unsigned char*>(text.data());
}

Result<std::string> key_in(const std::string& hex) {
    auto key = decode_hex(hex);
    if (!key || key->size() != crypto_box_PUBLICKEYBYTES)
        return make_error(Code::invalid, "take as a public key", "what was sent");
    return std::move(*key);
}

}  // namespace

ExchangeKeys::ExchangeKeys() {
    [[maybe_unused]] const int fastest = sodium_init();
    crypto_box_keypair(public_.data(), secret_.data());
}

ExchangeKeys::ExchangeKeys(const JobSecret& job) {
    [[maybe_unused]] const int fastest = sodium_init();
    const std::string purpose = "ghost key that the secret is given with " + job.life;
    std::array<unsigned char, crypto_box_SEEDBYTES> hashed{}, seed{};
    crypto_generichash(hashed.data(), hashed.size(), bytes_of(job.secret), job.secret.size(),
                       nullptr, 0);
    crypto_generichash(seed.data(), seed.size(), bytes_of(purpose), purpose.size(), hashed.data(),
                       hashed.size());
    crypto_box_seed_keypair(public_.data(), secret_.data(), seed.data());
    sodium_memzero(hashed.data(), hashed.size());
    sodium_memzero(seed.data(), seed.size());
}

ExchangeKeys::~ExchangeKeys() {
    sodium_memzero(secret_.data(), secret_.size());
}

std::string ExchangeKeys::open_key() const {
    return encode_hex({reinterpret_cast<const char*>(public_.data()), public_.size()});
}

Result<std::string> ExchangeKeys::close(const std::string& theirs, std::string_view text) const {
    const auto key = key_in(theirs);
    GHOST_TRY(key);
    std::string out(more_bytes + text.size(), 0);
    auto* at = reinterpret_cast<unsigned char*>(out.data());
    randombytes_buf(at, nonce_bytes);
    if (crypto_box_easy(at + nonce_bytes, bytes_of(text), text.size(), at, bytes_of(*key),
                        secret_.data()) != 0)
        return make_error(Code::invalid, "take as a public key", theirs);
    return out;
}

Result<std::string> ExchangeKeys::open(const std::string& theirs, std::string_view closed) const {
    const auto key = key_in(theirs);
    GHOST_TRY(key);
    std::string out(closed.size() > more_bytes ? closed.size() - more_bytes : 0, 0);
    if (out.empty() ||
        crypto_box_open_easy(reinterpret_cast<unsigned char*>(out.data()),
                             bytes_of(closed) + nonce_bytes, closed.size() - nonce_bytes,
                             bytes_of(closed), bytes_of(*key), secret_.data()) != 0)
        return make_error(Code::refused, "read the job's secret",
                          "mpirun's answer is not for the key that this daemon has sent");
    return out;
}

SecretGiver::SecretGiver(JobSecret job) : job_(std::move(job)), keys_(job_) {}

Result<std::string> SecretGiver::give(uint32_t daemon, const std::string& key) {
    auto closed = keys_.close(key, secret_line(job_));
    GHOST_TRY(closed);
    if (const auto [had, is_new] = given_.emplace(daemon, key); !is_new && had->second != key)
        return make_error(Code::refused, "give the job's secret to",
                          fmt::format("daemon {}", daemon), "it has asked before, by another key");
    return closed;
}

Result<JobSecret> SecretAsker::take(std::string_view answer) const {
    const auto line = keys_.open(givers_key_, answer);
    GHOST_TRY(line);
    return parse_secret(*line, "mpirun");
}

}  // namespace ghost::plugin
