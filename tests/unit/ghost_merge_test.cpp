// SPDX-License-Identifier: BSD-3-Clause
// Chains of ghosts merged into one, against a model of the memory; and the verbs that look at
// ghosts in files, run as a user would.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <map>
#include <random>
#include <sys/wait.h>

#include "base/json.hpp"
#include "ghost-core/format/host.hpp"
#include "ghost-core/format/merge.hpp"
#include "ghost-core/format/writer.hpp"
#include "ghost-core/resource/chain.hpp"
#include "ghost-core/resource/memory.hpp"

namespace ghost::core {
namespace {

using Json = nlohmann::json;

// What a page holds: the letter that fills it; 0 is a zero page. Pages that are not there are not
// in the map. By process, then page number.
using Memory = std::map<int, std::map<uint64_t, char>>;

void add(std::vector<PageRun>& runs, uint64_t number) {
    const uint64_t page = this_page_size();
    if (!runs.empty() && runs.back().end() == number * page)
        runs.back().bytes += page;
    else
        runs.push_back({number * page, page});
}

// The changes from `before` to `now` as a ghost; all of `now` if it has no parent.
ParentRef write_ghost(ByteSink& out, const Memory& before, const Memory& now,
                      const std::optional<ParentRef>& parent, const std::string& name) {
    const uint64_t page = this_page_size();
    GhostWriter writer(out);
    GhostHead head;
    head.host = R"({"flags":[]})";
    head.metadata = fmt::format(R"({{"name":"{}"}})", name);
    head.parent = parent;
    EXPECT_TRUE(writer.head(head).ok());
    EXPECT_TRUE(writer.skeleton_open(0, "of-" + name).ok());
    EXPECT_TRUE(writer.skeleton_data(0, 0, name.data(), name.size()).ok());
    EXPECT_TRUE(writer.skeleton_close(0, name.size()).ok());
    EXPECT_TRUE(writer.skeleton_end(0).ok());
    for (const auto& [pid, pages] : now) {
        std::vector<PageRun> present, changed, zero;
        std::string contents;
        for (const auto& [number, letter] : pages) {
            add(present, number);
            const auto old_process = before.find(pid);
            const bool was =
                parent && old_process != before.end() && old_process->second.count(number);
            const char old = was ? old_process->second.at(number) : 0;
            if (letter == old) continue;
            if (letter == 0) {
                add(zero, number);
                continue;
            }
            add(changed, number);
            contents.append(page, letter);
        }
        EXPECT_TRUE(writer.present(pid, present).ok());
        if (!zero.empty()) {
            EXPECT_TRUE(writer.zero(pid, zero).ok());
        }
        if (!changed.empty()) {
            EXPECT_TRUE(writer.pages(pid, changed, {{contents.data(), contents.size()}}).ok());
        }
    }
    EXPECT_TRUE(writer.end().ok());
    return writer.as_parent(name);
}

// The pages of a full ghost that are not zero.
Result<Memory> read_memory(ByteSource& in, std::string* metadata = nullptr) {
    const uint64_t page = this_page_size();
    Memory out;
    GhostReader reader(in);
    GhostHead head;
    GHOST_TRY(reader.head(head));
    EXPECT_FALSE(head.parent.has_value());
    if (metadata != nullptr) *metadata = head.metadata;
    std::vector<uint64_t> space(chunk_limit / sizeof(uint64_t));
    auto* buffer = reinterpret_cast<char*>(space.data());
    for (;;) {
        auto chunk = reader.next(buffer);
        if (!chunk) return chunk.error();
        if (chunk->type == ChunkType::end) return out;
        if (chunk->type != ChunkType::pages) continue;
        auto view = GhostReader::pages(*chunk, buffer);
        if (!view) return view.error();
        const char* at = view->contents;
        for (const auto& run : view->runs)
            for (uint64_t i = run.start; i < run.end(); i += page, at += page) {
                EXPECT_EQ(std::count(at, at + page, *at), static_cast<int64_t>(page));
                EXPECT_TRUE(out[view->inner_pid].emplace(i / page, *at).second) << "twice";
            }
    }
}

Memory without_zeros(const Memory& memory) {
    Memory out;
    for (const auto& [pid, pages] : memory)
        for (const auto& [number, letter] : pages)
            if (letter != 0) out[pid][number] = letter;
    return out;
}

// Some pages written, some dropped, some zeroed; processes that come and go.
void change(Memory& memory, std::mt19937& random) {
    for (int i = 0; i < 40; i++) {
        const int pid = 1 + static_cast<int>(random() % 3);
        const uint64_t first = 16 + random() % 60, count = 1 + random() % 8;
        const unsigned what = random() % 10;
        for (uint64_t number = first; number < first + count; number++) {
            if (what < 6)
                memory[pid][number] = static_cast<char>('a' + random() % 26);
            else if (what < 8)
                memory[pid].erase(number);
            else
                memory[pid][number] = 0;
        }
    }
    if (random() % 4 == 0) memory.erase(1 + static_cast<int>(random() % 3));
    std::erase_if(memory, [](const auto& process) { return process.second.empty(); });
}

TEST(Merge, MergeHasMemoryOfNewestGhost) {
    for (unsigned seed = 1; seed <= 30; seed++) {
        std::mt19937 random(seed);
        Memory before, now;
        std::vector<MemoryResource> ghosts;
        std::optional<ParentRef> parent;
        const size_t length = 2 + seed % 4;
        for (size_t i = 0; i < length; i++) {
            change(now, random);
            ghosts.emplace_back();
            parent = write_ghost(ghosts.back(), before, now, parent, std::to_string(i));
            before = now;
        }
        std::vector<OpenGhost> chain;
        for (size_t i = length; i-- > 0;) {
            auto opened = OpenGhost::open(std::make_unique<MemoryResource>(ghosts[i].share()));
            ASSERT_TRUE(opened.ok()) << opened.error().message();
            chain.push_back(std::move(*opened));
        }
        MemoryResource merged;
        auto status = merge_ghosts(chain, merged);
        ASSERT_TRUE(status.ok()) << status.error().message();
        std::string metadata;
        auto memory = read_memory(merged, &metadata);
        ASSERT_TRUE(memory.ok()) << memory.error().message();
        EXPECT_EQ(*memory, without_zeros(now)) << "seed " << seed;
        EXPECT_EQ(metadata, fmt::format(R"({{"name":"{}"}})", length - 1));
    }
}

// A chain of three in files.
class ChainFiles : public ::testing::Test {
  protected:
    ChainFiles() {
        char name[] = "/tmp/ghost-chain.XXXXXX";
        folder_ = mkdtemp(name);
        std::mt19937 random(1);
        Memory before;
        std::optional<ParentRef> parent;
        for (int i = 0; i < 3; i++) {
            change(now_, random);
            parent = write(path(i), before, parent);
            before = now_;
        }
    }
    ~ChainFiles() override { std::filesystem::remove_all(folder_); }

    std::string path(int number) const { return fmt::format("{}/{}.ghost", folder_, number); }
    ParentRef write(const std::string& file, const Memory& before,
                    const std::optional<ParentRef>& parent) {
        auto out = registry_.make(file, Use::write);
        EXPECT_TRUE(out.ok() && (*out)->init().ok());
        auto ref = write_ghost(**out, before, now_, parent, file.substr(file.rfind('/') + 1));
        EXPECT_TRUE((*out)->finalize().ok());
        return ref;
    }
    Status open_error(int number) {
        auto chain = open_chain(registry_, path(number));
        if (!chain) return chain.error();
        return {};
    }
    // `ghost` with these words; what it prints, and its exit status.
    int run(const std::string& words, std::string& printed) const {
        const auto command = fmt::format("tools/ghost {} >{}/printed 2>&1", words, folder_);
        const int status = std::system(command.c_str());
        std::ifstream in(folder_ + "/printed");
        printed.assign(std::istreambuf_iterator<char>(in), {});
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }

    std::string folder_;
    Memory now_;
    ResourceRegistry registry_;
};

TEST_F(ChainFiles, ChainReadsAsOneGhost) {
    auto in = open_full(registry_, path(2));
    ASSERT_TRUE(in.ok()) << in.error().message();
    auto memory = read_memory(**in);
    ASSERT_TRUE(memory.ok()) << memory.error().message();
    EXPECT_EQ(*memory, without_zeros(now_));
    auto full = open_full(registry_, path(0));
    ASSERT_TRUE(full.ok());
    EXPECT_TRUE(read_memory(**full).ok());
}

TEST_F(ChainFiles, ReaderClosedEndsMerge) {
    auto in = open_full(registry_, path(2));
    ASSERT_TRUE(in.ok());
    char byte = 0;
    EXPECT_TRUE((*in)->read(&byte, 1).ok());
}

TEST_F(ChainFiles, ParentsAreFoundByTheirIds) {
    std::filesystem::rename(path(0), folder_ + "/renamed");
    std::filesystem::rename(path(1), path(0));  // has the name of another
    auto chain = open_chain(registry_, path(2));
    ASSERT_TRUE(chain.ok()) << chain.error().message();
    EXPECT_EQ(chain->names[1], path(0));
    EXPECT_EQ(chain->names[2], folder_ + "/renamed");
}

TEST_F(ChainFiles, OlderOtherAndMissingParentsAreRefused) {
    std::filesystem::create_directory(folder_ + "/away");
    std::filesystem::rename(path(1), folder_ + "/away/1.ghost");
    EXPECT_EQ(open_error(2).error().code, Code::not_found);
    EXPECT_NE(open_error(2).error().message().find("1.ghost"), std::string::npos);
    std::filesystem::copy(path(0), path(1));
    EXPECT_EQ(open_error(2).error().code, Code::refused);
    // the parent made anew, with the same name: another id
    write(path(1), {}, std::nullopt);
    EXPECT_EQ(open_error(2).error().code, Code::refused);
    std::string printed;
    EXPECT_EQ(run("verify " + path(2), printed), 1);
    EXPECT_NE(printed.find("its parent \"1.ghost\" is ghost"), std::string::npos) << printed;
    EXPECT_EQ(run("merge " + path(2) + " -o " + folder_ + "/full", printed), 1);
    EXPECT_FALSE(std::filesystem::exists(folder_ + "/full"));
}

TEST_F(ChainFiles, VerifyNamesDamagedGhostAndPlace) {
    std::string printed;
    ASSERT_EQ(run(fmt::format("verify {} {} {}", path(0), path(1), path(2)), printed), 0)
        << printed;
    EXPECT_NE(printed.find("with 2 parents"), std::string::npos) << printed;
    {
        std::fstream file(path(0), std::ios::in | std::ios::out | std::ios::binary);
        file.seekp(static_cast<std::streamoff>(std::filesystem::file_size(path(0)) / 2));
        file.put('#');
    }
    // the child is whole, its parent is not
    ASSERT_EQ(run("verify --json " + path(1), printed), 1) << printed;
    EXPECT_NE(printed.find("damaged at byte"), std::string::npos) << printed;
    EXPECT_NE(printed.find("0.ghost"), std::string::npos) << printed;
}

TEST_F(ChainFiles, MergeMakesAFullGhost) {
    std::string printed;
    const auto full = folder_ + "/full.ghost";
    ASSERT_EQ(run(fmt::format("merge {} -o zstd:{} --json", path(2), full), printed), 0) << printed;
    EXPECT_EQ(Json::parse(printed)["ghosts"], 3);
    auto in = registry_.open(full);
    ASSERT_TRUE(in.ok()) << in.error().message();
    auto memory = read_memory(**in);
    ASSERT_TRUE(memory.ok()) << memory.error().message();
    EXPECT_EQ(*memory, without_zeros(now_));
    EXPECT_EQ(run(fmt::format("merge {} -o {}", path(0), full), printed), 2) << printed;
    ASSERT_EQ(run("inspect --json " + full, printed), 0) << printed;
    EXPECT_EQ(Json::parse(printed)["packed"], true);
}

TEST_F(ChainFiles, InspectListsContents) {
    std::string printed;
    ASSERT_EQ(run("inspect --json " + path(2), printed), 0) << printed;
    const auto all = Json::parse(printed);
    EXPECT_EQ(all["incremental"], true);
    EXPECT_EQ(all["parent"]["name"], "1.ghost");
    EXPECT_EQ(all["parent"]["generation"], 2);
    EXPECT_EQ(all["metadata"]["name"], "2.ghost");
    EXPECT_EQ(all["bytes"], std::filesystem::file_size(path(2)));
    EXPECT_EQ(all["processes"].size(), now_.size());
    EXPECT_EQ(all["skeleton_files"]["of-2.ghost"], 7);
    ASSERT_EQ(run("inspect " + path(2), printed), 0);
    EXPECT_NE(printed.find("changes since \"1.ghost\""), std::string::npos) << printed;
    std::filesystem::resize_file(path(2), 1000);
    EXPECT_EQ(run("inspect " + path(2), printed), 1);
    EXPECT_EQ(run("inspect /nowhere/at/all", printed), 1);
    EXPECT_EQ(run("inspect", printed), 2);
}

// Members of another kind than they should be of.
TEST_F(ChainFiles, InspectShowsWhatCanBeShown) {
    std::string printed;
    for (const char* host : {R"({"flags":[],"arch":7,"libc":[],"files":3})", R"([1])", "none"}) {
        auto out = registry_.make(path(9), Use::write);
        ASSERT_TRUE(out.ok() && (*out)->init().ok());
        GhostWriter writer(**out);
        ASSERT_TRUE(writer.head(host, "{}").ok() && writer.skeleton_end(0).ok());
        ASSERT_TRUE(writer.end().ok() && (*out)->finalize().ok());
        EXPECT_EQ(run("inspect " + path(9), printed), 0) << host << printed;
        EXPECT_EQ(run("inspect --json " + path(9), printed), 0) << host << printed;
    }
}

}  // namespace
}  // namespace ghost::core
