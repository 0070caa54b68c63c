// SPDX-License-Identifier: BSD-3-Clause
#include "tests/contract/resource_ends.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "ghost-core/resource/memory.hpp"
#include "ghost-core/resource/network.hpp"

namespace ghost::core {
namespace {

class MemoryEnds : public Ends {
  public:
    Resource& out() override { return memory_; }
    Result<Resource*> in() override { return &memory_; }

  private:
    MemoryResource memory_;
};

class SharedMemoryEnds : public Ends {
  public:
    Resource& out() override { return out_; }
    // As another process gets it.
    Result<Resource*> in() override {
        GHOST_TRY(out_.buffer().reserve(1));  // nothing may have been written
        auto buffer = MemoryBuffer::adopt(Fd(dup(out_.buffer().fd())));
        if (!buffer) return buffer.error();
        GHOST_TRY((*buffer)->set_size(out_.buffer().size()));
        in_ = std::make_unique<MemoryResource>(std::shared_ptr<MemoryBuffer>(std::move(*buffer)));
        return in_.get();
    }

  private:
    MemoryResource out_{std::make_shared<MemoryBuffer>(MemoryBuffer::Kind::shared)};
    std::unique_ptr<MemoryResource> in_;
};

class SpecifiedEnds : public Ends {
  public:
    explicit SpecifiedEnds(const std::string& specification)
        : registry_(registry_for_tests()),
          specification_(put_folder(specification, folder_.path())) {
        auto made = registry_->make(specification_, Use::write);
        EXPECT_TRUE(made.ok()) << made.error().message();
        if (made) out_ = std::move(*made);
    }
    Resource& out() override { return *out_; }
    Result<Resource*> in() override {
        out_.reset();
        auto made = registry_->make(specification_, Use::read);
        if (!made) return made.error();
        in_ = std::move(*made);
        GHOST_TRY(in_->init());
        return in_.get();
    }

  private:
    Folder folder_;
    std::unique_ptr<ResourceRegistry> registry_;
    std::string specification_;
    std::unique_ptr<Resource> out_, in_;
};

class NetworkEnds : public Ends {
  public:
    NetworkEnds() {
        auto listener = NetworkListener::listen("secret");
        EXPECT_TRUE(listener.ok());
        std::thread source([&] {
            auto made = NetworkResource::connect("localhost", listener->port(), listener->token(),
                                                 "secret");
            EXPECT_TRUE(made.ok()) << made.error().message();
            if (made) source_ = std::move(*made);
        });
        auto target = listener->accept(5000);
        source.join();
        EXPECT_TRUE(target.ok());
        if (target) target_ = std::move(*target);
    }
    Resource& out() override { return *source_; }
    Result<Resource*> in() override { return target_.get(); }
    bool flows() const override { return true; }

  private:
    std::unique_ptr<NetworkResource> source_, target_;
};

class FaultyEnds : public Ends {
  public:
    explicit FaultyEnds(std::unique_ptr<Ends> inner) : inner_(std::move(inner)) {}
    Resource& out() override {
        if (!out_)
            out_ = std::make_unique<FaultyResource>(inner_->out(),
                                                    FaultyResource::Fault::short_write, 0);
        return *out_;
    }
    Result<Resource*> in() override {
        auto inner = inner_->in();
        if (!inner) return inner;
        in_ = std::make_unique<FaultyResource>(**inner, FaultyResource::Fault::short_read, 0);
        return in_.get();
    }
    bool flows() const override { return inner_->flows(); }

  private:
    std::unique_ptr<Ends> inner_;
    std::unique_ptr<Resource> out_, in_;
};

}  // namespace

Folder::Folder() {
    char name[] = "/tmp/ghost-resource.XXXXXX";
    path_ = mkdtemp(name);
}

Folder::~Folder() {
    std::filesystem::remove_all(path_);
}

bool Folder::empty() const {
    return std::filesystem::is_empty(path_);
}

std::string put_folder(const std::string& specification, const std::string& folder) {
    std::string out = specification;
    for (size_t at = 0; (at = out.find("{}", at)) != std::string::npos;) out.replace(at, 2, folder);
    if (out.find("key=") != std::string::npos) {
        const auto key = folder + "/key";
        std::ofstream(key) << std::string(64, 'a') << "\n";
        std::filesystem::permissions(key, std::filesystem::perms::owner_read);
    }
    return out;
}

std::unique_ptr<ResourceRegistry> registry_for_tests() {
    auto registry = std::make_unique<ResourceRegistry>();
    if (const char* path = std::getenv("GHOST_TEST_CLASS_SO")) {
        auto loaded = registry->load(path);
        EXPECT_TRUE(loaded.ok()) << loaded.error().message();
    }
    return registry;
}

std::vector<SpecifiedKind> specified_kinds() {
    std::vector<SpecifiedKind> out = {
        {"file", "{}/ghost"},
        {"lz4", "lz4:{}/ghost"},
        {"zstd", "zstd,level=3:{}/ghost"},
        {"encrypt", "encrypt,key={}/key:{}/ghost"},
        {"zstd_encrypt", "zstd:encrypt,key={}/key:{}/ghost"},
        {"stripe", "stripe:{}/a;{}/b;{}/c"},
        {"tee", "tee:{}/a;{}/b"},
        {"tee_of_stripe", "tee:{stripe:{}/a;{}/b};lz4:{}/c"},
    };
    if (std::getenv("GHOST_TEST_CLASS_SO") == nullptr) return out;
    const char* parameters = std::getenv("GHOST_TEST_CLASS_PARAMETERS");
    const auto registry = registry_for_tests();
    for (const auto& [id, kind] : registry->kinds())
        if (id >= static_cast<uint32_t>(ResourceClass::user))
            out.push_back(
                {"user", kind.name + ":" + (parameters != nullptr ? parameters : "{}/ghost")});
    return out;
}

std::vector<Kind> all_kinds() {
    std::vector<Kind> out = {
        {"memory", [] { return std::make_unique<MemoryEnds>(); }},
        {"shared_memory", [] { return std::make_unique<SharedMemoryEnds>(); }},
        {"network", [] { return std::make_unique<NetworkEnds>(); }},
    };
    for (const auto& kind : specified_kinds())
        out.push_back(
            {kind.name, [kind] { return std::make_unique<SpecifiedEnds>(kind.specification); }});
    const size_t plain = out.size();
    for (size_t i = 0; i < plain; i++)
        out.push_back({out[i].name + "_in_pieces",
                       [make = out[i].make] { return std::make_unique<FaultyEnds>(make()); }});
    return out;
}

std::vector<char> content(size_t size) {
    std::vector<char> bytes(size);
    for (size_t i = 0; i < size; i++)
        bytes[i] =
            i & 4096 ? static_cast<char>(i >> 20) : static_cast<char>((i + 1) * 2654435761U >> 13);
    return bytes;
}

Status write_all(Resource& out, const std::vector<char>& bytes) {
    GHOST_TRY(out.init());
    const size_t small = std::min<size_t>(bytes.size(), 1008);
    if (small == 1008) {
        GHOST_TRY(out.write(bytes.data(), 1));
        auto* at = const_cast<char*>(bytes.data());
        iovec pieces[] = {{at + 1, 0}, {at + 1, 1000}, {at + 1001, 7}};
        GHOST_TRY(out.write_gather(pieces, 3));
    } else {
        GHOST_TRY(out.write(bytes.data(), small));
    }
    constexpr size_t large = 777777;
    for (size_t at = small; at < bytes.size(); at += large)
        GHOST_TRY(out.write(bytes.data() + at, std::min(large, bytes.size() - at)));
    return out.finalize();
}

std::shared_ptr<SecretKey> test_key() {
    return std::make_shared<SecretKey>(std::array<unsigned char, 32>{1, 2, 3});
}

std::shared_ptr<const SigningKey> signing_key(unsigned char which) {
    return std::make_shared<const SigningKey>(std::array<unsigned char, 32>{which});
}

}  // namespace ghost::core
