// What every resource has to do, run over all of them.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <thread>

#include "ghost-core/resource/faulty.hpp"
#include "ghost-core/resource/file.hpp"
#include "ghost-core/resource/memory.hpp"
#include "ghost-core/resource/network.hpp"

namespace ghost::core {
namespace {

// Two ends of one kind of resource.
class Ends {
  public:
    virtual ~Ends() = default;
    virtual Resource& out() = 0;
    // Called when all has been written, except for kinds that flow.
    virtual Resource& in() = 0;
    virtual bool flows() const { return false; }
};

class MemoryEnds : public Ends {
  public:
    Resource& out() override { return memory_; }
    Resource& in() override { return memory_; }

  private:
    MemoryResource memory_;
};

class FaultyEnds : public Ends {
  public:
    Resource& out() override { return wrapped_; }
    Resource& in() override { return wrapped_; }

  private:
    MemoryResource memory_;
    FaultyResource wrapped_{memory_, FaultyResource::Fault::short_read, 0};
};

class FileEnds : public Ends {
  public:
    FileEnds() {
        char name[] = "/tmp/ghost-resource.XXXXXX";
        folder_ = mkdtemp(name);
        out_ = std::make_unique<FileResource>(folder_ + "/ghost", FileResource::Use::write);
    }
    ~FileEnds() override { std::filesystem::remove_all(folder_); }
    Resource& out() override { return *out_; }
    Resource& in() override {
        in_ = std::make_unique<FileResource>(folder_ + "/ghost", FileResource::Use::read);
        EXPECT_TRUE(in_->init().ok());
        return *in_;
    }
    std::string folder_;

  private:
    std::unique_ptr<FileResource> out_, in_;
};

class NetworkEnds : public Ends {
  public:
    explicit NetworkEnds(NetworkOptions options = {}) {
        auto listener = NetworkListener::listen("secret", options);
        EXPECT_TRUE(listener.ok());
        std::thread source([&] {
            auto made = NetworkResource::connect("localhost", listener->port(), listener->token(),
                                                 "secret", options);
            EXPECT_TRUE(made.ok()) << made.error().message();
            if (made) source_ = std::move(*made);
        });
        auto target = listener->accept(5000);
        source.join();
        EXPECT_TRUE(target.ok());
        if (target) target_ = std::move(*target);
    }
    Resource& out() override { return *source_; }
    Resource& in() override { return *target_; }
    bool flows() const override { return true; }
    std::unique_ptr<NetworkResource> source_, target_;
};

using Make = std::function<std::unique_ptr<Ends>()>;

class ResourceContract : public ::testing::TestWithParam<std::pair<const char*, Make>> {};

TEST_P(ResourceContract, GivesBackAllBytesInOrderThenTheEnd) {
    auto ends = GetParam().second();
    std::vector<char> bytes(3 << 20);
    for (size_t i = 0; i < bytes.size(); i++) bytes[i] = static_cast<char>(i * 2654435761U >> 13);
    const auto write = [&] {
        auto& out = ends->out();
        ASSERT_TRUE(out.init().ok());
        ASSERT_TRUE(out.write(bytes.data(), 1).ok());
        iovec pieces[] = {
            {bytes.data() + 1, 0}, {bytes.data() + 1, 1000}, {bytes.data() + 1001, 7}};
        ASSERT_TRUE(out.write_gather(pieces, 3).ok());
        ASSERT_TRUE(out.write(bytes.data() + 1008, bytes.size() - 1008).ok());
        ASSERT_TRUE(out.finalize().ok());
    };
    std::thread writer(write);
    if (!ends->flows()) writer.join();
    auto& in = ends->in();
    std::vector<char> got(bytes.size());
    EXPECT_TRUE(in.read_all(got.data(), got.size()).ok());
    EXPECT_EQ(got, bytes);
    char more = 0;
    auto end = in.read(&more, 1);
    ASSERT_TRUE(end.ok());
    EXPECT_EQ(*end, 0U);
    EXPECT_EQ(in.read_all(&more, 1).error().code, Code::corrupt);
    if (writer.joinable()) writer.join();
}

INSTANTIATE_TEST_SUITE_P(
    All, ResourceContract,
    ::testing::Values(
        std::pair<const char*, Make>{"memory", [] { return std::make_unique<MemoryEnds>(); }},
        std::pair<const char*, Make>{"file", [] { return std::make_unique<FileEnds>(); }},
        std::pair<const char*, Make>{"network", [] { return std::make_unique<NetworkEnds>(); }},
        std::pair<const char*, Make>{"faulty", [] { return std::make_unique<FaultyEnds>(); }}),
    [](const auto& info) { return std::string(info.param.first); });

TEST(FileResource, LeavesNothingWithoutFinalize) {
    FileEnds ends;
    {
        FileResource out(ends.folder_ + "/other", FileResource::Use::write);
        ASSERT_TRUE(out.init().ok());
        ASSERT_TRUE(out.write("x", 1).ok());
    }
    EXPECT_TRUE(std::filesystem::is_empty(ends.folder_));
}

TEST(NetworkResource, RefusesWrongSecretAndWrongToken) {
    auto listener = NetworkListener::listen("secret");
    ASSERT_TRUE(listener.ok());
    std::thread strangers([&] {
        auto first =
            NetworkResource::connect("127.0.0.1", listener->port(), listener->token(), "guess");
        EXPECT_FALSE(first.ok());
        auto second =
            NetworkResource::connect("127.0.0.1", listener->port(), std::string(64, '0'), "secret");
        ASSERT_FALSE(second.ok());
        EXPECT_EQ(second.error().code, Code::refused);
    });
    auto accepted = listener->accept(500);
    ASSERT_FALSE(accepted.ok());
    EXPECT_EQ(accepted.error().code, Code::timeout);
    strangers.join();
}

TEST(NetworkResource, SilentPeerIsTimeout) {
    NetworkOptions options;
    options.operation_ms = 100;
    NetworkEnds ends(options);
    char byte = 0;
    auto got = ends.in().read(&byte, 1);
    ASSERT_FALSE(got.ok());
    EXPECT_EQ(got.error().code, Code::timeout);
}

TEST(NetworkResource, InterruptEndsAWaitingRead) {
    NetworkEnds ends;
    std::thread other([&] { ends.in().interrupt(); });
    char byte = 0;
    auto got = ends.in().read(&byte, 1);
    EXPECT_TRUE(!got.ok() || *got == 0);
    other.join();
}

}  // namespace
}  // namespace ghost::core
