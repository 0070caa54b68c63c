// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/transport/location.hpp"

#include "base/schema_json.hpp"

namespace kernet {

namespace {

using ghost::schema::field;
using ghost::schema::record;

constexpr uint64_t most_text = 255;

constexpr ghost::schema::Field address_fields[] = {
    field<&TcpAddress::host>("host", "numeric IPv4 or IPv6 address").at_most(most_text),
    field<&TcpAddress::port>("port", "TCP port"),
};

constexpr ghost::schema::Field location_fields[] = {
    field<&Location::rank>("rank", "whose"),
    field<&Location::epoch>("epoch", "its placement: a lower one is out of date"),
    field<&Location::node>("node", "daemon it lives at, -1 if unknown").at_least(-1),
    field<&Location::node_name>("node_name", "that node's name").at_most(most_text),
    field<&Location::attached>("attached", "false: it is suspended or moves"),
    field<&Location::tcp>("tcp", "its listeners, the best first")
        .items_at_most(Location::max_addresses),
    field<&Location::unix_name>("unix", "its name in the node's abstract name space")
        .at_most(most_text),
    field<&Location::ended>("ended", "it is no more, nothing reaches it").or_default(),
};

}  // namespace

constinit const ghost::schema::Record TcpAddress::table =
    record<TcpAddress>("address", "a TCP listener", address_fields);
constinit const ghost::schema::Record Location::table =
    record<Location>("location", "where a rank can be reached", location_fields);

nlohmann::json to_json(const Location& location) {
    return ghost::schema::to_json(location);
}

Result<Location> location_from_json(const nlohmann::json& json) {
    return ghost::schema::from_json<Location>(json);
}

}  // namespace kernet
