// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/wrapper/ghost_source.hpp"

#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>
#include <set>

#include "base/fault.hpp"
#include "ghost-core/engine/node_memory.hpp"
#include "ghost-core/engine/preflight.hpp"
#include "ghost-core/format/host.hpp"
#include "ghost-core/criu/written_files.hpp"

namespace ghost::plugin {
namespace {

// The source connects early and sends nothing until its rank's gate is closed.
constexpr int silence_ms = 60'000;
constexpr int accept_ms = 5'000;  // for one that has connected to prove itself

// By path: what the ghost knows, and where the manifest knows more, of other ranks, that.
std::map<std::string, CutFile> cuts_of(const std::vector<ListedFile>& files,
                                       const Manifest& manifest, uint32_t rank) {
    std::map<std::string, CutFile> out;
    for (const auto& file : files) out[path_of(file)].size = file.size;
    for (const auto& file : manifest.files)
        for (const uint32_t owner : file.ranks) {
            if (owner != rank) continue;
            auto& cut = out[file.path];
            cut.size = std::max(cut.size, file.size);
            if (file.begin) cut.begin = {file.begin->size, file.begin->hash, file.begin->modified};
        }
    return out;
}

// What `act(path, what)` says of each, of how many there may be.
template <typename What, typename Act>
Status of_each(const std::map<std::string, What>& files, Worker& worker, Act act) {
    std::string why;
    for (const auto& [path, what] : files) {
        Status done = act(path, what);
        worker.gets_on();
        if (!done) why += (why.empty() ? "" : "; ") + done.error().message();
    }
    if (why.empty()) return {};
    return because(Code::refused, "files the rank was writing: " + why);
}

// The ranks that the runtime starts on this node need about as much each.
Status enough_memory(uint64_t bytes) {
    const char* ranks = std::getenv("OMPI_COMM_WORLD_LOCAL_SIZE");
    const uint64_t here = ranks != nullptr ? std::max(1L, std::atol(ranks)) : 1;
    const uint64_t have = core::memory_available();
    if (bytes <= have / here) return {};
    return because(Code::refused,
                   fmt::format("{} ranks of {} MB each do not fit into the {} MB this node has "
                               "left",
                               here, bytes >> 20, have >> 20));
}

// Folders, limits and the like.
Status enough_else(const std::optional<core::Needs>& needs) {
    const auto lacking = core::check_needs(needs);
    if (lacking.empty()) return {};
    return because(Code::refused, core::describe(lacking));
}

}  // namespace

Status ConnectedSource::begin(const std::string& proof, const std::string& interfaces) {
    GHOST_TRY(space_);
    core::NetworkOptions options;
    options.operation_ms = silence_ms;
    options.interfaces = interfaces;
    auto listener = core::NetworkListener::listen(proof, options);
    if (!listener) return listener.error();
    listener_ = std::move(*listener);
    if (!interfaces.empty()) host_ = listener_->host();
    return {};
}

Outgoing ConnectedSource::ready(uint64_t seq) const {
    return Ready{seq, rank_, host_, static_cast<uint16_t>(listener_->port()), listener_->token()};
}

Result<core::Resource*> ConnectedSource::link(Worker& worker) {
    auto source = listener_->accept(accept_ms);
    if (!source) return source.error();
    source_ = std::move(*source);
    worker.uses(source_->fd());
    GHOST_TRY(fault::pass(fault::Point::wrapper_imports, [this] { source_->interrupt(); }));
    const auto live = core::answer_source(*source_);
    GHOST_TRY(live);
    return *live ? source_.get() : nullptr;
}

Result<core::Importer> ConnectedSource::open(Worker&) {
    return core::Importer::open(*source_);
}

// Whoever shares any memory with the rank shares it all with it, as far as where they are goes.
Outgoing SnapshotSource::ready(uint64_t seq) const {
    Checked out{seq, {}};
    const auto shared = metadata_.shared.value_or(SharedMappings());
    for (const auto& one : shared.memory) out.shared.push_back({one.id, shared.ranks});
    return out;
}

Result<Manifest> SnapshotSource::manifest() const {
    if (signer_.empty()) return read_manifest(folder_);
    const auto signer = PublicKey::from_hex(signer_);
    if (!signer) return signer.error();
    return read_manifest(folder_, *signer);
}

// A ghost of this rank's; one of a snapshot that has to be signed is signed as its manifest says.
Result<std::unique_ptr<core::Resource>> SnapshotSource::open_file(const std::string& path,
                                                                  const Manifest::Rank& row) const {
    if (signer_.empty()) return registry_.open("file:" + path);
    const auto signer = PublicKey::from_hex(row.signer.value_or(""));
    if (!signer) return signer.error();
    return registry_.expecting(*signer).open("file:" + path);
}

Status SnapshotSource::open_ghosts(const Manifest& manifest, const Manifest::Rank& row) {
    auto ghost = open_file(folder_ + "/" + row.file, row);
    if (!ghost) return ghost.error();
    ghosts_.push_back(std::move(*ghost));
    // Its files may not be as it wants them before they are cut back.
    auto importer = core::Importer::open(*ghosts_.back(), false);
    if (!importer) return importer.error();
    importer_.emplace(std::move(*importer));
    auto metadata = rank_metadata_in(importer_->metadata());
    GHOST_TRY(metadata);
    metadata_ = std::move(*metadata);
    if (metadata_.rank != rank_ || metadata_.snapshot != manifest.name)
        return because(Code::corrupt,
                       fmt::format("it is the ghost of rank {} of snapshot {}:",
                                   metadata_.rank ? std::to_string(*metadata_.rank) : "?",
                                   metadata_.snapshot.value_or("?")),
                       folder_ + "/" + row.file);
    const auto snapshots = folder_.substr(0, folder_.find_last_not_of('/') + 1);
    const auto place = snapshots.substr(0, snapshots.rfind('/') + 1);
    for (const auto& name : row.chain) {
        auto parent = open_file(place + name, row);
        if (!parent) return parent.error();
        ghosts_.push_back(std::move(*parent));
        GHOST_TRY(importer_->add_parent(*ghosts_.back()));
    }
    return {};
}

// The contents that all ranks which have the file are to find in it: mostly this rank has them too.
Result<core::FileContents> SnapshotSource::find_contents(const Manifest& manifest,
                                                         const Manifest::File& file) {
    const auto right = [&](const ListedFile& one) {
        return one.contents && path_of(one) == file.path &&
               contents_of(one).hash() == file.copy->hash;
    };
    const auto find = [&](const std::vector<ListedFile>& files) {
        const auto found = std::ranges::find_if(files, right);
        return found != files.end() ? std::optional(contents_of(*found)) : std::nullopt;
    };
    if (auto own = find(metadata_.files)) return *own;
    const uint32_t other = file.copy->rank;
    if (const auto* row = manifest.find(other); row != nullptr && !others_.contains(other)) {
        auto ghost = open_file(folder_ + "/" + row->file, *row);
        if (!ghost) return ghost.error();
        auto head = core::Importer::open(**ghost, false);
        if (!head) return head.error();
        auto metadata = rank_metadata_in(head->metadata());
        GHOST_TRY(metadata);
        others_[other] = std::move(metadata->files);
    }
    if (auto theirs = find(others_[other])) return *theirs;
    return because(Code::corrupt,
                   fmt::format("the ghost of rank {} does not have its contents", other),
                   file.path);
}

// What is put back need not be cut back.
Status SnapshotSource::find_files(const Manifest& manifest, Worker& worker) {
    to_cut_ = cuts_of(metadata_.files, manifest, rank_);
    const auto open = core::paths_in(importer_->host());
    for (const auto& file : manifest.files) {
        if (!file.copy || !(to_cut_.contains(file.path) || open.contains(file.path))) continue;
        auto contents = find_contents(manifest, file);
        worker.gets_on();
        if (!contents) return contents.error();
        to_put_[file.path] = std::move(*contents);
        to_cut_.erase(file.path);
    }
    others_.clear();
    return {};
}

Status SnapshotSource::look(Worker& worker) {
    auto manifest = this->manifest();
    if (!manifest) return manifest.error();
    const auto* row = manifest->find(rank_);
    if (row == nullptr)
        return make_error(Code::not_found, fmt::format("find rank {} in snapshot", rank_), folder_);
    GHOST_TRY(open_ghosts(*manifest, *row));
    GHOST_TRY(find_files(*manifest, worker));
    // Others have files open for writing that this one reads.
    std::set<std::string> changing, made;
    for (const auto& file : manifest->files) changing.insert(file.path);
    for (const auto& [path, contents] : to_put_) made.insert(path);
    const auto may_put = [](const std::string& path, const core::FileContents& contents) {
        return core::may_put_back(path, contents.mode);
    };
    const auto may_cut = [](const std::string& path, const CutFile& cut) {
        return core::may_cut_back(path, cut.size, cut.begin);
    };
    std::string why;
    for (const Status& one : {of_each(to_put_, worker, may_put), of_each(to_cut_, worker, may_cut),
                              enough_memory(row->memory), enough_else(importer_->known().needs),
                              core::check_host(importer_->host(), changing, made)})
        if (!one) why += (why.empty() ? "" : "; ") + one.error().message();
    if (!why.empty()) return because(Code::refused, why);
    return {};
}

Result<core::Importer> SnapshotSource::open(Worker& worker) {
    if (!importer_) return make_error(Code::internal, "restart", {}, "the ghost was not looked at");
    const auto kept = [this](const std::string& path) {
        return kept_.empty() ? kept_ : path + kept_;
    };
    GHOST_TRY(
        of_each(to_put_, worker, [&](const std::string& path, const core::FileContents& contents) {
            return core::put_back(path, contents, kept(path));
        }));
    GHOST_TRY(of_each(to_cut_, worker, [&](const std::string& path, const CutFile& cut) {
        return core::cut_back(path, cut.size, kept(path), cut.begin ? cut.begin->modified_ns : 0);
    }));
    return std::move(*importer_);
}

}  // namespace ghost::plugin
