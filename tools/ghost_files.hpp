// SPDX-License-Identifier: BSD-3-Clause
// Ghosts in files, as the verbs take them: specifications, users' classes, keys.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ghost-core/format/reader.hpp"
#include "ghost-core/resource/chain.hpp"
#include "ghost-core/resource/registry.hpp"
#include "tools/command_line.hpp"
#include "tools/terminal.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {

// All classes, with those of the shared objects that GHOST_CLASSES names ("a.so:b.so").
Result<std::unique_ptr<core::ResourceRegistry>> all_classes();

// Adds --key FILE to a verb and returns where the file's name is kept.
std::shared_ptr<std::string> add_key(CommandLine app);
// The key of that option; null if it was not given.
Result<std::shared_ptr<core::SecretKey>> load_key(const std::string& file);

// Adds --trust-owner to a verb: a ghost of another user's is a program of that user's, and is not
// run without being asked for.
std::shared_ptr<bool> add_trust(CommandLine app);
// What is read then.
inline core::Whose whose_ghosts(bool trust_owner) {
    return trust_owner ? core::Whose::anybodys : core::Whose::trusted;
}

// Adds --sign FILE to a verb; what is written is then signed.
std::shared_ptr<std::string> add_sign(CommandLine app);
// `out` as it is if no key is named.
Result<std::unique_ptr<core::Resource>> signed_by(const std::string& key_file,
                                                  std::unique_ptr<core::Resource> out);
// Adds --verify-key FILE to a verb: what is read has to be signed by that key's owner.
std::shared_ptr<std::string> add_signer(CommandLine app);
Status expect_signer(core::ResourceRegistry& classes, const std::string& key_file);
// Whom that option names; nobody if it was not given.
Result<std::optional<PublicKey>> signer_of(const std::string& key_file);

// For an import: unpacked, an incremental one joined with its parents. `classes` outlives it.
Result<std::unique_ptr<core::Resource>> open_ghost(const core::ResourceRegistry& classes,
                                                   const std::string& specification,
                                                   const std::string& key_file);

// Bytes of the file that a specification means; 0 if it is none (progress then has no total).
uint64_t size_of(const std::string& specification);

// Reading ghosts to their last byte, with their parents: for `ghost verify` and before a restart.
// Each ghost is read once, however many name it as their parent. One thread; shows progress.
class Verifier {
  public:
    Verifier(const core::ResourceRegistry& registry, std::shared_ptr<core::SecretKey> key)
        : registry_(registry), key_(std::move(key)) {}

    // The row of a file: {"file", "ok", "id", "digest", "bytes", "parents": […]} or {…, "error"}.
    // Parents are looked for among `candidates` first. All are signed by `signer`, if there is one,
    // else as the registry expects.
    Json verify(const std::string& file, const std::vector<std::string>& candidates,
                const std::optional<PublicKey>& signer = std::nullopt);

  private:
    static std::string key_of(const core::OpenGhost& ghost, const std::string& name);
    Status read(core::OpenGhost& ghost, const std::string& name);

    const core::ResourceRegistry& registry_;
    std::shared_ptr<core::SecretKey> key_;
    std::vector<uint64_t> buffer_ = std::vector<uint64_t>(core::chunk_limit / sizeof(uint64_t));
    std::map<std::string, core::Contents> digests_;
    std::map<std::string, uint64_t> bytes_;
    ProgressLine line_;
};

}  // namespace ghost::tools
