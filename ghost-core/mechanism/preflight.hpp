// What a tree needs where it goes, asked at the source, and what of it a target lacks: everything
// in one report, before anything is frozen. Both halves only look; any thread.
#pragma once

#include <string>
#include <sys/types.h>
#include <vector>

#include "base/control_socket.hpp"
#include "base/result.hpp"

namespace ghost::core {

// What the tree needs, as plain data that can travel:
//   host    the machine's facts as in a ghost's head (architecture, page size, processor features)
//   kernel  release of the kernel it runs on
//   memory  bytes of memory it has in use
//   files   [{path, kind: "program"|"data"|"folder", size, mtime_ns, build_id, write}]: what is
//           mapped, open, or a working or root folder
//   limits  {name: hard limit}, the lowest of the tree's own
//   spaces  name spaces it has of its own ["pid", "ipc"]
// not_found: the tree is gone.
Result<Json> needs_of(pid_t root);

struct Shortcoming {
    std::string what;    // "file /usr/lib/libfoo.so.1", "memory", "limit open files"
    std::string needed;  // "size 120392"
    std::string found;   // "missing"
};

// All that this machine lacks. A ghost that has been tried against its needs can still be refused
// for what nobody can know ahead: memory taken by others meanwhile.
std::vector<Shortcoming> check_target(const Json& needs);

// The same as a message: "memory: 5.0 GiB needed, 1.2 GiB here; file …".
std::string describe(const std::vector<Shortcoming>& all);

}  // namespace ghost::core
