// SPDX-License-Identifier: BSD-3-Clause
#include "benchmarks/figures/wires.hpp"

#include <algorithm>

namespace ghost::bench {

const std::vector<Wire>& all_wires() {
    // Repeats: of sizes up to 6 KB, to 96 KB, above. Where a wire is quick there are more than a
    // figure needs: a job chooses its link in its first tenths of a second.
    static const std::vector<Wire> wires{
        {"one node", "8a", nullptr, 0, {20000, 2000, 150}, 65536},
        {"Fast Ethernet", "8b", "fast-ethernet", 100e6, {150, 20, 1}, 16384},
        {"Gigabit Ethernet", "8c", "gigabit", 1e9, {500, 100, 4}, 131072},
        {"unshaped", "8d", "none", 0, {20000, 3000, 60}, 65536},
    };
    return wires;
}

const char* name_of(Kind kind) {
    switch (kind) {
        case Kind::tcp:
            return "TCP sockets";
        case Kind::tcp_reno:
            return "TCP sockets (reno)";
        case Kind::unix_socket:
            return "Unix sockets";
        case Kind::kernet:
            return "KerNet streams";
        case Kind::raw:
            return "NPtcp";
        case Kind::stock_mpi:
            return "stock MPI";
        case Kind::kernet_mpi:
            return "KerNet MPI";
    }
    return "";
}

bool is_stream(Kind kind) {
    return kind == Kind::tcp || kind == Kind::tcp_reno || kind == Kind::unix_socket ||
           kind == Kind::kernet;
}

const char* option_of(Kind kind) {
    if (kind == Kind::kernet) return "kernet";
    if (kind == Kind::unix_socket) return "unix";
    return kind == Kind::tcp_reno ? "tcp-reno" : "tcp";
}

// The congestion control KerNet's own connections have makes no difference on one node.
bool is_possible(Kind kind, const Wire& wire) {
    if (kind == Kind::unix_socket) return wire.rate == nullptr;
    return kind != Kind::tcp_reno || wire.rate != nullptr;
}

const std::vector<Pair>& all_pairs() {
    static const std::vector<Pair> pairs{
        {Kind::kernet_mpi, Kind::stock_mpi, 1, 0}, {Kind::kernet_mpi, Kind::raw, 4096, 0.95},
        {Kind::kernet, Kind::tcp, 1, 0},           {Kind::kernet, Kind::tcp_reno, 1, 0},
        {Kind::kernet, Kind::unix_socket, 1, 0},
    };
    return pairs;
}

std::vector<PairRatio> pair_ratios(const Curves& curves) {
    std::vector<PairRatio> result;
    for (const Pair& pair : all_pairs()) {
        const auto mine = curves.find(pair.mine), theirs = curves.find(pair.theirs);
        if (mine == curves.end() || theirs == curves.end()) continue;
        Curve ratios = speedup(mine->second, theirs->second);
        ratios.erase(ratios.begin(), ratios.lower_bound(pair.from));
        result.push_back({pair, ratios});
    }
    return result;
}

double share_of_rate(const Wire& wire, int64_t bytes, double usec) {
    return wire.bits > 0 ? mbps(bytes, usec) * 1e6 / wire.bits : 0;
}

double payload_limit() {
    return 1448.0 / 1514.0;
}

namespace {

nlohmann::json object_of(const std::string& line) {
    auto value = nlohmann::json::parse(line, nullptr, false);
    return value.is_object() ? value : nlohmann::json::object();
}

// What had come at that moment, between two reports.
double come_at(const std::vector<Come>& stream, double at_us) {
    for (size_t i = 1; i < stream.size(); ++i) {
        const auto begin = static_cast<double>(stream[i - 1].at_us);
        const auto end = static_cast<double>(stream[i].at_us);
        if (at_us > end || end <= begin) continue;
        const double part = (at_us - begin) / (end - begin);
        return stream[i - 1].bytes + part * (stream[i].bytes - stream[i - 1].bytes);
    }
    return stream.back().bytes;
}

}  // namespace

std::optional<Sample> parse_ping(const std::string& line) {
    const auto value = object_of(line);
    if (!value.contains("size") || !value.contains("us")) return std::nullopt;
    return Sample{value["size"].get<int64_t>(), value["us"].get<double>()};
}

std::optional<Come> parse_drain(const std::string& line) {
    const auto value = object_of(line);
    if (!value.contains("at_us") || !value.contains("bytes")) return std::nullopt;
    return Come{value["at_us"].get<int64_t>(), value["bytes"].get<double>()};
}

std::vector<double> rates_together(const std::vector<std::vector<Come>>& streams) {
    double begin = 0, end = 1e300;
    for (const auto& stream : streams) {
        if (stream.size() < 2) return {};
        begin = std::max(begin, static_cast<double>(stream.front().at_us));
        end = std::min(end, static_cast<double>(stream.back().at_us));
    }
    if (streams.empty() || end <= begin) return {};
    begin += (end - begin) / 5;
    std::vector<double> rates;
    for (const auto& stream : streams)
        rates.push_back((come_at(stream, end) - come_at(stream, begin)) * 8 / (end - begin));
    return rates;
}

}  // namespace ghost::bench
