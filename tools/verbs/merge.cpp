// SPDX-License-Identifier: BSD-3-Clause
// `ghost merge`: an incremental ghost and its ancestors become one full ghost.
#include <fmt/format.h>

#include "base/clock.hpp"
#include "ghost-core/resource/chain.hpp"
#include "tools/ghost_files.hpp"
#include "tools/terminal.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {
namespace {

constexpr int64_t progress_us = 100000;

struct MergeArgs {
    std::string file, to, key;
    std::shared_ptr<bool> trust;
};

struct Merged {
    size_t ghosts = 0;
    uint64_t bytes_read = 0, bytes = 0;
    int64_t us = 0;
};

// Counts what goes through.
class Counted : public core::ByteSink {
  public:
    explicit Counted(core::ByteSink& out) : out_(out) {}
    Status write(const void* data, size_t size) override {
        bytes += size;
        return out_.write(data, size);
    }
    uint64_t bytes = 0;

  private:
    core::ByteSink& out_;
};

Result<Merged> merge(const MergeArgs& args) {
    Merged out;
    const int64_t begin = monotonic_us();
    auto registry = all_classes();
    if (!registry) return registry.error();
    (*registry)->trust_only(whose_ghosts(*args.trust));  // what is made of it is the caller's
    auto key = load_key(args.key);
    if (!key) return key.error();
    auto chain = core::open_chain(**registry, args.file, *key);
    if (!chain) return chain.error();
    if (chain->ghosts.size() == 1)
        return make_error(Code::invalid, "merge a ghost that is full already", args.file);
    out.ghosts = chain->ghosts.size();
    uint64_t total = 0;
    for (const auto& name : chain->names) total += size_of(name);
    auto resource = (*registry)->make(args.to, core::Use::write);
    if (!resource) return resource.error();
    GHOST_TRY((*resource)->init());
    Counted counted(**resource);
    ProgressLine line;
    int64_t told = begin;
    auto status = core::merge_ghosts(chain->ghosts, counted, [&](uint64_t bytes) {
        out.bytes_read = bytes;
        if (monotonic_us() - told < progress_us) return;
        line.show("merge", bytes, total);
        told = monotonic_us();
    });
    line.clear();
    GHOST_TRY(status);
    GHOST_TRY((*resource)->finalize());
    out.bytes = counted.bytes;
    out.us = monotonic_us() - begin;
    return out;
}

int run_merge(const MergeArgs& args, bool json) {
    auto merged = merge(args);
    if (!merged) return report(merged.error(), json);
    if (json)
        print_json({{"file", args.to},
                    {"ghosts", merged->ghosts},
                    {"bytes_read", merged->bytes_read},
                    {"bytes", merged->bytes},
                    {"total_us", merged->us}});
    else
        fmt::print("{} ghosts -> {}  {}  in {}\n", merged->ghosts, args.to,
                   bytes_text(merged->bytes), time_text(merged->us));
    return exit_done;
}

}  // namespace

void define_merge(CommandLine app, int& exit_status) {
    auto args = std::make_shared<MergeArgs>();
    app.add_option("file", args->file, "the newest ghost; its parents are found beside it")
        .required();
    app.add_option("-o,--output", args->to, "file for the full ghost; the others stay as they are")
        .required();
    app.add_option("--key", args->key, "file with the key of encrypted ghosts");
    args->trust = add_trust(app);
    auto json = add_json(app);
    app.footer("Exit status: 0 done; 1 refused or failed, no new ghost; 2 wrong usage.");
    app.callback([=, &exit_status] { exit_status = run_merge(*args, *json); });
}

}  // namespace ghost::tools
