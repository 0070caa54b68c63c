// SPDX-License-Identifier: BSD-3-Clause
// The classes of resource objects by their ids, and resources by their specification.
//
// A specification is a text: a path, or NAME[,OPTION=VALUE…]:REST with
//   file:PATH                    lz4[,level=N]:SPEC      zstd[,level=N]:SPEC
//   encrypt,key=FILE:SPEC        tee:SPEC;SPEC           stripe:SPEC;SPEC;…
//   network,token=T,secret=FILE:HOST:PORT (writing)      NAME:PARAMETERS of a user's class
// A SPEC that itself holds a ";" stands in braces: tee:{stripe:/a;/b};/c
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ghost-core/resource/encrypt.hpp"
#include "ghost-core/resource/file.hpp"
#include "ghost-core/resource/resource.hpp"
#include "ghost-core/resource/sign.hpp"

namespace ghost::core {

class ResourceRegistry;

// What a specification says after the class's name.
struct ResourceParameters {
    std::map<std::string, std::string> options;
    std::string rest;
};

struct ResourceKind {
    uint32_t id = 0;
    std::string name;
    std::function<Result<std::unique_ptr<Resource>>(const ResourceRegistry&, Use,
                                                    const ResourceParameters&)>
        make;
};

// An initialized resource whose first bytes are looked at: it gives them once more. Opening it
// twice would read megabytes ahead twice.
class PeekableResource : public Resource {
  public:
    explicit PeekableResource(std::unique_ptr<Resource> in) : in_(std::move(in)) {}

    // What is read is kept until begin_again().
    void begin_again() { looking_ = false; }
    // The first bytes, fewer than `size` at the end, as long as this is there; begins again.
    Result<std::string_view> look(size_t size);

    ResourceClass class_id() const override { return in_->class_id(); }
    Status init() override { return {}; }
    Status write(const void* data, size_t size) override { return in_->write(data, size); }
    Result<size_t> read(void* data, size_t size) override;
    const char* in_place(size_t size) override {
        return looking_ || at_ < first_.size() ? nullptr : in_->in_place(size);
    }
    Status finalize() override { return in_->finalize(); }
    void interrupt() override { in_->interrupt(); }

  private:
    std::unique_ptr<Resource> in_;
    std::string first_;
    size_t at_ = 0;  // of them, given again
    bool looking_ = true;
};

// One thread. Objects of a user's class stay usable as long as the registry, or one that reads like
// it.
class ResourceRegistry {
  public:
    ResourceRegistry();  // with the built-in classes
    ~ResourceRegistry();
    ResourceRegistry(const ResourceRegistry&) = delete;
    ResourceRegistry& operator=(const ResourceRegistry&) = delete;

    // refused: the id or the name is taken; invalid: a user's id below 1000, or no proper name.
    Status add(ResourceKind kind);
    // Adds the class of a shared object (ghost/resource_class.h). io: it cannot be loaded.
    Status load(const std::string& shared_object);

    // A resource that has not been initialized. invalid: no such class, or wrong parameters.
    Result<std::unique_ptr<Resource>> make(const std::string& specification, Use use) const;
    Result<std::unique_ptr<Resource>> make(uint32_t id, Use use,
                                           const std::string& parameters) const;

    // For reading, initialized (its init() does nothing more): a file that is compressed, encrypted
    // or signed is recognized and unpacked. refused: it is encrypted and `key` is null, or not
    // signed by whom expect_signer() has named. `says_signer`: whom it names as its signer.
    Result<std::unique_ptr<Resource>> open(const std::string& specification,
                                           std::shared_ptr<SecretKey> key = nullptr,
                                           std::optional<PublicKey>* says_signer = nullptr) const;

    // From now on such files are read; without it those that are trusted.
    void trust_only(Whose whose) { trusted_ = whose; }
    Whose trusted() const { return trusted_; }
    // From now on open() gives only what the owner of this key has signed; parents are no
    // exception.
    void expect_signer(const PublicKey& signer) { signer_ = signer; }
    const std::optional<PublicKey>& signer() const { return signer_; }
    // One with the same classes that reads such files.
    ResourceRegistry reading(Whose whose) const { return ResourceRegistry(*this, whose, signer_); }
    // The same for what this one has signed.
    ResourceRegistry expecting(const PublicKey& signer) const {
        return ResourceRegistry(*this, trusted_, signer);
    }

    const std::map<uint32_t, ResourceKind>& kinds() const { return classes_->kinds; }

  private:
    struct Classes {
        std::map<uint32_t, ResourceKind> kinds;
        std::vector<void*> libraries;
        ~Classes();
    };
    ResourceRegistry(const ResourceRegistry& other, Whose whose, std::optional<PublicKey> signer)
        : trusted_(whose), signer_(signer), classes_(other.classes_) {}
    Status insert(ResourceKind kind);

    Whose trusted_ = Whose::trusted;
    std::optional<PublicKey> signer_;
    std::shared_ptr<Classes> classes_;
};

}  // namespace ghost::core
