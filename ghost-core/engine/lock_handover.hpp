// SPDX-License-Identifier: BSD-3-Clause
// Exclusive locks of files go from a stopped tree to the one that has been made of it, while
// neither runs, over the connection that the ghost took:
//
//   source                      target
//                               the tree is there; are the locks seen here?
//                 <-- held
//   lowers them   lowered -->   takes shared ones
//                 <-- shared
//   drops them    dropped -->   takes exclusive ones
//                 <-- taken
//
// At no moment could somebody else get an exclusive one, but for a file that is open for writing
// only. A shared one could be got meanwhile: then the target cannot have its own, and says refused.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"
#include "ghost-core/criu/file_locks.hpp"
#include "ghost-core/engine/ghost_metadata.hpp"
#include "ghost-core/resource/resource.hpp"

namespace ghost::core {

// A skeleton file, empty: it is so.
inline constexpr std::string_view lock_handover_file = "ghost-locks";

// While the tree runs: its exclusive locks of files with a name, for the target to look whether
// they are seen there; and the paths of those that are not.
Result<std::vector<NeededLock>> exclusive_locks_of(pid_t root);
std::vector<std::string> unseen_locks(const std::vector<NeededLock>& locks);

// refused: the target cannot have them. After a failure the source's tree has no exclusive locks
// any more, or some, until they are taken back.
Status give_locks(Resource& target, TreeLocks& locks);
// After a failure the tree made here has none of them.
Status receive_locks(Resource& source, TreeLocks& locks);

// In a tree whose move has failed, before it goes on. refused: somebody else has locked a file
// meanwhile and does not give it back within some seconds; the message says what that means.
Status take_back(pid_t root, const std::vector<FileLock>& locks);
// In a tree made of a ghost that was kept. refused: somebody else has locked a file; one who is
// just ending is waited for.
Status take_kept(TreeLocks& locks);

}  // namespace ghost::core
