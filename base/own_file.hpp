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

}  // namespace ghost
