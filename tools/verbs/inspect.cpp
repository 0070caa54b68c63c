// SPDX-License-Identifier: BSD-3-Clause
// `ghost inspect`: what is in a ghost.
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/json_member.hpp"
#include "base/json_text.hpp"
#include "ghost-core/format/host.hpp"
#include "ghost-core/format/reader.hpp"
#include "ghost-core/format/summary.hpp"
#include "tools/ghost_files.hpp"
#include "tools/ghost_skeleton.hpp"
#include "tools/verbs/job_snapshots.hpp"
#include "tools/terminal.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {
namespace {

constexpr int64_t progress_us = 100000;

struct Inspected {
    core::GhostSummary summary;
    SkeletonFiles skeleton;
    bool packed = false;  // compressed, encrypted, no plain file: it had to be read to its end
    std::optional<PublicKey> signer;  // as it says
};

bool is_plain_ghost(int fd) {
    std::array<unsigned char, 8> start{};
    return pread(fd, start.data(), start.size(), 0) == static_cast<ssize_t>(start.size()) &&
           start == core::ghost_magic;
}

// Reads all of it, checking everything on the way.
Result<Inspected> inspect_stream(const std::string& file, const std::string& key_file) {
    auto registry = all_classes();
    if (!registry) return registry.error();
    (*registry)->trust_only(core::Whose::anybodys);  // nothing is made of it
    auto key = load_key(key_file);
    if (!key) return key.error();
    Inspected out;
    auto in = (*registry)->open(file, *key, &out.signer);
    if (!in) return in.error();
    out.packed = true;
    core::GhostReader reader(**in);
    GHOST_TRY(reader.head(out.summary.head));
    std::vector<uint64_t> space(core::chunk_limit / sizeof(uint64_t));
    auto* buffer = reinterpret_cast<char*>(space.data());
    ProgressLine line;
    int64_t told = monotonic_us();
    for (;;) {
        auto chunk = reader.next(buffer);
        if (!chunk) return chunk.error();
        if (chunk->type == core::ChunkType::end) break;
        if (chunk->type == core::ChunkType::skeleton_open)
            out.skeleton.open(chunk->number, {buffer, chunk->size});
        if (chunk->type == core::ChunkType::skeleton_data)
            out.skeleton.data(chunk->number, {buffer, chunk->size});
        if (monotonic_us() - told < progress_us) continue;
        line.show("inspect", reader.position(), 0);
        told = monotonic_us();
    }
    line.clear();
    out.summary.contents = reader.contents();
    out.summary.processes = reader.processes();
    out.summary.bytes = reader.position();
    return out;
}

Result<Inspected> inspect(const std::string& file, const std::string& key) {
    const Fd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
    // what is no file here may be a specification; a damaged ghost is told as one
    if (!fd || !is_plain_ghost(fd.get())) return inspect_stream(file, key);
    Inspected out;
    auto summary = core::read_summary(fd.get());
    if (!summary) {
        auto error = summary.error();
        error.object = file;
        return error;
    }
    out.summary = std::move(*summary);
    const auto& sections = out.summary.contents.sections;
    GHOST_TRY(read_skeleton(fd.get(),
                            sections[static_cast<size_t>(core::ChunkType::skeleton_open)].first,
                            out.skeleton));
    return out;
}

Json json_or_text(const std::string& text) {
    auto parsed = parse_json(text);
    return parsed.is_discarded() ? Json(text) : parsed;
}

Json processes_json(const Inspected& ghost) {
    std::map<int, Json> rows;
    const auto row = [&](int pid) -> Json& {
        auto& out = rows[pid];
        if (out.is_null())
            out = {{"pid", pid}, {"page_bytes", 0}, {"present_bytes", 0}, {"zero_bytes", 0}};
        return out;
    };
    for (const auto& process : ghost.skeleton.processes()) {
        auto& out = row(process.pid);
        out["parent"] = process.parent;
        out["threads"] = process.threads;
        out["name"] = process.name;
    }
    for (const auto& summary : ghost.summary.processes) {
        auto& out = row(summary.inner_pid);
        out["page_bytes"] = summary.page_bytes;
        out["present_bytes"] = summary.present_bytes;
        out["zero_bytes"] = summary.zero_bytes;
    }
    Json out = Json::array();
    for (const auto& [pid, one] : rows) out.push_back(one);
    return out;
}

Json sections_json(const core::Contents& contents) {
    Json out = Json::array();
    for (size_t type = 1; type < core::chunk_types; type++) {
        const auto& section = contents.sections[type];
        if (section.chunks == 0) continue;
        out.push_back({{"type", core::chunk_name(static_cast<core::ChunkType>(type))},
                       {"first", section.first},
                       {"chunks", section.chunks},
                       {"bytes", section.bytes}});
    }
    return out;
}

Json to_json(const std::string& file, const Inspected& ghost) {
    const auto& head = ghost.summary.head;
    const auto& contents = ghost.summary.contents;
    Json parent;
    if (head.parent)
        parent = {{"name", head.parent->name},
                  {"id", head.parent->id.hex()},
                  {"digest", head.parent->digest.hex()},
                  {"generation", head.parent->generation}};
    uint64_t skeleton = 0;
    for (const auto& [name, bytes] : ghost.skeleton.sizes()) skeleton += bytes;
    auto differences = core::host_differences(head.host);
    return {{"file", file},
            {"bytes", ghost.summary.bytes},
            {"version", core::ghost_version},
            {"id", head.id.hex()},
            {"digest", contents.digest.hex()},
            {"incremental", head.parent.has_value()},
            {"rounds", head.rounds},
            {"packed", ghost.packed},
            {"signer", ghost.signer ? Json(ghost.signer->hex()) : Json()},
            {"parent", parent},
            {"page_bytes", contents.page_bytes},
            {"zero_bytes", contents.zero_bytes},
            {"present_bytes", contents.present_bytes},
            {"skeleton_bytes", skeleton},
            {"skeleton_files", ghost.skeleton.sizes()},
            {"processes", processes_json(ghost)},
            {"sections", sections_json(contents)},
            {"host", json_or_text(head.host)},
            {"metadata", json_or_text(head.metadata)},
            {"differences_here", differences.ok() ? Json(*differences) : Json()}};
}

void print_processes(const Json& rows) {
    for (const Json& row : rows)
        fmt::print(
            "  process {:<7} {:<16} parent {:<7} threads {:<4} pages {}{}\n", member(row, "pid", 0),
            member(row, "name", "?"), member(row, "parent", 0), member(row, "threads", 0),
            bytes_text(member(row, "page_bytes", uint64_t{0})),
            member(row, "present_bytes", uint64_t{0}) > 0
                ? fmt::format(" of {}", bytes_text(member(row, "present_bytes", uint64_t{0})))
                : std::string());
}

// Whose key is named; whether it is true depends on whose key somebody has.
void print_signer(const std::string& key) {
    fmt::print("  signed with {} (`ghost verify --verify-key` checks it)\n", key);
}

void print_text(const Json& all) {
    fmt::print("{}: ghost of version {}, {}{}\n", member(all, "file", ""),
               member(all, "version", 0), bytes_text(member(all, "bytes", uint64_t{0})),
               member(all, "packed", false) ? " unpacked" : "");
    fmt::print("  id {}  digest {}\n", member(all, "id", ""), member(all, "digest", ""));
    if (all["signer"].is_string()) print_signer(all["signer"]);
    if (all["parent"].is_object())
        fmt::print("  changes since \"{}\" (id {}), generation {}\n",
                   member(all["parent"], "name", ""), member(all["parent"], "id", ""),
                   member(all["parent"], "generation", 0));
    fmt::print("  pages {}, zeros left out {}, skeleton {} in {} files\n",
               bytes_text(member(all, "page_bytes", uint64_t{0})),
               bytes_text(member(all, "zero_bytes", uint64_t{0})),
               bytes_text(member(all, "skeleton_bytes", uint64_t{0})),
               all["skeleton_files"].size());
    print_processes(all["processes"]);
    const Json& host = all["host"];
    if (host.is_object())
        fmt::print("  made on {} {}, {}, {}, {} files used\n", member(host, "arch", "?"),
                   member(host, "kernel", "?"), member(host, "libc", "?"), member(host, "cpu", "?"),
                   list_in(host, "files").size());
    if (all["differences_here"].is_array())
        for (const Json& line : all["differences_here"])
            fmt::print("  here: {}\n", line.get<std::string>());
    for (const Json& section : all["sections"])
        fmt::print("  {:<14} {:>8} chunks {:>12}  from byte {}\n", member(section, "type", ""),
                   member(section, "chunks", uint64_t{0}),
                   bytes_text(member(section, "bytes", uint64_t{0})),
                   member(section, "first", uint64_t{0}));
}

// A snapshot of a job is what its manifest says.
int inspect_snapshot(const std::string& folder, bool json) {
    auto manifest = plugin::read_manifest(folder);
    if (!manifest) return report(manifest.error(), json);
    if (json) {
        print_json(plugin::manifest_json(*manifest));
        return exit_done;
    }
    const auto snapshot = plugin::look_at_snapshot(folder);
    fmt::print("{}: {} snapshot of job {}, {} ranks, epoch {}, {}\n", snapshot.path, manifest->kind,
               manifest->job.name, manifest->ranks.size(), manifest->job.epoch, manifest->time);
    fmt::print("  {}, paused {}, total {}\n", bytes_text(manifest->bytes),
               time_text(manifest->pause_us), time_text(manifest->total_us));
    if (!snapshot.whole) fmt::print("  damaged: {}\n", snapshot.why);
    fmt::print("  made by Ghost {}, {} {}, PMIx {}\n", manifest->version, manifest->runtime.name,
               manifest->runtime.version, manifest->runtime.pmix);
    if (manifest->signature) print_signer(manifest->signature->signer);
    for (const auto& app : manifest->apps)
        fmt::print("  {} ranks of {} in {}\n", app.np, fmt::join(app.argv, " "), app.cwd);
    if (!manifest->input.path.empty())
        fmt::print("  input of rank {}: {} from byte {}\n", manifest->input.rank,
                   manifest->input.path, manifest->input.offset);
    for (const auto& rank : manifest->ranks)
        fmt::print("  rank {:<5} {:<16} {:<11} {:>10} of {:>10}  paused {}{}\n", rank.rank,
                   rank.node, rank.kind, bytes_text(rank.bytes), bytes_text(rank.memory),
                   time_text(rank.pause_us),
                   rank.chain.empty() ? std::string() : "  on " + rank.chain.front());
    for (const auto& file : manifest->files)
        fmt::print("  writes {} ({} bytes)\n", file.path, file.size);
    return exit_done;
}

int run_inspect(const std::string& file, const std::string& key, bool json) {
    if (is_snapshot(file)) return inspect_snapshot(file, json);
    auto ghost = inspect(file, key);
    if (!ghost) return report(ghost.error(), json);
    const auto all = to_json(file, *ghost);
    if (json)
        print_json(all);
    else
        print_text(all);
    return exit_done;
}

}  // namespace

void define_inspect(CommandLine app, int& exit_status) {
    auto file = std::make_shared<std::string>();
    app.add_option("file", *file, "a ghost, or the folder of a job's snapshot").required();
    auto key = add_key(app);
    auto json = add_json(app);
    app.footer(
        "Reads the head, the skeleton and the table of contents; `ghost verify` reads every byte.");
    app.callback([=, &exit_status] { exit_status = run_inspect(*file, *key, *json); });
}

}  // namespace ghost::tools
