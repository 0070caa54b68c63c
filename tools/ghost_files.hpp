// SPDX-License-Identifier: BSD-3-Clause
// Ghosts in files, as the verbs take them: specifications, users' classes, keys.
#pragma once

#include <memory>
#include <string>

#include "ghost-core/resource/registry.hpp"
#include "tools/command_line.hpp"

namespace ghost::tools {

// All classes, with those of the shared objects that GHOST_CLASSES names ("a.so:b.so").
Result<std::unique_ptr<core::ResourceRegistry>> all_classes();

// Adds --key FILE to a verb and returns where the file's name is kept.
std::shared_ptr<std::string> add_key(CommandLine app);
// The key of that option; null if it was not given.
Result<std::shared_ptr<core::SecretKey>> load_key(const std::string& file);

// For an import: unpacked, an incremental one joined with its parents. `classes` outlives it.
Result<std::unique_ptr<core::Resource>> open_ghost(const core::ResourceRegistry& classes,
                                                   const std::string& specification,
                                                   const std::string& key_file);

// Bytes of the file that a specification means; 0 if it is none (progress then has no total).
uint64_t size_of(const std::string& specification);

}  // namespace ghost::tools
