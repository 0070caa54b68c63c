#include "pmix-plugin/parameters.hpp"

namespace ghost::plugin {

namespace {

constexpr Parameter table[] = {
    {"ghost", "0", "Run the job so that its ranks can be migrated (0 or 1)"},
    {"ghost_checkpoint_interval", "0",
     "Seconds (or 10m, 2h) between snapshots of the job; 0 takes none"},
    {"ghost_checkpoint_dir", "./ghost-snapshots", "Folder snapshots go to, shared or node-local"},
    {"ghost_checkpoint_keep", "2", "How many complete snapshots are kept"},
    {"ghost_checkpoint_to", "disk", "Where snapshots go: disk, memory (a partner node) or both"},
    {"ghost_incremental", "1", "Write only pages that changed since the last snapshot (0 or 1)"},
    {"ghost_compress", "lz4", "Compression of snapshots: none, lz4 or zstd"},
    {"ghost_recover", "0",
     "Restart a dead rank or node from the last snapshot and let the job go on (0 or 1)"},
    {"ghost_migrate_mode", "auto",
     "How a rank's memory is moved: live (pre-copy), stop, lazy (post-copy) or auto"},
    {"ghost_balance", "off", "Move ranks by load: off, advise or on"},
    {"ghost_filters", "none", "Stream filters of migrations, for example crypto,compress"},
    {"ghost_verbose", "1", "How much Ghost says: 0 (errors) to 5"},
};

}  // namespace

std::span<const Parameter> parameters() {
    return table;
}

}  // namespace ghost::plugin
