// SPDX-License-Identifier: BSD-3-Clause
// Where a rank's ghost comes from when a tree is made of it: a connection from the wrapper that
// has the rank (a move), or files (a restart).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ghost-core/engine/migration.hpp"
#include "ghost-core/resource/network.hpp"
#include "ghost-core/resource/registry.hpp"
#include "pmix-plugin/snapshots/manifest.hpp"
#include "pmix-plugin/wrapper/file_list.hpp"
#include "pmix-plugin/wrapper/tree_parts.hpp"
#include "pmix-plugin/wrapper/worker.hpp"

namespace ghost::plugin {

// Of one import. begin() and fd() are the main thread's, link() and open() the worker's.
class GhostSource {
  public:
    virtual ~GhostSource() = default;
    virtual WrapperMode mode() const = 0;
    // At `prepare`; `proof`: what both ends of a move prove to know; `interfaces`: where to listen.
    virtual Status begin(const std::string& proof, const std::string& interfaces) = 0;
    // The ghost comes after somebody was told ready(); else it is there.
    virtual bool comes_later() const = 0;
    // To be said when it can be taken in.
    virtual Outgoing ready(uint64_t seq) const = 0;
    virtual int fd() const = 0;  // readable when it comes
    // Of one that is there: all that can be known to be missing before anything is changed. On the
    // worker, before open().
    virtual Status look(Worker&) { return {}; }
    // Takes it in, on the worker. If it comes live, what it comes over, which must outlive the
    // import; else null, and open() follows.
    virtual Result<core::Resource*> link(Worker&) { return nullptr; }
    // The ghost, with its parents; everything else is as it wants it. It must outlive the importer.
    virtual Result<core::Importer> open(Worker& worker) = 0;
};

// The source's wrapper connects.
class ConnectedSource : public GhostSource {
  public:
    // `space`: whether this process can make a tree of processes here.
    ConnectedSource(const Identity& who, Status space)
        : rank_(who.rank), space_(std::move(space)) {}
    WrapperMode mode() const override { return WrapperMode::restore; }
    Status begin(const std::string& proof, const std::string& interfaces) override;
    bool comes_later() const override { return true; }
    Outgoing ready(uint64_t seq) const override;
    int fd() const override { return listener_ ? listener_->fd() : -1; }
    Result<core::Resource*> link(Worker& worker) override;
    Result<core::Importer> open(Worker& worker) override;

  private:
    uint32_t rank_;
    Status space_;
    std::string host_;  // that the source is told; empty: this node's name
    std::optional<core::NetworkListener> listener_;
    std::unique_ptr<core::NetworkResource> source_;
};

// A file that is cut back.
struct CutFile {
    uint64_t size = 0;
    std::optional<core::FileBegin> begin;  // what is known to have been in it
};

// A snapshot's folder: the rank's ghost and its parents; files that the rank had open for writing
// become what they were at the snapshot, larger ones are cut back to their size then.
class SnapshotSource : public GhostSource {
  public:
    // `kept`: a file that is changed is kept in a copy whose name ends so; empty: not.
    // `signer`: whose key the snapshot has to be signed with; empty: it need not.
    SnapshotSource(std::string folder, uint32_t rank, std::string kept, std::string signer)
        : folder_(std::move(folder)),
          rank_(rank),
          kept_(std::move(kept)),
          signer_(std::move(signer)) {
        registry_.trust_only(core::Whose::own);
    }
    WrapperMode mode() const override { return WrapperMode::restart; }
    Status begin(const std::string&, const std::string&) override { return {}; }
    bool comes_later() const override { return false; }
    Outgoing ready(uint64_t seq) const override;
    int fd() const override { return -1; }
    // The ghost and its parents, this node's differences, its memory, the files to be changed.
    Status look(Worker& worker) override;
    // Puts the files back.
    Result<core::Importer> open(Worker& worker) override;

  private:
    Result<Manifest> manifest() const;
    Result<std::unique_ptr<core::Resource>> open_file(const std::string& path,
                                                      const Manifest::Rank& row) const;
    Status open_ghosts(const Manifest& manifest, const Manifest::Rank& row);
    Status find_files(const Manifest& manifest, Worker& worker);
    Result<core::FileContents> find_contents(const Manifest& manifest, const Manifest::File& file);

    std::string folder_;
    uint32_t rank_;
    std::string kept_;
    std::string signer_;
    RankMetadata metadata_;                               // of the rank's own
    std::map<uint32_t, std::vector<ListedFile>> others_;  // by ranks; in find_files() only
    std::map<std::string, core::FileContents> to_put_;    // by path
    std::map<std::string, CutFile> to_cut_;               // by path
    core::ResourceRegistry registry_;
    std::vector<std::unique_ptr<core::Resource>> ghosts_;  // the newest first
    std::optional<core::Importer> importer_;               // of them
};

}  // namespace ghost::plugin
