// SPDX-License-Identifier: BSD-3-Clause
// A user name space of one's own: what an ordinary user needs to make name spaces and to run criu.
//
// In it a process has every capability over what belongs to it, and none over anything else
// (user_namespaces(7)). User and group stay what they are; all other users and groups are shown as
// nobody (65534). Root needs none, and gets none: for root all of this does nothing.
#pragma once

#include <sys/types.h>
#include <vector>

#include "base/result.hpp"

namespace ghost {

// This process, which must have no other thread, goes into a new one. Programs it starts keep the
// capabilities that criu and ghost-init need (ambient ones, capabilities(7)), until
// drop_ambient_capabilities(). Where users may make none, ghostd is asked for one
// (base/lender.hpp). unsupported: the system does not allow it; nothing has changed then.
Status enter_own_user_space();
// The same, but into the one in which process `pid` of this user lives. unsupported: it is the one
// this process begins in, which gives it nothing.
Status enter_user_space_of(pid_t pid);
// Whether enter_own_user_space() would succeed; asked of a child.
Status can_enter_own_user_space();
// Whether this process has been through one of the two (or through nothing, as root).
bool has_user_space();

// Supplementary groups of this user by their numbers outside, in order: inside of a user name space
// all are shown as nobody's. Empty for root, who gives processes their own, and where the numbers
// are not known.
std::vector<gid_t> user_groups();

// Programs this process starts from here on have no capabilities.
void drop_ambient_capabilities();

}  // namespace ghost
