// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/snapshots/manifest.hpp"

#include <algorithm>
#include <array>
#include <ctime>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/clock.hpp"
#include "base/own_file.hpp"
#include "config.h"

namespace ghost::plugin {

namespace {

constexpr size_t largest_file = size_t{1} << 30;  // 100,000 ranks need a twentieth of it
constexpr size_t secret_digits = 64;

template <typename Items, typename Make>
Json list_json(const Items& items, Make make) {
    Json out = Json::array();
    for (const auto& item : items) out.push_back(make(item));
    return out;
}

// --- reading with strict checks ---

// One JSON object of the manifest. The first field that is missing or wrong becomes the error of
// all; what is read after it does not matter.
class Fields {
  public:
    Fields(const Json& object, std::string where, Status& status)
        : object_(object), where_(std::move(where)), status_(status) {
        if (!object.is_object()) fail("", "is no object");
    }

    void take(const char* key, std::string& out) {
        const Json* value = find(key);
        if (value != nullptr && !bytes_from(*value, out)) fail(key, "is no text");
    }
    template <typename Number>
    requires std::is_integral_v<Number>
    void take(const char* key, Number& out) {
        const Json* value = find(key);
        if (value == nullptr) return;
        const bool fits = value->is_number_unsigned()
                              ? value->get<uint64_t>() <=
                                    static_cast<uint64_t>(std::numeric_limits<Number>::max())
                              : value->is_number_integer() && std::is_signed_v<Number> &&
                                    value->get<int64_t>() >=
                                        static_cast<int64_t>(std::numeric_limits<Number>::min());
        if (!fits) return fail(key, "is no number that fits");
        out = value->get<Number>();
    }
    void take(const char* key, std::vector<std::string>& out) {
        each(key, [&](const Json& item, const std::string&) {
            out.emplace_back();
            if (!bytes_from(item, out.back())) fail(key, "has an entry that is no text");
        });
    }
    void take(const char* key, std::vector<uint32_t>& out) {
        each(key, [&](const Json& item, const std::string&) {
            if (!item.is_number_unsigned() || item.get<uint64_t>() > UINT32_MAX)
                return fail(key, "has an entry that is no rank");
            out.push_back(item.get<uint32_t>());
        });
    }
    // The object in this field.
    Fields inside(const char* key) {
        static const Json nothing = Json::object();
        const Json* value = find(key);
        return Fields(value != nullptr ? *value : nothing, path(key), status_);
    }
    // Every entry of an array, with the name it has in errors.
    template <typename Action>
    void each(const char* key, Action action) {
        const Json* value = find(key);
        if (value == nullptr) return;
        if (!value->is_array()) return fail(key, "is no list");
        for (size_t i = 0; i < value->size() && status_.ok(); ++i)
            action((*value)[i], fmt::format("{}[{}]", path(key), i));
    }
    const Json* find(const char* key) {
        if (!status_.ok()) return nullptr;
        const auto found = object_.find(key);
        if (found != object_.end()) return &*found;
        fail(key, "is missing");
        return nullptr;
    }
    void fail(const char* key, const char* what) {
        if (status_.ok())
            status_ = make_error(Code::corrupt,
                                 "use the manifest:", fmt::format("{} {}", path(key), what));
    }

  private:
    std::string path(const char* key) const {
        return where_.empty() || *key == '\0' ? where_ + key : where_ + "." + key;
    }

    const Json& object_;
    std::string where_;
    Status& status_;
};

void read_rank(Fields in, Manifest::Rank& out) {
    in.take("rank", out.rank);
    in.take("app", out.app);
    in.take("node", out.node);
    in.take("binding", out.binding);
    in.take("file", out.file);
    in.take("kind", out.kind);
    in.take("chain", out.chain);
    in.take("digest", out.digest);
    in.take("bytes", out.bytes);
    in.take("page_bytes", out.page_bytes);
    in.take("memory", out.memory);
    in.take("pause_us", out.pause_us);
}

void read_lists(Fields& in, Status& status, Manifest& out) {
    in.each("apps", [&](const Json& item, const std::string& where) {
        Fields fields(item, where, status);
        Manifest::App& app = out.apps.emplace_back();
        fields.take("argv", app.argv);
        fields.take("np", app.np);
        fields.take("cwd", app.cwd);
    });
    in.each("nodes", [&](const Json& item, const std::string& where) {
        Fields fields(item, where, status);
        Manifest::Node& node = out.nodes.emplace_back();
        fields.take("id", node.id);
        fields.take("name", node.name);
        fields.take("slots", node.slots);
    });
    in.each("ranks", [&](const Json& item, const std::string& where) {
        read_rank(Fields(item, where, status), out.ranks.emplace_back());
    });
    in.each("files", [&](const Json& item, const std::string& where) {
        Fields fields(item, where, status);
        Manifest::File& file = out.files.emplace_back();
        fields.take("path", file.path);
        fields.take("size", file.size);
        fields.take("ranks", file.ranks);
        if (!item.is_object() || !item.contains("copy")) return;
        Fields copy = fields.inside("copy");
        Manifest::File::Copy& of = file.copy.emplace();
        copy.take("rank", of.rank);
        copy.take("size", of.size);
        copy.take("hash", of.hash);
    });
}

void read_parameters(Fields mpirun, Manifest& out) {
    const Json* all = mpirun.find("parameters");
    if (all == nullptr) return;
    if (!all->is_object()) return mpirun.fail("parameters", "is no object");
    for (const auto& [name, value] : all->items()) {
        if (!value.is_string() || !name.starts_with("ghost"))
            return mpirun.fail("parameters", "has an entry that is no parameter");
        out.parameters.push_back({name, value.get<std::string>()});
    }
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
Status check_sense(const Manifest& manifest, uint64_t ranks) {
    const auto wrong = [](std::string what) {
        return make_error(Code::corrupt, "use the manifest:", std::move(what));
    };
    if (manifest.job.empty() || manifest.job.find_first_not_of("0123456789") != std::string::npos)
        return wrong("job.name is no number");
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
    for (const auto& file : manifest.files)
        if (file.copy && file.copy->rank >= ranks)
            return wrong(
                fmt::format("no rank {} for the contents of {}", file.copy->rank, file.path));
    for (const auto& file : manifest.files)
        if (file.path.empty() || file.path[0] != '/')
            return wrong("a file's path is not absolute: " + file.path);
    return {};
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

}  // namespace

const Manifest::Rank* Manifest::find(uint32_t rank) const {
    const auto found =
        std::find_if(ranks.begin(), ranks.end(), [&](const Rank& row) { return row.rank == rank; });
    return found == ranks.end() ? nullptr : &*found;
}

std::string utc_now() {
    const int64_t now = realtime_us();
    const time_t seconds = now / 1000000;
    tm parts{};
    ::gmtime_r(&seconds, &parts);
    char text[32];
    ::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
    return fmt::format("{}.{:06}Z", text, now % 1000000);
}

std::string manifest_digest(const Json& object) {
    Json rest = object;
    rest.erase("digest");
    const std::string text = rest.dump(-1, ' ', false, Json::error_handler_t::replace);
    return fmt::format("{:016x}", XXH3_64bits(text.data(), text.size()));
}

Json manifest_json(const Manifest& m) {
    Json parameters = Json::object();
    for (const auto& [name, value] : m.parameters) parameters[name] = value;
    Json out{
        {"format", manifest_format},
        {"version", PACKAGE_VERSION},
        {"name", m.name},
        {"time", m.time},
        {"kind", m.kind},
        {"pause_us", m.pause_us},
        {"total_us", m.total_us},
        {"bytes", m.bytes},
        {"job", {{"name", m.job}, {"epoch", m.epoch}, {"ranks", m.ranks.size()}, {"uid", m.uid}}},
        {"runtime",
         {{"name", m.runtime}, {"version", m.runtime_version}, {"pmix", m.pmix_version}}},
        {"mpirun",
         {{"argv", list_json(m.mpirun_argv, bytes_json)},
          {"cwd", bytes_json(m.mpirun_cwd)},
          {"parameters", parameters}}},
        {"stdin",
         {{"rank", m.input.rank}, {"path", bytes_json(m.input.path)}, {"offset", m.input.offset}}}};
    out["apps"] = list_json(m.apps, [](const Manifest::App& app) {
        return Json{{"argv", list_json(app.argv, bytes_json)},
                    {"np", app.np},
                    {"cwd", bytes_json(app.cwd)}};
    });
    out["nodes"] = list_json(m.nodes, [](const Manifest::Node& node) {
        return Json{{"id", node.id}, {"name", node.name}, {"slots", node.slots}};
    });
    out["ranks"] = list_json(m.ranks, [](const Manifest::Rank& r) {
        return Json{{"rank", r.rank},     {"app", r.app},
                    {"node", r.node},     {"binding", r.binding},
                    {"file", r.file},     {"kind", r.kind},
                    {"chain", r.chain},   {"digest", r.digest},
                    {"bytes", r.bytes},   {"page_bytes", r.page_bytes},
                    {"memory", r.memory}, {"pause_us", r.pause_us}};
    });
    out["files"] = list_json(m.files, [](const Manifest::File& file) {
        Json out{{"path", bytes_json(file.path)}, {"size", file.size}, {"ranks", file.ranks}};
        if (file.copy)
            out["copy"] = {
                {"rank", file.copy->rank}, {"size", file.copy->size}, {"hash", file.copy->hash}};
        return out;
    });
    out["digest"] = manifest_digest(out);
    return out;
}

Result<Manifest> manifest_from(const Json& object) {
    Status status;
    Fields in(object, "", status);
    int64_t format = 0;
    in.take("format", format);
    if (!status.ok()) return status.error();
    if (format != manifest_format)
        return make_error(
            Code::unsupported, "use the manifest:",
            fmt::format("it is of format {}, this Ghost reads {}", format, manifest_format));
    std::string digest;
    in.take("digest", digest);
    if (status.ok() && digest != manifest_digest(object))
        in.fail("", "has been changed: digest differs");
    if (!status.ok()) return status.error();
    Manifest out;
    in.take("version", out.version);
    in.take("name", out.name);
    in.take("time", out.time);
    in.take("kind", out.kind);
    in.take("pause_us", out.pause_us);
    in.take("total_us", out.total_us);
    in.take("bytes", out.bytes);
    uint64_t ranks = 0;
    Fields job = in.inside("job");
    job.take("name", out.job);
    job.take("epoch", out.epoch);
    job.take("ranks", ranks);
    job.take("uid", out.uid);
    Fields runtime = in.inside("runtime");
    runtime.take("name", out.runtime);
    runtime.take("version", out.runtime_version);
    runtime.take("pmix", out.pmix_version);
    Fields mpirun = in.inside("mpirun");
    mpirun.take("argv", out.mpirun_argv);
    mpirun.take("cwd", out.mpirun_cwd);
    read_parameters(mpirun, out);
    Fields input = in.inside("stdin");
    input.take("rank", out.input.rank);
    input.take("path", out.input.path);
    input.take("offset", out.input.offset);
    read_lists(in, status, out);
    if (status.ok()) status = check_sense(out, ranks);
    if (!status.ok()) return status.error();
    return out;
}

Result<Manifest> read_manifest(const std::string& folder) {
    const std::string path = folder + "/" + manifest_file;
    auto text = read_all(path);
    if (!text) return text.error();
    const Json object = Json::parse(*text, nullptr, false);
    if (object.is_discarded())
        return make_error(Code::corrupt, "use the manifest: cut off or no JSON:", path);
    auto manifest = manifest_from(object);
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
