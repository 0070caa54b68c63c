// Bytes in JSON.
#pragma once

#include <sodium.h>
#include <string>

namespace ghost::plugin {

inline constexpr int base64_variant = sodium_base64_VARIANT_ORIGINAL;

inline std::string encode(const void* data, size_t size) {
    std::string out(sodium_base64_encoded_len(size, base64_variant), '\0');
    sodium_bin2base64(out.data(), out.size(), static_cast<const unsigned char*>(data), size,
                      base64_variant);
    out.pop_back();  // the terminating zero
    return out;
}

// Empty if it is none.
inline std::string decode(const std::string& text) {
    std::string out(text.size(), '\0');
    size_t size = 0;
    if (sodium_base642bin(reinterpret_cast<unsigned char*>(out.data()), out.size(), text.data(),
                          text.size(), nullptr, &size, nullptr, base64_variant) != 0)
        size = 0;
    out.resize(size);
    return out;
}

}  // namespace ghost::plugin
