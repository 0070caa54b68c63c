// SPDX-License-Identifier: BSD-3-Clause
// Keys that say who has made something (Ed25519): of ghosts (ghost-core/resource/sign.hpp) and of
// snapshots of jobs (pmix-plugin/snapshots/manifest.hpp).
#pragma once

#include <array>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace ghost {

using Signature = std::array<unsigned char, 64>;

// Whose signature is expected.
class PublicKey {
  public:
    static constexpr size_t size = 32;

    // From a file `make_keys()` has made, the public or the secret one. refused: others may write
    // to it, or it is another user's; invalid: no key.
    static Result<PublicKey> load(const std::string& path);
    // Of what hex() gave. invalid: it is no key.
    static Result<PublicKey> from_hex(std::string_view digits);
    explicit PublicKey(const std::array<unsigned char, size>& bytes) : bytes_(bytes) {}
    const unsigned char* bytes() const { return bytes_.data(); }
    std::string hex() const;
    // Whether its owner has signed just this.
    bool has_signed(std::string_view text, const Signature& signature) const;
    bool operator==(const PublicKey&) const = default;

  private:
    std::array<unsigned char, size> bytes_;
};

// Who signs; wiped when it goes.
class SigningKey {
  public:
    static constexpr size_t seed_size = 32;

    // refused as above, or others may read it.
    static Result<std::shared_ptr<const SigningKey>> load(const std::string& path);
    // One that nobody else has, and no file.
    static Result<std::shared_ptr<const SigningKey>> fresh();
    explicit SigningKey(const std::array<unsigned char, seed_size>& seed);
    ~SigningKey();
    SigningKey(const SigningKey&) = delete;
    SigningKey& operator=(const SigningKey&) = delete;
    const PublicKey& public_key() const { return public_; }
    Signature sign(std::string_view text) const;

  private:
    std::array<unsigned char, 64> secret_{};
    PublicKey public_;
};

// A pair in new files of a folder that is this user's alone: `path`, the secret key (0600), and
// `path`.pub (0644). io: one of them is there.
Result<PublicKey> make_keys(const std::string& path);

// BLAKE2b-512 and -256 of a text.
std::array<unsigned char, 64> wide_hash(std::string_view text);
std::array<unsigned char, 32> short_hash(std::string_view text);

}  // namespace ghost
