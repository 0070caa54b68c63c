#include "pmix-plugin/coordinator/manifest_of.hpp"

#include <algorithm>
#include <charconv>
#include <map>
#include <tuple>
#include <unistd.h>

#include "pmix-plugin/protocol/message.hpp"

namespace ghost::plugin {
namespace {

const Json& part(const Json& whole, const char* key) {
    static const Json empty;
    const Json* found = field(whole, key);
    return found != nullptr ? *found : empty;
}

std::vector<std::string> texts(const Json& whole, const char* key) {
    std::vector<std::string> out;
    for (const Json& item : part(whole, key)) {
        if (item.is_string()) out.push_back(item);
    }
    return out;
}

void take_facts(Manifest& m, const Json& facts) {
    const Json& runtime = part(facts, "runtime");
    m.runtime = text(runtime, "name");
    m.runtime_version = text(runtime, "version");
    m.pmix_version = text(runtime, "pmix");
    for (const Json& app : part(facts, "apps")) {
        m.apps.push_back(
            {texts(app, "argv"), static_cast<uint32_t>(number(app, "np")), text(app, "cwd")});
    }
    const Json& mpirun = part(facts, "mpirun");
    m.mpirun_argv = texts(mpirun, "argv");
    m.mpirun_cwd = text(mpirun, "cwd");
    const Json& parameters = part(mpirun, "parameters");
    if (parameters.is_object()) {
        for (const auto& [name, value] : parameters.items()) {
            if (value.is_string()) m.parameters.push_back({name, value});
        }
    }
    const Json& input = part(facts, "stdin");
    m.input = {static_cast<uint32_t>(number(input, "rank")), text(input, "path"),
               number(input, "offset")};
    for (const Json& node : part(facts, "nodes")) {
        m.nodes.push_back({static_cast<uint32_t>(number(node, "id")), text(node, "name"),
                           static_cast<int>(number(node, "slots"))});
    }
}

Manifest::Rank rank_of(const Json& row) {
    Manifest::Rank rank;
    rank.rank = static_cast<uint32_t>(number(row, "rank"));
    rank.node = text(row, "node");
    rank.file = text(row, "file");
    rank.kind = text(row, "kind", "full");
    rank.chain = texts(row, "chain");
    rank.digest = text(row, "digest");
    rank.bytes = number(row, "bytes");
    rank.page_bytes = number(row, "page_bytes");
    rank.memory = number(row, "memory", rank.page_bytes + number(row, "zero_bytes"));
    rank.pause_us = signed_number(row, "pause_us");
    return rank;
}

// `path_hex` is one that is no UTF-8.
std::string path_of(const Json& file) {
    const std::string hex = text(file, "path_hex");
    if (hex.empty()) return text(file, "path");
    std::string out;
    for (size_t i = 0; i + 1 < hex.size(); i += 2) {
        unsigned byte = 0;
        auto parsed = std::from_chars(hex.data() + i, hex.data() + i + 2, byte, 16);
        if (parsed.ec == std::errc()) out += static_cast<char>(byte);
    }
    return out;
}

// What the ranks that have a file open say of it.
struct SeenFile {
    Manifest::File file;
    std::string which;  // of the files that nodes have by this name
    bool several = false;
    std::tuple<int64_t, int64_t, uint32_t> newest;  // changed, taken, rank
};

// Ranks do not stand at the very same moment: who looked last knows what all of them have written.
// Changes of a file are told apart by its own clock, the same for all nodes, and looks between two
// changes (or in one tick of it) by the nodes'. Files of one name that nodes have each for itself
// are only cut back: where ranks will be is not known.
void take_file(SeenFile& seen, const Json& given, uint32_t rank) {
    Manifest::File& file = seen.file;
    file.size = std::max(file.size, number(given, "size"));
    const bool first = file.ranks.empty();
    file.ranks.push_back(rank);
    const std::string which = text(given, "file");
    if (first) seen.which = which;
    seen.several = seen.several || which != seen.which;
    const std::tuple when{signed_number(given, "changed"), signed_number(given, "taken"), rank};
    if (!first && when <= seen.newest) return;
    seen.newest = when;
    file.copy.reset();
    if (const std::string hash = text(given, "hash"); !hash.empty())
        file.copy = {rank, number(given, "size"), hash};
}

void take_rows(Manifest& m, const std::vector<Json>& rows) {
    std::map<std::string, SeenFile> files;
    bool all = true;  // files of all ranks are known
    for (const Json& row : rows) {
        Manifest::Rank rank = rank_of(row);
        if (rank.kind != "full") m.kind = "incremental";
        if (rank.rank == m.input.rank && !m.input.path.empty()) {
            // Negative: its wrapper does not know. Better no input than the wrong part of it.
            const int64_t read = signed_number(row, "stdin_bytes", -1);
            if (read < 0) m.input.path.clear();
            m.input.offset += read < 0 ? 0 : static_cast<uint64_t>(read);
        }
        for (const Json& given : part(row, "files")) {
            const std::string path = path_of(given);
            files[path].file.path = path;
            take_file(files[path], given, rank.rank);
        }
        all = all && flag(row, "all_files", true);
        m.ranks.push_back(std::move(rank));
    }
    std::ranges::sort(m.ranks, {}, &Manifest::Rank::rank);
    for (auto& [path, seen] : files) {
        Manifest::File& file = seen.file;
        if (!all || seen.several) file.copy.reset();
        std::ranges::sort(file.ranks);
        file.ranks.erase(std::unique(file.ranks.begin(), file.ranks.end()), file.ranks.end());
        m.files.push_back(std::move(file));
    }
}

// Which application a rank is of, and what it is bound to.
void take_places(Manifest& m, const Json& facts) {
    std::map<uint32_t, const Json*> places;
    for (const Json& place : part(facts, "ranks")) {
        places[static_cast<uint32_t>(number(place, "rank"))] = &place;
    }
    for (Manifest::Rank& rank : m.ranks) {
        auto it = places.find(rank.rank);
        if (it == places.end()) continue;
        rank.app = static_cast<uint32_t>(number(*it->second, "app"));
        rank.binding = text(*it->second, "binding");
    }
}

}  // namespace

Manifest manifest_of(const SnapshotRun& run, const std::string& job, uint64_t epoch) {
    Manifest m;
    m.name = run.name;
    m.time = utc_now();
    m.kind = "full";
    m.pause_us = run.pause;
    m.total_us = run.lasted;
    m.bytes = run.written.bytes;
    m.job = job;
    m.epoch = epoch;
    m.uid = ::geteuid();
    take_facts(m, run.facts);
    take_rows(m, run.written.rows);
    take_places(m, run.facts);
    return m;
}

}  // namespace ghost::plugin
