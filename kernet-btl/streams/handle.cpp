// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/streams/handle.hpp"

#include <sodium.h>
#include <utility>

#include "kernet-btl/wire/handshake.hpp"

namespace kernet {

namespace {

using Json = nlohmann::json;

constexpr std::string_view magic = "KNTH1";

Result<wire::Mac> mac_of(std::string_view bytes, const std::string& cluster,
                         const std::string& secret) {
    auto key = wire::HandshakeKey::make(secret, "handle " + cluster);
    if (!key) return key.error();
    return key->mac(bytes.data(), bytes.size());
}

bool number(const Json& state, const char* field, uint64_t most, uint64_t& out) {
    const auto found = state.find(field);
    return found != state.end() && read_whole(*found, out, most);
}

bool read(Json& json, Handle& handle) {
    if (!json.is_object()) return false;
    uint64_t socket = 0;
    if (!number(json, "stream", UINT64_MAX, handle.stream) || handle.stream == 0 ||
        !number(json, "socket", max_sockets - 1, socket) ||
        !number(json, "key", UINT64_MAX, handle.key)) {
        return false;
    }
    handle.socket = static_cast<uint16_t>(socket);
    const auto bytes = json.find("bytes"), state = json.find("state"), rest = json.find("rest");
    if (bytes == json.end() || !bytes->is_boolean() || state == json.end()) return false;
    handle.bytes = bytes->get<bool>();
    handle.state = std::move(*state);
    if (rest == json.end()) return true;
    if (!rest->is_binary()) return false;
    handle.rest = std::move(rest->get_binary());
    return true;
}

}  // namespace

Result<std::string> seal_handle(const Handle& handle, const std::string& cluster,
                                const std::string& secret) {
    Json json{{"cluster", cluster}, {"stream", handle.stream}, {"socket", handle.socket},
              {"key", handle.key},  {"bytes", handle.bytes},   {"state", handle.state}};
    if (handle.rest) json["rest"] = *handle.rest;
    const std::vector<uint8_t> packed = Json::to_cbor(json);
    std::string out(magic);
    out.append(reinterpret_cast<const char*>(packed.data()), packed.size());
    const auto mac = mac_of(out, cluster, secret);
    if (!mac) return mac.error();
    out.append(reinterpret_cast<const char*>(mac->data()), mac->size());
    return out;
}

Result<Handle> open_handle(const std::string& sealed, const std::string& cluster,
                           const std::string& secret) {
    const auto wrong = ghost::make_error(ghost::Code::corrupt, "read the handle of a socket");
    const std::string_view all = sealed;
    if (all.size() < magic.size() + sizeof(wire::Mac) || !all.starts_with(magic)) return wrong;
    const std::string_view said = all.substr(0, all.size() - sizeof(wire::Mac));
    const auto mac = mac_of(said, cluster, secret);
    if (!mac) return mac.error();
    if (sodium_memcmp(mac->data(), said.data() + said.size(), mac->size()) != 0) return wrong;
    const auto* bytes = reinterpret_cast<const uint8_t*>(said.data());
    Handle handle;
    try {  // lengths nobody has room for are thrown whatever the parser is told
        Json json = Json::from_cbor(bytes + magic.size(), bytes + said.size(), true, false);
        if (!read(json, handle)) return wrong;
    } catch (const Json::exception&) {
        return wrong;
    }
    return handle;
}

}  // namespace kernet
