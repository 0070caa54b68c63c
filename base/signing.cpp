// SPDX-License-Identifier: BSD-3-Clause
#include "base/signing.hpp"

#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <optional>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/encoding.hpp"
#include "base/fd.hpp"
#include "base/file.hpp"
#include "base/own_file.hpp"

namespace ghost {
namespace {

constexpr const char* secret_label = "ghost-secret-key ";
constexpr const char* public_label = "ghost-public-key ";
using Bytes32 = std::array<unsigned char, 32>;

// What follows the label; nothing if it is no such key.
std::optional<Bytes32> key_of(const std::string& text, const std::string& label) {
    if (!text.starts_with(label) || text.size() > label.size() + 65) return std::nullopt;
    auto digits = std::string_view(text).substr(label.size());
    if (!digits.empty() && digits.back() == '\n') digits.remove_suffix(1);
    auto bytes = decode_hex(digits);
    Bytes32 out{};
    if (!bytes || bytes->size() != out.size()) return std::nullopt;
    std::memcpy(out.data(), bytes->data(), out.size());
    sodium_memzero(bytes->data(), bytes->size());
    return out;
}

struct KeyFile {
    std::string text;
    bool readable = false;  // by others
    ~KeyFile() { sodium_memzero(text.data(), text.size()); }
};

Status read_key(const std::string& path, KeyFile& out) {
    const auto file = open_trusted_file(path);
    if (!file) return file.error();
    struct stat info {};
    if (::fstat(file->get(), &info) != 0) return sys_error("open key", path);
    out.readable = (info.st_mode & (S_IRWXG | S_IRWXO)) != 0;
    std::array<char, 128> text{};
    const auto got = ::read(file->get(), text.data(), text.size());
    if (got < 0) return sys_error("read key", path);
    out.text.assign(text.data(), static_cast<size_t>(got));
    sodium_memzero(text.data(), text.size());
    return {};
}

Error no_key(const std::string& path, const char* kind) {
    return make_error(Code::invalid, "use key", path,
                      fmt::format("it is no {} key that `ghost key` has made", kind));
}

std::string digits_of(const unsigned char* bytes, size_t size) {
    return encode_hex({reinterpret_cast<const char*>(bytes), size});
}

const unsigned char* bytes_of(std::string_view text) {
    return reinterpret_cast<const unsigned char*>(text.data());
}

}  // namespace

std::string PublicKey::hex() const {
    return digits_of(bytes_.data(), bytes_.size());
}

Result<PublicKey> PublicKey::load(const std::string& path) {
    KeyFile file;
    GHOST_TRY(read_key(path, file));
    if (auto bytes = key_of(file.text, public_label)) return PublicKey(*bytes);
    if (!key_of(file.text, secret_label)) return no_key(path, "public");
    auto secret = SigningKey::load(path);
    if (!secret) return secret.error();
    return (*secret)->public_key();
}

SigningKey::SigningKey(const std::array<unsigned char, seed_size>& seed) : public_(Bytes32{}) {
    Bytes32 bytes{};
    crypto_sign_seed_keypair(bytes.data(), secret_.data(), seed.data());
    public_ = PublicKey(bytes);
}

Result<PublicKey> PublicKey::from_hex(std::string_view digits) {
    const auto bytes = decode_hex(digits);
    Bytes32 out{};
    if (!bytes || bytes->size() != out.size())
        return make_error(Code::invalid, "use public key", std::string(digits));
    std::memcpy(out.data(), bytes->data(), out.size());
    return PublicKey(out);
}

bool PublicKey::has_signed(std::string_view text, const Signature& signature) const {
    return crypto_sign_verify_detached(signature.data(), bytes_of(text), text.size(),
                                       bytes_.data()) == 0;
}

Signature SigningKey::sign(std::string_view text) const {
    Signature out{};
    crypto_sign_detached(out.data(), nullptr, bytes_of(text), text.size(), secret_.data());
    return out;
}

Result<std::shared_ptr<const SigningKey>> SigningKey::fresh() {
    if (sodium_init() < 0) return make_error(Code::internal, "start libsodium");
    Bytes32 seed{};
    randombytes_buf(seed.data(), seed.size());
    auto out = std::make_shared<const SigningKey>(seed);
    sodium_memzero(seed.data(), seed.size());
    return out;
}

SigningKey::~SigningKey() {
    sodium_memzero(secret_.data(), secret_.size());
}

Result<std::shared_ptr<const SigningKey>> SigningKey::load(const std::string& path) {
    if (sodium_init() < 0) return make_error(Code::internal, "start libsodium");
    KeyFile file;
    GHOST_TRY(read_key(path, file));
    auto seed = key_of(file.text, secret_label);
    if (!seed) return no_key(path, "secret");
    if (file.readable)
        return make_error(Code::refused, "use key", path, "others may read it (chmod 600)");
    auto out = std::make_shared<const SigningKey>(*seed);
    sodium_memzero(seed->data(), seed->size());
    return out;
}

namespace {

Status put_key(const Fd& file, const std::string& text, const std::string& path) {
    GHOST_TRY(write_all(file.get(), text, path));
    if (::fsync(file.get()) != 0) return sys_error("sync", path);
    return {};
}

Status write_keys(const std::string& path, const std::string& other, const std::string& secret,
                  const PublicKey& key) {
    auto mine = open_own_file(path, O_WRONLY | O_CREAT | O_EXCL);
    if (!mine) return mine.error();
    auto theirs = open_own_file(other, O_WRONLY | O_CREAT | O_EXCL);
    if (!theirs) {
        ::unlink(path.c_str());
        return theirs.error();
    }
    Status done = put_key(*mine, secret, path);
    if (done.ok()) done = put_key(*theirs, public_label + key.hex() + "\n", other);
    if (done.ok() && ::fchmod(theirs->get(), 0644) != 0) done = sys_error("hand on", other);
    if (done.ok()) return done;
    ::unlink(path.c_str());
    ::unlink(other.c_str());
    return done;
}

}  // namespace

Result<PublicKey> make_keys(const std::string& path) {
    if (sodium_init() < 0) return make_error(Code::internal, "start libsodium");
    Bytes32 seed{};
    randombytes_buf(seed.data(), seed.size());
    const auto key = SigningKey(seed).public_key();
    std::string secret = secret_label + digits_of(seed.data(), seed.size()) + "\n";
    const Status done = write_keys(path, path + ".pub", secret, key);
    sodium_memzero(seed.data(), seed.size());
    sodium_memzero(secret.data(), secret.size());
    if (!done.ok()) return done.error();
    return key;
}

std::array<unsigned char, 64> wide_hash(std::string_view text) {
    std::array<unsigned char, 64> out{};
    crypto_generichash(out.data(), out.size(), bytes_of(text), text.size(), nullptr, 0);
    return out;
}

std::array<unsigned char, 32> short_hash(std::string_view text) {
    std::array<unsigned char, 32> out{};
    crypto_generichash(out.data(), out.size(), bytes_of(text), text.size(), nullptr, 0);
    return out;
}

}  // namespace ghost
