// `ghost verify`: reads ghosts to their last byte, with their parents.
#include <fmt/format.h>
#include <set>

#include "base/clock.hpp"
#include "ghost-core/format/chain.hpp"
#include "ghost-core/resource/chain.hpp"
#include "tools/ghost_files.hpp"
#include "tools/terminal.hpp"
#include "tools/verb.hpp"

namespace ghost::tools {
namespace {

constexpr int64_t progress_us = 100000;

struct VerifyArgs {
    std::vector<std::string> files;
};

// Verifies ghosts, each once however many name it as their parent.
class Verifier {
  public:
    Verifier(const core::ResourceRegistry& registry, std::shared_ptr<core::SecretKey> key,
             const std::vector<std::string>& files)
        : registry_(registry), key_(std::move(key)), files_(files) {}

    // The row of a file: {"file", "ok", "id", "digest", "bytes", "parents": […]} or {…, "error"}.
    Json verify(const std::string& file) {
        Json row{{"file", file}, {"ok", false}};
        auto chain = core::open_chain(registry_, file, key_, files_);
        Status status = chain.ok() ? Status() : Status(chain.error());
        for (size_t i = 0; status.ok() && i < chain->ghosts.size(); i++) {
            auto& ghost = chain->ghosts[i];
            status = read(ghost, chain->names[i]);
            if (!status.ok()) break;
            const auto& digest = digests_[ghost.head.id.hex()];
            if (i == 0) {
                row["id"] = ghost.head.id.hex();
                row["digest"] = digest.digest.hex();
                row["bytes"] = bytes_[ghost.head.id.hex()];
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

  private:
    Status read(core::OpenGhost& ghost, const std::string& name) {
        const auto id = ghost.head.id.hex();
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

    const core::ResourceRegistry& registry_;
    std::shared_ptr<core::SecretKey> key_;
    const std::vector<std::string>& files_;
    std::vector<uint64_t> buffer_ = std::vector<uint64_t>(core::chunk_limit / sizeof(uint64_t));
    std::map<std::string, core::Contents> digests_;
    std::map<std::string, uint64_t> bytes_;
    ProgressLine line_;
};

int run_verify(const VerifyArgs& args, const std::string& key_file, bool json) {
    auto registry = all_classes();
    if (!registry) return report(registry.error(), json);
    auto key = load_key(key_file);
    if (!key) return report(key.error(), json);
    Verifier verifier(**registry, *key, args.files);
    Json rows = Json::array();
    bool all_good = true;
    for (const auto& file : args.files) {
        const auto row = verifier.verify(file);
        rows.push_back(row);
        const bool good = row.value("ok", false);
        all_good = all_good && good;
        if (!good) fmt::print(stderr, "ghost: {}: {}\n", file, row.value("error", ""));
        if (good && !json)
            fmt::print("{}: good  {}  digest {}{}\n", file,
                       bytes_text(row.value("bytes", uint64_t{0})), row.value("digest", ""),
                       row["parents"].empty()
                           ? std::string()
                           : fmt::format("  with {} parents", row["parents"].size()));
    }
    const int exit_status = all_good ? exit_done : exit_unharmed;
    if (json) print_json({{"ghosts", rows}, {"exit", exit_status}});
    return exit_status;
}

}  // namespace

void define_verify(CLI::App& app, int& exit_status) {
    auto args = std::make_shared<VerifyArgs>();
    app.add_option("file", args->files, "ghosts; their parents are found beside them")->required();
    auto key = add_key(app);
    auto json = add_json(app);
    app.footer(
        "Exit status: 0 every byte is right; 1 something is not, and what and where; 2 usage.");
    app.callback([=, &exit_status] { exit_status = run_verify(*args, *key, *json); });
}

}  // namespace ghost::tools
