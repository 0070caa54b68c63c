// SPDX-License-Identifier: BSD-3-Clause
// Signs what goes to another resource (Ed25519): whoever has the public key knows that its owner
// has made it, every byte, in this order, to the end. Each MiB is signed by itself, as a part of
// this ghost and in this place, so that nothing is used before its signature is right and a ghost
// is read once, whatever it comes from (docs/IMAGE_FORMAT.md, "Signed ghosts").
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>

#include "ghost-core/resource/units.hpp"

namespace ghost::core {

// Whose signature is expected.
class PublicKey {
  public:
    static constexpr size_t size = 32;

    // From a file `make_keys()` has made, the public or the secret one. refused: others may write
    // to it, or it is another user's; invalid: no key.
    static Result<PublicKey> load(const std::string& path);
    explicit PublicKey(const std::array<unsigned char, size>& bytes) : bytes_(bytes) {}
    const unsigned char* bytes() const { return bytes_.data(); }
    std::string hex() const;
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
    explicit SigningKey(const std::array<unsigned char, seed_size>& seed);
    ~SigningKey();
    SigningKey(const SigningKey&) = delete;
    SigningKey& operator=(const SigningKey&) = delete;
    const unsigned char* bytes() const { return secret_.data(); }
    const PublicKey& public_key() const { return public_; }

  private:
    std::array<unsigned char, 64> secret_{};
    PublicKey public_;
};

// A pair in new files of a folder that is this user's alone: `path`, the secret key (0600), and
// `path`.pub (0644). io: one of them is there.
Result<PublicKey> make_keys(const std::string& path);

class SignResource : public UnitResource {
  public:
    static std::unique_ptr<Resource> writer(std::unique_ptr<Resource> inner,
                                            std::shared_ptr<const SigningKey> key);
    // Without a `signer` signatures are not looked at. refused: another one has signed.
    static std::unique_ptr<Resource> reader(std::unique_ptr<Resource> inner,
                                            std::optional<PublicKey> signer);
    // Whether a resource that begins with these 8 bytes is a signed one.
    static bool is_mine(const char* start);

    ~SignResource() override;
    ResourceClass class_id() const override { return ResourceClass::sign; }
    void interrupt() override { inner_->interrupt(); }

  private:
    struct Record;
    struct Statement;
    SignResource(std::unique_ptr<Resource> inner, Use use);
    Status open() override;
    void work(Slot& slot) override;
    Status emit(Slot& slot) override;
    Result<bool> load(Slot& slot) override;
    Status close() override;
    Statement statement(const Record& record, const Slot& slot) const;
    void sign(Slot& slot, bool last) const;
    Status check(const Slot& slot) const;

    std::unique_ptr<Resource> inner_;
    std::shared_ptr<const SigningKey> key_;
    std::optional<PublicKey> signer_;
    std::array<unsigned char, PublicKey::size> said_{};  // by the header: whose it is
    std::array<unsigned char, 16> id_{};                 // of this ghost: random
    static constexpr size_t slot_count = 4;
    Slot end_;
};

}  // namespace ghost::core
