// SPDX-License-Identifier: BSD-3-Clause
// All links there are, one line each (table.cpp), and which of them fits a peer.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernet-btl/link/end.hpp"
#include "kernet-btl/wire/handshake.hpp"

namespace kernet {

struct LinkLine {
    wire::LinkKind kind;
    const char* name;
    bool reliable;      // nothing gets lost while the link stands
    bool ordered;       // what leaves first comes first
    size_t max_frame;   // bytes it moves in one piece at most; 0: any number
    bool zero_copy;     // large bodies go from and to the user's memory
    bool one_sided;     // one end can read or write the other's memory by itself
    bool slow_to_make;  // an end takes some milliseconds
    // So many of them are on this node that one more would cost the others too much: asked only
    // where nobody has named the link. by_peer: it is the other end that wants it. Null: never.
    bool (*crowded)(bool by_peer);
    const char* needs;
    // Whether it can be used in this process here and now; null: always.
    Status (*usable)(const LoopHub* loop);
    // Makes an end. Code::peer_lost: the connection is gone.
    Result<std::unique_ptr<LinkEnd>> (*make)(const LinkSite& site);
};

const std::vector<LinkLine>& link_table();
const LinkLine* find_link(wire::LinkKind kind);
// What somebody asks for between nodes.
struct LinkWish {
    std::vector<const LinkLine*> lines;
    bool measured = false;  // the best of them by measurement, else the first
};
// "shm,udp,tcp": names of lines, in order of preference. With `auto` among them they are measured
// against the connection itself; `auto` alone stands for `framepair` and `pair`, which move what is
// long as well as the connection does. Code::invalid, with what there is.
Result<LinkWish> parse_links(const std::string& names);

}  // namespace kernet
