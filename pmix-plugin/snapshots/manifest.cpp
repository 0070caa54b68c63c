// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/snapshots/manifest.hpp"

#include <algorithm>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/clock.hpp"
#include "base/encoding.hpp"
#include "base/json_text.hpp"
#include "base/own_file.hpp"
#include "base/schema_json.hpp"
#include "base/utc.hpp"
#include "config.h"

namespace ghost::plugin {

namespace {

constexpr size_t largest_file = size_t{1} << 30;  // 100,000 ranks need a twentieth of it
constexpr size_t secret_digits = 64;

// What must be right before the rest is looked at.
struct FormatOf {
    int64_t format = 0;
    static const schema::Record table;
};
struct Seal {
    std::string digest;
    static const schema::Record table;
};

using schema::Field;
using schema::field;
using schema::Record;
using schema::record;

constexpr Field format_fields[] = {field<&FormatOf::format>("format", "of the manifest")};
constexpr Field seal_fields[] = {field<&Seal::digest>("digest", "of the rest")};

constexpr Field job_fields[] = {
    field<&Manifest::Job::name>("name", "its number in decimal"),
    field<&Manifest::Job::epoch>("epoch", "of the placement that was saved"),
    field<&Manifest::Job::ranks>("ranks", "how many it has"),
    field<&Manifest::Job::uid>("uid", "user it ran as"),
};
constexpr Field runtime_fields[] = {
    field<&Manifest::Runtime::name>("name", "the runtime's"),
    field<&Manifest::Runtime::version>("version", "of the runtime"),
    field<&Manifest::Runtime::pmix>("pmix", "version of PMIx"),
};
constexpr Field app_fields[] = {
    field<&Manifest::App::argv>("argv", "program and its arguments").as_name(),
    field<&Manifest::App::np>("np", "how many ranks it has"),
    field<&Manifest::App::cwd>("cwd", "folder it began in").as_name(),
};
constexpr Field mpirun_fields[] = {
    field<&Manifest::Mpirun::argv>("argv", "its command line").as_name(),
    field<&Manifest::Mpirun::cwd>("cwd", "folder it was started in").as_name(),
    field<&Manifest::Mpirun::parameters>("parameters", "ghost_… that the user had set"),
};
constexpr Field input_fields[] = {
    field<&Manifest::Input::rank>("rank", "that gets mpirun's standard input"),
    field<&Manifest::Input::path>("path", "of it; empty: no regular file").as_name(),
    field<&Manifest::Input::offset>("offset", "up to which it was read").in("bytes"),
};
constexpr Field node_fields[] = {
    field<&Manifest::Node::id>("id", "number of its daemon"),
    field<&Manifest::Node::name>("name", "the node's"),
    field<&Manifest::Node::slots>("slots", "that mpirun counted there"),
};
constexpr Field rank_fields[] = {
    field<&Manifest::Rank::rank>("rank", "its number"),
    field<&Manifest::Rank::app>("app", "index in `apps`"),
    field<&Manifest::Rank::node>("node", "where it ran"),
    field<&Manifest::Rank::binding>("binding", "as the runtime names it; empty: none, or unknown"),
    field<&Manifest::Rank::file>("file", "in the snapshot's folder"),
    field<&Manifest::Rank::kind>("kind", "full or incremental"),
    field<&Manifest::Rank::chain>("chain", "files of the ghosts it is based on, nearest first"),
    field<&Manifest::Rank::digest>("digest", "the ghost's own"),
    field<&Manifest::Rank::bytes>("bytes", "of the file").in("bytes"),
    field<&Manifest::Rank::page_bytes>("page_bytes", "of memory in the ghost").in("bytes"),
    field<&Manifest::Rank::memory>("memory", "that a restart needs").in("bytes"),
    field<&Manifest::Rank::pause_us>("pause_us", "its tree was frozen").in("µs"),
    field<&Manifest::Rank::signer>("signer", "public key of its ghost and of their parents"),
    field<&Manifest::Rank::copy>("copy", "another node that has all of these files"),
};
constexpr Field copy_fields[] = {
    field<&Manifest::File::Copy::rank>("rank", "whose ghost has it"),
    field<&Manifest::File::Copy::size>("size", "of the file then").in("bytes"),
    field<&Manifest::File::Copy::hash>("hash", "of its contents"),
};
constexpr Field begin_fields[] = {
    field<&Manifest::File::Begin::size>("size", "of it").in("bytes"),
    field<&Manifest::File::Begin::hash>("hash", "of its contents"),
    field<&Manifest::File::Begin::modified>("modified", "when it was written last")
        .in("ns")
        .or_default(),
};
constexpr Field file_fields[] = {
    field<&Manifest::File::path>("path", "absolute").as_name(),
    field<&Manifest::File::size>("size", "the largest that any of the ranks saw").in("bytes"),
    field<&Manifest::File::ranks>("ranks", "that had it open"),
    field<&Manifest::File::copy>("copy", "its contents, if a ghost has them"),
    field<&Manifest::File::begin>("begin", "what it must begin with, if none has"),
};
constexpr Field parity_fields[] = {
    field<&Manifest::Parity::groups>("groups", "of nodes"),
};
constexpr Field signed_fields[] = {
    field<&Manifest::Signed::signer>("signer", "public key"),
    field<&Manifest::Signed::secret>("secret", "BLAKE2b-256 of the job's"),
    field<&Manifest::Signed::signature>("signature", "Ed25519"),
};
constexpr Field manifest_fields[] = {
    field<&Manifest::format>("format", "1"),
    field<&Manifest::version>("version", "of Ghost"),
    field<&Manifest::name>("name", "of the snapshot's folder"),
    field<&Manifest::time>("time", "UTC"),
    field<&Manifest::kind>("kind", "full or incremental"),
    field<&Manifest::pause_us>("pause_us", "the job was paused").in("µs"),
    field<&Manifest::total_us>("total_us", "the snapshot took").in("µs"),
    field<&Manifest::bytes>("bytes", "of all ghosts").in("bytes"),
    field<&Manifest::job>("job", "whose it is"),
    field<&Manifest::runtime>("runtime", "that it ran under"),
    field<&Manifest::apps>("apps", "its applications"),
    field<&Manifest::mpirun>("mpirun", "how it was started"),
    field<&Manifest::input>("stdin", "mpirun's standard input"),
    field<&Manifest::nodes>("nodes", "it ran on"),
    field<&Manifest::ranks>("ranks", "all of them, ascending"),
    field<&Manifest::files>("files", "regular files that were open for writing"),
    field<&Manifest::parity>("parity", "of the ghosts, if there is"),
    field<&Manifest::signature>("signature", "if it is signed"),
    field<&Manifest::digest>("digest", "XXH3-64 over the rest, 16 hex digits"),
};
constexpr Field place_fields[] = {
    field<&JobDescription::Place::rank>("rank", "its number"),
    field<&JobDescription::Place::app>("app", "index in `apps`"),
    field<&JobDescription::Place::binding>("binding", "as the runtime names it"),
};
constexpr Field description_fields[] = {
    field<&JobDescription::runtime>("runtime", "that it runs under"),
    field<&JobDescription::apps>("apps", "its applications"),
    field<&JobDescription::mpirun>("mpirun", "how it was started"),
    field<&JobDescription::input>("stdin", "mpirun's standard input"),
    field<&JobDescription::nodes>("nodes", "it runs on"),
    field<&JobDescription::ranks>("ranks", "where they are"),
};

// The object's fields, whatever else it has.
template <typename T>
Result<T> part_of(const Json& object) {
    auto read = schema::from_json<T>(object);
    if (read) return read;
    return make_error(Code::corrupt, "use the manifest:", read.error().why);
}

// A file of a snapshot's folder: what comes out of a manifest must not lead anywhere else.
bool plain_name(const std::string& name) {
    return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos;
}

bool parent_name(const std::string& name) {
    const auto slash = name.find('/');
    return slash != std::string::npos && plain_name(name.substr(0, slash)) &&
           plain_name(name.substr(slash + 1));
}

// What is wrong with a rank's row; "" if nothing is.
const char* fault_of(const Manifest::Rank& rank, size_t apps) {
    if (rank.app >= apps) return "belongs to no application";
    if (!plain_name(rank.file)) return "has no file of this folder";
    if (rank.kind != "full" && rank.kind != "incremental") return "is neither full nor incremental";
    if ((rank.kind == "full") != rank.chain.empty()) return "has parents that do not fit its kind";
    if (!std::all_of(rank.chain.begin(), rank.chain.end(), parent_name))
        return "has a parent outside of the folder of snapshots";
    if (rank.digest.empty()) return "has no digest";
    return "";
}

// Fields that contradict each other.
Status check_sense(const Manifest& manifest) {
    const uint64_t ranks = manifest.job.ranks;
    const auto wrong = [](std::string what) {
        return make_error(Code::corrupt, "use the manifest:", std::move(what));
    };
    const std::string& job = manifest.job.name;
    if (job.empty() || job.find_first_not_of("0123456789") != std::string::npos)
        return wrong("job.name is no number");
    for (const auto& [name, value] : manifest.mpirun.parameters)
        if (!name.starts_with("ghost"))
            return wrong("mpirun.parameters has an entry that is no parameter");
    if (manifest.ranks.size() != ranks || ranks == 0)
        return wrong(fmt::format("{} ranks are listed of {}", manifest.ranks.size(), ranks));
    uint64_t started = 0;
    for (const auto& app : manifest.apps) {
        started += app.np;
        if (app.argv.empty()) return wrong("an application has no program");
    }
    if (started != ranks)
        return wrong(fmt::format("the applications have {} ranks of {}", started, ranks));
    for (size_t i = 0; i < manifest.ranks.size(); ++i) {
        if (manifest.ranks[i].rank != i)
            return wrong(
                fmt::format("rank {} stands where rank {} should", manifest.ranks[i].rank, i));
        if (const char* fault = fault_of(manifest.ranks[i], manifest.apps.size()); *fault != '\0')
            return wrong(fmt::format("rank {} {}", i, fault));
    }
    for (const auto& set : manifest.parity.value_or(Manifest::Parity()).groups) {
        if (!parent_name(set.file(0)) || set.members.size() < 2)
            return wrong("parity is outside of the folder of snapshots, or of no group");
        for (const auto& member : set.members)
            for (const auto& file : member.files)
                if (!parent_name(file.file))
                    return wrong("parity is of a file outside of the folder of snapshots");
    }
    for (const auto& file : manifest.files)
        if (file.copy && file.copy->rank >= ranks)
            return wrong(
                fmt::format("no rank {} for the contents of {}", file.copy->rank, file.path));
    for (const auto& file : manifest.files)
        if (file.path.empty() || file.path[0] != '/')
            return wrong("a file's path is not absolute: " + file.path);
    return {};
}

// --- signatures ---

template <size_t size>
std::string hex_of(const std::array<unsigned char, size>& bytes) {
    return encode_hex({reinterpret_cast<const char*>(bytes.data()), size});
}

Error not_signed(std::string why) {
    return make_error(Code::refused, "check the signature of the snapshot", {}, std::move(why));
}

// What is signed of a manifest: it can stand for nothing else that is signed.
std::string statement_of(Json object, const PublicKey& signer) {
    object.erase("digest");
    if (object.is_object() && object.contains("signature") && object["signature"].is_object())
        object["signature"].erase("signature");
    const auto hash = wide_hash(object.dump(-1, ' ', false, Json::error_handler_t::replace));
    return "ghost manifest 1 " + signer.hex() + " " + hex_of(hash);
}

// --- files ---

Result<std::string> read_all(const std::string& path) {
    const auto fd = open_own_file(path);
    if (!fd) return fd.error();
    std::string text;
    std::vector<char> buffer(1 << 16);
    for (;;) {
        const ssize_t n = ::read(fd->get(), buffer.data(), buffer.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return sys_error("read", path);
        if (n == 0) return text;
        text.append(buffer.data(), static_cast<size_t>(n));
        if (text.size() > largest_file) return make_error(Code::corrupt, "read all of", path);
    }
}

Status write_synced(const std::string& path, const std::string& text) {
    const auto fd = open_own_file(path, O_WRONLY | O_CREAT | O_TRUNC);
    if (!fd) return fd.error();
    for (size_t done = 0; done < text.size();) {
        const ssize_t n = ::write(fd->get(), text.data() + done, text.size() - done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return sys_error("write", path);
        done += static_cast<size_t>(n);
    }
    if (::fsync(fd->get()) != 0) return sys_error("sync", path);
    return {};
}

constinit const Record FormatOf::table = record<FormatOf>("manifest", "", format_fields);
constinit const Record Seal::table = record<Seal>("manifest", "", seal_fields);

}  // namespace

constinit const Record Manifest::Job::table =
    record<Job>("job", "whose snapshot it is", job_fields);
constinit const Record Manifest::Runtime::table =
    record<Runtime>("runtime", "that the job ran under", runtime_fields);
constinit const Record Manifest::App::table = record<App>("app", "an application", app_fields);
constinit const Record Manifest::Mpirun::table =
    record<Mpirun>("mpirun", "how the job was started", mpirun_fields);
constinit const Record Manifest::Input::table =
    record<Input>("stdin", "mpirun's standard input", input_fields);
constinit const Record Manifest::Node::table =
    record<Node>("node", "that the job ran on", node_fields);
constinit const Record Manifest::Rank::table = record<Rank>("rank", "a rank's ghost", rank_fields);
constinit const Record Manifest::File::Copy::table =
    record<Copy>("copy", "who has a file's contents", copy_fields);
constinit const Record Manifest::File::Begin::table =
    record<Begin>("begin", "of a file", begin_fields);
constinit const Record Manifest::File::table =
    record<File>("file", "that was open for writing", file_fields);
constinit const Record Manifest::Parity::table =
    record<Parity>("parity", "of a snapshot's ghosts", parity_fields);
constinit const Record Manifest::Signed::table =
    record<Signed>("signature", "of a snapshot", signed_fields);
constinit const Record Manifest::table =
    record<Manifest>("manifest", "of a snapshot", manifest_fields);
constinit const Record JobDescription::Place::table =
    record<Place>("place", "of a rank", place_fields);
constinit const Record JobDescription::table =
    record<JobDescription>("job", "that is saved", description_fields);

const Manifest::Rank* Manifest::find(uint32_t rank) const {
    const auto found =
        std::find_if(ranks.begin(), ranks.end(), [&](const Rank& row) { return row.rank == rank; });
    return found == ranks.end() ? nullptr : &*found;
}

std::string utc_now() {
    return utc_text(realtime_us());
}

std::string manifest_digest(const Json& object) {
    Json rest = object;
    rest.erase("digest");
    const std::string text = rest.dump(-1, ' ', false, Json::error_handler_t::replace);
    return fmt::format("{:016x}", XXH3_64bits(text.data(), text.size()));
}

Json manifest_json(Manifest manifest) {
    manifest.version = PACKAGE_VERSION;
    manifest.job.ranks = manifest.ranks.size();
    Json out = schema::to_json(manifest);
    out["digest"] = manifest_digest(out);
    return out;
}

Status sign_manifest(Manifest& manifest, const SigningKey& key, const std::string& secret) {
    for (const auto& rank : manifest.ranks)
        if (!rank.signer)
            return make_error(Code::corrupt, "sign the snapshot", {},
                              fmt::format("the ghost of rank {} is not signed", rank.rank));
    manifest.signature = {key.public_key().hex(), hex_of(short_hash(secret)), {}};
    const auto text = statement_of(manifest_json(manifest), key.public_key());
    manifest.signature->signature = hex_of(key.sign(text));
    return {};
}

Status check_signature(const Json& object, const PublicKey& signer) {
    if (!object.is_object() || !object.contains("signature")) return not_signed("it is not signed");
    const auto given = part_of<Manifest::Signed>(object["signature"]);
    if (!given) return given.error();
    if (given->signer != signer.hex())
        return not_signed("it is signed by another, whose key is " + given->signer);
    Signature signature{};
    const auto bytes = decode_hex(given->signature);
    if (bytes && bytes->size() == signature.size())
        std::copy(bytes->begin(), bytes->end(), signature.begin());
    if (!bytes || bytes->size() != signature.size() ||
        !signer.has_signed(statement_of(object, signer), signature))
        return not_signed("its manifest is not what was signed");
    return {};
}

Status check_secret(const Manifest& manifest, const std::string& secret) {
    if (!manifest.signature || manifest.signature->secret == hex_of(short_hash(secret))) return {};
    return not_signed("the job's secret is not what was signed");
}

Result<Manifest> manifest_from(const Json& object) {
    const auto of = part_of<FormatOf>(object);
    if (!of) return of.error();
    if (of->format != manifest_format)
        return make_error(
            Code::unsupported, "use the manifest:",
            fmt::format("it is of format {}, this Ghost reads {}", of->format, manifest_format));
    const auto seal = part_of<Seal>(object);
    if (!seal) return seal.error();
    if (seal->digest != manifest_digest(object))
        return make_error(Code::corrupt, "use the manifest:", "has been changed: digest differs");
    auto out = part_of<Manifest>(object);
    if (!out) return out;
    if (Status sense = check_sense(*out); !sense.ok()) return sense.error();
    return out;
}

Result<Manifest> read_manifest(const std::string& folder, const std::optional<PublicKey>& signer) {
    const std::string path = folder + "/" + manifest_file;
    auto text = read_all(path);
    if (!text) return text.error();
    const Json object = parse_json(*text);
    if (object.is_discarded())
        return make_error(Code::corrupt, "use the manifest: cut off or no JSON:", path);
    auto manifest = manifest_from(object);
    if (manifest.ok() && signer)
        if (auto made = check_signature(object, *signer); !made.ok()) manifest = made.error();
    if (manifest.ok()) return manifest;
    Error error = manifest.error();
    error.object += " (" + path + ")";
    return error;
}

Status write_manifest(const std::string& folder, const Manifest& manifest) {
    return write_synced(
        folder + "/" + manifest_file,
        manifest_json(manifest).dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
}

Status write_secret(const std::string& folder, const std::string& secret) {
    return write_synced(folder + "/" + secret_file, secret + "\n");
}

Result<std::string> read_secret(const std::string& folder) {
    const std::string path = folder + "/" + secret_file;
    auto text = read_all(path);
    if (!text) return text.error();
    while (!text->empty() && text->back() == '\n') text->pop_back();
    if (text->size() != secret_digits ||
        text->find_first_not_of("0123456789abcdef") != std::string::npos)
        return make_error(Code::corrupt, "use the secret of the job:", path);
    return text;
}

}  // namespace ghost::plugin
