// SPDX-License-Identifier: BSD-3-Clause
// Signs what goes to another resource (Ed25519): whoever has the public key knows that its owner
// has made it, every byte, in this order, to the end. Each MiB is signed by itself, as a part of
// this ghost and in this place, so that nothing is used before its signature is right and a ghost
// is read once, whatever it comes from (docs/IMAGE_FORMAT.md, "Signed ghosts").
#pragma once

#include <array>
#include <memory>
#include <optional>

#include "base/signing.hpp"
#include "ghost-core/resource/units.hpp"

namespace ghost::core {

class SignResource : public UnitResource {
  public:
    static std::unique_ptr<Resource> writer(std::unique_ptr<Resource> inner,
                                            std::shared_ptr<const SigningKey> key);
    // Without a `signer` signatures are not looked at. refused: another one has signed.
    static std::unique_ptr<SignResource> reader(std::unique_ptr<Resource> inner,
                                                std::optional<PublicKey> signer);
    // Whom it names as its signer, once it is initialized; it need not be true.
    PublicKey says_signer() const { return PublicKey(said_); }
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
