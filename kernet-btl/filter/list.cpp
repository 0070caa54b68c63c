// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/filter/list.hpp"

#include <algorithm>
#include <cstring>
#include <sodium.h>
#include <string_view>

#include "kernet-btl/filter/builtin.hpp"

namespace kernet::filter {

namespace {

struct Known {
    std::string_view name;
    char separator;  // between name and option
    Made (*make)(const std::string& option);
};

constexpr Known table[] = {
    {"crypto", '=', make_crypto},
    {"compress", '=', make_compress},
    {"backup", '=', make_backup},
    {"so", ':', make_shared_object},
};

ghost::Error wrong(const std::string& word, const std::string& why) {
    return ghost::make_error(ghost::Code::invalid, "use filter \"" + word + "\"", {}, why);
}

Made make(const std::string& word) {
    for (const Known& known : table) {
        if (!word.starts_with(known.name)) continue;
        std::string option = word.substr(known.name.size());
        if (!option.empty() && option.front() != known.separator) continue;
        if (!option.empty()) option.erase(0, 1);
        auto made = known.make(option);
        if (!made) return wrong(word, made.error().message());
        return made;
    }
    return wrong(word, "there are crypto, compress, backup=FOLDER and so:/PATH");
}

}  // namespace

Result<List> List::parse(const std::string& text) {
    List list;
    if (text.empty() || text == "none") return list;
    for (size_t at = 0; at <= text.size();) {
        const size_t end = std::min(text.find(',', at), text.size());
        auto made = make(text.substr(at, end - at));
        if (!made) return made.error();
        list.recipes_.push_back(std::move(*made));
        at = end + 1;
    }
    // Sealed bytes do not get smaller: compression goes before crypto, whichever was named first.
    for (size_t i = 1; i < list.recipes_.size(); i++) {
        if (!list.recipes_[i]->before_sealing()) continue;
        for (size_t j = 0; j < i; j++) {
            if (!list.recipes_[j]->seals()) continue;
            const auto first = list.recipes_.begin();
            std::rotate(first + static_cast<ptrdiff_t>(j), first + static_cast<ptrdiff_t>(i),
                        first + static_cast<ptrdiff_t>(i) + 1);
            break;
        }
    }
    return list;
}

Status List::prepare() {
    for (auto& recipe : recipes_) {
        if (auto ready = recipe->prepare(); !ready) {
            ghost::Error error = ready.error();
            const std::string why = error.message();
            return ghost::make_error(error.code, "use filter \"" + recipe->name() + "\"", {}, why);
        }
    }
    return {};
}

std::string List::name() const {
    std::string out;
    for (const auto& recipe : recipes_) out += (out.empty() ? "" : ",") + recipe->name();
    return out.empty() ? "none" : out;
}

uint64_t List::digest() const {
    if (empty()) return 0;
    const std::string text = name();
    uint8_t hash[crypto_generichash_BYTES_MIN];
    crypto_generichash(hash, sizeof hash, reinterpret_cast<const uint8_t*>(text.data()),
                       text.size(), nullptr, 0);
    uint64_t digest;
    std::memcpy(&digest, hash, sizeof digest);
    return digest | 1;
}

Chain List::chain(const SocketId& socket) const {
    std::vector<std::unique_ptr<Filter>> filters;
    for (const auto& recipe : recipes_) filters.push_back(recipe->make(socket));
    return Chain(std::move(filters));
}

}  // namespace kernet::filter
