#include "kernet-btl/transport/location.hpp"

#include "kernet-btl/transport/json_number.hpp"

namespace kernet {

namespace {

constexpr size_t max_name = 255;

using Json = nlohmann::json;

ghost::Error wrong(const char* field) {
    return ghost::make_error(ghost::Code::corrupt, "read a location", field);
}

bool read_number(const Json& json, const char* field, uint64_t most, uint64_t& out) {
    const auto found = json.find(field);
    return found != json.end() && read_whole(*found, out, most);
}

bool read_text(const Json& json, const char* field, std::string& out) {
    const auto found = json.find(field);
    if (found == json.end() || !found->is_string()) return false;
    out = found->get<std::string>();
    return out.size() <= max_name;
}

bool read_addresses(const Json& json, std::vector<TcpAddress>& out) {
    const auto found = json.find("tcp");
    if (found == json.end() || !found->is_array() || found->size() > Location::max_addresses)
        return false;
    for (const Json& item : *found) {
        TcpAddress address;
        uint64_t port = 0;
        if (!item.is_object() || !read_text(item, "host", address.host) ||
            !read_number(item, "port", 65535, port)) {
            return false;
        }
        address.port = static_cast<uint16_t>(port);
        out.push_back(std::move(address));
    }
    return true;
}

}  // namespace

Json to_json(const Location& location) {
    Json tcp = Json::array();
    for (const TcpAddress& a : location.tcp) tcp.push_back({{"host", a.host}, {"port", a.port}});
    return {{"rank", location.rank},         {"epoch", location.epoch},
            {"node", location.node},         {"node_name", location.node_name},
            {"attached", location.attached}, {"tcp", std::move(tcp)},
            {"unix", location.unix_name}};
}

Result<Location> location_from_json(const Json& json) {
    if (!json.is_object()) return wrong("object expected");
    Location location;
    uint64_t rank = 0;
    if (!read_number(json, "rank", UINT32_MAX, rank)) return wrong("rank");
    if (!read_number(json, "epoch", UINT64_MAX, location.epoch)) return wrong("epoch");
    if (!read_text(json, "node_name", location.node_name)) return wrong("node_name");
    if (!read_text(json, "unix", location.unix_name)) return wrong("unix");
    if (!read_addresses(json, location.tcp)) return wrong("tcp");
    const auto node = json.find("node");
    if (node == json.end() || !read_node(*node, location.node)) return wrong("node");
    const auto attached = json.find("attached");
    if (attached == json.end() || !attached->is_boolean()) return wrong("attached");
    location.rank = static_cast<uint32_t>(rank);
    location.attached = attached->get<bool>();
    return location;
}

}  // namespace kernet
