// SPDX-License-Identifier: BSD-3-Clause
#include "tools/ghost_files.hpp"

#include <cstdlib>
#include <sstream>
#include <sys/stat.h>

#include "base/clock.hpp"
#include "ghost-core/format/chain.hpp"
#include "ghost-core/resource/chain.hpp"

namespace ghost::tools {

Result<std::unique_ptr<core::ResourceRegistry>> all_classes() {
    auto out = std::make_unique<core::ResourceRegistry>();
    const char* list = std::getenv("GHOST_CLASSES");
    std::istringstream words(list != nullptr ? list : "");
    for (std::string one; std::getline(words, one, ':');)
        if (!one.empty()) GHOST_TRY(out->load(one));
    return out;
}

std::shared_ptr<std::string> add_key(CommandLine app) {
    auto key = std::make_shared<std::string>();
    app.add_option("--key", *key, "file with the key of an encrypted ghost");
    return key;
}

std::shared_ptr<bool> add_trust(CommandLine app) {
    auto trust = std::make_shared<bool>(false);
    app.add_flag("--trust-owner", *trust,
                 "also a ghost that another user has made, or that others may write to: it runs "
                 "as you");
    return trust;
}

std::shared_ptr<std::string> add_sign(CommandLine app) {
    auto key = std::make_shared<std::string>();
    app.add_option("--sign", *key, "file with a secret key of `ghost key`: the ghost is signed");
    return key;
}

Result<std::unique_ptr<core::Resource>> signed_by(const std::string& key_file,
                                                  std::unique_ptr<core::Resource> out) {
    if (key_file.empty()) return out;
    auto key = SigningKey::load(key_file);
    if (!key) return key.error();
    return core::SignResource::writer(std::move(out), *key);
}

std::shared_ptr<std::string> add_signer(CommandLine app) {
    auto key = std::make_shared<std::string>();
    app.add_option("--verify-key", *key,
                   "file with a public key: only what its owner has signed is taken");
    return key;
}

Status expect_signer(core::ResourceRegistry& classes, const std::string& key_file) {
    auto key = signer_of(key_file);
    if (!key) return key.error();
    if (*key) classes.expect_signer(**key);
    return {};
}

Result<std::optional<PublicKey>> signer_of(const std::string& key_file) {
    if (key_file.empty()) return std::optional<PublicKey>();
    auto key = PublicKey::load(key_file);
    if (!key) return key.error();
    return std::optional<PublicKey>(*key);
}

Result<std::shared_ptr<core::SecretKey>> load_key(const std::string& file) {
    if (file.empty()) return std::shared_ptr<core::SecretKey>();
    return core::SecretKey::load(file);
}

Result<std::unique_ptr<core::Resource>> open_ghost(const core::ResourceRegistry& classes,
                                                   const std::string& specification,
                                                   const std::string& key_file) {
    auto key = load_key(key_file);
    if (!key) return key.error();
    return core::open_full(classes, specification, *key);
}

uint64_t size_of(const std::string& specification) {
    struct stat info {};
    const auto path = specification.starts_with("file:") ? specification.substr(5) : specification;
    if (stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return 0;
    return static_cast<uint64_t>(info.st_size);
}

namespace {

constexpr int64_t progress_us = 100000;

}  // namespace

// Two files may say they are the same ghost.
std::string Verifier::key_of(const core::OpenGhost& ghost, const std::string& name) {
    return ghost.head.id.hex() + " " + name;
}

Json Verifier::verify(const std::string& file, const std::vector<std::string>& candidates,
                      const std::optional<PublicKey>& signer) {
    Json row{{"file", file}, {"ok", false}};
    const auto classes =
        signer ? registry_.expecting(*signer) : registry_.reading(registry_.trusted());
    auto chain = core::open_chain(classes, file, key_, candidates);
    Status status = chain.ok() ? Status() : Status(chain.error());
    for (size_t i = 0; status.ok() && i < chain->ghosts.size(); i++) {
        auto& ghost = chain->ghosts[i];
        status = read(ghost, chain->names[i]);
        if (!status.ok()) break;
        const auto id = key_of(ghost, chain->names[i]);
        const auto& digest = digests_[id];
        if (i == 0) {
            row["id"] = ghost.head.id.hex();
            row["digest"] = digest.digest.hex();
            row["bytes"] = bytes_[id];
            row["parents"] = Json::array();
        } else {
            status = core::check_parent_digest(*chain->ghosts[i - 1].head.parent, digest);
            row["parents"].push_back(chain->names[i]);
        }
    }
    row["ok"] = status.ok();
    if (!status.ok()) row["error"] = status.error().message();
    return row;
}

Status Verifier::read(core::OpenGhost& ghost, const std::string& name) {
    const auto id = key_of(ghost, name);
    if (digests_.count(id)) return {};
    const uint64_t total = size_of(name);
    int64_t told = monotonic_us();
    for (;;) {
        auto chunk = ghost.reader->next(reinterpret_cast<char*>(buffer_.data()));
        if (!chunk) {
            line_.clear();
            auto error = chunk.error();
            if (error.object.empty()) error.object = name;
            return error;
        }
        if (chunk->type == core::ChunkType::end) break;
        if (monotonic_us() - told < progress_us) continue;
        line_.show("verify " + name, ghost.reader->position(), total);
        told = monotonic_us();
    }
    line_.clear();
    digests_[id] = ghost.reader->contents();
    bytes_[id] = ghost.reader->position();
    return {};
}

}  // namespace ghost::tools
