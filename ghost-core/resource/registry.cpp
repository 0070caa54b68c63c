// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/resource/registry.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <dlfcn.h>
#include <fmt/format.h>
#include <fstream>

#include "ghost-core/resource/compress.hpp"
#include "ghost-core/resource/file.hpp"
#include "ghost-core/resource/memory.hpp"
#include "ghost-core/resource/network.hpp"
#include "ghost-core/resource/stripe.hpp"
#include "ghost-core/resource/tee.hpp"
#include "ghost-core/resource/user_class.hpp"

namespace ghost::core {
namespace {

using Made = Result<std::unique_ptr<Resource>>;
using Parameters = ResourceParameters;

Error invalid(const std::string& what, const std::string& object) {
    return make_error(Code::invalid, "use resource", object, what);
}

Result<int> number_option(const Parameters& parameters, const char* name, int otherwise) {
    const auto at = parameters.options.find(name);
    if (at == parameters.options.end()) return otherwise;
    int value = 0;
    const auto& text = at->second;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size())
        return invalid(fmt::format("option {} is no number", name), text);
    return value;
}

// "a;{b;c}" as "a" and "b;c".
std::vector<std::string> split(const std::string& text) {
    std::vector<std::string> out(1);
    int depth = 0;
    for (const char c : text) {
        if (c == '{') depth++;
        if (c == '}') depth--;
        if (c == ';' && depth == 0)
            out.emplace_back();
        else
            out.back() += c;
    }
    for (auto& part : out)
        if (part.size() >= 2 && part.front() == '{' && part.back() == '}')
            part = part.substr(1, part.size() - 2);
    return out;
}

Result<std::vector<std::unique_ptr<Resource>>> several(const ResourceRegistry& registry, Use use,
                                                       const std::string& text) {
    std::vector<std::unique_ptr<Resource>> out;
    for (const auto& part : split(text)) {
        auto one = registry.make(part, use);
        if (!one) return one.error();
        out.push_back(std::move(*one));
    }
    return out;
}

Made make_file(const ResourceRegistry& registry, Use use, const Parameters& parameters) {
    if (parameters.rest.empty()) return invalid("a path is missing", "file");
    return std::unique_ptr<Resource>(
        std::make_unique<FileResource>(parameters.rest, use, registry.trusted()));
}

Made make_memory(const ResourceRegistry&, Use, const Parameters&) {
    return std::unique_ptr<Resource>(std::make_unique<MemoryResource>());
}

Made make_compress(Compression algorithm, const ResourceRegistry& registry, Use use,
                   const Parameters& parameters) {
    auto level = number_option(parameters, "level", algorithm == Compression::zstd ? 1 : 0);
    if (!level) return level.error();
    auto inner = registry.make(parameters.rest, use);
    if (!inner) return inner;
    if (use == Use::read) return CompressResource::reader(std::move(*inner));
    return CompressResource::writer(std::move(*inner), algorithm, *level);
}

Made make_encrypt(const ResourceRegistry& registry, Use use, const Parameters& parameters) {
    const auto path = parameters.options.find("key");
    if (path == parameters.options.end()) return invalid("option key=FILE is missing", "encrypt");
    auto key = SecretKey::load(path->second);
    if (!key) return key.error();
    auto inner = registry.make(parameters.rest, use);
    if (!inner) return inner;
    return std::unique_ptr<Resource>(
        std::make_unique<EncryptResource>(std::move(*inner), use, std::move(*key)));
}

Made make_stripe(const ResourceRegistry& registry, Use use, const Parameters& parameters) {
    auto members = several(registry, use, parameters.rest);
    if (!members) return members.error();
    return std::unique_ptr<Resource>(std::make_unique<StripeResource>(std::move(*members), use));
}

Made make_tee(const ResourceRegistry& registry, Use use, const Parameters& parameters) {
    auto members = several(registry, use, parameters.rest);
    if (!members) return members.error();
    if (members->size() != 2) return invalid("tee takes two resources", parameters.rest);
    return std::unique_ptr<Resource>(
        std::make_unique<TeeResource>(std::move((*members)[0]), std::move((*members)[1]), use));
}

Made make_network(const ResourceRegistry&, Use use, const Parameters& parameters) {
    const auto token = parameters.options.find("token");
    const auto secret_file = parameters.options.find("secret");
    const auto colon = parameters.rest.rfind(':');
    if (use == Use::read) return invalid("the reading side has to listen", "network");
    if (token == parameters.options.end() || secret_file == parameters.options.end() ||
        colon == std::string::npos)
        return invalid("network,token=T,secret=FILE:HOST:PORT is wanted", parameters.rest);
    std::ifstream in(secret_file->second);
    std::string secret;
    if (!std::getline(in, secret) || secret.empty())
        return invalid("the file has no secret", secret_file->second);
    const int port = std::atoi(parameters.rest.c_str() + colon + 1);
    auto made =
        NetworkResource::connect(parameters.rest.substr(0, colon), port, token->second, secret);
    if (!made) return made.error();
    return std::unique_ptr<Resource>(std::move(*made));
}

struct Builtin {
    ResourceClass id;
    const char* name;
    Made (*make)(const ResourceRegistry&, Use, const Parameters&);
};

// Compression has one id and two names: reading finds out which it was.
Made make_lz4(const ResourceRegistry& registry, Use use, const Parameters& parameters) {
    return make_compress(Compression::lz4, registry, use, parameters);
}
Made make_zstd(const ResourceRegistry& registry, Use use, const Parameters& parameters) {
    return make_compress(Compression::zstd, registry, use, parameters);
}

constexpr Builtin builtins[] = {
    {ResourceClass::memory, "memory", make_memory},
    {ResourceClass::file, "file", make_file},
    {ResourceClass::network, "network", make_network},
    {ResourceClass::compress, "zstd", make_zstd},
    {ResourceClass::encrypt, "encrypt", make_encrypt},
    {ResourceClass::stripe, "stripe", make_stripe},
    {ResourceClass::tee, "tee", make_tee},
};

bool is_name(const std::string& name) {
    return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
    });
}

// "level=3,x=y" after the name.
Result<std::map<std::string, std::string>> options_of(const std::string& text) {
    std::map<std::string, std::string> out;
    for (size_t at = 0; at < text.size();) {
        const auto end = std::min(text.find(',', at), text.size());
        const auto equals = text.find('=', at);
        if (equals == std::string::npos || equals >= end)
            return invalid("an option is NAME=VALUE", text.substr(at, end - at));
        out[text.substr(at, equals - at)] = text.substr(equals + 1, end - equals - 1);
        at = end + 1;
    }
    return out;
}

}  // namespace

Result<size_t> PeekableResource::read(void* data, size_t size) {
    if (!looking_ && at_ < first_.size()) {
        const size_t part = std::min(size, first_.size() - at_);
        std::memcpy(data, first_.data() + at_, part);
        at_ += part;
        return part;
    }
    auto got = in_->read(data, size);
    if (looking_ && got) first_.append(static_cast<const char*>(data), *got);
    return got;
}

Result<std::string_view> PeekableResource::look(size_t size) {
    std::string start(size, 0);
    for (size_t had = 0; had < size;) {
        auto part = read(start.data(), size - had);
        if (!part) return part.error();
        if (*part == 0) break;
        had += *part;
    }
    begin_again();
    return std::string_view(first_);
}

ResourceRegistry::ResourceRegistry() : classes_(std::make_shared<Classes>()) {
    for (const auto& one : builtins)
        classes_->kinds[static_cast<uint32_t>(one.id)] = {static_cast<uint32_t>(one.id), one.name,
                                                          one.make};
}

ResourceRegistry::~ResourceRegistry() = default;

ResourceRegistry::Classes::~Classes() {
    kinds.clear();
    for (void* library : libraries) dlclose(library);
}

Status ResourceRegistry::add(ResourceKind kind) {
    const auto label = fmt::format("{} ({})", kind.name, kind.id);
    if (kind.id < static_cast<uint32_t>(ResourceClass::user))
        return make_error(Code::invalid, "add resource class", label, "ids below 1000 are Ghost's");
    if (!is_name(kind.name) || kind.name == "lz4")
        return make_error(Code::invalid, "add a resource class of the name", label);
    if (const auto found = classes_->kinds.find(kind.id); found != classes_->kinds.end())
        return Error{Code::refused, "add resource class", label,
                     fmt::format("its id is that of \"{}\"", found->second.name), EEXIST};
    for (const auto& [id, other] : classes_->kinds)
        if (other.name == kind.name)
            return Error{Code::refused, "add resource class", label, "its name is taken", EEXIST};
    classes_->kinds[kind.id] = std::move(kind);
    return {};
}

Status ResourceRegistry::load(const std::string& shared_object) {
    // a name without a folder would be looked for in the system's
    const auto path =
        shared_object.find('/') == std::string::npos ? "./" + shared_object : shared_object;
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return make_error(Code::io, "load resource class", {}, dlerror());
    auto kind = user_class(library, path);
    auto added = kind.ok() ? add(std::move(*kind)) : Status(kind.error());
    if (added.ok())
        classes_->libraries.push_back(library);
    else
        dlclose(library);
    return added;
}

Made ResourceRegistry::make(uint32_t id, Use use, const std::string& parameters) const {
    const auto found = classes_->kinds.find(id);
    if (found == classes_->kinds.end()) return invalid("no class has the id", std::to_string(id));
    return found->second.make(*this, use, {{}, parameters});
}

Made ResourceRegistry::make(const std::string& specification, Use use) const {
    const auto colon = specification.find(':');
    const auto name_end = std::min(specification.find_first_of(",:"), specification.size());
    const auto name = specification.substr(0, name_end);
    const ResourceKind* kind = nullptr;
    for (const auto& [id, one] : classes_->kinds)
        if (one.name == name) kind = &one;
    const bool lz4 = name == "lz4";
    if (colon == std::string::npos || (kind == nullptr && !lz4))
        return make_file(*this, use, {{}, specification});  // a path, which may have colons too
    Parameters parameters;
    parameters.rest = specification.substr(colon + 1);
    if (name_end < colon) {
        auto options = options_of(specification.substr(name_end + 1, colon - name_end - 1));
        if (!options) return options.error();
        parameters.options = std::move(*options);
    }
    return lz4 ? make_lz4(*this, use, parameters) : kind->make(*this, use, parameters);
}

Made ResourceRegistry::open(const std::string& specification, std::shared_ptr<SecretKey> key,
                            std::optional<PublicKey>* says_signer) const {
    auto made = make(specification, Use::read);
    if (!made) return made;
    auto current = std::move(*made);
    // compressed, encrypted and signed, in any order; more layers make no sense
    bool is_signed = false;
    const SignResource* signed_one = nullptr;
    for (int layer = 0;; layer++) {
        GHOST_TRY(current->init());
        if (signed_one != nullptr && says_signer != nullptr)
            *says_signer = signed_one->says_signer();
        signed_one = nullptr;
        auto opened = std::make_unique<PeekableResource>(std::move(current));
        auto start = opened->look(CompressResource::start_bytes);
        if (!start) return start.error();
        const bool enough = start->size() == CompressResource::start_bytes && layer < 4;
        if (enough && CompressResource::is_mine(start->data())) {
            current = CompressResource::reader(std::move(opened));
        } else if (enough && EncryptResource::is_mine(start->data())) {
            if (!key)
                return make_error(Code::refused, "read ghost", specification,
                                  "it is encrypted, a key is needed");
            current = std::make_unique<EncryptResource>(std::move(opened), Use::read, key);
        } else if (enough && SignResource::is_mine(start->data())) {
            auto reader = SignResource::reader(std::move(opened), signer_);
            signed_one = reader.get();
            current = std::move(reader);
            is_signed = true;
        } else if (signer_ && !is_signed) {
            return make_error(Code::refused, "read ghost", specification, "it is not signed");
        } else if (enough && StripeResource::is_mine(start->data())) {
            return make_error(Code::invalid, "read ghost", specification,
                              "it is one part of a striped one, name all as stripe:PART;PART…");
        } else {
            return std::unique_ptr<Resource>(std::move(opened));
        }
    }
}

}  // namespace ghost::core
