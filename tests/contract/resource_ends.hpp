// SPDX-License-Identifier: BSD-3-Clause
// The kinds of resource the contract suite runs over, each with the two ends a ghost goes through.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/contract/faulty_resource.hpp"
#include "ghost-core/resource/registry.hpp"
#include "ghost-core/resource/encrypt.hpp"
#include "ghost-core/resource/resource.hpp"
#include "ghost-core/resource/sign.hpp"

namespace ghost::core {

// A folder of its own, gone with it.
class Folder {
  public:
    Folder();
    ~Folder();
    const std::string& path() const { return path_; }
    bool empty() const;

  private:
    std::string path_;
};

// Two ends of one kind of resource.
class Ends {
  public:
    virtual ~Ends() = default;
    // Not initialized; the same one each time.
    virtual Resource& out() = 0;
    // Initialized; called when all has been written, except for kinds that flow.
    virtual Result<Resource*> in() = 0;
    virtual bool flows() const { return false; }
};

struct Kind {
    std::string name;
    std::function<std::unique_ptr<Ends>()> make;
    bool in_pieces = false;  // slow
};

// All built-in kinds, compositions and a user's class (environment GHOST_TEST_CLASS_SO, with
// GHOST_TEST_CLASS_PARAMETERS in which {} is a folder); then each again through a faulty resource
// that writes and reads in small pieces.
std::vector<Kind> all_kinds();

// The kinds that are made from a specification in which {} is a folder.
struct SpecifiedKind {
    std::string name, specification;
};
std::vector<SpecifiedKind> specified_kinds();
// A registry with the user's class, if there is one. `specification` with the folder put in.
std::unique_ptr<ResourceRegistry> registry_for_tests();
std::string put_folder(const std::string& specification, const std::string& folder);

// What is written: half of it can be compressed, and no two MiB are alike.
std::vector<char> content(size_t size);
// Small and odd writes first, then large ones.
Status write_all(Resource& out, const std::vector<char>& bytes);

// Always the same keys.
std::shared_ptr<SecretKey> test_key();
std::shared_ptr<const SigningKey> signing_key(unsigned char which);

}  // namespace ghost::core
