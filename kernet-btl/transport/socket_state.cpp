#include "kernet-btl/transport/socket_state.hpp"

namespace kernet {

namespace {

constexpr bool allowed[4][4] = {
    // to: free, attached, suspended, unattached
    {false, true, false, true},   // from free
    {false, false, true, true},   // from attached
    {false, true, false, true},   // from suspended
    {false, false, false, false}  // from unattached
};

}  // namespace

const char* state_name(SocketState state) {
    static constexpr const char* names[] = {"free", "attached", "suspended", "unattached"};
    return names[static_cast<int>(state)];
}

bool may_change(SocketState from, SocketState to) {
    return allowed[static_cast<int>(from)][static_cast<int>(to)];
}

}  // namespace kernet
