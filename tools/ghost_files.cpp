// SPDX-License-Identifier: BSD-3-Clause
#include "tools/ghost_files.hpp"

#include <cstdlib>
#include <sstream>
#include <sys/stat.h>

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

}  // namespace ghost::tools
