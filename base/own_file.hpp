// SPDX-License-Identifier: BSD-3-Clause
// Files and folders that only this user can have written: what is in them may be believed and run.
// They are opened first and then looked at, so that nobody can put others in their place between.
// Everything that root takes from a folder under a name others know goes through here.
//
//   auto file = open_own_file(folder + "/manifest.json");
//   if (!file) return file.error();  // another user's, a link, or others may write to it
//
// No state: any thread.
#pragma once

#include <fcntl.h>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace ghost {

// A folder of the effective user's that neither its group nor others may write to. A link at the
// end of `path` is followed if it is this user's or root's. refused: it is another's, others may
// write to it, or the link is another's (`object` names it and says what to do); not_found: there
// is none.
Result<Fd> open_own_folder(const std::string& path);
// The same, made (0700) if nothing has the name; the folders above it must be there.
Result<Fd> make_own_folder(const std::string& path);

// A regular file, by the same rule, in such a folder; a link is never followed. `flags` as in
// open(2), with O_CREAT it is made with mode 0600. O_TRUNC takes effect only after the look.
Result<Fd> open_own_file(const std::string& path, int flags = O_RDONLY);

// A file of this user's or root's that nobody else may write to, wherever it is: one that another
// user has put there, or links to, is refused. For what a user names, such as a ghost in /tmp. What
// is no regular file (a pipe, a device) is only to be of such an owner.
Result<Fd> open_trusted_file(const std::string& path);

// Folders of this user's named PREFIX.RANDOM, the oldest first; what others have given such a name
// is passed over. Nobody can take a name that nobody knows: where all may write (/dev/shm) folders
// that several processes must find are found so, never by a fixed name.
std::vector<std::string> own_folders(const std::string& prefix);
// The first of them; made (0700) if there is none. All processes of the user get the same.
Result<std::string> shared_own_folder(const std::string& prefix);

// A name of that kind which nobody can know yet; nothing is made.
std::string fresh_name(const std::string& prefix);

// Where this user's locks, notes, sockets and caches of this node are: /run/ghost-0 for root, else
// /dev/shm/ghost-UID.RANDOM. Made if it is not there.
Result<std::string> private_folder();

}  // namespace ghost
