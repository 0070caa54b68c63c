#include "pmix-plugin/wrapper/ghost_source.hpp"

#include <fmt/format.h>
#include <map>
#include <set>

#include "ghost-core/format/host.hpp"
#include "ghost-core/process/written_files.hpp"
#include "pmix-plugin/snapshot/manifest.hpp"

namespace ghost::plugin {
namespace {

// The source connects early and sends nothing until its rank's gate is closed.
constexpr int silence_ms = 60'000;
constexpr int accept_ms = 5'000;  // for one that has connected to prove itself

std::string from_hex(const std::string& digits) {
    std::string out;
    for (size_t i = 0; i + 1 < digits.size(); i += 2)
        out += static_cast<char>(std::strtol(digits.substr(i, 2).c_str(), nullptr, 16));
    return out;
}

// Path to size: what the ghost knows, and where the manifest knows more, of other ranks, that.
std::map<std::string, uint64_t> files_to_cut(const Json& metadata, const Manifest& manifest,
                                             uint32_t rank) {
    std::map<std::string, uint64_t> out;
    for (const auto& file : metadata.value("files", Json::array())) {
        const auto hex = file.value("path_hex", std::string());
        out[hex.empty() ? file.value("path", std::string()) : from_hex(hex)] =
            file.value("size", uint64_t{0});
    }
    for (const auto& file : manifest.files)
        for (const uint32_t owner : file.ranks)
            if (owner == rank) out[file.path] = std::max(out[file.path], file.size);
    return out;
}

Status cut_files(const std::map<std::string, uint64_t>& files, const std::string& kept) {
    std::string why;
    for (const auto& [path, size] : files) {
        auto done = core::cut_back(path, size, kept.empty() ? kept : path + kept);
        if (!done) why += (why.empty() ? "" : "; ") + done.error().message();
    }
    if (why.empty()) return {};
    return make_error(Code::refused, "files the rank was writing: " + why);
}

}  // namespace

Status ConnectedSource::begin() {
    core::NetworkOptions options;
    options.operation_ms = silence_ms;
    auto listener = core::NetworkListener::listen(secret_, options);
    if (!listener) return listener.error();
    listener_ = std::move(*listener);
    return {};
}

Json ConnectedSource::ready() const {
    return {{"port", listener_->port()}, {"token", listener_->token()}};
}

Result<core::Importer> ConnectedSource::open(Worker& worker) {
    auto source = listener_->accept(accept_ms);
    if (!source) return source.error();
    source_ = std::move(*source);
    worker.uses(source_->fd());
    return core::Importer::open(*source_);
}

Result<core::Importer> SnapshotSource::open(Worker&) {
    auto manifest = read_manifest(folder_);
    if (!manifest) return manifest.error();
    const auto* row = manifest->find(rank_);
    if (row == nullptr)
        return make_error(Code::not_found, fmt::format("find rank {} in snapshot", rank_), folder_);
    auto ghost = registry_.open("file:" + folder_ + "/" + row->file);
    if (!ghost) return ghost.error();
    ghosts_.push_back(std::move(*ghost));
    // Its files may not be as it wants them before they are cut back.
    auto importer = core::Importer::open(*ghosts_.back(), false);
    if (!importer) return importer;
    const Json& says = importer->metadata();
    if (says.value("rank", UINT32_MAX) != rank_ || says.value("snapshot", "") != manifest->name)
        return make_error(Code::corrupt,
                          fmt::format("it is the ghost of rank {} of snapshot {}:",
                                      says.value("rank", -1), says.value("snapshot", "?")),
                          folder_ + "/" + row->file);
    const auto snapshots = folder_.substr(0, folder_.find_last_not_of('/') + 1);
    const auto place = snapshots.substr(0, snapshots.rfind('/') + 1);
    for (const auto& name : row->chain) {
        auto parent = registry_.open("file:" + place + name);
        if (!parent) return parent.error();
        ghosts_.push_back(std::move(*parent));
        GHOST_TRY(importer->add_parent(*ghosts_.back()));
    }
    GHOST_TRY(cut_files(files_to_cut(importer->metadata(), *manifest, rank_), kept_));
    // Others have files open for writing that this one reads.
    std::set<std::string> changing;
    for (const auto& file : manifest->files) changing.insert(file.path);
    GHOST_TRY(core::check_host(importer->host(), changing));
    importer->set_changing_files(std::move(changing));
    return importer;
}

}  // namespace ghost::plugin
